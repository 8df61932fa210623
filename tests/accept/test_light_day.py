"""What a light day brings, in ten minutes: a million messages of every kind, apps that come and go, and failures.

Three daemons. Afterwards they are as they were: memory of the last third as of the second, and no more descriptors,
threads, attachments, names, calls or nodes. ``MINUTES=`` shortens it (below 3 the memory of a young process still
moves, and only the tables are judged).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from statistics import median

import psutil
import pytest

import iris_client as iris
from iris_proto.v1 import control_pb2 as pb
from irisd.demo.mesh import DaemonProcess, Mesh
from tests.accept.chaos_app import CLUSTER
from tests.accept.membership_ground import all_see_all, control
from tests.accept.processes import AppProcess

MINUTES = float(os.environ.get("MINUTES", "10"))
NODES = 3
BODY = bytes(100)
GROWTH = 1.05
"""Most the median memory of the last third may be of that of the second."""

NAMES = 1000
"""Topics that come and go. All have been seen in the first third: what is remembered of names is bounded, not small."""

RATES = {"request": 460, "push": 100, "publish": 1000, "group": 60}
"""A second, all apps together: with what follows a million in ten minutes."""

RARE = {
    "broadcast": 4, "survey": 4, "tunnel": 2, "rejected": 4, "nobody": 4, "too late": 2, "cancelled": 4, "flip": 10,
    "visitor": 0.5, "killed": 0.05,
}  # fmt: skip
TUNNELLED = 20
"""Messages of a tunnel, each way."""

pytestmark = [pytest.mark.accept, pytest.mark.timeout(int(60 * MINUTES) + 240)]


class Gauge:
    """What a daemon holds, read again and again."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon
        self._process = psutil.Process(daemon.pid)
        self.samples: list[dict[str, float]] = []

    async def read(self) -> None:
        """One sample."""
        async with control(self._daemon) as stub:
            status: pb.Status = await stub.GetStatus(pb.GetStatusRequest(), timeout=10.0)
            nodes = len((await stub.ListNodes(pb.ListRequest(), timeout=10.0)).nodes)
            topics = len((await stub.ListTopics(pb.ListRequest(), timeout=10.0)).topics)
        service = status.services[0]
        self.samples.append(
            {
                "memory": status.memory,
                "descriptors": self._process.num_fds(),
                "threads": self._process.num_threads(),
                "attachments": service.attachments,
                "subscriptions": service.subscriptions,
                "clusters": service.clusters,
                "pending": service.pending,
                "queued": service.queued,
                "nodes": nodes,
                "topics": topics,
                "counters": len(service.counters),
            }
        )

    def thirds(self, what: str) -> tuple[float, float]:
        """The medians of the second and of the last third."""
        values = [sample[what] for sample in self.samples]
        third = len(values) // 3
        return median(values[third : 2 * third]), median(values[2 * third :])


class Day:
    """All that goes on."""

    def __init__(self, mesh: Mesh, apps: list[iris.Mesh], members: list[AppProcess]) -> None:
        self._mesh, self._apps, self._members = mesh, apps, members
        self._random = random.Random(1)
        self._made = 0
        self.messages: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.read = 0

    def _app(self) -> iris.Mesh:
        return self._random.choice(self._apps)

    async def request(self) -> None:
        await self._app().request(CLUSTER, b"1", timeout=5.0)

    async def push(self) -> None:
        await self._app().push(CLUSTER, b"1", timeout=5.0)

    async def publish(self) -> None:
        await self._app().publish("day.news", BODY)

    async def group(self) -> None:
        await self._app().publish(f"{CLUSTER}.group.day", b"1")

    async def broadcast(self) -> None:
        await self._app().broadcast(CLUSTER, b"1", timeout=5.0)

    async def survey(self) -> None:
        async with self._app().survey(CLUSTER, BODY, timeout=2.0) as survey:
            async for _ in survey:
                self.messages["answers"] += 1

    async def tunnel(self) -> None:
        async with self._app().tunnel(CLUSTER, timeout=5.0) as tunnel:
            for _ in range(TUNNELLED):
                await tunnel.send(BODY)
                await anext(tunnel)
            self.messages["tunnelled"] += 2 * TUNNELLED

    async def rejected(self) -> None:
        await self._app().request(CLUSTER, b"1", method="fail", timeout=5.0)

    async def nobody(self) -> None:
        await self._app().request(f"nobody.{self._random.randrange(1 << 30)}", BODY, timeout=5.0)

    async def too_late(self) -> None:
        await self._app().request(CLUSTER, b"1", timeout=0.001)

    async def cancelled(self) -> None:
        task = asyncio.create_task(self._app().request(CLUSTER, b"1", timeout=5.0))
        await asyncio.sleep(self._random.random() * 0.004)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def flip(self) -> None:
        """A subscription comes, gets an event, and goes again."""
        self._made += 1
        topic = f"day.topic.{self._made % NAMES}"
        async with self._app().subscribe(topic) as events:
            if not events.ready:  # not every node knows of it yet: no event is promised
                return
            await self._app().publish(topic, BODY)
            await asyncio.wait_for(anext(events), 5.0)

    async def visitor(self) -> None:
        """An app that comes, serves a cluster of its own, is asked, and leaves."""
        self._made += 1
        name = f"visitor.{self._made}"
        cluster = iris.Cluster(name)

        @cluster.on_request
        async def answer(body: bytes) -> bytes:
            return body

        async with iris.connect(self._random.choice(self._mesh.daemons).url) as app, app.join(cluster):
            await self._app().request(name, BODY, timeout=5.0)

    async def killed(self) -> None:
        """A member dies of ``kill -9`` and is started again."""
        member = self._random.choice(self._members)
        if member.running:
            await member.kill()
            await member.start()
            await member.ready()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for app in self._apps:
                group.create_task(self._read(app))
            for what, rate in (*RATES.items(), *RARE.items()):
                group.create_task(self._evenly(what, rate, group))

    async def _read(self, app: iris.Mesh) -> None:
        async with app.subscribe("day.news") as events:
            async for _ in events:
                self.read += 1

    async def _evenly(self, what: str, rate: float, group: asyncio.TaskGroup) -> None:
        operation: Callable[[], Awaitable[None]] = getattr(self, what.replace(" ", "_"))
        began, done = time.monotonic(), 0
        while True:
            while done < (time.monotonic() - began) * rate:
                done += 1
                if what in ("publish", "group"):
                    await self._once(what, operation)
                else:
                    group.create_task(self._once(what, operation))
            await asyncio.sleep(max(0.005, 1 / rate / 4))

    async def _once(self, what: str, operation: Callable[[], Awaitable[None]]) -> None:
        self.messages[what] += 1
        try:
            await operation()
        except iris.IrisError as error:
            self.outcomes[f"{what}: {type(error).__name__}"] += 1
        except TimeoutError:
            self.outcomes[f"{what}: event not read in time"] += 1


async def test_a_light_day_leaves_nothing_behind() -> None:
    async with Mesh(NODES) as mesh, AsyncExitStack() as stack:
        members = [
            AppProcess("chaos_app.py", daemon.url, os.devnull, f"member-{number}")
            for number, daemon in enumerate(mesh.daemons)
        ]
        for member in members:
            stack.push_async_callback(member.kill)
            await member.start()
        for member in members:
            await member.ready()
        apps = [await stack.enter_async_context(iris.connect(daemon.url)) for daemon in mesh.daemons]
        for app in apps:  # from then on its own tasks are there
            await app.request(CLUSTER, b"1", timeout=10.0)
        gauges = [Gauge(daemon) for daemon in mesh.daemons]
        day = Day(mesh, apps, members)
        tasks_before = asyncio.all_tasks()
        running = asyncio.create_task(day.run())
        own = psutil.Process()
        began = time.monotonic()
        while time.monotonic() - began < 60 * MINUTES:
            for gauge in gauges:
                await gauge.read()
            await asyncio.wait([running], timeout=2.0)
            assert not running.done(), f"the day broke off: {running}"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        total = day.messages.total()
        print(f"\n{total:,} messages in {MINUTES:g} min, {day.read:,} events read: {dict(day.messages)}")
        print(f"failures: {dict(day.outcomes)}")
        for gauge, daemon in zip(gauges, mesh.daemons, strict=True):
            parts = (
                f"{what} {gauge.thirds(what)[0]:,.0f} -> {gauge.thirds(what)[1]:,.0f}" for what in gauge.samples[0]
            )
            print(f"{daemon.name}: " + ", ".join(parts))
            tenth = max(1, len(gauge.samples) // 10)
            memory = [sample["memory"] / 2**20 for sample in gauge.samples[::tenth]]
            print("    MiB, tenth by tenth: " + " ".join(f"{value:.1f}" for value in memory))
        print(f"memory of the apps: {own.memory_info().rss / 2**20:.0f} MiB")

        # Held still, the daemons hold what they held in the beginning.
        async with asyncio.timeout(30):
            await all_see_all(mesh.daemons)
            for gauge in gauges:
                while True:
                    await gauge.read()
                    now = gauge.samples.pop()
                    if not now["pending"] and not now["queued"] and now["clusters"] == 1 and now["subscriptions"] <= 1:
                        break
                    await asyncio.sleep(0.1)
        for gauge, daemon in zip(gauges, mesh.daemons, strict=True):
            for what in ("descriptors", "threads", "attachments", "subscriptions", "clusters", "topics", "nodes"):
                middle, last = gauge.thirds(what)
                assert last <= middle + 4, f"{daemon.name}: {what} grew from {middle} to {last}"
            middle, last = gauge.thirds("memory")
            if MINUTES >= 3:
                assert last <= GROWTH * middle, f"{daemon.name}: memory grew from {middle:,.0f} to {last:,.0f} bytes"
        left = asyncio.all_tasks() - tasks_before - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=2.0)
        assert all(task.done() for task in left), f"tasks left behind: {[task for task in left if not task.done()]}"
        unexpected = {what: n for what, n in day.outcomes.items() if what.split(":")[0] in ("publish", "group", "flip")}
        assert not unexpected, unexpected
        asked = sum(day.messages[what] for what in ("request", "push", "tunnel", "survey", "broadcast"))
        failed = Counter[str]()
        for what, times in day.outcomes.items():
            if what.split(":")[0] in ("request", "push", "tunnel", "survey", "broadcast"):
                failed[what.split(": ")[1]] += times
        late = failed.pop("DeadlineExceeded", 0)  # where the machine had other things to do
        assert failed.total() < asked / 500, f"{failed} of {asked} failed although a member dies only now and then"
        assert late < asked / 20, f"{late} of {asked} were not answered in time"
        assert total >= 0.9 * MINUTES * 100_000, "less than a light day"
