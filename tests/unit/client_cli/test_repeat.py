"""What came of many requests."""

from __future__ import annotations

from iris_client import _errors as errors
from iris_client.cli.repeat import Tally


def test_quantiles():
    tally = Tally()
    assert tally.quantile(0.5) == 0.0
    for number in range(100, 0, -1):
        tally.replied("a", number / 1000)
    assert tally.quantile(0.5) == 0.051
    assert tally.quantile(0.99) == 0.1
    assert tally.quantile(0.0) == 0.001


def test_the_exit_code_is_that_of_what_went_wrong():
    tally = Tally()
    tally.replied("a", 0.1)
    assert tally.exit_code == 0
    tally.failed(errors.DeadlineExceeded("late"))
    tally.failed(errors.DeadlineExceeded("late"))
    assert tally.exit_code == 5
    tally.failed(errors.NoMember("nobody"))
    assert tally.exit_code == 1
    assert tally.errors == {"DeadlineExceeded": 2, "NoMember": 1}
