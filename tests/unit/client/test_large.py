"""Requests and replies too large for a frame: the session's part, frame by frame, and apps over real nodes."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

import iris_client as iris
from iris_client import Executed, testing
from iris_client._calls import Standing
from iris_client._deliveries import Delivery
from iris_client._errors import DeadlineExceeded, HandlerFailed, MemberLost, Overloaded, Rejected, TooLarge
from iris_client._frames import Code, Kind, ProtocolError, make
from iris_client._large import PIECE_BYTES, PROCESS, Reserve
from iris_client._requestcall import RequestCall
from iris_client.testing import LocalMesh
from tests.unit.client.ground import Daemon, MiB, Promise

NO, MAYBE, YES = 1, 2, 3
SMALL = 100_000
BODY = random.Random(5).randbytes(3 * PIECE_BYTES + 7)


def daemon_of(*, max_large: int = MiB, assembly: int = 64 * MiB) -> Daemon:
    return Daemon(max_body=SMALL, max_large=max_large, assembly=assembly)


def ask(daemon: Daemon, body: bytes = BODY, *, timeout: float = 5.0) -> tuple[RequestCall, Promise]:
    promise = Promise()
    header = make(kind=Kind.REQUEST, address="db", method="put", max_large=daemon.max_large)
    deadline = daemon.now + timeout
    call = RequestCall(header, body, deadline, "request to 'db'", promise, large=len(body) > daemon.max_body)
    daemon.session.request(call, daemon.now)
    return call, promise


def kinds(frames: list[tuple[Any, bytes]]) -> list[Kind]:
    return [Kind(header.kind) for header, _ in frames]


def joined(frames: list[tuple[Any, bytes]]) -> bytes:
    return b"".join(body for header, body in frames if header.kind == Kind.DATA)


# --------------------------------------------------------- the caller's part


def test_a_large_body_waits_for_the_member_then_leaves_in_pieces():
    daemon = daemon_of()
    call, promise = ask(daemon)
    header, body = daemon.take_one()
    assert (header.kind, header.carries, header.total, body) == (Kind.TUNNEL, Kind.REQUEST, len(BODY), b"")
    assert (header.method, header.max_large, header.remaining_ms) == ("put", MiB, 5000)
    daemon.say(kind=Kind.CREDIT, id=call.id, count=100_000)
    first = daemon.take()
    assert 0 < len(joined(first)) < 100_000
    daemon.say(kind=Kind.CREDIT, id=call.id, count=1_000_000)
    rest = daemon.take()
    assert joined(first) + joined(rest) == BODY
    assert kinds(rest)[-1] == Kind.FINISH
    daemon.say(kind=Kind.REPLY, id=call.id, body=b"stored", member="m")
    assert (promise.result[0].member, promise.result[1]) == ("m", b"stored")
    assert daemon.session.idle and not len(daemon.session._flows)


def test_a_small_body_goes_as_ever_and_says_what_reply_it_takes():
    daemon = daemon_of()
    call, promise = ask(daemon, b"x")
    header, body = daemon.take_one()
    assert (header.kind, header.carries, header.max_large, body) == (Kind.REQUEST, 0, MiB, b"x")
    daemon.say(kind=Kind.CREDIT, id=call.id)
    daemon.say(kind=Kind.REPLY, id=call.id, total=5, member="m", headers={"a": "b"})
    frames = daemon.take()
    assert kinds(frames) == [Kind.CREDIT, Kind.FINISH]
    assert frames[0][0].count > 0
    daemon.say(b"hel", kind=Kind.DATA, id=call.id)
    assert not promise.done()
    daemon.say(b"lo", kind=Kind.DATA, id=call.id)
    assert not promise.done(), "never before its end"
    daemon.say(kind=Kind.FINISH, id=call.id)
    assert (promise.result[0].headers["a"], promise.result[1]) == ("b", b"hello")
    assert daemon.session.idle and not len(daemon.session._flows)


@pytest.mark.parametrize("size", [0, 4, 6])
def test_a_reply_of_another_length_than_announced_is_none(size: int):
    daemon = daemon_of(assembly=100)
    call, promise = ask(daemon, b"x")
    daemon.take()
    daemon.say(kind=Kind.CREDIT, id=call.id)
    daemon.say(kind=Kind.REPLY, id=call.id, total=5)
    daemon.say(bytes(size), kind=Kind.DATA, id=call.id)
    daemon.say(kind=Kind.FINISH, id=call.id)
    assert isinstance(promise.error, MemberLost) and promise.error.executed is Executed.YES
    assert f"{size} bytes came of a body of 5" in str(promise.error)
    daemon.take()
    assert daemon.session.idle and not len(daemon.session._flows)
    assert daemon.session._flows._reserve.held == 0


def test_what_a_broken_tunnel_says_of_the_handler_depends_on_what_had_left():
    for credit, head, executed in ((0, False, Executed.NO), (SMALL, False, Executed.NO), (MiB, False, Executed.MAYBE),
                                   (MiB, True, Executed.YES)):  # fmt: skip
        daemon = daemon_of()
        call, promise = ask(daemon)
        daemon.take()
        daemon.say(kind=Kind.CREDIT, id=call.id, count=credit)
        daemon.take()
        if head:
            daemon.say(kind=Kind.REPLY, id=call.id, total=10)
        daemon.say(kind=Kind.ERROR, id=call.id, code=Code.MEMBER_LOST, executed=MAYBE, detail="lost")
        assert isinstance(promise.error, MemberLost)
        assert promise.error.executed is executed, (credit, head)
        daemon.take()
        assert daemon.session.idle and not len(daemon.session._flows)


def test_the_members_errors_are_those_of_a_request():
    daemon = daemon_of()
    call, promise = ask(daemon)
    daemon.take()
    daemon.say(kind=Kind.CREDIT, id=call.id, count=SMALL)
    daemon.say(b"more", kind=Kind.ERROR, id=call.id, code=Code.REJECTED, executed=YES, reason="full", detail="no")
    assert isinstance(promise.error, Rejected)
    assert (promise.error.code, promise.error.body) == ("full", b"more")


def test_a_member_that_finishes_without_an_answer_failed():
    daemon = daemon_of()
    call, promise = ask(daemon)
    daemon.take()
    daemon.say(kind=Kind.CREDIT, id=call.id, count=MiB)
    daemon.take()
    daemon.say(kind=Kind.FINISH, id=call.id)
    assert isinstance(promise.error, HandlerFailed)


def test_a_reply_above_what_it_said_and_one_there_is_no_room_for():
    daemon = daemon_of(max_large=50, assembly=40)
    for total, error in ((51, TooLarge), (45, Overloaded)):
        call, promise = ask(daemon, b"x")
        daemon.take()
        daemon.say(kind=Kind.CREDIT, id=call.id)
        daemon.say(kind=Kind.REPLY, id=call.id, total=total)
        assert isinstance(promise.error, error) and promise.error.executed is Executed.YES
        assert kinds(daemon.take()) == [Kind.ERROR], "whoever sends it hears of it"
        assert daemon.session.idle and not len(daemon.session._flows)


def test_a_reply_before_the_whole_body_left_ends_the_body():
    daemon = daemon_of()
    call, promise = ask(daemon)
    daemon.take()
    daemon.say(kind=Kind.CREDIT, id=call.id, count=SMALL)
    daemon.take()
    daemon.say(kind=Kind.REPLY, id=call.id, body=b"enough")
    assert promise.result[1] == b"enough"
    assert daemon.take() == []
    assert daemon.session.idle and not len(daemon.session._flows)


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_cancelled_late_and_detached_calls_leave_nothing(sent: bool, large: bool):
    for how in ("cancel", "late", "detached"):
        daemon = daemon_of()
        call, promise = ask(daemon, BODY if large else b"x")
        daemon.take()
        if sent:
            daemon.say(kind=Kind.CREDIT, id=call.id, count=2 * MiB if large else 0)
            daemon.take()
            daemon.say(kind=Kind.REPLY, id=call.id, total=50)
            daemon.take()
        if how == "cancel":
            daemon.session.cancel(call)
            assert not promise.done()
        elif how == "late":
            daemon.session.on_deadline(daemon.now + 6)
            assert isinstance(promise.error, DeadlineExceeded)
        else:
            daemon.session.lane_down("gone")
            assert isinstance(promise.error, iris.Detached)
        if promise.done():
            want = Executed.YES if sent else Executed.NO if large else Executed.MAYBE
            assert promise.error.executed is want  # type: ignore[union-attr]
        if how != "detached":
            assert Kind.CANCEL in kinds(daemon.take())
        assert not len(daemon.session._flows)
        assert daemon.session._flows._reserve.held == 0


def test_a_tunnel_not_accepted_in_time_is_cancelled_too():
    """Its member may be accepting it at this very moment: without a CANCEL it would wait for ever."""
    from iris_client._tunnelcall import TunnelCall

    daemon = Daemon()
    call = TunnelCall(make(kind=Kind.TUNNEL, address="db"), b"", daemon.now + 1, "tunnel", Promise())
    daemon.session.tunnel(call, daemon.now)
    daemon.take()
    daemon.session.on_deadline(daemon.now + 2)
    assert [(int(header.kind), header.id) for header, _ in daemon.take()] == [(Kind.CANCEL, call.id)]


def test_replies_that_make_no_sense_end_the_stream():
    for frames in ([Kind.REPLY], [Kind.CREDIT, Kind.REPLY, Kind.REPLY]):
        daemon = daemon_of()
        call, _ = ask(daemon, b"x")
        daemon.take()
        with pytest.raises(ProtocolError):
            for kind in frames:
                daemon.say(kind=kind, id=call.id, total=10 if kind == Kind.REPLY else 0)


# --------------------------------------------------------- the member's part


class Member:
    def __init__(self, *methods: str) -> None:
        self.methods = methods
        self.deliveries: list[Delivery] = []
        self.expected: list[Delivery] = []

    def takes(self, delivery: Delivery) -> bool:
        if delivery.method in self.methods:
            return True
        delivery.fail(Code.NOT_SUPPORTED, NO, "no such method")
        return False

    def arriving(self, delivery: Delivery) -> None:
        self.expected.append(delivery)

    def lost(self, delivery: Delivery) -> None:
        self.expected.remove(delivery)

    def deliver(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if delivery in self.expected:
            self.expected.remove(delivery)


def serving(*, assembly: int = 64 * MiB) -> tuple[Daemon, Member]:
    daemon, member = daemon_of(assembly=assembly), Member("put")
    daemon.session.join(Standing(make(kind=Kind.JOIN, address="db"), "joining", lambda error: None), "db", member)
    daemon.take()
    return daemon, member


def deliver(daemon: Daemon, total: int, *, id: int = 2, method: str = "put", max_large: int = MiB) -> None:
    daemon.say(
        kind=Kind.TUNNEL, id=id, address="db", carries=Kind.REQUEST, total=total, method=method, member="cli",
        max_large=max_large, remaining_ms=5000, headers={"a": "b"}, content_type="x",
    )  # fmt: skip


def test_a_large_request_is_delivered_when_it_is_whole():
    daemon, member = serving()
    deliver(daemon, 6)
    assert kinds(daemon.take()) == [Kind.CREDIT]
    daemon.say(b"abc", kind=Kind.DATA, id=2)
    daemon.say(b"def", kind=Kind.DATA, id=2)
    assert not member.deliveries
    daemon.say(kind=Kind.FINISH, id=2)
    (delivery,) = member.deliveries
    request = delivery.request()
    assert (request.body, request.method, request.sender, request.content_type) == (b"abcdef", "put", "cli", "x")
    assert (dict(request.headers), request.deadline) == ({"a": "b"}, daemon.now + 5)
    assert delivery.kind == Kind.REQUEST
    delivery.reply(b"done")
    header, body = daemon.take_one()
    assert (header.kind, header.id, header.total, body) == (Kind.REPLY, 2, 0, b"done")
    assert daemon.session.idle and not len(daemon.session._flows)
    assert daemon.session._flows._reserve.held == 0


@pytest.mark.parametrize("carried", [False, True])
def test_a_large_reply_leaves_as_its_caller_reads(carried: bool):
    daemon, member = serving()
    if carried:
        deliver(daemon, 1)
        daemon.take()
        daemon.say(b"q", kind=Kind.DATA, id=2)
        daemon.say(kind=Kind.FINISH, id=2)
    else:
        daemon.say(b"q", kind=Kind.REQUEST, id=2, address="db", method="put", max_large=MiB, remaining_ms=5000)
    (delivery,) = member.deliveries
    assert delivery.max_reply == MiB
    delivery.reply_large(BODY, {"k": "v"}, "y")
    frames = daemon.take()
    if not carried:
        credit, _ = frames.pop(0)
        assert (credit.kind, credit.count) == (Kind.CREDIT, 0)
    ((head, body),) = frames
    assert (head.kind, head.total, head.headers["k"], head.content_type, body) == (
        Kind.REPLY, len(BODY), "v", "y", b"",
    )  # fmt: skip
    assert not daemon.session.idle, "a drain waits for it"
    daemon.say(kind=Kind.CREDIT, id=2, count=MiB)
    if not carried:
        daemon.say(kind=Kind.FINISH, id=2)
    frames = daemon.take()
    assert joined(frames) == BODY
    assert kinds(frames)[-1] == Kind.FINISH
    assert daemon.session.idle and not len(daemon.session._flows)


def test_a_method_nobody_handles_is_refused_before_its_body():
    daemon, _ = serving()
    deliver(daemon, 6, method="get")
    header, _ = daemon.take_one()
    assert (header.kind, header.code, header.executed) == (Kind.ERROR, Code.NOT_SUPPORTED, NO)
    assert daemon.session.idle and not len(daemon.session._flows)


def test_bodies_in_assembly_are_bounded_by_what_they_announce():
    daemon, member = serving(assembly=100)
    deliver(daemon, 60, id=2)
    deliver(daemon, 60, id=4)
    assert [(Kind(h.kind), h.id, h.code, h.executed) for h, _ in daemon.take()] == [
        (Kind.CREDIT, 2, 0, 0),
        (Kind.ERROR, 4, Code.OVERLOADED, NO),
    ]
    daemon.say(bytes(60), kind=Kind.DATA, id=2)
    daemon.say(kind=Kind.FINISH, id=2)
    deliver(daemon, 60, id=6)
    assert [(Kind(h.kind), h.id) for h, _ in daemon.take()] == [(Kind.ERROR, 6)], "the handler has it still"
    member.deliveries[0].reply(b"")
    deliver(daemon, 60, id=8)
    assert kinds(daemon.take()) == [Kind.REPLY, Kind.CREDIT]


@pytest.mark.parametrize("size", [3, 7])
def test_a_body_of_another_length_is_never_delivered(size: int):
    daemon, member = serving()
    deliver(daemon, 6)
    daemon.take()
    daemon.say(bytes(size), kind=Kind.DATA, id=2)
    if size < 6:
        daemon.say(kind=Kind.FINISH, id=2)
    header, _ = daemon.take_one()
    assert (header.kind, header.code, header.executed) == (Kind.ERROR, Code.INVALID, NO)
    assert not member.deliveries and not member.expected
    assert daemon.session.idle and not len(daemon.session._flows)


@pytest.mark.parametrize("how", ["cancel", "late", "error", "down"])
def test_a_body_that_stops_coming_is_never_delivered(how: str):
    daemon, member = serving()
    deliver(daemon, 6)
    daemon.say(b"abc", kind=Kind.DATA, id=2)
    daemon.take()
    if how == "cancel":
        daemon.say(kind=Kind.CANCEL, id=2)
    elif how == "late":
        daemon.session.on_deadline(daemon.now + 6)
    elif how == "error":
        daemon.say(kind=Kind.ERROR, id=2, code=Code.MEMBER_LOST, executed=MAYBE)
    else:
        daemon.session.lane_down("gone")
    if how in ("cancel", "late"):
        header, _ = daemon.take_one()
        code = Code.CANCELLED if how == "cancel" else Code.DEADLINE_EXCEEDED
        assert (header.kind, header.code, header.executed) == (Kind.ERROR, code, NO)
    assert not member.deliveries and not member.expected
    assert not len(daemon.session._flows) and not daemon.session._deliveries
    assert daemon.session._flows._reserve.held == 0


def test_a_caller_that_gives_up_stops_the_handler_then_the_reply():
    daemon, member = serving()
    told: list[bool] = []
    deliver(daemon, 0)
    daemon.say(kind=Kind.FINISH, id=2)
    daemon.take()
    member.deliveries[0].on_cancel = told.append
    daemon.say(kind=Kind.CANCEL, id=2)
    assert told == [False]
    assert daemon.take() == [], "the slot is taken until the handler has ended"
    member.deliveries[0].fail(Code.CANCELLED, YES)
    assert kinds(daemon.take()) == [Kind.ERROR]
    daemon.say(kind=Kind.REQUEST, id=4, address="db", method="put", max_large=MiB, remaining_ms=5000)
    member.deliveries[1].reply_large(BODY)
    daemon.take()
    daemon.say(kind=Kind.CANCEL, id=4)
    header, _ = daemon.take_one()
    assert (header.kind, header.id, header.code) == (Kind.ERROR, 4, Code.CANCELLED)
    assert daemon.session.idle and not len(daemon.session._flows)


def test_the_reserve_of_the_process():
    reserve = Reserve(10)
    assert reserve.take(6) and not reserve.take(5) and reserve.take(4)
    reserve.give_back(6)
    assert reserve.take(6) and reserve.held == 10


# ------------------------------------------------------------ over real nodes

LIMIT = 100_000
LARGE = 6 * MiB


@pytest_asyncio.fixture
async def large() -> AsyncIterator[LocalMesh]:
    async with testing.mesh(nodes=2, max_body=LIMIT, max_large_body=LARGE) as mesh:
        yield mesh
    assert PROCESS.held == 0


def database(*, concurrency: int = 4) -> iris.Cluster:
    cluster = iris.Cluster("db", concurrency=concurrency)

    @cluster.on_request
    async def echo(request: iris.Request) -> iris.Reply:
        return iris.Reply(request.body, {"sender": request.sender, **request.headers}, content_type="x")

    @cluster.on_request("length")
    async def length(body: bytes) -> bytes:
        return str(len(body)).encode()

    @cluster.on_request("make")
    def make_some(body: bytes) -> bytes:
        return bytes(int(body))

    @cluster.on_request("rejects")
    async def rejects(body: bytes) -> bytes:
        raise iris.Reject("no room", code="full", body=b"tables")

    @cluster.on_request("raises")
    async def raises(body: bytes) -> bytes:
        raise KeyError("secret")

    return cluster


async def test_bodies_of_every_size_both_ways(large: LocalMesh):
    async with large.connect(0, name="cli") as caller, large.connect(1) as server, server.join(database()):
        assert (caller.max_body, caller.max_request) == (LIMIT, LARGE)
        for size in (0, 1, LIMIT, LIMIT + 1, PIECE_BYTES * 4, 2 * MiB, LARGE):
            body = random.Random(size).randbytes(size)
            reply = await caller.request("db", body, headers={"k": "v"})
            assert reply.body == body
            assert (reply.headers["k"], reply.content_type) == ("v", "x")
            assert reply.headers["sender"].startswith("cli@") and "node1" in reply.member
            assert (await caller.request("db", body, method="length")).body == str(size).encode()
            assert len((await caller.request("db", str(size).encode(), method="make")).body) == size


async def test_daemons_that_allow_next_to_nothing_in_a_frame():
    body = random.Random(3).randbytes(200_000)
    async with (
        testing.mesh(nodes=2, max_body=1000, max_large_body=LARGE) as mesh,
        mesh.connect(0) as caller,
        mesh.connect(1) as server,
        server.join(database()),
    ):
        assert (await caller.request("db", body)).body == body
        assert len((await caller.request("db", b"150000", method="make")).body) == 150_000


async def test_where_the_other_daemon_allows_less_in_a_frame_it_rides_a_tunnel_all_the_same():
    body = random.Random(3).randbytes(400_000)
    async with (
        testing.mesh(nodes=2, max_body=500_000, max_large_body=LARGE) as mesh,
        mesh.connect(0) as caller,
        mesh.connect(1) as server,
        server.join(database()),
    ):
        node = mesh._nodes[1]._node
        assert node is not None
        node.core.settings = dataclasses.replace(node.core.settings, max_body=300_000)
        assert (await caller.request("db", body)).body == body
        assert "dropped.protocol-error" not in node.core.counters


async def test_above_the_limit_it_is_named(large: LocalMesh):
    async with large.connect(0) as caller, large.connect(1) as server, server.join(database()):
        with pytest.raises(TooLarge, match=f"limit is {LARGE} bytes") as caught:
            await caller.request("db", bytes(LARGE + 1))
        assert caught.value.executed is Executed.NO
        with pytest.raises(TooLarge, match=f"limit is {LARGE} bytes") as caught:
            await caller.request("db", str(LARGE + 1).encode(), method="make")
        assert caught.value.executed is Executed.YES
        with pytest.raises(TooLarge, match=f"limit is {LIMIT} bytes"):
            await caller.push("db", bytes(LIMIT + 1))


async def test_errors_are_those_of_any_request(large: LocalMesh):
    body = bytes(2 * LIMIT)
    async with large.connect(0) as caller, large.connect(1) as server:
        with pytest.raises(iris.NoMember):
            await caller.request("db", body)
        async with server.join(database()):
            with pytest.raises(Rejected) as rejected:
                await caller.request("db", body, method="rejects")
            assert (rejected.value.code, rejected.value.body) == ("full", b"tables")
            with pytest.raises(HandlerFailed) as failed:
                await caller.request("db", body, method="raises")
            assert failed.value.executed is Executed.YES and "secret" not in str(failed.value)
            with pytest.raises(iris.NotSupported, match="no request method 'nothing'"):
                await caller.request("db", body, method="nothing")


async def test_codecs_and_returns(large: LocalMesh):
    cluster = iris.Cluster("db", codec=iris.JSON)

    @cluster.on_request
    async def double(values: list[int]) -> list[int]:
        return values + values

    async with large.connect(0) as caller, large.connect(1) as server, server.join(cluster):
        values = list(range(30_000))
        assert await caller.request("db", values, returns=list[int]) == values + values


class Slow:
    """A cluster of one slot whose handler waits to be told."""

    def __init__(self) -> None:
        self.cluster = iris.Cluster("db", concurrency=1)
        self.began, self.go, self.stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.cluster.on_request(self.handle)

    async def handle(self, request: iris.Request) -> bytes:
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped.set()
            raise
        return request.body


async def test_cancelling_reaches_the_handler_and_frees_the_slot(large: LocalMesh):
    slow = Slow()
    async with large.connect(0) as caller, large.connect(1) as server, server.join(slow.cluster):
        asking = asyncio.create_task(caller.request("db", bytes(2 * MiB), timeout=60))
        await slow.began.wait()
        asking.cancel()
        started = time.monotonic()
        await asyncio.wait_for(slow.stopped.wait(), 1)
        slow.go.set()
        assert (await caller.request("db", b"next")).body == b"next"
        assert time.monotonic() - started < 0.1


async def test_a_deadline_ends_it_at_both_ends(large: LocalMesh):
    slow = Slow()
    async with large.connect(0) as caller, large.connect(1) as server, server.join(slow.cluster):
        with pytest.raises(DeadlineExceeded) as caught:
            await caller.request("db", bytes(2 * MiB), timeout=0.3)
        assert caught.value.executed is Executed.MAYBE
        await asyncio.wait_for(slow.stopped.wait(), 1)


async def test_one_slot_one_large_request_at_a_time(large: LocalMesh):
    running, most = 0, 0
    cluster = iris.Cluster("db", concurrency=1)

    @cluster.on_request
    async def handle(body: bytes) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return body

    async with large.connect(0) as caller, large.connect(1) as server, server.join(cluster):
        bodies = [random.Random(at).randbytes(300_000 + at) for at in range(8)]
        replies = await asyncio.gather(*(caller.request("db", body, timeout=30) for body in bodies))
        assert [reply.body for reply in replies] == bodies
        assert most == 1


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_lost_member_is_lost_and_tried_again_where_that_does_no_harm(idempotent: bool):
    slow, body = Slow(), random.Random(9).randbytes(2 * MiB)
    async with (
        testing.mesh(nodes=3, max_body=LIMIT, max_large_body=LARGE) as mesh,
        mesh.connect(0) as caller,
        mesh.connect(1) as first,
        first.join(slow.cluster),
    ):
        asking = asyncio.create_task(caller.request("db", body, timeout=30, idempotent=idempotent))
        await slow.began.wait()
        async with mesh.connect(2) as second, second.join(database()):
            mesh.stop(1)
            if idempotent:
                assert (await asking).body == body
            else:
                with pytest.raises(MemberLost) as caught:
                    await asking
                assert caught.value.executed is Executed.MAYBE
            mesh.start(1)
            slow.go.set()
    assert PROCESS.held == 0


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_reply_lost_half_way_is_asked_for_again_where_that_does_no_harm(idempotent: bool):
    async with (
        testing.mesh(nodes=3, max_body=LIMIT, max_large_body=LARGE) as mesh,
        mesh.connect(0) as caller,
        mesh.connect(1) as first,
        first.join(database()),
    ):
        asking = asyncio.create_task(
            caller.request("db", str(LARGE).encode(), method="make", timeout=30, idempotent=idempotent)
        )
        while not len(caller._session._flows):
            await asyncio.sleep(0)
        async with mesh.connect(2) as second, second.join(database()):
            mesh.stop(1)
            if idempotent:
                assert (await asking).body == bytes(LARGE)
            else:
                with pytest.raises(MemberLost):
                    await asking
            mesh.start(1)
    assert PROCESS.held == 0


@pytest.mark.source
async def test_a_body_that_had_not_left_is_sent_to_another_without_being_asked():
    """The first member's app stands still before all has come: nothing has run, so nothing is lost by trying again."""
    body = random.Random(9).randbytes(4 * MiB)
    async with (
        testing.mesh(nodes=3, max_body=LIMIT, max_large_body=LARGE) as mesh,
        mesh.connect(0) as caller,
        mesh.connect(1) as first,
        first.join(database()),
    ):
        first._session.received = lambda data, now: None  # type: ignore[method-assign]
        asking = asyncio.create_task(caller.request("db", body, timeout=30))
        while not caller._session._calls:
            await asyncio.sleep(0)
        async with mesh.connect(2) as second, second.join(database()):
            mesh.stop(1)
            assert (await asking).body == body
            mesh.start(1)
            del first._session.received


@pytest.mark.parametrize("patient", [True, False])
async def test_leaving_waits_for_a_body_that_is_still_coming(large: LocalMesh, patient: bool):
    body = random.Random(9).randbytes(4 * MiB)
    async with large.connect(0) as caller, large.connect(1) as server:
        joined = await server.join(database()).__aenter__()
        runner = joined._runners[0]
        asking = asyncio.create_task(caller.request("db", body, timeout=30))
        while not runner._arriving:
            await asyncio.sleep(0)
        if patient:
            await joined.leave()
            assert (await asking).body == body
        else:
            await joined.leave(timeout=0.0)
            with pytest.raises(iris.DeliveryError) as caught:
                await asking
            assert caught.value.executed is Executed.NO
        assert not runner.busy
