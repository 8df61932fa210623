"""10,000 requests from 64 tasks while apps and daemons are killed and restarted at random.

What must hold: every request ends once, in a reply or a typed error, before its deadline; no request's handler runs
twice; ``executed`` never lies; and when it is quiet again nothing has leaked.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections import Counter
from contextlib import suppress

import psutil
import pytest

import iris_client as iris
from irisd.demo.mesh import DaemonProcess, Mesh
from tests.accept.processes import AppProcess

REQUESTS = 10_000
TASKS = 64
TIMEOUT = 5.0
LATE = 0.5  # seconds a loaded machine may need to run the timer that ends a request
NODES = 3
MEMBERS = 2  # on each node

pytestmark = pytest.mark.accept


class Chaos:
    """Kills something every now and then and starts it again."""

    def __init__(self, daemons: list[DaemonProcess], members: list[AppProcess], seed: int) -> None:
        self._daemons = daemons
        self._members = members
        self._random = random.Random(seed)
        self.counts: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._random.uniform(0.2, 0.8))
            if not stop.is_set():
                await self._strike()

    async def _strike(self) -> None:
        choice = self._random.choice(("kill a member", "kill a member", "kill a daemon", "stop a daemon"))
        self.counts[choice] += 1
        if choice == "kill a member":
            member = self._random.choice(self._members)
            await member.kill()
            await member.start()
            return
        daemon = self._random.choice(self._daemons)
        if choice == "kill a daemon":
            await daemon.kill()
        else:
            assert await daemon.stop() == 0, "SIGTERM must end a daemon with 0"
        await daemon.start()


async def test_every_request_ends_once_and_tells_the_truth() -> None:
    seed = int(os.environ.get("SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"\nSEED={seed}")
    own = psutil.Process()
    async with Mesh(NODES, "--preset", "local", "--drain-timeout", "2s") as mesh:
        # Ports and seeds stay the same over restarts, so every daemon finds the others again.
        for daemon in mesh.daemons:
            others = [other.links for other in mesh.daemons if other is not daemon]
            daemon.seed_with(others)
        log = mesh.folder / "executed.log"
        members = [
            AppProcess("chaos_member.py", daemon.url, str(log)) for daemon in mesh.daemons for _ in range(MEMBERS)
        ]
        for member in members:
            await member.start()
        for member in members:
            await member.ready()
        chaos = Chaos(mesh.daemons, members, seed)
        outcomes: dict[int, str] = {}
        executed_of: dict[int, str] = {}
        late: list[float] = []
        numbers = iter(range(REQUESTS))
        tasks_before, files_before = len(asyncio.all_tasks()), own.num_fds()
        stop = asyncio.Event()
        async with (
            iris.connect(mesh[0].url, name="asker-1") as first,
            iris.connect(mesh[1].url, name="asker-2") as second,
        ):

            async def ask(app: iris.Mesh) -> None:
                for number in numbers:
                    began = time.monotonic()
                    try:
                        reply = await app.request("work", b"%d" % number, timeout=TIMEOUT)
                    except iris.IrisError as error:
                        outcome = type(error).__name__
                        executed_of[number] = str(getattr(error, "executed", "unsaid"))
                        if outcome in ("NoMember", "Overloaded"):
                            await asyncio.sleep(0.02)  # an app would not hammer either
                    else:
                        outcome = "reply"
                        assert reply.body == b"%d" % number, "somebody else's reply"
                    took = time.monotonic() - began
                    if took > TIMEOUT + LATE:
                        late.append(took)
                    assert number not in outcomes, "a request ended twice"
                    outcomes[number] = outcome
                    await asyncio.sleep(random.random() * 0.3)

            striking = asyncio.create_task(chaos.run(stop))
            await asyncio.gather(*(ask((first, second)[task % 2]) for task in range(TASKS)))
            stop.set()
            await striking
            print(f"chaos: {dict(chaos.counts)}; outcomes: {dict(Counter(outcomes.values()))}")
            print(f"executed: {dict(Counter(executed_of.values()))}")

            # Quiet again: whoever asks now is answered, and nothing is left over anywhere.
            for daemon in mesh.daemons:
                await daemon.linked(NODES - 1)
            async with asyncio.timeout(30):
                while True:
                    with suppress(iris.IrisError):
                        await first.request("work", b"after", timeout=2.0)
                        await second.request("work", b"after", timeout=2.0)
                        break
                for daemon in mesh.daemons:
                    while True:
                        service = (await daemon.status()).services[0]
                        if not service.pending and not service.queued:
                            break
                        await asyncio.sleep(0.05)
        for member in members:
            await member.kill()
        gc.collect()
        assert len(asyncio.all_tasks()) <= tasks_before, "the SDK left tasks behind"
        assert own.num_fds() <= files_before + 2, f"{own.num_fds() - files_before} descriptors were left behind"

        runs = Counter(int(line) for line in log.read_text().split() if line != "after")
        assert len(outcomes) == REQUESTS
        assert not late, f"{len(late)} requests ended late, the latest after {max(late):.2f} s"
        twice = [number for number, count in runs.items() if count > 1]
        assert not twice, f"handlers ran twice for {twice[:10]}"
        for number, outcome in outcomes.items():
            said = executed_of.get(number)
            if outcome == "reply":
                assert number in runs, f"{number} was answered and never ran"
            elif said == "no":
                assert number not in runs, f"{number} ran, and the error ({outcome}) said it had not"
            elif said == "yes":
                assert number in runs, f"{number} never ran, and the error ({outcome}) said it had"
        answered = sum(outcome == "reply" for outcome in outcomes.values())
        assert answered > REQUESTS // 2, f"only {answered} of {REQUESTS} were answered"
        assert sum(chaos.counts.values()) >= 5, "hardly any chaos"
