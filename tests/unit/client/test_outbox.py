"""What leaves first, and how bulk takes turns."""

from __future__ import annotations

import math
from typing import Any

from iris_client._calls import Call, Unary
from iris_client._frames import Kind, decode_batch, make
from iris_client._model import PART_BYTES
from iris_client._outbox import MAX_UNFINISHED_BYTES, Out, Outbox
from tests.unit.client.ground import MiB, Promise


class Ground:
    def __init__(self) -> None:
        self.wakes = 0
        self.next = 1
        self.outbox = Outbox(self.opened, self.wake)

    def opened(self, call: Call) -> int:
        call.id, self.next = self.next, self.next + 2
        return call.id

    def wake(self) -> None:
        self.wakes += 1

    def call(self, body: bytes = b"", deadline: float = math.inf) -> Unary:
        call = Unary(make(kind=Kind.REQUEST, address="x"), body, deadline, "request", Promise())
        self.outbox.push(Out(call.header, body, deadline, call))
        return call

    def take(self, limit: int = MiB, now: float = 0.0) -> list[tuple[int, int, int]]:
        """Kind, id and size of what leaves in one batch."""
        data = self.outbox.take(limit, now)
        return [(h.kind, h.id, len(b)) for h, b in decode_batch(b"".join(data))] if data else []


class Bulk:
    """A source with frames of one size."""

    def __init__(self, ground: Ground, id: int, frames: int, size: int = 64 * 1024) -> None:
        self.ground, self.id, self.frames, self.size = ground, id, frames, size

    def pull(self, chunks: list[bytes], now: float) -> int:
        from iris_client._frames import append_frame

        self.frames -= 1
        if self.frames:
            self.ground.outbox.offer(self)
        return append_frame(chunks, make(kind=Kind.DATA, id=self.id).SerializeToString(), b"x" * self.size)


def test_nothing():
    ground = Ground()
    assert ground.outbox.empty
    assert ground.outbox.take(MiB, 0.0) is None


def test_ids_rise_in_the_order_of_leaving():
    ground = Ground()
    first, second = ground.call(), ground.call()
    assert first.id == second.id == 0
    assert ground.take() == [(Kind.REQUEST, 1, 0), (Kind.REQUEST, 3, 0)]
    assert (first.id, second.id) == (1, 3)
    assert ground.wakes == 2


def test_remaining_time_is_what_is_left_when_it_leaves():
    ground = Ground()
    ground.call(deadline=10.0)
    data = ground.outbox.take(MiB, 7.5004)
    assert data is not None
    assert decode_batch(b"".join(data))[0][0].remaining_ms == 2500


def test_what_is_too_late_or_no_longer_wanted_does_not_leave():
    ground = Ground()
    late, unwanted, wanted = ground.call(b"x", 5.0), ground.call(b"yy"), ground.call(b"zzz")
    unwanted.over = True
    assert ground.outbox.bodies == 6
    assert ground.take(now=5.0) == [(Kind.REQUEST, 1, 3)]
    assert (late.id, unwanted.id, wanted.id) == (0, 0, 1)
    assert ground.outbox.bodies == 0


def test_small_frames_go_ahead_of_bulk_and_do_not_starve_it():
    ground = Ground()
    ground.outbox.offer(Bulk(ground, 2, frames=2, size=1000))
    for _ in range(200):
        ground.call(b"x" * 1000)
    leaving = ground.take(limit=10_000)
    assert [kind for kind, _, _ in leaving] == [Kind.REQUEST] * 10 + [Kind.DATA]


def test_bulk_takes_turns():
    ground = Ground()
    for id in (2, 4, 6):
        ground.outbox.offer(Bulk(ground, id, frames=3))
    order: list[int] = []
    while taken := ground.take(limit=1):
        order += [id for _, id, _ in taken]
    assert order == [2, 4, 6] * 3


def test_a_large_body_leaves_in_parts_between_others():
    ground = Ground()
    body = bytes(range(256)) * (PART_BYTES // 256) * 2 + b"end"
    call = ground.call(body)
    ground.outbox.offer(Bulk(ground, 8, frames=2, size=10))
    data = b""
    while (batch := ground.outbox.take(1, 0.0)) is not None:
        data += b"".join(batch)
    frames = decode_batch(data)
    assert [int(h.kind) for h, _ in frames] == [Kind.REQUEST, Kind.DATA, Kind.PART, Kind.DATA, Kind.PART]
    parts: list[tuple[Any, bytes]] = [(h, b) for h, b in frames if h.id == call.id]
    assert [h.more for h, _ in parts] == [True, True, False]
    assert parts[0][0].total == len(body)
    assert b"".join(b for _, b in parts) == body
    assert ground.outbox.bodies == 0


def test_a_large_body_that_is_cancelled_stops():
    ground = Ground()
    call = ground.call(b"x" * (3 * PART_BYTES))
    assert ground.take(limit=1) == [(Kind.REQUEST, 1, PART_BYTES)]
    call.over = True
    assert ground.take() == []
    assert ground.outbox.bodies == 0
    assert ground.outbox.empty


def test_unfinished_bodies_are_bounded_together():
    ground = Ground()
    size = 8 * MiB
    calls = [ground.call(b"x" * size) for _ in range(6)]
    ground.take(limit=MAX_UNFINISHED_BYTES // 2)
    begun = [call for call in calls if call.id]
    assert len(begun) == MAX_UNFINISHED_BYTES // size
    while ground.take():
        pass
    assert all(call.id for call in calls)
    assert ground.outbox.bodies == 0


def test_a_body_above_the_bound_still_goes():
    ground = Ground()
    call = ground.call(b"x" * (MAX_UNFINISHED_BYTES + 1))
    while ground.take():
        pass
    assert call.id == 1


def test_clear_tells_what_was_never_written():
    ground = Ground()
    written = ground.call(b"x" * (2 * PART_BYTES))
    ground.take(limit=1)
    small, large = ground.call(), ground.call(b"x" * (2 * PART_BYTES))
    unwritten = ground.outbox.clear()
    assert set(map(id, unwritten)) == {id(small), id(large)}
    assert written.id == 1
    assert ground.outbox.empty
    assert ground.outbox.bodies == 0
    assert ground.take() == []


def test_calls_of_which_nothing_was_written_are_taken_back():
    ground = Ground()
    ground.call(b"z" * (PART_BYTES + 1))
    ground.take(limit=1)  # its first part has left
    small, kept, large = ground.call(b"x"), ground.call(), ground.call(b"y" * (PART_BYTES + 1))
    ground.outbox.push(Out(make(kind=Kind.CREDIT, id=2)))
    assert ground.outbox.withdraw(lambda call: call is not kept) == [small, large]
    kinds = [kind for kind, *_ in ground.take()]
    assert kinds == [Kind.REQUEST, Kind.CREDIT, Kind.PART]
    assert ground.outbox.empty
    assert ground.outbox.bodies == 0


def test_a_batch_has_no_more_frames_than_a_daemon_takes():
    """However short they are: those above would cost the app its stream."""
    ground = Ground()
    for _ in range(70_000):
        ground.outbox.push(Out(make(kind=Kind.CREDIT, count=1)))
    taken = []
    while (batch := ground.outbox.take(MiB, 0.0)) is not None:
        taken.append(len(decode_batch(b"".join(batch))))
    assert sum(taken) == 70_000
    assert max(taken) < 65_536
