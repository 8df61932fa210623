from __future__ import annotations

from irisd.membership.pulse import Pulse


def pulse(*, asks: bool, interval: float = 1.0) -> Pulse:
    return Pulse(asks=asks, interval=interval, awake=100.0, speaks=True)


def test_the_asking_side_counts_from_the_question_left_without_an_answer():
    one = pulse(asks=True)
    assert one.silence(500.0) == 0.0  # nothing was due
    one.ask(101.0)
    one.ask(102.0)  # the first question counts
    assert one.silence(102.5) == 1.5
    assert not one.is_suspect(101.99, 1.0)
    assert one.is_suspect(102.0, 1.0)
    one.hear(102.6)
    assert one.silence(200.0) == 0.0
    one.ask(103.0)
    assert one.silence(103.25) == 0.25


def test_the_answering_side_counts_from_the_question_that_did_not_come():
    other = pulse(asks=False)
    assert other.silence(100.9) == 0.0
    assert other.silence(103.0) == 2.0
    assert not other.is_suspect(102.99, 1.0)
    assert other.is_suspect(103.0, 1.0)
    other.hear(103.5)
    assert other.silence(105.0) == 0.5


def test_the_stretch_and_the_askers_interval_give_more_time():
    for asks, missed in ((True, 1.0), (False, 3.0)):
        slow = pulse(asks=asks, interval=2.0)
        slow.ask(100.0)
        assert not slow.is_suspect(100.0 + 2 * missed - 0.01, 1.0)
        assert slow.is_suspect(100.0 + 2 * missed, 1.0)
        assert not slow.is_suspect(100.0 + 2 * missed, 1.5)


def test_age_is_never_negative():
    one = pulse(asks=True)
    one.hear(105.0)
    assert one.age(104.0) == 0.0
    assert one.age(106.0) == 1.0
    assert pulse(asks=False).silence(50.0) == 0.0
