"""The ``irisd`` command with a real daemon behind it: it starts, tells, links, refuses clearly and ends well."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from iris_proto.v1 import control_pb2, control_pb2_grpc

DEADLINE = 20.0  # seconds for anything that should take milliseconds


class Process:
    """An irisd whose standard error is read as it comes."""

    def __init__(self, arguments: list[str], run_dir: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "irisd", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(run_dir), "IRISD_MULTICAST": "off", **environment},
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.lines.append("<end>")
            self._changed.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def line(self, has: str) -> str:
        """Wait for the first line with ``has`` in it."""

        def found() -> str | None:
            return next((line for line in self.lines if has in line), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or "<end>" in self.lines, DEADLINE)
            line = found()
        assert line is not None, f"no {has!r} in:\n{self.output}"
        return line

    def told(self, number: int) -> int:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status


@pytest.fixture
def start(run_dir) -> Iterator[Callable[..., Process]]:
    begun: list[Process] = []

    def begin(*arguments: str, **environment: str) -> Process:
        begun.append(Process(list(arguments), run_dir, **environment))
        return begun[-1]

    yield begin
    for each in begun:
        if each.process.poll() is None:
            each.process.kill()
        each.ended()
        assert each.process.stderr is not None
        each.process.stderr.close()


def status_of(path: Path) -> control_pb2.Status:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        return control_pb2_grpc.ControlStub(channel).GetStatus(control_pb2.GetStatusRequest(), timeout=DEADLINE)


def peers_of(path: Path) -> int:
    return sum(service.peers for service in status_of(path).services)


def await_peers(path: Path, wanted: int) -> None:
    ends = time.monotonic() + DEADLINE
    while (found := peers_of(path)) != wanted:
        assert time.monotonic() < ends, f"{found} peers instead of {wanted}"
        time.sleep(0.02)  # between two looks at the state that is awaited


def test_the_command_it_prints_starts_a_second_daemon_in_the_same_service(start, run_dir):
    first = start(IRISD_LISTEN="127.0.0.1:0")
    assert "loopback only, with a fresh key" in first.line("development daemon")
    command = shlex.split(first.line("irisd run --key"))
    second = start(*command[1:])
    second.line("daemon.started")
    folder = run_dir / "irisd"
    await_peers(folder / "irisd.sock", 1)
    await_peers(folder / "irisd-2.sock", 1)
    assert any(each.name == "development-key" for each in status_of(folder / "irisd.sock").conditions)

    assert second.told(signal.SIGTERM) == 0
    await_peers(folder / "irisd.sock", 0)
    assert first.told(signal.SIGTERM) == 0
    assert list(folder.iterdir()) == [], "socket, lock and key are gone"


def test_the_key_never_shows(start, run_dir):
    daemon = start(IRISD_LISTEN="127.0.0.1:0", IRISD_LOG_LEVEL="debug")
    daemon.line("IRIS_URL")
    (key_file,) = (run_dir / "irisd").glob("development-*.key")
    seed = next(line for line in key_file.read_text().splitlines() if line.startswith("seed")).split()[1]
    command = Path(f"/proc/{daemon.process.pid}/cmdline")
    if command.exists():
        assert seed not in command.read_text()
    assert daemon.told(signal.SIGINT) == 0
    assert seed not in daemon.output


def test_two_daemons_on_one_socket(start, run_dir):
    first = start(IRISD_LISTEN="127.0.0.1:0")
    first.line("IRIS_URL")
    second = start(IRISD_LISTEN="127.0.0.1:0")
    assert second.ended() == 1
    assert "another daemon is listening on" in second.line("irisd: error:")
    assert "Traceback" not in second.output
    assert len(status_of(run_dir / "irisd" / "irisd.sock").services) == 1, "the first one is well"


def test_a_port_in_use(start):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        daemon = start(IRISD_LISTEN=f"127.0.0.1:{port}")
        assert daemon.ended() == 1
        assert str(port) in daemon.line("irisd: error:")
        assert "Traceback" not in daemon.output


def test_a_stale_socket_is_no_obstacle(start, run_dir):
    first = start(IRISD_LISTEN="127.0.0.1:0")
    first.line("IRIS_URL")
    first.process.kill()
    first.ended()
    assert (run_dir / "irisd" / "irisd.sock").exists()
    second = start(IRISD_LISTEN="127.0.0.1:0")
    second.line("IRIS_URL")
    keys = list((run_dir / "irisd").glob("development-*.key"))
    assert [key.name for key in keys] == [f"development-{second.process.pid}.key"], "the dead one's key was removed"
    assert second.told(signal.SIGTERM) == 0


@pytest.mark.parametrize("arguments", [[], ["run"]])
def test_a_missing_runtime_folder(start, run_dir, arguments):
    daemon = start(*arguments, IRISD_LISTEN="127.0.0.1:0", IRISD_SOCKET=str(run_dir / "no" / "such" / "irisd.sock"))
    assert daemon.ended() == 1
    assert "does not exist" in daemon.line("irisd: error:")
    assert "Traceback" not in daemon.output


def test_a_flood_of_nonsense_on_the_link_port_disturbs_nobody(start, run_dir):
    daemon = start(IRISD_LISTEN="127.0.0.1:0")
    host, _, port = daemon.line("links   tcp://").rpartition("//")[2].rpartition(":")
    for _ in range(50):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as stranger:
            stranger.sendall(os.urandom(512))
    assert status_of(run_dir / "irisd" / "irisd.sock").services[0].peers == 0
    assert daemon.told(signal.SIGTERM) == 0
