"""Any order of facts: each survey ends exactly once, and nothing of it is left behind."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from irisd.sp import AnswerVerdict, SpLimitError, SurveyEnded, Surveyor, encode_survey_id

MAX_SURVEYS = 4
PIPES = st.sampled_from("abcd")


class SurveyorMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.surveyor: Surveyor[str] = Surveyor(first_id=0x7FFF_FFFE, max_surveys=MAX_SURVEYS, answers_per_pipe=2)
        self.asked: dict[int, frozenset[str]] = {}
        self.answers: dict[int, list[str]] = {}
        self.ended: dict[int, SurveyEnded[str]] = {}

    def _take(self, ended: list[SurveyEnded[str]]) -> None:
        for end in ended:
            assert end.survey_id not in self.ended, "a survey ended twice"
            self.ended[end.survey_id] = end
            assert end.asked == self.asked[end.survey_id]
            assert end.answered == set(self.answers[end.survey_id])
            assert not end.answered & end.lost
            assert not end.answered & end.silent
            assert not end.lost & end.silent

    @rule(pipes=st.sets(PIPES), timeout=st.floats(-1, 10))
    def begin(self, pipes: set[str], timeout: float) -> None:
        is_full = self.surveyor.open_count == MAX_SURVEYS
        try:
            survey_id, ended = self.surveyor.begin(pipes, timeout, self.now)
        except SpLimitError:
            assert is_full
            return
        assert not is_full
        assert survey_id not in self.asked
        self.asked[survey_id], self.answers[survey_id] = frozenset(pipes), []
        self._take(ended)

    @rule(pipe=PIPES, back=st.integers(-1, 8), body=st.binary(max_size=3))
    def answer(self, pipe: str, back: int, body: bytes) -> None:
        survey_id = 0x8000_0000 | ((0x7FFF_FFFE + len(self.asked) - 1 - back) & 0x7FFF_FFFF)
        judged = self.surveyor.answer_received(pipe, encode_survey_id(survey_id) + body, self.now)
        if judged.verdict is AnswerVerdict.COUNTED:
            assert pipe in self.asked[survey_id]
            assert survey_id not in self.ended
            assert judged.body == body
            self.answers[survey_id].append(pipe)
            assert self.answers[survey_id].count(pipe) <= 2
        elif judged.verdict is AnswerVerdict.UNKNOWN:
            assert survey_id not in self.asked
        elif judged.verdict is AnswerVerdict.LATE:
            assert survey_id in self.ended
        else:
            assert judged.verdict in (AnswerVerdict.UNASKED, AnswerVerdict.REPEATED)
            assert survey_id not in self.ended
        self._take(judged.ended)

    @rule(message=st.binary(max_size=12))
    def garbage(self, message: bytes) -> None:
        judged = self.surveyor.answer_received("stranger", message, self.now)
        assert judged.verdict is not AnswerVerdict.COUNTED

    @rule(pipe=PIPES)
    def lose(self, pipe: str) -> None:
        self._take(self.surveyor.pipe_lost(pipe))

    @rule(back=st.integers(0, 8))
    def cancel(self, back: int) -> None:
        if back < len(self.asked):
            self._take(self.surveyor.cancel(list(self.asked)[-1 - back]))

    @rule(step=st.floats(0, 5))
    def pass_time(self, step: float) -> None:
        self.now += step
        self._take(self.surveyor.on_deadline(self.now))
        deadline = self.surveyor.next_deadline()
        assert deadline is None or deadline > self.now

    @invariant()
    def nothing_is_lost_or_left(self) -> None:
        open_ids = self.asked.keys() - self.ended.keys()
        assert self.surveyor.open_count == len(open_ids) <= MAX_SURVEYS
        assert (self.surveyor.next_deadline() is None) == (not open_ids)
        waited_for = {pipe for survey_id in open_ids for pipe in self.asked[survey_id]}
        assert self.surveyor._surveys_by_pipe.keys() <= waited_for


TestSurveyor = SurveyorMachine.TestCase
