"""The session, frame by frame: what an app says, what it hears, and what outlives a stream."""

from __future__ import annotations

import math
from typing import Any

import pytest

from iris_client import (
    DeadlineExceeded,
    Detached,
    Executed,
    HandlerFailed,
    InvalidCall,
    NoMember,
    Overloaded,
    Rejected,
    TunnelBroken,
    _calls,
)
from iris_client._calls import SURVEY_GRACE, Standing, SurveyCall, Unary
from iris_client._deliveries import Delivery
from iris_client._eventqueue import EventQueue, SubscribeCall
from iris_client._frames import Code, Kind, ProtocolError, make
from iris_client._model import CALL_BUFFER_BYTES, PART_BYTES
from iris_client._requestcall import RequestCall
from iris_client._tunnelcall import TunnelCall
from iris_client._tunnelflow import FIRST_WINDOW
from tests.unit.client.ground import Daemon, MiB, Promise, batch


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def request(daemon: Daemon, body: bytes = b"", timeout: float = 5.0) -> Unary:
    header = make(kind=Kind.REQUEST, address="databases")
    call = Unary(header, body, daemon.now + timeout, "request to 'databases'", Promise())
    daemon.session.open(call, daemon.now)
    return call


def promise_of(call: Any) -> Promise:
    assert isinstance(call.promise, Promise)
    return call.promise


# ------------------------------------------------------------------- streams


def test_hello_comes_first_and_nothing_else_before_welcome():
    daemon = Daemon(attached=False)
    call = request(daemon)
    daemon.session.lane_up()
    [(hello, _)] = daemon.take()
    assert (hello.kind, hello.address, hello.member, hello.version) == (Kind.HELLO, "shop", "app", "0.0")
    assert not daemon.session.attached
    daemon.say(kind=Kind.WELCOME, max_bytes=1234, node="abcd", version="9.9")
    assert daemon.session.attached
    assert (daemon.session.limits.max_body, daemon.session.limits.node) == (1234, "abcd")
    assert daemon.take_one()[0].id == call.id == 1


def test_an_app_that_can_move_says_so_and_keeps_the_ticket_to_itself():
    daemon = Daemon(attached=False)
    daemon.session.user = "1000"
    daemon.session.lane_up()
    [(hello, _)] = daemon.take()
    assert (hello.lanes, hello.group) == (3, "1000")
    daemon.say(kind=Kind.WELCOME, lane="/run/irisd/irisd.lane", ticket=b"0123456789abcdef")
    limits = daemon.session.limits
    assert (limits.lane, limits.ticket) == ("/run/irisd/irisd.lane", b"0123456789abcdef")
    assert "0123456789abcdef" not in repr(limits)


def test_one_that_cannot_says_nothing_of_it():
    daemon = Daemon(attached=False)
    daemon.session.lane_up()
    [(hello, _)] = daemon.take()
    assert (hello.lanes, hello.group) == (0, "")


def test_what_the_daemon_says_of_a_lane_is_told_to_whoever_moves(daemon: Daemon):
    told: list[tuple[int, str, str]] = []
    daemon.session.on_lane = lambda kind, header: told.append((kind, header.reason, header.detail))
    daemon.say(kind=Kind.MOVE)
    daemon.say(kind=Kind.PING)
    daemon.say(kind=Kind.END, reason="UNAVAILABLE", detail="the daemon is shutting down")
    assert told == [(29, "", ""), (30, "", ""), (31, "UNAVAILABLE", "the daemon is shutting down")]


def test_a_sign_of_life_is_asked_for(daemon: Daemon):
    daemon.session.ping()
    [(asked, _)] = daemon.take()
    assert (asked.kind, asked.id) == (Kind.PING, 0)


@pytest.mark.parametrize("kind", [Kind.WELCOME, Kind.DONE, Kind.REPLY, Kind.MOVE, Kind.PING, Kind.END, 77])
def test_frames_without_an_id_must_be_about_the_stream(daemon: Daemon, kind: int):
    with pytest.raises(ProtocolError, match="without an id"):
        daemon.say(kind=kind)


def test_goodbye_holds_new_calls_for_the_next_stream(daemon: Daemon):
    reasons: list[str] = []
    daemon.session.on_goodbye = reasons.append
    before = request(daemon)
    daemon.take()
    daemon.say(kind=Kind.GOODBYE, reason="upgrade")
    assert reasons == ["upgrade"]
    after = request(daemon)
    assert daemon.take() == []
    daemon.say(b"still", kind=Kind.REPLY, id=before.id)
    assert promise_of(before).result[1] == b"still"
    daemon.session.lane_down("gone")
    assert not promise_of(after).ended
    daemon.attach()
    assert daemon.take_one()[0].id == after.id


def test_goodbye_is_answered_and_what_was_not_written_goes_to_the_next_stream(daemon: Daemon):
    small, large = request(daemon), request(daemon, b"x" * (2 * PART_BYTES))
    daemon.say(kind=Kind.GOODBYE, reason="upgrade", count=1)
    daemon.say(kind=Kind.GOODBYE, reason="upgrade", count=1)
    assert [(header.kind, header.id) for header, _ in daemon.take()] == [(Kind.GOODBYE, 0)]
    daemon.session.lane_down("gone")
    daemon.attach()
    assert [(header.kind, header.id) for header, _ in daemon.take()] == [
        (Kind.REQUEST, small.id),
        (Kind.REQUEST, large.id),
        (Kind.PART, large.id),
    ]


def test_goodbye_is_answered_once_what_was_published_is_written(daemon: Daemon):
    publishing = daemon.session.publishing
    assert publishing.add_checked("t", b"before", None)
    daemon.say(kind=Kind.GOODBYE, count=1)
    assert publishing.add_checked("t", b"after", None)
    frames = daemon.take()
    assert [header.kind for header, _ in frames] == [Kind.PUBLISH, Kind.FLUSH, Kind.GOODBYE]
    assert frames[0][1] == b"before"
    daemon.say(kind=Kind.DONE, id=frames[1][0].id)
    assert daemon.session.lane_down("gone") == 0  # all that was written is known to have been routed
    daemon.attach()
    assert [body for _, body in daemon.take()] == [b"after"]


def test_a_goodbye_that_asks_for_no_answer_gets_none(daemon: Daemon):
    daemon.say(kind=Kind.GOODBYE)
    assert daemon.take() == []


# --------------------------------------------------------------------- calls


def test_a_request_and_its_reply(daemon: Daemon):
    call = request(daemon, b"body", timeout=2.5)
    header, body = daemon.take_one()
    assert (header.kind, header.id, header.address, header.remaining_ms, body) == (
        Kind.REQUEST, 1, "databases", 2500, b"body",
    )  # fmt: skip
    daemon.say(b"answer", kind=Kind.REPLY, id=1, member="m", headers={"a": "b"})
    answer, data = promise_of(call).result
    assert (answer.member, dict(answer.headers), data) == ("m", {"a": "b"}, b"answer")
    assert daemon.session.idle
    daemon.say(b"again", kind=Kind.REPLY, id=1)  # over: ordinary, ignored


def test_time_spent_waiting_is_subtracted(daemon: Daemon):
    request(daemon, timeout=2.5)
    daemon.now += 1.0
    assert daemon.take_one()[0].remaining_ms == 1500


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.NO_MEMBER, NoMember),
        (Code.HANDLER_FAILED, HandlerFailed),
        (Code.REJECTED, Rejected),
        (Code.INVALID, InvalidCall),
    ],
)
def test_errors_are_typed(daemon: Daemon, code: Code, error: type):
    call = request(daemon)
    daemon.take()
    daemon.say(kind=Kind.ERROR, id=call.id, code=code, detail="because")
    assert type(promise_of(call).error) is error
    assert "request to 'databases': because" in str(promise_of(call).error)


def test_a_frame_that_cannot_be_an_answer(daemon: Daemon):
    call = request(daemon)
    daemon.take()
    with pytest.raises(ProtocolError, match="unexpected frame kind 17 for request"):
        daemon.say(kind=Kind.EVENT, id=call.id)


def test_a_large_body_goes_and_comes_in_parts(daemon: Daemon):
    body = bytes(range(256)) * 4096
    call = request(daemon, body)
    frames = daemon.take(limit=1)
    assert [int(h.kind) for h, _ in frames] == [Kind.REQUEST, Kind.PART, Kind.PART, Kind.PART]
    assert frames[0][0].remaining_ms == 5000
    assert b"".join(b for _, b in frames) == body
    third = len(body) // 3
    daemon.say(body[:third], kind=Kind.REPLY, id=call.id, member="m", more=True, total=len(body))
    daemon.say(body[third : 2 * third], kind=Kind.PART, id=call.id, more=True)
    assert not promise_of(call).ended
    daemon.say(body[2 * third :], kind=Kind.PART, id=call.id)
    answer, data = promise_of(call).result
    assert (answer.member, data) == ("m", body)


def test_parts_of_an_answer_nobody_waits_for_are_not_kept(daemon: Daemon):
    daemon.say(b"x", kind=Kind.REPLY, id=7, more=True, total=1000)
    call = request(daemon)
    daemon.take()
    daemon.say(b"x", kind=Kind.REPLY, id=call.id, more=True, total=1000)
    daemon.session.cancel(call)
    assert daemon.session._assembly._held == 0
    daemon.say(b"x" * 999, kind=Kind.PART, id=call.id)


def test_deadline_of_a_call_that_was_sent(daemon: Daemon):
    call = request(daemon, timeout=2.0)
    daemon.take()
    assert daemon.timers == [102.0]
    assert daemon.session.next_deadline() == 102.0
    daemon.session.on_deadline(101.9)
    assert not promise_of(call).ended
    daemon.session.on_deadline(102.0)
    error = promise_of(call).error
    assert isinstance(error, DeadlineExceeded)
    assert error.executed is Executed.MAYBE
    assert [(int(h.kind), h.id) for h, _ in daemon.take()] == [(Kind.CANCEL, call.id)]
    assert daemon.session.next_deadline() is None
    assert daemon.session.idle


def test_deadline_of_a_call_that_was_not(daemon: Daemon):
    call = request(daemon, timeout=2.0)
    daemon.session.on_deadline(102.0)
    error = promise_of(call).error
    assert isinstance(error, DeadlineExceeded)
    assert error.executed is Executed.NO
    assert daemon.take() == []


def test_a_deadline_already_passed(daemon: Daemon):
    call = request(daemon, timeout=0.0)
    error = promise_of(call).error
    assert isinstance(error, DeadlineExceeded)
    assert error.executed is Executed.NO
    assert daemon.take() == []


def test_only_the_next_deadline_is_told(daemon: Daemon):
    request(daemon, timeout=5.0)
    request(daemon, timeout=9.0)
    request(daemon, timeout=2.0)
    assert daemon.timers == [105.0, 102.0]


def test_deadlines_of_calls_long_over_are_not_kept(daemon: Daemon):
    for _ in range(20_000):
        call = request(daemon, timeout=600.0)
        daemon.take()
        daemon.say(kind=Kind.REPLY, id=call.id)
    assert len(daemon.session._deadlines._heap) < 3000


def test_cancel(daemon: Daemon):
    sent, unsent = request(daemon), None
    daemon.take()
    unsent = request(daemon)
    daemon.session.cancel(sent)
    daemon.session.cancel(sent)
    daemon.session.cancel(unsent)
    assert [(int(h.kind), h.id) for h, _ in daemon.take()] == [(Kind.CANCEL, sent.id)]
    assert not promise_of(sent).ended
    daemon.say(kind=Kind.ERROR, id=sent.id, code=Code.CANCELLED)
    assert daemon.session.idle


def test_what_waits_in_this_process_is_bounded():
    daemon = Daemon(attached=False)
    body = b"x" * (8 * MiB)
    for _ in range(CALL_BUFFER_BYTES // len(body)):
        request(daemon, body)
    with pytest.raises(Overloaded, match="already wait in this process") as caught:
        request(daemon, body)
    assert caught.value.executed is Executed.NO
    request(daemon)  # without a body it is no burden
    daemon.session.on_deadline(daemon.now + 5)
    assert daemon.session._held.bytes == 0
    request(daemon, body)


def test_the_stream_breaks(daemon: Daemon):
    sent, unsent = request(daemon), None
    daemon.take()
    unsent = request(daemon)
    half = request(daemon, b"x" * (2 * PART_BYTES))
    assert daemon.session.lane_down("the daemon went away") == 0
    for call, executed in ((sent, Executed.MAYBE), (unsent, Executed.NO), (half, Executed.NO)):
        error = promise_of(call).error
        assert isinstance(error, Detached)
        assert error.executed is executed
        assert "the daemon went away" in str(error)
    assert daemon.session.take(MiB, daemon.now) is None


def test_an_idempotent_request_goes_out_again_on_the_next_stream(daemon: Daemon):
    call = request(daemon, body=b"ask")
    call.header.idempotent = True
    ((first, _),) = daemon.take()
    daemon.session.lane_down("the daemon was killed")
    assert not call.over
    daemon.session.lane_up()
    daemon.take()
    daemon.say(kind=Kind.WELCOME)
    ((again, body),) = daemon.take()
    assert (again.kind, body, again.id > first.id) == (Kind.REQUEST, b"ask", True)
    daemon.say(b"told", kind=Kind.REPLY, id=again.id)
    assert promise_of(call).result[1] == b"told"


def test_an_idempotent_request_that_finds_no_stream_in_time_may_have_run(daemon: Daemon):
    call = request(daemon, timeout=5.0)
    call.header.idempotent = True
    daemon.take()
    daemon.session.lane_down("the daemon was killed")
    daemon.now += 6.0
    daemon.session.on_deadline(daemon.now)
    error = promise_of(call).error
    assert isinstance(error, DeadlineExceeded)
    assert error.executed is Executed.MAYBE


def test_a_request_that_was_on_a_stream_that_broke_may_have_run_whatever_becomes_of_it_later(daemon: Daemon):
    late, refused = Promise(), Promise()
    for promise in (late, refused):
        header = make(kind=Kind.REQUEST, address="db", idempotent=True)
        deadline = daemon.now + (5.0 if promise is late else 50.0)
        daemon.session.request(RequestCall(header, b"ask", deadline, "request to 'db'", promise), daemon.now)
    daemon.take()
    daemon.session.lane_down("the daemon was killed")
    daemon.now += 6.0
    daemon.session.on_deadline(daemon.now)
    assert isinstance(late.error, DeadlineExceeded)
    assert late.error.executed is Executed.MAYBE
    daemon.attach()
    ((again, _),) = daemon.take()
    daemon.say(kind=Kind.ERROR, id=again.id, code=Code.NO_MEMBER, executed=1, detail="nobody serves it now")
    assert isinstance(refused.error, NoMember)
    assert refused.error.executed is Executed.MAYBE


def test_calls_made_while_detached_wait_for_the_next_stream(daemon: Daemon):
    daemon.session.lane_down("gone")
    early, late = request(daemon, timeout=1.0), request(daemon, b"body", timeout=5.0)
    daemon.session.lane_up()
    daemon.session.lane_down("refused")  # an attempt that failed changes nothing
    daemon.now += 2.0
    daemon.session.on_deadline(daemon.now)
    error = promise_of(early).error
    assert isinstance(error, DeadlineExceeded)
    assert error.executed is Executed.NO
    daemon.attach()
    header, body = daemon.take_one()
    assert (header.remaining_ms, body) == (3000, b"body")
    daemon.say(kind=Kind.REPLY, id=late.id)
    assert promise_of(late).error is None


def test_ids_go_on_rising_over_streams(daemon: Daemon):
    first = request(daemon)
    daemon.take()
    daemon.session.lane_down("gone")
    daemon.attach()
    second = request(daemon)
    daemon.take()
    assert second.id > first.id


# ------------------------------------------------------------------- surveys


def survey(daemon: Daemon, timeout: float = 1.0) -> SurveyCall:
    call = SurveyCall(make(kind=Kind.SURVEY, address="c"), b"", daemon.now + timeout, "survey", lambda: None)
    daemon.session.open(call, daemon.now)
    return call


def test_survey(daemon: Daemon):
    call = survey(daemon)
    assert daemon.take_one()[0].remaining_ms == 1000
    daemon.say(b"yes", kind=Kind.REPLY, id=call.id, member="a")
    daemon.say(kind=Kind.ERROR, id=call.id, member="b", code=Code.HANDLER_FAILED, detail="oops")
    daemon.say(kind=Kind.ERROR, id=call.id, member="c", code=Code.DEADLINE_EXCEEDED)  # stopped: silent
    daemon.say(kind=Kind.DONE, id=call.id, members=["a", "b", "c"])
    assert [(answer.member, answer.body) for answer in call.answers] == [("a", b"yes"), ("b", b"")]
    assert isinstance(call.answers[1].error, HandlerFailed)
    assert (call.asked, list(call.answered), call.over) == (("a", "b", "c"), ["a", "b"], True)


@pytest.mark.source
def test_answers_nobody_reads_are_bounded(daemon: Daemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_calls, "CALL_BUFFER_BYTES", 100)
    call = survey(daemon)
    daemon.take()
    for member in "abc":
        daemon.say(b"x" * 60, kind=Kind.REPLY, id=call.id, member=member)
    first = call.take()
    assert (first.body, first.error) == (b"x" * 60, None)
    dropped = call.take()
    assert isinstance(dropped.error, Overloaded)
    assert dropped.error.executed is Executed.YES
    call.take()
    daemon.say(b"y" * 90, kind=Kind.REPLY, id=call.id, member="d")
    assert call.take().body == b"y" * 90
    assert list(call.answered) == ["a", "b", "c", "d"]


def test_the_daemon_ends_a_survey_and_gets_a_moment_for_it(daemon: Daemon):
    call = survey(daemon)
    daemon.take()
    daemon.session.on_deadline(101.0)
    assert not call.over
    daemon.say(kind=Kind.DONE, id=call.id, members=["a"])
    assert call.failed is None
    assert call.asked == ("a",)


def test_a_survey_nobody_ends(daemon: Daemon):
    call = survey(daemon)
    daemon.take()
    daemon.session.on_deadline(101.0)
    daemon.session.on_deadline(101.0 + SURVEY_GRACE)
    assert isinstance(call.failed, DeadlineExceeded)
    assert [int(h.kind) for h, _ in daemon.take()] == [Kind.CANCEL]


def test_a_survey_that_was_not_sent_or_failed(daemon: Daemon):
    unsent = survey(daemon)
    daemon.session.on_deadline(101.0)
    assert isinstance(unsent.failed, DeadlineExceeded)
    failed = survey(daemon)
    daemon.take()
    daemon.say(kind=Kind.ERROR, id=failed.id, code=Code.NO_MEMBER)
    assert isinstance(failed.failed, NoMember)


# ----------------------------------------------------- joins, subscriptions


class Member:
    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def takes(self, delivery: Delivery) -> bool:
        return True

    def arriving(self, delivery: Delivery) -> None: ...

    def lost(self, delivery: Delivery) -> None: ...

    def deliver(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)


def join(daemon: Daemon, cluster: str = "databases") -> tuple[Standing, Member, list[Any]]:
    changes: list[Any] = []
    member = Member()
    call = Standing(make(kind=Kind.JOIN, address=cluster, patterns=31, concurrency=4), "joining", changes.append)
    daemon.session.join(call, cluster, member)
    return call, member, changes


def test_join_and_leave(daemon: Daemon):
    call, _, changes = join(daemon)
    header, _ = daemon.take_one()
    assert (header.kind, header.address, header.patterns, header.concurrency) == (Kind.JOIN, "databases", 31, 4)
    daemon.say(kind=Kind.DONE, id=call.id, count=1)
    assert (changes, call.ready, call.established) == ([None], True, True)
    assert daemon.session.idle
    daemon.session.leave(call, Kind.LEAVE, "databases")
    daemon.session.leave(call, Kind.LEAVE, "databases")
    assert [(int(h.kind), h.id) for h, _ in daemon.take()] == [(Kind.LEAVE, call.id)]
    assert not daemon.session.idle
    daemon.say(kind=Kind.DONE, id=call.id)
    assert call.over
    assert daemon.session.idle
    daemon.session.lane_down("gone")
    daemon.attach()
    assert daemon.take() == []


def test_a_join_is_made_anew_on_every_stream(daemon: Daemon):
    call, member, changes = join(daemon)
    daemon.take()
    daemon.say(kind=Kind.DONE, id=call.id, count=0)
    assert not call.ready
    first = call.id
    daemon.session.lane_down("gone")
    assert changes == [None]
    daemon.attach()
    assert daemon.take_one()[0].kind == Kind.JOIN
    assert call.id > first
    daemon.say(kind=Kind.REQUEST, id=2, address="databases", remaining_ms=1000)
    assert len(member.deliveries) == 1


def test_a_join_that_is_refused(daemon: Daemon):
    call, _, changes = join(daemon)
    daemon.take()
    daemon.say(kind=Kind.ERROR, id=call.id, code=Code.INVALID, detail="twice")
    assert isinstance(changes[0], InvalidCall)
    daemon.session.lane_down("gone")
    daemon.attach()
    assert daemon.take() == []


def test_a_join_refused_because_the_daemon_leaves_is_made_on_the_next_stream(daemon: Daemon):
    call, _, changes = join(daemon)
    daemon.take()
    daemon.say(kind=Kind.GOODBYE, count=1)
    daemon.say(kind=Kind.ERROR, id=call.id, code=Code.MEMBER_LOST, executed=1, detail="the daemon is shutting down")
    assert changes == []
    daemon.session.lane_down("gone")
    daemon.attach()
    assert daemon.take_one()[0].kind == Kind.JOIN
    daemon.say(kind=Kind.DONE, id=call.id, count=1)
    assert changes == [None]


def test_a_join_that_a_leaving_daemon_refused_keeps_nobody_waiting_once_it_was_let_go_of(daemon: Daemon):
    call, _, _ = join(daemon)
    daemon.take()
    daemon.say(kind=Kind.ERROR, id=call.id, code=Code.MEMBER_LOST, executed=1, detail="the daemon is shutting down")
    daemon.session.leave(call, Kind.LEAVE, "databases")
    assert call.over
    assert not daemon.take()
    assert daemon.session.idle


@pytest.mark.parametrize("established", [False, True])
def test_what_was_on_its_way_is_taken_until_the_leave_is_confirmed(daemon: Daemon, established: bool):
    call, member, _ = join(daemon)
    daemon.take()
    if established:
        daemon.say(kind=Kind.DONE, id=call.id, count=1)
    daemon.session.leave(call, Kind.LEAVE, "databases")
    daemon.say(kind=Kind.REQUEST, id=2, address="databases", remaining_ms=1000)
    assert len(member.deliveries) == 1
    daemon.say(kind=Kind.DONE, id=call.id)  # one that left before its join was confirmed hears of the leave only
    assert call.over
    daemon.take()
    daemon.say(kind=Kind.REQUEST, id=4, address="databases", remaining_ms=1000)
    assert len(member.deliveries) == 1
    assert (daemon.take_one()[0].code, daemon.session.idle) == (Code.NO_MEMBER, False)


def test_a_member_that_joins_again_before_its_leave_is_confirmed_stays(daemon: Daemon):
    call, _, _ = join(daemon)
    daemon.take()
    daemon.session.leave(call, Kind.LEAVE, "databases")
    _, member, _ = join(daemon)
    daemon.say(kind=Kind.DONE, id=call.id)
    daemon.say(kind=Kind.REQUEST, id=2, address="databases", remaining_ms=1000)
    assert len(member.deliveries) == 1


def test_leaving_what_was_never_sent():
    daemon = Daemon(attached=False)
    call, _, changes = join(daemon)
    daemon.session.leave(call, Kind.LEAVE, "databases")
    assert (call.over, changes) == (True, [None])
    daemon.attach()
    assert daemon.take() == []


def test_leaving_while_the_stream_breaks(daemon: Daemon):
    call, _, changes = join(daemon)
    daemon.take()
    daemon.say(kind=Kind.DONE, id=call.id)
    daemon.session.leave(call, Kind.LEAVE, "databases")
    daemon.session.lane_down("gone")
    assert (call.over, changes) == (True, [None, None])


def test_a_subscription_outlives_its_stream_and_tells_the_gap(daemon: Daemon):
    changes: list[Any] = []
    queue = EventQueue(10_000, drop_oldest=True)
    call = SubscribeCall(make(kind=Kind.SUBSCRIBE, address="t.*"), queue, "subscription", changes.append)
    daemon.session.stand(call)
    daemon.take()
    daemon.say(kind=Kind.DONE, id=call.id, count=1)
    daemon.say(b"ab", kind=Kind.EVENT, id=call.id, address="t.x", sizes=[1, 1])
    daemon.session.lane_down("gone")
    daemon.attach()
    assert daemon.take_one()[0].address == "t.*"
    daemon.say(kind=Kind.DONE, id=call.id)
    daemon.say(b"c", kind=Kind.EVENT, id=call.id, address="t.x")
    events = queue.take() + queue.take()
    assert [(event.body, event.lost) for event in events] == [(b"a", 0), (b"b", 0), (b"c", None)]
    daemon.session.leave(call, Kind.UNSUBSCRIBE)
    daemon.take()
    daemon.say(b"d", kind=Kind.EVENT, id=call.id, address="t.x")
    assert not queue
    daemon.say(kind=Kind.DONE, id=call.id)
    assert call.over


def test_a_large_event_comes_in_parts(daemon: Daemon):
    queue = EventQueue(10_000, drop_oldest=True)
    call = SubscribeCall(make(kind=Kind.SUBSCRIBE, address="t"), queue, "subscription", lambda error: None)
    daemon.session.stand(call)
    daemon.take()
    daemon.say(b"ab", kind=Kind.EVENT, id=call.id, address="t", more=True, total=4)
    daemon.say(b"cd", kind=Kind.PART, id=call.id)
    assert [event.body for event in queue.take()] == [b"abcd"]


# ---------------------------------------------------------------- deliveries


def delivered(daemon: Daemon, kind: Kind = Kind.REQUEST, id: int = 2, **header: Any) -> Delivery:
    _, member, _ = join(daemon)
    daemon.take()
    daemon.say(b"body", kind=kind, id=id, address="shop/databases@eu", remaining_ms=1500, member="caller", **header)
    [delivery] = member.deliveries
    return delivery


def test_a_request_is_delivered_and_answered_once(daemon: Daemon):
    delivery = delivered(daemon, method="get", headers={"a": "b"}, content_type="c")
    request = delivery.request()
    assert (request.body, request.method, request.sender, dict(request.headers)) == (
        b"body",
        "get",
        "caller",
        {"a": "b"},
    )
    assert (request.content_type, request.deadline, delivery.cluster) == ("c", 101.5, "databases")
    delivery.reply(b"answer", {"c": "d"}, "text")
    delivery.reply(b"twice")
    delivery.fail(Code.HANDLER_FAILED, 3, "thrice")
    header, body = daemon.take_one()
    assert (header.kind, header.id, header.content_type, dict(header.headers), body) == (
        Kind.REPLY, 2, "text", {"c": "d"}, b"answer",
    )  # fmt: skip


def test_pushes_and_broadcasts_have_no_deadline_of_their_own(daemon: Daemon):
    push = delivered(daemon, Kind.PUSH)
    assert push.deadline == math.inf
    push.done()
    assert [(int(h.kind), h.id) for h, _ in daemon.take()] == [(Kind.DONE, 2)]
    daemon.say(kind=Kind.BROADCAST, id=4, address="databases", remaining_ms=10)
    daemon.say(kind=Kind.BROADCAST, address="databases", remaining_ms=10)
    assert daemon.session.idle
    assert daemon.take() == []


def test_nothing_goes_back_for_a_broadcast(daemon: Daemon):
    broadcast = delivered(daemon, Kind.BROADCAST)
    broadcast.done()
    broadcast.fail(Code.HANDLER_FAILED, 3)
    assert daemon.take() == []


def test_cancel_and_deadline_reach_the_handler_once(daemon: Daemon):
    delivery = delivered(daemon)
    told: list[bool] = []
    delivery.on_cancel = told.append
    daemon.say(kind=Kind.CANCEL, id=2)
    daemon.say(kind=Kind.CANCEL, id=2)
    daemon.session.on_deadline(200.0)
    assert (told, delivery.cancelled, delivery.late) == ([False], True, False)
    delivery.fail(Code.CANCELLED, 3)
    assert daemon.take_one()[0].code == Code.CANCELLED
    daemon.say(kind=Kind.CANCEL, id=2)


def test_a_deadline_passes(daemon: Daemon):
    delivery = delivered(daemon)
    told: list[bool] = []
    delivery.on_cancel = told.append
    daemon.session.on_deadline(101.5)
    assert (told, delivery.late) == ([True], True)


def test_nobody_serves_that_any_more(daemon: Daemon):
    daemon.say(kind=Kind.REQUEST, id=2, address="gone", remaining_ms=10)
    header, _ = daemon.take_one()
    assert (header.kind, header.code, header.executed) == (Kind.ERROR, Code.NO_MEMBER, 1)


@pytest.mark.parametrize("id", [0, 2])
def test_a_delivery_needs_an_id_of_its_own(daemon: Daemon, id: int):
    delivered(daemon)
    with pytest.raises(ProtocolError, match="cannot be one of the daemon's new ones"):
        daemon.say(kind=Kind.REQUEST, id=id, address="databases", remaining_ms=10)


def test_an_answer_for_a_stream_that_is_gone_goes_nowhere(daemon: Daemon):
    old = delivered(daemon)
    daemon.session.lane_down("gone")
    daemon.attach()
    daemon.take()
    daemon.say(b"new", kind=Kind.REQUEST, id=2, address="databases", remaining_ms=1500)
    old.reply(b"old")
    assert daemon.take() == []
    told: list[bool] = []
    again = Delivery(daemon.session, make(kind=Kind.REQUEST, id=2), b"", "databases", daemon.now)
    again.on_cancel = told.append
    assert not daemon.session.idle  # the new one is still open


def test_parts_of_a_delivery_that_was_cancelled_are_forgotten(daemon: Daemon):
    join(daemon)
    daemon.say(b"x", kind=Kind.REQUEST, id=2, address="databases", remaining_ms=10, more=True, total=100)
    daemon.say(kind=Kind.CANCEL, id=2)
    assert daemon.session._assembly._held == 0


# ------------------------------------------------------------------- tunnels


def tunnel(daemon: Daemon) -> TunnelCall:
    call = TunnelCall(make(kind=Kind.TUNNEL, address="s"), b"path", daemon.now + 2, "tunnel to 's'", Promise())
    daemon.session.tunnel(call, daemon.now)
    return call


def test_a_tunnel_is_opened_by_the_members_first_credit(daemon: Daemon):
    call = tunnel(daemon)
    header, body = daemon.take_one()
    assert (header.kind, header.remaining_ms, body) == (Kind.TUNNEL, 2000, b"path")
    assert not promise_of(call).ended
    daemon.say(kind=Kind.CREDIT, id=call.id, count=1000)
    assert promise_of(call).ended
    assert daemon.take_one()[0].count == FIRST_WINDOW
    daemon.session.on_deadline(daemon.now + 100)  # the deadline was for opening
    assert call.flow is not None
    call.flow.send(b"hello")
    call.flow.finish()
    assert [(int(h.kind), b) for h, b in daemon.take()] == [(Kind.DATA, b"hello"), (Kind.FINISH, b"")]
    daemon.say(b"bye", kind=Kind.DATA, id=call.id)
    daemon.say(kind=Kind.FINISH, id=call.id)
    assert call.flow.receive() == b"bye"
    assert call.over
    assert daemon.session.idle


def test_a_tunnel_not_accepted_in_time_is_cancelled(daemon: Daemon):
    call = tunnel(daemon)
    daemon.take()
    daemon.session.on_deadline(call.deadline)
    assert isinstance(promise_of(call).error, DeadlineExceeded)
    # its member may have accepted this very moment, and would wait for ever
    assert [(int(h.kind), h.id) for h, _ in daemon.take()] == [(Kind.CANCEL, call.id)]
    daemon.say(kind=Kind.CREDIT, id=call.id, count=1000)
    assert daemon.session.idle


def test_nothing_comes_before_a_tunnel_is_accepted(daemon: Daemon):
    call = tunnel(daemon)
    daemon.take()
    with pytest.raises(ProtocolError, match="before its member accepted it"):
        daemon.say(b"early", kind=Kind.DATA, id=call.id)
    daemon.session.lane_down("broke the protocol")
    assert isinstance(promise_of(call).error, Detached)


def test_a_tunnel_that_is_refused(daemon: Daemon):
    call = tunnel(daemon)
    daemon.take()
    daemon.say(kind=Kind.ERROR, id=call.id, code=Code.REJECTED, reason="missing", detail="no such file")
    error = promise_of(call).error
    assert isinstance(error, Rejected)
    assert error.code == "missing"
    assert daemon.session.idle


@pytest.mark.parametrize("how", ["error", "stream"])
def test_a_tunnel_that_breaks_is_broken_whatever_broke_it(daemon: Daemon, how: str):
    call = tunnel(daemon)
    daemon.take()
    daemon.say(kind=Kind.CREDIT, id=call.id, count=1000)
    if how == "error":
        daemon.say(kind=Kind.ERROR, id=call.id, code=Code.HANDLER_FAILED, detail="KeyError")
    else:
        daemon.session.lane_down("the daemon went away")
    assert call.flow is not None
    assert isinstance(call.flow.broken, TunnelBroken)
    assert "KeyError" in str(call.flow.broken) or "went away" in str(call.flow.broken)
    assert promise_of(call).error is None
    daemon.take()
    assert daemon.session.idle


def test_tunnels_do_not_take_more_memory_than_they_may(daemon: Daemon):
    for _ in range(128 + 512):
        tunnel(daemon)
    with pytest.raises(Overloaded, match="all the memory they may"):
        tunnel(daemon)
    join(daemon)
    daemon.take()
    daemon.say(kind=Kind.TUNNEL, id=2, address="databases", remaining_ms=100)
    assert daemon.take_one()[0].code == Code.OVERLOADED
    daemon.session.lane_down("gone")
    tunnel(daemon)


def test_a_tunnel_is_delivered(daemon: Daemon):
    delivery = delivered(daemon, Kind.TUNNEL)
    flow = delivery.flow
    assert flow is not None
    assert daemon.take() == []  # accepted when its handler uses it
    flow.accept()
    assert daemon.take_one()[0].count == FIRST_WINDOW
    daemon.say(b"x", kind=Kind.DATA, id=2)
    daemon.say(kind=Kind.FINISH, id=2)
    assert flow.receive() == b"x"
    flow.finish()
    assert daemon.take_one()[0].kind == Kind.FINISH
    assert daemon.session.idle


@pytest.mark.parametrize("kind", [Kind.ERROR, Kind.CANCEL])
def test_the_opener_breaks_a_tunnel(daemon: Daemon, kind: Kind):
    delivery = delivered(daemon, Kind.TUNNEL)
    told: list[bool] = []
    delivery.on_cancel = told.append
    flow = delivery.flow
    assert flow is not None
    flow.accept()
    daemon.say(kind=kind, id=2, detail="enough")
    assert isinstance(flow.broken, TunnelBroken)
    assert told == ([False] if kind == Kind.CANCEL else [])
    assert [int(h.kind) for h, _ in daemon.take()] == [Kind.CREDIT] + [Kind.ERROR] * (kind == Kind.CANCEL)
    assert daemon.session.idle


def test_a_tunnel_frame_for_something_else(daemon: Daemon):
    delivered(daemon)
    with pytest.raises(ProtocolError, match="unexpected frame kind 20 for a request"):
        daemon.say(b"x", kind=Kind.DATA, id=2)


# --------------------------------------------------------------------- close


def test_close_ends_everything_that_waited(daemon: Daemon):
    daemon.session.lane_down("gone")
    held = request(daemon)
    _, _, changes = join(daemon)
    flush = Promise()
    daemon.session.flush(flush, daemon.now + 5)
    error = NoMember("closed")
    daemon.session.close(error)
    assert promise_of(held).error is error
    assert flush.error is error
    assert changes == [error]


def test_a_batch_of_many_frames(daemon: Daemon):
    calls = [request(daemon) for _ in range(3)]
    daemon.take()
    daemon.session.received(
        batch(*(({"kind": Kind.REPLY, "id": call.id}, b"%d" % call.id) for call in reversed(calls))), daemon.now
    )
    assert [promise_of(call).result[1] for call in calls] == [b"1", b"3", b"5"]
