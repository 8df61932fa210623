"""``kill -9``, again and again, under 500 requests a second: members, daemons, both at once.

Three nodes, members on each, callers attached to each. Whatever is killed is started again at once. What must hold:
every answer was worked for, no handler of a request that is not idempotent ran twice, every failure is typed, says the
truth and comes before its deadline; and whoever says ``idempotent=True``, and waits longer than a restart takes, never
sees one. ``SEED=`` repeats the order of the kills, ``SECONDS=`` shortens it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import iris_client as iris
from irisd.demo.mesh import DaemonProcess, Mesh
from tests.accept.processes import AppProcess, numbers_in

RATE = 500  # requests a second, all callers together
SECONDS = float(os.environ.get("SECONDS", "60"))
NODES = 3
MEMBERS = 2  # on each node
LATE = 0.5  # seconds a loaded machine may need to run the timer that ends a request
TIMEOUT = 2.0
LONG = 30.0  # longer than a daemon and a member need to come back, one after the other, on a loaded machine
PAUSE = (0.3, 1.2)  # seconds between two kills

pytestmark = [pytest.mark.accept, pytest.mark.timeout(int(SECONDS) + 240)]


@dataclass
class Figures:
    """What became of the requests."""

    kills: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    executed: dict[int, str] = field(default_factory=dict)  # of those that failed: what the error said
    acknowledged: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    def tell(self, seed: int, runs: Counter[int]) -> None:
        """Print them."""
        took = sorted(self.took)
        twice = sum(count > 1 for count in runs.values())
        print(f"\nSEED={seed}; kills: {dict(self.kills)}")
        print(f"outcomes: {dict(self.outcomes)}; handlers ran for {len(runs):,}, twice for {twice:,}")
        at = {share: took[int(share * (len(took) - 1))] * 1e3 for share in (0.5, 0.99, 0.999, 1)}
        print("answers took " + ", ".join(f"p{share * 100:g} {ms:,.0f} ms" for share, ms in at.items()))
        for failure in self.failures[:20]:
            print(f"  {failure}")


class Killer:
    """Kills one thing after the other; starts each again at once."""

    def __init__(self, mesh: Mesh, members: list[list[AppProcess]], seed: int, figures: Figures) -> None:
        self._mesh, self._members, self._figures = mesh, members, figures
        self._random = random.Random(seed)
        self.began = time.monotonic()
        self.log: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop."""
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._random.uniform(*PAUSE))
            if not stop.is_set():
                await self._strike()

    async def _strike(self) -> None:
        what = self._random.choice(("a member", "a member", "a daemon", "both"))
        node = self._random.randrange(NODES)
        self._figures.kills[what] += 1
        self.log.append(f"{time.monotonic() - self.began:.2f} s: {what} of node-{node + 1}")
        member = self._random.choice(self._members[node])
        daemon: DaemonProcess = self._mesh[node]
        if what == "a member":
            await self._renew(member)
        elif what == "a daemon":
            await daemon.kill()
            await daemon.start()
        else:
            await asyncio.gather(daemon.kill(), member.kill())
            await asyncio.gather(daemon.start(), member.start())
            await member.ready()

    @staticmethod
    async def _renew(member: AppProcess) -> None:
        await member.kill()
        await member.start()
        await member.ready()


async def ask(app: iris.Mesh, number: int, idempotent: bool, figures: Figures, killer: Killer) -> None:
    """One request, and what became of it."""
    timeout = LONG if idempotent else TIMEOUT
    began = time.monotonic()
    try:
        reply = await app.request("work", b"%d" % number, timeout=timeout, idempotent=idempotent)
    except iris.DeliveryError as error:
        outcome = type(error).__name__
        figures.executed[number] = error.executed.value
        at = time.monotonic() - killer.began
        figures.failures.append(f"{at:.2f} s, after {time.monotonic() - began:.2f} s: {outcome}: {error}")
    else:
        outcome = "reply"
        assert reply.body == b"%d" % number, "somebody else's reply"
        figures.acknowledged.add(number)
        figures.took.append(time.monotonic() - began)
    took = time.monotonic() - began
    if took > timeout + LATE:
        figures.late.append(took)
    figures.outcomes[outcome] += 1


async def load(apps: list[iris.Mesh], idempotent: bool, figures: Figures, killer: Killer) -> int:
    """Ask at an even pace whatever the answers; return how many were asked."""
    loop = asyncio.get_running_loop()
    began, number = loop.time(), 0
    async with asyncio.TaskGroup() as asking:
        while (now := loop.time() - began) < SECONDS:
            while number < now * RATE:
                asking.create_task(ask(apps[number % NODES], number, idempotent, figures, killer))
                number += 1
            await asyncio.sleep(0.005)
    return number


@pytest.mark.parametrize("idempotent", [False, True], ids=["at-most-once", "idempotent"])
async def test_kill_9_under_load(idempotent: bool) -> None:
    seed = int(os.environ.get("SEED", "0")) or random.randrange(1, 1 << 30)
    figures = Figures()
    async with Mesh(NODES) as mesh, AsyncExitStack() as stack:
        for daemon in mesh.daemons:  # ports stay the same over restarts, so whoever comes back finds the others
            daemon.seed_with([other.links for other in mesh.daemons if other is not daemon])
        log: Path = mesh.folder / "executed.log"
        members = [[AppProcess("chaos_member.py", d.url, str(log)) for _ in range(MEMBERS)] for d in mesh.daemons]
        for member in (member for there in members for member in there):
            stack.push_async_callback(member.kill)
            await member.start()
        for member in (member for there in members for member in there):
            await member.ready()
        apps = [await stack.enter_async_context(iris.connect(daemon.url)) for daemon in mesh.daemons]
        killer = Killer(mesh, members, seed, figures)
        stop = asyncio.Event()
        killing = asyncio.create_task(killer.run(stop))
        asked = await load(apps, idempotent, figures, killer)
        stop.set()
        await killing
        runs = Counter(numbers_in([log]))
        figures.tell(seed, runs)
        if figures.failures and idempotent:
            print("\n".join(killer.log))

        assert sum(figures.outcomes.values()) == asked
        lost = figures.acknowledged - runs.keys()
        assert not lost, f"{len(lost)} requests were answered and never ran"
        assert not figures.late, f"{len(figures.late)} ended late, the last after {max(figures.late):.2f} s"
        for number, said in figures.executed.items():
            assert said != "no" or number not in runs, f"{number} ran, and its error said it had not"
            assert said != "yes" or number in runs, f"{number} never ran, and its error said it had"
        if idempotent:
            assert not figures.failures, f"{len(figures.failures)} idempotent requests failed"
        else:
            twice = [number for number, count in runs.items() if count > 1]
            assert not twice, f"handlers ran twice for {twice[:10]}"
        assert sum(figures.kills.values()) >= SECONDS / 6, "hardly any kills"
