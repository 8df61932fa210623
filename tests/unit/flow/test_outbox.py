from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterator
from itertools import pairwise

import pytest

from irisd.flow import Flow, Outbox
from irisd.flow.outbox import FRAME_COST, MAX_KEPT, MAX_LOSSES, QUANTUM, REPLIES, REQUESTS
from irisd.model import PART_BYTES, Frame, KiB, Kind, WhenFull

OLDEST, NEWEST = WhenFull.DROP_OLDEST, WhenFull.DROP_NEWEST


def outbox(limit: float = math.inf) -> Outbox:
    return Outbox(limit=limit)


def request(id: int, size: int = 10, deadline: float = math.inf) -> Frame:
    return Frame(Kind.REQUEST, id=id, body=bytes(size), deadline=deadline)


def message(name: str, size: int = 100, messages: int = 1) -> Frame:
    sizes = (size // messages).to_bytes(4, "little") * messages if messages > 1 else b""
    return Frame(Kind.PUBLISH, address="t", member=name, body=bytes(size), sizes=sizes)


def drain(box: Outbox, limit: int = 1 << 20, now: float = 0.0) -> list[Frame]:
    frames: list[Frame] = []
    while some := box.take(limit, now):
        frames += some
    assert not box
    assert (box.bytes, box.urgent_bytes) == (0, 0)
    return frames


def ids(frames: list[Frame]) -> list[int]:
    return [frame.id for frame in frames]


# -- order and fairness


def test_urgent_frames_leave_first_and_in_order():
    box = outbox()
    box.put(REQUESTS, request(1))
    box.put_urgent(Frame(Kind.CREDIT, id=2))
    box.put_urgent(Frame(Kind.CANCEL, id=3))
    assert bool(box)
    assert ids(drain(box)) == [2, 3, 1]


def test_a_take_is_bounded_by_its_limit():
    box = outbox()
    for id in range(100):
        box.put(REQUESTS, request(id, KiB))
    assert len(box.take(10 * (KiB + FRAME_COST), 0.0)) == 10
    for id in range(100):
        box.put_urgent(Frame(Kind.REPLY, id=id, body=bytes(KiB)))
    assert len(box.take(10 * (KiB + FRAME_COST), 0.0)) == 10


def test_flows_take_turns_by_bytes_not_by_frames():
    box = outbox()
    for _ in range(400):
        box.put(("big", ""), Frame(Kind.PUBLISH, address="big", body=bytes(8 * KiB)))
        box.put(("small", ""), Frame(Kind.PUBLISH, address="small", body=bytes(256)))
    sent = {"big": 0, "small": 0}
    for frame in box.take(800 * KiB, 0.0):
        sent[frame.address] += len(frame.body) + FRAME_COST
    # the small one has 200 KiB: all of it leaves, although 3 MiB of the big one were queued beside it
    assert sent["small"] == 400 * 512
    assert sent["big"] >= 800 * KiB - sent["small"] - QUANTUM


@pytest.mark.parametrize("limit", [2 * KiB, 16 * KiB, 64 * KiB, 100 * KiB, 1 << 20])
def test_turns_are_fair_however_little_is_taken_at_a_time(limit: int):
    box = outbox()
    for _ in range(1000):
        for topic in ("a", "b", "c"):
            box.put((topic, ""), Frame(Kind.PUBLISH, address=topic, body=bytes(KiB)))
    sent = dict.fromkeys("abc", 0)
    while sum(sent.values()) < 1500:
        box.put_urgent(Frame(Kind.CREDIT))
        for frame in box.take(limit, 0.0):
            if frame.kind == Kind.PUBLISH:
                sent[frame.address] += 1
    assert max(sent.values()) - min(sent.values()) <= QUANTUM // KiB


def test_a_large_body_is_paid_for_afterwards():
    box = outbox()
    box.put(REPLIES, Frame(Kind.REPLY, id=1, body=bytes(4 * PART_BYTES)))
    for n in range(2000):
        box.put(("t", ""), Frame(Kind.PUBLISH, address="t", count=n, body=bytes(KiB)))
    frames = drain(box, 64 * KiB)
    parts = [at for at, frame in enumerate(frames) if frame.kind != Kind.PUBLISH]
    between = [later - earlier for earlier, later in pairwise(parts)]
    assert min(between) >= 0.9 * PART_BYTES / (KiB + FRAME_COST)  # as many bytes for the topic as the part had
    assert [frame.count for frame in frames if frame.kind == Kind.PUBLISH] == list(range(2000))


# -- parts


def test_large_bodies_leave_in_parts():
    box = outbox()
    body = bytes(range(256)) * (2 * PART_BYTES // 256) + b"tail"
    box.put(REQUESTS, Frame(Kind.REQUEST, id=5, address="db", body=body, deadline=3.0))
    first, second, third = drain(box, now=1.0)
    assert (first.kind, first.id, first.address, first.more, first.total) == (Kind.REQUEST, 5, "db", True, len(body))
    assert first.remaining_ms == 2000
    assert (second.kind, second.id, second.more, second.whole) == (Kind.PART, 5, True, None)
    assert (third.kind, third.id, third.more) == (Kind.PART, 5, False)
    assert third.whole is not None
    assert third.whole.address == "db"
    assert first.body + second.body + third.body == body


def test_a_body_of_exactly_one_part_is_whole():
    box = outbox()
    box.put(REQUESTS, request(1, PART_BYTES))
    (frame,) = drain(box)
    assert not frame.more


# -- deadlines


def test_the_wait_is_subtracted_from_the_remaining_time():
    box = outbox()
    box.put(REQUESTS, request(1, deadline=10.0))
    (frame,) = box.take(1 << 20, 9.25)
    assert frame.remaining_ms == 750
    assert frame.sent


def test_a_frame_whose_time_is_up_does_not_leave():
    box = outbox()
    late, alive = request(1, deadline=1.0), request(2, deadline=1.5)
    box.put(REQUESTS, late)
    box.put(REQUESTS, alive)
    (left,) = drain(box, now=1.0)
    assert left is alive
    assert not late.sent
    assert box.withdraw(REQUESTS, late)
    assert box.bytes == 0
    box.put(REQUESTS, request(3, deadline=1.2))
    assert drain(box, now=1.1999)[0].remaining_ms == 1  # never 0, which has no meaning


def test_a_body_half_gone_is_not_too_late():
    box = outbox()
    box.put(REQUESTS, request(1, PART_BYTES + 1, deadline=1.0))
    assert len(box.take(1, 0.0)) == 1
    assert len(box.take(1, 5.0)) == 1  # the other side waits for the rest


# -- waking


def test_idle_once_it_was_seen_empty():
    box = outbox()
    assert box.idle
    box.idle = False
    box.put(REQUESTS, request(1))
    assert box.take(1 << 20, 0.0)
    assert not box.idle
    assert box.take(1 << 20, 0.0) == []
    assert box.idle


# -- bounds and drop policies


def subscription(box: Outbox, limit: int, when_full: WhenFull) -> Flow:
    return box.open(7, limit=limit, when_full=when_full)


def told(frames: list[Frame]) -> list[tuple[str, int]]:
    return [(frame.member, frame.lost) for frame in frames]


SIZE = 100 + FRAME_COST


def test_drop_oldest_tells_before_what_follows():
    box = outbox()
    flow = subscription(box, 3 * SIZE, OLDEST)
    assert [box.offer(flow, message(name)) for name in "abcdef"] == [0, 0, 0, 1, 1, 1]
    assert box.bytes == flow.bytes == 3 * SIZE
    assert told(drain(box)) == [("d", 3), ("e", 0), ("f", 0)]


def test_drop_newest_tells_behind_what_waits():
    box = outbox()
    flow = subscription(box, 2 * SIZE, NEWEST)
    assert [box.offer(flow, message(name)) for name in "abcd"] == [0, 0, 1, 1]
    assert told(box.take(1, 0.0)) == [("a", 0)]
    assert box.offer(flow, message("e")) == 0
    assert told(drain(box)) == [("b", 0), ("e", 2)]


def test_losses_at_the_end_are_told_without_a_message():
    box = outbox()
    flow = subscription(box, 2 * SIZE, NEWEST)
    for name in "abcd":
        box.offer(flow, message(name))
    *rest, notice = drain(box)
    assert told(rest) == [("a", 0), ("b", 0)]
    assert notice == Frame(Kind.EVENT, id=7, lost=2, lost_unknown=False)
    assert drain(box) == []


def test_a_flow_may_have_a_notice_of_its_own_kind():
    box = outbox()
    box.lose(box.open(7, limit=SIZE, when_full=OLDEST, notice=Kind.CHANGE), 3)
    assert drain(box) == [Frame(Kind.CHANGE, id=7, lost=3, lost_unknown=False)]


def test_what_was_promised_is_never_pushed_out():
    box = outbox()
    flow = subscription(box, 4 * SIZE, OLDEST)
    for name in "ab":
        box.promise(flow, message(name))
    assert [box.offer(flow, message(name)) for name in "cdef"] == [0, 0, 1, 1]
    assert told(box.take(1, 0.0)) == [("a", 0)]
    assert box.offer(flow, message("g")) == 0
    assert told(drain(box)) == [("b", 0), ("e", 2), ("f", 0), ("g", 0)]
    assert [box.offer(flow, message(name)) for name in "hijkl"] == [0, 0, 0, 0, 1]  # nothing is promised any more
    assert told(drain(box)) == [("i", 1), ("j", 0), ("k", 0), ("l", 0)]


def test_a_queue_of_promises_takes_nothing_more_and_tells_behind_them():
    box = outbox()
    flow = subscription(box, SIZE, OLDEST)
    for name in "ab":
        box.promise(flow, message(name))
    assert box.offer(flow, message("c")) == 1
    *rest, notice = drain(box)
    assert told(rest) == [("a", 0), ("b", 0)]
    assert notice.lost == 1


def test_losses_of_a_quiet_subscription_are_told_at_once():
    box = outbox()
    flow = subscription(box, 1000, OLDEST)
    box.lose(flow, 3)
    box.lose(flow, 0, unknown=True)
    assert bool(box)
    assert drain(box) == [Frame(Kind.EVENT, id=7, lost=3, lost_unknown=True)]


def test_losses_behind_what_waits_are_told_in_their_place():
    box = outbox()
    flow = subscription(box, 10_000, OLDEST)
    box.offer(flow, message("a"))
    box.lose(flow, 3)
    box.offer(flow, message("b"))
    box.lose(flow, 0, unknown=True)
    box.offer(flow, message("c"))
    frames = drain(box)
    assert told(frames) == [("a", 0), ("b", 3), ("c", 0)]
    assert [frame.lost_unknown for frame in frames] == [False, False, True]


def test_a_dropped_frame_hands_on_the_losses_it_was_to_tell():
    box = outbox()
    flow = subscription(box, 2 * SIZE, OLDEST)
    box.offer(flow, message("a"))
    box.lose(flow, 3, unknown=True)
    for name in "bcde":
        box.offer(flow, message(name))
    frames = drain(box)
    assert told(frames) == [("d", 6), ("e", 0)]
    assert frames[0].lost_unknown


def test_losses_count_messages_not_frames():
    box = outbox()
    flow = subscription(box, 2 * SIZE, OLDEST)
    assert [box.offer(flow, message("x", 100, messages=10)) for _ in range(3)] == [0, 0, 10]
    assert sum(frame.messages + frame.lost for frame in drain(box)) == 30


def test_one_message_always_fits_its_own_queue():
    box = outbox()
    for when_full in (OLDEST, NEWEST):
        flow = box.open(int(when_full), limit=10, when_full=when_full)
        assert box.offer(flow, message("a", 1000)) == 0
        assert box.offer(flow, message("b", 1000)) == 1
    assert told(drain(box)) == [("b", 1), ("a", 0), ("", 1)]


def test_a_frame_that_has_begun_to_leave_is_not_dropped():
    box = outbox()
    flow = subscription(box, 4 * PART_BYTES, OLDEST)
    box.offer(flow, message("large", 3 * PART_BYTES))
    (first,) = box.take(1, 0.0)
    assert first.more
    for name in ("b", "c", "d"):
        box.offer(flow, message(name, PART_BYTES // 2))
    frames = [first, *drain(box)]
    assert [(frame.member, frame.lost) for frame in frames if frame.kind == Kind.PUBLISH] == [("large", 0), ("d", 2)]
    assert sum(len(frame.body) for frame in frames[:3]) == 3 * PART_BYTES


def test_the_outbox_as_a_whole_is_bounded_whatever_the_policy():
    box = outbox(limit=10 * SIZE)
    for round in range(50):
        for n in range(30):
            flow = box.open((f"t{n}", ""), limit=1 << 20, when_full=OLDEST)
            box.offer(flow, message(str(round), 100 + 37 * (n % 7)))
            assert box.bytes <= box.limit
    frames = drain(box)
    lost = sum(frame.count if frame.kind == Kind.LOST else frame.lost for frame in frames)
    assert lost + sum(frame.kind == Kind.PUBLISH for frame in frames) == 50 * 30


def test_a_topic_that_finds_no_room_is_told_as_lost():
    box = outbox(limit=SIZE)
    box.offer(box.open(("a", ""), when_full=OLDEST), message("a"))
    flow = box.open(("b", "group"), when_full=OLDEST)
    assert box.offer(flow, message("b", messages=4)) == 4
    assert box.offer(flow, message("b")) == 1
    assert drain(box)[1:] == [Frame(Kind.LOST, address="b", group="group", count=5)]


def test_losses_of_very_many_topics_are_told_as_one():
    box = outbox(limit=SIZE)
    box.offer(box.open(("full", ""), when_full=OLDEST), message("a"))
    for n in range(MAX_LOSSES + 100):
        box.offer(box.open((f"t{n}", ""), when_full=OLDEST), message("b"))
    notices = drain(box)[1:]
    assert len(notices) <= MAX_LOSSES + 1
    assert sum(notice.count for notice in notices) == MAX_LOSSES + 100
    assert notices[-1].address == ""


def test_headers_count_too():
    box = outbox()
    flow = subscription(box, 10 * KiB, NEWEST)
    for _ in range(10):
        box.offer(flow, Frame(Kind.EVENT, header_bytes=4 * KiB, body=b"x"))
    assert len(flow.frames) == 2
    assert box.bytes == 2 * (4 * KiB + FRAME_COST + 1)
    drain(box)


def test_calls_fit_up_to_a_limit_and_one_always():
    box = outbox()
    large = request(1, 10 * KiB)
    assert box.fits(large, 1)
    box.put(REQUESTS, large)
    assert not box.fits(request(2), 10 * KiB)
    assert box.fits(request(2), 11 * KiB)


# -- taking back


@pytest.mark.parametrize("order", ["first", "last", "middle"])
def test_a_waiting_frame_can_be_taken_back(order: str):
    box = outbox()
    frames = [request(id) for id in range(5)]
    for frame in frames:
        box.put(REQUESTS, frame)
    gone = frames[{"first": 0, "last": -1, "middle": 2}[order]]
    id = gone.id
    assert box.withdraw(REQUESTS, gone)
    assert box.withdraw(REQUESTS, gone)  # again is harmless
    assert box.bytes == 4 * (10 + FRAME_COST)
    assert ids(drain(box)) == [other for other in range(5) if other != id]


def test_what_has_left_cannot_be_taken_back():
    box = outbox()
    frame = request(1)
    box.put(REQUESTS, frame)
    box.put(REQUESTS, request(2))
    box.take(1, 0.0)
    assert not box.withdraw(REQUESTS, frame)
    drain(box)
    assert not box.withdraw(REQUESTS, frame)


def test_the_rest_of_a_body_can_be_taken_back():
    box = outbox()
    large = request(1, 3 * PART_BYTES)
    box.put(REQUESTS, large)
    box.put(REQUESTS, request(2))
    assert box.take(1, 0.0)[0].more
    assert box.withdraw(REQUESTS, large)
    assert large.sent
    assert ids(drain(box)) == [2]


def test_taking_everything_back_leaves_nothing():
    box = outbox()
    frames = [request(id) for id in range(100)]
    for frame in frames:
        box.put(REQUESTS, frame)
    for frame in reversed(frames):
        assert box.withdraw(REQUESTS, frame)
    assert not box
    assert box.bytes == 0
    assert list(box.flows()) == []


def test_places_of_frames_taken_back_never_outnumber_those_that_wait():
    """An app that asks and cancels behind a stalled link must not fill memory with the empty places."""
    box = outbox()
    box.put(REQUESTS, request(0))
    for id in range(1, 2000):
        frame = request(id, KiB)
        box.put(REQUESTS, frame)
        assert box.withdraw(REQUESTS, frame)
        assert box.queued(REQUESTS)[0] <= 3
        assert frame.body == b""
    assert ids(drain(box)) == [0]


def test_taking_back_many_is_not_quadratic():
    box = outbox()
    frames = [request(id) for id in range(40_000)]
    for frame in frames:
        box.put(REQUESTS, frame)
    for frame in reversed(frames[20_000:]):  # the last first: the worst case of a search from the front
        box.withdraw(REQUESTS, frame)
    assert ids(drain(box)) == list(range(20_000))


@pytest.mark.parametrize("key", [7, ("t", ""), ("tunnel", 4)])
def test_discarding_a_flow(key: Hashable):
    box = outbox()
    box.put(REQUESTS, request(1))
    for _ in range(3):
        box.put(key, message("x", 100, messages=2))
    assert box.discard(key) == 6
    assert box.discard(key) == 0
    assert ids(drain(box)) == [1]


def test_discarding_a_flow_with_losses_only():
    box = outbox()
    box.lose(box.open(7), 3)
    assert box.discard(7) == 0
    assert drain(box) == []


def test_topics_are_told_apart_from_tunnels_and_subscriptions():
    box = outbox()
    keys: list[Hashable] = [("tunnel", 6), ("tunnel", ""), ("a", "g"), 7, REQUESTS, REPLIES]
    assert [box.open(key).topic for key in keys] == [None, ("tunnel", ""), ("a", "g"), None, None, None]


def test_flows_come_and_go_but_subscriptions_stay():
    box = outbox()
    box.put(("t", ""), message("x"))
    box.offer(box.open(7), message("y"))
    drain(box)
    assert [flow.key for flow in box.flows()] == [7]


def test_with_many_subscriptions_flows_come_and_go_but_those_that_must_be_kept():
    box = outbox()
    for id in range(MAX_KEPT + 50):
        box.offer(box.open(id), message("x"))
    box.offer(box.open(MAX_KEPT + 50, kept=True), message("y"))
    box.lose(box.open(MAX_KEPT + 51), 3)
    assert len(drain(box)) == MAX_KEPT + 52
    assert [flow.key for flow in box.flows()] == [*range(MAX_KEPT), MAX_KEPT + 50]
    box.offer(box.open(MAX_KEPT), message("again"))
    assert [frame.member for frame in drain(box)] == ["again"]


def test_losses_of_very_many_subscriptions_are_told_to_each():
    box = outbox()
    for id in range(MAX_LOSSES + 10):
        box.lose(box.open(id), 1)
    assert [frame.id for frame in drain(box)] == list(range(MAX_LOSSES + 10))


def test_flows_end_in_any_order_in_linear_time():
    outbox = Outbox(limit=math.inf)
    count = 50_000
    for key in range(count):
        outbox.put(key, Frame(Kind.EVENT, id=key, body=b"x"))
    began = time.process_time()
    for key in reversed(range(count)):
        assert outbox.discard(key) == 1
    assert time.process_time() - began < 2.0  # looking for each among the others takes ten times that
    assert not outbox
    assert outbox.bytes == 0


def test_a_stream_is_made_as_it_leaves_and_keeps_its_place():
    box = outbox()
    made = []

    def frames() -> Iterator[Frame]:
        for id in range(10, 13):
            made.append(id)
            yield Frame(Kind.RECORD, id=id, body=bytes(KiB))

    box.put_urgent(Frame(Kind.CREDIT, id=1))
    box.put_stream(Kind.RECORD, frames(), 5 * KiB)
    box.put_urgent(Frame(Kind.CREDIT, id=2))
    box.put(REQUESTS, request(3))
    assert box.urgent_bytes == 5 * KiB + 2 * FRAME_COST
    assert [frame.id for frame in box.urgent()] == [1, 2]
    first = box.take(KiB, 0.0)
    assert (ids(first), made) == ([1, 10], [10])
    assert all(frame.sent for frame in first)
    assert ids(drain(box)) == [11, 12, 2, 3]


def test_a_stream_may_be_empty_and_may_be_forgotten():
    box = outbox()
    box.put_stream(Kind.RECORD, iter(()), KiB)
    assert box
    assert drain(box) == []
    box.put_stream(Kind.HEARSAY, iter([Frame(Kind.HEARSAY)]), KiB)
    box.put_stream(Kind.RECORD, iter([Frame(Kind.RECORD)]), KiB)
    box.forget_urgent({Kind.RECORD})
    assert box.urgent_bytes == KiB
    assert [frame.kind for frame in drain(box)] == [Kind.HEARSAY]


def test_urgent_frames_that_mean_nothing_any_more_are_forgotten():
    outbox = Outbox(limit=1000)
    for kind in (Kind.RECORD, Kind.CREDIT, Kind.RECORD, Kind.CANCEL):
        outbox.put_urgent(Frame(kind, body=b"x"))
    outbox.forget_urgent({Kind.RECORD})
    assert outbox.urgent_bytes == 2 * (FRAME_COST + 1)
    assert [frame.kind for frame in outbox.take(10_000, 0.0)] == [Kind.CREDIT, Kind.CANCEL]
    assert (outbox.urgent_bytes, bool(outbox)) == (0, False)
