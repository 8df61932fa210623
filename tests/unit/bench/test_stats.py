"""Figures from samples."""

from __future__ import annotations

import pytest

from bench.stats import Schedule, Spread, human, latencies, percentile, ratio, spread, summary


def test_spread_is_the_middle_and_both_ends():
    assert spread([3.0, 1.0, 9.0]) == Spread(median=3.0, least=1.0, most=9.0)
    assert spread([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)
    with pytest.raises(ValueError, match="no values"):
        spread([])


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.999, 100), (1.0, 100)]
)
def test_percentile_is_a_sample_that_so_many_do_not_exceed(share, value):
    assert percentile(list(range(1, 101)), share) == value


def test_percentile_of_one_is_that_one():
    assert percentile([7.0], 0.999) == 7.0


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 1.1), ([1.0], -0.1)])
def test_percentile_refuses_nonsense(values, share):
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_schedule_does_not_wait_for_anybody():
    schedule = Schedule(start=10.0, rate=4.0)
    assert [schedule.due(number) for number in range(3)] == [10.0, 10.25, 10.5]


def test_a_stall_counts_for_everyone_it_kept_waiting():
    """100 requests/s for 2 s; each takes 1 ms, but in the middle the system stands still for a second.

    Whoever asks one after the other sends nothing meanwhile: counted from the sending, one of 200 is slow and the
    99th percentile is 1 ms. Counted from the intended instants, half of them waited, up to a second.
    """
    schedule = Schedule(start=0.0, rate=100.0)
    now, ended, from_sending = 0.0, [], []
    for number in range(200):
        now = max(now, schedule.due(number))
        sent = now
        now += 1.0 if number == 100 else 0.001
        ended.append(now)
        from_sending.append(now - sent)
    assert percentile(sorted(from_sending), 0.99) == pytest.approx(0.001)

    found = latencies(schedule, ended)

    assert found == sorted(found)
    assert percentile(found, 0.50) == pytest.approx(0.001, rel=0.5)
    assert percentile(found, 0.90) > 0.5
    assert percentile(found, 0.99) == pytest.approx(1.0, rel=0.05)


def test_summary_is_in_microseconds():
    found = summary([0.001, 0.002, 0.003])
    assert found == pytest.approx({"mean us": 2000.0, "p50 us": 2000.0, "p99 us": 3000.0, "p99.9 us": 3000.0})


def test_ratio_to_nothing_is_none():
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(3.0, 0.0) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234567.8, "1,234,568")]
)
def test_human_has_the_digits_a_figure_deserves(value, text):
    assert human(value) == text
