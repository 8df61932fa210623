"""Bodies of heartbeats, byte by byte: ``docs/wire.md`` has the table."""

from __future__ import annotations

import pytest

from irisd.errors import WireError
from irisd.membership.rounds import (
    Answer,
    Beat,
    Question,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
)
from tests.vectors.wire.golden import golden

BEAT = Beat(3, 2, int.from_bytes(bytes(range(16))))
BUCKETS = [0] * 255 + [0xFFFF_FFFF]
GOLDEN = golden("beat.")
QUESTION, ANSWER, DIFFERS = GOLDEN["beat.question"], GOLDEN["beat.answer"], GOLDEN["beat.answer.head"] + bytes(255 * 4)
DIFFERS += b"\xff" * 4


def test_golden_bytes_both_ways():
    assert encode_question(1.0, 7, BEAT) == QUESTION
    assert decode_question(QUESTION) == Question(1.0, 7, BEAT)
    assert encode_answer(7, BEAT, None) == ANSWER
    assert decode_answer(ANSWER) == Answer(7, BEAT, None)
    assert encode_answer(7, BEAT, BUCKETS) == DIFFERS
    assert decode_answer(DIFFERS) == Answer(7, BEAT, tuple(BUCKETS))


def test_the_first_release_says_only_the_head():
    assert decode_question(GOLDEN["beat.question.first-release"]) == Question(1.0, 7, None)
    assert decode_answer(GOLDEN["beat.answer.first-release"]) == Answer(7, None, None)
    assert QUESTION.startswith(GOLDEN["beat.question.first-release"])
    assert ANSWER.startswith(GOLDEN["beat.answer.first-release"])


@pytest.mark.parametrize("size", range(len(QUESTION)))
def test_a_question_cut_short_says_less_or_is_none(size: int):
    if size < 13:
        with pytest.raises(WireError, match="not a heartbeat"):
            decode_question(QUESTION[:size])
    else:
        assert decode_question(QUESTION[:size]) == Question(1.0, 7, None)


@pytest.mark.parametrize("size", [*range(50), 34 + 1023, len(DIFFERS) - 1])
def test_an_answer_cut_short_says_less_or_is_none(size: int):
    if size < 9:
        with pytest.raises(WireError, match="not a heartbeat"):
            decode_answer(DIFFERS[:size])
    else:
        assert decode_answer(DIFFERS[:size]) == Answer(7, BEAT if size >= 34 else None, None)


def test_what_later_releases_add_is_ignored():
    assert decode_question(QUESTION + b"more") == decode_question(QUESTION)
    assert decode_answer(DIFFERS + b"more") == decode_answer(DIFFERS)


@pytest.mark.parametrize("interval_ms", [0, 9, 3_600_001, 2**32 - 1])
def test_intervals_out_of_reason_are_refused(interval_ms: int):
    with pytest.raises(WireError, match="interval"):
        decode_question(b"\x01" + interval_ms.to_bytes(4) + bytes(8))


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_no_heartbeat(version: int):
    with pytest.raises(WireError):
        decode_question(bytes([version]) + QUESTION[1:])
    with pytest.raises(WireError):
        decode_answer(bytes([version]) + ANSWER[1:])


@pytest.mark.parametrize("beat", [Beat(0, 0, 0), Beat(2**64 - 1, 255, 2**128 - 1)])
def test_extremes_come_back(beat: Beat):
    assert decode_question(encode_question(0.01, 2**64 - 1, beat)) == Question(0.01, 2**64 - 1, beat)
    assert decode_answer(encode_answer(0, beat, [2**32 - 1] * 256)).beat == beat
