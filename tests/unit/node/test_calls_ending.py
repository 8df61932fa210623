from __future__ import annotations

import pytest

from irisd.model import Code, Frame, KiB, Kind
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
    kinds,
    only,
    pair,
    pump,
    reply,
    request,
)

# -- time


def test_each_hop_subtracts_its_queue_time():
    near, far = pair()
    member, caller = far.serving(concurrency=1), near.app()
    pump(near, far)
    near.say(caller, request(1, ms=1000), request(3, ms=1000))
    near.now += 0.125
    pump(near, far)
    first = only(far.hear(member))
    assert first.remaining_ms == 875
    far.now += 0.25
    far.say(member, reply(first.id))
    far.now += 0.125
    assert only(far.hear(member)).remaining_ms == 500


def test_the_deadline_answers_at_the_latest():
    near, far = pair()
    member, caller = far.serving(), near.app()
    pump(near, far)
    near.say(caller, request(1, ms=500))
    pump(near, far)
    id = only(far.hear(member)).id
    near.wait(0.49)
    assert near.hear(caller) == []
    near.wait(0.02)
    assert failure(near.hear(caller)) == (Code.DEADLINE_EXCEEDED, MAYBE)
    pump(near, far)
    assert only(far.hear(member)) == Frame(Kind.CANCEL, id=id)
    assert far.outstanding(member) == [1]  # until the handler has really ended
    far.say(member, error(id, Code.CANCELLED, YES))
    assert far.outstanding(member) == [0]
    pump(near, far)
    assert near.hear(caller) == []
    assert near.quiet()
    assert far.quiet()


def test_a_call_that_never_left_did_not_run():
    near, far = pair()
    far.serving()
    caller = near.app()
    near.say(caller, request(1, ms=500))
    near.wait(0.5)
    assert failure(near.hear(caller)) == (Code.DEADLINE_EXCEEDED, NO)
    assert carry(near, far) == []
    assert near.quiet()


def test_the_far_node_knows_better_whether_it_ran():
    near, far = pair()
    far.serving(concurrency=1)
    caller = near.app()
    near.say(caller, request(1, ms=5000), request(3, ms=500))
    pump(near, far)
    far.wait(0.5)
    pump(near, far)
    assert failure(near.hear(caller)) == (Code.DEADLINE_EXCEEDED, NO)


def test_a_late_call_in_the_queue_does_not_take_a_slot():
    place = Place()
    member, caller = place.serving(concurrency=1), place.app()
    place.say(caller, request(1), request(3, ms=10), request(5))
    place.now += 0.02  # its timer has not fired yet
    place.say(member, reply(only(place.hear(member)).id))
    place.wait(0)
    assert [frame.id for frame in place.hear(caller)] == [1, 3]
    assert only(place.hear(member)).kind == Kind.REQUEST


def test_enormous_times_are_harmless():
    near, far = pair()
    member, caller = far.serving(), near.app()
    pump(near, far)
    near.say(caller, request(1, ms=2**32 - 1, hops=2**32 - 1))
    pump(near, far)
    assert only(far.hear(member)).remaining_ms == 2**32 - 1
    assert far.unlinked() == []


# -- cancelling


def test_cancelling_what_waits_says_dequeued():
    place = Place()
    place.serving(concurrency=1)
    caller = place.app()
    place.say(caller, request(1), request(3))
    place.say(caller, Frame(Kind.CANCEL, id=3))
    answer = only(place.hear(caller))
    assert (answer.code, answer.executed, answer.detail) == (Code.CANCELLED, NO, "dequeued")
    assert place.node._calls.members.waiting == 0


def test_cancelling_what_runs_says_running_and_reaches_the_handler():
    near, far = pair()
    member, caller = far.serving(concurrency=1), near.app()
    pump(near, far)
    near.say(caller, request(1), request(3))
    pump(near, far)
    id = only(far.hear(member)).id
    near.say(caller, Frame(Kind.CANCEL, id=1))
    answer = only(near.hear(caller))
    assert (answer.code, answer.executed, answer.detail) == (Code.CANCELLED, MAYBE, "running")
    pump(near, far)
    assert only(far.hear(member)) == Frame(Kind.CANCEL, id=id)
    far.say(member, error(id, Code.CANCELLED, YES))
    assert only(far.hear(member)).kind == Kind.REQUEST  # its slot went to the next
    pump(near, far)
    assert near.hear(caller) == []


def test_cancelling_between_two_parts_stops_the_rest_and_frees_the_slot():
    place = Place()
    member, caller = place.serving(concurrency=1), place.app()
    body = bytes(250 * KiB)
    first = Frame(Kind.REQUEST, id=1, address="db", remaining_ms=1000, body=body, more=True, total=3 * len(body))
    rest = [Frame(Kind.PART, id=1, body=body, more=n < 1) for n in range(2)]
    place.say(caller, first, *rest)
    began = only(place.take(member))
    assert began.more
    place.say(caller, Frame(Kind.CANCEL, id=1))
    answer = only(place.hear(caller))
    assert (answer.code, answer.executed, answer.detail) == (Code.CANCELLED, NO, "dequeued")
    assert only(place.hear(member)) == Frame(Kind.CANCEL, id=began.id)
    assert place.quiet()
    assert place.outstanding(member) == [0]


def test_cancelling_a_body_that_is_still_coming():
    place = Place()
    place.serving()
    caller = place.app()
    place.say(caller, request(1, body=b"a", more=True, total=2), Frame(Kind.CANCEL, id=1))
    place.say(caller, Frame(Kind.PART, id=1, body=b"b"))
    assert place.detached() == []
    assert place.quiet()


def test_cancelling_what_is_over_is_ordinary():
    place = Place()
    caller = place.app()
    place.say(caller, Frame(Kind.CANCEL, id=77))
    assert (place.hear(caller), place.detached()) == ([], [])


# -- answers


def test_a_rejection_is_an_answer():
    near, far = pair()
    member, caller = far.serving(), near.app()
    far.serving()
    pump(near, far)
    near.say(caller, request(1, idempotent=True))
    pump(near, far)
    heard = {app: far.hear(app) for app in (1, 2)}
    member = next(app for app, frames in heard.items() if frames)
    no = error(only(heard[member]).id, Code.REJECTED, YES, reason="missing", detail="no such row", body=b"why")
    far.say(member, no)
    pump(near, far)
    answer = only(near.hear(caller))
    assert (answer.code, answer.executed, answer.reason, answer.detail) == (
        Code.REJECTED,
        YES,
        "missing",
        "no such row",
    )
    assert answer.body == b"why"
    assert answer.member
    assert far.hear(1) + far.hear(2) == []


def test_an_error_that_does_not_say_whether_it_ran_may_have():
    place = Place()
    member, caller = place.serving(), place.app()
    place.say(caller, request(1))
    place.say(member, error(only(place.hear(member)).id, 999, 0, detail="?"))
    assert failure(place.hear(caller)) == (999, MAYBE)


@pytest.mark.parametrize("answer", [Frame(Kind.DONE, id=2), reply(2)])
def test_an_answer_of_the_wrong_kind_is_the_handlers_fault(answer: Frame):
    place = Place()
    member, caller = place.serving(), place.app()
    place.say(caller, request(1) if answer.kind == Kind.DONE else ask(Kind.TUNNEL, 1))
    place.hear(member)
    place.say(member, answer)
    assert failure(place.hear(caller)) == (Code.HANDLER_FAILED, MAYBE)
    assert place.quiet()


def test_a_second_answer_is_ignored():
    place = Place()
    member, caller = place.serving(), place.app()
    place.say(caller, request(1))
    id = only(place.hear(member)).id
    place.say(member, reply(id), reply(id), error(id, Code.REJECTED, YES))
    assert kinds(place.hear(caller)) == ["REPLY"]
    assert place.outstanding(member) == [0]
    assert place.counters["dropped.no-such-call"] == 2


# -- those who asked go away


def test_a_caller_that_vanishes_takes_its_calls_along():
    near, far = pair()
    member, caller = far.serving(concurrency=1), near.app()
    pump(near, far)
    near.say(caller, request(1), request(3))
    pump(near, far)
    id = only(far.hear(member)).id
    near.gone(caller)
    pump(near, far)
    assert only(far.hear(member)) == Frame(Kind.CANCEL, id=id)
    far.say(member, reply(id))
    pump(near, far)
    assert near.quiet()
    assert far.quiet()
    assert near.node.next_deadline() is None


def test_a_link_that_breaks_cancels_what_came_over_it():
    near, far = pair()
    member, caller = far.serving(), near.app()
    pump(near, far)
    near.say(caller, request(1))
    pump(near, far)
    id = only(far.hear(member)).id
    cut(near, far)
    assert only(far.hear(member)) == Frame(Kind.CANCEL, id=id)
    far.say(member, reply(id))
    assert far.quiet()
