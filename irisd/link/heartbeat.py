"""Is the other side of this link still there (pure)?

The side that dialled asks, once per interval, by a survey over the control
connection; the other side answers. Question and answer, big-endian::

    question:  u8 1 | u32 interval in milliseconds | u64 round
    answer:    u8 1 | u64 round

What follows belongs to later versions and is ignored. The question announces
the interval, so both sides judge by the same measure: nothing heard for five
intervals, on either connection, is *silent*. Any byte counts as heard.

Whoever was held up itself (a stopped process, a busy host) does not take the
other side for silent: a deadline noticed too late gives one more interval.
"""

from __future__ import annotations

import struct
from typing import Final

from irisd.errors import WireError
from irisd.sp import AnswerVerdict, Buffer, QuestionVerdict, Respondent, Surveyor, encode_survey_id

SILENT_INTERVALS: Final = 5
PROBE_INTERVALS: Final = 2
"""How long a link that is asked about may take to show that it is alive."""
MIN_INTERVAL: Final = 0.01
MAX_INTERVAL: Final = 3600.0

_VERSION: Final = 1
_QUESTION: Final = struct.Struct(">BIQ")
_ANSWER: Final = struct.Struct(">BQ")
_PIPE: Final = 0  # one connection, one pipe


class Heartbeat:
    """One link's heartbeat, either side.

    Args:
        asks: Whether this side dialled, and so asks.
        interval: Seconds between two questions; the answering side learns the
            asker's with the first question.
        first_id: Where survey ids start: random.
        now: Monotonic seconds.
    """

    def __init__(self, *, asks: bool, interval: float, first_id: int, now: float) -> None:
        self.interval = interval
        self.rtt: float | None = None
        """Seconds the last answer took; ``None`` on the answering side."""
        self._last_heard = now
        self._surveyor: Surveyor[int] | None = Surveyor(first_id=first_id, max_surveys=16) if asks else None
        self._respondent: Respondent[int] | None = None if asks else Respondent()
        self._round = 0
        self._next_question = now
        self._expected_at = now
        self._probe_ends: float | None = None
        self._probe_heard = False

    def heard(self, now: float) -> None:
        """Bytes that opened have arrived, on either connection."""
        self._last_heard = now

    def next_deadline(self) -> float:
        """The instant to call :meth:`on_deadline`."""
        deadline = self._last_heard + SILENT_INTERVALS * self.interval
        if self._surveyor is not None:
            deadline = min(deadline, self._next_question)
        if self._probe_ends is not None:
            deadline = min(deadline, self._probe_ends)
        self._expected_at = deadline
        return deadline

    def on_deadline(self, now: float) -> tuple[list[Buffer] | None, bool]:
        """Do what is due.

        Returns:
            The parts of a question to send, if any, and whether the link is silent.
        """
        if now - self._expected_at > self.interval:
            self._last_heard = max(self._last_heard, now - (SILENT_INTERVALS - 1) * self.interval)
        if now >= self._last_heard + SILENT_INTERVALS * self.interval:
            return None, True
        if self._surveyor is None or now < self._next_question:
            return None, False
        return self._ask(self._surveyor, now), False

    def message_received(self, message: bytes, now: float) -> tuple[Buffer, ...] | None:
        """Take a message of the control connection.

        Returns:
            The parts of an answer to send, if it was a question.

        Raises:
            WireError: It is neither question nor answer.
        """
        if self._surveyor is not None:
            self._answer_received(self._surveyor, message, now)
            return None
        assert self._respondent is not None
        verdict, question = self._respondent.question_received(_PIPE, message)
        if verdict is QuestionVerdict.MALFORMED:
            raise WireError("survey", "a question without a survey id")
        if question is None:
            return None
        if len(question.body) < _QUESTION.size or question.body[0] != _VERSION:
            raise WireError("survey", "a question that is not a heartbeat")
        _, interval_ms, number = _QUESTION.unpack_from(question.body)
        if not MIN_INTERVAL * 1000 <= interval_ms <= MAX_INTERVAL * 1000:
            raise WireError("survey", f"an interval of {interval_ms} ms")
        self.interval = interval_ms / 1000
        self._probe_heard = True
        return self._respondent.answer(question, _ANSWER.pack(_VERSION, number))

    def probe(self, now: float, within: float) -> list[Buffer] | None:
        """Find out whether this link is alive; :meth:`probe_verdict` will tell.

        The asking side asks at once and waits two intervals, but no more than
        ``within`` seconds. The other can only wait for the next question, and
        that takes the two intervals.

        Returns:
            The parts of a question to send, if this side asks.
        """
        self._probe_heard = False
        self._probe_ends = now + PROBE_INTERVALS * self.interval
        if self._surveyor is None:
            return None
        self._probe_ends = min(self._probe_ends, now + within)
        return self._ask(self._surveyor, now)

    def probe_verdict(self, now: float) -> bool | None:
        """What the probe found; ``None`` while it runs, or none was begun."""
        if self._probe_ends is None:
            return None
        if not self._probe_heard and now < self._probe_ends:
            return None
        self._probe_ends = None
        return self._probe_heard

    def _ask(self, surveyor: Surveyor[int], now: float) -> list[Buffer]:
        surveyor.on_deadline(now)  # rounds that ended without an answer: silence is judged by _last_heard
        survey_id, _ = surveyor.begin((_PIPE,), SILENT_INTERVALS * self.interval, now)
        self._next_question = now + self.interval
        self._round += 1
        body = _QUESTION.pack(_VERSION, max(1, round(self.interval * 1000)), self._round)
        return [encode_survey_id(survey_id), body]

    def _answer_received(self, surveyor: Surveyor[int], message: bytes, now: float) -> None:
        answer = surveyor.answer_received(_PIPE, message, now)
        if answer.verdict is AnswerVerdict.COUNTED:
            if len(answer.body) < _ANSWER.size or answer.body[0] != _VERSION:
                raise WireError("survey", "an answer that is not a heartbeat's")
            self.rtt = answer.elapsed
            self._probe_heard = True
        elif answer.verdict in (AnswerVerdict.MALFORMED, AnswerVerdict.UNKNOWN, AnswerVerdict.UNASKED):
            raise WireError("survey", f"an answer that is {answer.verdict}")
