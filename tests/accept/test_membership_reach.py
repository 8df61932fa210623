"""How soon everybody can reach everybody: claims, chains of seeds, and meshes too large to be full.

Every test prints what it measured: ``make accept ARGS='-s -k membership'`` shows the figures.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

import iris_client as iris
from irisd.demo.mesh import DaemonProcess, Mesh
from irisd.membership.rings import RINGS, Rings
from tests.accept.membership_ground import (
    PATIENCE,
    Ears,
    all_know,
    all_see_all,
    echo,
    free_ports,
    listening,
    quantile,
    rows,
    until,
)

pytestmark = [pytest.mark.accept, pytest.mark.timeout(600)]

ROUTABLE = 0.1  # seconds from a join until every node routes to it
JOINS = 20
FILTERS = 10_000
CHAINED = 3.0  # seconds until a chain is a mesh
LIMIT = 4  # full_mesh_limit of the large mesh
MANY = 16  # daemons of it: more than one node can have watchers
IDLE = 2.0  # seconds after which it closes links that nobody needs


# ---------------------------------------------------------------------------------- claims


async def joins(ears: list[Ears]) -> list[float]:
    """Join at one node again and again; how long each time until the last of the others can route there."""
    times = []
    for number in range(JOINS):
        name, joining = f"claimed-{random.getrandbits(40)}", ears[number % len(ears)]
        others = [each for each in ears if each is not joining]
        began = time.monotonic()
        async with joining.app.join(echo(name, joining.name)):
            instants = await asyncio.gather(*(await_first(each, began, name) for each in others))
            # They have told it; and so it is.
            replies = await asyncio.gather(*(each.app.request(name, timeout=5.0) for each in others))
            assert {reply.body.decode() for reply in replies} == {joining.name}
        times.append(max(instants) - began)
    return times


async def await_first(ears: Ears, began: float, cluster: str) -> float:
    """When a node told its app that a cluster has members."""

    def found() -> float | None:
        return ears.first(began, lambda change: change.cluster == cluster and change.members > 0)

    async with asyncio.timeout(PATIENCE):
        while (at := found()) is None:
            ears.news.clear()
            await ears.news.wait()
    return at


async def test_a_claim_is_routable_from_everywhere_within_a_tenth_of_a_second() -> None:
    """Ten nodes; at first there are no other claims, then ten thousand subscriptions of one app."""
    async with Mesh(10) as mesh:
        await all_see_all(mesh.daemons)
        async with listening(mesh.daemons) as ears:
            report("no other claims", times := await joins(ears))
        assert quantile(times, 0.95) <= ROUTABLE
        async with iris.connect(mesh[4].url, name="reader", timeout=PATIENCE) as reader, AsyncExitStack() as stack:
            began = time.monotonic()
            subscriptions = [reader.subscribe(f"known.{number}") for number in range(FILTERS)]
            for at in range(0, FILTERS, 500):
                await asyncio.gather(*map(stack.enter_async_context, subscriptions[at : at + 500]))
            took = time.monotonic() - began
            async with listening(mesh.daemons) as ears:
                last = ears[9].app
                await last.publish("known.9999", b"x")  # the last of them is known at the far end
                async with asyncio.timeout(PATIENCE):
                    assert (await anext(subscriptions[9_999])).body == b"x"
                report(f"{FILTERS} subscriptions, made in {took:.1f} s", times := await joins(ears))
        assert quantile(times, 0.95) <= ROUTABLE


def report(what: str, times: list[float]) -> None:
    words = ", ".join(
        f"{name} {quantile(times, share) * 1e3:.1f} ms"
        for name, share in (("median", 0.5), ("p95", 0.95), ("slowest", 1.0))
    )
    print(f"\na claim is routable from nine others ({what}): {words}")


# ------------------------------------------------------------------------- chains of seeds


def chain(mesh: Mesh, number: int, *arguments: str) -> list[DaemonProcess]:
    """Daemons each of which is told of the one before it, and of nobody else."""
    ports = free_ports(number)
    for at, port in enumerate(ports):
        before = [f"127.0.0.1:{ports[at - 1]}"] if at else []
        daemon = mesh.make(f"node-{at + 1}", *arguments, seeds=before)
        daemon.links = f"127.0.0.1:{port}"
        mesh.daemons.append(daemon)
    return mesh.daemons


async def test_a_chain_of_seeds_becomes_a_full_mesh() -> None:
    times = []
    for _ in range(5):
        async with Mesh(0) as mesh:
            daemons = chain(mesh, 5)
            await asyncio.gather(*(daemon.start() for daemon in daemons))
            began = time.monotonic()
            await all_see_all(daemons)
            times.append(time.monotonic() - began)
            async with (
                iris.connect(daemons[4].url) as serving,
                serving.join(echo("far", "node-5")),
                iris.connect(daemons[0].url) as asking,
            ):
                await all_know(daemons, "far", 1)
                assert (await asking.request("far")).body == b"node-5"
    print(f"\na chain of five seeds: a full mesh after {quantile(times, 0.5):.2f} s, {max(times):.2f} s at most")
    assert max(times) <= CHAINED


# ----------------------------------------------------------- meshes too large to be full


@asynccontextmanager
async def large_mesh() -> AsyncIterator[tuple[list[DaemonProcess], dict[str, iris.Mesh]]]:
    """A chain that became a mesh of which each knows all and is linked with some; an app that serves on each."""
    async with Mesh(0, "--full-mesh-limit", str(LIMIT), "--idle-link", f"{IDLE:g}s") as mesh:
        daemons = chain(mesh, MANY)
        for at in range(0, MANY, 4):
            await asyncio.gather(*(daemon.start() for daemon in daemons[at : at + 4]))
        await all_see_all(daemons, linked=False)
        async with AsyncExitStack() as stack:
            apps = {}
            for daemon in daemons:
                app = await stack.enter_async_context(iris.connect(daemon.url, timeout=PATIENCE))
                await stack.enter_async_context(app.join(echo(f"at-{daemon.name}", daemon.name)))
                apps[daemon.name] = app
            for daemon in daemons:
                await all_know(daemons, f"at-{daemon.name}", 1)
            yield daemons, apps


async def links(daemons: Sequence[DaemonProcess]) -> dict[str, set[str]]:
    """With whom each node is linked now, by id."""
    found = {}
    for daemon in daemons:
        own, *others = await rows(daemon)
        found[own.node] = {row.node for row in others if row.linked}
    return found


def watched(nodes: Sequence[str]) -> dict[str, set[str]]:
    """With whom each is to be linked when there is no traffic."""
    found = {}
    for node in nodes:
        rings = Rings(bytes.fromhex(node))
        for other in nodes:
            if other != node:
                rings.add(bytes.fromhex(other))
        found[node] = {other.hex() for other in rings.neighbours}
    return found


async def idle_links(daemons: Sequence[DaemonProcess]) -> dict[str, set[str]]:
    """Wait until there are no other links than those for watching."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await links(daemons)
            if found == watched(list(found)):
                return found
            await asyncio.sleep(0.1)


async def ask_everybody(daemons: Sequence[DaemonProcess], apps: dict[str, iris.Mesh]) -> list[float]:
    """Every app asks the members at all nodes, one after the other; how long each answer took."""
    times: list[float] = []

    async def ask(app: iris.Mesh) -> None:
        for other in random.sample(list(daemons), len(daemons)):
            began = time.monotonic()
            assert (await app.request(f"at-{other.name}", timeout=5.0)).body.decode() == other.name
            times.append(time.monotonic() - began)

    for daemon in daemons:
        await ask(apps[daemon.name])
    return times


async def test_in_a_large_mesh_links_are_made_when_needed_and_closed_when_not() -> None:
    async with large_mesh() as (daemons, apps):
        quiet = await idle_links(daemons)
        most, missing = max(map(len, quiet.values())), sum(MANY - 1 - len(peers) for peers in quiet.values()) // 2
        print(f"\n{MANY} daemons, full_mesh_limit={LIMIT}: at most {most} links each, {missing} pairs have none")
        assert most <= 2 * RINGS
        assert missing, "all are linked: nothing would be made when needed"
        for again in range(2):
            times = await ask_everybody(daemons, apps)
            made = sum(map(len, (await links(daemons)).values())) // 2 - sum(map(len, quiet.values())) // 2
            began = time.monotonic()
            quiet = await idle_links(daemons)
            print(
                f"everybody asked everybody ({again + 1}): median {quantile(times, 0.5) * 1e3:.1f} ms, slowest "
                f"{max(times) * 1e3:.1f} ms; {made} more links then, none {time.monotonic() - began:.1f} s later"
            )
            assert made > 0, "no link was made"
            assert max(times) < 1.0

        spare = daemons[-1]
        for dead, linked in ((daemons[0], True), (daemons[1], False)):
            living = [daemon for daemon in daemons if daemon.running and daemon is not dead]
            await kill_and_ask(dead, spare, living, apps, linked=linked)
        await ask_everybody(living, apps)


async def kill_and_ask(
    dead: DaemonProcess, spare: DaemonProcess, living: list[DaemonProcess], apps: dict[str, iris.Mesh], *, linked: bool
) -> None:
    """Kill a node that serves beside another; those that do not watch it ask all the while.

    ``linked``: Whether they have a link with it then, made for what they asked before; or find nobody when they dial.
    """
    cluster, dead_id = f"at-{dead.name}", apps[dead.name].node
    async with apps[spare.name].join(echo(cluster, spare.name)):
        await all_know([*living, dead], cluster, 2)
        quiet = await idle_links([*living, dead])
        strangers = [daemon.name for daemon in living if apps[daemon.name].node not in quiet[dead_id]]
        assert strangers, "everybody watches the one that is killed"
        if linked:
            for name in strangers:
                assert await answers(apps[name], cluster) == {dead.name, spare.name}
        dead.signal(signal.SIGKILL)
        killed = time.monotonic()
        await dead.ended()
        found = await asyncio.gather(*(routed_around(apps[name], cluster, spare.name, killed) for name in strangers))
        how = "with" if linked else "without"
        failures = sum(count for count, _ in found)
        print(
            f"kill -9, asked by {len(strangers)} that do not watch it, {how} a link: {failures} requests failed, "
            f"the last of them begun {max(last for _, last in found) * 1e3:.0f} ms after the kill"
        )
        assert max(last for _, last in found) <= 0.2
        await all_see_all(living, linked=False)
        known = time.monotonic() - killed
        print(f"it is dead for all {len(living)}, whether they watched it or not, {known:.2f} s later at most")
        assert known <= 6.0, "dead within five seconds, and told"


async def answers(app: iris.Mesh, cluster: str) -> set[str]:
    """Who answers, of several."""
    return {(await app.request(cluster, timeout=5.0)).body.decode() for _ in range(40)}


async def routed_around(app: iris.Mesh, cluster: str, by: str, killed: float) -> tuple[int, float]:
    """Ask for four seconds, until it is known to be dead; how many requests failed, and when the last of them began."""
    failures, last = 0, 0.0
    while (began := time.monotonic()) - killed < 4.0:
        try:
            assert (await app.request(cluster, timeout=5.0)).body.decode() == by
        except iris.IrisError:
            failures, last = failures + 1, began - killed
        await asyncio.sleep(0.005)
    return failures, last


async def test_news_in_a_large_mesh_reach_those_without_a_link() -> None:
    """A claim travels along the links there are, to all: not as soon as in a full mesh, but soon."""
    async with large_mesh() as (daemons, _), listening(daemons) as ears:
        times = await joins(ears)
        report(f"{MANY} nodes, full_mesh_limit={LIMIT}", times)
        assert quantile(times, 0.95) <= 2 * ROUTABLE
        await until(lambda: all(each.told for each in ears), "everybody was told")
