"""A mesh's life: finding a daemon, losing it, finding it again, and leaving."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

import iris_client as iris
from iris_client import Executed, State, testing
from iris_client import _lifecycle as lifecycle
from iris_client._urls import Target
from iris_client.testing import LocalMesh


class States:
    """What ``on_state`` told, and a way to wait for it."""

    def __init__(self, mesh: iris.Mesh) -> None:
        self.changes: list[iris.StateChange] = []
        self._news = asyncio.Event()
        self.stop = mesh.on_state(self._changed)

    def _changed(self, change: iris.StateChange) -> None:
        self.changes.append(change)
        self._news.set()

    async def until(self, state: State) -> iris.StateChange:
        async with asyncio.timeout(5):
            while not any(change.state is state for change in self.changes):
                self._news.clear()
                await self._news.wait()
        found = next(change for change in self.changes if change.state is state)
        self.changes.clear()
        return found


def waiting_cluster(started: asyncio.Event, release: asyncio.Event) -> iris.Cluster:
    cluster = iris.Cluster("slow")

    @cluster.on_request
    async def wait(body: bytes) -> bytes:
        started.set()
        await release.wait()
        return body

    return cluster


# ------------------------------------------------------------------- opening


async def test_no_daemon_names_everything_tried_and_what_to_do(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lifecycle, "candidates", lambda *_: lifecycle_targets(run_dir))
    with pytest.raises(iris.DaemonUnavailable) as caught:
        async with iris.connect(timeout=0.2):
            pass
    text = str(caught.value)
    assert f"unix://{run_dir}/a.sock: No such file or directory" in text
    assert "inproc://nowhere: no such node" in text
    assert "Start one with: irisd" in text
    assert isinstance(caught.value, ConnectionError)


def lifecycle_targets(run_dir: Path) -> list[Target]:
    return [Target("unix", f"{run_dir}/a.sock"), Target("inproc", "nowhere")]


async def test_an_app_may_start_before_its_daemon():
    local = testing.mesh()
    connecting = asyncio.ensure_future(iris.connect(local.url(), timeout=5.0).__aenter__())
    await asyncio.sleep(0.02)
    async with local:
        mesh = await connecting
        assert mesh.state is State.ATTACHED
        assert mesh.url == local.url()
        assert len(mesh.node) == 32
        await mesh.close()


async def test_cancelling_connect_leaves_nothing():
    connecting = asyncio.ensure_future(iris.connect("inproc://nowhere", timeout=60.0).__aenter__())
    await asyncio.sleep(0.01)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting


async def test_a_service_the_daemon_does_not_hold(local: LocalMesh):
    with pytest.raises(iris.Denied, match="no key for service 'other'; this daemon holds 'test'"):
        await iris.connect(local.url(), service="other", timeout=5.0)
    async with iris.connect(local.url(), service="test"):
        pass


async def test_the_environment_names_the_daemon(local: LocalMesh, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IRIS_URL", local.url(1))
    async with iris.connect() as mesh:
        assert mesh.url == local.url(1)


@pytest.mark.parametrize("timeout", [None, 0, -1, float("inf")])
async def test_connecting_takes_a_time(timeout: float):
    with pytest.raises(iris.InvalidCall, match="timeout"):
        await iris.connect("inproc://x", timeout=timeout)


async def test_bad_arguments(monkeypatch: pytest.MonkeyPatch, run_dir: Path):
    with pytest.raises(iris.InvalidUrl):
        await iris.connect("http://x")
    with pytest.raises(iris.InvalidName):
        iris.connect(service="a b")
    with pytest.raises(iris.Denied, match=r"not sent in clear to another host; use tls://10\.0\.0\.1:7510"):
        await iris.connect("tcp://10.0.0.1:7510", token="secret")
    monkeypatch.setenv("IRIS_TOKEN_FILE", str(run_dir / "token"))
    with pytest.raises(iris.Denied, match="No such file"):
        await iris.connect("tcp://127.0.0.1:1")
    (run_dir / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(iris.Denied, match="not text"):
        await iris.connect("tcp://127.0.0.1:1")
    (run_dir / "token").write_text("  \n")
    with pytest.raises(iris.Denied, match="empty"):
        await iris.connect("tcp://127.0.0.1:1")


async def test_before_and_after():
    mesh = iris.connect("inproc://x")
    assert mesh.state is State.CONNECTING
    with pytest.raises(iris.MeshClosed, match="not connected yet"):
        await mesh.request("x")
    with pytest.raises(iris.MeshClosed, match="not connected yet"):
        await mesh.publish("x", b"")
    await mesh.close()
    async with testing.mesh() as local:
        mesh = await local.connect()
        await mesh.close()
        await mesh.close()
        assert mesh.state is State.CLOSED
        for call in (mesh.request("x"), mesh.publish("x", b""), mesh.flush(), mesh.push("x")):
            with pytest.raises(iris.MeshClosed, match="the mesh is closed"):
                await call
        with pytest.raises(iris.MeshClosed):
            mesh.subscribe("x")
        with pytest.raises(iris.MeshClosed):
            mesh.join(iris.Cluster("x"))
        with pytest.raises(iris.MeshClosed):
            async with mesh:
                pass


async def test_a_mesh_belongs_to_its_loop(local: LocalMesh):
    async with local.connect() as mesh:

        async def elsewhere() -> None:
            for call in (mesh.request("x"), mesh.publish("t", b""), mesh.flush()):
                with pytest.raises(iris.InvalidCall, match="another event loop"):
                    await call
            with pytest.raises(iris.InvalidCall, match="another event loop"):
                mesh.subscribe("t")

        await asyncio.to_thread(asyncio.run, elsewhere())


# -------------------------------------------------------------------- losing


async def test_what_is_under_way_fails_and_new_calls_wait(local: LocalMesh, server: iris.Mesh):
    started, release = asyncio.Event(), asyncio.Event()
    async with server.join(waiting_cluster(started, release)), local.connect(0) as mesh:
        states = States(mesh)
        under_way = asyncio.create_task(mesh.request("slow", b"x"))
        await started.wait()
        local.stop(0)
        with pytest.raises(iris.Detached, match="the node was stopped") as caught:
            await under_way
        assert caught.value.executed is Executed.MAYBE
        assert (await states.until(State.DETACHED)).reason == "the node was stopped"
        with pytest.raises(iris.DeadlineExceeded, match="detached") as late:
            await mesh.request("slow", timeout=0.05)
        assert late.value.executed is Executed.NO
        new = asyncio.create_task(mesh.request("slow", b"again", timeout=10.0))
        await asyncio.sleep(0)
        release.set()
        local.start(0)
        assert (await new).body == b"again"
        assert (await states.until(State.ATTACHED)).reason == local.url(0)


async def test_clusters_and_subscriptions_are_made_anew(local: LocalMesh, caller: iris.Mesh):
    cluster = iris.Cluster("echo")
    cluster.on_request(lambda body: body)
    async with local.connect(1) as server, server.join(cluster) as joined, server.subscribe("t") as events:
        states = States(server)
        await caller.publish("t", b"before")
        assert (await anext(events)).lost == 0
        local.stop(1)
        await states.until(State.DETACHED)
        local.start(1)
        await states.until(State.ATTACHED)
        async with asyncio.timeout(5):
            while True:
                try:
                    assert (await caller.request("echo", b"x", timeout=1.0)).body == b"x"
                    break
                except (iris.NoMember, iris.MemberLost):
                    await asyncio.sleep(0.01)
        assert joined.clusters == (cluster,)
        await caller.publish("t", b"after")
        async with asyncio.timeout(5):
            event = await anext(events)
        assert (event.body, event.lost) == (b"after", None)


async def test_a_handler_goes_on_when_its_stream_breaks_and_nothing_goes_wrong(local: LocalMesh):
    started, release = asyncio.Event(), asyncio.Event()
    cluster = waiting_cluster(started, release)
    async with local.connect(0) as caller, local.connect(1) as server, server.join(cluster):
        states = States(server)
        request = asyncio.create_task(caller.request("slow", b"x", timeout=5.0))
        await started.wait()
        local.stop(1)
        with pytest.raises(iris.MemberLost) as caught:
            await request
        assert caught.value.executed is Executed.MAYBE
        local.start(1)
        await states.until(State.ATTACHED)
        release.set()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert (await caller.request("slow", b"y", timeout=1.0)).body == b"y"
                    break
                except iris.NoMember:
                    await asyncio.sleep(0.01)


async def test_published_while_detached_arrives(local: LocalMesh, server: iris.Mesh):
    async with local.connect(0) as mesh, server.subscribe("t") as events:
        states = States(mesh)
        local.stop(0)
        await states.until(State.DETACHED)
        await mesh.publish_many("t", [b"1", b"2"])
        flushing = asyncio.create_task(mesh.flush())
        await asyncio.sleep(0)
        local.start(0)
        await flushing
        async with asyncio.timeout(5):
            assert [(await anext(events)).body, (await anext(events)).body] == [b"1", b"2"]


async def test_publishes_in_flight_when_the_stream_breaks_are_counted(
    local: LocalMesh, caplog: pytest.LogCaptureFixture
):
    async with local.connect(0) as mesh:
        states = States(mesh)
        await mesh.publish("t", b"x")
        while not mesh._session.quiet:
            await asyncio.sleep(0)
        local.stop(0)
        await states.until(State.DETACHED)
        local.start(0)
        with pytest.raises(iris.PublishLost, match="1 may have been lost") as caught:
            await mesh.flush()
        assert (caught.value.lost, caught.value.unknown) == (0, 1)
        assert caught.value.executed is Executed.MAYBE
        await mesh.flush()
    assert "1 published messages may have been lost" in caplog.text


async def test_closing_without_a_flush_loses_nothing_and_says_nothing(
    local: LocalMesh, server: iris.Mesh, caplog: pytest.LogCaptureFixture
):
    async with server.subscribe("t") as events:
        async with local.connect(0) as mesh:
            await mesh.publish_many("t", [b"1", b"2"])
        async with asyncio.timeout(5):
            assert [(await anext(events)).body, (await anext(events)).body] == [b"1", b"2"]
    assert "lost" not in caplog.text


async def test_a_daemon_that_says_goodbye(local: LocalMesh, server: iris.Mesh):
    started, release = asyncio.Event(), asyncio.Event()
    async with server.join(waiting_cluster(started, release)), local.connect(0) as mesh:
        states = States(mesh)
        under_way = asyncio.create_task(mesh.request("slow", b"old"))
        await started.wait()
        local.drain(0)
        assert "shutting down" in (await states.until(State.DRAINING)).reason
        new = asyncio.create_task(mesh.request("slow", b"new"))
        await asyncio.sleep(0.01)
        release.set()
        assert (await under_way).body == b"old"
        assert not new.done()
        local.stop(0)
        local.start(0)
        assert (await new).body == b"new"


async def test_a_callback_that_fails_is_logged(local: LocalMesh, caplog: pytest.LogCaptureFixture):
    async with local.connect() as mesh:
        mesh.on_state(lambda change: 1 / 0)
        stop = mesh.on_state(lambda change: None)
        stop()
        stop()
    assert "an on_state callback failed" in caplog.text


async def test_a_cluster_refused_after_a_restart(local: LocalMesh, caplog: pytest.LogCaptureFixture):
    """The daemon came back as one that holds another key: the app keeps trying, and says so."""
    async with local.connect(0) as mesh:
        states = States(mesh)
        local.stop(0)
        await states.until(State.DETACHED)
        node = local._nodes[0]
        node._service = "other"
        mesh._session._service = "test"
        with caplog.at_level(logging.WARNING, "iris_client"):
            local.start(0)
            async with asyncio.timeout(5):
                while "the daemon refuses this app now" not in caplog.text:
                    await asyncio.sleep(0.01)
        local.stop(0)
        node._service = "test"
        local.start(0)
        await states.until(State.ATTACHED)


# ------------------------------------------------------------------- leaving


async def test_closing_drains(local: LocalMesh, caller: iris.Mesh):
    started, release = asyncio.Event(), asyncio.Event()
    async with caller.subscribe("t") as events:
        server = await local.connect(1)
        joined = await server.join(waiting_cluster(started, release)).__aenter__()
        request = asyncio.create_task(caller.request("slow", b"x"))
        await started.wait()
        await server.publish_many("t", [b"x" * 1000] * 5000)
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0.02)
        assert not closing.done()
        with pytest.raises(iris.MeshClosed, match="closing"):
            await server.request("slow")
        release.set()
        assert (await request).body == b"x"
        await closing
        await joined.wait_closed()
        assert server.state is State.CLOSED
        async with asyncio.timeout(5):
            for _ in range(5000):
                assert (await anext(events)).lost == 0


async def test_handlers_may_still_call_while_the_mesh_closes(local: LocalMesh):
    cluster, back = iris.Cluster("front"), iris.Cluster("back")
    started, release = asyncio.Event(), asyncio.Event()
    back.on_request(lambda body: b"from back")

    async with local.connect(0) as caller, local.connect(1) as other, other.join(back):
        server = await local.connect(1)

        @cluster.on_request
        async def ask(body: bytes) -> bytes:
            started.set()
            await release.wait()
            return (await server.request("back")).body

        await server.join(cluster).__aenter__()
        request = asyncio.create_task(caller.request("front"))
        await started.wait()
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        release.set()
        assert (await request).body == b"from back"
        await closing


async def test_closing_takes_only_so_long(local: LocalMesh, caller: iris.Mesh, caplog: pytest.LogCaptureFixture):
    started = asyncio.Event()
    server = await local.connect(1)
    await server.join(waiting_cluster(started, asyncio.Event())).__aenter__()
    request = asyncio.create_task(caller.request("slow"))
    await started.wait()
    before = time.monotonic()
    await server.close(timeout=0.05)
    assert time.monotonic() - before < 2.0
    with pytest.raises((iris.CallCancelled, iris.MemberLost)):
        await request


async def test_closing_a_detached_mesh_tells_what_was_never_sent(local: LocalMesh, caplog: pytest.LogCaptureFixture):
    mesh = await local.connect(0)
    states = States(mesh)
    local.stop(0)
    await states.until(State.DETACHED)
    await mesh.publish_many("t", [b"x"] * 3)
    waiting = asyncio.create_task(mesh.request("x", timeout=60.0))
    flushing = asyncio.create_task(mesh.flush())
    await asyncio.sleep(0)
    await mesh.close(timeout=0.05)
    for task in (waiting, flushing):
        with pytest.raises(iris.MeshClosed):
            await task
    assert "before 3 published messages were sent" in caplog.text
    assert states.changes[-1].state is State.CLOSED


async def test_cancelling_close_gives_up_at_once(local: LocalMesh, caller: iris.Mesh):
    started = asyncio.Event()
    server = await local.connect(1)
    await server.join(waiting_cluster(started, asyncio.Event())).__aenter__()
    request = asyncio.create_task(caller.request("slow"))
    await started.wait()
    closing = asyncio.create_task(server.close(timeout=60.0))
    await asyncio.sleep(0.01)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert server.state is State.CLOSED
    with pytest.raises((iris.CallCancelled, iris.MemberLost)):
        await request


async def test_a_join_that_fails_leaves_nothing(caller: iris.Mesh):
    typed = iris.Cluster("typed")

    @typed.on_request
    async def handler(value: int) -> int:
        return value

    fine = iris.Cluster("fine")
    fine.on_request(lambda body: body)
    with pytest.raises(iris.InvalidCall, match="codec is BYTES"):
        async with caller.join(fine, typed):
            pass
    async with caller.join(fine):
        assert (await caller.request("fine", b"x")).body == b"x"


def test_the_version_is_the_distributions():
    text = (Path(__file__).parents[3] / "client" / "pyproject.toml").read_text()
    assert f'version = "{iris.__version__}"' in text


def test_the_public_names_are_there():
    for name in iris.__all__:
        assert hasattr(iris, name)
    assert (Path(iris.__file__).parent / "py.typed").exists()
