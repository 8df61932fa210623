"""Requests that a tunnel carries, and replies that make a tunnel of their request."""

from __future__ import annotations

from typing import Any

import pytest

from irisd.model import Code, Frame, KiB, Kind, MiB, Pattern
from irisd.node.members import IN_A_ROW
from tests.unit.node.house import (
    MAYBE,
    NO,
    YES,
    Place,
    ask,
    cut,
    error,
    failure,
    kinds,
    link,
    only,
    pair,
    pump,
    reply,
    request,
)
from tests.unit.node.test_tunnels import credit, data, finish

LARGE = 40 * MiB


def carrying(id: int, cluster: str = "db", *, total: int = LARGE, **fields: Any) -> Frame:
    return ask(
        Kind.TUNNEL,
        id,
        cluster,
        carries=Kind.REQUEST,
        total=total,
        max_large=fields.pop("max_large", 1 << 30),
        method="put",
        **fields,
    )


def head(id: int, total: int = LARGE, **fields: Any) -> Frame:
    return Frame(Kind.REPLY, id=id, total=total, **fields)


class Line:
    """A request that a tunnel carries between two nodes, accepted."""

    def __init__(self, *, concurrency: int = 1, accept: bool = True, **fields: Any) -> None:
        self.near, self.far = pair()
        self.member = self.far.serving(patterns=Pattern.REQUEST, concurrency=concurrency)
        self.caller = self.near.app("cli")
        self.near.say(self.caller, carrying(1, **fields))
        self.pump()
        self.came = only(self.far.hear(self.member))
        self.id = self.came.id
        if accept:
            self.far.say(self.member, credit(self.id, 64 * KiB))
            self.pump()
            assert self.near.hear(self.caller) == [credit(1, 64 * KiB)]

    def pump(self) -> None:
        pump(self.near, self.far)

    def slots(self) -> tuple[int, int]:
        """Taken at the member's node, and as the caller's node counts."""
        return only(self.far.outstanding(self.member)), self.near.node.calls.places.outstanding("db", self.far.id)

    def over(self) -> bool:
        return self.near.quiet() and self.far.quiet() and not self.near.node._tunnels.open + self.far.node._tunnels.open


class Answering(Line):
    """An ordinary request whose reply is large: the member has made a tunnel of it."""

    def __init__(self, *, concurrency: int = 1) -> None:
        self.near, self.far = pair()
        self.member, self.caller = self.far.serving(concurrency=concurrency), self.near.app("cli")
        self.near.say(self.caller, request(1, max_large=LARGE))
        self.pump()
        self.came = only(self.far.hear(self.member))
        assert self.came.max_large == LARGE
        self.id = self.came.id
        self.far.say(self.member, credit(self.id, 0), head(self.id, content_type="x", headers=(b"\x0a\x01k",)))
        self.pump()
        credited, begun = self.near.hear(self.caller)
        assert credited == Frame(Kind.CREDIT, id=1)
        assert (begun.kind, begun.id, begun.total, begun.content_type) == (Kind.REPLY, 1, LARGE, "x")
        assert begun.headers and begun.member.startswith("app@n2/")


# ------------------------------------------------------------------ routing


def test_it_goes_where_requests_go_and_says_what_they_say():
    line = Line(accept=False)
    came = line.came
    assert (came.kind, came.carries, came.total, came.method) == (Kind.TUNNEL, Kind.REQUEST, LARGE, "put")
    assert came.max_large == 256 * MiB, "lowered to what these nodes allow"
    assert 0 < came.remaining_ms <= 1000
    assert line.near.counters["calls.requests"] == 1
    assert line.near.counters["calls.tunnels"] == 0


def test_a_member_that_handles_only_tunnels_gets_none():
    place = Place()
    place.serving(patterns=Pattern.TUNNEL)
    caller = place.app()
    place.say(caller, carrying(1))
    assert failure(place.hear(caller)) == (Code.NOT_SUPPORTED, NO)


def test_a_member_that_does_not_know_of_them_gets_none():
    place = Place()
    old = place.serving(max_large=0, concurrency=1)
    caller = place.app()
    place.say(caller, carrying(1))
    assert failure(place.hear(caller)) == (Code.NOT_SUPPORTED, NO)
    new = place.serving(concurrency=1)
    place.say(caller, carrying(3), carrying(5), request(7), request(9))
    given = only(place.hear(new))
    assert given.carries == Kind.REQUEST, "the second waits for a slot of the same member"
    first = only(place.hear(old))
    assert first.kind == Kind.REQUEST
    place.say(old, reply(first.id))
    assert only(place.hear(old)).kind == Kind.REQUEST, "it holds up nobody"
    assert not kinds(place.hear(new))


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (carrying(1, total=256 * MiB + 1), Code.TOO_LARGE),
        (ask(Kind.REQUEST, 1, carries=Kind.REQUEST), Code.INVALID),
        (ask(Kind.TUNNEL, 1, carries=Kind.PUSH), Code.INVALID),
        (ask(Kind.TUNNEL, 1, carries=999), Code.INVALID),
    ],
)
def test_what_cannot_be_carried(frame: Frame, code: Code):
    place = Place()
    member, caller = place.serving(), place.app()
    place.say(caller, frame.copy())
    heard = place.hear(caller)
    assert failure(heard) == (code, NO)
    if code == Code.TOO_LARGE:
        assert "268435456" in heard[0].detail
    assert not place.hear(member)
    assert place.quiet()


def test_a_welcome_tells_the_limit():
    place = Place(max_large_body=12 * MiB)
    place._do(place.node.attach(9, Frame(Kind.HELLO), place.now))
    assert only(place.hear(9)).max_large == 12 * MiB


def test_a_node_that_allows_less_says_so_and_the_link_stands():
    near, far = Place(1), Place(2, max_large_body=10 * MiB)
    link(near, far)
    member, caller = far.serving(), near.app()
    near.say(caller, carrying(1), request(3, max_large=1 << 30))
    pump(near, far)
    assert failure(near.hear(caller)) == (Code.TOO_LARGE, NO)
    assert only(far.hear(member)).max_large == 10 * MiB
    assert not near.unlinked() and not far.unlinked()


# -------------------------------------------------------------------- slots


def test_it_takes_a_slot_until_it_has_ended():
    line = Line()
    assert line.slots() == (1, 1)
    line.near.say(line.caller, request(3))
    line.pump()
    assert not line.far.hear(line.member), "the only slot is taken"
    line.near.say(line.caller, data(1, b"body"), finish(1))
    line.pump()
    assert line.far.hear(line.member) == [data(line.id, b"body"), finish(line.id)]
    assert line.slots() == (1, 2)
    line.far.say(line.member, reply(line.id, b"small"))
    line.pump()
    answer = only(line.near.hear(line.caller))
    assert (answer.kind, answer.id, answer.body) == (Kind.REPLY, 1, b"small")
    assert answer.member.startswith("app@n2/")
    after = only(line.far.hear(line.member))
    assert after.kind == Kind.REQUEST
    line.far.say(line.member, reply(after.id))
    line.pump()
    line.near.hear(line.caller)
    assert line.slots() == (0, 0)
    assert line.over()


def test_a_large_reply_to_a_large_request():
    line = Line()
    line.near.say(line.caller, data(1, b"body"), finish(1))
    line.far.say(line.member, head(line.id))
    line.pump()
    assert kinds(line.near.hear(line.caller)) == ["REPLY"]
    line.near.say(line.caller, credit(1, 64 * KiB))
    line.pump()
    line.far.say(line.member, data(line.id, b"answer"), finish(line.id))
    line.pump()
    assert line.near.hear(line.caller) == [data(1, b"answer"), finish(1)]
    assert line.slots() == (0, 0)
    line.far.hear(line.member)
    assert line.over()


def test_a_large_reply_to_a_small_request():
    line = Answering()
    assert line.slots() == (1, 1)
    line.near.say(line.caller, credit(1, 64 * KiB), finish(1))
    line.pump()
    line.far.say(line.member, data(line.id, b"answer"), finish(line.id))
    line.pump()
    assert line.near.hear(line.caller) == [data(1, b"answer"), finish(1)]
    assert line.slots() == (0, 0)
    line.far.hear(line.member)
    assert line.over()


def test_a_caller_that_did_not_say_so_gets_no_tunnel():
    place = Place()
    member, caller = place.serving(), place.app()
    place.say(caller, request(1))
    id = only(place.hear(member)).id
    place.say(member, credit(id, 0), head(id))
    assert not [frame for frame in place.hear(caller) if frame.kind == Kind.CREDIT]
    assert place.node._tunnels.open == 0


# ------------------------------------------------------------------- errors


@pytest.mark.parametrize("make", [Line, Answering])
def test_the_members_error_arrives_whole(make: type[Line]):
    line = make()
    line.far.say(line.member, error(line.id, Code.REJECTED, YES, reason="full", detail="no room", body=b"details"))
    line.pump()
    told = only(line.near.hear(line.caller))
    assert (told.kind, told.code, told.executed, told.reason, told.body) == (
        Kind.ERROR,
        Code.REJECTED,
        YES,
        "full",
        b"details",
    )
    assert line.slots() == (0, 0)
    assert line.over()


@pytest.mark.parametrize("make", [Line, Answering])
@pytest.mark.parametrize("how", [Frame(Kind.CANCEL, id=1), error(1, Code.TUNNEL_BROKEN, YES)])
def test_cancelling_tells_the_member_and_frees_the_slot_when_it_has_stopped(make: type[Line], how: Frame):
    line = make()
    line.near.say(line.caller, how.copy())
    line.pump()
    assert failure(line.near.hear(line.caller)) == (Code.CANCELLED, MAYBE)
    assert kinds(line.far.hear(line.member)) == ["CANCEL"]
    assert line.slots() == (1, 0), "its handler has yet to end"
    line.far.say(line.member, data(line.id, b"crossed"), credit(line.id, 5), finish(line.id))
    line.far.say(line.member, error(line.id, Code.CANCELLED, YES))
    assert not line.far.detached(), "frames that crossed are ordinary"
    line.pump()
    assert line.slots() == (0, 0)
    assert line.over()


@pytest.mark.parametrize("make", [Line, Answering])
def test_a_caller_that_goes_is_a_cancellation(make: type[Line]):
    line = make()
    line.near.gone(line.caller)
    line.pump()
    assert kinds(line.far.hear(line.member)) == ["CANCEL"]
    line.far.say(line.member, error(line.id, Code.CANCELLED, YES))
    line.pump()
    assert line.over()


@pytest.mark.parametrize("make", [Line, Answering])
def test_a_member_that_goes_is_lost(make: type[Line]):
    line = make()
    line.far.gone(line.member)
    line.pump()
    assert failure(line.near.hear(line.caller)) == (Code.MEMBER_LOST, MAYBE)
    assert line.over()


@pytest.mark.parametrize("make", [Line, Answering])
def test_a_broken_link_is_a_lost_member_and_a_cancellation(make: type[Line]):
    line = make()
    cut(line.near, line.far)
    assert failure(line.near.hear(line.caller)) == (Code.MEMBER_LOST, MAYBE)
    assert kinds(line.far.hear(line.member)) == ["CANCEL"]
    line.far.say(line.member, error(line.id, Code.CANCELLED, YES))
    assert line.over()


def test_before_it_is_accepted_it_cannot_have_run_and_is_tried_elsewhere():
    line = Line(accept=False)
    third = Place(3)
    link(line.near, third)
    other = third.serving(patterns=Pattern.REQUEST)
    cut(line.near, line.far)
    pump(line.near, third)
    assert not line.near.hear(line.caller)
    assert only(third.hear(other)).carries == Kind.REQUEST
    assert kinds(line.far.hear(line.member)) == ["CANCEL"]


def test_before_it_is_accepted_its_deadline_is_the_nodes_matter():
    line = Line(accept=False)
    line.near.wait(1.5)
    line.pump()
    assert failure(line.near.hear(line.caller)) == (Code.DEADLINE_EXCEEDED, NO)
    assert kinds(line.far.hear(line.member)) == ["CANCEL"]
    line.far.say(line.member, credit(line.id, 9), data(line.id, b"x"))
    line.far.say(line.member, error(line.id, Code.CANCELLED, NO))
    line.far.wait(1.5)
    line.pump()
    assert not line.far.detached()
    assert line.slots() == (0, 0)
    assert line.over()


def test_both_ends_in_one_app():
    place = Place()
    app = place.serving()
    place.say(app, carrying(3))
    id = only(place.hear(app)).id
    place.say(app, credit(id, 64 * KiB), data(3, b"x"))
    assert sorted(kinds(place.hear(app))) == ["CREDIT", "DATA"]
    place.gone(app)
    assert place.quiet() and place.node._tunnels.open == 0


# ------------------------------------------------------------ what is wrong


def test_a_member_that_answers_twice_is_detached_and_the_caller_told():
    line = Answering()
    line.far.say(line.member, head(line.id))
    assert "a second REPLY" in only(line.far.detached()).reason
    line.pump()
    assert failure(line.near.hear(line.caller)) == (Code.MEMBER_LOST, MAYBE)
    assert line.over()


def test_an_answer_after_the_answer_is_ordinary():
    line = Line()
    line.far.say(line.member, reply(line.id), reply(line.id), head(line.id), data(line.id))
    line.pump()
    assert kinds(line.near.hear(line.caller)) == ["REPLY"]
    assert not line.far.detached()
    assert line.far.counters["dropped.no-such-call"] == 3


@pytest.mark.parametrize("kind", [Kind.REPLY, Kind.DONE])
def test_a_caller_cannot_answer_itself(kind: Kind):
    line = Line()
    line.near.say(line.caller, Frame(kind, id=1, total=5))
    line.pump()
    assert not [frame for frame in line.near.hear(line.caller) if frame.kind == Kind.REPLY]
    assert not line.far.hear(line.member)


def test_data_beyond_the_credit():
    line = Line()
    line.near.say(line.caller, *[data(1, bytes(32 * KiB)) for _ in range(3)])
    assert "beyond the credit" in only(line.near.detached()).reason
    line.pump()
    assert [kind for kind in kinds(line.far.hear(line.member)) if kind != "DATA"] in (["CANCEL"], ["ERROR"])


def test_one_whose_caller_takes_no_large_reply_has_a_slot_and_is_cancelled_like_any_other():
    line = Line(max_large=0)
    assert line.slots() == (1, 1)
    line.near.say(line.caller, Frame(Kind.CANCEL, id=1))
    line.pump()
    assert failure(line.near.hear(line.caller)) == (Code.CANCELLED, MAYBE)
    assert kinds(line.far.hear(line.member)) == ["CANCEL"]
    line.far.say(line.member, error(line.id, Code.CANCELLED, YES, detail="stopped"))
    line.pump()
    assert line.over()


def test_a_member_that_fails_at_them_is_ejected():
    near, far = pair()
    near.serving(patterns=Pattern.REQUEST, max_large=0)
    member, caller = far.serving(patterns=Pattern.REQUEST), near.app("cli")
    for turn in range(IN_A_ROW):
        near.say(caller, carrying(2 * turn + 1))
        pump(near, far)
        (came,) = far.hear(member)
        far.say(member, credit(came.id, 64 * KiB), error(came.id, Code.HANDLER_FAILED, YES, detail="no"))
        pump(near, far)
        assert only(near.hear(caller)[-1:]).code == Code.HANDLER_FAILED
    assert only(list(far.node.calls.members.of("db"))).out
