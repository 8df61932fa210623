"""Links that are made when something waits for them, and closed when nobody needs them."""

from __future__ import annotations

from typing import Any

from irisd.effects import Cause
from irisd.membership.rings import watchers
from irisd.model import FEATURES, Claim, Code, Frame, Kind, NodeRecord, State
from irisd.wire import Belief, Saying, encode_beliefs, encode_record
from tests.unit.node.house import (
    Place,
    address_of,
    bodies,
    join,
    kinds,
    lost,
    meet,
    only,
    publish,
    pump,
    reply,
    request,
    subscribe,
    together,
)

PEER = b"\xff" * 16
CROWD = [bytes([number]) * 16 for number in range(100, 140)]
DB = Claim(1, cluster="db", patterns=31)
NEWS = Claim(1, topic="news")


def apart(count: int = 2) -> list[int]:
    """Numbers of places of which none watches another in the crowd."""
    numbers = [1]
    for number in range(2, 99):
        trial = [*numbers, number]
        ids = [bytes([each]) * 16 for each in trial]
        everybody = [*ids, *CROWD, PEER]
        if len(trial) <= count and all(not {*watchers(id, everybody)} & {*ids} for id in ids):
            numbers = trial
    assert len(numbers) == count
    return numbers


def hear_of(place: Place, node: bytes, *claims: Claim, version: int = 0, release: str = "") -> None:
    about = NodeRecord(node, 1, f"n{node[0]}", release=release, addresses=(address_of(node),))
    (body,) = encode_record(claims, node=node, about=about)
    place.from_peer(PEER, Frame(Kind.HEARSAY, count=version, body=body, full=True))


def crowded(number: int, **settings: Any) -> Place:
    """A place in a mesh too large, linked with one node that tells it of all others."""
    place = Place(number, full_mesh_limit=4, **settings)
    place.link_up(PEER, features=FEATURES, dialled=False)
    (body,) = encode_record([], about=NodeRecord(PEER, 1, "peer"))
    place.from_peer(PEER, Frame(Kind.RECORD, full=True, body=body))
    for node in CROWD:
        hear_of(place, node)
    place.hear(PEER)
    place.effects.clear()
    return place


def two(**settings: Any) -> tuple[Place, Place]:
    """Two places that know of each other, are not linked and need not watch each other."""
    one, other = (crowded(number, **settings) for number in apart())
    other.say(other.app(), join(1))
    other.from_peer(PEER, Frame(Kind.RECORD_ACK, count=1))
    assert kinds(other.hear(member_of(other))) == ["DONE"]
    other.hear(PEER)
    hear_of(one, other.id, DB, version=1)
    hear_of(other, one.id)
    one.effects.clear()
    other.effects.clear()
    assert one.node.membership.spread and not one.node.membership.watches(other.id)
    return one, other


def member_of(place: Place) -> int:
    return next(iter(place.node.core.apps))


# -- made


def test_a_request_makes_a_link_waits_for_it_and_is_answered():
    one, other = two()
    caller = one.app()
    one.say(caller, request(1, body=b"q"), request(3, body=b"r"))
    assert one.connecting() == [other.id]  # once
    assert one.take(other.id) == []
    assert one.hear(caller) == []
    meet(one, other)
    asked = other.hear(member_of(other))
    assert [frame.body for frame in asked] == [b"q", b"r"]
    other.say(member_of(other), *[reply(frame.id) for frame in asked])
    pump(one, other)
    assert kinds(one.hear(caller)) == ["REPLY", "REPLY"]
    assert one.connecting() == []


def test_a_link_that_the_other_side_makes_meanwhile_is_as_good():
    one, other = two()
    caller = one.app()
    one.say(caller, request(1))
    meet(other, one)
    assert kinds(other.hear(member_of(other))) == ["REQUEST"]


def test_a_link_that_cannot_be_made_ends_calls_as_not_run_and_routes_for_a_while():
    one, other = two()
    caller = one.app()
    one.say(caller, request(1, ms=60_000))
    one.connect_failed(other.id)
    error = only(one.hear(caller))
    assert (error.kind, error.executed) == (Kind.ERROR, 1)
    one.effects.clear()
    one.say(caller, request(3))
    assert only(one.hear(caller)).code == Code.NO_MEMBER
    assert one.connecting() == []
    one.now += 5.1
    one._do(one.node.on_deadline(one.now))
    one.say(caller, request(5))
    assert other.id in one.connecting()
    assert one.hear(caller) == []


def test_calls_whose_link_cannot_be_made_are_tried_elsewhere():
    first, second, third = apart(3)
    one = crowded(first)
    for number in (second, third):
        hear_of(one, bytes([number]) * 16, DB, version=1)
    one.effects.clear()
    caller = one.app()
    one.say(caller, request(1, ms=60_000))
    chosen = only(one.connecting())
    one.connect_failed(chosen)
    assert one.hear(caller) == []
    assert only(one.connecting()) != chosen


def test_failures_nobody_waits_for_are_ordinary():
    one, other = two()
    one.connect_failed(other.id)
    one.connect_failed(b"\x05" * 16)
    meet(one, other)
    one.connect_failed(other.id)
    assert one.node.core.peers[other.id].linked


def test_events_wait_in_order_and_those_that_found_no_link_are_told_as_lost():
    one, other = two()
    listener = member_of(other)
    other.say(listener, subscribe(3, "news"))
    hear_of(one, other.id, DB, NEWS, version=2)
    other.hear(listener)
    publisher = one.app()
    one.say(publisher, publish("news", b"1"), publish("news", b"2"))
    one.connect_failed(other.id)
    one.now += 6.0
    one._do(one.node.on_deadline(one.now))
    one.say(publisher, publish("news", b"3"), publish("news", b"4"))
    assert other.id in one.connecting()
    meet(one, other)
    heard = [frame for frame in other.hear(listener) if frame.kind == Kind.EVENT]
    assert bodies(heard)[-2:] == [b"3", b"4"]
    assert lost(heard) == 2


def test_a_node_that_dies_while_it_is_dialled_fails_what_waits():
    one, other = two()
    caller = one.app()
    one.say(caller, request(1, ms=60_000))
    (body,) = encode_beliefs([Belief(other.id, 1, Saying.DEAD)])
    one.from_peer(PEER, Frame(Kind.BELIEFS, body=body))
    error = only(one.hear(caller))
    assert (error.kind, error.executed) == (Kind.ERROR, 1)
    assert other.id not in one.node.core.peers
    one.connect_failed(other.id)
    one.wait(0.5)


def test_what_waits_for_a_peer_that_turns_out_to_be_of_the_first_release_is_not_said_to_it():
    one, other = two()
    one.node._views.tell([other.id], [Belief(PEER, 1, Saying.ASK)])
    assert other.id in one.node.core.peers
    caller = one.app()
    one.say(caller, request(1))
    one.link_up(other.id, features=0, dialled=True)
    assert kinds(one.hear(other.id)) == ["RECORD", "REQUEST"]


# -- closed


def test_a_link_that_is_not_used_is_closed_by_asking():
    one, other = two(idle_link=2.0)
    meet(one, other)
    for _ in range(4):
        together(0.45, one, other)
        assert (one.unlinked(), other.unlinked()) == ([], [])
    together(1.0, one, other)
    unlink = only(other.unlinked())  # the side that was asked closes: that is its yes
    assert (unlink.peer, unlink.cause) == (one.id, Cause.IDLE)
    assert one.unlinked() == []
    one.link_down(other.id, idle=True)
    other.link_down(one.id, idle=True)
    assert other.id not in one.node.core.peers
    assert one.node.membership.state(other.id) is other.node.membership.state(one.id) is State.ALIVE
    caller = one.app()
    one.effects.clear()
    one.say(caller, request(1))
    assert one.connecting() == [other.id]


def closing(**settings: Any) -> tuple[Place, Place]:
    """Two places of which the first has asked, and the second has not heard it."""
    one, other = two(idle_link=2.0, **settings)
    meet(one, other)
    for place in (one, other):
        place.now += 2.6
        place._do(place.node.on_deadline(place.now))
        place.effects.clear()
    asked = only(one.take(other.id, 1 << 20))
    assert (asked.kind, asked.count) == (Kind.IDLE, 1)
    return one, other


def test_what_comes_while_the_other_says_yes_waits_for_the_next_link():
    one, other = closing()
    caller = one.app()
    one.say(caller, request(1, ms=60_000))
    assert one.take(other.id, 1 << 20) == []
    other.from_peer(one, Frame(Kind.IDLE, count=1))
    assert only(other.unlinked()).cause is Cause.IDLE
    one.effects.clear()
    one.link_down(other.id, idle=True)
    other.link_down(one.id, idle=True)
    assert one.connecting() == [other.id]
    assert one.hear(caller) == []
    meet(one, other)
    assert kinds(other.hear(member_of(other))) == ["REQUEST"]


def said_yes(one: Place, other: Place) -> None:
    other.from_peer(one, Frame(Kind.IDLE, count=1))
    assert only(other.unlinked()).cause is Cause.IDLE
    one.effects.clear()
    one.link_down(other.id, idle=True)
    other.link_down(one.id, idle=True)


def test_a_change_of_the_record_meanwhile_does_not_go_ahead_of_the_whole():
    one, other = closing()
    caller = one.app()
    one.say(caller, join(1, "web"), request(3, ms=60_000))
    said_yes(one, other)
    assert one.connecting() == [other.id]
    meet(one, other)
    assert other.unlinked() == []
    assert kinds(other.hear(member_of(other))) == ["REQUEST"]
    assert [claim.cluster for claim in other.node.core.registry.claims(one.id)] == ["web"]


def test_a_change_of_the_record_alone_is_no_reason_for_a_link():
    one, other = closing()
    one.say(one.app(), join(1, "web"))
    said_yes(one, other)
    assert one.connecting() == []
    assert other.id not in one.node.core.peers


def test_what_comes_while_the_other_says_no_leaves_then():
    one, other = closing()
    caller = one.app()
    one.say(caller, request(1, ms=60_000))
    one.effects.clear()
    one.from_peer(other, Frame(Kind.IDLE, count=3))
    assert one.woken() == [other.id]
    assert kinds(one.hear(other.id)) == ["REQUEST"]


def test_a_link_that_breaks_while_it_was_asked_about_fails_what_was_held_as_not_run():
    one, other = closing()
    caller = one.app()
    one.say(caller, request(1, ms=60_000))
    one.link_down(other.id)
    heard = one.hear(caller)
    assert [frame.executed for frame in heard] == [1] or other.id in one.connecting()


def test_a_side_that_uses_the_link_says_no():
    one, other = closing()
    hear_of(other, one.id, Claim(1, cluster="web", patterns=31), version=5)
    caller = other.app()
    other.say(caller, request(1, "web", ms=60_000))
    other.from_peer(one, Frame(Kind.IDLE, count=1))
    assert other.unlinked() == []
    assert (Kind.IDLE, 3) in [(frame.kind, frame.count) for frame in other.hear(one.id)]


def test_a_side_that_used_it_lately_says_no():
    one, other = two(idle_link=8.0)
    meet(one, other)
    other.from_peer(one, Frame(Kind.IDLE, count=1))
    answer = only(other.hear(one.id))
    assert (answer.kind, answer.count) == (Kind.IDLE, 3)


def test_the_question_is_not_asked_along_with_anything_else():
    one, other = two(idle_link=2.0)
    meet(one, other)
    one.now += 2.6
    one._do(one.node.on_deadline(one.now))
    one.say(one.app(), request(1))
    assert "IDLE" not in kinds(one.take(other.id, 1 << 20))
    assert not one.node.core.peers[other.id].closing


def test_links_under_watch_and_those_made_by_the_other_side_are_not_asked_about():
    one, other = two(idle_link=1.0)
    neighbour = next(iter(one.node.membership.rings.neighbours))
    one.link_up(neighbour, features=FEATURES, dialled=True)
    meet(other, one)
    one.hear(neighbour)
    one.now += 1.3
    one._do(one.node.on_deadline(one.now))
    assert "IDLE" not in kinds(one.hear(neighbour)) + kinds(one.hear(other.id))


def test_a_first_release_peer_is_never_asked():
    one, other = two(idle_link=1.0)
    one.link_up(other.id, features=0, dialled=True)
    one.hear(other.id)
    one.now += 1.3
    one._do(one.node.on_deadline(one.now))
    assert "IDLE" not in kinds(one.hear(other.id))


def test_when_the_mesh_outgrows_the_full_mesh_links_become_idle_too():
    """No link comes up just then: those that are there must be looked at all the same."""
    number, second = apart()
    place = Place(number, full_mesh_limit=4, idle_link=1.0)
    place.link_up(bytes([second]) * 16, features=FEATURES, dialled=True)
    place.link_up(PEER, features=FEATURES, dialled=False)
    (body,) = encode_record([], about=NodeRecord(PEER, 1, "peer"))
    place.from_peer(PEER, Frame(Kind.RECORD, full=True, body=body))
    for node in CROWD:
        hear_of(place, node)
    place.hear(bytes([second]) * 16)
    place.now += 1.3
    place._do(place.node.on_deadline(place.now))
    assert "IDLE" in kinds(place.hear(bytes([second]) * 16))


def test_a_join_does_not_wait_for_a_link_that_was_closed():
    one, other = closing()
    caller = one.app()
    one.say(caller, request(1, ms=60_000), join(3, "web"))
    one.from_peer(PEER, Frame(Kind.RECORD_ACK, count=9))
    assert one.hear(caller) == []
    said_yes(one, other)
    assert one.connecting() == [other.id]
    answer = only(one.hear(caller))
    assert (answer.kind, answer.count) == (Kind.DONE, 1)


def test_what_waits_for_a_node_that_has_left_meanwhile_waits_no_longer():
    one, other = closing()
    caller = one.app()
    one.say(caller, request(1, ms=60_000))
    (body,) = encode_beliefs([Belief(other.id, 1, Saying.LEFT)])
    one.from_peer(PEER, Frame(Kind.BELIEFS, body=body))
    said_yes(one, other)
    assert one.connecting() == []
    assert other.id not in one.node.core.peers
    error = only(one.hear(caller))
    assert (error.kind, error.executed) == (Kind.ERROR, 1)


# -- passed on


def test_above_the_limit_news_are_passed_on_to_some_and_not_back():
    place = crowded(1)
    linked = [node for node in CROWD if place.node.membership.spreads_to(node)]
    others = [node for node in CROWD if node not in linked][:3]
    assert linked
    for node in (*linked, *others):
        place.link_up(node, features=FEATURES, dialled=False)
        place.hear(node)
    source = linked[0]
    about = NodeRecord(b"\x55" * 16, 1, "new")
    (body,) = encode_record([DB], node=about.node_id, about=about)
    for _ in range(2):  # the same twice is no news
        place.from_peer(source, Frame(Kind.HEARSAY, count=1, body=body, full=True))
    assert {node: kinds(place.hear(node)) for node in (*linked, *others)} == {
        node: ["HEARSAY"] if node in linked[1:] else [] for node in (*linked, *others)
    }


def test_the_record_of_a_first_release_peer_is_passed_on_too():
    place = crowded(1)
    near = next(node for node in CROWD if place.node.membership.spreads_to(node))
    place.link_up(near, features=FEATURES, dialled=False)
    place.hear(near)
    first = b"\x55" * 16
    place.link_up(first, features=0, dialled=False)
    (body,) = encode_record([DB])
    place.from_peer(first, Frame(Kind.RECORD, count=1, body=body, full=True))
    passed = only(place.hear(near))
    assert (passed.kind, passed.full, passed.count) == (Kind.HEARSAY, True, 1)


def test_below_it_nothing_is_passed_on():
    place = Place(1)
    for node in (*CROWD[:5], PEER):
        place.link_up(node, features=FEATURES, dialled=False)
        place.hear(node)
    hear_of(place, b"\x55" * 16, DB, version=1)
    assert [kinds(place.hear(node)) for node in CROWD[:5]] == [[]] * 5
