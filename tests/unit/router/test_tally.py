from __future__ import annotations

import pytest

from irisd.router import BOUNDS, Tally


def test_the_buckets_are_two_to_an_octave_and_reach_from_50_us_to_a_minute():
    assert len(BOUNDS) == 41
    assert (BOUNDS[0], round(BOUNDS[2], 9), round(BOUNDS[-1])) == (50e-6, 100e-6, 52)


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (50e-6, 0), (51e-6, 1), (0.001, 9), (52.0, 40), (53.0, 41), (1e9, 41)]
)
def test_a_time_falls_into_the_first_bucket_that_it_does_not_exceed(seconds, bucket):
    tally = Tally()
    tally.time(seconds)
    assert [at for at, count in enumerate(tally.took) if count] == [bucket]
