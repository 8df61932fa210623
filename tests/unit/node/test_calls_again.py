from __future__ import annotations

from typing import Any

import pytest

from irisd.model import Code, Frame, Kind, Pattern
from tests.unit.node.house import (
    MAYBE,
    NO,
    Place,
    cut,
    error,
    failure,
    join,
    kinds,
    link,
    only,
    pair,
    pump,
    reply,
    request,
)

# -- trying again


def three(**settings: Any) -> tuple[Place, Place, Place]:
    """A caller's node, and two that serve."""
    one, two, other = Place(1), Place(2, **settings), Place(3, **settings)
    link(one, two)
    link(one, other)
    link(two, other)
    return one, two, other


def where(one: Place, *others: Place) -> tuple[Place, int, Frame]:
    """Who got the request."""
    pump(one, *others)
    found = [(place, app, frame) for place in others for app in place.node.core.apps for frame in place.hear(app)]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_lost_link_after_sent_is_maybe_and_only_the_idempotent_go_elsewhere(idempotent: bool):
    one, two, other = three()
    two.serving()
    other.serving()
    caller = one.app()
    one.say(caller, request(1, idempotent=idempotent))
    first, _, _ = where(one, two, other)
    cut(one, first)
    if not idempotent:
        assert failure(one.hear(caller)) == (Code.MEMBER_LOST, MAYBE)
        return
    second, app, frame = where(one, *[place for place in (two, other) if place is not first])
    assert second is not first
    cut(one, second)  # nobody is left, and the first may have run
    assert failure(one.hear(caller)) == (Code.MEMBER_LOST, MAYBE)
    del app, frame


def test_a_lost_link_before_sent_goes_elsewhere():
    one, two, other = three()
    two.serving()
    other.serving()
    caller = one.app()
    one.say(caller, request(1))
    chosen = next(place for place in (two, other) if one.node.core.peers[place.id].given)
    cut(one, chosen)
    place, app, frame = where(one, two, other)
    assert place is not chosen
    place.say(app, reply(frame.id))
    pump(one, two, other)
    assert only(one.hear(caller)).kind == Kind.REPLY


def test_what_provably_did_not_run_is_tried_elsewhere_and_never_there_again():
    one, two, other = three()
    two.serving()
    other.serving()
    caller = one.app()
    one.say(caller, request(1))
    seen = []
    for _ in range(2):
        place, app, frame = where(one, two, other)
        seen.append(place.id)
        place.say(app, error(frame.id, Code.OVERLOADED, NO, detail="busy"))
    pump(one, two, other)
    assert sorted(seen) == [two.id, other.id]
    assert failure(one.hear(caller)) == (Code.OVERLOADED, NO)
    assert one.quiet()


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.PUSH])
def test_what_a_leaving_member_gives_back_goes_to_another_on_its_node(kind: Kind):
    place = Place()
    members, caller = [place.serving(), place.serving()], place.app()
    place.say(caller, Frame(kind, id=1, address="db", remaining_ms=1000))
    [(first, frame)] = [(app, frame) for app in members for frame in place.hear(app)]
    place.say(first, error(frame.id, Code.NO_MEMBER, NO, detail="has left"))
    [(second, frame)] = [(app, frame) for app in members for frame in place.hear(app)]
    assert second != first
    place.say(second, error(frame.id, Code.NO_MEMBER, NO, detail="has left too"))
    answer = only(place.hear(caller))
    assert (answer.kind, answer.code) == ((Kind.ERROR, Code.NO_MEMBER) if kind == Kind.REQUEST else (Kind.DONE, 0))
    assert place.quiet()


def test_tries_are_bounded():
    one = Place(1, attempts=3)
    others = [Place(n) for n in range(2, 9)]
    for place in others:
        link(one, place)
        place.serving()
        pump(one, place)
    caller = one.app()
    one.say(caller, request(1))
    for _ in range(3):
        place, app, frame = where(one, *others)
        place.say(app, error(frame.id, Code.OVERLOADED, NO, detail="busy"))
    pump(one, *others)
    assert failure(one.hear(caller)) == (Code.OVERLOADED, NO)
    assert one.counters["calls.retried"] == 2


def test_no_of_the_last_attempt_does_not_hide_maybe_of_an_earlier_one():
    one, two, other = three()
    two.serving()
    other.serving()
    caller = one.app()
    one.say(caller, request(1, idempotent=True))
    first, _, _ = where(one, two, other)
    cut(one, first)
    place, app, frame = where(one, *[place for place in (two, other) if place is not first])
    place.say(app, error(frame.id, Code.OVERLOADED, NO, detail="busy"))
    pump(one, place)
    assert failure(one.hear(caller)) == (Code.OVERLOADED, MAYBE)


def test_maybe_of_a_far_member_that_died_is_not_hidden_either():
    one, two, other = three()
    two.serving()
    other.serving()
    caller = one.app()
    one.say(caller, request(1, idempotent=True))
    first, app, _ = where(one, two, other)
    first.gone(app)  # its node says so; the link stands
    place, app, frame = where(one, two, other)
    assert place is not first
    place.say(app, error(frame.id, Code.OVERLOADED, NO, detail="busy"))
    pump(one, place)
    assert failure(one.hear(caller)) == (Code.OVERLOADED, MAYBE)


def test_cancelling_a_second_attempt_does_not_hide_the_first():
    one, two, other = three()
    two.serving()
    other.serving()
    caller = one.app()
    one.say(caller, request(1, idempotent=True))
    first, _, _ = where(one, two, other)
    cut(one, first)
    one.say(caller, Frame(Kind.CANCEL, id=1))  # the second has not left
    answer = only(one.hear(caller))
    assert (answer.code, answer.executed) == (Code.CANCELLED, MAYBE)


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_member_that_dies(idempotent: bool):
    place = Place()
    members = [place.serving(), place.serving()]
    caller = place.app()
    place.say(caller, request(1, idempotent=idempotent))
    first = next(app for app in members if place.hear(app))
    place.gone(first)
    other = members[1 - members.index(first)]
    if idempotent:
        place.say(other, reply(only(place.hear(other)).id))
        assert only(place.hear(caller)).kind == Kind.REPLY
    else:
        assert failure(place.hear(caller)) == (Code.MEMBER_LOST, MAYBE)
        assert place.hear(other) == []
    assert place.quiet()


def test_a_member_that_dies_with_the_call_unread_passes_it_on():
    place = Place()
    members = [place.serving(), place.serving()]
    caller = place.app()
    place.say(caller, request(1))
    first = next(app for app in members if place.node.core.apps[app].given)
    place.gone(first)
    assert only(place.hear(members[1 - members.index(first)])).kind == Kind.REQUEST


def test_the_last_member_leaves_with_calls_waiting():
    near, far = pair()
    member, caller = far.serving(concurrency=1), near.app()
    pump(near, far)
    near.say(caller, request(1), request(3))
    pump(near, far)
    id = only(far.hear(member)).id
    far.say(member, Frame(Kind.LEAVE, id=1))
    pump(near, far)
    assert failure(near.hear(caller)) == (Code.NO_MEMBER, NO)
    far.say(member, reply(id))  # what it has may still be answered
    pump(near, far)
    assert only(near.hear(caller)).kind == Kind.REPLY


def test_the_last_member_that_handles_a_pattern_leaves():
    place = Place()
    leaver = place.serving(patterns=Pattern.REQUEST, concurrency=1)
    place.serving(patterns=Pattern.PUSH)
    caller = place.app()
    place.say(caller, request(1), request(3))
    place.say(leaver, Frame(Kind.LEAVE, id=1))
    answer = only(place.hear(caller))
    assert (answer.id, answer.code, answer.executed) == (3, Code.NOT_SUPPORTED, NO)


@pytest.mark.parametrize("code", [Code.OVERLOADED, Code.NOT_SUPPORTED])
def test_what_one_member_refuses_unrun_goes_to_another_on_its_node(code: Code):
    place = Place()
    members = [place.serving() for _ in range(6)]
    caller = place.app()
    place.say(caller, request(1))
    refused = []
    for _ in range(3):
        ((app, frame),) = [(app, frame) for app in members for frame in place.hear(app)]
        refused.append(app)
        place.say(app, error(frame.id, code, NO, detail="not here"))
    assert len(set(refused)) == 3, "never the one just tried, and not all there are"
    assert failure(place.hear(caller)) == (code, NO)
    assert place.quiet()


def test_leaving_and_joining_again_keeps_the_slots_apart():
    place = Place()
    member, caller = place.serving(concurrency=1), place.app()
    place.say(caller, request(1))
    old = only(place.hear(member)).id
    place.say(member, Frame(Kind.LEAVE, id=1), join(3, concurrency=1))
    place.say(caller, request(3), request(5))
    new = [frame.id for frame in place.hear(member) if frame.kind == Kind.REQUEST]
    assert len(new) == 1
    place.say(member, reply(old))  # of the membership that is over: frees no slot of the new one
    assert place.hear(member) == []
    assert place.outstanding(member) == [1]
    place.say(member, reply(new[0]))
    assert len(place.hear(member)) == 1


def test_a_member_that_left_is_given_nothing_when_its_slot_frees():
    place = Place()
    leaver, stays = place.serving(concurrency=1), place.serving(concurrency=1)
    caller = place.app()
    place.say(caller, request(1), request(3), request(5))
    old = only(place.hear(leaver)).id
    place.hear(stays)
    place.say(leaver, Frame(Kind.LEAVE, id=1), reply(old))
    assert kinds(place.hear(leaver)) == ["DONE"]
