"""A mesh too large for everybody to be linked with everybody, small enough to be played every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.sim.scale import Row, measure, records_shared, trace

NODES = 90


def check(row: Row) -> None:
    """What must hold at any size."""
    assert row.full_view < 1.0 + 5.0, "the last node starts after one second"
    for first, last in ((row.crash_first, row.crash_all), (row.silent_first, row.silent_all)):
        assert 3.0 <= first <= last <= 5.0
    assert row.stalled_false == row.churn_false == 0
    assert row.churn_known > 0.99
    assert row.churn_settles < 10.0
    if row.nodes > 64:
        assert row.links <= 12.5
        assert row.frames < 20
        assert row.bytes < 2_000


def test_beyond_the_full_mesh():
    with records_shared():
        row = measure(NODES, seed=1, churn=20.0)
    check(row)


def digest() -> str:
    return hashlib.sha256(trace(40, seed=5, seconds=20.0).encode()).hexdigest()


def test_the_same_seed_sends_the_same_in_another_process():
    program = "from tests.sim.test_scale import digest; print(digest())"
    outs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert outs == {digest()}
