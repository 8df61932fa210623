"""The connection over scripted lanes: what it does when a stream refuses, breaks, lies or says nothing."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, NoReturn

import pytest

from iris_client import DaemonUnavailable, Denied, State, StateChange
from iris_client._calls import Unary
from iris_client._connection import Connection
from iris_client._frames import Kind, decode_batch, make
from iris_client._lane import CLOSED, Buffer, LaneEnded, Stream
from iris_client._session import Session
from iris_client._urls import Target
from tests.unit.client.ground import batch

WELCOME = batch(({"kind": Kind.WELCOME, "max_bytes": 1000}, b""))


class ScriptedLane:
    """A lane that answers HELLO with a script, and then holds its tongue."""

    name = "scripted"
    batch = 1 << 20

    def __init__(self, *script: bytes | LaneEnded) -> None:
        self.said: asyncio.Queue[bytes | LaneEnded] = asyncio.Queue()
        for each in script:
            self.said.put_nowait(each)
        self.heard: list[Any] = []
        self.news = asyncio.Event()
        self.closed = 0
        self.finished = False

    async def send(self, parts: list[bytes]) -> None:
        self.heard += decode_batch(b"".join(parts))
        self.news.set()

    async def receive(self) -> bytes:
        said = await self.said.get()
        if isinstance(said, LaneEnded):
            raise said
        return said

    async def pump(self, received: Callable[[Buffer], None]) -> NoReturn:
        while True:
            received(await self.receive())

    async def finish(self) -> None:
        self.finished = True
        self.said.put_nowait(LaneEnded("OK", ""))

    async def close(self) -> None:
        self.closed += 1

    async def hears(self, kind: Kind) -> Any:
        async with asyncio.timeout(5):
            while True:
                for header, body in self.heard:
                    if header.kind == kind:
                        return header, body
                self.news.clear()
                await self.news.wait()


class Ground:
    """A session and its connection; ``script`` says what each attempt meets."""

    def __init__(self, *script: ScriptedLane | LaneEnded, targets: int = 1) -> None:
        self.script = deque(script)
        self.attempts: list[Target] = []
        self.states: list[State] = []
        self.reasons: list[str] = []
        self.session = Session(service="", name="app", version="1", wake=lambda: self.connection.wake())
        self.connection = Connection(
            self.session, [Target("unix", f"/{n}") for n in range(targets)], self.open, "token", Random(1)
        )
        self.connection.on_state = self.changed

    def changed(self, change: StateChange) -> None:
        self.states.append(change.state)
        self.reasons.append(change.reason)

    async def open(self, target: Target, token: str | None) -> Stream:
        assert token == "token"
        self.attempts.append(target)
        if not self.script:
            raise LaneEnded("UNAVAILABLE", "nobody there")
        met = self.script.popleft()
        if isinstance(met, LaneEnded):
            raise met
        return met

    async def until(self, state: State) -> None:
        async with asyncio.timeout(5):
            while state not in self.states:
                await asyncio.sleep(0.001)


async def test_hello_then_welcome():
    lane = ScriptedLane(WELCOME)
    ground = Ground(lane)
    await ground.connection.start(1.0)
    assert [int(header.kind) for header, _ in lane.heard] == [Kind.HELLO]
    assert ground.states == [State.ATTACHED]
    assert ground.connection.url == "unix:///0"
    await ground.connection.stop("done", kindly=True)
    assert lane.finished
    assert lane.closed
    assert ground.states == [State.ATTACHED, State.CLOSED]


async def test_targets_are_tried_in_order_until_one_answers():
    lane = ScriptedLane(WELCOME)
    ground = Ground(LaneEnded("UNAVAILABLE", "no"), LaneEnded("UNAVAILABLE", "no"), lane, targets=2)
    await ground.connection.start(5.0)
    assert [target.place for target in ground.attempts] == ["/0", "/1", "/0"]
    await ground.connection.stop("done", kindly=False)
    assert not lane.finished


@pytest.mark.parametrize("status", ["NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED"])
async def test_a_refusal_is_told_at_once(status: str):
    lane = ScriptedLane(LaneEnded(status, "wrong token"))
    ground = Ground(lane)
    with pytest.raises(Denied, match="wrong token"):
        await ground.connection.start(60.0)
    assert lane.closed


@pytest.mark.parametrize("later", [LaneEnded("UNAVAILABLE", CLOSED), LaneEnded("DEADLINE_EXCEEDED", "no answer")])
async def test_a_reason_is_not_forgotten_for_the_want_of_one(later: LaneEnded):
    ground = Ground(LaneEnded("RESOURCE_EXHAUSTED", "too many attachments"), *[later] * 100)
    with pytest.raises(DaemonUnavailable, match="unix:///0: too many attachments"):
        await ground.connection.start(0.2)
    assert len(ground.attempts) > 1


async def test_a_daemon_that_says_nothing():
    lane = ScriptedLane()
    ground = Ground(lane)
    with pytest.raises(DaemonUnavailable, match=r"unix:///0: no answer within 0\.1 s"):
        await ground.connection.start(0.1)
    assert lane.closed


async def test_something_that_is_no_daemon():
    ground = Ground(*(ScriptedLane(b"HTTP/1.1 400 Bad Request") for _ in range(5)))
    with pytest.raises(DaemonUnavailable) as caught:
        await ground.connection.start(0.02)
    assert "not a daemon this SDK understands" in str(caught.value)


async def test_a_stream_that_breaks_is_replaced():
    first, second = ScriptedLane(WELCOME), ScriptedLane(WELCOME)
    ground = Ground(first, LaneEnded("UNAVAILABLE", "still down"), second)
    await ground.connection.start(1.0)
    ground.states.clear()
    first.said.put_nowait(LaneEnded("UNAVAILABLE", "connection reset"))
    await ground.until(State.ATTACHED)
    assert ground.states == [State.DETACHED, State.ATTACHED]
    assert "connection reset" in ground.reasons
    assert first.closed
    await ground.connection.stop("done", kindly=True)


async def test_a_daemon_that_breaks_the_protocol_is_left(caplog: pytest.LogCaptureFixture):
    first, second = ScriptedLane(WELCOME), ScriptedLane(WELCOME)
    ground = Ground(first, second)
    await ground.connection.start(1.0)
    ground.states.clear()
    first.said.put_nowait(b"\xff")
    await ground.until(State.ATTACHED)
    assert "broke the protocol" in caplog.text
    await ground.connection.stop("done", kindly=True)


@pytest.mark.source
async def test_a_defect_of_ours_is_logged_and_survived(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    first, second = ScriptedLane(WELCOME), ScriptedLane(WELCOME)
    ground = Ground(first, second)
    await ground.connection.start(1.0)
    ground.states.clear()
    real = ground.session.received

    def broken(data: bytes, now: float) -> None:
        monkeypatch.setattr(ground.session, "received", real)
        raise ZeroDivisionError

    monkeypatch.setattr(ground.session, "received", broken)
    first.said.put_nowait(batch())
    await ground.until(State.ATTACHED)
    assert "a defect of the SDK" in caplog.text
    await ground.connection.stop("done", kindly=True)


async def test_pauses_between_attempts_grow_and_are_jittered(monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    first, last = ScriptedLane(WELCOME), ScriptedLane(WELCOME)
    ground = Ground(first, *[LaneEnded("UNAVAILABLE", "down")] * 10, last)
    await ground.connection.start(1.0)
    ground.states.clear()
    monkeypatch.setattr(ground.connection, "_pause", pause)
    first.said.put_nowait(LaneEnded("UNAVAILABLE", "reset"))
    await ground.until(State.ATTACHED)
    ceilings = [min(5.0, 0.05 * 2**n) for n in range(11)]
    assert len(pauses) == 11
    assert all(ceiling / 2 <= pause <= ceiling for pause, ceiling in zip(pauses, ceilings, strict=True))
    assert len({round(pause / ceiling, 3) for pause, ceiling in zip(pauses, ceilings, strict=True)}) > 5
    await ground.connection.stop("done", kindly=True)


async def test_whoever_waits_for_the_next_daemon_makes_the_pauses_short():
    first, last = ScriptedLane(WELCOME), ScriptedLane(WELCOME)
    ground = Ground(first, *[LaneEnded("UNAVAILABLE", "down")] * 8, last)  # 6 s of pauses when nobody waits
    await ground.connection.start(1.0)
    ground.states.clear()
    first.said.put_nowait(LaneEnded("UNAVAILABLE", "reset"))
    await ground.until(State.DETACHED)
    began = time.monotonic()
    promise: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    call = Unary(make(kind=Kind.REQUEST, address="x"), b"", began + 60.0, "request", promise)
    ground.session.open(call, began)
    await ground.until(State.ATTACHED)
    assert time.monotonic() - began < 2.0
    await last.hears(Kind.REQUEST)
    await ground.connection.stop("done", kindly=True)
    ground.session.cancel(call)


async def test_a_call_shortens_a_pause_that_has_begun():
    ground = Ground(ScriptedLane(WELCOME))
    await ground.connection.start(1.0)
    ground.session.draining = True  # so that the call waits
    pausing = asyncio.create_task(ground.connection._pause(60.0))
    await asyncio.sleep(0)
    promise: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    now = time.monotonic()
    call = Unary(make(kind=Kind.REQUEST, address="x"), b"", now + 60.0, "request", promise)
    ground.session.open(call, now)
    await asyncio.wait_for(pausing, 2.0)
    ground.session.cancel(call)
    await ground.connection.stop("done", kindly=True)


async def test_after_a_goodbye_the_next_daemon_is_tried_at_once(monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    goodbye = batch(({"kind": Kind.GOODBYE, "reason": "upgrade", "count": 1}, b""))
    first, last = ScriptedLane(WELCOME, goodbye), ScriptedLane(WELCOME)
    ground = Ground(first, LaneEnded("UNAVAILABLE", "not yet"), last)
    await ground.connection.start(1.0)
    monkeypatch.setattr(ground.connection, "_pause", pause)
    await first.hears(Kind.GOODBYE)
    ground.states.clear()
    first.said.put_nowait(LaneEnded("UNAVAILABLE", "shut down"))
    await ground.until(State.ATTACHED)
    assert pauses[0] == 0.0
    assert 0.0 < pauses[1] <= 0.05
    await ground.connection.stop("done", kindly=True)


async def test_deadlines_are_kept_by_one_timer():
    lane = ScriptedLane(WELCOME)
    ground = Ground(lane)
    await ground.connection.start(1.0)
    loop = asyncio.get_running_loop()
    now = time.monotonic()
    promises = []
    for timeout in (0.06, 0.02, 0.04):
        promise: asyncio.Future[Any] = loop.create_future()
        call = Unary(make(kind=Kind.REQUEST, address="x"), b"", now + timeout, "request", promise)
        ground.session.open(call, now)
        promises.append(promise)
    await lane.hears(Kind.REQUEST)
    done = await asyncio.wait_for(asyncio.gather(*promises, return_exceptions=True), 2)
    assert [type(each).__name__ for each in done] == ["DeadlineExceeded"] * 3
    await lane.hears(Kind.CANCEL)
    assert time.monotonic() >= now + 0.06
    assert ground.connection._timer is None
    await ground.connection.stop("done", kindly=True)
