"""The SDK against real daemons, on every lane: every pattern across two of them, and what happens when one goes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

import iris_client as iris
from iris_client import Executed, MiB, State
from tests.integration.sdk_ground import PATIENCE, App, DaemonProcess, new_key


@pytest.fixture(autouse=True, params=["grpc", "local"])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which lane apps take."""
    lane: str = request.param
    monkeypatch.setenv("IRIS_LANE", lane)
    return lane


@pytest.fixture
def daemons(run_dir: Path) -> Iterator[list[DaemonProcess]]:
    key = str(new_key(run_dir))
    made = [DaemonProcess(run_dir, "one", "--key", key).start()]
    yield made
    for daemon in made:
        daemon.kill()


@pytest_asyncio.fixture
async def pair(daemons: list[DaemonProcess], run_dir: Path) -> list[DaemonProcess]:
    """Two daemons, linked."""
    address = await daemons[0].told(r'"links": \["(127\.0\.0\.1:\d+)"\]')
    daemons.append(DaemonProcess(run_dir, "two", "--key", str(run_dir / "shop.key"), "--seed", address).start())
    await daemons[0].told("link.up")
    await daemons[1].told("link.up")
    return daemons


@pytest_asyncio.fixture
async def caller(pair: list[DaemonProcess]) -> AsyncIterator[iris.Mesh]:
    async with iris.connect(pair[0].url, name="caller", timeout=PATIENCE) as mesh:
        yield mesh


@pytest_asyncio.fixture
async def server(pair: list[DaemonProcess]) -> AsyncIterator[iris.Mesh]:
    async with iris.connect(pair[1].url, name="server", timeout=PATIENCE) as mesh:
        yield mesh


def everything(release: asyncio.Event, seen: asyncio.Queue[object]) -> iris.Cluster:
    cluster = iris.Cluster("everything")

    @cluster.on_request
    async def echo(body: bytes) -> bytes:
        return body

    @cluster.on_request("wait")
    async def wait(body: bytes) -> bytes:
        seen.put_nowait("waiting")
        await release.wait()
        return body

    @cluster.on_push
    async def push(body: bytes) -> None:
        seen.put_nowait(body)

    @cluster.on_broadcast
    def broadcast(body: bytes) -> None:
        loop.call_soon_threadsafe(seen.put_nowait, body)

    @cluster.on_survey
    async def survey(body: bytes) -> bytes:
        return b"here"

    @cluster.on_tunnel
    async def tunnel(tunnel: iris.Tunnel) -> None:
        digest = hashlib.sha256()
        async for chunk in tunnel:
            digest.update(chunk)
        await tunnel.send(digest.digest())

    @cluster.on_tunnel("hang")
    async def hang(tunnel: iris.Tunnel) -> None:
        await tunnel.send(b"open")
        await release.wait()

    loop = asyncio.get_running_loop()
    return cluster


async def test_every_pattern_between_two_daemons(caller: iris.Mesh, server: iris.Mesh):
    seen: asyncio.Queue[object] = asyncio.Queue()
    async with server.join(everything(asyncio.Event(), seen)) as joined, server.subscribe("t.*") as events:
        assert joined.ready
        assert (await caller.request("everything", b"x")).body == b"x"
        large = bytes(range(256)) * (8 * MiB // 256)
        assert (await caller.request("everything", large, timeout=PATIENCE)).body == large
        assert (await caller.request("everything", large + b"x", timeout=PATIENCE)).body == large + b"x"
        with pytest.raises(iris.TooLarge, match="the limit is 268435456 bytes"):
            await caller.request("everything", bytes(256 * MiB + 1))
        await caller.push("everything", b"job")
        assert await seen.get() == b"job"
        assert await caller.broadcast("everything", b"all") == 1
        assert await seen.get() == b"all"
        async with caller.survey("everything", timeout=5.0) as survey:
            assert [answer.body async for answer in survey] == [b"here"]
        assert survey.silent == ()
        async with caller.tunnel("everything") as tunnel:
            for at in range(0, len(large), 100_000):
                await tunnel.send(large[at : at + 100_000])
            await tunnel.finish()
            assert await tunnel.receive() == hashlib.sha256(large).digest()
        for number in range(5000):
            await caller.publish("t.x", b"%d" % number)
        await caller.flush()
        found: list[bytes] = []
        async with asyncio.timeout(PATIENCE):
            async for batch in events.batches():
                found += [event.body for event in batch]
                if len(found) == 5000:
                    break
        assert found == [b"%d" % number for number in range(5000)]
        assert events.lost == 0
        with pytest.raises(iris.NoMember):
            await caller.request("nobody")


async def test_a_daemon_is_killed_and_comes_back(daemons: list[DaemonProcess]):
    daemon = daemons[0]
    release, seen = asyncio.Event(), asyncio.Queue[object]()
    states: asyncio.Queue[State] = asyncio.Queue()
    async with iris.connect(daemon.url, timeout=PATIENCE) as mesh:
        mesh.on_state(lambda change: states.put_nowait(change.state))
        async with mesh.join(everything(release, seen)), mesh.subscribe("t") as events:
            waiting = asyncio.create_task(mesh.request("everything", b"x", method="wait", timeout=PATIENCE))
            assert await seen.get() == "waiting"
            tunnel = await mesh.tunnel("everything").__aenter__()
            daemon.kill()
            with pytest.raises(iris.Detached) as caught:
                await waiting
            assert caught.value.executed is Executed.MAYBE
            with pytest.raises(iris.TunnelBroken):
                await tunnel.receive()
            assert await asyncio.wait_for(states.get(), PATIENCE) is State.DETACHED
            await mesh.publish("t", b"while away")
            new = asyncio.create_task(mesh.request("nobody", timeout=PATIENCE))
            daemon.start()  # finds the stale socket of the killed one
            assert await asyncio.wait_for(states.get(), PATIENCE) is State.ATTACHED
            with pytest.raises(iris.NoMember):
                await new
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        assert (await mesh.request("everything", b"again")).body == b"again"
                        break
                    except iris.NoMember:
                        await asyncio.sleep(0.01)
                await mesh.publish("t", b"back")
                found = []
                async for event in events:
                    found.append(event)
                    if event.body == b"back":
                        break
            assert found[0].lost is None
            release.set()


async def test_a_daemon_that_drains_lets_calls_end(daemons: list[DaemonProcess]):
    daemon = daemons[0]
    release, seen = asyncio.Event(), asyncio.Queue[object]()
    states: asyncio.Queue[State] = asyncio.Queue()
    async with iris.connect(daemon.url, timeout=PATIENCE) as mesh:
        mesh.on_state(lambda change: states.put_nowait(change.state))
        async with mesh.join(everything(release, seen)):
            waiting = asyncio.create_task(mesh.request("everything", b"x", method="wait", timeout=PATIENCE))
            assert await seen.get() == "waiting"
            daemon.terminate()
            assert await asyncio.wait_for(states.get(), PATIENCE) is State.DRAINING
            release.set()
            assert (await waiting).body == b"x"
            assert await asyncio.to_thread(daemon.wait) == 0
            assert await asyncio.wait_for(states.get(), PATIENCE) is State.DETACHED


MEMBER = """
import asyncio, sys
import iris_client as iris

cluster = iris.Cluster("fragile")

@cluster.on_request
async def hang(body):
    print("request", flush=True)
    await asyncio.Event().wait()

@cluster.on_tunnel
async def tunnel(tunnel: iris.Tunnel):
    await tunnel.send(b"open")
    print("tunnel", flush=True)
    await asyncio.Event().wait()

async def main():
    async with iris.connect(sys.argv[1], timeout=20) as mesh, mesh.join(cluster):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_an_app_that_vanishes_leaves_clear_errors_behind(pair: list[DaemonProcess], caller: iris.Mesh, lane: str):
    assert caller.lane == lane
    app = await App.start(MEMBER, pair[1].url, IRIS_LANE=lane)
    try:
        assert await app.line() == "ready"
        request = asyncio.create_task(caller.request("fragile", timeout=PATIENCE))
        assert await app.line() == "request"
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(iris.TunnelBroken):
                async with caller.tunnel("fragile") as tunnel:
                    assert await tunnel.receive() == b"open"
                    assert await app.line() == "tunnel"
                    await app.kill()
                    await tunnel.receive()
        with pytest.raises(iris.MemberLost) as caught:
            await request
        assert caught.value.executed is Executed.MAYBE
        with pytest.raises(iris.NoMember):
            await caller.request("fragile")
    finally:
        await app.kill()


async def test_a_watch_over_two_daemons_and_the_end_of_one(
    pair: list[DaemonProcess], caller: iris.Mesh, server: iris.Mesh
):
    cluster, there = everything(asyncio.Event(), asyncio.Queue()), server.node
    async with asyncio.timeout(2 * PATIENCE), caller.watch("everything") as changes, server.watch() as theirs:
        assert await changes.picture() == []
        picture = await theirs.picture()
        assert [(change.name, change.state) for change in picture] == [("two", "self"), ("one", "alive")]
        async with server.join(cluster):
            came = await anext(changes)
            assert (came.name, came.node, came.cluster, came.members) == ("two", there, "everything", 1)
            mine = await anext(theirs)
            assert (mine.state, mine.members, mine.present) == ("self", 1, False)
            pair[1].kill()
            found: list[iris.Change] = []
            while not (found and found[-1].cluster):
                found.append(await anext(changes))
            assert {change.node for change in found} == {there}
            assert found[0].state in ("suspect", "dead")
            assert (found[-1].cluster, found[-1].members) == ("everything", 0)
            pair[1].start()  # a new node under the old name; its app joins and watches again by itself
            while (back := await anext(changes)).members != 1:
                pass
            assert back.name == "two"
            assert back.node not in (there, caller.node)
            while (again := await anext(theirs)).lost is not None:
                pass
            assert (again.node, again.state, again.present) == (back.node, "self", True)
        while (await anext(changes)).members:
            pass


async def test_addresses_that_lead_nowhere_say_why(run_dir: Path, daemons: list[DaemonProcess]):
    stale = run_dir / "stale.sock"
    made = await asyncio.start_unix_server(lambda reader, writer: writer.close(), stale)
    made.close()
    await made.wait_closed()
    if not stale.exists():
        stale.touch()
    for url, reason in (
        (f"unix://{run_dir}/absent.sock", "No such file or directory"),
        (f"unix://{stale}", "Connection refused"),
        ("tcp://127.0.0.1:9", "Connection refused"),
    ):
        with pytest.raises(iris.DaemonUnavailable, match=reason) as caught:
            await iris.connect(url, timeout=0.3)
        assert url in str(caught.value)
        assert "Start one with: irisd" in str(caught.value)
    with pytest.raises(iris.Denied, match=r"'nope'.*shop"):
        await iris.connect(daemons[0].url, service="nope", timeout=PATIENCE)


async def test_something_else_listens_there(run_dir: Path):
    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(chatter, run_dir / "other.sock"):
        with pytest.raises(iris.DaemonUnavailable):
            await iris.connect(f"unix://{run_dir}/other.sock", timeout=0.5)
