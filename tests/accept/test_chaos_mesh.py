"""A short run of ``make chaos``, always the same faults: partitions, one-way cuts, kills, pauses, delays."""

from __future__ import annotations

import os

import pytest

from tests.accept.chaos import run

SEED = int(os.environ.get("SEED") or 7)
MINUTES = float(os.environ.get("MINUTES") or 1.5)

pytestmark = [pytest.mark.accept, pytest.mark.timeout(int(60 * MINUTES) + 240)]


async def test_every_promise_holds_whatever_breaks() -> None:
    report = await run(SEED, MINUTES, nodes=4)
    assert not report.breaches, f"{len(report.breaches)} breaches, the first: {report.breaches[0]}; {report.command}"
    assert sum(report.faults.values()) >= 8 * MINUTES, "hardly any chaos"
    outcomes = report.books.outcomes
    assert outcomes["request"]["done"] > outcomes["request"].total() / 2
    assert outcomes["idempotent"]["done"] == outcomes["idempotent"].total(), "longer than any fault they waited"
