"""Restarts that nobody notices: daemons and apps are stopped with SIGTERM and started again, under load.

What must hold: no call fails, of any app on any node, whatever is restarted and in whatever order. Heartbeats and
timeouts are the defaults; multicast is off and the daemons name each other as seeds.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import permutations
from pathlib import Path

import pytest

import iris_client as iris
from irisd.demo.mesh import DaemonProcess, Mesh

pytestmark = pytest.mark.accept

NODES = 3
RATE = 200
"""Requests a second, of all askers together."""
TIMEOUT = 15.0
"""Seconds; a restart takes one, and several on a machine that has much else to do."""


class Member:
    """A server process."""

    def __init__(self, daemon: DaemonProcess, name: str) -> None:
        self.name = name
        self._daemon = daemon
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("draining_member.py")), self._daemon.url, self.name
        )

    def terminate(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), 40)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Load:
    """Requests at a steady rate from an app on every node; what failed, and how long the slowest took."""

    def __init__(self, apps: list[iris.Mesh]) -> None:
        self.apps = apps
        self.failed: list[str] = []
        self.served: Counter[str] = Counter()
        self.slowest = 0.0
        self.began = time.monotonic()
        self._asking: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        number = 0
        started = time.monotonic()
        while not self._stop.is_set():
            due = int((time.monotonic() - started) * RATE)
            while number < due:
                task = asyncio.create_task(self._ask(self.apps[number % len(self.apps)], b"%d" % number))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                number += 1
            await asyncio.sleep(0.01)
        await asyncio.gather(*self._asking)

    def stop(self) -> None:
        self._stop.set()

    async def _ask(self, app: iris.Mesh, body: bytes) -> None:
        began = time.monotonic()
        try:
            reply = await app.request("work", body, timeout=TIMEOUT)
        except iris.IrisError as error:
            executed = getattr(error, "executed", None)
            self.failed.append(f"{began - self.began:6.2f} s: {type(error).__name__} (executed: {executed}): {error}")
        else:
            assert reply.body == body
            self.served[reply.member.partition("@")[0]] += 1
        self.slowest = max(self.slowest, time.monotonic() - began)

    def tell(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:6.2f} s: {what}", flush=True)

    def verify(self) -> None:
        print(f"{sum(self.served.values())} answered, {len(self.failed)} failed, slowest {self.slowest * 1000:.0f} ms")
        print(f"by member: {dict(sorted(self.served.items()))}")
        assert not self.failed, f"{len(self.failed)} requests failed:\n" + "\n".join(self.failed[:20])


async def members_of(app: iris.Mesh, wanted: int) -> None:
    """Wait until an app's node knows of so many members of the cluster."""
    async with asyncio.timeout(30):
        async with iris_changes(app) as known:
            async for members in known:
                if members >= wanted:
                    return


@asynccontextmanager
async def iris_changes(app: iris.Mesh) -> AsyncIterator[AsyncIterator[int]]:
    """The number of members there are, at every change."""

    async def numbers() -> AsyncIterator[int]:
        nodes: dict[str, int] = {}
        async for change in app.watch("work"):
            if change.cluster:
                nodes[change.node] = change.members
            yield sum(nodes.values())

    generator = numbers()
    try:
        yield generator
    finally:
        await generator.aclose()  # type: ignore[attr-defined]


@asynccontextmanager
async def ground(members: int) -> AsyncIterator[tuple[Mesh, list[list[Member]], Load]]:
    """A mesh of three with servers on every node, and an asker on each; the load runs."""
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(Mesh(NODES))
        for daemon in mesh.daemons:
            daemon.seed_with([other.links for other in mesh.daemons if other is not daemon])
        servers = [[Member(daemon, f"{daemon.name}-{number}") for number in range(members)] for daemon in mesh.daemons]
        for each in servers:
            for member in each:
                stack.push_async_callback(member.kill)
                await member.start()
        apps = [
            await stack.enter_async_context(iris.connect(daemon.url, name=f"asker-{daemon.name}"))
            for daemon in mesh.daemons
        ]
        for app in apps:
            await members_of(app, NODES * members)
        load = Load(apps)
        running = asyncio.create_task(load.run())
        try:
            yield mesh, servers, load
            load.stop()
            await running
        finally:
            running.cancel()


async def test_a_rolling_restart_of_three_daemons_fails_no_request() -> None:
    async with ground(members=2) as (mesh, _, load):
        await asyncio.sleep(1.0)
        for daemon in mesh.daemons:
            load.tell(f"{daemon.name}: SIGTERM")
            assert await daemon.stop() == 0
            load.tell(f"{daemon.name}: ended")
            await daemon.start()
            await daemon.linked(NODES - 1)
            for app in load.apps:
                await members_of(app, NODES * 2)
            load.tell(f"{daemon.name}: back, with its members")
        await asyncio.sleep(1.0)
    load.verify()


async def test_apps_and_their_daemon_ended_together_in_any_order_fail_no_request() -> None:
    rng = random.Random(1)
    parts = ["daemon", "one", "two"]
    orders = [(order, 0.0) for order in permutations(parts)]
    orders += [(order, rng.uniform(0.002, 0.05)) for order in rng.sample(list(permutations(parts)), 4)]
    async with ground(members=2) as (mesh, servers, load):
        for turn, (order, gap) in enumerate(orders):
            daemon, members = mesh[turn % NODES], servers[turn % NODES]
            load.tell(f"{daemon.name}: {' '.join(order)}, {gap * 1000:.0f} ms apart")
            for part in order:
                if part == "daemon":
                    daemon.signal(signal.SIGTERM)
                else:
                    members[parts.index(part) - 1].terminate()
                await asyncio.sleep(gap)
            ended = await asyncio.gather(daemon.ended(), *(member.ended() for member in members))
            assert ended == [0, 0, 0]
            for part in order:
                if part == "daemon":
                    await daemon.start()
                else:
                    await members[parts.index(part) - 1].start()
            for app in load.apps:
                await members_of(app, NODES * 2)
    load.verify()
