"""``make chaos``: a real mesh, broken again and again as a seed has it, and what must hold whatever breaks.

``python -m tests.accept.chaos [--seed N] [--minutes M] [--nodes N]``. Daemons of their own process, linked through
proxies that can delay, stall and cut; on each a member for every pattern, callers, a publisher, and subscribers to
everyone's topic. Every few seconds something drawn from the seed breaks; then it is healed, the apps hold still, and
the books are checked:

- what was acknowledged was executed, nothing that is not idempotent ran twice, errors told the truth and came in time;
- each subscriber read each publisher in order, and was told of every message it lost;
- all daemons agree on who is there and who serves what;
- nothing lingers: no call under way, no byte queued.

The same seed draws the same faults in the same order; what the processes make of them is up to the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import iris_client as iris
from iris_proto.v1 import control_pb2 as pb
from irisd.demo.mesh import DaemonProcess, Mesh
from tests.accept.chaos_app import CLUSTER
from tests.accept.chaos_load import PATIENT, Books, Load, follow
from tests.accept.membership_ground import control
from tests.accept.processes import AppProcess
from tests.accept.proxy import Cables

HEAL = 60.0
"""Seconds after which a mesh that is whole again must be well; the figures tell how long it took."""

KINDS = ("", "partition", "one_way", "delay", "cut", "pause", "kill", "kill_member", "kill_both")

REST = (1.0, 3.0)
"""Seconds without a fault, the apps at work, before the next."""


@dataclass(frozen=True)
class Fault:
    """What breaks, for how long, and who dies of it (by number of its daemon)."""

    words: str
    seconds: float
    strike: Callable[[], Awaitable[None]]
    heal: Callable[[], Awaitable[None]]
    daemons: frozenset[int] = frozenset()
    members: frozenset[int] = frozenset()


@dataclass
class Report:
    """What people want to know afterwards."""

    seed: int
    nodes: int
    minutes: float
    faults: Counter[str] = field(default_factory=Counter)
    healed: list[float] = field(default_factory=list)
    lost: int = 0
    unknown: int = 0
    books: Books = field(default_factory=Books)
    only: str = ""
    logs: Path | None = None

    @property
    def breaches(self) -> list[str]:
        """Promises that were broken."""
        return self.books.breaches

    @property
    def command(self) -> str:
        """How to draw the same faults again."""
        only = f" --only {self.only}" if self.only else ""
        return f"make chaos SEED={self.seed} MINUTES={self.minutes:g} ARGS='--nodes {self.nodes}{only}'"

    def tell(self) -> None:
        """Print the figures."""
        print(f"\nfaults: {sum(self.faults.values())}: " + ", ".join(f"{n} {what}" for what, n in self.faults.items()))
        if self.healed:
            ordered = sorted(self.healed)
            print(f"whole again after: median {ordered[len(ordered) // 2]:.1f} s, longest {ordered[-1]:.1f} s")
        for what, counts in self.books.outcomes.items():
            print(f"  {what:<10} {counts.total():>7,}  " + ", ".join(f"{n:,} {how}" for how, n in counts.most_common()))
        read = sum(reader.read for reader in self.books.readers)
        print(
            f"  events     {read:>7,} read, {self.lost:,} lost and told, {self.unknown} times some of an unknown number"
        )
        if self.breaches:
            print(f"\n{len(self.breaches)} BREACHES, the first:")
            for breach in self.breaches[:20]:
                print(f"  {breach}")
            print(f"again: {self.command}")
        else:
            print("every promise held")


class Chaos:
    """One run."""

    def __init__(self, report: Report) -> None:
        self._report, self._books, self._nodes = report, report.books, report.nodes
        self._random = random.Random(report.seed)
        self._began = time.monotonic()
        self._loads: list[Load] = []
        self._members: list[AppProcess] = []

    async def run(self) -> None:
        """Build the mesh, break it until time is up, tear it down."""
        async with (
            Cables(self._nodes) as self._cables,
            Mesh(0, "--log-level", "info", service="chaos") as self._mesh,
            AsyncExitStack() as stack,
        ):
            self._log = self._mesh.folder / "executed.log"
            self._log.touch()
            stack.callback(self._keep_logs)
            await self._build(stack)
            await self._check(None)
            ends = self._began + 60 * self._report.minutes
            while time.monotonic() < ends and len(self._books.breaches) < 50:
                for load in self._loads:
                    load.go()
                await asyncio.sleep(self._random.uniform(*REST))
                fault = self._draw()
                self._report.faults[fault.words.split(":")[0]] += 1
                self.say(fault.words + (f", {fault.seconds:.1f} s" if fault.seconds else ""))
                await fault.strike()
                await asyncio.sleep(fault.seconds)
                await fault.heal()
                await self._check(fault)

    def say(self, words: str) -> None:
        """One line of the report, with its time."""
        print(f"{time.monotonic() - self._began:7.1f} s  {words}", flush=True)

    def _keep_logs(self) -> None:
        if self._report.logs is not None:
            self._report.logs.mkdir(parents=True, exist_ok=True)
            for log in self._mesh.folder.glob("*.log"):
                shutil.copy(log, self._report.logs)

    # -- the mesh

    async def _build(self, stack: AsyncExitStack) -> None:
        mesh, cables = self._mesh, self._cables
        for number in range(self._nodes):
            daemon = mesh.make(f"node-{number + 1}", "--advertise", cables.nowhere(), seeds=cables.seeds(number))
            mesh.daemons.append(daemon)
        await asyncio.gather(*(daemon.start() for daemon in mesh.daemons))
        for number, daemon in enumerate(mesh.daemons):
            cables.lead_to(number, daemon.links)
            member = AppProcess(
                "chaos_app.py", daemon.url, str(self._log), f"member-{number + 1}", log=mesh.folder / "members.log"
            )
            stack.push_async_callback(member.kill)
            self._members.append(member)
            await member.start()
        for member in self._members:
            await member.ready()
        apps = [await stack.enter_async_context(iris.connect(daemon.url)) for daemon in mesh.daemons]
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks: list[asyncio.Task[None]] = []
        stack.callback(lambda: [task.cancel() for task in tasks])
        for daemon, app in zip(mesh.daemons, apps, strict=True):
            rng = random.Random(self._random.random())
            self._loads.append(Load(daemon.name, app, self._books, rng))
        for (daemon, app), load in itertools.product(zip(mesh.daemons, apps, strict=True), self._loads):
            ready = asyncio.Event()
            name = f"{load.name} read at {daemon.name}"
            tasks.append(group.create_task(follow(app, load.topic, name, self._books, ready)))
            await ready.wait()
        await self._whole()
        tasks.append(group.create_task(self._books.feel_lag()))
        for load in self._loads:
            tasks.append(group.create_task(load.run()))
        self.say(f"{self._nodes} daemons linked; SEED={self._report.seed}")

    # -- what breaks

    def _draw(self) -> Fault:
        """The next fault; everything about it comes from the seed."""
        draws = self._random
        kinds: tuple[Callable[[int, int, float], Fault], ...] = (
            self._partition, self._one_way, self._delay, self._cut, self._pause,
            self._kill, self._kill, self._kill_member, self._kill_both,
        )  # fmt: skip
        kinds = tuple(kind for kind in kinds if self._report.only in kind.__name__)
        kind, seconds = draws.choice(kinds), draws.uniform(1.0, 8.0)
        one, other = draws.sample(range(self._nodes), 2)
        return kind(one, other, seconds)

    def _name(self, number: int) -> str:
        return self._mesh[number].name

    async def _mend(self) -> None:
        self._cables.mend()

    def _partition(self, one: int, other: int, seconds: float) -> Fault:
        draws, cables = self._random, self._cables
        side = set(draws.sample(range(self._nodes), draws.randrange(1, self._nodes // 2 + 1)))
        silent = draws.random() < 0.7

        async def strike() -> None:
            for here, there in itertools.product(side, set(range(self._nodes)) - side):
                if silent:
                    cables.stall(here, there)
                    cables.stall(there, here)
                else:
                    cables.cut(here, there)

        names = ", ".join(self._name(number) for number in sorted(side))
        words = f"partition: {names} apart, {'silently' if silent else 'refused'}"
        return Fault(words, seconds, strike, self._mend)

    def _one_way(self, one: int, other: int, seconds: float) -> Fault:
        async def strike() -> None:
            self._cables.stall(one, other)

        return Fault(
            f"one way: nothing from {self._name(one)} reaches {self._name(other)}", seconds, strike, self._mend
        )

    def _delay(self, one: int, other: int, seconds: float) -> Fault:
        lag = self._random.uniform(0.02, 0.4)

        async def strike() -> None:
            self._cables.delay(one, other, lag)

        words = f"delay: {lag * 1e3:.0f} ms each way between {self._name(one)} and {self._name(other)}"
        return Fault(words, seconds, strike, self._mend)

    def _cut(self, one: int, other: int, seconds: float) -> Fault:
        async def strike() -> None:
            self._cables.cut(one, other)

        words = f"cut: the link of {self._name(one)} and {self._name(other)} breaks, mended at once"
        return Fault(words, 0.0, strike, self._mend)

    def _pause(self, one: int, other: int, seconds: float) -> Fault:
        async def strike() -> None:
            self._mesh[one].signal(signal.SIGSTOP)

        async def heal() -> None:
            self._mesh[one].signal(signal.SIGCONT)

        return Fault(f"pause: {self._name(one)} stands still", seconds, strike, heal)

    def _kill_member(self, one: int, other: int, seconds: float) -> Fault:
        member = self._members[one]
        words = f"kill a member: that of {self._name(one)}"
        return Fault(words, 0.0, member.kill, lambda: _renew(member), members=frozenset({one}))

    def _kill(self, one: int, other: int, seconds: float) -> Fault:
        daemon = self._mesh[one]

        async def heal() -> None:
            await daemon.start()

        down = self._random.choice((0.0, seconds))
        return Fault(f"kill: {daemon.name}", down, daemon.kill, heal, frozenset({one}))

    def _kill_both(self, one: int, other: int, seconds: float) -> Fault:
        daemon, member = self._mesh[one], self._members[one]

        async def strike() -> None:
            await asyncio.gather(daemon.kill(), member.kill())

        async def heal() -> None:
            await asyncio.gather(daemon.start(), _renew(member))

        words = f"kill both: {daemon.name} and its member"
        return Fault(words, self._random.choice((0.0, seconds)), strike, heal, frozenset({one}), frozenset({one}))

    # -- what must hold

    async def _check(self, fault: Fault | None) -> None:
        """The mesh becomes whole and well again, and the books agree."""
        began = time.monotonic()
        if not await self._within(HEAL, self._whole(), "the daemons do not agree on who is there"):
            return
        whole = time.monotonic() - began
        self._report.healed.append(whole)
        for load in self._loads:
            load.pause()
        await self._within(PATIENT + 5, self._until(lambda: not self._books.under_way), "calls of apps do not end")
        await self._within(HEAL, self._told(fault), "not every subscriber is told")
        await self._within(HEAL, self._quiet(), "something lingers")
        books = self._books
        books.read_log(self._log)
        books.judge(pushes=fault is None or not fault.daemons | fault.members)
        before = len(books.breaches)
        lost = 0
        for reader in books.readers:
            if not reader.balanced and not self._excused(reader.name, fault):
                books.breaches.append(f"{reader.name}: {reader.missing} missing, {reader.told} told")
            lost += reader.missing
            self._report.unknown += reader.unknown
            reader.reckon()
        self._report.lost += lost
        books.lag = 0.0
        if fault is not None:
            verdict = "ok" if len(books.breaches) == before else f"{len(books.breaches)} breaches"
            self.say(f"  whole after {whole:.1f} s, {lost} events lost: {verdict}")

    def _excused(self, name: str, fault: Fault | None) -> bool:
        """A publisher whose own daemon died knows that some were lost; those that read it are told later, or never."""
        return fault is not None and any(name.startswith(self._mesh[one].name + " ") for one in fault.daemons)

    async def _within(self, seconds: float, state: Awaitable[None], otherwise: str) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await state
        except TimeoutError:
            detail = await self._describe()
            self._books.breaches.append(f"after {seconds:g} s {otherwise}: {detail}")
            self.say(f"  {otherwise}: {detail}")
            return False
        return True

    @staticmethod
    async def _until(truth: Callable[[], bool]) -> None:
        while not truth():
            await asyncio.sleep(0.02)

    async def _whole(self) -> None:
        """All daemons show the same picture, and it is the true one."""
        patience = time.monotonic() + 10
        while True:
            pictures = await asyncio.gather(*(self._picture(daemon) for daemon in self._mesh.daemons))
            nodes, members, topics = pictures[0]
            there = set(nodes.values()) == {"alive"} and len(nodes) == self._nodes
            if (
                there
                and members == self._nodes
                and topics == self._nodes
                and pictures.count(pictures[0]) == len(pictures)
            ):
                return
            if time.monotonic() > patience:
                self.say(f"  not whole yet: {await self._describe()}")
                patience += 10
            await asyncio.sleep(0.1)

    async def _picture(self, daemon: DaemonProcess) -> tuple[dict[str, str], int, int]:
        """Who is there (linked, or itself); members of the cluster; topics that every node subscribes to."""
        async with control(daemon) as stub:
            nodes = (await stub.ListNodes(pb.ListRequest(), timeout=HEAL)).nodes
            clusters = (await stub.ListClusters(pb.ListRequest(), timeout=HEAL)).clusters
            topics = (await stub.ListTopics(pb.ListRequest(), timeout=HEAL)).topics
        states = {
            row.node: "alive" if row.state == "self" or (row.state == "alive" and row.linked) else row.state
            for row in nodes
            if row.state not in ("dead", "left")
        }
        members = sum(row.members for row in clusters if row.name == CLUSTER)
        full = [row for row in topics if not row.group and row.subscribers == row.nodes == self._nodes]
        return states, members, len(full)

    async def _told(self, fault: Fault | None) -> None:
        """Everyone reads something published now, and has heard of all that was lost."""
        marks = {load.name: load.published + 1 for load in self._loads}

        def caught_up() -> bool:
            return all(
                reader.last >= marks[reader.name.split()[0]] and (reader.balanced or self._excused(reader.name, fault))
                for reader in self._books.readers
            )

        patience = time.monotonic() + 10
        while not caught_up():
            if time.monotonic() > patience:
                self.say(f"  not told yet: {await self._describe()}")
                patience += 10
            for load in self._loads:
                await load.publish()
            await asyncio.sleep(0.1)

    async def _quiet(self) -> None:
        for daemon in self._mesh.daemons:
            while True:
                service = (await daemon.status()).services[0]
                if not service.pending and not service.queued:
                    break
                await asyncio.sleep(0.05)

    async def _describe(self) -> str:
        """What each daemon shows, for a breach."""
        told = []
        for daemon in self._mesh.daemons:
            with suppress(Exception):
                states, members, topics = await self._picture(daemon)
                service = (await daemon.status()).services[0]
                told.append(
                    f"{daemon.name}: {sorted(states.values())}, {members} members, {topics} topics, "
                    f"{service.pending} pending, {service.queued} bytes queued"
                )
        for reader in self._books.readers:
            if not reader.balanced:
                told.append(f"{reader.name}: {reader.missing} missing, {reader.told} told, last {reader.last}")
        return "; ".join(told)


async def _renew(member: AppProcess) -> None:
    await member.start()
    await member.ready()


async def run(seed: int, minutes: float, nodes: int, only: str = "", logs: Path | None = None) -> Report:
    """Break a mesh for some minutes, and report.

    Args:
        seed: What breaks.
        minutes: For how long.
        nodes: How many daemons.
        only: Faults whose name has this in it.
        logs: A folder for the daemons' logs.
    """
    report = Report(seed, nodes, minutes, only=only, logs=logs)
    print(f"chaos: {nodes} daemons for {minutes:g} min, SEED={seed}; again: {report.command}", flush=True)
    await Chaos(report).run()
    report.tell()
    return report


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.accept.chaos", description="Break a real mesh, check it.")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or 0) or random.randrange(1, 1 << 30))
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("MINUTES") or 5))
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--only", default="", choices=KINDS, help="one kind of fault")
    parser.add_argument("--logs", type=Path, help="a folder for the daemons' logs")
    wanted = parser.parse_args()
    report = asyncio.run(run(wanted.seed, wanted.minutes, wanted.nodes, wanted.only, wanted.logs))
    return 1 if report.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
