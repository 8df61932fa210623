from __future__ import annotations

from collections import Counter

import pytest

from irisd.errors import WireError
from irisd.membership.heart import MAX_SURVEYS, ROUND_INTERVALS, Heart
from irisd.membership.rounds import Beat, decode_answer, decode_question, encode_answer, encode_question
from irisd.model import NodeId
from tests.unit.membership.ground import id_of

PEER, OTHER = id_of(2), id_of(3)
BEAT = Beat(1, 0, 0xABC)


class Alone:
    """A heart whose messages the test carries."""

    def __init__(self) -> None:
        self.sent: list[tuple[NodeId, bytes]] = []
        self.counts: Counter[str] = Counter()
        self.heart = Heart(
            1.0,
            0x7FFF_FFFF,  # ids wrap at 31 bits
            lambda node, parts: self.sent.append((node, b"".join(parts))),
            lambda: BEAT,
            lambda: [7] * 256,
            self.counts,
        )

    def up(self, node: NodeId = PEER, *, asks: bool = True, now: float = 0.0) -> None:
        self.heart.link_up(node, asks=asks, speaks=True, now=now, awake=now)

    def receive(self, message: bytes, node: NodeId = PEER, now: float = 0.5):
        return self.heart.received(node, message, now, now)


def answer_to(question: bytes, beat: Beat = BEAT, buckets: list[int] | None = None) -> bytes:
    return question[:4] + encode_answer(decode_question(question[4:]).round, beat, buckets)


def question(survey: int = 1, beat: Beat = BEAT, interval: float = 1.0) -> bytes:
    return (0x8000_0000 | survey).to_bytes(4) + encode_question(interval, 9, beat)


def test_the_side_that_dialled_asks_at_once_the_other_waits():
    alone = Alone()
    alone.up()
    alone.up(OTHER, asks=False)
    ((node, message),) = alone.sent
    assert node == PEER
    assert message[0] & 0x80
    assert decode_question(message[4:]) == (1.0, 1, BEAT)


def test_an_answer_is_a_sign_of_life_with_its_time():
    alone = Alone()
    alone.up()
    heard = alone.receive(answer_to(alone.sent[0][1], Beat(4, 3, 2), [1] * 256), now=0.25)
    assert heard is not None
    assert (heard.beat, heard.answered, heard.buckets) == (Beat(4, 3, 2), True, (1,) * 256)
    pulse = alone.heart.pulses[PEER]
    assert (pulse.rtt, pulse.heard, pulse.asked_at) == (0.25, 0.25, None)


def test_a_question_is_answered_with_the_buckets_only_where_views_differ():
    alone = Alone()
    alone.up(asks=False)
    heard = alone.receive(question(5))
    assert heard is not None and not heard.answered and heard.beat == BEAT
    alone.receive(question(6, BEAT._replace(digest=1)))
    (_, same), (_, differs) = alone.sent
    assert same[:4] == (0x8000_0005).to_bytes(4)
    assert decode_answer(same[4:]) == (9, BEAT, None)
    assert decode_answer(differs[4:]) == (9, BEAT, (7,) * 256)
    assert alone.heart.pulses[PEER].heard == 0.5


def test_a_first_release_question_is_answered_without_buckets():
    alone = Alone()
    alone.up(asks=False)
    heard = alone.receive(question()[:17])
    assert heard is not None and heard.beat is None
    assert decode_answer(alone.sent[0][1][4:]).buckets is None


def test_the_question_announces_the_interval():
    alone = Alone()
    alone.up(asks=False)
    alone.receive(question(interval=0.1))
    assert alone.heart.pulses[PEER].interval == 0.1


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda asked: asked, "repeated"),
        (lambda asked: (int.from_bytes(asked[:4]) + 5 | 1 << 31).to_bytes(4) + asked[4:], "unknown"),
        (lambda asked: bytes(4) + asked, "astray"),
    ],
)
def test_answers_that_are_none_are_dropped_by_name(make, name: str):
    alone = Alone()
    alone.up()
    alone.up(OTHER)
    alone.heart.round(1.0, 1.0)  # to both: it stays open when one has answered
    answer = answer_to(next(message for node, message in alone.sent[2:] if node == PEER))
    assert alone.receive(answer, now=1.1) is not None
    rtt = alone.heart.pulses[PEER].rtt
    assert alone.receive(make(answer), now=1.2) is None
    assert alone.counts == {f"dropped.survey-{name}": 1}
    assert (alone.heart.pulses[PEER].rtt, alone.heart.pulses[PEER].heard) == (rtt, 1.1)


def test_an_answer_to_what_somebody_else_was_asked_is_dropped():
    alone = Alone()
    alone.up()
    alone.up(OTHER)
    assert alone.receive(answer_to(alone.sent[0][1]), node=OTHER) is None
    assert alone.counts == {"dropped.survey-unasked": 1}
    assert alone.heart.pulses[PEER].asked_at == 0.0  # PEER still owes it
    assert alone.receive(answer_to(alone.sent[0][1])) is not None


def test_a_late_answer_is_a_sign_of_life_and_says_nothing_else():
    alone = Alone()
    alone.up()
    alone.heart.round(ROUND_INTERVALS, ROUND_INTERVALS)  # the first one ends here
    assert alone.receive(answer_to(alone.sent[0][1], BEAT._replace(digest=1)), now=5.5) is None
    assert alone.counts == {"dropped.survey-late": 1}
    assert alone.heart.pulses[PEER].heard == 5.5
    assert alone.heart.pulses[PEER].rtt is None


def test_answers_to_a_link_that_is_gone_are_not_answers_of_the_next():
    alone = Alone()
    alone.up()
    alone.heart.link_down(PEER)
    alone.heart.link_down(PEER)  # unknown ones are ordinary
    alone.up()
    assert alone.receive(answer_to(alone.sent[0][1])) is None
    assert alone.receive(answer_to(alone.sent[1][1])) is not None


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("message", [b"", b"\x80", b"\x00\x00\x00\x01", b"\x80\x00\x00"])
def test_no_survey_id_is_no_heartbeat(asks: bool, message: bytes):
    alone = Alone()
    alone.up(asks=asks)
    with pytest.raises(WireError):
        alone.receive(message)


def test_bodies_that_are_no_heartbeats_are_refused():
    alone = Alone()
    alone.up()
    with pytest.raises(WireError, match="answer"):
        alone.receive(alone.sent[0][1][:4] + b"\x02" + bytes(8))
    alone.up(OTHER, asks=False)
    with pytest.raises(WireError, match="question"):
        alone.receive(question()[:8], node=OTHER)


def test_a_round_is_complete_when_all_have_answered_the_one_before():
    alone = Alone()
    assert alone.heart.round(0.0, 0.0)  # nobody to ask
    alone.up(now=0.0)
    assert not alone.heart.round(1.0, 1.0)
    for _, message in list(alone.sent):
        alone.receive(answer_to(message), now=1.5)
    assert alone.heart.round(2.0, 2.0)


def test_what_is_open_is_bounded_even_if_nobody_answers():
    alone = Alone()
    alone.up()
    for _ in range(1000):
        alone.heart.ask([PEER], 0.1, 0.1)
    assert len(alone.sent) == MAX_SURVEYS * 3 // 4
    alone.heart.round(1.0, 1.0)  # rounds have their own room
    assert len(alone.sent) == MAX_SURVEYS * 3 // 4 + 1
    for _ in range(1000):
        alone.heart.round(1.0, 1.0)
    assert len(alone.sent) == MAX_SURVEYS
    alone.heart.ask([PEER], 6.5, 6.5)  # those have ended
    assert len(alone.sent) == MAX_SURVEYS + 1
