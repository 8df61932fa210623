"""What would happen to a call: who is asked, what is said, and that nothing changes."""

from __future__ import annotations

from typing import Any

import pytest

from irisd.effects import Traced
from irisd.model import FEATURES, MEMBERSHIP, TRACES, Balance, Frame, Kind, Pattern
from irisd.node.traces import MAX_OPEN, PATIENCE
from irisd.status import TraceAsked, TraceHop, TraceInfo
from irisd.wire import encode_hop
from tests.unit.node.house import (
    Place,
    carry,
    cut,
    error,
    kinds,
    meet,
    only,
    pair,
    pump,
    reply,
    request,
    together,
)


def begin(place: Place, cluster: str = "db", **asked: Any) -> int:
    number, effects = place.node.traces.begin(TraceAsked(cluster, **asked), place.now)
    place._do(effects)
    return number


def ended(place: Place) -> list[TraceInfo]:
    return [place.node.traces.take(effect.number) for effect in place.effects_of(Traced)]


def traced(place: Place, cluster: str = "db", **asked: Any) -> TraceInfo:
    """A trace that needs nobody's answer, or has it by now."""
    begin(place, cluster, **asked)
    pump(place, *place.links.values())
    return only(ended(place))


def last(place: Place, cluster: str = "db", **asked: Any) -> TraceHop:
    return traced(place, cluster, **asked).hops[-1]


def met(count: int = 2, **settings: Any) -> list[Place]:
    places = [Place(number, **settings) for number in range(1, count + 1)]
    for at, place in enumerate(places):
        for other in places[at + 1 :]:
            meet(place, other)
    return places


def serve(place: Place, *, concurrency: int = 8, patterns: int = 31, **said: Any) -> int:
    app = place.app()
    place.say(app, Frame(Kind.JOIN, id=1, address="db", patterns=patterns, concurrency=concurrency, **said))
    pump(place, *place.links.values())
    assert kinds(place.hear(app)) == ["DONE"]
    return app


def test_a_member_of_this_node():
    place = Place()
    app = serve(place, concurrency=5, priority=2)
    info = traced(place)
    assert (info.service, info.cluster, info.pattern) == ("shop", "db", Pattern.REQUEST)
    nodes, members = info.hops
    assert (nodes.among, nodes.chosen, nodes.policy, nodes.because) == ("nodes", "n1", "p2c", "nobody asks for another")
    assert (nodes.why, nodes.outcome, nodes.count) == ("there is no other choice", "", 1)
    node = only(list(nodes.candidates))
    assert (node.name, node.id, node.members, node.level, node.slots) == ("n1", place.id.hex(), 1, 2, 5)
    assert (node.chosen, node.first, node.handles, node.suspect, node.ejected) == (True, True, True, False, False)
    name = place.node.core.apps[app].member_name
    assert (members.among, members.chosen, members.outcome) == ("members", name, "handed")
    assert members.detail == f"{name} would have it at once"
    assert only(list(members.candidates)).slots == 5


def test_nothing_is_delivered_and_nothing_changes():
    place = Place()
    apps = [serve(place, balance=Balance.ROUND_ROBIN) for _ in range(3)]
    names = [place.node.core.apps[app].member_name for app in apps]
    assert len({last(place).chosen for _ in range(5)}) == 1
    assert [place.hear(app) for app in apps] == [[], [], []]
    assert place.quiet()
    assert not [name for name in place.counters if name.startswith("calls.")]
    caller = place.app()
    for turn in range(3):
        foreseen = last(place).chosen
        place.say(caller, request(2 * turn + 1))
        got = [name for name, app in zip(names, apps, strict=True) if place.hear(app)]
        assert got == [foreseen]


def test_the_chosen_node_is_asked_over_the_link():
    a, b = met()
    serve(b, concurrency=3)
    together(2.0, a, b)
    begin(a)
    assert kinds(carry(a, b)) == ["TRACE"]
    assert ended(a) == []
    a.now = b.now = a.now + 0.25
    assert kinds(carry(b, a)) == ["TRACED"]
    nodes, members = only(ended(a)).hops
    assert (nodes.chosen, only(list(nodes.candidates)).id) == ("n2", b.id.hex())
    assert (members.name, members.node, members.outcome, members.took) == ("n2", b.id.hex(), "handed", 0.25)
    assert only(list(members.candidates)).slots == 3
    assert a.quiet()
    assert b.quiet()


def test_levels_loads_costs_and_who_was_compared():
    places = met(3)
    for place in places:
        serve(place)
    serve(places[2], priority=4)
    caller = places[0].app()
    for turn in range(6):
        places[0].say(caller, request(2 * turn + 1))
    nodes = traced(places[0]).hops[0]
    drawn = [row for row in nodes.candidates if row.drawn]
    assert len(drawn) == 2
    chosen = only([row for row in nodes.candidates if row.chosen])
    assert chosen.name == nodes.chosen
    assert chosen.cost == min(row.cost for row in drawn)
    assert all(row.cost >= 1 for row in nodes.candidates)
    assert sum(row.busy for row in nodes.candidates) == 6
    assert " drawn by chance" in nodes.why


def test_a_suspect_is_shown_and_not_chosen():
    a, b, c = met(3)
    serve(b)
    serve(c)
    a.node.core.suspects.add(b.id)
    nodes = traced(a).hops[0]
    assert nodes.chosen == "n3"
    assert [(row.name, row.suspect, row.first) for row in nodes.candidates] == [
        ("n2", True, False),
        ("n3", False, True),
    ]


@pytest.mark.parametrize("key", ["a", "b", "c", "d"])
def test_a_key_leads_where_calls_with_it_go(key):
    a, b = met()
    apps = [serve(b), serve(b)]
    nodes, members = traced(a, key=key).hops
    assert (nodes.policy, nodes.because, nodes.why) == ("hash", "the call has a key", "its key belongs there")
    a.say(a.app(), request(1, key=key))
    pump(a, b)
    assert [b.node.core.apps[app].member_name for app in apps if b.hear(app)] == [members.chosen]


@pytest.mark.parametrize(
    ("asked", "said", "policy", "because"),
    [
        (0, 0, "p2c", "nobody asks for another"),
        (0, Balance.RANDOM, "random", "its members ask for it"),
        (Balance.LOCAL, Balance.RANDOM, "local", "the call asks for it"),
    ],
)
def test_whose_wish_a_policy_is(asked, said, policy, because):
    place = Place()
    serve(place, balance=said)
    for hop in traced(place, balance=asked).hops:
        assert (hop.policy, hop.because) == (policy, because)


# -- when nobody can have it


def test_nobody_serves_it():
    place = Place()
    hop = only(list(traced(place, "nobody").hops))
    assert (hop.outcome, hop.detail, hop.candidates, hop.chosen) == ("no-member", "nobody serves 'nobody'", (), "")


def test_none_handles_the_pattern():
    place = Place()
    serve(place, patterns=Pattern.REQUEST)
    hop = only(list(traced(place, pattern=Pattern.TUNNEL).hops))
    assert (hop.outcome, hop.detail) == ("not-supported", "members of 'db' handle no tunnels")
    assert only(list(hop.candidates)).handles is False


@pytest.mark.parametrize(
    ("cluster", "outcome", "word"),
    [
        ("bank/db", "no-member", "service 'bank' is not reachable"),
        ("db@tokyo", "no-member", "cloud 'tokyo' is not reachable"),
        ("no spaces", "invalid", "name"),
    ],
)
def test_names_that_lead_nowhere(cluster, outcome, word):
    hop = only(list(traced(Place(), cluster).hops))
    assert hop.outcome == outcome
    assert word in hop.detail


@pytest.mark.parametrize("asked", [{"pattern": Pattern.SURVEY}, {"key": "k" * 1025}, {"balance": 9}])
def test_what_is_no_call(asked):
    place = Place()
    serve(place)
    assert last(place, **asked).outcome == "invalid"


def test_all_are_full_and_calls_wait():
    place = Place(request_queue=600)
    serve(place, concurrency=1)
    caller = place.app()
    place.say(caller, request(1))
    hop = last(place)
    assert (hop.outcome, hop.waiting, hop.chosen) == ("waits", 0, "")
    assert hop.detail == "everybody of the best level at n1 is full: it would wait for a slot, the first in line"
    place.say(caller, request(3), request(5))
    hop = last(place)
    assert (hop.outcome, hop.waiting) == ("overloaded", 2)
    assert hop.detail == "all members at n1 are full, 2 calls wait, and more than 600 bytes may not"
    place.say(caller, request(7))
    assert [frame.code for frame in place.hear(caller)] == [5]


def test_an_ejected_member_is_shown_as_such():
    place = Place()
    bad = serve(place)
    good = serve(place)
    caller = place.app()
    for turn in range(40):
        place.say(caller, request(2 * turn + 1, balance=Balance.ROUND_ROBIN))
        for frame in place.hear(bad):
            place.say(bad, error(frame.id, 7, 3, detail="broken"))
        for frame in place.hear(good):
            place.say(good, reply(frame.id))
    rows = {row.name: row for row in last(place).candidates}
    shown = rows[place.node.core.apps[bad].member_name]
    assert (shown.ejected, shown.first) == (True, False)
    assert shown.failing > 0
    assert last(place).chosen == place.node.core.apps[good].member_name


def test_a_full_queue_towards_the_node():
    a, b = met(peer_outbox=1000)
    serve(b, concurrency=100)
    caller = a.app()
    for turn in range(5):
        a.say(caller, request(2 * turn + 1))
    begin(a)
    hop = only(ended(a)).hops[-1]
    assert (hop.outcome, hop.detail) == ("overloaded", "the queue towards n2 is full")


# -- when the node cannot say


@pytest.mark.parametrize("features", [0, MEMBERSHIP])
def test_an_older_release_is_not_asked(features):
    a, b = pair()
    serve(b)
    a.link_up(b.id, features=features)
    b.link_up(a.id, features=features)
    pump(a, b)
    begin(a)
    assert a.hear(b.id) == []
    hop = only(ended(a)).hops[-1]
    assert hop.outcome == "unknown"
    assert hop.detail == "n2 runs an older release, which cannot say which member it would choose"


def test_a_node_that_does_not_answer():
    a, b = met()
    serve(b)
    begin(a)
    a.wait(PATIENCE + 0.01)
    hop = only(ended(a)).hops[-1]
    assert (hop.outcome, hop.detail) == ("unknown", "n2 was asked, and did not answer within 2 s")


def test_a_link_that_ends_meanwhile():
    a, b = met()
    serve(b)
    begin(a)
    cut(a, b)
    a.wait(PATIENCE + 0.01)
    assert only(ended(a)).hops[-1].detail == "n2 was asked, and is linked no more"


def test_traces_under_way_are_bounded():
    a, b = met()
    serve(b)
    for _ in range(MAX_OPEN):
        begin(a)
    assert ended(a) == []
    begin(a)
    assert only(ended(a)).hops[-1].detail == f"n2 was not asked: {MAX_OPEN} traces wait for an answer already"
    pump(a, b)
    assert len(ended(a)) == MAX_OPEN


def test_an_answer_nobody_waits_for_is_dropped_by_name():
    a, b = met()
    a.from_peer(b, Frame(Kind.TRACED, count=77, body=encode_hop(TraceHop("n2"))))
    assert a.counters["dropped.no-such-trace"] == 1


def test_the_answer_of_another_node_does_not_count():
    a, b, c = met(3)
    serve(b)
    number = begin(a)
    a.from_peer(c, Frame(Kind.TRACED, count=number, body=encode_hop(TraceHop("n3"))))
    assert a.counters["dropped.no-such-trace"] == 1
    assert ended(a) == []


def test_a_peer_that_breaks_the_rules_is_unlinked():
    a, b = met()
    serve(b)
    number = begin(a)
    a.from_peer(b, Frame(Kind.TRACED, count=number, body=b"[]"))
    assert only(a.unlinked()).reason == "TRACED: its body is no object"
    b.from_peer(a, Frame(Kind.TRACE, count=1, address="db", patterns=Pattern.SURVEY))
    assert only(b.unlinked()).reason.startswith("TRACE: pattern 8")


def test_a_peer_that_asks_and_does_not_read_is_not_answered_for_ever():
    a, b = met(peer_outbox=2000)
    serve(b)
    for number in range(50):
        b.from_peer(a, Frame(Kind.TRACE, count=number, address="db", patterns=1))
    assert b.counters["dropped.answer-queue-full"] > 0
    assert b.node.core.peers[a.id].outbox.urgent_bytes < 4000


def test_this_release_says_that_it_can_be_asked():
    assert FEATURES & TRACES
