"""What a bad end of a tunnel can do: nothing its neighbours notice. It is bounded, dropped by name or shown out."""

from __future__ import annotations

import pytest

from irisd.model import Code, Executed, Frame, KiB, Kind, MiB
from irisd.node.tunnels import DATA_COST, MAX_WINDOW
from tests.unit.node.house import YES, ask, error, failure, kinds, only, pump, reply, request
from tests.unit.node.test_tunnels import Line, credit, data, finish


class Beside(Line):
    """A tunnel, and an honest pair of apps on the same two nodes and the same link."""

    def __init__(self, window: int = 64 * KiB) -> None:
        super().__init__(window)
        self.honest_member, self.honest_caller = self.far.serving("honest"), self.near.app("honest")
        self._next = 1

    def neighbours_notice_nothing(self) -> None:
        """A request, and a tunnel both ways, between the honest."""
        id, self._next = self._next, self._next + 4
        near, far, caller, member = self.near, self.far, self.honest_caller, self.honest_member
        near.say(caller, request(id, "honest", body=b"q"), ask(Kind.TUNNEL, id + 2, "honest"))
        self.pump()
        asked, opened = far.hear(member)
        far.say(member, reply(asked.id, b"a"), credit(opened.id, 1000))
        self.pump()
        assert sorted(kinds(near.hear(caller))) == ["CREDIT", "REPLY"]
        near.say(caller, credit(id + 2, 1000), data(id + 2, b"x"), finish(id + 2))
        self.pump()
        far.say(member, finish(opened.id))
        self.pump()
        assert kinds(far.hear(member)) == ["CREDIT", "DATA", "FINISH"]
        assert kinds(near.hear(caller)) == ["FINISH"]
        assert not near.unlinked() and not far.unlinked()


def test_credit_beyond_the_window_ends_that_app_alone():
    line = Beside(window=MAX_WINDOW)
    line.far.say(line.member, credit(line.id, 1))
    assert "CREDIT above the window" in only(line.far.detached()).reason
    line.pump()
    assert failure(line.near.hear(line.caller)) == (Code.TUNNEL_BROKEN, YES)
    assert line.far.counters["dropped.tunnel-violation"] == 1
    line.neighbours_notice_nothing()
    assert line.over()


@pytest.mark.parametrize("count", [2**63, 2**64 - 1])
def test_credit_beyond_all_numbers(count: int):
    line = Beside()
    line.near.say(line.caller, credit(1, count))
    assert "CREDIT above the window" in only(line.near.detached()).reason
    line.pump()
    line.far.hear(line.member)
    line.neighbours_notice_nothing()
    assert line.over()


def test_credit_never_granted_holds_nothing():
    """A member that accepts with nothing and never grants more: the opener can send nothing, and nothing is kept."""
    line = Beside()
    line.near.say(line.caller, ask(Kind.TUNNEL, 3))
    line.pump()
    id = only(line.far.hear(line.member)).id
    line.far.say(line.member, credit(id, 0))
    line.pump()
    assert kinds(line.near.hear(line.caller)) == ["CREDIT"]
    line.near.wait(3600)
    line.far.wait(3600)
    assert line.near.node._tunnels.open == 2, "as long as both are there, it is theirs"
    line.neighbours_notice_nothing()
    line.near.say(line.caller, data(3, b""))
    assert "beyond the credit" in only(line.near.detached()).reason
    line.pump()
    assert {frame.id for frame in line.far.hear(line.member) if frame.kind == Kind.ERROR} == {id, line.id}
    line.neighbours_notice_nothing()
    assert line.over()


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.FINISH, Kind.CREDIT, Kind.ERROR, Kind.REPLY])
def test_frames_for_tunnels_that_never_were_are_dropped_by_name(kind: Kind):
    line = Beside()
    frames = [Frame(kind, id=id, body=bytes(1000), count=5) for id in (2, 3, 9, 2**40, 2**40 + 1) if id != line.id]
    line.near.say(line.caller, *frames)
    line.far.say(line.member, *frames)
    line.far.from_peer(line.near, *[frame.copy(id=frame.id + 100) for frame in frames])
    assert not line.near.detached() and not line.far.detached()
    assert line.near.counters["dropped.no-such-call"] == len(frames)
    assert line.far.counters["dropped.no-such-call"] == 2 * len(frames)
    line.pump()
    assert line.near.hear(line.caller) == [] and line.far.hear(line.member) == []
    line.neighbours_notice_nothing()


def test_a_member_that_accepts_and_answers_too_is_heard_once():
    line = Beside()
    line.far.say(line.member, reply(line.id, b"?"), Frame(Kind.DONE, id=line.id), reply(line.id, b"?"))
    line.pump()
    assert line.near.hear(line.caller) == [], "an answer is no frame of a tunnel"
    line.near.say(line.caller, data(1, b"still open"))
    line.pump()
    assert line.far.hear(line.member) == [data(line.id, b"still open")]
    line.neighbours_notice_nothing()


def test_a_member_that_refuses_twice():
    line = Beside()
    refusal = error(line.id, Code.REJECTED, YES, reason="no", detail="no")
    line.far.say(line.member, refusal, refusal.copy(), finish(line.id))
    line.pump()
    assert failure(line.near.hear(line.caller)) == (Code.REJECTED, YES)
    assert line.far.counters["dropped.no-such-call"] == 2
    line.neighbours_notice_nothing()
    assert line.over()


def test_replies_to_requests_never_made():
    line = Beside()
    for id in (0, 1, 2, 7, 2**63):
        line.far.say(line.member, reply(id, b"unasked"), error(id, Code.REJECTED, YES, detail="x"))
    assert not line.far.detached()
    line.pump()
    assert [frame for frame in line.near.hear(line.caller) if frame.kind == Kind.REPLY] == []
    line.neighbours_notice_nothing()


def test_a_member_that_answers_a_request_twice():
    line = Beside()
    line.near.say(line.caller, request(3))
    line.pump()
    id = only(line.far.hear(line.member)).id
    line.far.say(
        line.member, reply(id, b"first"), reply(id, b"second"), error(id, Code.HANDLER_FAILED, YES, detail="x")
    )
    line.pump()
    assert [frame.body for frame in line.near.hear(line.caller)] == [b"first"]
    assert line.far.counters["dropped.no-such-call"] == 2
    assert line.far.outstanding(line.member) == [0]
    line.neighbours_notice_nothing()


def test_a_peer_that_sends_beyond_the_credit_loses_its_link_and_both_apps_are_told():
    line = Line()
    id = only(list(line.far.node.core.peers[line.near.id].opened))
    line.far.from_peer(line.near, *[data(id, bytes(60 * KiB)) for _ in range(2)])
    assert "beyond the credit" in only(line.far.unlinked()).reason
    told = [frame for frame in line.far.hear(line.member) if frame.kind == Kind.ERROR]
    assert (only(told).code, told[0].executed) == (Code.TUNNEL_BROKEN, Executed.YES)
    assert line.far.node._tunnels.open == 0


def test_a_flood_of_empty_messages_is_bounded_by_what_a_frame_costs():
    line = Beside(window=MAX_WINDOW)
    most = MAX_WINDOW // DATA_COST
    line.near.say(line.caller, *[data(1, b"") for _ in range(most)])
    assert not line.near.detached()
    assert line.near.node.core.peers[line.far.id].outbox.bytes < 8 * MiB
    line.near.say(line.caller, data(1, b""))
    assert "beyond the credit" in only(line.near.detached()).reason
    line.pump()
    line.far.hear(line.member)
    line.neighbours_notice_nothing()
    assert line.over()


def test_five_thousand_opened_and_half_cancelled_while_they_open_leave_nothing():
    line = Beside()
    ids = range(3, 10_003, 2)
    for id in ids:
        line.near.say(line.caller, ask(Kind.TUNNEL, id, ms=60_000))
        if id % 4 == 1:
            if id % 80 == 1:
                pump(line.near, line.far)  # it is there already, or on its way
            line.near.say(line.caller, Frame(Kind.CANCEL, id=id))
    line.pump()
    came = line.far.hear(line.member)
    for frame in came:
        if frame.kind == Kind.TUNNEL:
            line.far.say(line.member, credit(frame.id, 1000))
    line.pump()
    assert not line.far.detached() and not line.near.detached()
    for frame in came:
        if frame.kind == Kind.CANCEL:
            line.far.say(line.member, error(frame.id, Code.CANCELLED, YES))
    open_now = line.near.node._tunnels.open
    assert open_now == 1 + len([id for id in ids if id % 4 == 3])
    for id in ids:
        line.near.say(line.caller, finish(id))
    line.pump()
    for frame in line.far.hear(line.member):
        if frame.kind == Kind.FINISH:
            line.far.say(line.member, finish(frame.id))
    line.near.say(line.caller, finish(1))
    line.far.say(line.member, finish(line.id))
    line.pump()
    line.near.hear(line.caller)
    line.far.hear(line.member)
    line.neighbours_notice_nothing()
    assert line.over()
    assert len(line.near.node.core.timers) == len(line.far.node.core.timers) == 0
