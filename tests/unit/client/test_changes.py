"""Watches, frame by frame: the picture, what outlives a stream, and what a slow reader loses."""

from __future__ import annotations

from typing import Any

import pytest

from iris_client import Change, NotSupported
from iris_client._changes import ChangeQueue, Mark, WatchCall
from iris_client._frames import Code, Kind, make
from tests.unit.client.ground import Daemon

BEGIN, END = Mark.BEGIN, Mark.END


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def watch(daemon: Daemon, outcomes: list[Any] | None = None) -> WatchCall:
    """A watch whose WATCH was sent."""
    told = (lambda error: None) if outcomes is None else outcomes.append
    call = WatchCall(make(kind=Kind.WATCH, address="db"), ChangeQueue(), "watch of 'db'", told)
    daemon.session.stand(call)
    header, _ = daemon.take_one()
    assert (header.kind, header.address, header.id) == (Kind.WATCH, "db", call.id)
    return call


def change(daemon: Daemon, call: WatchCall, count: int, **fields: Any) -> None:
    daemon.say(
        kind=Kind.CHANGE, id=call.id, node="ab", member="oak", reason="alive", address="db", count=count, **fields
    )


def items(queue: ChangeQueue) -> list[Any]:
    """Everything that waits: marks, and (members, present, lost) of changes."""
    found = []
    while (item := queue.pop()) is not None:
        found.append((item.members, item.present, item.lost) if isinstance(item, Change) else item)
    return found


def test_the_picture_then_what_changes(daemon: Daemon):
    outcomes: list[Any] = []
    call = watch(daemon, outcomes)
    assert not call.established
    change(daemon, call, 1, more=True)
    assert call.established and outcomes == [None]
    assert call.queue.pop() == Change("ab", "oak", "alive", "db", 1, present=True)
    change(daemon, call, 2, more=True)
    daemon.say(kind=Kind.DONE, id=call.id, count=2)
    daemon.say(kind=Kind.CHANGE, id=call.id, node="ab", member="oak", reason="dead", detail="silent for 3 s")
    assert items(call.queue)[:2] == [(2, True, 0), END]
    change(daemon, call, 0, lost=3, detail="left")
    assert call.queue.pop() == Change("ab", "oak", "alive", "db", 0, "left", lost=3)
    assert call.queue.lost == 3


def test_an_empty_picture_establishes_it_too(daemon: Daemon):
    call = watch(daemon)
    daemon.say(kind=Kind.DONE, id=call.id)
    assert call.established
    assert items(call.queue) == [END]


def test_a_notice_of_loss_is_told_by_what_follows(daemon: Daemon):
    call = watch(daemon)
    daemon.say(kind=Kind.CHANGE, id=call.id, lost=2)
    assert not len(call.queue)
    change(daemon, call, 1, lost=1)
    assert items(call.queue) == [(1, False, 3)]


def test_it_outlives_its_stream_and_begins_anew(daemon: Daemon):
    call = watch(daemon)
    change(daemon, call, 1, more=True)
    daemon.say(kind=Kind.DONE, id=call.id)
    daemon.session.lane_down("gone")
    daemon.attach()
    assert daemon.take_one()[0].kind == Kind.WATCH
    change(daemon, call, 2, more=True)
    change(daemon, call, 3, more=True)
    daemon.say(kind=Kind.DONE, id=call.id)
    assert items(call.queue) == [(1, True, 0), END, BEGIN, (2, True, None), (3, True, 0), END]


@pytest.mark.parametrize("dones", [1, 2])
def test_leaving_before_the_picture_has_ended(daemon: Daemon, dones: int):
    """Its DONE may have been dropped with the picture, or be on its way: one is the end, another is ordinary."""
    call = watch(daemon)
    change(daemon, call, 1, more=True)
    daemon.session.leave(call, Kind.UNSUBSCRIBE)
    header, _ = daemon.take_one()
    assert (header.kind, header.id) == (Kind.UNSUBSCRIBE, call.id)
    change(daemon, call, 2, more=True)
    assert len(call.queue) == 1
    for _ in range(dones):
        daemon.say(kind=Kind.DONE, id=call.id)
        assert call.over
    daemon.session.lane_down("gone")
    daemon.attach()
    assert daemon.take() == []


def test_a_watch_that_is_refused(daemon: Daemon):
    outcomes: list[Any] = []
    call = watch(daemon, outcomes)
    daemon.say(kind=Kind.ERROR, id=call.id, code=Code.OVERLOADED, executed=1, detail="full")
    assert call.over
    assert "full" in str(outcomes[0])
    assert not daemon.session._standing


OLD = "kind 24 is not one an app or a peer sends here"


def test_a_daemon_that_knows_no_watches_is_asked_once(daemon: Daemon):
    outcomes: list[Any] = []
    call = watch(daemon, outcomes)
    daemon.session.lane_down(OLD)
    assert call.over
    assert isinstance(outcomes[0], NotSupported)
    assert "irisd 0.2" in str(outcomes[0])
    daemon.attach()
    assert daemon.take() == []


def test_another_reason_is_no_reason_to_give_up(daemon: Daemon):
    call = watch(daemon)
    daemon.session.lane_down("kind 99 is not one an app or a peer sends here")
    daemon.attach()
    assert daemon.take_one()[0].kind == Kind.WATCH
    change(daemon, call, 1)
    daemon.session.lane_down(OLD)  # not because of this one, which was answered
    daemon.attach()
    assert daemon.take_one()[0].kind == Kind.WATCH


def test_a_slow_reader_loses_the_oldest_and_is_told():
    queue = ChangeQueue(3)
    header = make(kind=Kind.CHANGE, node="ab", address="db")
    for count in range(5):
        header.count = count
        queue.add(header)
    assert len(queue) == 3
    assert queue.lost == 2
    assert items(queue) == [(2, False, 2), (3, False, 0), (4, False, 0)]


def test_marks_are_bounded_too_and_take_no_losses_along():
    queue = ChangeQueue(3)
    header = make(kind=Kind.CHANGE, node="ab", address="db", lost=5)
    queue.add(header)
    for _ in range(2):
        queue.mark(BEGIN)
    queue.add(make(kind=Kind.CHANGE, node="ab", address="db"))
    queue.mark(END)
    assert queue.lost == 6
    assert items(queue) == [BEGIN, (0, False, None), END]
    queue.add(header)
    queue.put_back(Change("ab", "oak", "alive"))
    assert items(queue) == [(0, False, 0), (0, False, 5)]
    queue.add(header)
    queue.clear()
    assert not len(queue)
