"""Daemons that are told to stop, killed or stopped in the middle; what those who use them see."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import iris_client as iris

from .bad_input_ground import PATIENCE, daemons, status_of, url_of
from .cli_iris_ground import Mesh, environment, until

TOKEN = "a-token-of-enough-bytes"


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with daemons("oak") as mesh:
        yield mesh


# ---------------------------------------------------------------------------------- signals


def holding() -> tuple[iris.Cluster, asyncio.Event, asyncio.Event]:
    """A cluster whose handler takes its time; what says that it has begun, and what lets it end."""
    cluster, begun, let_go = iris.Cluster("slow"), asyncio.Event(), asyncio.Event()

    @cluster.on_request
    async def hold(body: bytes) -> bytes:
        begun.set()
        await let_go.wait()
        return body

    return cluster, begun, let_go


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_daemon_told_to_stop_lets_what_is_under_way_end(mesh: Mesh, number: int) -> None:
    cluster, begun, let_go = holding()
    daemon = mesh._daemons["oak"]
    async with iris.connect(url_of(mesh)) as server, server.join(cluster), iris.connect(url_of(mesh)) as app:
        asking = asyncio.create_task(app.request("slow", b"x", timeout=PATIENCE))
        await begun.wait()
        daemon.process.send_signal(number)
        await asyncio.to_thread(until, "it drains", lambda: "daemon.draining" in daemon.err)
        with pytest.raises(iris.IrisError):  # and takes nothing new
            await app.request("slow", b"x", timeout=0.2)
        let_go.set()
        assert (await asking).body == b"x"
        assert await asyncio.to_thread(daemon.ended) == 0
    assert not mesh.socket("oak").exists()


async def test_a_second_signal_does_not_wait(mesh: Mesh) -> None:
    cluster, begun, let_go = holding()
    daemon = mesh._daemons["oak"]
    async with iris.connect(url_of(mesh)) as server, server.join(cluster), iris.connect(url_of(mesh)) as app:
        asking = asyncio.create_task(app.request("slow", b"x", timeout=60))
        await begun.wait()
        daemon.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(until, "it drains", lambda: "daemon.draining" in daemon.err)
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.ended) == 0
        assert time.monotonic() - began < 4  # not the five seconds it gives its work
        with pytest.raises((iris.Detached, iris.MemberLost), match="executed: maybe"):
            await asking
        let_go.set()
    assert "daemon.drain_cut_short" in daemon.err


def test_a_signal_to_reload(tmp_path: Path) -> None:
    """SIGHUP reads the token again; one that is no good leaves the old one, and says why."""
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(TOKEN + "\n")
    with daemons("oak", flags=("--attach-tcp", "127.0.0.1:0", "--token-file", str(token))) as mesh:
        daemon = mesh._daemons["oak"]
        [tcp] = [
            row.address
            for row in mesh.asked("GetStatus").listeners
            if row.address.startswith("tcp") and row.purpose == "attach"
        ]

        def status(secret: str) -> int:
            return mesh.iris("status", "--url", tcp, check=False, IRIS_TOKEN_FILE=secret).returncode

        assert status(str(token)) == 0
        token.write_text("short\n")
        daemon.process.send_signal(signal.SIGHUP)
        until("it says why not", lambda: "daemon.reload_failed" in daemon.err)
        assert "shorter than 16 bytes" in daemon.err
        token.write_text(TOKEN + "\n")
        assert status(str(token)) == 0
        token.write_text("another-token-of-enough-bytes\n")
        daemon.process.send_signal(signal.SIGHUP)
        until("it has read it", lambda: "daemon.reloaded" in daemon.err)
        assert status(str(token)) == 0
        assert daemon.told(signal.SIGTERM) == 0


# ------------------------------------------------------- a daemon killed under the command line


def test_a_daemon_killed_under_those_who_outlive_it(mesh: Mesh) -> None:
    """They say that it is gone and that it is back, and go on."""
    serving = mesh.background("serve", "shout", "--", "tr", "a-z", "A-Z")
    reading = mesh.background("subscribe", "a.>")
    told = mesh.background("subscribe", "a.>", "--json")
    mesh.await_members("shout", 1)
    mesh.await_subscribers("a.>", 2)
    for number in (signal.SIGKILL, signal.SIGTERM):
        mesh._daemons["oak"].told(number)
        gone = mesh.iris("request", "shout", "x", "--timeout", "200ms", check=False)
        assert gone.returncode == 1
        assert b"Start one with: irisd" in gone.stderr
        mesh.daemon("oak")
        mesh.await_members("shout", 1)
        mesh.await_subscribers("a.>", 2)
        assert mesh.iris("request", "shout", "hello").stdout == b"HELLO"
        mesh.iris("publish", "a.b", "back")
    until("both came", lambda: reading.out.count(b"a.b back\n") == 2)
    again = "iris: attached again to unix://"
    until("they say so", lambda: all(process.err.count(again) == 2 for process in (serving, reading)))
    for process in (serving, reading):
        assert process.err.count("iris: warning: the daemon is gone (") == 2
        assert "Stream removed" not in process.err  # our words, not those of a library
    assert '{"warning":"Detached","reason":"' in told.err
    assert serving.told(signal.SIGTERM) == 0
    for process in (reading, told):
        assert process.told(signal.SIGINT) == 130


def test_a_daemon_killed_under_those_who_end_with_it(mesh: Mesh) -> None:
    """A request and a tunnel say what is known, and exit 1."""
    mesh.background("serve", "slow", "--", "sleep", "60")
    mesh.background("serve", "sink", "--tunnel", "--", "sh", "-c", "cat > /dev/null")
    mesh.await_members("slow", 1)
    mesh.await_members("sink", 1)
    asking = mesh.background("request", "slow", "x", "--timeout", "30s")
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        tunnel = mesh.background("tunnel", "sink", stdin=endless.stdout)

        def under_way() -> bool:
            service = mesh.asked("GetStatus").services[0]
            return service.counters["calls.requests"] == 1 and service.counters["tunnel.bytes"] > 1 << 20

        until("both are under way", under_way)
        mesh._daemons["oak"].told(signal.SIGKILL)
        assert (asking.ended(), tunnel.ended()) == (1, 1)
        endless.kill()
    gone = "the daemon closed the connection, or is gone"
    assert asking.err.startswith(f"iris: error: request to 'slow': {gone} (executed: maybe)")
    assert tunnel.err.startswith(f"iris: error: tunnel to 'sink': {gone}; it broke after ")
    assert "move it again" in tunnel.err


def test_a_server_that_is_killed_leaves_no_command_behind(mesh: Mesh, run_dir: Path) -> None:
    """``iris serve`` told twice ends what it started; its callers are told."""
    pid = run_dir / "pid"
    serving = mesh.background("serve", "slow", "--", "sh", "-c", f"echo $$ > {pid}; exec sleep 60")
    mesh.await_members("slow", 1)
    asking = mesh.background("request", "slow", "x", "--timeout", "30s")
    until("it runs", lambda: pid.exists() and pid.read_text().strip() != "")
    serving.process.send_signal(signal.SIGTERM)
    until("it drains", lambda: "finishing what is under way" in serving.err)
    assert serving.told(signal.SIGTERM) == 128 + signal.SIGTERM
    assert asking.ended() == 1
    assert "executed: maybe" in asking.err
    until("the command is gone", lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())


# ------------------------------------------------------------------- a daemon that stands still


async def test_a_daemon_that_stands_still_holds_up_nobody_else() -> None:
    """SIGSTOP at one of two: what needs it waits no longer than it said, what does not goes on; then all is well."""
    with daemons("oak", "elm") as mesh:
        near, far, both = iris.Cluster("near"), iris.Cluster("far"), iris.Cluster("both")
        for cluster in (near, far, both):
            cluster.on_request(lambda body: body)
        elm = status_of(url_of(mesh, "elm")).pid
        async with (
            iris.connect(url_of(mesh)) as app,
            iris.connect(url_of(mesh, "elm")) as other,
            app.join(near, both),
            other.join(far),
        ):
            assert (await app.request("far", b"x")).body == b"x"
            os.kill(elm, signal.SIGSTOP)
            try:
                began = time.monotonic()
                with pytest.raises((iris.DeadlineExceeded, iris.MemberLost)):
                    await app.request("far", b"x", timeout=0.5)
                assert time.monotonic() - began < 2
                for _ in range(50):
                    assert (await app.request("near", b"x", timeout=0.5)).body == b"x"
                with pytest.raises(grpc.RpcError):
                    await asyncio.to_thread(status_with, url_of(mesh, "elm"), 0.3)
                shown = await asyncio.to_thread(
                    subprocess.run,
                    [sys.executable, "-m", "iris_client.cli", "status", "--timeout", "300ms"],
                    capture_output=True,
                    env=environment(IRIS_URL=url_of(mesh, "elm")),
                )
                assert shown.returncode != 0
                assert b"Traceback" not in shown.stderr
            finally:
                os.kill(elm, signal.SIGCONT)
            await asyncio.to_thread(mesh.await_peers, 1, "oak")
            await asyncio.to_thread(mesh.await_members, "far", 1, "oak")
            assert (await app.request("far", b"x", timeout=PATIENCE)).body == b"x"


def status_with(url: str, timeout: float) -> None:
    from iris_proto.v1 import control_pb2, control_pb2_grpc

    with grpc.insecure_channel(url) as channel:
        control_pb2_grpc.ControlStub(channel).GetStatus(control_pb2.GetStatusRequest(), timeout=timeout)
