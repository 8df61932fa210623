"""The mesh for threads."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Iterator

import pytest

import iris_client as iris
from iris_client import State, sync, testing
from iris_client._context import handler_deadline
from iris_client._portal import Portal
from iris_client.testing import LocalMesh


class Ground:
    """A mesh on a loop in a thread, and blocking meshes on that same loop."""

    def __init__(self) -> None:
        self.portal = Portal()
        self.local = testing.mesh(nodes=2, stall_timeout=0.5)
        self.portal.call(self.local.__aenter__())
        self._meshes: list[sync.Mesh] = []

    def connect(self, node: int = 0) -> sync.Mesh:
        self.portal._users += 1
        mesh = sync.Mesh(self.portal, self.portal.call(_entered(self.local, node)))
        self._meshes.append(mesh)
        return mesh

    def close(self) -> None:
        for mesh in self._meshes:
            mesh.close()
        self.portal.call(self.local.__aexit__(None, None, None))
        self.portal.release()


async def _entered(local: LocalMesh, node: int) -> iris.Mesh:
    return await local.connect(node)


@pytest.fixture
def ground() -> Iterator[Ground]:
    made = Ground()
    yield made
    made.close()


def serving() -> iris.Cluster:
    made = sync.Cluster("workers", codec=sync.JSON)
    made.on_request(lambda value: 2 * value)

    @made.on_request("fails")
    def fails(value: int) -> int:
        raise sync.Reject("odd", code="odd")

    made.on_survey(lambda value: "here")
    return made


def test_large_bodies_both_ways(ground: Ground):
    body = bytes(range(256)) * (9 * 4096)
    echo = sync.Cluster("echo")
    echo.on_request(lambda given: given)
    with ground.connect(0) as caller, ground.connect(1) as server, server.join(echo):
        assert (caller.max_body, caller.max_request) == (8 * iris.MiB, 256 * iris.MiB)
        assert caller.request("echo", body, timeout=30).body == body


def test_every_name_is_mirrored():
    assert set(sync.__all__) == set(iris.__all__) - {"__version__"}
    for name in sync.__all__:
        assert hasattr(sync, name)


@pytest.mark.parametrize("name", ["Mesh", "Joined", "Subscription", "Survey", "Tunnel", "Watch"])
def test_every_method_is_mirrored(name: str):
    theirs, ours = getattr(iris, name), getattr(sync, name)
    for method, function in inspect.getmembers(theirs):
        if method.startswith("_") or method in ("forked", "accepted", "used"):
            continue
        assert hasattr(ours, method), f"{name}.{method}"
        if inspect.isfunction(function) and method != "request":
            wanted = list(inspect.signature(function).parameters)
            assert list(inspect.signature(getattr(ours, method)).parameters) == wanted, f"{name}.{method}"


def test_request_and_serve(ground: Ground):
    with ground.connect(0) as caller, ground.connect(1) as server, server.join(serving()) as joined:
        assert joined.ready
        assert [each.name for each in joined.clusters] == ["workers"]
        assert caller.state is State.ATTACHED
        assert caller.url.startswith("inproc://")
        assert len(caller.node) == 32
        assert caller.max_body == 8 * iris.MiB
        assert caller.request("workers", b"21").body == b"42"
        assert caller.request("workers", b"21", returns=int) == 42
        with pytest.raises(sync.Rejected) as caught:
            caller.request("workers", b"1", method="fails")
        assert caught.value.code == "odd"
        with pytest.raises(sync.NoMember):
            caller.push("nobody", b"")
        with pytest.raises(sync.NoMember):
            caller.broadcast("nobody", b"")
        with pytest.raises(sync.InvalidCall):
            caller.request("workers", b"", timeout=None)  # type: ignore[call-overload]
        with pytest.raises(sync.InvalidName):
            caller.tunnel("")
        joined.leave()
        joined.wait_closed()
        with pytest.raises(sync.NoMember):
            caller.request("workers", b"21")


def test_survey(ground: Ground):
    with ground.connect(0) as caller, ground.connect(1) as server, server.join(serving()):
        with caller.survey("workers", b"1", timeout=2.0) as survey:
            assert [answer.body for answer in survey] == [b'"here"']
        assert len(survey.asked) == len(survey.answered) == 1
        assert survey.silent == ()


def test_publish_and_subscribe(ground: Ground):
    with ground.connect(0) as publisher, ground.connect(1) as subscriber, subscriber.subscribe("t.*") as events:
        assert events.ready
        assert events.topic_filter == "t.*"
        for number in range(2000):
            publisher.publish("t.a", b"%d" % number)
        assert publisher.publish_many("t.b", [b"x", b"y"], headers={"a": "b"}) == 2
        publisher.flush()
        found = [next(events).body for _ in range(1500)]
        for batch in events.batches():
            found += [event.body for event in batch]
            if len(found) == 2002:
                break
        assert found == [b"%d" % number for number in range(2000)] + [b"x", b"y"]
        assert events.lost == 0
        for bad in ("", "a.*"):
            with pytest.raises(sync.InvalidName):
                publisher.publish(bad, b"")
        with pytest.raises(sync.CodecError):
            publisher.publish("t", "text")
        with pytest.raises(sync.TooLarge):
            publisher.publish("t", b"x" * (8 * iris.MiB + 1))


def test_many_threads_publish_each_in_order(ground: Ground):
    with ground.connect(0) as publisher, ground.connect(1) as subscriber, subscriber.subscribe("t.*") as events:

        def publish(name: str) -> None:
            for number in range(500):
                publisher.publish(f"t.{name}", b"%d" % number + b"x" * 2000)

        threads = [threading.Thread(target=publish, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        found: dict[str, list[int]] = {}
        for _ in range(2000):
            event = next(events)
            found.setdefault(event.topic, []).append(int(event.body.partition(b"x")[0]))
        for thread in threads:
            thread.join()
        assert found == {f"t.{name}": list(range(500)) for name in "abcd"}


def test_watch(ground: Ground):
    caller, server = ground.connect(0), ground.connect(1)
    with server.join(serving()), caller.watch("workers") as changes:
        assert (changes.cluster, changes.lost) == ("workers", 0)
        picture = changes.picture()
        assert [(change.cluster, change.members) for change in picture] == [("", 0), ("workers", 1)]
        assert changes.picture() == []
        with caller.join(serving()):
            came = next(iter(changes))
            assert (came.cluster, came.members, came.state, came.present) == ("workers", 1, "self", False)
        assert next(iter(changes)).members == 0
        for change in caller.watch("workers"):  # without a `with`: leaving the loop ends it
            assert change == picture[0]
            break
        with caller.watch() as everything:
            first = next(iter(everything))
            rest = everything.picture()
            assert [change.state for change in (first, *rest)] == ["self", "alive", "alive"]
    assert list(changes) == []


def test_leaving_a_subscription_ends_its_iteration(ground: Ground):
    with ground.connect(0) as mesh:
        with mesh.subscribe("t") as events:
            reader: list[sync.Event] = []
            thread = threading.Thread(target=lambda: reader.extend(events))
            thread.start()
        thread.join(5)
        assert not thread.is_alive()
        assert list(events) == []


def test_tunnel(ground: Ground):
    made = sync.Cluster("storage")

    @made.on_tunnel
    def store(tunnel: sync.Tunnel) -> None:
        assert (tunnel.body, tunnel.method, dict(tunnel.headers)) == (b"path", "", {"a": "b"})
        assert tunnel.peer
        tunnel.accept()
        total = sum(len(chunk) for chunk in tunnel)
        tunnel.send(b"%d" % total)

    with ground.connect(0) as caller, ground.connect(1) as server, server.join(made):
        with caller.tunnel("storage", b"path", headers={"a": "b"}) as tunnel:
            for _ in range(20):
                tunnel.send(b"x" * 100_000)
            tunnel.finish()
            assert tunnel.receive() == b"2000000"
            assert tunnel.receive() is None
        with pytest.raises(sync.TunnelBroken), caller.tunnel("storage", b"path", headers={"a": "b"}) as tunnel:
            tunnel.abort("enough")
            tunnel.send(b"x")
        assert "sync" in repr(tunnel)
        assert "attached" in repr(caller)


def test_calls_of_a_plain_handler_end_when_its_caller_stops_waiting(ground: Ground):
    with ground.connect(0) as caller, ground.connect(1) as server:
        made = sync.Cluster("front")
        seen: list[float] = []

        @made.on_request
        def ask(request: sync.Request) -> bytes:
            assert handler_deadline.get() == request.deadline
            return server.request("back", timeout=60.0).body

        back = sync.Cluster("back")

        @back.on_request
        def answer(request: sync.Request) -> bytes:
            seen.append(request.remaining)
            return b"ok"

        with server.join(made, back):
            assert caller.request("front", timeout=3.0).body == b"ok"
        assert seen[0] <= 3.0


def test_state_and_closing(ground: Ground):
    mesh = ground.connect(0)
    states: list[State] = []
    stop = mesh.on_state(lambda change: states.append(change.state))
    mesh.close()
    stop()
    assert states == [State.CLOSED]
    with pytest.raises(sync.MeshClosed):
        mesh.request("x")
    with pytest.raises(sync.MeshClosed):
        mesh.publish("x", b"")
    with pytest.raises(sync.MeshClosed):
        mesh.flush()


def test_what_waits_to_be_published_is_told_when_the_mesh_closes(ground: Ground):
    mesh = ground.connect(0)
    mesh._mesh._publishing.limit = 1000
    ground.portal.call(_stopped(ground.local))
    errors: list[BaseException] = []

    def publish() -> None:
        try:
            while True:
                mesh.publish("t", b"x" * 100_000)
        except sync.MeshClosed as error:
            errors.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    time.sleep(0.05)
    mesh.close(timeout=0.05)
    thread.join(5)
    assert not thread.is_alive()
    assert len(errors) == 1
    ground.portal.call(_started(ground.local))


async def _stopped(local: LocalMesh) -> None:
    local.stop(0)


async def _started(local: LocalMesh) -> None:
    local.start(0)


def test_waiting_on_the_meshs_own_loop_is_refused(ground: Ground):
    mesh = ground.connect(0)

    async def misuse() -> None:
        with pytest.raises(sync.InvalidCall, match="own loop"):
            mesh.request("x")
        with pytest.raises(sync.InvalidCall, match="own loop"):
            mesh.publish("x", b"")

    ground.portal.call(misuse())


def test_connect_that_fails_leaves_no_thread():
    with pytest.raises(sync.DaemonUnavailable):
        sync.connect("inproc://nowhere", timeout=0.05)
    assert "iris-mesh" not in [thread.name for thread in threading.enumerate()]


def test_meshes_of_a_process_share_one_loop():
    first, second = Portal.shared(), Portal.shared()
    assert first is second
    assert first.call(asyncio.sleep(0, "works")) == "works"
    first.release()
    assert second.call(asyncio.sleep(0, "still")) == "still"
    second.release()
    assert first.loop.is_closed()
    third = Portal.shared()
    assert third is not first
    third.release()


def test_a_portal_cancels_what_runs_and_can_be_interrupted():
    portal = Portal()
    ended = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    portal.start(hang())
    portal.call(asyncio.sleep(0))
    portal.close()
    portal.close()
    assert ended.is_set()
    assert portal.loop.is_closed()


def test_publishing_waits_for_subscribers_that_block(ground: Ground):
    publisher, subscriber = ground.connect(), ground.connect(1)
    with (
        subscriber.subscribe("t", when_full="block", max_bytes=100_000) as slow,
        subscriber.subscribe("u") as quick,
    ):
        count = 0
        with pytest.raises(iris.SlowSubscriber) as caught:
            while True:
                publisher.publish("t", b"%d" % count + bytes(5000))
                count += 1
        assert caught.value.topic == "t"
        assert caught.value.waits_for
        with pytest.raises(iris.WouldBlock):
            publisher.publish("t", b"", wait=False)
        with pytest.raises(iris.SlowSubscriber):
            publisher.flush()
        publisher.publish_many("u", [b"x"] * 100)
        assert [next(iter(quick)).body for _ in range(100)] == [b"x"] * 100
        for number in range(count):
            assert int(next(iter(slow)).body[:-5000]) == number
        publisher.publish("t", b"last")
        publisher.flush()
        assert next(iter(slow)).body == b"last"


def test_a_mesh_that_closes_lets_publishers_go(ground: Ground):
    publisher, subscriber = ground.connect(), ground.connect(1)
    ended = threading.Event()

    def publish() -> None:
        with pytest.raises((iris.MeshClosed, iris.SlowSubscriber)):
            while True:
                publisher.publish("t", bytes(5000))
        ended.set()

    with subscriber.subscribe("t", when_full="block", max_bytes=100_000):
        thread = threading.Thread(target=publish)
        thread.start()
        while not publisher._late:
            time.sleep(0.01)
        publisher.close(timeout=0.1)
        assert ended.wait(5)
        thread.join()
