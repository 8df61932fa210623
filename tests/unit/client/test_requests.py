"""Requests and pushes through real nodes: what comes back, and how every failure is named."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass

import pytest

import iris_client as iris
from iris_client import Executed, MiB
from iris_client._context import handler_deadline
from iris_client.testing import LocalMesh


@dataclass
class Query:
    key: str


@dataclass
class Row:
    key: str
    value: int


def echo() -> iris.Cluster:
    cluster = iris.Cluster("echo")

    @cluster.on_request
    async def back(body: bytes) -> bytes:
        return body

    return cluster


async def test_request(caller: iris.Mesh, server: iris.Mesh):
    async with server.join(echo()) as joined:
        assert joined.ready
        reply = await caller.request("echo", b"hello")
        assert (reply.body, dict(reply.headers)) == (b"hello", {})
        assert reply.member.startswith("server@")
        assert (await caller.request("test/echo@default", b"full name")).body == b"full name"
        assert (await caller.request("echo")).body == b""
        assert (await caller.request("echo", bytearray(b"x"))).body == b"x"


@pytest.mark.parametrize("size", [256 * 1024, 256 * 1024 + 1, 8 * MiB])
async def test_large_bodies(caller: iris.Mesh, server: iris.Mesh, size: int):
    async with server.join(echo()):
        body = bytes(range(256)) * (size // 256 + 1)
        assert (await caller.request("echo", body[:size])).body == body[:size]


async def test_many_at_once(caller: iris.Mesh, server: iris.Mesh):
    async with server.join(echo()):
        replies = await asyncio.gather(*(caller.request("echo", b"%d" % n) for n in range(500)))
        assert [reply.body for reply in replies] == [b"%d" % n for n in range(500)]


async def test_codecs(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("db", codec=iris.JSON)

    @cluster.on_request
    async def get(query: Query) -> Row:
        return Row(query.key, 7)

    @cluster.on_request("raw")
    async def raw(request: iris.Request) -> iris.Reply:
        assert request.content_type == "application/json"
        assert request.sender.startswith("caller@")
        assert 0 < request.remaining <= 3
        return iris.Reply(request.body + request.method.encode(), {"echo": request.headers["a"]})

    @cluster.on_request("nothing")
    async def nothing(query: Query) -> None:
        """Declared to answer nothing."""

    async with server.join(cluster):
        assert await caller.request("db", Query("a"), returns=Row) == Row("a", 7)
        assert await caller.request("db", b'{"key":"b"}', returns=dict) == {"key": "b", "value": 7}
        reply = await caller.request("db", {"key": 1}, method="raw", headers={"a": "b"}, codec=iris.JSON, timeout=3.0)
        assert (reply.body, dict(reply.headers)) == (b'{"key":1}raw', {"echo": "b"})
        assert (await caller.request("db", b'{"key":"c"}', method="nothing")).body == b""

        with pytest.raises(iris.Rejected, match="needs 'key'") as rejected:
            await caller.request("db", {"no": 1}, returns=Row)
        assert (rejected.value.code, rejected.value.executed) == ("bad_body", Executed.NO)
        with pytest.raises(iris.Rejected, match="the answer") as rejected:
            await caller.request("db", Query("a"), returns=int)
        assert (rejected.value.code, rejected.value.executed) == ("bad_body", Executed.YES)
        with pytest.raises(iris.CodecError, match="a body is bytes, not dict"):
            await caller.request("db", {"key": 1})


async def test_a_codec_for_the_whole_mesh(local: LocalMesh, server: iris.Mesh):
    cluster = iris.Cluster("db", codec=iris.JSON)
    cluster.on_request(lambda value: {"got": value})
    async with server.join(cluster), local.connect(codec=iris.JSON) as mesh:
        assert await mesh.request("db", [1], returns=dict) == {"got": [1]}


async def test_nobody_there(caller: iris.Mesh, server: iris.Mesh):
    with pytest.raises(iris.NoMember, match="request to 'nobody'") as caught:
        await caller.request("nobody", b"")
    assert caught.value.executed is Executed.NO
    with pytest.raises(iris.NoMember):
        await caller.push("nobody", b"")
    pushes = iris.Cluster("pushes")
    pushes.on_push(lambda body: None)
    async with server.join(pushes):
        with pytest.raises(iris.NotSupported):
            await caller.request("pushes")


async def test_methods_are_named_when_one_is_unknown(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("db")
    cluster.on_request(lambda body: body)
    cluster.on_request("put")(lambda body: body)
    async with server.join(cluster):
        with pytest.raises(iris.NotSupported, match=r"no request method 'drop'; it has: \(none\), put") as caught:
            await caller.request("db", method="drop")
        assert caught.value.executed is Executed.NO


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"cluster": ""}, iris.InvalidName),
        ({"cluster": "x" * 300}, iris.InvalidName),
        ({"cluster": "a b"}, iris.InvalidName),
        ({"cluster": None}, iris.InvalidName),
        ({"method": "a b"}, iris.InvalidName),
        ({"headers": {"a": 1}}, iris.InvalidName),
        ({"timeout": None}, iris.InvalidCall),
        ({"timeout": 0}, iris.InvalidCall),
        ({"timeout": -1}, iris.InvalidCall),
        ({"timeout": float("inf")}, iris.InvalidCall),
        ({"timeout": float("nan")}, iris.InvalidCall),
        ({"timeout": "5"}, iris.InvalidCall),
        ({"timeout": True}, iris.InvalidCall),
        ({"body": "text"}, iris.CodecError),
        ({"body": None}, iris.CodecError),
    ],
)
async def test_bad_calls_are_refused_before_anything_is_sent(caller: iris.Mesh, bad: dict, error: type):
    arguments = {"cluster": "echo", "body": b"", "timeout": 1.0} | bad
    for pattern in (caller.request, caller.push, caller.broadcast, caller.survey, caller.tunnel):
        with pytest.raises(error):
            call = pattern(**arguments)
            if asyncio.iscoroutine(call):
                await call
    assert caller.state is iris.State.ATTACHED


async def test_bodies_above_the_limit_are_refused_with_the_limit_named(local: LocalMesh):
    from iris_client import testing

    async with testing.mesh(max_body=1000, max_large_body=900) as small, small.connect() as mesh:
        assert mesh.max_body == 1000
        for call in (mesh.request("x", b"x" * 1001), mesh.push("x", b"x" * 1001), mesh.broadcast("x", b"x" * 1001)):
            with pytest.raises(iris.TooLarge, match="1001 bytes, the limit is 1000 bytes") as caught:
                await call
            assert caught.value.executed is Executed.NO
        with pytest.raises(iris.TooLarge, match="limit is 1000"):
            mesh.survey("x", b"x" * 1001)
        with pytest.raises(iris.TooLarge, match="limit is 1000"):
            mesh.tunnel("x", b"x" * 1001)


# ------------------------------------------------------------ bad handlers


def misbehaving() -> iris.Cluster:
    cluster = iris.Cluster("bad", concurrency=2)

    @cluster.on_request("raises")
    async def raises(body: bytes) -> bytes:
        raise KeyError("a secret")

    @cluster.on_request("rejects")
    async def rejects(body: bytes) -> bytes:
        raise iris.Reject("no such row", code="missing", body=b"details")

    @cluster.on_request("wrong")
    async def wrong(body: bytes) -> bytes:
        return 5  # type: ignore[return-value]

    @cluster.on_request("none")
    async def none(body: bytes):
        return None

    @cluster.on_request("large")
    async def large(body: bytes) -> bytes:
        return bytes(256 * MiB + 1)

    @cluster.on_request("headers")
    async def headers(body: bytes) -> iris.Reply:
        return iris.Reply(b"", {"a": 5})  # type: ignore[dict-item]

    @cluster.on_request("cancels")
    async def cancels(body: bytes) -> bytes:
        raise asyncio.CancelledError

    @cluster.on_request("thread")
    def thread(body: bytes) -> bytes:
        raise StopIteration

    return cluster


@pytest.mark.parametrize(
    ("method", "error", "text"),
    [
        ("raises", iris.HandlerFailed, "handler bad.raises raised KeyError"),
        ("wrong", iris.HandlerFailed, "expected bytes, got int"),
        ("none", iris.HandlerFailed, "expected bytes, got NoneType"),
        ("large", iris.TooLarge, "268435457 bytes, the limit is 268435456 bytes"),
        ("headers", iris.HandlerFailed, "headers are str to str"),
        ("cancels", iris.HandlerFailed, "raised CancelledError"),
        ("thread", iris.HandlerFailed, "raised RuntimeError"),
    ],
)
async def test_handlers_that_misbehave(
    caller: iris.Mesh, server: iris.Mesh, method: str, error: type[iris.DeliveryError], text: str,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    async with server.join(misbehaving()):
        with pytest.raises(error, match=text) as caught:
            await caller.request("bad", method=method)
        assert caught.value.executed is Executed.YES
        assert "secret" not in str(caught.value)
        assert "Traceback" not in str(caught.value)
        assert any("bad." in record.getMessage() for record in caplog.records)


async def test_the_traceback_stays_with_the_member(
    caller: iris.Mesh, server: iris.Mesh, caplog: pytest.LogCaptureFixture
):
    async with server.join(misbehaving()):
        with pytest.raises(iris.HandlerFailed):
            await caller.request("bad", method="raises")
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


async def test_a_reject_is_an_answer(caller: iris.Mesh, server: iris.Mesh, caplog: pytest.LogCaptureFixture):
    async with server.join(misbehaving()):
        with pytest.raises(iris.Rejected, match=r"no such row \[missing\]") as caught:
            await caller.request("bad", method="rejects")
        assert (caught.value.code, caught.value.body, caught.value.executed) == ("missing", b"details", Executed.YES)
    assert not caplog.records


async def test_a_handler_that_fails_frees_its_place(caller: iris.Mesh, server: iris.Mesh):
    async with server.join(misbehaving()):
        for _ in range(10):
            with pytest.raises(iris.HandlerFailed):
                await caller.request("bad", method="raises", timeout=2.0)


# ------------------------------------------------------- time and cancelling


async def test_a_handler_that_hangs_is_cancelled_at_its_deadline(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("slow")
    ended: list[str] = []

    @cluster.on_request
    async def hang(body: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return b""

    async with server.join(cluster) as joined:
        before = time.monotonic()
        with pytest.raises(iris.DeadlineExceeded) as caught:
            await caller.request("slow", timeout=0.1)
        assert 0.09 < time.monotonic() - before < 1.0
        assert caught.value.executed is Executed.MAYBE
        assert isinstance(caught.value, TimeoutError)
        await joined.leave()
        assert ended == ["cancelled"]


async def test_cancelling_a_request_cancels_its_handler(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("slow")
    started, ended = asyncio.Event(), asyncio.Event()

    @cluster.on_request
    async def hang(body: bytes) -> bytes:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    async with server.join(cluster):
        task = asyncio.create_task(caller.request("slow", timeout=30.0))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(2):
            await ended.wait()
        assert (await asyncio.gather(caller.request("slow", timeout=0.05), return_exceptions=True))[0]


async def test_calls_of_a_handler_end_when_its_caller_stops_waiting(caller: iris.Mesh, server: iris.Mesh):
    front, back = iris.Cluster("front"), iris.Cluster("back")
    seen: list[float] = []

    @front.on_request
    async def ask(body: bytes) -> bytes:
        return (await server.request("back", body, timeout=60.0)).body

    @front.on_request("threaded")
    def plain(body: bytes) -> bytes:
        return b"%d" % (handler_deadline.get() is not None)

    @back.on_request
    async def answer(request: iris.Request) -> bytes:
        seen.append(request.remaining)
        return b"ok"

    async with server.join(front, back):
        assert (await caller.request("front", timeout=2.0)).body == b"ok"
        assert seen[0] <= 2.0
        assert (await caller.request("front", method="threaded")).body == b"1"


async def test_a_push_is_not_stopped_by_its_timeout(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("jobs")
    done: asyncio.Queue[float] = asyncio.Queue()

    @cluster.on_push
    async def work(request: iris.Request) -> None:
        await asyncio.sleep(0.1)
        done.put_nowait(request.remaining)

    async with server.join(cluster):
        await caller.push("jobs", b"x", timeout=0.05)
        async with asyncio.timeout(2):
            assert await done.get() == float("inf")


async def test_pushes_are_handled_side_by_side_within_concurrency(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("jobs", concurrency=3)
    running = most = handled = 0
    all_done = asyncio.Event()

    @cluster.on_push
    async def work(body: bytes) -> None:
        nonlocal running, most, handled
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        handled += 1
        if handled == 30:
            all_done.set()

    async with server.join(cluster):
        await asyncio.gather(*(caller.push("jobs", b"") for _ in range(30)))
        async with asyncio.timeout(5):
            await all_done.wait()
    assert most == 3


async def test_a_push_handler_that_fails_is_logged_and_frees_its_place(
    caller: iris.Mesh, server: iris.Mesh, caplog: pytest.LogCaptureFixture
):
    cluster = iris.Cluster("jobs", concurrency=1)
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    @cluster.on_push
    async def work(body: bytes) -> None:
        if body == b"bad":
            raise RuntimeError("bad job")
        seen.put_nowait(body)

    async with server.join(cluster):
        await caller.push("jobs", b"bad")
        await caller.push("jobs", b"good")
        async with asyncio.timeout(2):
            assert await seen.get() == b"good"
    assert "handler jobs.work failed" in caplog.text


# ------------------------------------------------------------------- threads


async def test_plain_handlers_run_in_threads(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("threads", concurrency=4)
    barrier = threading.Barrier(4)

    @cluster.on_request
    def name(body: bytes) -> bytes:
        barrier.wait(5)  # passes only if four run at the same time
        return threading.current_thread().name.encode()

    async with server.join(cluster):
        replies = await asyncio.gather(*(caller.request("threads") for _ in range(4)))
        assert {reply.body for reply in replies} == {b"iris-threads-%d" % n for n in (1, 2, 3, 4)}


async def test_a_plain_handler_that_is_cancelled_keeps_its_place_until_it_returns(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("threads", concurrency=1)
    release, running = threading.Event(), []

    @cluster.on_request
    def wait(body: bytes) -> bytes:
        running.append(body)
        release.wait(5)
        return body

    async with server.join(cluster):
        with pytest.raises(iris.DeadlineExceeded):
            await caller.request("threads", b"first", timeout=0.05)
        second = asyncio.create_task(caller.request("threads", b"second", timeout=5.0))
        await asyncio.sleep(0.05)
        assert running == [b"first"]
        release.set()
        assert (await second).body == b"second"


async def test_a_handler_that_blocks_the_loop_is_named(
    caller: iris.Mesh, server: iris.Mesh, caplog: pytest.LogCaptureFixture
):
    cluster = iris.Cluster("blocking")

    @cluster.on_request
    async def sleepy(body: bytes) -> bytes:
        end = time.monotonic() + 5
        while time.monotonic() < end and "blocks the event loop" not in caplog.text:
            time.sleep(0.01)  # noqa: ASYNC251 - this is the mistake
        return b""

    with caplog.at_level(logging.WARNING, "iris_client"):
        async with server.join(cluster):
            await caller.request("blocking", timeout=10.0)
    [record] = [record for record in caplog.records if "blocks the event loop" in record.getMessage()]
    assert "handler blocking.sleepy blocks the event loop at" in record.getMessage()
    assert "test_requests.py" in record.getMessage()


async def test_the_same_cluster_twice(caller: iris.Mesh):
    cluster = echo()
    async with caller.join(cluster):
        with pytest.raises(iris.InvalidCall, match="already serves 'echo'"):
            async with caller.join(echo()):
                pass
    async with caller.join(cluster):
        assert (await caller.request("echo", b"again")).body == b"again"
    with pytest.raises(iris.InvalidCall, match="twice"):
        caller.join(cluster, cluster)
    with pytest.raises(iris.InvalidCall, match="at least one"):
        caller.join()
    with pytest.raises(iris.InvalidCall, match="not str"):
        caller.join("echo")  # type: ignore[arg-type]


async def test_a_member_that_leaves_lets_calls_in_hand_finish(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("slow")
    started, release = asyncio.Event(), asyncio.Event()

    @cluster.on_request
    async def wait(body: bytes) -> bytes:
        started.set()
        await release.wait()
        return body

    joined = await server.join(cluster).__aenter__()
    request = asyncio.create_task(caller.request("slow", b"x"))
    await started.wait()
    leaving = asyncio.create_task(joined.leave())
    waiting = asyncio.create_task(joined.wait_closed())
    await asyncio.sleep(0.01)
    with pytest.raises(iris.NoMember):
        await caller.request("slow")
    assert not leaving.done()
    release.set()
    assert (await request).body == b"x"
    await leaving
    await waiting


async def test_leaving_cancels_what_takes_too_long(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("slow")
    started = asyncio.Event()

    @cluster.on_request
    async def hang(body: bytes) -> bytes:
        started.set()
        await asyncio.Event().wait()
        return b""

    joined = await server.join(cluster).__aenter__()
    request = asyncio.create_task(caller.request("slow", b"x"))
    await started.wait()
    await joined.leave(timeout=0.05)
    with pytest.raises(iris.MemberLost, match="while it ran: its app is leaving") as caught:
        await request
    assert caught.value.executed is Executed.YES


async def test_what_had_not_begun_when_a_member_left_is_tried_elsewhere(local: LocalMesh, caller: iris.Mesh):
    release, running = threading.Event(), threading.Event()

    slow, quick = iris.Cluster("threads", concurrency=1), iris.Cluster("threads")
    quick.on_request(lambda body: b"second")

    @slow.on_request
    def wait(body: bytes) -> bytes:
        running.set()
        release.wait(5)
        return b"first"

    async with local.connect(1) as first, local.connect(0) as second:
        joined = await first.join(slow).__aenter__()
        began = asyncio.create_task(caller.request("threads"))
        await asyncio.to_thread(running.wait, 5)
        # A second call for the one thread, as if the daemon had counted one place too many.
        runner = joined._runners[0]
        for member in local._nodes[1]._node._calls.members.of("threads"):  # type: ignore[union-attr]
            member.concurrency = 2
        waiting = asyncio.create_task(caller.request("threads"))
        async with asyncio.timeout(5):
            while runner.busy < 2:
                await asyncio.sleep(0)
        async with second.join(quick):
            leaving = asyncio.create_task(joined.leave(timeout=0))
            assert (await waiting).body == b"second"
            release.set()
            await leaving
            with pytest.raises(iris.MemberLost, match="while it ran"):
                await began
