"""What one app may make a node hold, however many things it asked for and does not read."""

from __future__ import annotations

import pytest

from irisd.model import Code, Frame, Kind
from irisd.node import attachments
from tests.unit.node.house import Place, ask, join, only, pair, publish, subscribe

KiB = 1024
BACKLOG = 64 * KiB


def test_all_subscriptions_of_an_app_have_one_bound_besides_their_own():
    place = Place(app_backlog=BACKLOG)
    publisher, slow, good = place.app(), place.app(), place.app()
    place.say(slow, *(subscribe(1 + 2 * at, f"t.{at}") for at in range(100)))
    place.say(good, subscribe(1, "t.>"))
    place.hear(slow)
    place.hear(good)
    for at in range(100):
        place.say(publisher, publish(f"t.{at}", bytes(4 * KiB)))
        assert len(only(place.hear(good)).body) == 4 * KiB  # a neighbour notices nothing
    assert place.node.core.apps[slow].outbox.bytes <= BACKLOG
    heard = [frame for frame in place.hear(slow) if frame.kind == Kind.EVENT]
    assert sum(frame.lost for frame in heard) + sum(bool(frame.body) for frame in heard) == 100  # every loss is told


def test_tunnels_towards_an_app_that_does_not_read_break_at_a_bound():
    place = Place(app_backlog=BACKLOG, app_outbox=BACKLOG)
    member, opener = place.serving("sink"), place.app()
    broken: list[Frame] = []
    for at in range(64):
        place.say(opener, ask(Kind.TUNNEL, 1 + 2 * at, "sink"))
        id = 2 + 2 * at
        place.take(member)  # it hears of the tunnel, accepts it and reads nothing more
        place.say(member, Frame(Kind.CREDIT, id=id, count=64 * KiB))
        place.hear(opener)
        place.say(opener, *(Frame(Kind.DATA, id=1 + 2 * at, body=bytes(8 * KiB)) for _ in range(4)))
        broken += [frame for frame in place.hear(opener) if frame.kind == Kind.ERROR]
        assert place.node.core.apps[member].outbox.bytes <= 2 * BACKLOG + 64 * KiB
    assert broken, "64 tunnels of 32 KiB are beyond the bound"
    assert {frame.code for frame in broken} == {Code.TUNNEL_BROKEN}
    assert "does not read" in broken[0].detail
    assert place.counters["dropped.tunnel-not-read"] == len(broken)
    assert not place.detached()


def test_a_node_claims_no_more_than_its_peers_take(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attachments, "MAX_CLAIMS", 4)
    one, other = pair()
    apps = [one.app() for _ in range(3)]
    for app in apps:
        one.say(app, join(1, f"c{app}"), subscribe(3, f"t{app}"))
    errors = [frame for app in apps for frame in one.hear(app) if frame.kind == Kind.ERROR]
    assert [frame.code for frame in errors] == [Code.OVERLOADED] * 2
    assert "the most there may be" in errors[0].detail
    one.say(apps[0], Frame(Kind.LEAVE, id=1))
    one.say(apps[2], join(5, "again"))
    assert not [frame for frame in one.hear(apps[2]) if frame.kind == Kind.ERROR]
    assert not other.unlinked()
