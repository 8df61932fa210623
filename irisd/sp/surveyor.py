"""SURVEYOR (pure): questions to many pipes, answers until a deadline, many rounds at once.

A *pipe* is one connection to one respondent, named by whatever hashable its
owner likes. A new connection is a new pipe, even to the same respondent.

The shape of one survey:

1. :meth:`Surveyor.begin` opens it and returns its id; the caller sends
   ``encode_survey_id(id)`` and the question to every pipe it asked.
2. :meth:`Surveyor.answer_received` judges whatever those pipes send.
3. It ends exactly once, with a :class:`SurveyEnded`: because nobody is left to
   answer, because :meth:`Surveyor.on_deadline` found it due, or because it was
   cancelled. Answers that come after that are dropped by name, never an error: on
   a real network they are ordinary.

Answers are handed over at once, so none is lost because a deadline passed
before somebody read it. The clock alone ends nothing: an answer that lay
in a buffer while this process was held up still counts if it is read before
:meth:`Surveyor.on_deadline` is called. A surveyor that was slow itself must not
take its respondents for silent.

Invariants:
    - a pipe in ``_surveys_by_pipe`` is waited for by each of its surveys, and by no other
    - a survey in ``_surveys`` waits for at least one pipe
    - every survey in ``_surveys`` has its deadline in ``_deadlines``
    - ``answered``, ``lost`` and ``silent`` of an ended survey share nothing and together are those asked
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, TypeVar

from irisd.sp.backtrace import SURVEY_BIT, TAG_SIZE, backtrace_size, survey_id_from
from irisd.sp.errors import SpError, SpLimitError
from irisd.sp.pair1 import DEFAULT_HOP_LIMIT

PipeT = TypeVar("PipeT", bound=Hashable)

_STALE_DEADLINES: Final = 64
"""Deadlines of ended surveys tolerated in the heap, beyond as many as there are open surveys."""


class AnswerVerdict(StrEnum):
    """What became of something a respondent sent."""

    COUNTED = "counted"
    LATE = "late"
    """Its survey has ended."""
    UNASKED = "unasked"
    """This pipe was not asked in that survey: hostile or confused."""
    REPEATED = "repeated"
    """This pipe gave all the answers it may give to that survey."""
    UNKNOWN = "unknown"
    """No survey of this surveyor ever had that id."""
    ASTRAY = "astray"
    """It carries tags of forwarders on its way elsewhere, or went round in circles."""
    MALFORMED = "malformed"
    """No survey id in it: close the pipe."""


class SurveyEnd(StrEnum):
    """Why a survey is over."""

    COMPLETE = "complete"
    """Every pipe asked has answered or is lost."""
    DEADLINE = "deadline"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class SurveyEnded(Generic[PipeT]):
    """A survey is over; ``silent`` is what membership acts upon."""

    survey_id: int
    end: SurveyEnd
    answered: frozenset[PipeT]
    """Pipes that gave at least one answer."""
    lost: frozenset[PipeT]
    """Pipes that disconnected before they answered."""
    silent: frozenset[PipeT]
    """Pipes that were connected to the end and gave no answer."""

    @property
    def asked(self) -> frozenset[PipeT]:
        return self.answered | self.lost | self.silent


class Answer(NamedTuple, Generic[PipeT]):
    """The judgement of one message from a respondent."""

    verdict: AnswerVerdict
    survey_id: int | None
    """``None`` if the message names none."""
    body: bytes
    """The answer; empty unless it is counted."""
    elapsed: float
    """Seconds since the question was asked; 0 unless it is counted."""
    ended: list[SurveyEnded[PipeT]]
    """The survey that this answer completed, if it did."""


@dataclass(slots=True)
class _Survey(Generic[PipeT]):
    survey_id: int
    began_at: float  # seconds, monotonic
    deadline: float
    waiting: set[PipeT]
    answers_by_pipe: dict[PipeT, int] = field(default_factory=dict)
    lost: set[PipeT] = field(default_factory=set)


class Surveyor(Generic[PipeT]):
    """The asking side of SURVEYOR/RESPONDENT.

    Args:
        first_id: Where survey ids start: random at each process start, so that
            answers to a former life find no survey. Any number; its low 31 bits count.
        max_surveys: Most surveys open at once.
        answers_per_pipe: How many answers one pipe may give to one survey. More
            than one only where a pipe leads to a forwarder with several
            respondents behind it; such a pipe is waited for until it gave them
            all or the deadline passed, because nobody can know how many will come.
    """

    def __init__(self, *, first_id: int, max_surveys: int = 1024, answers_per_pipe: int = 1) -> None:
        if max_surveys < 1 or answers_per_pipe < 1:
            raise ValueError("max_surveys and answers_per_pipe are counts from 1")
        self._first_number = first_id
        self._begun = 0
        self._max_surveys = max_surveys
        self._answers_per_pipe = answers_per_pipe
        self._surveys: dict[int, _Survey[PipeT]] = {}
        self._surveys_by_pipe: dict[PipeT, dict[int, _Survey[PipeT]]] = {}
        self._deadlines: list[tuple[float, int]] = []  # a heap; ended surveys leave theirs behind for a while
        self._counts: Counter[AnswerVerdict] = Counter()

    @property
    def open_count(self) -> int:
        """Surveys that have not ended."""
        return len(self._surveys)

    @property
    def counts(self) -> Mapping[AnswerVerdict, int]:
        """How often each verdict was given; a live, read-only view."""
        return MappingProxyType(self._counts)

    def begin(self, pipes: Iterable[PipeT], timeout: float, now: float) -> tuple[int, list[SurveyEnded[PipeT]]]:
        """Open a survey.

        Args:
            pipes: Whom the caller is going to ask.
            timeout: How long the survey stays open, in seconds; negative counts as 0.

        Returns:
            Its id, and its own end if there is nobody to ask.

        Raises:
            SpLimitError: ``max_surveys`` are open.
        """
        if len(self._surveys) >= self._max_surveys:
            limit = self._max_surveys
            raise SpLimitError(f"{limit} surveys are open already", wanted=limit + 1, limit=limit)
        survey_id = self._take_id()
        survey = _Survey(survey_id, now, now + max(timeout, 0.0), set(pipes))
        if not survey.waiting:
            return survey_id, [_ended(survey, SurveyEnd.COMPLETE)]
        self._surveys[survey_id] = survey
        for pipe in survey.waiting:
            self._surveys_by_pipe.setdefault(pipe, {})[survey_id] = survey
        heapq.heappush(self._deadlines, (survey.deadline, survey_id))
        return survey_id, []

    def answer_received(self, pipe: PipeT, message: bytes, now: float) -> Answer[PipeT]:
        """Judge a message from a respondent; the last one expected ends its survey early."""
        verdict, survey_id = self._judge(pipe, message)
        self._counts[verdict] += 1
        if verdict is not AnswerVerdict.COUNTED or survey_id is None:
            return Answer(verdict, survey_id, b"", 0.0, [])
        survey = self._surveys[survey_id]
        answers = survey.answers_by_pipe.get(pipe, 0) + 1
        survey.answers_by_pipe[pipe] = answers
        ended = self._stop_waiting(survey, pipe) if answers == self._answers_per_pipe else []
        return Answer(verdict, survey_id, message[TAG_SIZE:], now - survey.began_at, ended)

    def pipe_lost(self, pipe: PipeT) -> list[SurveyEnded[PipeT]]:
        """Wait for this pipe no longer; return the surveys that were waiting for nobody else, oldest first."""
        ended: list[SurveyEnded[PipeT]] = []
        for survey in list(self._surveys_by_pipe.get(pipe, {}).values()):
            if pipe not in survey.answers_by_pipe:
                survey.lost.add(pipe)
            ended += self._stop_waiting(survey, pipe)
        return ended

    def cancel(self, survey_id: int) -> list[SurveyEnded[PipeT]]:
        """End a survey now. One that has ended already, or never was, is let be."""
        survey = self._surveys.get(survey_id)
        return [] if survey is None else [self._end(survey, SurveyEnd.CANCELLED)]

    def next_deadline(self) -> float | None:
        """The instant to call :meth:`on_deadline`, or ``None`` if nothing is open."""
        while self._deadlines and self._deadlines[0][1] not in self._surveys:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def on_deadline(self, now: float) -> list[SurveyEnded[PipeT]]:
        """End the surveys whose time has come, earliest first. Early or stale calls do nothing."""
        ended: list[SurveyEnded[PipeT]] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            _, survey_id = heapq.heappop(self._deadlines)
            ended.append(self._end(self._surveys[survey_id], SurveyEnd.DEADLINE))
        return ended

    def _take_id(self) -> int:
        """The next id that no open survey has: one may outlive the 31 bits."""
        while True:
            survey_id = survey_id_from(self._first_number + self._begun)
            self._begun += 1
            if survey_id not in self._surveys:
                return survey_id

    def _was_begun(self, survey_id: int) -> bool:
        return (survey_id - self._first_number) % SURVEY_BIT < self._begun

    def _judge(self, pipe: PipeT, message: bytes) -> tuple[AnswerVerdict, int | None]:
        try:
            size = backtrace_size(message, DEFAULT_HOP_LIMIT)
        except SpError:
            return AnswerVerdict.MALFORMED, None
        if size != TAG_SIZE:
            return AnswerVerdict.ASTRAY, None
        survey_id = int.from_bytes(message[:TAG_SIZE])
        survey = self._surveys.get(survey_id)
        if survey is None:
            return AnswerVerdict.LATE if self._was_begun(survey_id) else AnswerVerdict.UNKNOWN, survey_id
        if pipe in survey.waiting:
            return AnswerVerdict.COUNTED, survey_id
        if pipe in survey.answers_by_pipe:
            return AnswerVerdict.REPEATED, survey_id
        return AnswerVerdict.UNASKED, survey_id

    def _stop_waiting(self, survey: _Survey[PipeT], pipe: PipeT) -> list[SurveyEnded[PipeT]]:
        survey.waiting.discard(pipe)
        self._forget(survey, pipe)
        return [] if survey.waiting else [self._end(survey, SurveyEnd.COMPLETE)]

    def _forget(self, survey: _Survey[PipeT], pipe: PipeT) -> None:
        surveys = self._surveys_by_pipe[pipe]
        del surveys[survey.survey_id]
        if not surveys:
            del self._surveys_by_pipe[pipe]

    def _end(self, survey: _Survey[PipeT], end: SurveyEnd) -> SurveyEnded[PipeT]:
        del self._surveys[survey.survey_id]
        for pipe in survey.waiting:
            self._forget(survey, pipe)
        # Surveys that end early leave their deadlines behind; long timeouts must not pile them up.
        if len(self._deadlines) > 2 * len(self._surveys) + _STALE_DEADLINES:
            self._deadlines = [(survey.deadline, survey.survey_id) for survey in self._surveys.values()]
            heapq.heapify(self._deadlines)
        return _ended(survey, end)


def _ended(survey: _Survey[PipeT], end: SurveyEnd) -> SurveyEnded[PipeT]:
    answered = frozenset(survey.answers_by_pipe)
    lost = frozenset(survey.lost)
    return SurveyEnded(survey.survey_id, end, answered, lost, frozenset(survey.waiting) - answered)
