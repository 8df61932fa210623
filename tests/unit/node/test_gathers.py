from __future__ import annotations

from typing import Any

import pytest

from irisd.model import Code, Frame, KiB, Kind, Pattern
from tests.unit.node.house import (
    MAYBE,
    NO,
    YES,
    Place,
    ask,
    carry,
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
)


def triangle(**settings: Any) -> tuple[Place, Place, Place]:
    places = Place(1, **settings), Place(2, **settings), Place(3, **settings)
    for at, place in enumerate(places):
        for other in places[:at]:
            link(place, other)
    return places


def broadcast(id: int, **fields: Any) -> Frame:
    return ask(Kind.BROADCAST, id, **fields)


def survey(id: int, **fields: Any) -> Frame:
    return ask(Kind.SURVEY, id, **fields)


def names(place: Place, *apps: int) -> list[str]:
    return [place.node.core.apps[app].member_name for app in apps]


# -- broadcast


def test_a_broadcast_reaches_every_member_once_and_says_how_many():
    one, two, three = triangle()
    members = [(one, one.serving()), (two, two.serving()), (two, two.serving()), (three, three.serving())]
    three.serving(patterns=Pattern.REQUEST)
    caller = one.app("cli")
    one.say(caller, broadcast(1, body=b"hear ye", method="m"))
    pump(one, two, three)
    done = only(one.hear(caller))
    assert (done.kind, done.id, done.count, done.members) == (Kind.DONE, 1, 4, ())
    for place, member in members:
        came = only(place.hear(member))
        assert (came.kind, came.body, came.method, came.remaining_ms) == (Kind.BROADCAST, b"hear ye", "m", 0)
        assert came.member.startswith("cli@n1/")
    assert three.hear(2) == []
    assert all(place.quiet() for place in (one, two, three))


def test_a_broadcast_leaves_out_members_with_a_full_queue():
    place = Place(app_outbox=3000)
    full, free, caller = place.serving(), place.serving(), place.app()
    place.say(caller, broadcast(1, body=bytes(2500)))
    place.hear(free)
    place.say(caller, broadcast(3, body=bytes(2500)))
    assert [frame.count for frame in place.hear(caller)] == [2, 1]
    assert [len(place.hear(full)), len(place.hear(free))] == [1, 1]
    assert place.counters["dropped.app-outbox-full"] == 1


def test_a_broadcast_that_a_node_does_not_confirm():
    near, far = pair()
    far.serving()
    member, caller = near.serving(), near.app()
    near.say(caller, broadcast(1, ms=100))
    carry(near, far)  # it has left, and no answer comes
    near.wait(0.2)
    answer = only(near.hear(caller))
    assert (answer.code, answer.executed) == (Code.DEADLINE_EXCEEDED, MAYBE)
    assert "1 members had it" in answer.detail
    pump(near, far)
    near.hear(member)
    assert near.quiet()


def test_a_broadcast_that_never_left_is_taken_back():
    near, far = pair()
    far.serving()
    caller = near.app()
    near.say(caller, broadcast(1), Frame(Kind.CANCEL, id=1))
    assert only(near.hear(caller)).code == Code.CANCELLED
    assert carry(near, far) == []  # neither the broadcast nor a cancel that would overtake it
    assert near.quiet()


def test_a_broadcast_over_a_breaking_link_ends():
    near, far = pair()
    far.serving()
    caller = near.app()
    near.say(caller, broadcast(1))
    carry(near, far)
    cut(near, far)
    assert only(near.hear(caller)).kind == Kind.DONE
    assert near.quiet()


# -- survey


def test_a_survey_ends_early_when_all_have_answered():
    one, two, three = triangle()
    here, there, yonder = one.serving(), two.serving(), three.serving()
    caller = one.app("cli")
    one.say(caller, survey(1, body=b"who?"))
    pump(one, two, three)
    everyone = [(one, here), (two, there), (three, yonder)]
    assert one.hear(caller) == []
    for place, member in everyone:
        came = only(place.hear(member))
        assert (came.kind, came.body, came.remaining_ms) == (Kind.SURVEY, b"who?", 1000)
        place.say(member, reply(came.id, place.id[:1]))
    pump(one, two, three)
    *answers, done = one.hear(caller)
    expected = [names(place, member)[0] for place, member in everyone]
    assert {frame.member: frame.body for frame in answers} == dict(zip(expected, (b"\1", b"\2", b"\3"), strict=True))
    assert (done.kind, sorted(done.members), done.count) == (Kind.DONE, sorted(expected), 3)
    assert all(place.quiet() for place in (one, two, three))
    assert one.node.next_deadline() is None


def test_a_survey_ends_at_its_deadline_and_names_the_silent():
    near, far = pair()
    talks, silent = far.serving(), far.serving()
    caller = near.app()
    near.say(caller, survey(1, ms=500))
    pump(near, far)
    far.say(talks, reply(only(far.hear(talks)).id))
    id = only(far.hear(silent)).id
    pump(near, far)
    assert kinds(near.hear(caller)) == ["REPLY"]
    near.wait(0.5)
    done = only(near.hear(caller))
    assert (done.kind, sorted(done.members)) == (Kind.DONE, sorted(names(far, talks, silent)))
    pump(near, far)
    assert only(far.hear(silent)) == Frame(Kind.CANCEL, id=id)
    far.say(silent, reply(id))  # too late
    pump(near, far)
    assert near.hear(caller) == []
    assert near.quiet()
    assert far.quiet()


def test_answers_may_be_errors_and_a_member_may_decline():
    place = Place()
    members = [place.serving(), place.serving(), place.serving()]
    caller = place.app()
    place.say(caller, survey(1))
    ids = [only(place.hear(member)).id for member in members]
    place.say(members[0], error(ids[0], Code.REJECTED, YES, reason="no"))
    place.say(members[1], Frame(Kind.DONE, id=ids[1]))
    place.say(members[2], reply(ids[2]))
    heard = place.hear(caller)
    assert kinds(heard) == ["ERROR", "REPLY", "DONE"]
    assert [frame.member for frame in heard[:2]] == names(place, members[0], members[2])
    assert sorted(heard[2].members) == sorted(names(place, *members))


@pytest.mark.parametrize("read", [False, True])
def test_a_member_that_dies_is_named(read: bool):
    place = Place()
    member, caller = place.serving(), place.app()
    (name,) = names(place, member)
    place.say(caller, survey(1))
    if read:
        place.hear(member)
    place.gone(member)
    lost, done = place.hear(caller)
    assert (lost.code, lost.executed, lost.member) == (Code.MEMBER_LOST, MAYBE if read else NO, name)
    assert done.members == (name,)


def test_a_node_that_vanishes_leaves_its_members_silent_but_named():
    near, far = pair()
    member, caller = far.serving(), near.app()
    (name,) = names(far, member)
    near.say(caller, survey(1))
    pump(near, far)
    assert kinds(far.hear(member)) == ["SURVEY"]
    cut(near, far)
    assert only(near.hear(caller)).members == (name,)
    assert kinds(far.hear(member)) == ["CANCEL"]
    assert near.quiet()
    assert far.quiet()


def test_the_end_does_not_overtake_a_large_answer():
    near, far = pair()
    large, small, caller = far.serving(), far.serving(), near.app()
    near.say(caller, survey(1))
    pump(near, far)
    ids = [only(far.hear(member)).id for member in (large, small)]
    body = bytes(200 * KiB)
    far.say(
        large,
        Frame(Kind.REPLY, id=ids[0], body=body, more=True, total=3 * len(body)),
        Frame(Kind.PART, id=ids[0], body=body, more=True),
        Frame(Kind.PART, id=ids[0], body=body),
    )
    far.say(small, reply(ids[1]))
    while carry(far, near, 1):
        pass
    heard = []
    while frames := near.take(caller, 1):
        heard += frames
    assert kinds(heard)[-1] == "DONE"
    assert sum(len(frame.body) for frame in heard) == 600 * KiB + 2


def test_cancelling_a_survey_stops_those_asked():
    near, far = pair()
    member, caller = far.serving(), near.app()
    near.say(caller, survey(1))
    pump(near, far)
    id = only(far.hear(member)).id
    near.say(caller, Frame(Kind.CANCEL, id=1))
    assert failure(near.hear(caller)) == (Code.CANCELLED, MAYBE)
    pump(near, far)
    assert only(far.hear(member)) == Frame(Kind.CANCEL, id=id)
    assert near.quiet()
    assert far.quiet()


def test_a_question_taken_back_before_it_was_read_is_never_asked():
    place = Place()
    member, caller = place.serving(), place.app()
    place.say(caller, survey(1), Frame(Kind.CANCEL, id=1))
    assert place.hear(member) == []
    assert place.quiet()


def test_a_surveyor_that_vanishes():
    near, far = pair()
    member, caller = far.serving(), near.app()
    near.say(caller, survey(1))
    pump(near, far)
    assert kinds(far.hear(member)) == ["SURVEY"]
    near.gone(caller)
    pump(near, far)
    assert kinds(far.hear(member)) == ["CANCEL"]
    assert near.quiet()
    assert far.quiet()


def test_a_member_with_a_full_queue_is_asked_in_vain():
    place = Place(app_outbox=3000)
    member, caller = place.serving(), place.app()
    place.say(caller, ask(Kind.BROADCAST, 1, body=bytes(2500)), survey(3, body=bytes(2500)))
    _, answer, done = place.hear(caller)
    assert (answer.code, answer.executed, answer.member) == (Code.OVERLOADED, NO, names(place, member)[0])
    assert done.members == (answer.member,)


def test_very_many_members_are_named_in_headers_that_fit():
    near, far = pair()
    members = []
    for n in range(2500):
        members.append(far.app("m" * 64))
        far.node.frames_from_app(members[n], [join(1)], far.now)
    pump(near, far)
    caller = near.app()
    near.say(caller, survey(1, ms=100))
    carry(near, far)
    said = carry(far, near)
    assert max(frame.header_bytes for frame in said) < 200 * KiB
    near.wait(0.2)
    assert len(only(near.hear(caller)).members) == 2500


def test_a_survey_of_nobody_left_ends_at_once():
    """The members went away while the question was under way."""
    near, far = pair()
    member, caller = far.serving(), near.app()
    near.say(caller, survey(1))
    far.say(member, Frame(Kind.LEAVE, id=1))
    pump(near, far)
    assert only(near.hear(caller)) == Frame(Kind.DONE, id=1)
    assert near.quiet()
