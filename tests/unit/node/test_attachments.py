from __future__ import annotations

import pytest

from irisd.effects import Fact
from irisd.model import LARGE, Code, Frame, Kind, MiB, WhenFull
from irisd.node.attachments import LET_GO, MAX_CONCURRENCY
from tests.unit.node.house import (
    NO,
    Place,
    bodies,
    cut,
    failure,
    join,
    kinds,
    link,
    only,
    pair,
    publish,
    pump,
    request,
    subscribe,
)


def hello(place: Place, number: int, name: str = "app") -> None:
    place._do(place.node.attach(number, Frame(Kind.HELLO, member=name), place.now))


# -- coming


def test_the_welcome():
    place = Place(3, max_body=12345)
    hello(place, 7, "cli")
    welcome = only(place.hear(7))
    assert (welcome.kind, welcome.address, welcome.max_bytes, welcome.version) == (Kind.WELCOME, "shop", 12345, "1.0")
    assert welcome.node == "03" * 16
    assert welcome.member == "cli@n3/030303.7"


@pytest.mark.parametrize(
    ("name", "shown"), [("", "app"), ("a\nb\x00", "a?b?"), ("x" * 100, "x" * 64), ("büro 7", "büro 7")]
)
def test_names_for_people_are_made_safe(name: str, shown: str):
    place = Place()
    hello(place, 1, name)
    assert only(place.hear(1)).member.partition("@")[0] == shown


def test_early_apps_wait_for_the_first_record_and_nothing_leaves_before_the_welcome():
    far, near = Place(2), Place(1, settle=True)
    far.serving("db")
    hello(near, 1)
    near.say(1, join(1, "web"), request(3, "db"))
    assert near.hear(1) == []
    hello(near, 2)
    near.gone(2)
    link(near, far)
    assert kinds(near.hear(1)) == ["WELCOME", "DONE", "ERROR"]
    hello(near, 3)
    assert kinds(near.hear(3)) == ["WELCOME"]


def test_early_apps_wait_a_bounded_time():
    place = Place(settle=True, settle_timeout=1.0)
    hello(place, 1)
    place.wait(0.99)
    assert place.hear(1) == []
    place.effects.clear()
    place.wait(0.02)
    assert place.woken() == [1]
    assert kinds(place.hear(1)) == ["WELCOME"]
    assert place.node.next_deadline() is None


def test_an_app_that_is_gone_is_forgotten():
    near, far = pair()
    app = near.serving("db")
    near.say(app, subscribe(3, "t"), subscribe(5, "t", group="g"))
    pump(near, far)
    assert far.node.core.registry.clusters()
    near.gone(app)
    near.gone(app)
    pump(near, far)
    assert far.node.core.registry.clusters() == []
    assert far.node.core.registry.topics() == {}
    assert len(near.node.core.record) == 0
    assert near.hear(app) == []
    near.say(app, request(1))  # frames that were under way
    assert near.node.take(app, 1000, near.now) == []


# -- joining


def test_joined_means_known_everywhere():
    near, far = pair()
    app = near.app()
    near.say(app, join(1))
    assert near.hear(app) == []
    pump(near, far)
    assert only(near.hear(app)) == Frame(Kind.DONE, id=1, count=1)
    assert [fact.fields["cluster"] for fact in near.effects_of(Fact) if fact.event == "registry.joined"] == ["db"]


def test_joined_after_a_bounded_wait_says_that_not_everybody_knows():
    near, far = pair(sync_timeout=1.0)
    app = near.app()
    near.say(app, join(1), subscribe(3, "t"))
    near.wait(0.9)
    assert near.hear(app) == []
    near.wait(0.2)
    assert near.hear(app) == [Frame(Kind.DONE, id=1), Frame(Kind.DONE, id=3)]
    pump(near, far)
    assert near.hear(app) == []
    assert near.node.next_deadline() is None


def test_nobody_waits_for_a_peer_that_is_gone():
    near, far = pair()
    app = near.app()
    near.say(app, join(1))
    cut(near, far)
    assert only(near.hear(app)).count == 1


def test_leaving_before_all_know():
    near, far = pair()
    app = near.app()
    near.say(app, join(1), subscribe(3, "t"), Frame(Kind.LEAVE, id=1), Frame(Kind.UNSUBSCRIBE, id=3))
    pump(near, far)
    assert near.hear(app) == [
        Frame(Kind.DONE, id=3),
        Frame(Kind.DONE, id=1),
    ]  # of the LEAVE, behind what was given; the join has no answer now
    assert near.node.next_deadline() is None
    assert far.node.core.registry.clusters() == []


@pytest.mark.parametrize(
    "frame",
    [
        join(1, ""),
        join(1, "a b"),
        join(1, "_iris.x"),
        join(1, "shop/db"),
        join(1, patterns=0),
        join(1, patterns=32),
        join(1, concurrency=0),
        join(1, concurrency=MAX_CONCURRENCY + 1),
        subscribe(1, ""),
        subscribe(1, "a.>.b"),
        subscribe(1, "a", group="a b"),
        subscribe(1, "a", group="*"),
        subscribe(1, "a", when_full=4),
        subscribe(1, "a", when_full=2**64 - 1),
    ],
)
def test_what_makes_no_sense_is_refused_and_the_app_goes_on(frame: Frame):
    place = Place()
    app = place.app()
    place.say(app, frame)
    assert failure(place.hear(app)) == (Code.INVALID, NO)
    assert place.node.core.record.version == 0
    place.say(app, join(3), subscribe(5, "t", when_full=WhenFull.DROP_NEWEST))
    assert kinds(place.hear(app)) == ["DONE", "DONE"]


def test_one_app_serves_a_cluster_once():
    place = Place()
    app, other = place.serving(), place.app()
    place.say(app, join(3))
    assert failure(place.hear(app))[0] == Code.INVALID
    place.say(app, join(5, "web"), Frame(Kind.LEAVE, id=1), join(7))
    assert kinds(place.hear(app)) == ["DONE", "DONE", "DONE"]
    place.say(other, join(1))
    assert kinds(place.hear(other)) == ["DONE"]
    (claim,) = [claim for claim in place.node.core.record.claims() if claim.cluster == "db"]
    assert claim.members == 2


def test_a_claim_adds_up_the_members_patterns():
    place = Place()
    first = place.serving(patterns=1)
    place.serving(patterns=6)
    (claim,) = place.node.core.record.claims()
    assert (claim.members, claim.patterns) == (2, 7 | LARGE)
    place.gone(first)
    (claim,) = place.node.core.record.claims()
    assert (claim.members, claim.patterns) == (1, 6)


def test_leaving_what_was_never_joined_is_ordinary():
    place = Place()
    app = place.app()
    place.say(app, Frame(Kind.LEAVE, id=1), Frame(Kind.UNSUBSCRIBE, id=3))
    assert (place.hear(app), place.detached()) == ([], [])


def test_claims_of_one_app_are_bounded():
    place = Place(max_claims=10)
    app, other = place.app(), place.app()
    place.say(app, *[join(2 * n + 1, f"c{n}") for n in range(5)])
    place.say(app, *[subscribe(2 * n + 1, f"t{n}") for n in range(5, 15)])
    heard = place.hear(app)
    assert kinds(heard) == ["DONE"] * 10 + ["ERROR"] * 5
    assert {frame.code for frame in heard[10:]} == {Code.OVERLOADED}
    place.say(other, join(1))
    assert kinds(place.hear(other)) == ["DONE"]


def test_many_joins_of_one_app_are_not_quadratic():
    place = Place()
    app = place.app()
    place.say(app, *[join(2 * n + 1, f"c{n}") for n in range(20_000)])
    assert len(place.hear(app)) == 20_000


def test_an_app_with_very_many_subscriptions_ends_bit_by_bit():
    near, far = pair()
    app, other, publisher = near.app(), near.app(), far.app()
    count = 3 * LET_GO
    near.say(app, *[subscribe(2 * n + 1, "shared", group="g") for n in range(count, count + 3)])
    near.say(app, *[subscribe(2 * n + 1, f"t.{n}") for n in range(count)])
    near.say(app, subscribe(2 * count + 99, "blocks", when_full=WhenFull.BLOCK, max_bytes=MiB))
    near.say(other, subscribe(1, "shared", group="g"), subscribe(3, "t.0"))
    pump(near, far)
    near.hear(other)
    near.gone(app)
    left = len(near.node.core.record)
    assert LET_GO < left < count
    pump(near, far)
    far.say(publisher, publish("t.0", b"all"), publish("t.1", b"nobody"), publish("blocks", b"nobody"))
    far.say(publisher, *[publish("shared", b"one") for _ in range(9)])
    pump(near, far)
    assert bodies(near.hear(other)) == [b"all"] + [b"one"] * 9
    assert near.counters["dropped.subscriber-gone"] == 1  # of what blocked the claim went first: nothing was sent
    near.wait(1.0)
    pump(near, far)
    assert len(near.node.core.record) == 2
    assert set(far.node.core.registry.topics()) == {("shared", "g"), ("t.0", "")}
    assert not near.node.core.timers


def test_a_sign_of_life_is_given_to_who_asks():
    place = Place()
    app = place.app()
    place.say(app, Frame(Kind.PING), Frame(Kind.PING))
    assert kinds(place.hear(app)) == ["PING", "PING"]


# -- going


def test_an_app_that_says_goodbye_finishes_what_it_has():
    near, far = pair()
    member, caller = far.serving(concurrency=2), near.app()
    near.say(caller, request(1))
    pump(near, far)
    id = only(far.hear(member)).id
    far.say(member, Frame(Kind.GOODBYE))
    pump(near, far)
    near.say(caller, request(3))
    assert failure(near.hear(caller)) == (Code.NO_MEMBER, NO)
    far.say(member, Frame(Kind.REPLY, id=id))
    pump(near, far)
    assert only(near.hear(caller)).kind == Kind.REPLY
    far.say(member, join(3, "web"), subscribe(5, "t"))
    assert [frame.code for frame in far.hear(member)] == [Code.MEMBER_LOST] * 2
    far.gone(member)
    assert far.quiet()


def test_an_app_that_says_goodbye_still_hears_its_own_subscriptions():
    place = Place()
    app, publisher = place.app(), place.app()
    place.say(app, subscribe(1, "t"), Frame(Kind.GOODBYE))
    place.hear(app)
    place.say(publisher, publish("t", b"x"))
    assert kinds(place.hear(app)) == ["EVENT"]


def test_draining_tells_apps_and_peers_and_lets_what_runs_finish():
    near, far = pair()
    member, caller = far.serving(concurrency=1), near.app()
    near.say(caller, request(1), request(3))
    pump(near, far)
    id = only(far.hear(member)).id
    far.drain()
    far.drain()
    pump(near, far)
    assert kinds(far.hear(member)) == ["GOODBYE"]
    assert failure(near.hear(caller)) == (Code.NO_MEMBER, NO)  # what waited there
    assert near.node.core.registry.clusters() == []
    assert far.node.under_way == 1
    far.say(member, Frame(Kind.REPLY, id=id), Frame(Kind.GOODBYE))
    pump(near, far)
    assert only(near.hear(caller)).kind == Kind.REPLY
    assert far.node.under_way == 0


def test_a_drain_ends_once_nothing_more_can_be_on_its_way():
    near, far = pair()
    member, caller = far.serving(), near.app()
    near.say(caller, request(1))  # on its way when the other side begins to drain
    far.drain()
    news = far.hear(near.id)
    assert not far.node.drained
    near.from_peer(far, *news)
    ahead, behind, *rest = [frame for frame in near.hear(far.id) if frame.kind != Kind.HEARSAY]
    assert (ahead.kind, behind.kind, behind.count) == (Kind.REQUEST, Kind.RECORD_ACK, far.node.core.record.version - 1)
    assert [frame.kind for frame in rest] == [Kind.RECORD_ACK]
    far.from_peer(near, ahead, behind, *rest)
    assert kinds(far.hear(member)) == ["GOODBYE"]
    pump(near, far)
    assert failure(near.hear(caller)) == (Code.NO_MEMBER, NO)
    assert not far.node.drained  # the app may have written something before it read the GOODBYE
    far.say(member, Frame(Kind.GOODBYE))
    pump(near, far)
    assert far.node.drained


def test_an_app_that_answers_no_goodbye_is_waited_for_until_it_is_silent():
    place = Place()
    app = place.app()
    place.wait(5.0)
    place.drain()
    place.hear(app)
    place.wait(0.7)
    place.say(app, Frame(Kind.FLUSH, id=1))
    place.hear(app)
    place.wait(0.7)
    assert not place.node.drained
    place.wait(0.5)
    assert place.node.drained


def test_an_app_that_said_it_answers_is_waited_for():
    place = Place()
    place.node.attach(7, Frame(Kind.HELLO, member="app", count=1), place.now)
    place.hear(7)
    place.drain()
    place.hear(7)
    place.wait(5.0)  # busy, stopped, swapped out
    assert not place.node.drained
    place.say(7, Frame(Kind.GOODBYE))
    assert place.node.drained


def test_goodbye_may_be_said_twice():
    near, far = pair()
    app = far.app()
    far.say(app, subscribe(1, "t", group="g"))
    pump(near, far)
    far.say(app, Frame(Kind.GOODBYE), Frame(Kind.GOODBYE))
    far.drain()
    pump(near, far)
    assert len(far.node.core.record) == 0
    assert near.node.core.registry.topics() == {}


def test_a_leave_is_confirmed_behind_the_calls_that_were_given_before():
    place = Place()
    member, caller = place.serving(), place.app()
    place.say(caller, request(1))
    place.say(member, Frame(Kind.LEAVE, id=1))
    assert kinds(place.hear(member)) == ["REQUEST", "DONE"]


def test_who_comes_while_the_daemon_drains_is_told_at_once():
    place = Place(settle=True)
    place.drain()
    hello(place, 1)
    assert kinds(place.hear(1)) == ["WELCOME", "GOODBYE"]
    place.say(1, join(1))
    answer = only(place.hear(1))
    assert (answer.code, answer.executed) == (Code.MEMBER_LOST, NO)
    assert "shutting down" in answer.detail
    assert len(place.node.core.record) == 0
