"""Which node and which member a call gets: levels, keys, ejection, hedges, the retry budget."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from irisd.model import MAX_SEATS, Balance, Code, Frame, Kind, Pattern
from irisd.node.endpoints import App, Member
from irisd.node.members import FIRST_EJECTION, IN_A_ROW, Group
from irisd.router import rank
from irisd.wire import decode_record, encode_claims
from tests.unit.node.house import (
    MAYBE,
    NO,
    YES,
    Place,
    cut,
    error,
    failure,
    kinds,
    link,
    only,
    pump,
    reply,
    request,
)


def mesh(count: int = 3, **settings: Any) -> list[Place]:
    places = [Place(number, **settings) for number in range(1, count + 1)]
    for at, place in enumerate(places):
        for other in places[at + 1 :]:
            link(place, other)
    return places


def serve(place: Place, *, concurrency: int = 8, **said: Any) -> int:
    app = place.app()
    place.say(app, Frame(Kind.JOIN, id=1, address="db", patterns=31, concurrency=concurrency, **said))
    pump(place, *place.links.values())
    assert kinds(place.hear(app)) == ["DONE"]
    return app


class Answering:
    """Members that answer at once, each in its way, and count what they got."""

    def __init__(self, places: list[Place]) -> None:
        self.places = places
        self.counts: Counter[tuple[int, int]] = Counter()
        self.failing: set[tuple[int, int]] = set()
        self.silent: set[tuple[int, int]] = set()

    def run(self) -> None:
        pump(*self.places)
        for number, place in enumerate(self.places):
            for app in [app.attachment for app in place.node.core.apps.values() if app.members]:
                for frame in place.hear(app):
                    if frame.kind != Kind.REQUEST:
                        continue
                    who = (number, app)
                    self.counts[who] += 1
                    if who in self.failing:
                        place.say(app, error(frame.id, Code.HANDLER_FAILED, YES))
                    elif who not in self.silent:
                        place.say(app, reply(frame.id))
        pump(*self.places)


class Caller:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.app = place.app()
        self.next = 1

    def ask(self, answering: Answering, **said: Any) -> list[Frame]:
        self.place.say(self.app, request(self.next, **said))
        self.next += 2
        answers: list[Frame] = []
        for _ in range(4):
            answering.run()
            answers += [frame for frame in self.place.hear(self.app) if frame.kind in (Kind.REPLY, Kind.ERROR)]
        return answers


# -- shares


@pytest.mark.parametrize("balance", [0, Balance.P2C, Balance.ROUND_ROBIN, Balance.RANDOM])
def test_members_on_nodes_of_different_size_get_the_same(balance):
    places = mesh()
    members = [(at, serve(place, balance=balance)) for at, place in enumerate(places) for _ in range(3 - at)]
    answering, caller = Answering(places), Caller(places[0])
    for _ in range(600):
        assert only(caller.ask(answering)).kind == Kind.REPLY
    within = 45 if balance == Balance.RANDOM else 12
    assert {who: abs(answering.counts[who] - 100) <= within for who in members} == dict.fromkeys(members, True)


def test_the_policy_of_a_call_wins_over_that_of_its_cluster():
    places = mesh(2)
    near, _ = serve(places[0]), serve(places[1])
    answering, caller = Answering(places), Caller(places[0])
    for _ in range(20):
        caller.ask(answering, balance=Balance.LOCAL)
    assert answering.counts == {(0, near): 20}


def test_local_goes_elsewhere_when_the_own_node_is_full():
    places = mesh(2)
    near, far = serve(places[0], concurrency=1, balance=Balance.LOCAL), serve(places[1], balance=Balance.LOCAL)
    answering, caller = Answering(places), Caller(places[0])
    answering.silent = {(0, near)}
    for _ in range(5):
        caller.ask(answering)
    assert answering.counts == {(0, near): 1, (1, far): 4}


# -- levels


def test_a_level_is_used_only_while_nobody_better_can_take_the_call():
    places = mesh(3)
    first, second = serve(places[1]), serve(places[2], priority=1)
    third = serve(places[0], priority=2)
    answering, caller = Answering(places), Caller(places[0])
    for _ in range(10):
        caller.ask(answering)
    assert answering.counts == {(1, first): 10}
    places[1].gone(first)
    for _ in range(10):
        caller.ask(answering)
    assert answering.counts[2, second] == 10
    cut(places[0], places[2])
    for _ in range(10):
        caller.ask(answering)
    assert answering.counts[0, third] == 10


def test_levels_on_one_node():
    place = Place(1, request_queue=1)
    first, second = serve(place, concurrency=1), serve(place, concurrency=1, priority=7)
    caller = place.app()
    place.say(caller, request(1), request(3), request(5))
    # one runs, one waits for the better member, and only what finds the queue full goes further down
    assert [len(place.hear(app)) for app in (first, second)] == [1, 1]
    place.gone(first)
    assert failure(place.hear(caller)) == (Code.MEMBER_LOST, MAYBE)


def test_what_waits_goes_to_the_next_level_when_the_better_one_leaves():
    place = Place(1)
    first, second = serve(place, concurrency=1), serve(place, priority=1)
    caller = place.app()
    place.say(caller, request(1), request(3))
    assert (len(place.hear(first)), len(place.hear(second))) == (1, 0)
    place.say(first, Frame(Kind.LEAVE, id=1))
    assert kinds(place.hear(second)) == ["REQUEST"]


# -- keys


def test_a_key_stays_with_its_member():
    places = mesh(3)
    for place in places:
        for _ in range(3):
            serve(place)
    answering = Answering(places)
    callers = [Caller(place) for place in places]
    kept: dict[str, tuple[int, int]] = {}
    for turn in range(3):
        for number in range(30):
            answering.counts.clear()
            callers[turn].ask(answering, key=f"customer-{number}")
            (who,) = answering.counts
            assert kept.setdefault(f"customer-{number}", who) == who
    assert len(set(kept.values())) >= 7, "nine members, thirty keys"
    gone = kept["customer-0"]
    places[gone[0]].gone(gone[1])
    pump(*places)
    for key, was in kept.items():
        answering.counts.clear()
        callers[0].ask(answering, key=key)
        (who,) = answering.counts
        assert (who == was) == (was != gone)


def test_a_key_waits_for_its_member_however_free_others_are():
    place = Place(1)
    members = [serve(place, concurrency=1) for _ in range(3)]
    caller = place.app()
    place.say(caller, request(1, key="k"), request(3, key="k"))
    got = {app: place.hear(app) for app in members}
    (keeper,) = [app for app, frames in got.items() if frames]
    assert len(got[keeper]) == 1
    place.say(caller, request(5), request(7))
    place.say(keeper, reply(got[keeper][0].id))
    (again,) = place.hear(keeper)
    assert again.key == "k"
    place.gone(keeper)  # the one that ran is lost; a key whose member is gone has another
    place.say(caller, request(9, key="k"))
    others = [app for app in members if app != keeper]
    assert sum(len(place.hear(app)) for app in others) == 2


def test_what_waits_for_a_member_that_leaves_goes_to_another():
    place = Place(1)
    members = [serve(place, concurrency=1) for _ in range(2)]
    caller = place.app()
    place.say(caller, request(1, key="k"), request(3, key="k"))
    (keeper,) = [app for app in members if place.hear(app)]
    other = next(app for app in members if app != keeper)
    place.say(keeper, Frame(Kind.LEAVE, id=1))
    assert kinds(place.hear(other)) == ["REQUEST"]


def test_a_key_of_a_mebibyte_is_refused():
    place = Place(1)
    serve(place)
    caller = place.app()
    place.say(caller, request(1, key="k" * 400_000))
    refused = only(place.hear(caller))
    assert (refused.code, refused.detail) == (Code.INVALID, "key: at most 1024 bytes")
    place.say(caller, request(3, balance=99))
    assert only(place.hear(caller)).code == Code.INVALID


@pytest.mark.parametrize(
    "said", [{"concurrency": 0}, {"concurrency": 10**9}, {"balance": 6}, {"priority": 256}, {"priority": 2**31}]
)
def test_a_join_that_makes_no_sense(said):
    place = Place(1)
    app = place.app()
    place.say(app, Frame(Kind.JOIN, id=1, address="db", patterns=31, **{"concurrency": 4} | said))
    assert only(place.hear(app)).code == Code.INVALID
    assert not place.node.core.registry.serving("db")


# -- who keeps failing


def failing_mesh() -> tuple[list[Place], Answering, Caller, tuple[int, int]]:
    """In turn, so that the failing one is not simply avoided."""
    places = mesh(3)
    members = [(at, serve(place, balance=Balance.ROUND_ROBIN)) for at, place in enumerate(places)]
    answering = Answering(places)
    answering.failing = {members[1]}
    return places, answering, Caller(places[0]), members[1]


def wait(places: list[Place], seconds: float) -> None:
    for place in places:
        place.wait(seconds)
    pump(*places)


def test_one_that_keeps_failing_is_given_nothing_for_a_while_then_one_call():
    places, answering, caller, bad = failing_mesh()
    for _ in range(40):
        caller.ask(answering)
    assert answering.counts[bad] == IN_A_ROW
    claim = places[0].node.core.registry.serving("db")[places[1].id]
    assert (claim.members, claim.ejected, claim.capacity) == (1, 1, 0)
    wait(places, FIRST_EJECTION * 1.2)
    for _ in range(60):
        caller.ask(answering)
    assert answering.counts[bad] == IN_A_ROW + 1, "a trial is one call"
    wait(places, FIRST_EJECTION * 1.2)
    for _ in range(40):
        caller.ask(answering)
    assert answering.counts[bad] == IN_A_ROW + 1, "the next ejection is longer"
    answering.failing.clear()
    wait(places, FIRST_EJECTION * 2.4)
    for _ in range(200):
        caller.ask(answering)
    assert answering.counts[bad] > IN_A_ROW + 40, "restored"
    assert places[0].node.core.registry.serving("db")[places[1].id].ejected == 0


def test_at_most_half_are_out():
    places, answering, caller, _ = failing_mesh()
    answering.failing |= {(2, app) for app in places[2].node.core.apps}
    for _ in range(60):
        caller.ask(answering)
    ejected = [claim.ejected for claim in places[0].node.core.registry.serving("db").values()]
    assert sorted(ejected) == [0, 0, 1]


def test_the_only_member_is_never_ejected():
    place = Place(1)
    app = serve(place)
    answering, caller = Answering([place]), Caller(place)
    answering.failing = {(0, app)}
    for _ in range(30):
        assert only(caller.ask(answering)).code == Code.HANDLER_FAILED
    assert answering.counts[0, app] == 30


def test_rejections_are_answers():
    place = Place(1)
    app, _ = serve(place), serve(place)
    caller = place.app()
    for id in range(1, 101, 2):
        place.say(caller, request(id))
        for member in place.node.core.apps:
            for frame in place.hear(member):
                if frame.kind == Kind.REQUEST:
                    place.say(member, error(frame.id, Code.REJECTED, YES))
    assert place.node.core.registry.serving("db")[place.id].ejected == 0
    assert all(member.streak == 0 for member in place.node.core.apps[app].members.values())


def test_what_hangs_until_its_callers_give_up_is_ejected():
    places = mesh(3)
    members = [(at, serve(place, balance=Balance.ROUND_ROBIN)) for at, place in enumerate(places)]
    answering, caller = Answering(places), Caller(places[0])
    answering.silent = {members[1]}
    for _ in range(40):
        caller.ask(answering, ms=200)
        wait(places, 0.25)
    claim = places[0].node.core.registry.serving("db")[places[1].id]
    assert (claim.ejected, answering.counts[members[1]]) == (1, IN_A_ROW), "no trial while its handlers hang"


def test_what_waits_for_an_ejected_member_goes_elsewhere():
    places = mesh(2)
    bad, good = serve(places[0], concurrency=IN_A_ROW), serve(places[1])
    caller = Caller(places[0])
    for _ in range(IN_A_ROW + 3):
        places[0].say(caller.app, request(caller.next, balance=Balance.LOCAL, ms=500))
        caller.next += 2
    # full: the others went to the far node; more wait here by their key
    key = next(f"k{n}" for n in range(99) if rank(f"k{n}", places[0].id, [0]) > rank(f"k{n}", places[1].id, [0]))
    for id in range(99, 115, 2):
        places[0].say(caller.app, request(id, key=key, ms=5000))
    pump(*places)
    places[1].hear(good)
    for frame in places[0].hear(bad):  # each but the last lets one in
        places[0].say(bad, error(frame.id, Code.HANDLER_FAILED, YES))
    pump(*places)
    assert [frame.key for frame in places[1].hear(good)] == [key] * (8 - IN_A_ROW + 1)


def test_one_that_fails_is_avoided_before_it_is_ejected():
    places = mesh(3)
    members = [(at, serve(place)) for at, place in enumerate(places)]
    answering, caller = Answering(places), Caller(places[0])
    answering.failing = {members[1]}
    for _ in range(100):
        caller.ask(answering)
    assert answering.counts[members[1]] <= IN_A_ROW


# -- a second attempt beside the first


def hedged(places: list[Place], caller: Caller, **said: Any) -> None:
    caller.place.say(caller.app, request(caller.next, hedge_ms=50, idempotent=True, **said))
    caller.next += 2
    pump(*places)


def got(places: list[Place]) -> list[tuple[Place, int, Frame]]:
    """Who has got a request since the last time."""
    pump(*places)
    return [
        (place, app, frame)
        for place in places
        for app in list(place.node.core.apps)
        for frame in (place.hear(app) if place.node.core.apps[app].members else [])
        if frame.kind in (Kind.REQUEST, Kind.CANCEL)
    ]


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_a_hedge_goes_to_another_member_and_the_first_answer_counts(nodes):
    """Two members: both here, both on one other node, or on two others."""
    places = mesh(nodes)
    if nodes == 1:
        serve(places[0]), serve(places[0])
    elif nodes == 2:
        serve(places[1]), serve(places[1])
    else:
        serve(places[1]), serve(places[2])
    caller = Caller(places[0])
    hedged(places, caller)
    ((first, one, asked),) = got(places)
    wait(places, 0.04)
    assert got(places) == []
    wait(places, 0.02)
    ((second, other, again),) = got(places)
    assert (first.id, one) != (second.id, other)
    second.say(other, reply(again.id, body=b"quick"))
    pump(*places)
    assert only(places[0].hear(caller.app)).body == b"quick"
    ((where, who, cancel),) = got(places)
    assert (where, who, cancel.kind, cancel.id) == (first, one, Kind.CANCEL, asked.id)
    first.say(one, error(asked.id, Code.CANCELLED, MAYBE))
    pump(*places)
    assert places[0].hear(caller.app) == []
    assert all(place.quiet() for place in places)


def test_a_hedged_call_survives_the_failure_of_either_attempt():
    for fails_first in (True, False):
        places = mesh(3)
        serve(places[1]), serve(places[2])
        caller = Caller(places[0])
        hedged(places, caller)
        attempts = got(places)
        wait(places, 0.06)
        attempts += got(places)
        bad, good = attempts if fails_first else attempts[::-1]
        bad[0].say(bad[1], error(bad[2].id, Code.HANDLER_FAILED, YES))
        pump(*places)
        assert places[0].hear(caller.app) == []
        good[0].say(good[1], reply(good[2].id))
        pump(*places)
        assert only(places[0].hear(caller.app)).kind == Kind.REPLY
        assert all(place.quiet() for place in places)


def test_both_attempts_end_with_the_call():
    places = mesh(3)
    serve(places[1]), serve(places[2])
    caller = Caller(places[0])
    hedged(places, caller, ms=1000)
    attempts = got(places)
    wait(places, 0.06)
    attempts += got(places)
    wait(places, 1.0)
    assert failure(places[0].hear(caller.app)) == (Code.DEADLINE_EXCEEDED, MAYBE)
    assert [frame.kind for _, _, frame in got(places)] == [Kind.CANCEL, Kind.CANCEL]
    for place, app, frame in attempts:
        place.say(app, error(frame.id, Code.CANCELLED, MAYBE))
    pump(*places)
    assert all(place.quiet() for place in places)


def test_both_attempts_lost_is_one_error():
    places = mesh(3)
    serve(places[1]), serve(places[2])
    caller = Caller(places[0])
    hedged(places, caller)
    got(places)
    wait(places, 0.06)
    got(places)
    cut(places[0], places[1])
    assert places[0].hear(caller.app) == []
    cut(places[0], places[2])
    assert failure(places[0].hear(caller.app)) == (Code.MEMBER_LOST, MAYBE)
    assert places[0].quiet()


@pytest.mark.parametrize("said", [{"idempotent": False}, {"kind": Kind.PUSH}])
def test_only_idempotent_requests_are_hedged(said):
    places = mesh(3)
    serve(places[1]), serve(places[2])
    caller = places[0].app()
    frame = request(1, hedge_ms=10, idempotent=True)
    places[0].say(caller, Frame(**vars(frame) | said))
    got(places)
    wait(places, 0.1)
    assert got(places) == []


def test_no_hedge_where_there_is_one_member():
    place = Place(1)
    app = serve(place)
    caller = Caller(place)
    hedged([place], caller)
    ((_, _, asked),) = got([place])
    place.wait(0.1)
    assert got([place]) == []
    place.say(app, reply(asked.id))
    assert only(place.hear(caller.app)).kind == Kind.REPLY
    assert place.quiet()


def test_what_a_hedge_says_of_the_first_attempt_is_said_to_its_node_only():
    places = mesh(3)
    serve(places[1]), serve(places[1])
    caller = Caller(places[0])
    hedged(places, caller)
    got(places)
    wait(places, 0.06)
    got(places)
    serve(places[2])
    pump(*places)
    cut(places[0], places[1])
    asked = [frame for frame in places[0].hear(places[2].id) if frame.kind == Kind.REQUEST]
    assert only(asked).count == 0


# -- the budget


def test_what_a_dead_member_may_have_run_is_run_again_at_the_budget_s_cost():
    place, answers = Place(1), []
    caller = Caller(place)
    for _ in range(200):
        serve(place), serve(place)
        place.say(caller.app, request(caller.next, idempotent=True))
        caller.next += 2
        for _ in range(2):
            for _, app, _ in got([place]):
                place.gone(app)
        answers.append(failure(place.hear(caller.app))[0])
        for app in [app for app, held in place.node.core.apps.items() if held.members]:
            place.gone(app)
    assert place.counters["calls.retries-refused"] > 50
    assert set(answers) == {Code.MEMBER_LOST}


def test_retries_are_a_share_of_the_calls():
    """Two nodes that refuse everything: the first calls are tried on both, then only a fifth of them is."""
    places = mesh(3)
    members = [serve(places[1]), serve(places[2])]
    caller = Caller(places[0])
    asked = 0
    for _ in range(1000):
        places[0].say(caller.app, request(caller.next))
        caller.next += 2
        for _ in range(3):
            pump(*places)
            for place, app in zip(places[1:], members, strict=True):
                for frame in place.hear(app):
                    asked += 1
                    place.say(app, error(frame.id, Code.OVERLOADED, NO, detail="busy"))
        pump(*places)
        assert failure(places[0].hear(caller.app)) == (Code.OVERLOADED, NO)
    assert 1000 + 250 < asked < 1000 + 350
    assert places[0].counters["calls.retries-refused"] > 600


def test_join_says_its_slots_and_seats():
    place = Place(1)
    apps = [serve(place, concurrency=4) for _ in range(3)]
    claim = place.node.core.registry.serving("db")[place.id]
    assert (claim.members, claim.slots, claim.seats) == (3, 12, 0)
    place.gone(apps[1])
    claim = place.node.core.registry.serving("db")[place.id]
    assert (claim.members, claim.slots, list(claim.taken_seats)) == (2, 8, [0, 2])
    serve(place, concurrency=1)
    assert list(place.node.core.registry.serving("db")[place.id].taken_seats) == [0, 1, 2]


def push(id: int) -> Frame:
    return Frame(Kind.PUSH, id=id, address="db", remaining_ms=1000)


def test_pushes_that_were_accepted_wait_until_their_ejected_member_is_tried_again():
    places = mesh(2)
    member, caller = serve(places[0], concurrency=1), places[0].app()
    serve(places[1])
    for turn in range(IN_A_ROW):
        places[0].say(caller, request(2 * turn + 1, balance=Balance.LOCAL))
        ran = only(places[0].hear(member))
        if turn == IN_A_ROW - 1:  # from elsewhere, chosen before it was known how busy it is here
            places[0].from_peer(places[1], push(2), push(4))
            assert kinds(places[0].hear(places[1].id)) == ["DONE", "DONE"]
        places[0].say(member, error(ran.id, Code.HANDLER_FAILED, YES))
        assert failure_code(places[0].hear(caller)) == Code.HANDLER_FAILED
    assert only(places[0].node.calls.members.of("db")).out
    assert not places[0].hear(member)
    places[0].wait(1.2 * FIRST_EJECTION)
    for _ in range(2):
        came = only(places[0].hear(member))
        assert came.kind == Kind.PUSH
        places[0].say(member, Frame(Kind.DONE, id=came.id))
    assert not places[0].counters["dropped.push-lost"]


def failure_code(frames: list[Frame]) -> int:
    return only([frame for frame in frames if frame.kind == Kind.ERROR]).code


def test_a_member_of_a_lower_level_gets_what_only_it_handles():
    place = Place(1)
    better, other, caller = place.app(), place.app(), place.app()
    place.say(better, Frame(Kind.JOIN, id=1, address="db", patterns=Pattern.REQUEST, concurrency=8))
    both = Pattern.REQUEST | Pattern.PUSH
    place.say(other, Frame(Kind.JOIN, id=1, address="db", patterns=both, concurrency=1, priority=1))
    place.hear(better), place.hear(other)
    place.say(caller, push(1), push(3))
    first = only(place.hear(other))
    place.say(other, Frame(Kind.DONE, id=first.id))
    assert kinds(place.hear(other)) == ["PUSH"]


def test_seats_beyond_those_that_keys_go_to_are_not_claimed():
    group = Group()
    for seat in (0, 2, MAX_SEATS + 1):
        member = Member(App(1, "a", "a", backlog=1, max_body=1), 1, "db", 1, 1)
        member.seat = seat
        group.members.append(member)
    claim = group.claim("db")
    assert (claim.members, claim.seats) == (3, 0b101)
    assert decode_record(encode_claims([claim])[0]).claims == [claim]
