"""A client in JavaScript, written from the .proto files alone, against a real daemon."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

JS = Path(__file__).parent / "js"
PROTO = Path(__file__).parents[2] / "proto"
INSTALL_TIMEOUT = 45  # seconds; pytest ends a test after 60
SCENARIO_TIMEOUT = 40

pytestmark = pytest.mark.interop


@pytest.fixture(scope="session")
def node_path() -> Path:
    """Install the client's two packages once per version of package.json, outside the repository."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    manifest = (JS / "package.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "irisd-tests" / f"js-{hashlib.sha256(manifest).hexdigest()[:16]}"
    if not folder.exists():
        # Made beside and moved into place: several test runs may be at it at once, and one may be interrupted.
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix="js-"))
        try:
            (fresh / "package.json").write_bytes(manifest)
            install(npm, fresh)
            with suppress(OSError):  # somebody else was quicker
                fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder / "node_modules"


def install(npm: str, folder: Path) -> None:
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=INSTALL_TIMEOUT)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm install did not end within {INSTALL_TIMEOUT} s")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm install failed, offline perhaps: {error.stderr.decode()[-300:]}")


@dataclass
class Running:
    """A daemon of service `shop`, on a Unix socket and on loopback TCP."""

    process: asyncio.subprocess.Process
    unix: str
    tcp: str
    token: str


@pytest_asyncio.fixture
async def daemon(run_dir: Path) -> AsyncIterator[Running]:
    token = "a-token-for-javascript"
    (run_dir / "token").touch(mode=0o600)
    (run_dir / "token").write_text(token)
    irisd = [sys.executable, "-m", "irisd"]
    new_key = await asyncio.create_subprocess_exec(*irisd, "keys", "new", "shop", "-o", str(run_dir / "shop.key"))
    assert await new_key.wait() == 0
    settings = ["--key", str(run_dir / "shop.key"), "--listen", "127.0.0.1:0", "--socket", str(run_dir / "irisd.sock")]
    settings += ["--multicast", "off"]
    settings += ["--attach-tcp", "127.0.0.1:0", "--token-file", str(run_dir / "token"), "--log-format", "json"]
    process = await asyncio.create_subprocess_exec(
        *irisd, "run", *settings, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(15):
            unix, tcp = await _attach_urls(process)
        yield Running(process, unix.replace("unix://", "unix:"), tcp.removeprefix("tcp://"), token)
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(15):
                _, said = await process.communicate()
        except TimeoutError:
            process.kill()
            raise
    assert process.returncode == 0, said.decode()


async def _attach_urls(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stderr is not None
    said = b""
    while line := await process.stderr.readline():
        said += line
        if line.startswith(b"{"):
            fact = json.loads(line)
            if fact.get("event") == "daemon.started":
                return list(fact["attach"])
    raise AssertionError(f"the daemon ended before it started: {said.decode()}")


async def run_scenario(node_path: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Run scenario.js to its end; return its steps by name."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(JS / "scenario.js"),
        str(PROTO),
        *arguments,
        env={**os.environ, "NODE_PATH": str(node_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SCENARIO_TIMEOUT):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        pytest.fail(f"scenario.js did not end; it said:\n{out.decode()}{err.decode()}")
    assert process.returncode == 0, f"{out.decode()}{err.decode()}"
    steps = [json.loads(line) for line in out.splitlines()]
    return {step.pop("step"): step for step in steps}


def expect_everything(steps: dict[str, dict[str, Any]]) -> None:
    welcome = steps["welcome"]
    assert welcome["max_body"] == 8 * 1024 * 1024
    assert len(bytes.fromhex(welcome["node"])) == 16
    assert welcome["version"]
    assert steps["joined"]["id"] % 2 == 1

    assert steps["request"]["body"] == "HELLO blue text/plain true"
    assert steps["request"]["member"]
    assert steps["no-member"] == {"code": "NO_MEMBER", "executed": "NO", "reason": "", "body": ""}
    assert steps["bad-name"]["code"] == "INVALID"
    assert steps["rejected"] == {"code": "REJECTED", "executed": "YES", "reason": "missing", "body": "no such row"}
    assert (steps["failed"]["code"], steps["failed"]["executed"]) == ("HANDLER_FAILED", "YES")
    assert steps["deadline"]["code"] == "DEADLINE_EXCEEDED"
    assert steps["deadline"]["executed"] == "MAYBE"
    assert steps["deadline"]["told"] == "KIND_CANCEL"
    assert steps["parts"] == {"same": True, "digest": True}
    assert steps["concurrent"] == {"right": True}

    assert steps["push"] == {"heard": ["a job"]}
    assert steps["broadcast"] == {"count": 1, "heard": ["to all"]}
    assert steps["survey"] == {"answers": ["answer to who is there?"], "asked": 1}

    batch = ["js.orders.us=one", "js.orders.us=", "js.orders.us=three"]
    assert steps["events"] == {"lost": 0, "ordered": [True, True], "batch": [batch, batch], "told": 0}
    assert steps["tunnel"] == {"same": True}
    assert steps["tunnel-aborted"]["code"] in ("CANCELLED", "TUNNEL_BROKEN")
    assert steps["tunnel-to-nobody"]["code"] == "NO_MEMBER"

    not_found, invalid_argument, ok = 5, 3, 0
    assert steps["control"] == {"services": ["shop"], "cluster": [1], "refused": not_found}
    assert steps["left"]["code"] == "NO_MEMBER"
    assert steps["rule-broken"]["status"] == invalid_argument
    assert "odd" in steps["rule-broken"]["details"]
    assert steps["closed"] == {"codes": [ok, ok]}


async def test_every_pattern_over_the_unix_socket(daemon, node_path):
    expect_everything(await run_scenario(node_path, daemon.unix, "shop"))


async def test_every_pattern_over_tcp_with_a_token(daemon, node_path):
    expect_everything(await run_scenario(node_path, daemon.tcp, "shop", daemon.token))


async def test_the_service_may_go_unnamed_when_there_is_one(daemon, node_path):
    steps = await run_scenario(node_path, daemon.unix, "")
    assert steps["closed"] == {"codes": [0, 0]}
