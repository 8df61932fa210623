"""What every test stands on: short socket paths, no leaked tasks, no traffic off this machine."""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

import irisd
from irisd.cli import build

settings.register_profile("short", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a shell's background: what tests start must not be
    signal.signal(signal.SIGINT, signal.default_int_handler)

LEAK_GRACE = 2.0  # seconds a cancelled task may need to finish before it counts as leaked


def _stays_here(address: object) -> bool:
    """Tell whether traffic to this address stays on the machine (multicast is bound to loopback by its tests)."""
    if not isinstance(address, tuple):
        return True  # a Unix socket path, netlink ...
    host = str(address[0]).partition("%")[0]
    if host in ("", "localhost"):
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False  # a name somebody else would have to resolve
    return ip.is_loopback or ip.is_multicast or ip.is_unspecified


def _guard(event: str, args: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        sock, address = args[0], args[-1]
        internet = isinstance(sock, socket.socket) and sock.family in (socket.AF_INET, socket.AF_INET6)
        if internet and not _stays_here(address):
            raise RuntimeError(f"a test tried to reach {address!r}: tests keep their traffic on this machine")


sys.addaudithook(_guard)


def pytest_report_header() -> str:
    return f"irisd{build()}: {Path(irisd.__file__).parent}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if build() and item.get_closest_marker("source") is not None:
        pytest.skip("replaces what a compiled build has fixed")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """Give a private runtime folder with a path short enough for Unix sockets (108 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="irisd-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own settings out of the tests."""
    for name in list(os.environ):
        if name.startswith(("IRISD_", "IRIS_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _leaks_no_task(request: pytest.FixtureRequest) -> None:
    """Watch tests that run on an event loop; the pure ones never get one."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_task_watch")


@pytest_asyncio.fixture
async def _task_watch() -> AsyncIterator[None]:
    """Fail a test that leaves a task behind. Set up first, so it looks after all other fixtures are gone."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=LEAK_GRACE)
    assert not left, "tasks left behind: " + ", ".join(sorted(str(task.get_coro()) for task in left))
