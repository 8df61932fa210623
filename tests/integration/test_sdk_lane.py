"""The SDK's choice of a lane, and its life on the local one: against real daemons, killed on either side."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import iris_client as iris
from iris_client import _lane_local, sync
from iris_client._lane_local import LocalLane
from iris_proto.v1 import control_pb2 as pb
from tests.integration.attach_glue import ask_control, channel_to
from tests.integration.sdk_ground import PATIENCE, App, DaemonProcess, new_key


@pytest.fixture
def daemon(run_dir: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(run_dir, "one", "--key", str(new_key(run_dir))).start()
    yield daemon
    daemon.kill()


async def status(url: str) -> pb.ServiceStatus:
    async with channel_to(url) as channel:
        [service] = (await ask_control(channel, "GetStatus", pb.GetStatusRequest(), pb.Status)).services
        return service


async def test_it_is_chosen_by_itself_and_shows(daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch):
    async with iris.connect(daemon.url, timeout=PATIENCE) as mesh:
        assert mesh.lane == "local"
        async with iris.connect(daemon.url, lane="grpc") as other:
            assert other.lane == "grpc"
            await asyncio.gather(mesh.flush(), other.flush())
            found = await status(daemon.url)
            assert (found.attachments, found.local_attachments) == (2, 1)
        monkeypatch.setenv("IRIS_LANE", "grpc")
        async with iris.connect(daemon.url) as other, iris.connect(daemon.url, lane="local") as local:
            assert (other.lane, local.lane) == ("grpc", "local")
    assert "too_many" not in daemon.log.read_text()


def test_threads_have_it_too(daemon: DaemonProcess):
    with sync.connect(daemon.url, timeout=PATIENCE, lane="local") as mesh:
        assert mesh.lane == "local"
        mesh.flush()


@pytest.mark.parametrize("lane", ["", "tcp", "Local"])
def test_a_lane_there_is_not(lane: str):
    with pytest.raises(iris.InvalidCall, match=f"lane='{lane}': auto, grpc or local"):
        iris.connect(lane=lane)


async def test_a_daemon_that_has_none(run_dir: Path):
    daemon = DaemonProcess(run_dir, "one", "--key", str(new_key(run_dir)), "--local-lane", "false").start()
    try:
        async with iris.connect(daemon.url, timeout=PATIENCE) as mesh:
            assert mesh.lane == "grpc"
        with pytest.raises(iris.DaemonUnavailable, match="lane='local': the daemon offers no local lane here"):
            await iris.connect(daemon.url, timeout=0.5, lane="local")
    finally:
        daemon.kill()


async def test_a_lane_that_cannot_be_reached_is_done_without(daemon: DaemonProcess, run_dir: Path):
    """As in a container that was given the one socket and not the other."""
    async with iris.connect(daemon.url, timeout=PATIENCE):
        pass
    (run_dir / "one.lane").rename(run_dir / "elsewhere")
    async with iris.connect(daemon.url) as mesh:
        assert mesh.lane == "grpc"
        await mesh.flush()
    with pytest.raises(iris.DaemonUnavailable, match=r"lane='local': .*one\.lane: No such file or directory"):
        await iris.connect(daemon.url, timeout=0.5, lane="local")


async def test_a_lane_that_does_not_answer_is_not_waited_for_long(daemon: DaemonProcess, run_dir: Path):
    async with iris.connect(daemon.url, timeout=PATIENCE):
        pass
    (run_dir / "one.lane").unlink()
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_unix_server(lambda reader, writer: held.append(writer), run_dir / "one.lane")
    async with server, asyncio.timeout(PATIENCE), iris.connect(daemon.url) as mesh:
        assert mesh.lane == "grpc"
        await mesh.flush()
    for writer in held:
        writer.close()


async def test_what_is_published_stays_in_order_and_a_new_stream_moves_again(daemon: DaemonProcess):
    async with (
        iris.connect(daemon.url, timeout=PATIENCE) as mesh,
        iris.connect(daemon.url, timeout=PATIENCE) as reader,
        reader.subscribe("t") as events,
    ):
        found: list[int] = []

        async def read() -> None:
            async for event in events:
                found.append(int(event.body))
                if found[-1] == 99_999:
                    return

        reading = asyncio.create_task(read())
        for number in range(100_000):
            await mesh.publish("t", b"%d" % number)
        await mesh.flush()
        await asyncio.wait_for(reading, PATIENCE)
        assert found == list(range(100_000))
        detached = asyncio.Event()
        mesh.on_state(lambda change: detached.set())
        daemon.kill()
        await asyncio.wait_for(detached.wait(), PATIENCE)
        for number in range(1000):
            await mesh.publish("u", b"%d" % number)
        daemon.start()
        await mesh.flush()
        assert mesh.lane == reader.lane == "local"


@pytest.mark.parametrize("lane", ["grpc", "local"])
async def test_a_daemon_that_stops_says_so_on_every_lane(daemon: DaemonProcess, lane: str):
    async with iris.connect(daemon.url, timeout=PATIENCE, lane=lane) as mesh:
        changes: asyncio.Queue[iris.StateChange] = asyncio.Queue()
        mesh.on_state(changes.put_nowait)
        daemon.terminate()
        told = [await asyncio.wait_for(changes.get(), PATIENCE) for _ in range(2)]
        assert told == [
            iris.StateChange(iris.State.DRAINING, "the daemon is shutting down"),
            iris.StateChange(iris.State.DETACHED, "the daemon is shutting down; attach again elsewhere or later"),
        ]


async def test_it_needs_no_grpc_once_it_has_moved(daemon: DaemonProcess):
    async with iris.connect(daemon.url, timeout=PATIENCE, lane="local") as mesh:
        assert mesh._connection is not None
        lane = mesh._connection._lane
        assert isinstance(lane, LocalLane)
        async with asyncio.timeout(PATIENCE):
            while lane._stream is not None:
                await asyncio.sleep(0.001)
        await mesh.flush()
        assert (await status(daemon.url)).local_attachments == 1


async def test_a_daemon_that_stands_still_is_missed(daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_lane_local, "PING_INTERVAL", 0.05)
    monkeypatch.setattr(_lane_local, "PING_TIMEOUT", 0.5)
    async with iris.connect(daemon.url, timeout=PATIENCE, lane="local") as mesh:
        changes: asyncio.Queue[iris.StateChange] = asyncio.Queue()
        mesh.on_state(changes.put_nowait)
        await asyncio.sleep(0.7)  # it answers, again and again
        assert changes.empty()
        daemon.signal(signal.SIGSTOP)
        try:
            change = await asyncio.wait_for(changes.get(), PATIENCE)
        finally:
            daemon.signal(signal.SIGCONT)
        assert change == iris.StateChange(iris.State.DETACHED, "the daemon has not answered for 0.5 s")
        assert (await asyncio.wait_for(changes.get(), PATIENCE)).state is iris.State.ATTACHED
        await mesh.flush()


MEMBER = """
import asyncio, sys
import iris_client as iris

cluster = iris.Cluster("fragile")

@cluster.on_request
async def hang(body):
    print("request", flush=True)
    await asyncio.Event().wait()

async def main():
    async with iris.connect(sys.argv[1], timeout=20, lane="local") as mesh, mesh.join(cluster):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_an_app_that_is_killed_on_the_lane(daemon: DaemonProcess):
    app = await App.start(MEMBER, daemon.url)
    try:
        assert await app.line() == "ready"
        async with iris.connect(daemon.url, lane="local") as mesh:
            request = asyncio.create_task(mesh.request("fragile", timeout=PATIENCE))
            assert await app.line() == "request"
            await app.kill()
            with pytest.raises(iris.MemberLost):
                await request
            assert (await status(daemon.url)).attachments == 1
    finally:
        await app.kill()


PARENT = """
import asyncio, os, sys, time
import iris_client as iris

async def main():
    mesh = await iris.connect(sys.argv[1], timeout=20, lane="local").__aenter__()
    parent = os.getpid()
    if os.fork() == 0:
        for stream in (0, 1, 2):
            os.close(stream)
        while os.getppid() == parent:
            time.sleep(0.05)
        time.sleep(5)  # it lives on
        os._exit(0)
    await mesh.flush()
    print("forked", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_child_does_not_hide_that_its_parent_was_killed(daemon: DaemonProcess):
    app = await App.start(PARENT, daemon.url)
    try:
        assert await app.line() == "forked"
        assert (await status(daemon.url)).attachments == 1
        await app.kill()
        async with asyncio.timeout(4):
            while (await status(daemon.url)).attachments:
                await asyncio.sleep(0.05)
    finally:
        await app.kill()


async def test_a_large_body_and_many_small_ones_at_once(daemon: DaemonProcess):
    cluster = iris.Cluster("echo", concurrency=64)

    @cluster.on_request
    async def echo(body: bytes) -> bytes:
        return body

    async with iris.connect(daemon.url, timeout=PATIENCE) as mesh, mesh.join(cluster):
        large = bytes(range(256)) * (20 << 12)  # 20 MiB
        bodies = [large, *(b"%d" % number for number in range(500))]
        replies = await asyncio.gather(*(mesh.request("echo", body, timeout=PATIENCE) for body in bodies))
        assert [reply.body for reply in replies] == bodies
