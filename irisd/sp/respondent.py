"""RESPONDENT (pure): questions from any number of surveyors, at most one answer each.

The backtrace of a question is kept aside and sent back whole before the answer,
on the pipe the question came from and on no other. Saying nothing is a lawful
answer.

Invariants:
    - a question in ``_open_by_pipe`` has not been answered and its pipe is connected
    - no pipe has more than ``questions_per_pipe`` open questions
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

from irisd.sp.backtrace import backtrace_size
from irisd.sp.errors import SpError
from irisd.sp.pair1 import DEFAULT_HOP_LIMIT, check_hop_limit

PipeT = TypeVar("PipeT", bound=Hashable)


class QuestionVerdict(StrEnum):
    """What became of something a surveyor sent."""

    ASKED = "asked"
    OVER_LIMIT = "over-limit"
    """It passed more forwarders than allowed: dropped quietly, the pipe is fine."""
    MALFORMED = "malformed"
    """No survey id in it: close the pipe."""


class Question(NamedTuple, Generic[PipeT]):
    """One question, with what its answer needs to find home."""

    question_id: int
    """Of this respondent only; never on the wire."""
    pipe: PipeT
    backtrace: bytes
    body: bytes


class Respondent(Generic[PipeT]):
    """The answering side of SURVEYOR/RESPONDENT.

    Args:
        hop_limit: Longest backtrace accepted, in tags, the survey id included (1..15).
        questions_per_pipe: Most unanswered questions remembered for one pipe.
            When one more comes, the oldest is forgotten: surveys are repeated,
            and the newest is the one somebody still waits for.
    """

    def __init__(self, *, hop_limit: int = DEFAULT_HOP_LIMIT, questions_per_pipe: int = 64) -> None:
        if questions_per_pipe < 1:
            raise ValueError("questions_per_pipe is a count from 1")
        self._hop_limit = check_hop_limit(hop_limit)
        self._questions_per_pipe = questions_per_pipe
        self._next_question_id = 0
        self._open_by_pipe: dict[PipeT, dict[int, None]] = {}  # ordered: the oldest first
        self._counts: Counter[QuestionVerdict] = Counter()
        self.forgotten = 0
        """Questions forgotten because their pipe asked too many."""

    @property
    def counts(self) -> Mapping[QuestionVerdict, int]:
        """How often each verdict was given; a live, read-only view."""
        return MappingProxyType(self._counts)

    def question_received(self, pipe: PipeT, message: bytes) -> tuple[QuestionVerdict, Question[PipeT] | None]:
        """Judge a message from a surveyor; a question comes with the verdict ``ASKED`` and only then."""
        try:
            size = backtrace_size(message, self._hop_limit)
        except SpError:
            return self._count(QuestionVerdict.MALFORMED), None
        if size is None:
            return self._count(QuestionVerdict.OVER_LIMIT), None
        question = Question(self._next_question_id, pipe, message[:size], message[size:])
        self._next_question_id += 1
        open_questions = self._open_by_pipe.setdefault(pipe, {})
        if len(open_questions) == self._questions_per_pipe:
            del open_questions[next(iter(open_questions))]
            self.forgotten += 1
        open_questions[question.question_id] = None
        return self._count(QuestionVerdict.ASKED), question

    def answer(self, question: Question[PipeT], body: bytes) -> tuple[bytes, bytes] | None:
        """Answer a question, once.

        Returns:
            The parts of the message to send on ``question.pipe``, or ``None`` if
            there is nobody to answer any more: it was answered, declined or
            forgotten, or its pipe is lost.
        """
        return (question.backtrace, body) if self.decline(question) else None

    def decline(self, question: Question[PipeT]) -> bool:
        """Leave a question without an answer; return whether it was open."""
        open_questions = self._open_by_pipe.get(question.pipe)
        if open_questions is None or question.question_id not in open_questions:
            return False
        del open_questions[question.question_id]
        if not open_questions:
            del self._open_by_pipe[question.pipe]
        return True

    def pipe_lost(self, pipe: PipeT) -> None:
        """Forget the questions of a pipe: answers travel back on the same pipe or not at all."""
        self._open_by_pipe.pop(pipe, None)

    def _count(self, verdict: QuestionVerdict) -> QuestionVerdict:
        self._counts[verdict] += 1
        return verdict
