"""What a node says it has to do: counts that only grow, and what is under way now."""

from __future__ import annotations

import pytest

from irisd.model import Code, Frame, KiB, Kind
from irisd.node.load import MOST, service_load
from irisd.node.places import MAX_CLUSTERS
from irisd.router import BOUNDS
from irisd.status import ClusterLoad, ServiceLoad, TallyRow
from tests.unit.node.house import Place, ask, error, join, only, pair, publish, pump, reply, request, subscriber


def load(place: Place) -> ServiceLoad:
    return service_load(place.node, place.now)


def cluster(place: Place, name: str = "db") -> ClusterLoad:
    return only([row for row in load(place).clusters if row.name == name])


def ended(tally: TallyRow) -> tuple[int, int, int]:
    """(answered, failed, how many were timed)."""
    return tally.answered, tally.failed, sum(tally.took)


def bucket(seconds: float) -> int:
    return next(at for at, bound in enumerate(BOUNDS) if seconds <= bound)


def test_a_request_is_counted_at_both_ends_with_its_time():
    a, b = pair()
    server, caller = b.serving(), a.app()
    a.say(caller, request(1))
    pump(a, b)
    assert (cluster(a).in_flight, cluster(a).at_work) == (1, 0)
    assert (cluster(b).in_flight, cluster(b).at_work, cluster(b).here) == (0, 1, 1)
    a.now = b.now = a.now + 0.1
    b.say(server, reply(only(b.hear(server)).id))
    pump(a, b)
    for tally in (cluster(a).called, cluster(b).served):
        assert ended(tally) == (1, 0, 1)
        assert tally.took.index(1) == bucket(0.1) == len(tally.took) - 1
    assert ended(cluster(a).served) == ended(cluster(b).called) == (0, 0, 0)
    assert (cluster(a).members, cluster(a).nodes, cluster(a).here, cluster(a).in_flight) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("code", "called", "served"),
    [
        (Code.REJECTED, (1, 0, 1), (1, 0, 1)),
        (Code.HANDLER_FAILED, (0, 1, 1), (0, 1, 1)),
        (Code.CANCELLED, (0, 1, 0), (0, 0, 0)),
    ],
)
def test_what_is_an_answer_and_what_a_failure(code, called, served):
    place = Place()
    server, caller = place.serving(), place.app()
    place.say(caller, request(1))
    place.say(server, error(only(place.hear(server)).id, code, 3, detail="so"))
    assert (ended(cluster(place).called), ended(cluster(place).served)) == (called, served)


def test_a_call_that_is_not_answered_in_time_fails_once():
    place = Place()
    server, caller = place.serving(), place.app()
    place.say(caller, request(1, ms=500))
    frame = only(place.hear(server))
    place.wait(0.6)
    assert ended(cluster(place).called) == ended(cluster(place).served) == (0, 1, 1)
    assert cluster(place).at_work == 1
    place.say(server, reply(frame.id))
    assert ended(cluster(place).called) == ended(cluster(place).served) == (0, 1, 1)
    assert cluster(place).at_work == 0


@pytest.mark.parametrize("far", [False, True])
def test_pushes_and_tunnels_count_when_they_have_arrived(far):
    a, b = pair()
    server, caller = (b if far else a).serving(), a.app()
    a.say(caller, ask(Kind.PUSH, 1))
    pump(a, b)
    assert ended(cluster(a).called) == (1, 0, 0)
    a.say(caller, ask(Kind.TUNNEL, 3))
    pump(a, b)
    place = b if far else a
    push, tunnel = place.hear(server)
    place.say(server, Frame(Kind.CREDIT, id=tunnel.id, count=100))
    pump(a, b)
    assert ended(cluster(a).called) == (2, 0, 0)
    place.say(server, Frame(Kind.DONE, id=push.id))
    pump(a, b)
    assert ended(cluster(a).called) == (2, 0, 0)
    assert ended(cluster(place).served) == (1, 0, 1)


def test_calls_that_nobody_can_have_are_failures_of_their_name():
    place = Place()
    caller = place.app()
    place.say(caller, request(1, "nobody"), request(3, "nobody"))
    row = cluster(place, "nobody")
    assert (row.members, ended(row.called)) == (0, (0, 2, 0))


def test_names_that_nobody_serves_do_not_push_out_those_that_somebody_does():
    place = Place()
    server, caller = place.serving(), place.app()
    place.say(caller, request(1))
    place.say(server, reply(only(place.hear(server)).id))
    for number in range(MAX_CLUSTERS + 300):
        place.say(caller, request(2 * number + 3, f"nobody{number}"))
    assert len(list(place.node.calls.places.called())) <= MAX_CLUSTERS
    assert ended(cluster(place).called) == (1, 0, 1)
    shown = load(place)
    assert len(shown.clusters) == MOST
    assert shown.cluster_count > 300


def test_who_waits_and_what_members_have():
    place = Place()
    server, caller = place.serving(concurrency=2), place.app()
    place.say(caller, *(request(2 * turn + 1) for turn in range(5)))
    assert (cluster(place).in_flight, cluster(place).at_work, cluster(place).waiting) == (5, 2, 3)
    member = only(list(load(place).members))
    assert (member.cluster, member.at_work, member.concurrency, member.ejected) == ("db", 2, 2, False)
    assert member.name == place.node.core.apps[server].member_name


def test_ejected_members_come_first_and_are_counted():
    place = Place()
    bad, _ = place.serving(), place.serving()
    member = only(list(place.node.core.apps[bad].members.values()))
    place.node.calls.members._eject(member)
    assert cluster(place).ejected == 1
    assert [row.name for row in load(place).members if row.ejected] == [member.app.member_name]
    place.wait(2.0)
    assert [row.on_trial for row in load(place).members if row.name == member.app.member_name] == [True]


def test_queues_above_the_threshold_are_shown():
    a, b = pair()
    subscriber(b, "t")
    publisher = a.app()
    a.say(publisher, publish("t", b"x" * 60 * KiB))
    assert load(a).queues == ()
    a.say(publisher, publish("t", b"x" * 60 * KiB))
    queue = only(list(load(a).queues))
    assert (queue.to, queue.name, queue.frames) == ("node", "n2", 2)
    assert queue.bytes == load(a).queued > 120 * KiB
    reader = subscriber(a, "u")
    a.say(publisher, publish("u", b"x" * 100 * KiB))
    assert [(queue.to, queue.name) for queue in load(a).queues] == [("app", a.node.core.apps[reader].member_name)]


def test_the_node_itself_and_its_drops():
    a, b = pair()
    b.serving()
    a.app()
    a.from_peer(b, Frame(Kind.REPLY, id=999))
    row = load(a)
    assert (row.service, row.node, row.nodes, row.links, row.attachments) == ("shop", a.id.hex(), 2, 1, 1)
    assert row.drops == {"no-such-call": 1}
    assert row.pending == 0


def test_a_node_that_joins_again_counts_anew():
    place = Place()
    app, caller = place.app(), place.app()
    place.say(app, join(1))
    place.hear(app)
    place.say(caller, request(1))
    place.say(app, reply(only(place.hear(app)).id))
    assert ended(cluster(place).served) == (1, 0, 1)
    place.gone(app)
    assert ended(cluster(place).served) == (0, 0, 0)
