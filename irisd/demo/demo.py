"""The scenes of the demo, in order.

Three daemons run as processes of their own; the apps are this process, attached
to each of them through the SDK, exactly as any app is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import sysconfig
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import iris_client as iris
from irisd.demo.mesh import DaemonProcess, Mesh, eventually
from irisd.demo.report import Report, check
from irisd.keys import SEED_BYTES, ServiceKey
from irisd.keys.files import write_key_file

REQUESTS = 3_000
MEMBERS_PER_NODE = 2
EVENTS = 20_000
EVENT_BYTES = 200
CHUNK = 64 * 1024
SCENE_TIMEOUT = 40.0
"""Seconds; a demo that hangs proves nothing."""

FOUND = (
    "daemons with nothing in common but a service key find each other and become a mesh, nobody told them an address"
)
TOLD = "daemons that hold one service key and are told an address become a mesh"


def run(file: Path | None) -> int:
    """Run the demo and print its report; return the exit code.

    Args:
        file: What to send through the tunnel; default: the largest that ships with Python.
    """
    return asyncio.run(_run(file or _shipped_file()))


def _shipped_file() -> Path:
    """The largest file that came with this Python and lies where every Python has it."""
    library = Path(sysconfig.get_path("stdlib"))
    shared = Path(sysconfig.get_config_var("LIBDIR") or "/nowhere", sysconfig.get_config_var("INSTSONAME") or "none")
    candidates = [Path(os.path.realpath(sys.executable)), shared, *library.glob("*.py"), *library.glob("lib-dynload/*")]
    return max((path for path in candidates if path.is_file()), key=lambda path: path.stat().st_size)


async def _run(file: Path) -> int:
    report = Report()
    report.title("irisd demo: three daemons, their apps, and nothing in the middle. All on 127.0.0.1.")
    async with AsyncExitStack() as stack:
        demo = _Demo(report, stack)
        with report.scene("Three daemons", demo.how_they_meet):
            await demo.start()
        if report.failed:
            return report.end()
        for scene in (
            demo.requests,
            demo.broadcast,
            demo.survey,
            demo.topics,
            lambda: demo.tunnel(file),
            demo.kill,
            demo.wrong_key,
        ):
            await scene()
    return report.end()


class _Demo:
    """State the scenes share: the daemons, an app on each, and the cluster they serve together."""

    def __init__(self, report: Report, stack: AsyncExitStack) -> None:
        self._report = report
        self._stack = stack
        self._mesh = Mesh(3, "--preset", "local", service="demo", discover=True)
        self._apps: list[iris.Mesh] = []
        self._names: dict[str, str] = {}  # member, as answers name it -> name for people
        self._heard: Counter[str] = Counter()

    def how_they_meet(self) -> str:
        """What their meeting proves."""
        return TOLD if self._mesh.fallback else FOUND

    async def start(self) -> None:
        """Daemons, apps, and members of one cluster on every node."""
        report = self._report
        await self._stack.enter_async_context(self._mesh)
        if self._mesh.fallback:
            report.line("note", f"no multicast on the loopback interface ({self._mesh.fallback})")
            report.line("", "so each daemon was started with the addresses of those before it")
        else:
            report.line("they were given", "a key; no address: multicast over the loopback interface does the rest")
        for daemon in self._mesh.daemons:
            status = await daemon.status()
            peers = status.services[0].peers
            report.line(daemon.name, f"pid {daemon.pid}, links at {daemon.links}, {peers} encrypted links")
            check(peers == 2, f"{daemon.name} is linked to {peers} nodes, not 2")
        for daemon in self._mesh.daemons:
            for number in range(MEMBERS_PER_NODE):
                name = f"worker-{daemon.name[-1]}{'ab'[number]}"
                app = await self._stack.enter_async_context(iris.connect(daemon.url, name=name))
                await self._stack.enter_async_context(app.join(self._worker(name)))
        for daemon in self._mesh.daemons:
            self._apps.append(await self._stack.enter_async_context(iris.connect(daemon.url, name="app")))

    def _worker(self, name: str) -> iris.Cluster:
        workers = iris.Cluster("workers", concurrency=16)

        @workers.on_request
        async def work(body: bytes) -> bytes:
            await asyncio.sleep(0.001)  # something to do
            return name.encode()

        @workers.on_broadcast
        async def hear(body: bytes) -> None:
            self._heard[name] += 1

        @workers.on_survey
        async def tell(body: bytes) -> bytes:
            return f"{name}: at your service".encode()

        return workers

    def _storage(self) -> iris.Cluster:
        storage = iris.Cluster("storage")

        @storage.on_tunnel
        async def store(tunnel: iris.Tunnel) -> None:
            digest, size = hashlib.sha256(), 0
            async for chunk in tunnel:
                digest.update(chunk)
                size += len(chunk)
            await tunnel.send(json.dumps({"sha256": digest.hexdigest(), "bytes": size}).encode())
            await tunnel.finish()

        return storage

    async def requests(self) -> None:
        """Requests to a name, answered by members everywhere."""
        report = self._report
        with report.scene(
            f"Request and reply: {REQUESTS:,} requests to “workers”",
            "a name is enough: load spreads over every member on every node, and every request got its reply",
        ):
            async with asyncio.timeout(SCENE_TIMEOUT):
                shares: Counter[str] = Counter()
                trips: list[float] = []
                left = REQUESTS

                async def ask() -> None:
                    nonlocal left
                    while left > 0:
                        left -= 1
                        began = time.perf_counter()
                        reply = await self._apps[0].request("workers", b"what is to be done?", timeout=10.0)
                        trips.append(time.perf_counter() - began)
                        shares[reply.body.decode()] += 1

                began = time.perf_counter()
                await asyncio.gather(*(ask() for _ in range(32)))
                took = time.perf_counter() - began
            for name, count in sorted(shares.items()):
                report.bar(name, count / REQUESTS, f"{count:,} ({count / REQUESTS:.0%})")
            trips.sort()
            median, high = trips[len(trips) // 2], trips[int(len(trips) * 0.99)]
            report.line("32 at a time", f"{REQUESTS / took:,.0f}/s, p50 {median * 1e3:.1f} ms, p99 {high * 1e3:.1f} ms")
            check(sum(shares.values()) == REQUESTS, f"{sum(shares.values())} replies to {REQUESTS} requests")
            members = 3 * MEMBERS_PER_NODE
            check(len(shares) == members, f"only {len(shares)} of {members} members were asked")
            check(min(shares.values()) > REQUESTS / members / 4, "a member got less than a quarter of its fair share")

    async def broadcast(self) -> None:
        """One message to every member."""
        with self._report.scene("Broadcast", "a broadcast reaches every member of a cluster, on every node, once"):
            async with asyncio.timeout(SCENE_TIMEOUT):
                self._heard.clear()
                members = await self._apps[1].broadcast("workers", b"good morning")
                await eventually(lambda: self._heard.total() >= members)
            self._report.line("queued to", f"{members} members")
            self._report.line("heard by", ", ".join(sorted(self._heard)))
            check(members == 3 * MEMBERS_PER_NODE, f"it was queued to {members} members")
            check(set(self._heard.values()) == {1}, "somebody heard it twice")

    async def survey(self) -> None:
        """One question, many answers."""
        with self._report.scene("Survey", "a survey ends when the last member has answered, and says who that was"):
            async with asyncio.timeout(SCENE_TIMEOUT):
                began = time.perf_counter()
                async with self._apps[2].survey("workers", b"who is there?", timeout=5.0) as survey:
                    async for answer in survey:
                        self._report.line(str(answer.member), answer.body.decode())
                took = time.perf_counter() - began
            asked, answered = len(survey.asked), len(survey.answered)
            self._report.line("answered", f"{answered} of {asked} in {took * 1e3:.0f} ms; silent: {len(survey.silent)}")
            check(answered == asked == 3 * MEMBERS_PER_NODE, f"{answered} of {asked} answered")
            check(took < 2.5, "it did not end early")

    async def topics(self) -> None:
        """Every subscriber, and one member of each group."""
        with self._report.scene(
            f"Publish and subscribe: {EVENTS:,} messages on “orders.new”",
            "every subscriber gets every message in order; a group shares them, each going to exactly one member",
        ):
            async with asyncio.timeout(SCENE_TIMEOUT):
                counts: Counter[str] = Counter()
                done = asyncio.Event()
                disorder: list[str] = []

                async def count(name: str, events: iris.Subscription) -> None:
                    last = -1
                    async for event in events:
                        number = int(event.body[:8])
                        counts[name] += 1
                        counts["lost"] += event.lost or 0
                        if number <= last:
                            disorder.append(f"{name} got {number} after {last}")
                        last = number
                        if counts.total() >= 3 * EVENTS:
                            done.set()

                def billing(name: str) -> iris.Cluster:
                    cluster = iris.Cluster("billing")

                    @cluster.on_event("orders.>")
                    async def bill(event: iris.Event) -> None:
                        counts[name] += 1
                        counts["lost"] += event.lost or 0
                        if counts.total() >= 3 * EVENTS:
                            done.set()

                    return cluster

                async with AsyncExitStack() as stack:
                    counters = []
                    for number, app in enumerate(self._apps[1:], start=2):
                        events = await stack.enter_async_context(app.subscribe("orders.*"))
                        counters.append(asyncio.create_task(count(f"subscriber on node-{number}", events)))
                    for number, app in enumerate(self._apps, start=1):
                        await stack.enter_async_context(app.join(billing(f"billing on node-{number}")))
                    began = time.perf_counter()
                    for number in range(EVENTS):
                        await self._apps[0].publish("orders.new", b"%08d" % number + bytes(EVENT_BYTES - 8))
                    await self._apps[0].flush()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(done.wait(), SCENE_TIMEOUT / 2)
                    took = time.perf_counter() - began
                    for counter in counters:
                        counter.cancel()
                    await asyncio.gather(*counters, return_exceptions=True)
            for name in sorted(counts):
                if name != "lost":
                    self._report.line(name, f"{counts[name]:,}")
            group = sum(count for name, count in counts.items() if name.startswith("billing"))
            self._report.line("together", f"{counts.total() / took:,.0f} deliveries/s, {counts['lost']} lost")
            check(counts["lost"] == 0, f"{counts['lost']} messages were lost")
            check(group == EVENTS, f"the group got {group:,} messages, not {EVENTS:,}")
            for number in (2, 3):
                got = counts[f"subscriber on node-{number}"]
                check(got == EVENTS, f"the subscriber on node-{number} got {got:,}")
            check(not disorder, disorder[0] if disorder else "")

    async def tunnel(self, file: Path) -> None:
        """A file through a tunnel."""
        with self._report.scene(
            "Tunnel: a file to “storage”, which is on node-2",
            "the file crossed two daemons and an encrypted link between them, byte for byte",
        ):
            async with asyncio.timeout(SCENE_TIMEOUT), self._apps[1].join(self._storage()):
                digest, size = hashlib.sha256(), 0
                began = time.perf_counter()
                async with self._apps[0].tunnel("storage", timeout=5.0) as tunnel:
                    with file.open("rb") as source:
                        while chunk := source.read(CHUNK):
                            digest.update(chunk)
                            size += len(chunk)
                            await tunnel.send(chunk)
                    await tunnel.finish()
                    answer = json.loads([chunk async for chunk in tunnel][-1])
                took = time.perf_counter() - began
            self._report.line("file", f"{file} ({size / 1e6:,.1f} MB)")
            self._report.line("rate", f"{size / took / 1e6:,.0f} MB/s")
            self._report.line("SHA-256 sent", digest.hexdigest())
            self._report.line("SHA-256 received", answer["sha256"])
            check(answer["sha256"] == digest.hexdigest() and answer["bytes"] == size, "the two ends do not agree")

    async def kill(self) -> None:
        """SIGKILL in the middle of it all."""
        with self._report.scene(
            "kill -9 of a daemon, with requests under way",
            "the others go on at once; what was under way there ends in a typed error that says it may have run",
        ):
            victim = self._mesh[2]
            replies: Counter[str] = Counter()
            errors: Counter[str] = Counter()
            stop = asyncio.Event()
            slowest = 0.0

            async def ask() -> None:
                nonlocal slowest
                while not stop.is_set():
                    began = time.perf_counter()
                    try:
                        reply = await self._apps[0].request("workers", b"still there?", timeout=5.0)
                    except iris.IrisError as error:
                        errors[f"{type(error).__name__} (executed: {getattr(error, 'executed', '?')})"] += 1
                    else:
                        replies["before" if victim.running else "after"] += 1
                        replies[reply.body.decode()] += 1
                    slowest = max(slowest, time.perf_counter() - began)

            async with asyncio.timeout(SCENE_TIMEOUT):
                askers = [asyncio.create_task(ask()) for _ in range(16)]
                await eventually(lambda: replies["before"] >= 300)
                await victim.kill()
                await eventually(lambda: replies["after"] >= 1_000)
                stop.set()
                await asyncio.gather(*askers)
            self._report.line("killed", f"{victim.name}, after {replies['before']:,} replies")
            self._report.line("afterwards", f"{replies['after']:,} replies from the two nodes that are left")
            told = ", ".join(f"{count} x {name}" for name, count in errors.items()) or "none"
            self._report.line("errors", told)
            self._report.line("slowest request", f"{slowest * 1e3:.0f} ms")
            check(
                all("MemberLost" in name and "maybe" in name for name in errors), f"other errors than expected: {told}"
            )
            check(errors.total() <= 16, f"{errors.total()} requests failed, only 16 were under way")
            check(slowest < 4.0, "a request hung")

    async def wrong_key(self) -> None:
        """A stranger."""
        with self._report.scene(
            "A daemon with another key",
            "whoever does not hold the service's key does not get in, however it calls itself",
        ):
            key = self._mesh.folder / "stranger.key"
            text = ServiceKey.generate("demo", os.urandom(SEED_BYTES)).to_text("not the key of the others")
            write_key_file(key, text)
            arguments = ["--key", str(key), "--preset", "local", "--multicast", "off", "--seed", self._mesh[0].links]
            stranger = DaemonProcess(self._mesh.folder, "stranger", arguments)
            async with asyncio.timeout(SCENE_TIMEOUT):
                try:
                    await stranger.start()
                    await eventually(lambda: "wrong-key" in stranger.tail())
                    strange, own = await stranger.status(), await self._mesh[0].status()
                finally:
                    await stranger.stop()
            self._report.line("the stranger has", f"{strange.services[0].peers} links, outcome of its dial: wrong-key")
            self._report.line("node-1 still has", f"{own.services[0].peers} link, to node-2")
            check(strange.services[0].peers == 0, "the stranger was let in")
            check(own.services[0].peers == 1, f"node-1 has {own.services[0].peers} links")
