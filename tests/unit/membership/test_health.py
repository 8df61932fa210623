from __future__ import annotations

import pytest

from irisd.membership.health import MAX_SCORE, Health


def test_in_time_the_clock_runs():
    health = Health(1.0)
    for now in (10.0, 10.25, 11.0):
        health.on_time(now, now)
        assert health.awake(now) == now
    assert (health.score, health.stretch, health.stalls(11.0)) == (0, 1.0, (0, 0.0))


@pytest.mark.parametrize(
    ("interval", "late", "stalled"),
    [
        (1.0, 0.25, False),
        (1.0, 0.26, True),
        (0.1, 0.025, False),
        (0.1, 0.03, True),
        (0.01, 0.0199, False),
        (1.0, -5.0, False),
    ],
)
def test_a_quarter_of_an_interval_late_is_held_up(interval: float, late: float, stalled: bool):
    health = Health(interval)
    health.on_time(0.0, late)
    assert health.stalls(late)[0] == stalled
    assert health.awake(late) == (0.0 if stalled else late)


def test_the_clock_stands_still_while_the_node_does():
    health = Health(1.0)
    health.on_time(10.0, 17.5)
    assert health.awake(17.5) == 10.0
    assert health.awake(18.0) == 10.5
    health.on_time(18.0, 20.0)
    assert health.awake(20.0) == 10.5
    assert health.stalls(20.0) == (2, 7.5)


def test_the_stretch_is_bounded_and_comes_back():
    health = Health(1.0)
    for _ in range(100):
        health.worse()
    assert (health.score, health.stretch) == (MAX_SCORE, 3.0)
    for _ in range(100):
        health.better(0.0)
    assert (health.score, health.stretch) == (0, 1.0)


def test_stalls_are_told_for_a_minute():
    health = Health(1.0)
    health.on_time(0.0, 3.0)
    health.on_time(50.0, 51.0)
    assert health.stalls(63.0) == (2, 3.0)
    assert health.stalls(63.1) == (1, 1.0)
    assert health.stalls(111.1) == (0, 0.0)


def test_many_stalls_are_counted_up_to_a_bound():
    health = Health(0.1)
    for n in range(10_000):
        health.on_time(n / 1000, n / 1000 + 0.5)
    times, longest = health.stalls(10.5)
    assert (times, round(longest, 3)) == (256, 0.5)


def test_a_complete_round_right_after_a_stall_mends_nothing():
    health = Health(1.0)
    health.on_time(0.0, 3.0)
    health.better(3.5)
    health.better(7.9)
    assert health.score == 1
    health.better(8.0)
    assert health.score == 0
