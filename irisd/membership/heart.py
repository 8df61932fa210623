"""The node's heartbeat (pure): one survey a round, over every link it dialled, and answers to those of others.

One round is a heartbeat both ways: the question shows that the asker lives, the
answer that the other does. Both carry the digest of the sender's view, so that
every round also finds out whether the two know the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from irisd.errors import WireError
from irisd.membership.pulse import Pulse
from irisd.membership.rounds import Beat, decode_answer, decode_question, encode_answer, encode_question
from irisd.model import NodeId
from irisd.sp import AnswerVerdict, Buffer, QuestionVerdict, Respondent, Surveyor, encode_survey_id

MAX_SURVEYS = 64
"""Surveys that are open at once; a quarter of them is kept for rounds."""
ROUND_INTERVALS = 5.0
"""How long a survey waits for answers."""

Send = Callable[[NodeId, tuple[Buffer, ...]], None]
"""Sends a message on the control connection of a link."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a message of a control connection said.

    Attributes:
        beat: What the peer says of itself and its view; None if it says nothing of that.
        answered: It is an answer to a question of ours.
        buckets: Of the peer's view, if its digest was not that of our question.
    """

    beat: Beat | None
    answered: bool
    buckets: tuple[int, ...] | None = None


class Heart:
    """All heartbeats of one node.

    Args:
        interval: Seconds between two rounds.
        first_id: Where survey ids start: random.
        send: Sends on a control connection.
        beat: What this node says of itself and its view now.
        buckets: Its view's buckets now.
        counts: Where drops are counted, by name.

    Attributes:
        pulses: Every watched link.
    """

    def __init__(
        self,
        interval: float,
        first_id: int,
        send: Send,
        beat: Callable[[], Beat],
        buckets: Callable[[], list[int]],
        counts: Counter[str],
    ) -> None:
        self.interval = interval
        self.pulses: dict[NodeId, Pulse] = {}
        self._send = send
        self._beat = beat
        self._buckets = buckets
        self._counts = counts
        self._surveyor: Surveyor[NodeId] = Surveyor(first_id=first_id, max_surveys=MAX_SURVEYS)
        self._respondent: Respondent[NodeId] = Respondent()
        self._round = 0

    def link_up(self, node: NodeId, *, asks: bool, speaks: bool, now: float, awake: float) -> Pulse:
        """A link is up; the side that dialled asks at once."""
        pulse = self.pulses[node] = Pulse(asks=asks, interval=self.interval, awake=awake, speaks=speaks)
        if asks:
            self.ask([node], now, awake)
        return pulse

    def link_down(self, node: NodeId) -> None:
        """A link has ended."""
        if self.pulses.pop(node, None) is not None:
            self._surveyor.pipe_lost(node)
            self._respondent.pipe_lost(node)

    def round(self, now: float, awake: float) -> bool:
        """Ask everybody this side dialled; return whether all had answered the round before."""
        asked = [node for node, pulse in self.pulses.items() if pulse.asks]
        complete = all(self.pulses[node].asked_at is None for node in asked)
        self._survey(asked, now, awake, MAX_SURVEYS)
        return complete

    def ask(self, nodes: list[NodeId], now: float, awake: float) -> None:
        """Ask these, whose links this side dialled, between two rounds."""
        self._survey(nodes, now, awake, MAX_SURVEYS * 3 // 4)

    def _survey(self, nodes: list[NodeId], now: float, awake: float, limit: int) -> None:
        self._surveyor.on_deadline(now)
        if not nodes or self._surveyor.open_count >= limit:
            return
        survey_id, _ = self._surveyor.begin(nodes, ROUND_INTERVALS * self.interval, now)
        self._round += 1
        parts = (encode_survey_id(survey_id), encode_question(self.interval, self._round, self._beat()))
        for node in nodes:
            self.pulses[node].ask(awake)
            self._send(node, parts)

    def received(self, node: NodeId, message: bytes, now: float, awake: float) -> Heard | None:
        """Take a message of a link's control connection; answer it if it is a question.

        Returns:
            What it said; None for what is dropped by name: answers to surveys never asked, late or twice.

        Raises:
            WireError: It is no heartbeat.
        """
        pulse = self.pulses[node]
        if pulse.asks:
            return self._answer(node, pulse, message, now, awake)
        verdict, question = self._respondent.question_received(node, message)
        if verdict is QuestionVerdict.MALFORMED:
            raise WireError("survey", "a question without a survey id")
        if question is None:
            self._counts[f"dropped.survey-{verdict}"] += 1
            return None
        asked = decode_question(question.body)
        pulse.interval = asked.interval
        pulse.hear(awake)
        own = self._beat()
        differs = asked.beat is not None and asked.beat.digest != own.digest
        answer = encode_answer(asked.round, own, self._buckets() if differs else None)
        parts = self._respondent.answer(question, answer)
        if parts is not None:
            self._send(node, parts)
        return Heard(asked.beat, answered=False)

    def _answer(self, node: NodeId, pulse: Pulse, message: bytes, now: float, awake: float) -> Heard | None:
        answer = self._surveyor.answer_received(node, message, now)
        if answer.verdict is AnswerVerdict.MALFORMED:
            raise WireError("survey", "an answer that is malformed")
        if answer.verdict is AnswerVerdict.LATE:
            pulse.hear(awake)
        if answer.verdict is not AnswerVerdict.COUNTED:
            self._counts[f"dropped.survey-{answer.verdict}"] += 1
            return None
        said = decode_answer(answer.body)
        pulse.hear(awake)
        pulse.rtt = answer.elapsed
        return Heard(said.beat, answered=True, buckets=said.buckets)
