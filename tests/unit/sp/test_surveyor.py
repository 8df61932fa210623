from __future__ import annotations

import pytest

from irisd.sp import AnswerVerdict, SpLimitError, SurveyEnd, SurveyEnded, Surveyor, encode_survey_id
from tests.vectors.sp.golden import golden

GOLDEN = golden()


def surveyor(**settings: int) -> Surveyor[str]:
    return Surveyor(first_id=7, **settings)


def answer(survey_id: int, body: bytes = b"me") -> bytes:
    return encode_survey_id(survey_id) + body


def test_ids_start_where_they_are_told_and_carry_the_top_bit() -> None:
    asking = surveyor()
    assert asking.begin(["a"], 1.0, now=0.0) == (0x8000_0007, [])
    assert asking.begin(["a"], 1.0, now=0.0) == (0x8000_0008, [])
    assert encode_survey_id(0x8000_0007) + b"who?" == GOLDEN["survey.question"]


def test_the_last_answer_ends_the_survey_early() -> None:
    asking = surveyor()
    survey_id, _ = asking.begin(["a", "b"], 1.0, now=10.0)
    first = asking.answer_received("a", GOLDEN["survey.answer"], now=10.25)
    assert first == (AnswerVerdict.COUNTED, survey_id, b"me", 0.25, [])
    last = asking.answer_received("b", GOLDEN["survey.answer"], now=10.5)
    everyone = frozenset({"a", "b"})
    assert last.verdict is AnswerVerdict.COUNTED
    assert last.ended == [SurveyEnded(survey_id, SurveyEnd.COMPLETE, everyone, frozenset(), frozenset())]
    assert last.ended[0].asked == everyone
    assert asking.open_count == 0
    assert asking.next_deadline() is None


def test_the_deadline_names_the_silent() -> None:
    asking = surveyor()
    survey_id, _ = asking.begin(["a", "b"], 1.0, now=10.0)
    asking.answer_received("a", answer(survey_id), now=10.5)
    assert asking.next_deadline() == 11.0
    assert asking.on_deadline(10.99) == []
    assert asking.on_deadline(11.0) == [
        SurveyEnded(survey_id, SurveyEnd.DEADLINE, frozenset({"a"}), frozenset(), frozenset({"b"}))
    ]
    assert asking.on_deadline(11.0) == []
    assert asking.next_deadline() is None


def test_a_lost_pipe_is_not_waited_for() -> None:
    asking = surveyor()
    survey_id, _ = asking.begin(["a", "b", "c"], 1.0, now=0.0)
    asking.answer_received("a", answer(survey_id), now=0.1)
    assert asking.pipe_lost("a") == []  # it had answered: that stands
    assert asking.pipe_lost("b") == []
    assert asking.pipe_lost("c") == [
        SurveyEnded(survey_id, SurveyEnd.COMPLETE, frozenset({"a"}), frozenset({"b", "c"}), frozenset())
    ]
    assert asking.pipe_lost("c") == []
    assert asking.pipe_lost("never seen") == []


def test_surveys_run_in_parallel_and_end_in_the_order_of_their_deadlines() -> None:
    asking = surveyor()
    slow, _ = asking.begin(["a", "b"], 3.0, now=0.0)
    fast, _ = asking.begin(["b"], 1.0, now=0.0)
    middle, _ = asking.begin(["b", "c"], 2.0, now=0.0)
    assert asking.next_deadline() == 1.0
    assert asking.answer_received("b", answer(slow), now=0.5).ended == []
    assert [ended.survey_id for ended in asking.on_deadline(2.5)] == [fast, middle]
    assert asking.next_deadline() == 3.0
    assert [ended.survey_id for ended in asking.answer_received("a", answer(slow), now=2.6).ended] == [slow]


def test_one_lost_pipe_may_end_several_surveys() -> None:
    asking = surveyor()
    ids = [asking.begin(["a"], 1.0, now=0.0)[0] for _ in range(3)]
    asking.begin(["a", "b"], 1.0, now=0.0)
    assert [ended.survey_id for ended in asking.pipe_lost("a")] == ids
    assert asking.open_count == 1


def test_answers_that_do_not_count_have_names() -> None:
    asking = surveyor()
    ended_id, _ = asking.begin(["a"], 1.0, now=0.0)
    asking.on_deadline(1.0)
    survey_id, _ = asking.begin(["a", "b"], 1.0, now=1.0)
    asking.answer_received("a", answer(survey_id), now=1.1)
    cases = {
        "late": ("a", answer(ended_id)),
        "repeated": ("a", answer(survey_id)),
        "unasked": ("stranger", answer(survey_id)),
        "unknown": ("a", answer(0x8000_0009)),
        "astray": ("a", GOLDEN["survey.forwarded"]),
        "malformed": ("a", GOLDEN["survey.cut"]),
    }
    for verdict, (pipe, message) in cases.items():
        judged = asking.answer_received(pipe, message, now=1.2)
        assert judged.verdict is AnswerVerdict(verdict)
        assert (judged.body, judged.elapsed, judged.ended) == (b"", 0.0, [])
    assert asking.counts == {AnswerVerdict.COUNTED: 1} | {AnswerVerdict(verdict): 1 for verdict in cases}
    assert asking.open_count == 1


@pytest.mark.parametrize("message", [b"", b"\x80\x00\x00", GOLDEN["survey.endless"]])
def test_an_answer_without_an_id_is_malformed(message: bytes) -> None:
    judged = surveyor().answer_received("a", message, now=0.0)
    assert (judged.verdict, judged.survey_id) == (AnswerVerdict.MALFORMED, None)


def test_an_answer_in_circles_is_astray() -> None:
    assert surveyor().answer_received("a", GOLDEN["survey.tags9"], now=0.0).verdict is AnswerVerdict.ASTRAY


def test_nothing_but_the_timer_makes_an_answer_late() -> None:
    """A surveyor that was held up itself does not take its respondents for silent."""
    asking = surveyor()
    survey_id, _ = asking.begin(["a"], 1.0, now=0.0)
    judged = asking.answer_received("a", answer(survey_id), now=5.0)
    assert (judged.verdict, judged.elapsed) == (AnswerVerdict.COUNTED, 5.0)
    assert asking.on_deadline(5.0) == []


def test_a_survey_of_nobody_ends_at_once() -> None:
    asking = surveyor()
    nobody: frozenset[str] = frozenset()
    survey_id, ended = asking.begin([], 1.0, now=0.0)
    assert ended == [SurveyEnded(survey_id, SurveyEnd.COMPLETE, nobody, nobody, nobody)]
    assert asking.next_deadline() is None
    assert asking.answer_received("a", answer(survey_id), now=0.0).verdict is AnswerVerdict.LATE


def test_a_cancelled_survey_ends_once() -> None:
    asking = surveyor()
    survey_id, _ = asking.begin(["a", "b"], 1.0, now=0.0)
    asking.answer_received("b", answer(survey_id), now=0.1)
    assert asking.cancel(survey_id) == [
        SurveyEnded(survey_id, SurveyEnd.CANCELLED, frozenset({"b"}), frozenset(), frozenset({"a"}))
    ]
    assert asking.cancel(survey_id) == []
    assert asking.on_deadline(1.0) == []
    assert asking.answer_received("a", answer(survey_id), now=0.2).verdict is AnswerVerdict.LATE


def test_a_pipe_may_give_as_many_answers_as_it_is_allowed() -> None:
    """Behind a forwarder sit several respondents; nobody knows how many, so the deadline decides."""
    asking = surveyor(answers_per_pipe=2)
    survey_id, _ = asking.begin(["forwarder", "single"], 1.0, now=0.0)
    assert asking.answer_received("single", answer(survey_id), now=0.1).ended == []
    for body in (b"one", b"two"):
        assert asking.answer_received("forwarder", answer(survey_id, body), now=0.1).body == body
    assert asking.answer_received("forwarder", answer(survey_id), now=0.1).verdict is AnswerVerdict.REPEATED
    [ended] = asking.on_deadline(1.0)
    assert ended.answered == {"forwarder", "single"}
    assert ended.silent == frozenset()


def test_a_pipe_that_is_lost_after_an_answer_has_answered() -> None:
    asking = surveyor(answers_per_pipe=2)
    survey_id, _ = asking.begin(["forwarder"], 1.0, now=0.0)
    asking.answer_received("forwarder", answer(survey_id), now=0.1)
    [ended] = asking.pipe_lost("forwarder")
    assert (ended.answered, ended.lost, ended.end) == (frozenset({"forwarder"}), frozenset(), SurveyEnd.COMPLETE)


def test_an_answer_after_its_pipe_was_lost_does_not_count() -> None:
    asking = surveyor()
    survey_id, _ = asking.begin(["a", "b"], 1.0, now=0.0)
    asking.pipe_lost("a")
    assert asking.answer_received("a", answer(survey_id), now=0.1).verdict is AnswerVerdict.UNASKED


def test_open_surveys_are_bounded() -> None:
    asking = surveyor(max_surveys=2)
    for _ in range(2):
        asking.begin(["a"], 1.0, now=0.0)
    with pytest.raises(SpLimitError) as refused:
        asking.begin(["a"], 1.0, now=0.0)
    assert (refused.value.wanted, refused.value.limit) == (3, 2)
    asking.on_deadline(1.0)
    asking.begin(["a"], 1.0, now=1.0)


def test_ids_wrap_and_pass_over_one_that_is_still_open() -> None:
    asking: Surveyor[str] = Surveyor(first_id=0xFFFF_FFFF)
    open_id, _ = asking.begin(["a"], 1e9, now=0.0)
    assert open_id == 0xFFFF_FFFF
    assert asking.begin(["a"], 1.0, now=0.0)[0] == 0x8000_0000
    asking._begun = 1 << 31  # two thousand million surveys later
    assert asking.begin(["a"], 1.0, now=0.0)[0] == 0x8000_0001  # 0xFFFFFFFF and 0x80000000 are open
    assert asking.answer_received("b", answer(open_id), now=0.0).verdict is AnswerVerdict.UNASKED


def test_surveys_that_end_early_leave_nothing_behind() -> None:
    asking = surveyor()
    lasting, _ = asking.begin(["b"], 3600.0, now=0.0)
    for turn in range(10_000):
        survey_id, _ = asking.begin(["a"], 60.0, now=turn * 0.001)
        asking.answer_received("a", answer(survey_id), now=turn * 0.001)
    assert len(asking._deadlines) < 100
    assert asking._surveys_by_pipe.keys() == {"b"}
    assert asking.next_deadline() == 3600.0
    assert [ended.survey_id for ended in asking.on_deadline(3600.0)] == [lasting]


def test_a_negative_timeout_is_due_at_once() -> None:
    asking = surveyor()
    asking.begin(["a"], -1.0, now=5.0)
    assert asking.next_deadline() == 5.0
    assert len(asking.on_deadline(5.0)) == 1


@pytest.mark.parametrize("settings", [{"max_surveys": 0}, {"answers_per_pipe": 0}])
def test_counts_from_one(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="counts from 1"):
        surveyor(**settings)
