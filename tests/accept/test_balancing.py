"""Load goes where it can be served: shares of equal members, of a slow one, of one that fails."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import iris_client as iris
from irisd.demo.mesh import DaemonProcess, Mesh
from tests.accept.membership_ground import quantile

pytestmark = pytest.mark.accept

Answer = tuple[float, float, str, bool]
"""When a request was begun, how long it took, who answered, and whether it did."""


class Members:
    """Some members in one process, attached to one daemon."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def slow_down(self) -> None:
        self._process.send_signal(signal.SIGUSR1)


@asynccontextmanager
async def members(daemon: DaemonProcess, *specs: str) -> AsyncIterator[Members]:
    """Members at a daemon; a spec may be another daemon, for those that follow."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("balancing_members.py")),
        daemon.url,
        *specs,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 40) == b"ready\n"
        yield Members(process)
    finally:
        process.kill()
        await process.wait()


async def at_rate(app: iris.Mesh, rate: float, seconds: float) -> list[Answer]:
    """Requests at a fixed rate, whatever becomes of them; times count from when each was due."""
    answers: list[Answer] = []
    began = time.monotonic()

    async def ask(due: float) -> None:
        try:
            reply = await app.request("work", b"", timeout=10.0)
            who, well = reply.member, True
        except iris.HandlerFailed:
            who, well = "", False
        answers.append((due - began, time.monotonic() - due, who, well))

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(due - time.monotonic())
            group.create_task(ask(due))
    return answers


@pytest.mark.parametrize("at_once", [1, 16, 128])
async def test_equal_members_get_equal_shares_on_nodes_with_6_5_and_4(at_once: int) -> None:
    async with (
        Mesh(3) as mesh,
        # one process, so that they are equal: what shares a processor with fewer others is faster
        members(mesh[0], *["0.001"] * 6, mesh[1].url, *["0.001"] * 5, mesh[2].url, *["0.001"] * 4),
        iris.connect(mesh[0].url) as app,
    ):
        counts: Counter[str] = Counter()
        numbers = iter(range(10_000))

        async def ask() -> None:
            for _ in numbers:
                counts[(await app.request("work", b"")).member] += 1

        await asyncio.gather(*(ask() for _ in range(at_once)))
        mean = 10_000 / 15
        worst = max(abs(count - mean) / mean for count in counts.values())
        print(f"\n10,000 requests, {at_once} at once, 15 members on 3 nodes: shares within {worst:.1%}")
        assert len(counts) == 15
        assert worst < 0.10


async def test_a_member_that_becomes_ten_times_slower() -> None:
    rate, took = 150.0, 0.02
    async with (
        Mesh(3) as mesh,
        members(mesh[0], f"{took}"),
        members(mesh[1], f"{took}"),
        members(mesh[2], f"{took}*10") as third,
        iris.connect(mesh[0].url) as app,
    ):
        await at_rate(app, rate, 5)
        healthy = await at_rate(app, rate, 20)
        shares = Counter(who for _, _, who, _ in healthy)
        (slow_one,) = [who for who in shares if f"@{mesh[2].name}/" in who]
        assert min(shares.values()) > 0.9 * len(healthy) / 3
        third.slow_down()
        await at_rate(app, rate, 5)
        after = await at_rate(app, rate, 30)
        share = sum(who == slow_one for _, _, who, _ in after) / len(after)
        p99_before, p99 = (quantile([t for _, t, _, _ in answers], 0.99) for answers in (healthy, after))
        print(
            f"\na member that becomes ten times slower: its share falls from {shares[slow_one] / len(healthy):.1%} "
            f"to {share:.2%} after 5 s; p99 {p99_before * 1000:.0f} ms before, {p99 * 1000:.0f} ms after"
        )
        assert share < shares[slow_one] / len(healthy) / 3
        assert p99 < 2 * p99_before


async def test_a_member_that_fails_at_once_beside_two_that_work() -> None:
    async with (
        Mesh(3) as mesh,
        members(mesh[0], "0.1"),
        members(mesh[1], "0.1"),
        members(mesh[2], "0.001!"),
        iris.connect(mesh[0].url) as app,
    ):
        answers = await at_rate(app, 100, 22)
        late = [well for at, _, _, well in answers if at >= 2]
        failed = late.count(False) / len(late)
        early = sum(not well for at, _, _, well in answers if at < 2)
        print(f"\na member that fails in 1 ms: {early} calls in the first 2 s, then {failed:.2%}")
        assert failed < 0.05


async def test_the_same_on_one_node() -> None:
    async with (
        Mesh(1) as mesh,
        members(mesh[0], "0.1", "0.1", "0.001!"),
        iris.connect(mesh[0].url) as app,
    ):
        answers = await at_rate(app, 100, 12)
        late = [well for at, _, _, well in answers if at >= 2]
        failed = late.count(False) / len(late)
        print(f"\nthe same, all on one node: {failed:.2%} after 2 s")
        assert failed < 0.05


@pytest.mark.parametrize("ends", ["cancelled", "late"])
async def test_a_cancel_or_a_deadline_frees_the_slot_at_the_far_end(ends: str) -> None:
    """And the handler sees CancelledError, within 100 ms."""
    async with Mesh(2) as mesh, iris.connect(mesh[1].url) as far, iris.connect(mesh[0].url) as near:
        cluster = iris.Cluster("work", concurrency=1)
        seen: asyncio.Queue[float] = asyncio.Queue()

        @cluster.on_request("hang")
        async def hang(body: bytes) -> bytes:
            seen.put_nowait(0.0)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.put_nowait(time.monotonic())
                raise
            return body

        @cluster.on_request
        async def quick(request: iris.Request) -> bytes:
            assert 0 < request.remaining <= 5
            return b"free"

        async with far.join(cluster):
            times = []
            for _ in range(20):
                task = asyncio.create_task(near.request("work", method="hang", timeout=0.3 if ends == "late" else 30))
                assert await seen.get() == 0.0
                if ends == "cancelled":
                    began = time.monotonic()
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                else:
                    with pytest.raises(iris.DeadlineExceeded):
                        await task
                    began = time.monotonic()
                assert (await near.request("work", timeout=5.0)).body == b"free"
                free = time.monotonic()
                times.append((await seen.get() - began, free - began))
            handler, slot = (max(time[at] for time in times) for at in (0, 1))
            print(
                f"\n{ends}: the handler saw it {handler * 1000:.1f} ms later, its slot served in {slot * 1000:.1f} ms"
            )
            assert max(handler, slot) < 0.1


async def test_hedging_cuts_the_tail() -> None:
    """Two members of which each is stuck for a second now and then; with and without hedging, in turn."""
    async with Mesh(3) as mesh, iris.connect(mesh[0].url) as app, iris.connect(mesh[1].url) as one:
        async with iris.connect(mesh[2].url) as other:
            turns = iter(range(1 << 30))
            cluster = iris.Cluster("work")

            @cluster.on_request
            async def work(body: bytes) -> bytes:
                await asyncio.sleep(0.5 if next(turns) % 40 == 0 else 0.002)
                return body

            async with one.join(cluster), other.join(cluster):
                took: dict[bool, list[float]] = {False: [], True: []}
                for number in range(1000):
                    hedge = bool(number % 2)
                    began = time.monotonic()
                    await app.request("work", b"", idempotent=True, hedge_after=0.05 if hedge else None)
                    took[hedge].append(time.monotonic() - began)
        plain, hedged = (quantile(took[hedge], 0.99) for hedge in (False, True))
        print(f"\nhedged after 50 ms: p99 {hedged * 1000:.0f} ms instead of {plain * 1000:.0f} ms")
        assert hedged < plain / 3
