"""How soon daemons see each other: with nothing but a key, by multicast over loopback, and with seeds mostly dead."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from irisd.demo.mesh import DaemonProcess, Mesh
from irisd.keys import SEED_BYTES, ServiceKey
from irisd.keys.files import write_key_file
from tests.accept.membership_ground import all_see_all, free_ports, quantile, rows, sees
from tests.integration.test_discovery import dead_ends

pytestmark = [pytest.mark.accept, pytest.mark.timeout(900)]


async def cold_start(folder: Path, number: int) -> float:
    """Start that many daemons at once; give the seconds from the last one's first answer until each says of all
    others, and of nobody else, that they are alive and linked.
    """
    key = folder / "service.key"
    write_key_file(key, ServiceKey.generate("cold", os.urandom(SEED_BYTES)).to_text())
    arguments = ["--key", str(key), "--preset", "local", "--log-level", "warning"]
    daemons: Sequence[DaemonProcess] = [DaemonProcess(folder, f"node-{n}", arguments) for n in range(number)]
    try:
        await asyncio.gather(*(daemon.start() for daemon in daemons))
        began = time.monotonic()
        await all_see_all(daemons)
        return time.monotonic() - began
    finally:
        await asyncio.gather(*(daemon.stop() for daemon in daemons))


async def cold_starts(folder: Path, number: int, runs: int) -> list[float]:
    times = []
    for run in range(runs):
        there = folder / str(run)
        there.mkdir()
        times.append(await cold_start(there, number))
    words = f"median {quantile(times, 0.5):.2f} s, p95 {quantile(times, 0.95):.2f} s, slowest {max(times):.2f} s"
    print(f"\ncold start, {number} daemons, {runs} times: {words}")
    return times


async def test_three_daemons_see_each_other_within_three_seconds(tmp_path):
    assert quantile(await cold_starts(tmp_path, 3, 20), 0.95) <= 3.0


async def test_ten_daemons_see_each_other_within_five_seconds(tmp_path):
    assert max(await cold_starts(tmp_path, 10, 5)) <= 5.0


async def test_one_live_seed_among_ten_dead_ones_is_linked_within_a_second() -> None:
    """Nine take a connection and say nothing, one refuses it; the live one is told last."""
    async with Mesh(1) as mesh:
        times = []
        for run in range(10):
            with dead_ends(9) as dead:
                seeds = [*map(str, dead), f"127.0.0.1:{free_ports(1)[0]}", mesh[0].links]
                daemon = mesh.make(f"seeded-{run}", seeds=seeds)
                try:
                    await daemon.start()
                    (peer,) = await sees(daemon, 1)
                    own = (await rows(daemon))[0]  # seconds since the search began, all but some milliseconds
                    times.append(own.since - peer.since)
                finally:
                    await daemon.stop()
        print(f"\none seed of eleven lives: linked after {quantile(times, 0.5):.2f} s, {max(times):.2f} s at most")
        assert max(times) <= 1.0
