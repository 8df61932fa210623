"""A subscriber that never reads: the daemon stays small, its neighbour notices little, what it lost is told exactly.

Then the same with one that must lose nothing: its publisher waits while it does not read, and goes at full speed while
it does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import quantiles

import pytest
import pytest_asyncio

import iris_client as iris
from iris_client import MiB
from tests.integration.sdk_ground import DaemonProcess, new_key

pytestmark = pytest.mark.accept

COUNT = 1000
QUEUE = 64 * MiB
"""Of the slow subscriber; the daemon holds no more for it."""
RSS_BOUND = 64 * MiB + QUEUE + 2 * 64 * MiB
"""The daemon itself, the slow one's queue, and what may be on its way to and from apps."""
PATIENCE = 120.0


@pytest_asyncio.fixture
async def daemon(run_dir: Path) -> AsyncIterator[DaemonProcess]:
    key = str(new_key(run_dir))
    made = DaemonProcess(run_dir, "one", "--key", key, "--stall-timeout", "1s").start()
    try:
        await made.told(r'"links": ')
        yield made
    finally:
        made.kill()


def resident(daemon: DaemonProcess) -> int:
    """Bytes of memory the daemon has now."""
    assert daemon._process is not None
    status = Path(f"/proc/{daemon._process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


async def paced(publisher: iris.Mesh, events: iris.Subscription, topic: str, size: int, daemon: DaemonProcess) -> float:
    """Publish one after the other, each once the healthy subscriber has the one before; return the p99 in seconds."""
    took = []
    peak = 0
    for number in range(COUNT):
        began = time.perf_counter()
        await publisher.publish(topic, number.to_bytes(4, "big") + bytes(size - 4))
        event = await anext(events)
        took.append(time.perf_counter() - began)
        assert int.from_bytes(event.body[:4], "big") == number
        assert event.lost == 0
        if number % 50 == 0:
            peak = max(peak, resident(daemon))
    assert peak < RSS_BOUND, f"{peak >> 20} MiB"
    print(f"peak {peak >> 20} MiB")
    return quantiles(took, n=100)[98]


async def test_one_that_never_reads_beside_a_healthy_one(daemon: DaemonProcess):
    async with (
        asyncio.timeout(PATIENCE),
        iris.connect(daemon.url) as publisher,
        iris.connect(daemon.url) as healthy,
        iris.connect(daemon.url) as sleepy,
        healthy.subscribe("t") as events,
    ):
        alone = await paced(publisher, events, "t", MiB, daemon)
        async with sleepy.subscribe("t", max_bytes=QUEUE) as slow:
            beside = await paced(publisher, events, "t", MiB, daemon)
            lost = count = 0
            while count + lost < COUNT:  # what was lost before the last that came is told with it
                event = await anext(slow)
                count += 1
                assert event.lost is not None
                lost += event.lost
            assert count + lost == COUNT
            assert lost == slow.lost > 0
    print(f"p99 alone {alone * 1e3:.2f} ms, beside the slow one {beside * 1e3:.2f} ms, it lost {lost}")
    assert beside <= 2 * alone


async def test_one_that_must_lose_nothing_at_full_speed(daemon: DaemonProcess):
    rates = {}
    for when_full in ("drop_oldest", "block"):
        async with (
            asyncio.timeout(PATIENCE),
            iris.connect(daemon.url) as publisher,
            iris.connect(daemon.url) as subscriber,
            subscriber.subscribe(f"t.{when_full}", when_full=when_full) as events,
        ):
            bodies = [bytes(1024)] * 100_000
            began = time.perf_counter()
            publishing = asyncio.create_task(publisher.publish_many(f"t.{when_full}", bodies))
            count = 0
            async for batch in events.batches():
                count += len(batch) + sum(event.lost or 0 for event in batch)
                if count == len(bodies):
                    break
            await publishing
            rates[when_full] = count / (time.perf_counter() - began)
            assert when_full != "block" or events.lost == 0
    print({name: f"{rate:.0f}/s" for name, rate in rates.items()})
    assert rates["block"] >= rates["drop_oldest"] / 3
    assert resident(daemon) < RSS_BOUND


async def test_one_that_must_lose_nothing_and_does_not_read(daemon: DaemonProcess):
    async with (
        asyncio.timeout(PATIENCE),
        iris.connect(daemon.url) as publisher,
        iris.connect(daemon.url, name="sleepy") as sleepy,
        sleepy.subscribe("t", when_full="block") as slow,
    ):
        accepted = 0
        with pytest.raises(iris.SlowSubscriber, match="sleepy"):
            while True:
                await publisher.publish("t", accepted.to_bytes(4, "big") + bytes(MiB))
                accepted += 1
        assert resident(daemon) < RSS_BOUND
        for number in range(accepted):
            assert int.from_bytes((await anext(slow)).body[:4], "big") == number
        await publisher.flush()
        assert slow.lost == 0
