from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from irisd.model import Code, Frame, KiB, Kind, MiB, Pattern
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
    request,
)

# -- the plain way


def test_a_request_and_its_reply_on_one_node():
    place = Place()
    member, caller = place.serving(), place.app("cli")
    place.say(caller, request(3, method="get", content_type="text", headers=(b"\x0a\x01k",), body=b"q"))
    came = only(place.hear(member))
    assert (came.kind, came.id, came.address, came.method, came.body) == (Kind.REQUEST, 2, "db", "get", b"q")
    assert (came.content_type, came.headers, came.remaining_ms) == ("text", (b"\x0a\x01k",), 1000)
    assert came.member.startswith("cli@n1/")
    place.say(member, reply(2, b"a"))
    answer = only(place.hear(caller))
    assert (answer.kind, answer.id, answer.body) == (Kind.REPLY, 3, b"a")
    assert answer.member.startswith("app@n1/")
    assert place.quiet()


def test_a_request_and_its_reply_across_a_link():
    near, far = pair()
    member, caller = far.serving(), near.app("cli")
    pump(near, far)
    near.say(caller, request(3, body=b"q"))
    pump(near, far)
    came = only(far.hear(member))
    assert (came.body, came.hops) == (b"q", 2)
    assert came.member.startswith("cli@n1/")
    far.say(member, reply(came.id, b"a"))
    pump(near, far)
    answer = only(near.hear(caller))
    assert (answer.id, answer.body) == (3, b"a")
    assert answer.member.startswith("app@n2/")
    assert near.quiet()
    assert far.quiet()


@pytest.mark.parametrize("size", [256 * KiB, 256 * KiB + 1, MiB, 8 * MiB])
def test_large_bodies_go_through_in_parts(size: int):
    near, far = pair()
    member, caller = far.serving(), near.app()
    pump(near, far)
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    parts = [body[at : at + 256 * KiB] for at in range(0, size, 256 * KiB)]
    first = request(1, body=parts[0])
    if len(parts) > 1:
        first.more, first.total = True, size
    rest = [Frame(Kind.PART, id=1, body=part, more=True) for part in parts[1:]]
    if rest:
        rest[-1].more = False
    near.say(caller, first, *rest)
    pump(near, far)
    came = far.hear(member)
    assert b"".join(frame.body for frame in came) == body
    assert all(len(frame.body) <= 256 * KiB for frame in came)
    assert (came[0].total if len(parts) > 1 else len(came[0].body)) == size
    assert far.node.core.peers[near.id].assembler._held == 0


def test_apps_do_not_set_what_daemons_set():
    place = Place()
    member, caller = place.serving(), place.app()
    place.say(caller, request(1, hops=2**32 - 1, member="somebody else"))
    came = only(place.hear(member))
    assert came.hops == 1
    assert "somebody" not in came.member


# -- nobody there


def test_no_member_at_once():
    place = Place()
    caller = place.app()
    for kind in (Kind.REQUEST, Kind.PUSH, Kind.TUNNEL, Kind.BROADCAST, Kind.SURVEY):
        place.say(caller, ask(kind, 1))
        assert failure(place.hear(caller)) == (Code.NO_MEMBER, NO)
    assert place.quiet()
    assert place.node.next_deadline() is None


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.PUSH, Kind.TUNNEL, Kind.BROADCAST, Kind.SURVEY])
def test_members_that_handle_other_patterns(kind: Kind):
    near, far = pair()
    far.serving(patterns=31 & ~Pattern[kind.name])
    caller = near.app()
    near.say(caller, ask(kind, 1))
    assert failure(near.hear(caller)) == (Code.NOT_SUPPORTED, NO)


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("shop/db", None),
        ("db@paris", None),
        ("shop/db@paris", None),
        ("other/db", Code.NO_MEMBER),
        ("db@rome", Code.NO_MEMBER),
        ("", Code.INVALID),
        ("d b", Code.INVALID),
        ("x" * 201, Code.INVALID),
        ("_iris.x", Code.INVALID),
        ("db/", Code.INVALID),
    ],
)
def test_addresses(address: str, code: Code | None):
    place = Place()
    member, caller = place.serving(), place.app()
    place.say(caller, request(1, address))
    if code is None:
        assert only(place.hear(member)).address == "db"
    else:
        assert failure(place.hear(caller)) == (code, NO)
        assert place.quiet()


def test_every_call_has_a_deadline():
    place = Place()
    place.serving()
    caller = place.app()
    for kind in (Kind.REQUEST, Kind.PUSH, Kind.TUNNEL, Kind.BROADCAST, Kind.SURVEY):
        place.say(caller, ask(kind, 1, ms=0))
        assert failure(place.hear(caller)) == (Code.INVALID, NO)
    assert place.quiet()


# -- the choice


def test_least_outstanding_over_nodes_by_their_members():
    one, two, three = Place(1), Place(2), Place(3)
    for place, other in ((one, two), (one, three), (two, three)):
        link(place, other)
    members = [(two, two.serving(concurrency=100)), (three, three.serving(concurrency=100))]
    members.append((three, three.serving(concurrency=100)))
    pump(one, two, three)
    caller = one.app()
    one.say(caller, *[request(id) for id in range(1, 180, 2)])
    pump(one, two, three)
    shares = Counter({(place.id[0], app): len(place.hear(app)) for place, app in members})
    assert shares == {(2, 1): 30, (3, 1): 30, (3, 2): 30}


def test_full_members_are_passed_over_and_calls_wait_for_a_slot():
    place = Place()
    small, large, caller = place.serving(concurrency=1), place.serving(concurrency=2), place.app()
    place.say(caller, *[request(id) for id in (1, 3, 5, 7, 9)])
    here, there = place.hear(small), place.hear(large)
    assert (len(here), len(there)) == (1, 2)
    assert place.node.under_way == 5
    place.say(large, reply(there[0].id))
    assert len(place.hear(large)) == 1
    place.say(small, error(here[0].id, Code.HANDLER_FAILED, YES))  # an error frees the slot too
    assert len(place.hear(small)) == 1
    assert kinds(place.hear(caller)) == ["REPLY", "ERROR"]


def test_a_new_member_takes_what_waits():
    place = Place()
    place.serving(concurrency=1)
    caller = place.app()
    place.say(caller, request(1), request(3), request(5))
    fresh = place.app()
    place.say(fresh, join(1, concurrency=1))
    assert kinds(place.hear(fresh)) == ["DONE", "REQUEST"]


def test_a_call_no_free_member_handles_does_not_hold_up_another():
    place = Place()
    asks = place.serving(patterns=Pattern.REQUEST, concurrency=1)
    takes = place.serving(patterns=Pattern.PUSH, concurrency=1)
    caller = place.app()
    place.say(caller, request(1), ask(Kind.PUSH, 3), request(5), ask(Kind.PUSH, 7), request(9))
    assert len(place.hear(asks)) == 1
    place.say(takes, Frame(Kind.DONE, id=only(place.hear(takes)).id))
    assert only(place.hear(takes)).kind == Kind.PUSH  # request 5 came before it, and is not for this member


def test_the_oldest_call_is_next_whatever_its_pattern():
    place = Place()
    member, caller = place.serving(concurrency=1), place.app()
    order = [Kind.PUSH, Kind.REQUEST, Kind.REQUEST, Kind.PUSH, Kind.REQUEST]
    place.say(caller, request(1), *[ask(kind, 3 + 2 * n) for n, kind in enumerate(order)])
    came = []
    while frames := place.hear(member):
        came.append(only(frames).kind)
        place.say(member, reply(frames[0].id) if frames[0].kind == Kind.REQUEST else Frame(Kind.DONE, id=frames[0].id))
    assert came == [Kind.REQUEST, *order]
    assert place.outstanding(member) == [0]


# -- full queues


def test_a_full_queue_refuses_and_says_that_it_did_not_run():
    place = Place(request_queue=10_000)
    place.serving(concurrency=1)
    caller = place.app()
    place.say(caller, *[request(id, body=bytes(1000)) for id in range(1, 41, 2)])
    answers = place.hear(caller)
    assert {(frame.code, frame.executed) for frame in answers} == {(Code.OVERLOADED, NO)}
    assert len(answers) == 20 - 1 - 10_000 // (1000 + 256)
    assert place.counters["dropped.request-queue-full"] == len(answers)


def test_a_full_node_is_left_for_another_and_never_forwards():
    one, two, three = Place(1), Place(2, request_queue=1), Place(3, request_queue=1)
    link(one, two)
    link(one, three)
    link(two, three)
    busy, free = two.serving(concurrency=1), three.serving(concurrency=1)
    caller = one.app()
    one.say(caller, *[request(id) for id in range(1, 13, 2)])
    pump(one, two, three)
    # one with each member, one waiting at each node, and the others were refused by both
    assert [len(two.hear(busy)), len(three.hear(free))] == [1, 1]
    assert [frame.code for frame in one.hear(caller)] == [Code.OVERLOADED] * 2
    assert one.counters["calls.retried"] == 2
    assert one.node.under_way == 4


def test_a_full_queue_towards_a_peer_is_overloaded():
    near, far = pair(peer_outbox=10_000)
    far.serving()
    caller = near.app()
    near.say(caller, *[request(id, body=bytes(3000)) for id in (1, 3, 5, 7, 9)])
    assert [(frame.id, frame.code, frame.executed) for frame in near.hear(caller)] == [
        (7, Code.OVERLOADED, NO),
        (9, Code.OVERLOADED, NO),
    ]


def test_headers_count_in_what_waits():
    place = Place(request_queue=100 * KiB)
    place.serving(concurrency=1)
    caller = place.app()
    place.say(caller, *[request(id, detail="x" * 50_000) for id in (1, 3, 5, 7, 9)])
    assert len(place.hear(caller)) == 2


def test_one_app_has_a_bound_of_calls():
    place = Place(max_pending=10)
    place.serving(concurrency=3)
    caller = place.app()
    place.say(caller, *[request(id) for id in range(1, 31, 2)])
    assert {(frame.code, frame.executed) for frame in place.hear(caller)} == {(Code.OVERLOADED, NO)}
    assert len(place.node.core.apps[caller].opened) == 10
    other = place.app()
    place.say(other, request(1))
    assert place.hear(other) == []  # it waits like any other


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
    assert place.node._calls.waiting == 0


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


# -- push


def test_a_push_is_accepted_when_it_is_queued_and_frees_its_slot_when_handled():
    near, far = pair()
    member, caller = far.serving(concurrency=1), near.app()
    pump(near, far)
    near.say(caller, ask(Kind.PUSH, 1, ms=100), ask(Kind.PUSH, 3, ms=100))
    pump(near, far)
    assert kinds(near.hear(caller)) == ["DONE", "DONE"]  # one with the member, one waiting for its slot
    near.wait(10)
    far.wait(10)  # accepted: its deadline was for getting there
    first = only(far.hear(member))
    assert first.remaining_ms == 0
    far.say(member, Frame(Kind.DONE, id=first.id))
    second = only(far.hear(member))
    far.say(member, error(second.id, Code.HANDLER_FAILED, YES))
    pump(near, far)
    assert (near.hear(caller), far.outstanding(member)) == ([], [0])
    assert far.counters["dropped.push-failed"] == 1
    assert near.quiet()
    assert far.quiet()


def test_an_accepted_push_survives_its_caller():
    place = Place()
    member, caller = place.serving(concurrency=1), place.app()
    place.say(caller, ask(Kind.PUSH, 1), ask(Kind.PUSH, 3))
    place.gone(caller)
    place.say(member, Frame(Kind.DONE, id=only(place.hear(member)).id))
    assert only(place.hear(member)).kind == Kind.PUSH


def test_an_accepted_push_whose_member_dies_is_counted_or_given_on():
    place = Place()
    first = place.serving()
    caller = place.app()
    place.say(caller, ask(Kind.PUSH, 1), ask(Kind.PUSH, 3))
    place.take(first, 1)  # one of them has left
    second = place.serving()
    place.gone(first)
    assert kinds(place.hear(caller)) == ["DONE", "DONE"]
    assert kinds(place.hear(second)) == ["PUSH"]  # the other had not
    assert place.counters["dropped.push-lost"] == 1


def test_a_push_nobody_can_take_is_refused_loudly():
    place = Place(request_queue=1)
    place.serving(concurrency=1)
    caller = place.app()
    place.say(caller, ask(Kind.PUSH, 1), ask(Kind.PUSH, 3), ask(Kind.PUSH, 5))
    heard = place.hear(caller)
    assert kinds(heard) == ["DONE", "DONE", "ERROR"]
    assert (heard[-1].code, heard[-1].executed) == (Code.OVERLOADED, NO)


# -- floods


def test_ten_thousand_calls_cancelled_in_the_worst_order():
    place = Place()
    place.serving(concurrency=1)
    caller = place.app()
    count = 10_000
    place.say(caller, *[request(id) for id in range(1, 2 * count, 2)])
    place.say(caller, *[Frame(Kind.CANCEL, id=id) for id in range(2 * count - 1, 0, -2)])
    heard = place.hear(caller)
    assert len(heard) == count
    assert sum(frame.executed == NO for frame in heard) == count  # the member had not read its own yet
    assert place.quiet()


def test_a_loop_of_asking_and_cancelling_behind_a_stalled_link_leaves_nothing():
    near, far = pair()
    far.serving()
    caller = near.app()
    for id in range(1, 4001, 2):
        near.say(caller, request(id, body=bytes(1000)), Frame(Kind.CANCEL, id=id))
    outbox = near.node.core.peers[far.id].outbox
    assert (outbox.bytes, outbox.urgent_bytes) == (0, 0)
    assert near.quiet()
    assert carry(near, far) == []
