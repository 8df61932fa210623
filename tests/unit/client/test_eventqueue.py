"""What a subscription holds: bounded, in order, and every loss told once."""

from __future__ import annotations

import pytest

from iris_client._eventqueue import EVENT_COST, EventQueue
from iris_client._frames import Kind, ProtocolError, make


def add(queue: EventQueue, *bodies: bytes, lost: int = 0, unknown: bool = False, headers: dict[str, str] | None = None):
    sizes = [len(body) for body in bodies] if len(bodies) > 1 else None
    header = make(kind=Kind.EVENT, id=1, address="t", sizes=sizes, lost=lost, lost_unknown=unknown, headers=headers)
    queue.add(header, b"".join(bodies))


def notice(queue: EventQueue, *, lost: int = 0, unknown: bool = False) -> None:
    queue.add(make(kind=Kind.EVENT, id=1, lost=lost, lost_unknown=unknown), b"")


def drain(queue: EventQueue) -> list[tuple[bytes, int | None]]:
    events: list[tuple[bytes, int | None]] = []
    while taken := queue.take():
        events += [(event.body, event.lost) for event in taken]
    return events


def test_events_are_cut_apart():
    queue = EventQueue(10_000, drop_oldest=True)
    changes: list[int] = []
    queue.on_change = lambda: changes.append(queue.held_bytes)
    add(queue, b"a", b"", b"ccc", headers={"h": "1"})
    add(queue, b"single")
    add(queue, b"")
    assert changes == [4 + 3 * EVENT_COST, 10 + 4 * EVENT_COST, 10 + 5 * EVENT_COST]
    first = queue.take()
    assert [(e.topic, e.body, dict(e.headers), e.lost) for e in first] == [
        ("t", b"a", {"h": "1"}, 0),
        ("t", b"", {"h": "1"}, 0),
        ("t", b"ccc", {"h": "1"}, 0),
    ]
    assert drain(queue) == [(b"single", 0), (b"", 0)]
    assert queue.take() == []
    assert not queue
    assert queue.held_bytes == 0


def test_losses_are_told_by_the_first_event_after_them():
    queue = EventQueue(10_000, drop_oldest=True)
    add(queue, b"a", b"b", lost=3)
    add(queue, b"c", unknown=True)
    add(queue, b"d")
    assert drain(queue) == [(b"a", 3), (b"b", 0), (b"c", None), (b"d", 0)]
    assert queue.lost == 3


def test_a_notice_of_loss_is_no_event():
    queue = EventQueue(10_000, drop_oldest=True)
    changes: list[None] = []
    queue.on_change = lambda: changes.append(None)
    notice(queue, lost=2)
    notice(queue, lost=3)
    assert not queue
    assert changes == []
    assert queue.lost == 5
    add(queue, b"x")
    notice(queue, unknown=True)
    add(queue, b"y")
    assert drain(queue) == [(b"x", 5), (b"y", None)]


COST = 10 + EVENT_COST


def test_an_empty_message_behind_a_loss_is_a_message():
    queue = EventQueue(10_000, drop_oldest=True)
    add(queue, b"", lost=2)
    assert drain(queue) == [(b"", 2)]


def test_drop_oldest():
    queue = EventQueue(3 * COST, drop_oldest=True)
    for number in range(8):
        add(queue, b"%010d" % number)
    assert queue.held_bytes <= 3 * COST
    assert drain(queue) == [(b"0000000005", 5), (b"0000000006", 0), (b"0000000007", 0)]
    assert queue.lost == 5
    add(queue, b"next")
    assert drain(queue) == [(b"next", 0)]


def test_drop_newest():
    queue = EventQueue(3 * COST, drop_oldest=False)
    for number in range(8):
        add(queue, b"%010d" % number)
    assert drain(queue) == [(b"0000000000", 0), (b"0000000001", 0), (b"0000000002", 0)]
    add(queue, b"next")
    assert drain(queue) == [(b"next", 5)]
    assert queue.lost == 5


def test_losses_before_what_is_dropped_are_not_forgotten():
    queue = EventQueue(2 * COST, drop_oldest=True)
    add(queue, b"a" * 10, lost=4)
    add(queue, b"b" * 10, unknown=True)
    add(queue, b"c" * 10)
    add(queue, b"d" * 10)
    assert drain(queue) == [(b"c" * 10, None), (b"d" * 10, 0)]
    assert queue.lost == 6


def test_a_frame_larger_than_the_bound_is_held_alone():
    queue = EventQueue(COST, drop_oldest=True)
    add(queue, b"x" * 5000)
    assert drain(queue) == [(b"x" * 5000, 0)]
    add(queue, b"a" * 10, lost=1)
    add(queue, b"y" * 5000)
    assert drain(queue) == [(b"y" * 5000, 2)]


def test_a_new_stream_is_a_gap_of_unknown_size():
    queue = EventQueue(10_000, drop_oldest=True)
    add(queue, b"a")
    queue.gap()
    add(queue, b"b")
    add(queue, b"c")
    assert drain(queue) == [(b"a", 0), (b"b", None), (b"c", 0)]


@pytest.mark.parametrize(("sizes", "body"), [([1, 1], b"abc"), ([2, 2], b"abc"), ([1], b""), ([0], b"x")])
def test_sizes_must_add_up(sizes: list[int], body: bytes):
    queue = EventQueue(10_000, drop_oldest=True)
    with pytest.raises(ProtocolError, match="sizes"):
        queue.add(make(kind=Kind.EVENT, sizes=sizes), body)
    with pytest.raises(ProtocolError, match="sizes"):
        queue.add(make(kind=Kind.EVENT, sizes=[0] * 65_537), b"")
