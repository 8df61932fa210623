"""What is discarded where nobody else is told is counted by its reason."""

from __future__ import annotations

import pytest

from irisd.model import Frame, Kind
from irisd.node.describe import service_info
from irisd.node.load import service_load
from tests.unit.node.house import (
    Place,
    ask,
    carry,
    cut,
    join,
    kinds,
    only,
    pair,
    publish,
    pump,
    reply,
    request,
    subscriber,
)


def dropped(place: Place) -> dict[str, int]:
    return {name.removeprefix("dropped."): n for name, n in place.counters.items() if name.startswith("dropped.")}


def test_a_call_whose_time_is_over_before_it_leaves():
    a, b = pair()
    b.serving()
    a.say(a.app(), request(1, ms=100))
    a.now += 0.2
    assert carry(a, b) == []
    assert dropped(a) == {"late": 1}


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.PUSH])
def test_a_call_that_is_taken_back_is_no_drop(kind):
    a, b = pair()
    b.serving()
    caller = a.app()
    a.say(caller, ask(kind, 1), Frame(Kind.CANCEL, id=1))
    pump(a, b)
    assert dropped(a) == {}


def test_an_answer_that_comes_when_its_caller_has_given_up():
    place = Place()
    server, caller = place.serving(), place.app()
    place.say(caller, request(1, ms=100))
    frame = only(place.hear(server))
    place.wait(0.2)
    place.say(server, reply(frame.id))
    assert dropped(place) == {"answer-late": 1}


def test_an_event_that_comes_when_nobody_subscribes_any_more():
    a, b = pair()
    reader = subscriber(b, "t")
    a.say(a.app(), publish("t", b"1", b"2"))
    b.say(reader, Frame(Kind.UNSUBSCRIBE, id=1))
    carry(a, b)
    assert dropped(b) == {"subscriber-gone": 2}


def test_a_broadcast_that_a_member_left_unread():
    place = Place()
    server = place.serving()
    place.say(place.app(), ask(Kind.BROADCAST, 1))
    place.gone(server)
    assert dropped(place) == {"member-left": 1}


def test_a_broadcast_that_a_member_has_read_is_no_drop():
    place = Place()
    server = place.serving()
    place.say(place.app(), ask(Kind.BROADCAST, 1))
    assert kinds(place.hear(server)) == ["BROADCAST"]
    place.gone(server)
    assert dropped(place) == {}


def test_a_broadcast_that_waited_for_a_link_that_broke():
    a, b = pair()
    b.serving()
    a.say(a.app(), ask(Kind.BROADCAST, 1))
    cut(a, b)
    assert dropped(a) == {"link-lost": 1}


def test_messages_of_a_tunnel_that_is_aborted():
    place = Place()
    server, caller = place.serving(), place.app()
    place.say(caller, ask(Kind.TUNNEL, 1))
    id = only(place.hear(server)).id
    place.say(server, Frame(Kind.CREDIT, id=id, count=1000))
    place.say(caller, Frame(Kind.DATA, id=1, body=b"1"), Frame(Kind.DATA, id=1, body=b"2"))
    place.say(caller, Frame(Kind.ERROR, id=1, code=9, detail="no more"))
    assert dropped(place) == {"tunnel-broken": 2}


def test_bodies_that_are_larger_here_than_there():
    a, b = Place(1, max_body=1000), Place(2, max_body=10)
    for one, other in ((a, b), (b, a)):
        one.links[other.id] = other
        one.link_up(other.id)
    pump(a, b)
    b.serving()
    a.say(a.app(), request(1, body=b"x" * 100))
    pump(a, b)
    assert dropped(b) == {"too-large": 1}


def test_frames_of_somebody_who_is_gone():
    place = Place()
    place.say(77, join(1), request(3))
    place.from_peer(b"\x07" * 16, Frame(Kind.REPLY, id=1))
    assert dropped(place) == {"neighbour-gone": 3}


def test_what_the_edges_dropped_stands_beside_what_the_node_did():
    place = Place()
    place.say(77, join(1))
    edges = {"heartbeat-unsent": 2}
    assert service_info(place.node, "aa", edges).counters == {
        "dropped.neighbour-gone": 1,
        "dropped.heartbeat-unsent": 2,
    }
    assert service_load(place.node, place.now, edges).drops == {"neighbour-gone": 1, "heartbeat-unsent": 2}
