from __future__ import annotations

from typing import Any

import pytest

from irisd.effects import Detach, Wake
from irisd.model import Code, Frame, KiB, Kind, MiB
from irisd.node.describe import cluster_rows, node_rows, service_info, topic_rows
from tests.unit.node.house import (
    Place,
    ask,
    carry,
    error,
    failure,
    join,
    kinds,
    only,
    pair,
    publish,
    pump,
    reply,
    request,
    subscribe,
)

# -- waking


def test_one_wake_until_the_outbox_was_seen_empty():
    place = Place()
    app = place.app()
    place.effects.clear()
    place.say(app, Frame(Kind.FLUSH, id=1), Frame(Kind.FLUSH, id=3))
    assert place.effects == [Wake(app)]
    place.effects.clear()
    place.say(app, Frame(Kind.FLUSH, id=5))
    assert place.effects == []
    assert len(place.take(app, MiB)) == 3
    place.say(app, Frame(Kind.FLUSH, id=7))  # not seen empty yet: the edge pulls again
    assert place.effects == []
    assert len(place.hear(app)) == 1
    place.say(app, Frame(Kind.FLUSH, id=9))
    assert place.effects == [Wake(app)]


def test_taking_for_nobody_is_empty():
    place = Place()
    assert place.node.take(99, MiB, 0.0) == []
    assert place.node.take(b"x" * 16, MiB, 0.0) == []


def test_facts_about_strangers_are_ordinary():
    place = Place()
    place.gone(99)
    place.link_down(b"x" * 16)
    place.from_peer(b"x" * 16, request(1))
    place.say(99, request(1))
    assert place.effects == []


def test_early_deadlines_do_nothing():
    place = Place()
    place.serving(concurrency=1)
    caller = place.app()
    place.say(caller, request(1, ms=1000))
    deadline = place.node.next_deadline()
    assert deadline is not None
    assert 101.0 <= deadline <= 101.01
    place.wait(0.5)
    assert place.hear(caller) == []
    assert place.node.next_deadline() == deadline


# -- mistakes of apps


@pytest.mark.parametrize(
    ("frame", "rule"),
    [
        (request(2), "apps use odd ids"),
        (request(0), "without an id"),
        (join(4), "apps use odd ids"),
        (subscribe(6, "t"), "apps use odd ids"),
        (Frame(Kind.FLUSH, id=8), "apps use odd ids"),
        (Frame(Kind.HELLO), "kind 1"),
        (Frame(Kind.WELCOME), "kind 2"),
        (Frame(Kind.EVENT, id=1), "kind 17"),
        (Frame(Kind.RECORD, id=1), "kind 64"),
        (Frame(Kind.PUBLISH_ACK, id=1), "kind 66"),
        (Frame(Kind.LOST, address="t", count=5), "kind 67"),
        (Frame(1000, id=1), "kind 1000"),
        (Frame(2**64 - 1, id=1), f"kind {2**64 - 1}"),
        (request(1, more=True, total=2**60, body=b"x"), "the limit is"),
        (request(1, more=True, total=3, body=b"xyz"), "parts"),
        (request(1, more=True, body=b"x"), "parts"),
        (publish("no good", b"x"), "PUBLISH"),
    ],
)
def test_a_mistake_ends_the_stream_and_nothing_else(frame: Frame, rule: str):
    near, far = pair()
    member, neighbour, sinner = far.serving(), near.app(), near.app()
    near.say(neighbour, request(1))
    near.say(sinner, request(1))
    pump(near, far)
    heard = far.hear(member)
    if frame.id == 1 and frame.more:
        frame.id = 11
    near.say(sinner, frame, request(3))  # what follows a mistake is not looked at
    detach = only(near.detached())
    assert (detach.attachment, detach.status) == (sinner, "INVALID_ARGUMENT")
    assert rule in detach.reason
    assert near.counters["dropped.protocol-error"] == 1
    assert near.hear(sinner) == []
    pump(near, far)
    assert (kinds(heard), kinds(far.hear(member))) == (["REQUEST", "REQUEST"], ["CANCEL"])
    far.say(member, *[reply(frame.id) for frame in heard])
    pump(near, far)
    assert only(near.hear(neighbour)).kind == Kind.REPLY
    assert near.quiet()
    assert far.quiet()


@pytest.mark.parametrize("opens", [request(1), ask(Kind.SURVEY, 1), join(1, "web"), subscribe(1, "t")])
@pytest.mark.parametrize("again", [request(1), join(1, "other"), subscribe(1, "u"), Frame(Kind.FLUSH, id=1)])
def test_an_id_in_use_cannot_be_used_again(opens: Frame, again: Frame):
    place = Place()
    place.serving()
    sinner = place.app()
    place.say(sinner, opens)
    assert place.detached() == []
    place.say(sinner, again)
    assert "id 1 is in use" in only(place.detached()).reason


@pytest.mark.parametrize(
    "kind", [Kind.REPLY, Kind.ERROR, Kind.DONE, Kind.CREDIT, Kind.DATA, Kind.FINISH, Kind.CANCEL, Kind.PART]
)
@pytest.mark.parametrize("id", [1, 2, 77, 0, 2**64 - 1])
def test_frames_of_calls_that_are_over_are_ordinary(kind: Kind, id: int):
    place = Place()
    app = place.app()
    place.say(app, Frame(kind, id=id, body=b"x", count=5))
    assert (place.detached(), place.hear(app)) == ([], [])
    assert place.node.core.apps[app].assembler._held == 0


def test_unfinished_bodies_of_one_app_are_bounded():
    place = Place()
    app = place.app()
    for n in range(300):
        place.say(app, request(2 * n + 1, more=True, total=MiB, body=bytes(300 * KiB)))
        if place.effects_of(Detach):
            break
    assert n * 300 * KiB <= 64 * MiB


# -- mistakes of peers


@pytest.mark.parametrize(
    "frame",
    [
        request(1),  # the higher node id opens even ones
        request(0),
        Frame(Kind.HELLO),
        Frame(Kind.JOIN, id=2),
        Frame(Kind.EVENT, id=2),
        Frame(Kind.GOODBYE, id=2),
        Frame(1000, id=2),
        request(2, more=True, total=3, body=b"xyz"),
        Frame(Kind.RECORD, count=9, body=b"\xff"),
    ],
)
def test_a_peer_that_breaks_a_rule_loses_its_link_and_nobody_else_does(frame: Frame):
    near, far = pair()
    caller, member = near.app(), near.serving()
    near.from_peer(far, frame)
    unlink = only(near.unlinked())
    assert (unlink.peer, bool(unlink.reason)) == (far.id, True)
    assert near.node.core.peers == {}
    near.say(caller, request(1))
    near.say(member, reply(only(near.hear(member)).id))
    assert only(near.hear(caller)).kind == Kind.REPLY


def test_ids_of_two_nodes_never_meet():
    near, far = pair()
    here, there = near.serving("here"), far.serving("there")
    near.say(near.app(), *[request(2 * n + 1, "there") for n in range(5)])
    far.say(far.app(), *[request(2 * n + 1, "here") for n in range(5)])
    ours = [frame.id for frame in carry(near, far) if frame.kind == Kind.REQUEST]
    theirs = [frame.id for frame in carry(far, near) if frame.kind == Kind.REQUEST]
    assert ours == [1, 3, 5, 7, 9]
    assert theirs == [2, 4, 6, 8, 10]
    assert len(near.hear(here)) == len(far.hear(there)) == 5


# -- apps that do not read


def test_answers_that_do_not_fit_become_errors_that_say_so():
    near, far = pair(app_outbox=100_000)
    member, caller = far.serving(concurrency=100), near.app()
    near.say(caller, *[request(2 * n + 1) for n in range(10)])
    pump(near, far)
    far.say(member, *[reply(frame.id, bytes(30_000)) for frame in far.hear(member)])
    pump(near, far)
    heard = near.hear(caller)
    assert kinds(heard) == ["REPLY"] * 3 + ["ERROR"] * 7
    assert {(frame.code, frame.executed) for frame in heard[3:]} == {(Code.OVERLOADED, 3)}
    assert near.counters["dropped.answer-queue-full"] == 7
    assert near.quiet()


def test_answers_towards_a_stalled_peer_are_bounded_too():
    near, far = pair(peer_outbox=100_000)
    member, caller = far.serving(concurrency=100), near.app()
    near.say(caller, *[request(2 * n + 1) for n in range(10)])
    pump(near, far)
    far.say(member, *[reply(frame.id, bytes(30_000)) for frame in far.hear(member)])
    outbox = far.node.core.peers[near.id].outbox
    assert outbox.urgent_bytes < 110_000
    pump(near, far)
    assert kinds(near.hear(caller)) == ["REPLY"] * 3 + ["ERROR"] * 7


def test_large_answers_are_bounded_and_one_always_fits():
    place = Place(app_outbox=500 * KiB)
    member, caller = place.serving(), place.app()
    place.say(caller, request(1), request(3))
    for frame in place.hear(member):
        place.say(member, Frame(Kind.REPLY, id=frame.id, body=bytes(300 * KiB), more=True, total=600 * KiB))
        place.say(member, Frame(Kind.PART, id=frame.id, body=bytes(300 * KiB)))
    heard = place.hear(caller)
    assert sum(len(frame.body) for frame in heard if frame.id == 1) == 600 * KiB
    assert failure([frame for frame in heard if frame.id == 3]) == (Code.OVERLOADED, 3)


def test_a_flood_of_questions_without_reading_the_answers_ends():
    place = Place(app_outbox=10_000)
    flooder, neighbour = place.app(), place.app()
    for n in range(1000):
        place.say(flooder, *[Frame(Kind.FLUSH, id=10 * n + 1 + 2 * k) for k in range(5)])
    detach = only(place.detached())
    assert (detach.attachment, detach.status) == (flooder, "RESOURCE_EXHAUSTED")
    assert "not-reading" in detach.reason
    assert place.hear(flooder) == []
    assert flooder not in place.node.core.apps
    place.say(neighbour, request(1))
    assert only(place.hear(neighbour)).code == Code.NO_MEMBER


def test_an_app_that_has_not_read_for_a_minute_ends():
    place = Place(app_outbox=10_000, not_reading_timeout=60.0)
    app = place.app()
    place.say(app, *[Frame(Kind.FLUSH, id=2 * n + 1) for n in range(100)])
    assert place.detached() == []
    place.now += 61
    place.say(app, Frame(Kind.FLUSH, id=999))
    assert "61 s" in only(place.detached()).reason


def test_an_app_that_ends_in_the_middle_of_a_batch_takes_its_members_calls_along():
    """It is detached for not reading while its own frames are being looked at."""
    place = Place(app_outbox=3000)
    member, caller = place.serving(), place.app()
    place.say(caller, request(1))
    place.hear(member)
    place.say(member, *[Frame(Kind.FLUSH, id=2 * n + 3) for n in range(200)])
    assert only(place.detached()).attachment == member
    assert failure(place.hear(caller))[0] == Code.MEMBER_LOST


# -- described


def test_a_node_described():
    near, far = pair()
    near.serving("db", patterns=3)
    member, caller = far.serving("db"), near.app()
    far.say(member, subscribe(3, "t.*"), subscribe(5, "t.>", group="g"))
    pump(near, far)
    near.say(caller, request(1), request(3))
    info = service_info(near.node, "ab12")
    assert (info.service, info.key, info.peers, info.attachments, info.clusters) == ("shop", "ab12", 1, 2, 1)
    assert info.pending >= 2
    assert info.queued > 0
    assert info.counters["calls.requests"] == 2
    rows = node_rows(near.node, now=105.0, started=100.0)
    assert [(row.name, row.state) for row in rows] == [("n1", "self"), ("n2", "alive")]
    assert rows[0].since == 5.0
    (cluster,) = cluster_rows(near.node)
    assert (cluster.name, cluster.members, cluster.patterns) == ("db", 2, 31)
    assert [(node.name, node.members, node.outstanding) for node in cluster.nodes] == [("n1", 1, 1), ("n2", 1, 1)]
    assert [(row.filter, row.group, row.subscribers, row.nodes) for row in topic_rows(near.node)] == [
        ("t.*", "", 1, 1),
        ("t.>", "g", 1, 1),
    ]


def test_settings_reach_where_they_matter():
    settings: dict[str, Any] = {"max_body": 1000}
    place = Place(**settings)
    app = place.app()
    place.say(app, request(1, more=True, total=1001, body=b"x"))
    assert "the limit is 1000" in only(place.detached()).reason
    other = place.app()
    place.say(other, error(2, 5, 1))
    assert place.detached() == []
