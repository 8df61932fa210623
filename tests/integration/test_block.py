"""Subscribers that must lose nothing, over real daemons: only who publishes to them waits, and is told for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import iris_client as iris
from tests.integration.sdk_ground import PATIENCE, DaemonProcess, new_key

COUNT = 3000
SIZE = 4000


@pytest_asyncio.fixture
async def urls(run_dir: Path) -> AsyncIterator[list[str]]:
    """Two linked daemons that tell a publisher after half a second for whom it waits."""
    options = ("--key", str(new_key(run_dir)), "--stall-timeout", "500ms")
    made = [DaemonProcess(run_dir, "one", *options).start()]
    try:
        address = await made[0].told(r'"links": \["(127\.0\.0\.1:\d+)"\]')
        made.append(DaemonProcess(run_dir, "two", *options, "--seed", address).start())
        for daemon in made:
            await daemon.told("link.up")
        yield [daemon.url for daemon in made]
    finally:
        for daemon in made:
            daemon.kill()


def body(number: int) -> bytes:
    return b"%d" % number + bytes(SIZE)


async def numbers(events: iris.Subscription, count: int) -> list[int]:
    async with asyncio.timeout(PATIENCE):
        return [int((await anext(events)).body[:-SIZE]) for _ in range(count)]


@pytest.mark.parametrize("node", [0, 1], ids=["own node", "other node"])
@pytest.mark.parametrize("group", [None, "billing"])
async def test_only_publishers_of_that_topic_wait(urls: list[str], node: int, group: str | None):
    async with (
        iris.connect(urls[0], name="publisher") as publisher,
        iris.connect(urls[0], name="bystander") as bystander,
        iris.connect(urls[node], name="sleepy") as sleepy,
        iris.connect(urls[1], name="quick") as quick,
        sleepy.subscribe("t", when_full="block", max_bytes=500_000, group=group) as slow,
        quick.subscribe("u") as others,
    ):
        accepted = 0
        with pytest.raises(iris.SlowSubscriber, match=group or "sleepy") as caught:
            async with asyncio.timeout(PATIENCE):
                while True:
                    await publisher.publish("t", body(accepted))
                    accepted += 1
        assert caught.value.topic == "t"
        assert accepted * SIZE < 20_000_000
        for mesh in (publisher, bystander):
            await mesh.publish_many("u", [body(number) for number in range(100)])
        await bystander.flush()
        assert sorted(await numbers(others, 200)) == sorted([*range(100)] * 2)
        reading = asyncio.create_task(numbers(slow, accepted + COUNT))
        for number in range(accepted, accepted + COUNT):
            await publisher.publish("t", body(number))
        assert await reading == list(range(accepted + COUNT))
        await publisher.flush()
        assert slow.lost == 0


async def test_two_publishing_nodes(urls: list[str]):
    async with (
        iris.connect(urls[0]) as here,
        iris.connect(urls[1]) as there,
        iris.connect(urls[1], name="sleepy") as sleepy,
        sleepy.subscribe("t", when_full="block", max_bytes=100_000) as slow,
    ):
        publishing = [
            asyncio.create_task(mesh.publish_many("t", (body(number) for number in range(1000))))
            for mesh in (here, there)
        ]
        heard = await numbers(slow, 2000)
        assert sorted(heard) == sorted([*range(1000)] * 2)
        await asyncio.gather(*publishing)
        assert slow.lost == 0


@pytest.mark.parametrize("node", [0, 1], ids=["own node", "other node"])
@pytest.mark.parametrize("size", [1 << 20, 8 << 20], ids=["1 MiB", "the longest"])
async def test_many_topics_of_one_that_does_not_read(urls: list[str], node: int, size: int):
    """Every topic is told to wait when it does already: what all of them hold is bounded, and nothing is lost."""
    async with (
        iris.connect(urls[0], name="publisher") as publisher,
        iris.connect(urls[node], name="sleepy") as sleepy,
        sleepy.subscribe("t.*", when_full="block", max_bytes=1 << 20) as slow,
    ):
        accepted = 0
        changes: list[iris.StateChange] = []
        publisher.on_state(changes.append)

        async def publish() -> None:
            nonlocal accepted
            for number in range(2**30 // size):
                await publisher.publish(f"t.{number}", b"%d" % number + bytes(size - 10))
                accepted += 1

        publishing = asyncio.create_task(publish())
        before = -1
        while accepted != before:  # it waits when nothing more is accepted for a while
            before = accepted
            await asyncio.wait((publishing,), timeout=1.0)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        assert 1 < accepted * size < 128 << 20
        async with asyncio.timeout(PATIENCE):
            came = [await anext(slow) for _ in range(accepted)]
        assert sorted(int(event.body.rstrip(b"\0")) for event in came) == list(range(accepted))
        assert not any(event.lost for event in came)
        await publisher.flush()
        assert changes == []
