from __future__ import annotations

import pytest

from irisd.flow.ledger import ACK_EVERY
from irisd.model import FEATURES, Frame, KiB, Kind, MiB, State, WhenFull
from tests.unit.node.house import (
    Place,
    bodies,
    carry,
    crossed,
    cut,
    link,
    lost,
    meet,
    only,
    pair,
    publish,
    pump,
    subscriber,
)


def state(one: Place, other: Place) -> State:
    """What one believes of the other."""
    known = one.node.membership.view.known(other.id)
    assert known is not None
    return known.state


# -- losses


def test_a_full_queue_towards_a_peer_drops_the_oldest_and_says_so():
    near, far = pair(topic_queue=10_000)
    there, app = subscriber(far, ">"), near.app()
    near.say(app, *[publish("t", b"%02d" % n + bytes(998)) for n in range(20)], publish("u", b"x"))
    near.say(app, Frame(Kind.FLUSH, id=1))
    dropped = 20 - 10_000 // (1000 + 256)
    assert only(near.hear(app)).lost == dropped
    assert near.counters["dropped.topic-queue-full"] == dropped
    pump(near, far)
    heard = far.hear(there)
    first = next(frame for frame in heard if frame.address == "t")
    assert (first.lost, first.body[:2]) == (dropped, b"%02d" % dropped)
    assert lost(heard) + len(bodies(heard)) == 21
    near.say(app, Frame(Kind.FLUSH, id=3))
    assert only(near.hear(app)).lost == 0  # told once


@pytest.mark.parametrize(("when_full", "kept"), [(WhenFull.DROP_OLDEST, [7, 8, 9]), (WhenFull.DROP_NEWEST, [0, 1, 2])])
def test_a_slow_subscriber_loses_by_its_own_policy(when_full: WhenFull, kept: list[int]):
    place = Place()
    slow = subscriber(place, "t", max_bytes=3 * (1000 + 256), when_full=when_full)
    quick, app = subscriber(place, "t"), place.app()
    for n in range(10):
        place.say(app, publish("t", b"%d" % n + bytes(999)))
        assert len(place.hear(quick)) == 1
    heard = place.hear(slow)
    assert [int(body[:1]) for body in bodies(heard)] == kept
    assert lost(heard) == 7
    assert (heard[-1].address == "") == (when_full == WhenFull.DROP_NEWEST)  # told behind what it follows
    assert place.counters["dropped.subscription-full"] == 7
    place.say(app, Frame(Kind.FLUSH, id=1))
    assert only(place.hear(app)).lost == 0  # the publisher has nothing to do with it


def test_messages_for_a_peer_without_a_link_are_told_when_it_is_back():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    near.say(app, publish("t", b"1"))
    pump(near, far)
    cut(near, far)
    near.say(app, publish("t", b"2", b"3"), publish("other", b"x"))
    assert near.counters["dropped.no-link"] == 2
    link(near, far)
    near.say(app, publish("t", b"4"))
    pump(near, far)
    heard = far.hear(there)
    assert bodies(heard) == [b"1", b"4"]
    assert [frame.lost for frame in heard] == [0, 2, 0] or [frame.lost for frame in heard] == [0, 2]


def test_what_was_queued_and_what_was_in_flight_is_told_exactly():
    near, far = pair()
    there, app = subscriber(far, ">"), near.app()
    for n in range(200):
        near.say(app, publish("t", b"%d" % n))
        pump(near, far)  # all arrive, and are acknowledged up to a point
    assert ACK_EVERY > near.node.core.ledgers[far.id].unacknowledged > 0
    near.say(app, publish("t", b"flight"), publish("u", b"flight", b"flight"))
    near.take(far.id, MiB)  # written, never arrives
    near.say(app, publish("t", b"queue"))
    cut(near, far)
    link(near, far)
    heard = far.hear(there)
    assert len(bodies(heard)) == 200
    assert lost(heard) == 4
    assert near.counters["dropped.link-lost"] == 1


def test_a_topic_named_like_our_own_queues_is_a_topic_like_any_other():
    near, far = pair()
    there, app = subscriber(far, ">"), near.app()
    near.say(app, publish("tunnel", b"x"), publish("requests", b"x"))
    cut(near, far)
    link(near, far)
    assert lost(far.hear(there)) == 2


def test_a_message_cut_between_two_parts_is_lost_once():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    near.say(app, Frame(Kind.PUBLISH, address="t", body=bytes(200 * KiB), more=True, total=400 * KiB))
    near.say(app, Frame(Kind.PART, body=bytes(200 * KiB)))
    assert only(carry(near, far, 1)).more
    cut(near, far)
    link(near, far)
    heard = far.hear(there)
    assert (bodies(heard), lost(heard)) == ([], 1)


def test_the_news_of_a_loss_can_itself_be_lost_and_is_told_again():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    cut(near, far)
    near.say(app, publish("t", b"x"))
    link_quietly(near, far)
    assert Kind.LOST in [frame.kind for frame in near.take(far.id, MiB)]  # written, never arrives
    cut(near, far)
    link(near, far)
    assert lost(far.hear(there)) == 1


def test_a_loss_that_was_told_is_not_told_again():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    for _ in range(3):
        cut(near, far)
        near.say(app, publish("t", b"x"))
        link(near, far)
    assert lost(far.hear(there)) == 3


def link_quietly(near: Place, far: Place) -> None:
    """A link on which only the far record has come."""
    near.links[far.id], far.links[near.id] = far, near
    near.link_up(far.id)
    far.link_up(near.id)
    carry(far, near)


def test_a_duplicate_is_dropped_and_counted():
    near, far = pair()
    there = subscriber(far, "t")
    frame = Frame(Kind.PUBLISH, address="t", body=b"x", seq=1)
    far.from_peer(near, frame, crossed(frame))
    assert bodies(far.hear(there)) == [b"x"]
    assert far.counters["dropped.duplicate"] == 1


def test_a_loss_of_a_group_is_told_to_one_of_it():
    near, far = pair()
    members = [subscriber(far, "t", group="g"), subscriber(far, "t", group="g")]
    app = near.app()
    near.say(app, publish("t", b"x"))
    cut(near, far)
    link(near, far)
    assert sum(lost(far.hear(member)) for member in members) == 1


def test_both_ends_forget_each_other_and_go_on():
    near, far = pair(lost_peer_memory=10.0)
    there, app = subscriber(far, "t"), near.app()
    near.say(app, *[publish("t", b"%d" % n) for n in range(10)])
    pump(near, far)
    far.hear(there)
    cut(near, far, seconds=11)
    assert near.node.core.ledgers == far.node.core.ledgers == {}
    assert only(far.hear(there)).lost_unknown
    link(near, far)
    near.say(app, publish("t", b"again"))
    pump(near, far)
    assert bodies(far.hear(there)) == [b"again"]


def test_one_end_forgets_the_other_and_is_heard_all_the_same():
    """Its numbers begin anew; to the end that remembers they must not look like duplicates."""
    near, far = pair(lost_peer_memory=10.0)
    there, app = subscriber(far, "t"), near.app()
    near.say(app, *[publish("t", b"%d" % n) for n in range(10)])
    pump(near, far)
    far.hear(there)
    del near.links[far.id], far.links[near.id]
    near.link_down(far.id)
    near.wait(8)
    far.link_down(near.id)
    near.say(app, publish("t", b"lost"))
    near.wait(3)
    assert near.node.core.ledgers == {}
    link(near, far)
    near.say(app, publish("t", b"again"))
    pump(near, far)
    heard = far.hear(there)
    assert bodies(heard) == [b"again"]
    assert any(frame.lost_unknown for frame in heard)


def test_a_publisher_that_dies_leaves_an_unknown_number_lost():
    near, far = pair(lost_peer_memory=10.0)
    there, quiet, app = subscriber(far, "t"), subscriber(far, "u"), near.app()
    near.say(app, publish("t", b"x"))
    pump(near, far)
    far.link_down(near.id)
    far.wait(9.9)
    assert len(bodies(far.hear(there))) == 1
    far.wait(0.2)
    notice = only(far.hear(there))
    assert (notice.address, notice.lost, notice.lost_unknown) == ("", 0, True)
    assert far.hear(quiet) == []  # it never heard of that node
    assert near.id not in far.node.core.ledgers
    assert far.node.next_deadline() is None


def test_a_publisher_that_leaves_leaves_nothing():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    near.say(app, publish("t", b"x"))
    pump(near, far)
    far.link_down(near.id, left=True)
    far.wait(1000)
    assert [frame.lost_unknown for frame in far.hear(there)] == [False]
    assert far.node._events._heard == {}


def test_what_is_published_while_a_peer_that_came_back_is_still_taken_for_dead_is_told():
    near, far = Place(1), Place(2)
    meet(near, far)
    there, app = subscriber(far, "t"), near.app()
    cut(near, far, seconds=10.0)
    assert state(near, far) is State.DEAD
    near.say(app, publish("t", b"1"))
    near.links[far.id], far.links[near.id] = far, near
    near.link_up(far.id, features=FEATURES, dialled=True)
    far.link_up(near.id, features=FEATURES, dialled=False)
    carry(far, near)  # its record, and not yet that it is alive: it has to be told that it was taken for dead
    assert state(near, far) is State.DEAD
    near.say(app, publish("t", b"2"))
    pump(near, far)
    near.say(app, publish("t", b"3"))
    pump(near, far)
    heard = far.hear(there)
    assert (bodies(heard), lost(heard)) == ([b"3"], 2)


def test_the_news_of_a_loss_that_never_left_is_told_again():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    cut(near, far)
    near.say(app, publish("t", b"x", b"y"))
    near.link_up(far.id)
    far.link_up(near.id)
    near.links[far.id], far.links[near.id] = far, near
    carry(far, near)  # near has put the news of the loss into its queue
    cut(near, far)
    link(near, far)
    assert lost(far.hear(there)) == 2
