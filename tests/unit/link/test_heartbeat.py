"""The heartbeat: questions, answers, silence, probes, and a clock that jumps."""

from __future__ import annotations

import pytest

from irisd.errors import WireError
from irisd.link.heartbeat import Heartbeat


def beats(interval: float = 1.0, now: float = 100.0) -> tuple[Heartbeat, Heartbeat]:
    asker = Heartbeat(asks=True, interval=interval, first_id=0, now=now)
    return asker, Heartbeat(asks=False, interval=interval, first_id=0, now=now)


def ask(asker: Heartbeat, now: float) -> bytes:
    asker.next_deadline()
    question, silent = asker.on_deadline(now)
    assert question is not None and not silent
    return b"".join(question)


def test_question_and_answer_are_golden() -> None:
    asker, answerer = beats()
    question = ask(asker, 100.0)
    assert question.hex() == "80000000" + "01" + "000003e8" + "0000000000000001"
    answer = answerer.message_received(question, 100.0)
    assert answer is not None and b"".join(answer).hex() == "80000000" + "01" + "0000000000000001"
    assert asker.message_received(b"".join(answer), 100.25) is None
    assert asker.rtt == 0.25


def test_one_question_per_interval() -> None:
    asker, _ = beats()
    assert asker.next_deadline() == 100.0
    ask(asker, 100.0)
    assert asker.next_deadline() == 101.0
    assert asker.on_deadline(100.5) == (None, False)
    ask(asker, 101.0)


def test_the_question_announces_the_interval() -> None:
    asker = Heartbeat(asks=True, interval=0.2, first_id=7, now=0.0)
    answerer = Heartbeat(asks=False, interval=1.0, first_id=0, now=0.0)
    answerer.message_received(ask(asker, 0.0), 0.0)
    assert answerer.interval == 0.2
    answerer.heard(0.0)
    assert answerer.next_deadline() == pytest.approx(1.0)


def test_five_intervals_of_nothing_are_silence_on_both_sides() -> None:
    for beat in beats():
        for now in (100.0, 101.0, 102.0, 103.0, 104.0):
            beat.next_deadline()
            assert beat.on_deadline(now)[1] is False
        beat.next_deadline()
        assert beat.on_deadline(105.0) == (None, True)


def test_whatever_is_heard_counts() -> None:
    _, answerer = beats()
    answerer.heard(104.0)
    assert answerer.next_deadline() == 109.0
    assert answerer.on_deadline(105.0) == (None, False)


def test_who_was_held_up_gives_one_more_interval() -> None:
    asker, answerer = beats()
    for beat in (asker, answerer):
        beat.next_deadline()
        assert beat.on_deadline(160.0)[1] is False  # stopped for a minute
        beat.next_deadline()
        assert beat.on_deadline(161.0) == (None, True)  # and still nothing


def test_an_answer_kept_waiting_by_ourselves_still_counts() -> None:
    asker, answerer = beats()
    answer = answerer.message_received(ask(asker, 100.0), 100.0)
    assert answer is not None
    asker.message_received(b"".join(answer), 104.9)
    assert asker.rtt == pytest.approx(4.9)


def test_a_probe_of_the_asking_side() -> None:
    asker, answerer = beats()
    ask(asker, 100.0)
    assert asker.probe_verdict(100.1) is None  # none was begun
    question = asker.probe(100.2, 9.0)
    assert question is not None
    assert asker.probe_verdict(100.3) is None
    answer = answerer.message_received(b"".join(question), 100.3)
    assert answer is not None
    asker.message_received(b"".join(answer), 100.4)
    assert asker.probe_verdict(100.4) is True
    assert asker.probe_verdict(100.4) is None  # told once


def test_a_probe_that_nobody_answers() -> None:
    asker, _ = beats()
    asker.probe(100.0, 9.0)
    assert asker.next_deadline() <= 102.0
    assert asker.probe_verdict(101.9) is None
    assert asker.probe_verdict(102.0) is False


def test_a_probe_takes_no_longer_than_who_waits_for_it() -> None:
    asker, _ = beats(interval=60.0)
    asker.probe(100.0, 2.5)
    assert asker.probe_verdict(102.4) is None
    assert asker.probe_verdict(102.5) is False


def test_a_probe_of_the_answering_side_waits_for_the_next_question() -> None:
    asker, answerer = beats()
    assert answerer.probe(100.0, 0.1) is None
    assert answerer.next_deadline() == 102.0
    answerer.message_received(ask(asker, 101.0), 101.0)
    assert answerer.probe_verdict(101.0) is True
    answerer.probe(103.0, 0.1)
    assert answerer.probe_verdict(105.0) is False


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"\x80\x00\x00",
        b"\x00\x00\x00\x01\x01",  # no survey id
        b"\x80\x00\x00\x01",
        b"\x80\x00\x00\x01" + b"\x02" + b"\x00\x00\x03\xe8" + bytes(8),
        b"\x80\x00\x00\x01" + b"\x01" + b"\x00\x00\x00\x00" + bytes(8),
        b"\x80\x00\x00\x01" + b"\x01" + b"\xff\xff\xff\xff" + bytes(8),
    ],
)
def test_questions_that_are_none(question: bytes) -> None:
    _, answerer = beats()
    with pytest.raises(WireError):
        answerer.message_received(question, 100.0)


def test_questions_of_a_later_version_may_be_longer() -> None:
    asker, answerer = beats()
    assert answerer.message_received(ask(asker, 100.0) + b"more", 100.0) is not None


def test_a_question_that_went_in_circles_is_dropped() -> None:
    _, answerer = beats()
    assert answerer.message_received(b"\x00\x00\x00\x01" * 9 + b"\x80\x00\x00\x01", 100.0) is None


@pytest.mark.parametrize("answer", [b"", b"\x80\x00\x00\x05" + b"\x01" + bytes(8), b"\x80\x00\x00\x00\x01"])
def test_answers_that_are_none(answer: bytes) -> None:
    asker, _ = beats()
    ask(asker, 100.0)
    with pytest.raises(WireError):
        asker.message_received(answer, 100.0)


def test_late_and_repeated_answers_are_ordinary() -> None:
    asker, answerer = beats()
    answer = answerer.message_received(ask(asker, 100.0), 100.0)
    assert answer is not None
    for _ in range(2):
        asker.message_received(b"".join(answer), 100.1)
    assert asker.rtt == pytest.approx(0.1)


def test_questions_without_answers_do_not_pile_up() -> None:
    asker, _ = beats()
    for second in range(1_000):
        asker.heard(100.0 + second)  # data flows, answers do not come
        ask(asker, 100.0 + second)
