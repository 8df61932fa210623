"""The calls an app opens (pure): what each one waits for, and how each one ends.

A call ends exactly once: with its answer, with a typed error, or because its opener no longer wants it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from iris_client._errors import DeadlineExceeded, DeliveryError, Detached, IrisError, Overloaded, from_frame
from iris_client._frames import Code, Header, Kind, ProtocolError
from iris_client._model import CALL_BUFFER_BYTES, Answer, Executed
from iris_client._tunnelflow import TunnelFlow

SURVEY_GRACE: Final = 1.0
"""Seconds a survey's end may be late before its caller stops waiting for it."""


class Promise(Protocol):
    """Where an outcome goes: what ``asyncio.Future`` offers, and little enough to fake."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: Any, /) -> None: ...


class Call:
    """A call this app opens.

    Attributes:
        id: 0 until its first frame is written.
        exposed: It was written to a stream that broke.
        header: Of its opening frame.
        body: Of its opening frame.
        deadline: When its opener stops waiting, monotonic seconds.
        over: Nothing more will happen to it.
        flow: What it moves besides its frames, if it is or has become a tunnel.
        what: For error messages: ``request to 'databases'``.
    """

    __slots__ = ("body", "deadline", "exposed", "flow", "header", "id", "over", "what")

    def __init__(self, header: Header, body: bytes, deadline: float, what: str) -> None:
        self.id = 0
        self.exposed = False
        self.header = header
        self.body = body
        self.deadline = deadline
        self.over = False
        self.flow: TunnelFlow | None = None
        self.what = what

    @property
    def send_by(self) -> float:
        """When the far side should stop, which is what it is told."""
        return self.deadline

    def on_frame(self, kind: int, header: Header, body: bytes) -> None:
        """Take a frame that carries this call's id; set ``over`` when it was the last."""
        raise ProtocolError(f"unexpected frame kind {kind} for {self.what}")

    def fail(self, error: IrisError) -> None:
        """End the call with ``error``."""
        self.over = True

    def expired(self, now: float) -> None:
        """Its deadline passed."""
        sent = self.id or self.exposed
        executed = Executed.MAYBE if sent else Executed.NO
        where = "no answer in time" if sent else "not sent in time: detached from the daemon, or too much was waiting"
        self.fail(DeadlineExceeded(f"{self.what}: {where}", executed=executed))

    def dropped(self) -> None:
        """Its opener no longer wants it; nothing is told to its promise."""

    def detached(self, reason: str) -> None:
        """The stream broke while the call was open."""
        self.fail(Detached(f"{self.what}: {reason}", executed=Executed.MAYBE if self.id else Executed.NO))

    def error(self, header: Header, body: bytes) -> IrisError:
        """The typed error an ERROR frame for this call stands for."""
        return from_frame(header.code, header.executed, header.reason, header.detail, body, self.what)


class Unary(Call):
    """A call with one answer: request, push, broadcast, flush. The promise gets ``(header, body)``."""

    __slots__ = ("promise",)

    def __init__(self, header: Header, body: bytes, deadline: float, what: str, promise: Promise) -> None:
        super().__init__(header, body, deadline, what)
        self.promise = promise

    def on_frame(self, kind: int, header: Header, body: bytes) -> None:
        if kind == Kind.ERROR:
            self.fail(self.error(header, body))
        elif kind in (Kind.REPLY, Kind.DONE):
            self.over = True
            if not self.promise.done():
                self.promise.set_result((header, body))
        else:
            super().on_frame(kind, header, body)

    def fail(self, error: IrisError) -> None:
        self.over = True
        if self.exposed and isinstance(error, DeliveryError) and error.executed is Executed.NO:
            error.executed = Executed.MAYBE  # this attempt did not run; the one on a stream that broke may have
        if not self.promise.done():
            self.promise.set_exception(error)


class Standing(Call):
    """A JOIN, a SUBSCRIBE or a WATCH: made anew on every stream, until the app lets go of it or the daemon refuses it.

    Args:
        changed: Called when it is established or was let go of (with None), or has failed (with what).

    Attributes:
        established: The daemon has confirmed it at least once.
        leaving: The app let go of it; the daemon has yet to confirm.
        ready: Every living node knew when it was last established.
    """

    __slots__ = ("changed", "established", "leaving", "ready")

    def __init__(self, header: Header, what: str, changed: Callable[[IrisError | None], None]) -> None:
        super().__init__(header, b"", math.inf, what)
        self.changed = changed
        self.established = False
        self.leaving = False
        self.ready = False

    def on_frame(self, kind: int, header: Header, body: bytes) -> None:
        code: int = header.code
        if kind == Kind.ERROR and code == Code.MEMBER_LOST and not self.leaving:
            self.id = 0  # the daemon is leaving: made on the next stream
        elif kind == Kind.ERROR:
            self.fail(self.error(header, body))
        elif kind != Kind.DONE:
            super().on_frame(kind, header, body)
        else:
            if self.leaving and (self.established or not header.count):  # what is left early may never be confirmed
                self.over = True
            else:
                self.established = True
                self.ready = header.count > 0
            self.changed(None)

    def fail(self, error: IrisError) -> None:
        self.over = True
        self.changed(error)

    def detached(self, reason: str) -> None:
        self.id = 0
        if self.leaving:
            self.over = True
            self.changed(None)


class SurveyCall(Call):
    """A survey: answers until everyone has answered or its deadline passed.

    The daemon ends it at its deadline and says who was asked; ours is :data:`SURVEY_GRACE` later and only for a
    daemon that does not.

    Attributes:
        answers: Those not yet read.
        asked: Everyone who was asked; known once the survey has ended.
        answered: Who has answered so far.
        failed: What the survey itself failed with.
    """

    __slots__ = ("_bytes", "_late", "answered", "answers", "asked", "changed", "failed")

    def __init__(self, header: Header, body: bytes, deadline: float, what: str, changed: Callable[[], None]) -> None:
        super().__init__(header, body, deadline, what)
        self.answers: deque[Answer] = deque()
        self.answered: dict[str, None] = {}
        self.asked: tuple[str, ...] = ()
        self.failed: IrisError | None = None
        self.changed = changed
        self._late = False
        self._bytes = 0

    def on_frame(self, kind: int, header: Header, body: bytes) -> None:
        member = header.member
        if kind == Kind.DONE:
            self.over = True
            self.asked = tuple(header.members)
        elif kind == Kind.ERROR and not member:
            self.over = True
            self.failed = self.error(header, body)
        elif kind == Kind.REPLY:
            self.answered[member] = None
            self._answer(member, body, header)
        elif kind == Kind.ERROR:
            if int(header.code) == Code.DEADLINE_EXCEEDED:
                return  # its handler was stopped at the survey's own deadline: that is silence, not an answer
            error = self.error(header, body)
            self.answered[member] = None
            if not isinstance(error, DeliveryError):
                error = DeliveryError(str(error))
            self.answers.append(Answer(member, b"", error=error))
        else:
            super().on_frame(kind, header, body)
        self.changed()

    def take(self) -> Answer:
        """Return the oldest answer not yet read."""
        answer = self.answers.popleft()
        self._bytes -= len(answer.body)
        return answer

    def _answer(self, member: str, body: bytes, header: Header) -> None:
        if self._bytes + len(body) > CALL_BUFFER_BYTES:
            full = f"{self.what}: {CALL_BUFFER_BYTES} bytes of answers wait to be read; this one was dropped"
            self.answers.append(Answer(member, b"", error=Overloaded(full, executed=Executed.YES)))
            return
        self._bytes += len(body)
        self.answers.append(Answer(member, body, dict(header.headers)))

    def fail(self, error: IrisError) -> None:
        self.over = True
        self.failed = error
        self.changed()

    def expired(self, now: float) -> None:
        if self.id and not self._late:
            self._late = True
            self.deadline = now + SURVEY_GRACE
        else:
            super().expired(now)
