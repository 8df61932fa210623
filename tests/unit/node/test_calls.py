from __future__ import annotations

from collections import Counter

import pytest

from irisd.model import Code, Frame, KiB, Kind, MiB, Pattern
from tests.unit.node.house import (
    NO,
    YES,
    Place,
    ask,
    carry,
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
