"""How a mesh behaves at 10, 100 and 1,000 nodes, simulated with the daemon's own classes; ``SCALE=3000`` for others.

The table is that of ``make scale``.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from tests.sim.scale import measure, records_shared
from tests.sim.test_scale import check

SIZES = [int(size) for size in os.environ.get("SCALE", "10,100,1000").split(",")]


@pytest.fixture(autouse=True)
def nothing_is_garbage() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.accept
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("nodes", SIZES)
def test_scale(nodes: int):
    with records_shared():
        row = measure(nodes, seed=1, churn=60.0 if nodes <= 1000 else 20.0)
    check(row)
    assert row.memory < 4_096  # MB
