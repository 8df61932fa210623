from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from irisd.model import Code, Frame, KiB, Kind, MiB
from irisd.node.tunnels import DATA_COST, LONGEST_DATA, MAX_DATA, MAX_WINDOW
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
)


def credit(id: int, count: int) -> Frame:
    return Frame(Kind.CREDIT, id=id, count=count)


def data(id: int, body: bytes = b"data", **fields: Any) -> Frame:
    return Frame(Kind.DATA, id=id, body=body, **fields)


def finish(id: int) -> Frame:
    return Frame(Kind.FINISH, id=id)


class Line:
    """An open tunnel between two nodes, both windows granted."""

    def __init__(self, window: int = 64 * KiB) -> None:
        self.near, self.far = pair()
        self.member, self.caller = self.far.serving(), self.near.app("cli")
        self.near.say(self.caller, ask(Kind.TUNNEL, 1, body=b"hello", method="m"))
        self.pump()
        came = only(self.far.hear(self.member))
        assert (came.kind, came.body, came.method) == (Kind.TUNNEL, b"hello", "m")
        self.id = came.id
        self.far.say(self.member, credit(self.id, window))
        self.pump()
        assert self.near.hear(self.caller) == [credit(1, window)]
        self.near.say(self.caller, credit(1, window))
        self.pump()
        assert self.far.hear(self.member) == [credit(self.id, window)]

    def pump(self) -> None:
        pump(self.near, self.far)

    def over(self) -> bool:
        return (
            self.near.quiet() and self.far.quiet() and self.near.node._tunnels.open == self.far.node._tunnels.open == 0
        )


def test_a_tunnel_from_beginning_to_end():
    line = Line()
    line.near.say(line.caller, data(1, b"a"), data(1, b"b", more=True), data(1, b"c"), finish(1))
    line.far.say(line.member, data(line.id, b"x"))
    line.pump()
    assert line.far.hear(line.member) == [
        data(line.id, b"a"),
        data(line.id, b"b", more=True),
        data(line.id, b"c"),
        finish(line.id),
    ]
    assert line.near.hear(line.caller) == [data(1, b"x")]
    line.far.say(line.member, data(line.id, b"y"), finish(line.id))  # the other direction is still open
    line.pump()
    assert line.near.hear(line.caller) == [data(1, b"y"), finish(1)]
    assert line.over()


def test_a_window_is_bounded():
    line = Line(window=MAX_WINDOW)
    line.far.say(line.member, credit(line.id, 1))
    assert "CREDIT above the window" in only(line.far.detached()).reason
    line.pump()
    assert failure(line.near.hear(line.caller)) == (Code.TUNNEL_BROKEN, YES)
    assert line.over()


def test_credit_without_reading_is_above_the_window():
    """What waits here for an end counts too: granting again and again without reading must not fill memory."""
    line = Line(window=MAX_WINDOW)
    for _ in range(16):
        line.near.say(line.caller, data(1, bytes(60 * KiB)))
    line.pump()
    line.far.say(line.member, credit(line.id, 16 * (60 * KiB + DATA_COST)))
    assert only(line.far.detached()).status == "INVALID_ARGUMENT"


def test_credit_after_reading_is_fine_to_the_last_byte():
    line = Line(window=MAX_WINDOW)
    sent = 16 * [bytes(60 * KiB)]
    line.near.say(line.caller, *[data(1, body) for body in sent], finish(1))
    line.pump()
    for frame in line.far.hear(line.member)[:-1]:
        line.far.say(line.member, credit(line.id, len(frame.body) + DATA_COST))  # the other end has finished: moot
    line.far.say(line.member, credit(line.id, MAX_WINDOW))
    assert line.far.detached() == []
    line.far.say(line.member, finish(line.id))
    line.pump()
    assert line.near.hear(line.caller) == [finish(1)]
    assert line.over()


def test_credits_that_wait_become_one():
    line = Line()
    for _ in range(1000):
        line.near.say(line.caller, credit(1, 10))
    assert line.near.node.core.peers[line.far.id].outbox.urgent_bytes < 1000
    line.pump()
    assert line.far.hear(line.member) == [credit(line.id, 10_000)]
    line.near.say(line.caller, credit(1, 5))
    line.pump()
    assert line.far.hear(line.member) == [credit(line.id, 5)]


@pytest.mark.parametrize(
    ("frames", "rule"),
    [
        ([data(1, bytes(64 * KiB - DATA_COST)), data(1, b"")], "beyond the credit"),
        ([data(1, bytes(64 * KiB - DATA_COST + 1))], "beyond the credit"),
        ([data(1, bytes(MAX_DATA + 1))], f"the limit is {MAX_DATA}"),
        ([finish(1), data(1, b"x")], "DATA after FINISH"),
        ([credit(1, MAX_WINDOW)], "above the window"),
        ([credit(1, 2**64 - 1)], "above the window"),
    ],
)
def test_rules(frames: list[Frame], rule: str):
    line = Line()
    line.near.say(line.caller, *frames)
    detach = only(line.near.detached())
    assert (detach.attachment, detach.status) == (line.caller, "INVALID_ARGUMENT")
    assert rule in detach.reason
    line.pump()
    last = line.far.hear(line.member)[-1]
    assert (last.kind, last.code) == (Kind.ERROR, Code.TUNNEL_BROKEN)
    assert line.over()
    assert line.near.hear(line.caller) == []


def several(id: int, *bodies: bytes) -> Frame:
    """A DATA of several messages."""
    sizes = b"".join(len(body).to_bytes(4, "little") for body in bodies)
    return data(id, b"".join(bodies), sizes=sizes)


def takes(id: int, count: int, longest: int) -> Frame:
    return Frame(Kind.CREDIT, id=id, count=count, max_bytes=longest)


def test_several_messages_in_one_go_where_the_other_end_takes_them():
    line = Line(window=1000)
    line.far.say(line.member, takes(line.id, 1000, MAX_WINDOW))
    line.pump()
    assert line.near.hear(line.caller) == [takes(1, 1000, LONGEST_DATA)]  # lowered on the way to what a frame may have
    line.near.say(line.caller, several(1, b"a", b"", b"ccc"))
    line.pump()
    assert line.far.hear(line.member) == [several(line.id, b"a", b"", b"ccc")]
    left = 2000 - 4 - 3 * DATA_COST
    line.near.say(line.caller, several(1, b"", bytes(left - 2 * DATA_COST)))
    assert line.near.detached() == []
    line.near.say(line.caller, data(1, b""))
    assert "beyond the credit" in only(line.near.detached()).reason


def test_the_longest_data_is_no_longer_than_what_a_daemon_takes_from_its_app():
    line = Line()
    core = line.near.node.core
    core.settings = replace(core.settings, max_body=1000)
    line.far.say(line.member, takes(line.id, 10, 5000))
    line.pump()
    assert line.near.hear(line.caller) == [takes(1, 10, 1000)]


def test_one_long_message_where_the_other_end_takes_it():
    line = Line(window=64 * KiB)
    line.far.say(line.member, takes(line.id, 300 * KiB, 200_000))
    line.pump()
    line.near.say(line.caller, data(1, bytes(200_000)))
    line.pump()
    assert line.far.hear(line.member) == [data(line.id, bytes(200_000))]
    line.near.say(line.caller, data(1, bytes(200_001)))
    assert "the limit is 200000" in only(line.near.detached()).reason


def test_a_window_that_shrank_lets_pass_what_was_on_its_way():
    line = Line(window=64 * KiB)
    line.far.say(line.member, takes(line.id, 300 * KiB, 200_000))
    line.pump()
    assert line.near.hear(line.caller) == [takes(1, 300 * KiB, 200_000)]
    line.far.say(line.member, takes(line.id, 0, 1000))
    line.pump()
    assert line.near.hear(line.caller) == [Frame(Kind.CREDIT, id=1, max_bytes=1000)]
    line.near.say(line.caller, data(1, bytes(200_000)))
    assert line.near.detached() == []


@pytest.mark.parametrize("frame", [several(1, b"a", b"b"), data(1, b"ab", more=True, total=2, sizes=b"\2\0\0\0")])
def test_several_messages_nobody_asked_for(frame: Frame):
    line = Line()
    if frame.more:
        line.far.say(line.member, takes(line.id, 0, 1000))
        line.pump()
    line.near.say(line.caller, frame)
    assert "DATA of several messages, which" in only(line.near.detached()).reason


def test_several_messages_are_no_longer_than_the_other_end_takes():
    line = Line()
    line.far.say(line.member, takes(line.id, 0, 1000))
    line.pump()
    line.near.say(line.caller, data(1, bytes(1001)), several(1, bytes(1000), b""))
    assert line.near.detached() == []
    line.near.say(line.caller, several(1, bytes(1000), b"x"))
    assert "the limit is 1000" in only(line.near.detached()).reason


@pytest.mark.parametrize("last", [0, 500, 2000])
def test_of_credits_that_wait_the_last_says_how_long_a_data_may_be(last: int):
    line = Line()
    line.far.say(line.member, takes(line.id, 10, 1000), takes(line.id, 10, last))
    line.pump()
    (came,) = line.near.hear(line.caller)
    assert (came.count, came.max_bytes) == (20, last)


def test_credit_without_reading_counts_every_message_that_waits():
    line = Line(window=MAX_WINDOW)
    line.far.say(line.member, takes(line.id, 0, LONGEST_DATA))
    line.pump()
    many = several(1, *[b""] * (MAX_WINDOW // DATA_COST))
    line.near.say(line.caller, many)
    line.pump()
    line.far.say(line.member, credit(line.id, 1))
    assert only(line.far.detached()).status == "INVALID_ARGUMENT"


def test_exactly_the_credit_may_be_used():
    line = Line(window=1000)
    line.near.say(line.caller, data(1, bytes(500 - DATA_COST)), data(1, bytes(500 - DATA_COST)))
    assert line.near.detached() == []


@pytest.mark.parametrize("frame", [data(1), finish(1), credit(1, 10)])
def test_nothing_may_be_sent_before_the_tunnel_is_accepted(frame: Frame):
    place = Place()
    member, caller = place.serving(), place.app()
    place.say(caller, ask(Kind.TUNNEL, 1), frame)
    assert "before its member has accepted" in only(place.detached()).reason
    assert place.hear(member) == []
    assert place.quiet()


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.FINISH])
def test_a_member_accepts_before_it_speaks(kind: Kind):
    place = Place()
    member, caller = place.serving(), place.app()
    place.say(caller, ask(Kind.TUNNEL, 1))
    place.say(member, Frame(kind, id=only(place.hear(member)).id))
    assert "before its member has accepted" in only(place.detached()).reason
    assert failure(place.hear(caller)) == (Code.MEMBER_LOST, MAYBE)


def test_a_second_finish_is_ignored():
    line = Line()
    line.near.say(line.caller, finish(1), finish(1))
    line.pump()
    assert kinds(line.far.hear(line.member)) == ["FINISH"]


def test_headers_of_data_do_not_travel():
    """Credit counts bodies: whatever else an app writes into a DATA frame must not ride for free."""
    line = Line()
    line.near.say(line.caller, data(1, b"x", detail="y" * 100_000))
    assert line.near.node.core.peers[line.far.id].outbox.bytes < 1000
    line.pump()
    assert line.far.hear(line.member) == [data(line.id, b"x")]


# -- set-up


def test_a_tunnel_refused():
    near, far = pair()
    member, caller = far.serving(), near.app()
    near.say(caller, ask(Kind.TUNNEL, 1))
    pump(near, far)
    no = error(only(far.hear(member)).id, Code.REJECTED, YES, reason="closed", detail="no")
    far.say(member, no)
    pump(near, far)
    answer = only(near.hear(caller))
    assert (answer.code, answer.reason) == (Code.REJECTED, "closed")
    assert near.quiet()
    assert far.quiet()


def test_a_tunnel_nobody_accepts_in_time():
    near, far = pair()
    member, caller = far.serving(), near.app()
    near.say(caller, ask(Kind.TUNNEL, 1, ms=100))
    pump(near, far)
    id = only(far.hear(member)).id
    near.wait(0.2)
    assert failure(near.hear(caller)) == (Code.DEADLINE_EXCEEDED, MAYBE)
    far.say(member, credit(id, 1000))  # crosses the cancel
    pump(near, far)
    heard = far.hear(member)
    assert heard[-1].kind in (Kind.CANCEL, Kind.ERROR)
    assert near.hear(caller) == []
    assert near.quiet()
    assert far.quiet()


def test_tunnels_take_no_slot():
    place = Place()
    member, caller = place.serving(concurrency=1), place.app()
    place.say(caller, *[ask(Kind.TUNNEL, id) for id in (1, 3, 5)])
    assert len(place.hear(member)) == 3
    assert place.outstanding(member) == [0]


def test_cancelling_an_open_tunnel_ends_it_at_both_ends():
    line = Line()
    line.near.say(line.caller, data(1), Frame(Kind.CANCEL, id=1))
    line.pump()
    assert failure(line.near.hear(line.caller)) == (Code.CANCELLED, YES)
    assert line.far.hear(line.member)[-1].code == Code.TUNNEL_BROKEN
    assert line.over()


# -- broken is never finished


def test_an_abort_reaches_the_other_end_with_its_words():
    line = Line()
    line.far.say(line.member, error(line.id, Code.REJECTED, YES, reason="quota", detail="too much"))
    line.pump()
    answer = only(line.near.hear(line.caller))
    assert (answer.kind, answer.code, answer.reason, answer.detail) == (Kind.ERROR, Code.REJECTED, "quota", "too much")
    assert line.over()


def test_an_error_replaces_what_still_waits():
    line = Line()
    line.near.say(line.caller, data(1), finish(1))
    line.near.say(line.caller, error(1, Code.TUNNEL_BROKEN, YES, detail="changed my mind"))
    line.pump()
    assert kinds(line.far.hear(line.member)) == ["ERROR"]


@pytest.mark.parametrize("who", ["caller", "member", "link"])
def test_whoever_vanishes_the_other_end_sees_an_error(who: str):
    line = Line()
    line.near.say(line.caller, data(1))
    line.far.say(line.member, data(line.id))
    line.pump()
    if who == "caller":
        line.near.gone(line.caller)
    elif who == "member":
        line.far.gone(line.member)
    else:
        cut(line.near, line.far)
    line.pump()
    if who != "caller":
        assert kinds(line.near.hear(line.caller))[-1] == "ERROR"
    if who != "member":
        assert kinds(line.far.hear(line.member))[-1] == "ERROR"
    assert line.over()


def test_a_finish_that_was_lost_with_the_link_is_no_finish():
    """This end has said and heard all; what it said lies in its outbox when the link breaks."""
    line = Line()
    line.far.say(line.member, finish(line.id))
    line.pump()
    line.near.say(line.caller, data(1), finish(1))
    assert kinds(line.near.hear(line.caller)) == ["FINISH"]
    cut(line.near, line.far)
    assert kinds(line.far.hear(line.member)) == ["ERROR"]
    assert line.over()


def test_tunnels_take_turns():
    near, far = pair()
    member, caller = far.serving(), near.app()
    near.say(caller, *[ask(Kind.TUNNEL, id) for id in (1, 3)])
    pump(near, far)
    for frame in far.hear(member):
        far.say(member, credit(frame.id, MiB))
    pump(near, far)
    near.hear(caller)
    body = bytes(60 * KiB)
    near.say(caller, *[data(1, body) for _ in range(15)], *[data(3, body) for _ in range(15)])
    first = [frame.id for frame in near.take(far.id, 10 * 64 * KiB)]
    assert abs(first.count(min(first)) - first.count(max(first))) <= 1


def test_an_app_may_talk_to_itself():
    place = Place()
    app = place.serving()
    place.say(app, ask(Kind.TUNNEL, 3))
    id = only(place.hear(app)).id
    place.say(app, credit(id, 1000), credit(3, 1000))
    assert place.hear(app) == [credit(3, 1000), credit(id, 1000)]
    place.say(app, data(3, b"there"), data(id, b"back"), finish(3), finish(id))
    heard = place.hear(app)
    assert {frame.id: frame.body for frame in heard if frame.kind == Kind.DATA} == {id: b"there", 3: b"back"}
    assert sorted(kinds(heard)) == ["DATA", "DATA", "FINISH", "FINISH"]
    assert place.quiet()


def test_an_app_that_talks_to_itself_may_vanish():
    place = Place()
    app = place.serving()
    place.say(app, ask(Kind.TUNNEL, 3))
    place.say(app, credit(only(place.hear(app)).id, 1000))
    assert place.node._tunnels.open == 1
    place.gone(app)
    assert place.node._tunnels.open == 0


def test_a_member_that_dies_before_it_read_the_tunnel():
    place = Place()
    first = place.serving()
    caller = place.app()
    place.say(caller, ask(Kind.TUNNEL, 1))
    place.gone(first)
    assert failure(place.hear(caller)) == (Code.MEMBER_LOST, NO)


def test_data_behind_a_stalled_link_stays_within_the_window():
    line = Line(window=MAX_WINDOW)
    sent = 0
    while line.near.detached() == []:
        line.near.say(line.caller, data(1, bytes(1000)))
        sent += 1000 + DATA_COST
    assert sent - (1000 + DATA_COST) <= MAX_WINDOW
    assert carry(line.near, line.far) != []
