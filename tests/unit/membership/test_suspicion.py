from __future__ import annotations

from itertools import pairwise

import pytest

from irisd.membership.suspicion import HELPERS, LEAST, MOST, Suspicion
from tests.unit.membership.ground import id_of


def suspicion(asked: int = 0, confirmed: int = 0, interval: float = 1.0) -> Suspicion:
    one = Suspicion(10.0, 11.0, interval)
    one.asked = {id_of(n) for n in range(asked)}
    one.confirmed = {id_of(n) for n in range(confirmed)}
    return one


def test_with_nobody_to_ask_it_is_the_least():
    assert suspicion().timeout() == LEAST
    assert suspicion(confirmed=3).timeout() == LEAST


@pytest.mark.parametrize("asked", range(1, HELPERS + 1))
def test_each_confirmation_shortens_it_between_the_bounds(asked: int):
    times = [suspicion(asked, confirmed).timeout() for confirmed in range(asked + 1)]
    assert times[0] == MOST
    assert times[-1] == pytest.approx(LEAST)
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == asked + 1


def test_the_first_confirmation_counts_most():
    times = [suspicion(5, confirmed).timeout() for confirmed in range(6)]
    steps = [before - after for before, after in pairwise(times)]
    assert steps == sorted(steps, reverse=True)


def test_who_was_not_asked_confirms_nothing():
    one = suspicion(asked=2)
    one.confirmed = {id_of(n) for n in range(100, 200)}
    assert one.timeout() == MOST


def test_never_below_three_intervals_of_any_length():
    for interval in (0.01, 0.1, 1.0, 10.0):
        for asked in range(6):
            for confirmed in range(asked + 1):
                assert 3.0 * interval < suspicion(asked, confirmed, interval).timeout() <= MOST * interval + 1e-9


def test_vouching_moves_the_silence_to_where_the_next_sign_is_due():
    one = suspicion(asked=2, confirmed=1)
    assert one.vouch(id_of(9), 12.5)
    assert (one.since, one.voucher, one.confirmed) == (13.5, id_of(9), set())


def test_old_evidence_is_no_news_and_takes_nothing_back():
    one = suspicion(asked=2, confirmed=1)
    one.vouch(id_of(9), 12.5)
    one.confirmed.add(id_of(1))
    for evidence in (12.5, 12.0, -1e9):
        assert not one.vouch(id_of(8), evidence)
    assert (one.since, one.voucher, one.confirmed) == (13.5, id_of(9), {id_of(1)})
    fresh = Suspicion(10.0, 10.0, 1.0)
    assert not fresh.vouch(id_of(8), 9.0)  # what was heard just when its silence began
    assert fresh.voucher == b""
