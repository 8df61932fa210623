from __future__ import annotations

import pytest

from irisd.sp import Question, QuestionVerdict, Respondent
from tests.vectors.sp.golden import golden

GOLDEN = golden()


def ask(respondent: Respondent[str], pipe: str, name: str = "question") -> Question[str]:
    verdict, question = respondent.question_received(pipe, GOLDEN[f"survey.{name}"])
    assert verdict is QuestionVerdict.ASKED
    assert question is not None
    return question


def test_an_answer_carries_the_id_of_its_question() -> None:
    respondent: Respondent[str] = Respondent()
    question = ask(respondent, "a")
    assert (question.pipe, question.body) == ("a", b"who?")
    parts = respondent.answer(question, b"me")
    assert parts is not None
    assert b"".join(parts) == GOLDEN["survey.answer"]


def test_the_whole_stack_is_echoed() -> None:
    respondent: Respondent[str] = Respondent()
    question = ask(respondent, "a", "forwarded")
    assert question.body == b"who?"
    assert respondent.answer(question, b"me") == (bytes.fromhex("00000005 7fffffff 80000007"), b"me")


def test_eight_tags_are_answered_and_nine_dropped() -> None:
    respondent: Respondent[str] = Respondent()
    assert ask(respondent, "a", "tags8").body == b"?"
    assert respondent.question_received("a", GOLDEN["survey.tags9"]) == (QuestionVerdict.OVER_LIMIT, None)
    longer: Respondent[str] = Respondent(hop_limit=9)
    assert ask(longer, "a", "tags9").body == b"?"


@pytest.mark.parametrize("message", [b"", b"\x80\x00\x00", GOLDEN["survey.endless"], GOLDEN["survey.cut"]])
def test_a_question_without_an_id_is_malformed(message: bytes) -> None:
    respondent: Respondent[str] = Respondent()
    assert respondent.question_received("a", message) == (QuestionVerdict.MALFORMED, None)
    assert respondent.counts == {QuestionVerdict.MALFORMED: 1}


def test_a_question_is_answered_once() -> None:
    respondent: Respondent[str] = Respondent()
    question = ask(respondent, "a")
    assert respondent.answer(question, b"me") is not None
    assert respondent.answer(question, b"me again") is None


def test_a_declined_question_has_no_answer() -> None:
    respondent: Respondent[str] = Respondent()
    question = ask(respondent, "a")
    assert respondent.decline(question)
    assert not respondent.decline(question)
    assert respondent.answer(question, b"me") is None


def test_a_lost_pipe_takes_its_questions_along_and_no_others() -> None:
    respondent: Respondent[str] = Respondent()
    gone, stays = ask(respondent, "a"), ask(respondent, "b")
    respondent.pipe_lost("a")
    respondent.pipe_lost("a")
    assert respondent.answer(gone, b"me") is None
    assert respondent.answer(stays, b"me") is not None


def test_the_same_survey_on_two_pipes_is_two_questions() -> None:
    """A mesh has more than one path; each copy is answered where it came from."""
    respondent: Respondent[str] = Respondent()
    one, other = ask(respondent, "a"), ask(respondent, "b")
    assert respondent.answer(other, b"me") is not None
    assert respondent.answer(one, b"me") is not None


def test_a_pipe_that_asks_too_much_forgets_its_oldest() -> None:
    respondent: Respondent[str] = Respondent(questions_per_pipe=2)
    neighbour = ask(respondent, "b")
    first, second, third = (ask(respondent, "a") for _ in range(3))
    assert respondent.forgotten == 1
    assert respondent.answer(first, b"me") is None
    for question in (second, third, neighbour):
        assert respondent.answer(question, b"me") is not None
    assert respondent._open_by_pipe == {}


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="from 1"):
        Respondent(questions_per_pipe=0)
    with pytest.raises(ValueError, match="hop limit"):
        Respondent(hop_limit=16)
