"""What very many subscriptions cost: bytes, the time of a match, and the longest a brain is busy with them."""

from __future__ import annotations

import pytest

from bench.index import churn_times, match_times, subscribing, subscription_bytes

FEW, MANY = 10, 1_000_000

pytestmark = [pytest.mark.accept, pytest.mark.timeout(900)]


def test_a_match_takes_about_as_long_among_a_million_as_among_ten():
    for kind, times in match_times((FEW, MANY)).items():
        for what in ("cold", "warm"):
            few, many = times[FEW][what], times[MANY][what]
            assert many <= 2 * few, f"{kind}, {what}: {few * 1e6:.2f} us among {FEW}, {many * 1e6:.2f} among {MANY}"


def test_one_that_flips_costs_others_little():
    times = churn_times(100_000)
    assert times["exact"] < times["*"] < 10e-6  # at worst every match is worked out anew
    assert times["exact"] - times["nothing"] < 2e-6


def test_a_subscription_costs_at_most_400_bytes():
    assert subscription_bytes(200_000) <= 400
    assert subscription_bytes(200_000, apps=1) <= 400


def test_a_brain_is_never_busy_for_long_with_a_million():
    figures = subscribing(MANY)
    for what in ("longest_subscribing", "longest_telling", "longest_learning", "longest_ending"):
        assert figures[what] < 0.1, f"{what}: {figures[what] * 1e3:.0f} ms"  # a tenth of a heartbeat
    assert figures["there"] <= 400
