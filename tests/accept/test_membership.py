"""Who is there, and how soon everybody knows: daemons killed, stopped and held up.

Every test prints what it measured: ``make accept ARGS='-s -k membership'`` shows the figures.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import AsyncExitStack

import pytest

import iris_client as iris
from irisd.demo.mesh import DaemonProcess, Mesh
from tests.accept.membership_ground import (
    Ears,
    all_know,
    all_see_all,
    conditions,
    echo,
    iris_status,
    listening,
    quantile,
    rows,
    until,
)

pytestmark = [pytest.mark.accept, pytest.mark.timeout(600)]

UNROUTABLE = 0.2  # seconds after a kill in which the last request may still go to the dead
RATE = 100  # requests a second, of all callers together
NEVER_DEAD = 3.0  # seconds of silence before which nobody is dead
DEAD = 5.0  # seconds of silence after which everybody says so
MIDDLE = 2  # of five: it has dialled two of the others, and two have dialled it
BACK = 2.0  # seconds in which whoever goes on is alive again for all
GONE = ("dead", "left")


# ------------------------------------------------------------------------ a daemon killed


class Callers:
    """Requests from several apps at a steady rate, however long each takes; each is one row of :attr:`ended`."""

    def __init__(self, apps: list[iris.Mesh], cluster: str) -> None:
        self._apps = apps
        self._cluster = cluster
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended: list[tuple[float, str, str]] = []  # when it began, who answered, why nobody did

    async def run(self, seconds: float) -> None:
        began = time.monotonic()
        for number in range(int(seconds * RATE)):
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            task = asyncio.create_task(self._ask(self._apps[number % len(self._apps)]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)

    async def _ask(self, app: iris.Mesh) -> None:
        began = time.monotonic()
        try:
            reply = await app.request(self._cluster, b"", timeout=5.0)
        except iris.IrisError as error:
            self.ended.append((began, "", f"{type(error).__name__}: {error}"))
        else:
            self.ended.append((began, reply.body.decode(), ""))


async def test_nothing_is_routed_to_a_node_that_was_killed() -> None:
    """Ten daemons, three of them serve; each of the three is killed once, and comes back as a new node."""
    async with Mesh(10) as mesh, listening(mesh.daemons) as ears, AsyncExitStack() as stack:
        for each in ears[7:]:
            await stack.enter_async_context(each.app.join(echo("work", each.name)))
        print()
        for victim in (9, 8, 7):
            await all_see_all(mesh.daemons)
            await all_know(mesh.daemons, "work", 3)
            await kill_one(mesh[victim], ears[victim].app.node, [each for each in ears if each is not ears[victim]])
            await mesh[victim].start()


async def kill_one(daemon: DaemonProcess, node: str, others: list[Ears]) -> None:
    callers = Callers([each.app for each in others], "work")
    calling = asyncio.create_task(callers.run(4.0))
    await asyncio.sleep(1.5)  # requests are under way, and go on for longer than a heartbeat afterwards
    daemon.signal(signal.SIGKILL)
    killed = time.monotonic()
    await daemon.ended()
    await calling
    failed = [(at - killed, why) for at, _, why in callers.ended if why]
    last = max((at for at, _ in failed), default=None)
    answered = {who for at, who, _ in callers.ended if at > killed and who}

    def is_off(change: iris.Change) -> bool:
        unroutable = change.cluster == "work" and not change.members
        return change.node == node and (unroutable or change.state in ("suspect", *GONE))

    known = [at - killed for each in others if (at := each.first(killed, is_off)) is not None]
    when = "" if last is None else f", the last of them begun {last * 1e3:+.0f} ms from the kill"
    print(
        f"kill -9 of {daemon.name}: {len(callers.ended)} requests, {len(failed)} failed{when}; "
        f"unroutable everywhere after {quantile(known, 1.0) * 1e3:.0f} ms"
    )
    assert len(callers.ended) == 4 * RATE
    assert last is None or last <= UNROUTABLE, f"a request begun {last:.3f} s after the kill failed: {failed[-3:]}"
    assert len(known) == len(others), "somebody did not notice"
    assert max(known) <= UNROUTABLE
    assert len(answered) == 2, "the two that are left share the work"


# ----------------------------------------------------------------------- a daemon stopped


async def stopped_for(daemon: DaemonProcess, seconds: float) -> tuple[float, float]:
    """Stop a process for a while; return when it stopped and when it went on."""
    daemon.signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        await asyncio.sleep(seconds)
    finally:
        daemon.signal(signal.SIGCONT)
    return began, time.monotonic()


async def back_again(node: str, ears: list[Ears], went_on: float) -> float:
    """Wait until a node is alive for all others; return the seconds from when it went on."""
    await until(
        lambda: all(each.state(node) == "alive" for each in ears if each.node != node), "it is alive for everybody"
    )
    last = [at for each in ears for at, change in each.since(went_on) if change.node == node and not change.cluster]
    return max(last, default=went_on) - went_on


async def test_a_node_that_is_silent_for_less_than_three_seconds_is_never_dead() -> None:
    async with Mesh(5) as mesh, listening(mesh.daemons) as ears:
        await all_see_all(mesh.daemons)
        node, worst, suspected, rounds = ears[MIDDLE].node, 0.0, 0, 0
        while rounds < 6:
            await asyncio.sleep(random.random())  # at another phase of everybody's rounds
            began, went_on = await stopped_for(mesh[MIDDLE], 2.9)
            if went_on - began >= NEVER_DEAD:
                continue  # this machine was slower than the test: nothing is promised for that
            rounds += 1
            worst = max(worst, await back_again(node, ears, went_on))
            suspected += sum(bool(each.verdicts(began, "suspect")) for each in ears if each.node != node)
            await asyncio.sleep(1.0)  # what was on its way has come
            dead = [verdict for each in ears for verdict in each.verdicts(began, *GONE)]
            assert not dead, dead
        print(f"\nstopped for 2.9 s, {rounds} times: dead nowhere, suspect at {suspected / rounds:.1f} of 4,", end=" ")
        print(f"alive again everywhere after {worst * 1e3:.0f} ms at most")
        assert suspected, "nobody missed it"
        assert worst <= BACK


async def test_a_node_that_is_silent_for_five_seconds_is_dead_everywhere_and_comes_back() -> None:
    async with Mesh(5) as mesh, listening(mesh.daemons) as ears:
        await all_see_all(mesh.daemons)
        node, name = ears[MIDDLE].node, mesh[MIDDLE].name
        others = [each for each in ears if each.node != node]
        deaths: list[float] = []
        returns: list[float] = []
        for _ in range(4):
            await asyncio.sleep(random.random())
            began, went_on = await stopped_for(mesh[MIDDLE], 7.0)
            found = [each.first(began, lambda change: change.node == node and change.state in GONE) for each in others]
            assert all(found), "somebody never said it was dead"
            deaths += [at - began for at in found if at is not None]
            returns.append(await back_again(node, ears, went_on))
            await asyncio.sleep(2.0)  # whatever is said too late would have been said by now
            for each, daemon in zip(ears, mesh.daemons, strict=True):
                wrong = [verdict for verdict in each.verdicts(began, *GONE) if f": {name} is" not in verdict]
                assert not wrong, wrong
                known = await rows(daemon)
                assert len(known) == len({row.node for row in known}) == 5, "an entry too many"
                assert [row.node for row in known if row.name == name] == [node]
                assert {row.state for row in known} == {"self", "alive"}
        print(f"\nstopped for 7 s: dead at all four after {min(deaths):.2f} to {max(deaths):.2f} s,", end=" ")
        print(f"alive again everywhere after {max(returns) * 1e3:.0f} ms at most")
        assert min(deaths) >= NEVER_DEAD
        assert max(deaths) <= DEAD
        assert max(returns) <= BACK


async def test_a_node_that_is_held_up_again_and_again_buries_nobody() -> None:
    """One of ten, stopped for 1 to 2.9 s again and again: nobody is declared dead, by it or by others."""
    async with Mesh(10) as mesh, listening(mesh.daemons) as ears:
        await all_see_all(mesh.daemons)
        slow, began = mesh[5], time.monotonic()  # it has dialled five, and four have dialled it
        times: list[float] = []
        while time.monotonic() - began < 60.0:
            stopped, went_on = await stopped_for(slow, random.uniform(1.0, 2.9))
            times.append(went_on - stopped)
            await asyncio.sleep(random.uniform(0.1, 1.0))
        status = await iris_status(slow)
        await all_see_all(mesh.daemons)
        buried = [verdict for each in ears for verdict in each.verdicts(began, *GONE)]
        others = [verdict for each in ears if each is not ears[5] for verdict in each.verdicts(began, "suspect")]
        healthy = [verdict for verdict in others if f": {slow.name} is" not in verdict]
        own = len(ears[5].verdicts(began, "suspect"))
        print(f"\nheld up {len(times)} times in 60 s, for {sum(times):.0f} s together: {len(buried)} declared dead;")
        print(
            f"healthy nodes were suspected {len(healthy)} times by each other and {own} times by the slow one,", end=""
        )
        print(f" the slow one {len(others) - len(healthy)} times")
        if max(times) < NEVER_DEAD:
            assert not buried, buried
        else:
            assert not [verdict for verdict in buried if f": {slow.name} is" not in verdict], buried
        assert "slow-loop" in status, status
        # All of them, the slow one included, told their apps in the end what is so.
        nodes = {each.node for each in ears}
        for each in ears:
            await until(
                lambda each=each: all(each.state(node) == "alive" for node in nodes - {each.node}),  # type: ignore[misc]
                f"{each.name} has told that all are alive",
            )


# ------------------------------------------------------------------------------ one name


async def test_two_daemons_with_one_name_are_told_so_until_one_leaves() -> None:
    async with Mesh(2) as mesh:
        twin = DaemonProcess(
            mesh.folder, "twin", ["--key", str(mesh.key), "--multicast", "off", "--log-level", "warning"]
        )
        twin.name = mesh[1].name
        twin.seed_with([daemon.links for daemon in mesh.daemons])
        alike = [mesh[1], twin]
        mesh.daemons.append(twin)
        for daemon in mesh.daemons[:2]:
            assert "duplicate-name" not in await conditions(daemon)
        began = time.monotonic()
        await twin.start()
        await all_see_all(mesh.daemons)
        for daemon in alike:
            while "duplicate-name" not in await conditions(daemon):
                assert time.monotonic() - began < 30.0
        assert mesh[1].name in await iris_status(twin)
        left = time.monotonic()
        assert await twin.stop() == 0
        while "duplicate-name" in await conditions(mesh[1]):
            assert time.monotonic() - left < 10.0
        print(f"\none name twice: said by both, no more {time.monotonic() - left:.2f} s after one was told to leave")
