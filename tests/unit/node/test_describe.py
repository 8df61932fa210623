"""What an operator is told of a node's view."""

from __future__ import annotations

from random import Random

from irisd.model import FEATURES, Claim, Frame, Kind, NodeRecord
from irisd.node import Node, NodeIdentity, NodeSettings
from irisd.node.describe import MAX_GONE_SHOWN, conditions, node_rows
from irisd.wire import Belief, Saying, encode_beliefs, encode_record
from tests.unit.node.house import Place, address_of, meet, only, together

PEER, OTHER = b"\xff" * 16, b"\xee" * 16


def heard_of(place: Place, node: bytes, name: str, *claims: Claim) -> None:
    about = NodeRecord(node, 1, name, release="9.9", addresses=(address_of(node),), draining=name == "drains")
    (body,) = encode_record(claims, node=node, about=about)
    place.from_peer(PEER, Frame(Kind.HEARSAY, count=1, body=body, full=True))


def linked(place: Place, name: str = "peer") -> None:
    place.link_up(PEER, features=FEATURES, dialled=False)
    (body,) = encode_record([], about=NodeRecord(PEER, 1, name))
    place.from_peer(PEER, Frame(Kind.RECORD, full=True, count=1, body=body))


def test_this_node_first_then_others_by_name_then_those_that_are_gone():
    place = Place(5)
    place.node.set_addresses(("10.0.0.5:7511",), place.now)
    linked(place, "m")
    for node, name in ((b"\x07" * 16, "z"), (b"\x08" * 16, "drains"), (b"\x09" * 16, "a")):
        heard_of(place, node, name)
    (body,) = encode_beliefs([Belief(b"\x09" * 16, 1, Saying.LEFT)])
    place.from_peer(PEER, Frame(Kind.BELIEFS, body=body))
    rows = node_rows(place.node, place.now + 2.0, 90.0)
    assert [(row.name, row.state) for row in rows] == [
        ("n5", "self"),
        ("drains", "joining"),
        ("m", "alive"),
        ("z", "joining"),
        ("a", "left"),
    ]
    own, drains, peer = rows[:3]
    assert (own.address, own.since, own.incarnation, own.version) == ("10.0.0.5:7511", 12.0, 1, "1.0")
    assert (drains.draining, drains.linked, drains.version, drains.heard_by) == (True, False, "9.9", "m")
    assert drains.address == address_of(b"\x08" * 16)
    assert (peer.linked, peer.heard, peer.address) == (True, 2.0, address_of(PEER))


def test_the_round_trip_and_the_health_of_a_peer_are_told():
    one, other = Place(1), Place(2)
    meet(one, other)
    other.node.membership.health.score = 3
    together(2.0, one, other)
    row = node_rows(one.node, one.now, 0.0)[1]
    assert (row.name, row.round_trip) == ("n2", 0.0)
    assert row.health in (1, 2)  # as it said in the last round: it recovers
    assert row.heard <= 1.0
    assert node_rows(other.node, other.now, 0.0)[0].health == other.node.membership.health.score


def test_only_so_many_that_are_gone_are_shown_those_that_went_last():
    place = Place(1)
    linked(place)
    nodes = [bytes([2, n]) + bytes(14) for n in range(100)]
    for node in nodes:
        heard_of(place, node, f"g{node[1]:02}")
        (body,) = encode_beliefs([Belief(node, 1, Saying.DEAD)])
        place.from_peer(PEER, Frame(Kind.BELIEFS, body=body))
    rows = node_rows(place.node, place.now, 0.0)
    assert [row.name for row in rows[2:]] == [f"g{n:02}" for n in range(99, 99 - MAX_GONE_SHOWN, -1)]
    assert {row.state for row in rows[2:]} == {"dead"}


def test_a_node_that_nobody_is_known_to_have_heard_has_no_witness():
    place = Place(1)
    linked(place)
    heard_of(place, OTHER, "other")
    place.link_down(PEER, left=True)
    place.now += 4000.0
    place.node.membership.view.expire(place.now)
    row = next(row for row in node_rows(place.node, place.now, 0.0) if row.name == "other")
    assert row.heard_by == ""


def test_nodes_with_one_name_are_a_condition():
    place = Place(1)
    assert conditions(place.node, place.now) == []
    linked(place, "n1")
    condition = only(conditions(place.node, place.now))
    assert condition.name == "duplicate-name"
    assert "n1" in condition.detail
    place.link_down(PEER, left=True)
    assert conditions(place.node, place.now) == []


def test_only_a_few_of_many_names_are_told():
    place = Place(1)
    linked(place)
    for n in range(40):
        heard_of(place, bytes([3, n]) + bytes(14), f"twice-{n % 20:02}")
    text = str(only(conditions(place.node, place.now)))
    assert text.count("twice-") == 5


def test_one_that_is_suspect_may_be_a_former_self():
    """A daemon that was restarted keeps its name; the old one is silent, not a second one."""
    place = Place(1)
    linked(place, "n1")
    place.link_down(PEER)
    assert conditions(place.node, place.now) == []


def test_an_event_loop_that_was_held_up_is_a_condition_for_a_minute():
    one, other = Place(1), Place(2)
    meet(one, other)
    together(1.0, one, other)
    for place in (one, other):
        place.now += 2.0
    one._do(one.node.on_deadline(one.now))
    condition = only(conditions(one.node, one.now))
    assert condition.name == "slow-loop"
    assert "once in the last minute, for 1.9" in condition.detail  # of 2 s it was due for a moment
    one.now += 1.5
    one._do(one.node.on_deadline(one.now))
    assert "2 times" in str(only(conditions(one.node, one.now)))
    assert conditions(one.node, one.now + 61.0) == []


def test_a_node_that_is_all_alone_is_described():
    node = Node(NodeIdentity(OTHER, "solo", "shop"), NodeSettings(), Random(1), now=5.0)
    (row,) = node_rows(node, 6.0, 5.0)
    assert (row.state, row.address, row.since) == ("self", "", 1.0)
