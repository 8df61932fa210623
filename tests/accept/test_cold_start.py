"""How soon daemons that have nothing but a key see each other, by multicast over the loopback interface."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from irisd.demo.mesh import DaemonProcess
from irisd.keys import SEED_BYTES, ServiceKey
from irisd.keys.files import write_key_file

pytestmark = [pytest.mark.accept, pytest.mark.timeout(900)]


async def cold_start(folder: Path, number: int) -> float:
    """Start that many daemons at once; give the seconds from the last one's first answer to the full view of all."""
    key = folder / "service.key"
    write_key_file(key, ServiceKey.generate("cold", os.urandom(SEED_BYTES)).to_text())
    arguments = ["--key", str(key), "--preset", "local", "--log-level", "warning"]
    daemons: Sequence[DaemonProcess] = [DaemonProcess(folder, f"node-{n}", arguments) for n in range(number)]
    try:
        await asyncio.gather(*(daemon.start() for daemon in daemons))
        began = time.monotonic()
        await asyncio.gather(*(daemon.linked(number - 1) for daemon in daemons))
        return time.monotonic() - began
    finally:
        await asyncio.gather(*(daemon.stop() for daemon in daemons))


async def test_three_daemons_see_each_other_within_three_seconds(tmp_path):
    times = []
    for run in range(20):
        folder = tmp_path / str(run)
        folder.mkdir()
        times.append(await cold_start(folder, 3))
    times.sort()
    print(f"three daemons: median {times[10]:.2f} s, p95 {times[18]:.2f} s, slowest {times[-1]:.2f} s")
    assert times[18] <= 3.0


async def test_ten_daemons_see_each_other_within_five_seconds(tmp_path):
    took = await cold_start(tmp_path, 10)
    print(f"ten daemons: {took:.2f} s")
    assert took <= 5.0
