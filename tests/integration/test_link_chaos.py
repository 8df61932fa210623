"""Links in a storm: connections cut, reset and frozen at random, both sides dialling all the while."""

from __future__ import annotations

import asyncio
import random

import pytest

from irisd.link.node_links import LinkConfig
from tests.integration.link_ground import Node, Proxy, eventually, ground

STORM = 2.0
"""Seconds of it."""
NODES = 5


def settled(nodes: list[Node]) -> bool:
    """Every pair has exactly one link, and nothing else is left of all that was tried."""
    links = len(nodes) - 1
    return all(len(node.seen.live) == links and len(node.links._connections) == 2 * links for node in nodes)


async def storm(chance: random.Random, proxies: list[Proxy], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    over = loop.time() + seconds
    while loop.time() < over:
        proxy = chance.choice(proxies)
        match chance.randrange(4):
            case 0:
                proxy.cut()
            case 1:
                proxy.cut(reset=True)
            case 2:
                proxy.cut(chance.randrange(max(1, proxy.connections)))
            case 3:
                proxy.freeze()
                loop.call_later(chance.uniform(0.0, 0.4), proxy.thaw)
        await asyncio.sleep(chance.uniform(0.0, 0.03))
    for proxy in proxies:
        proxy.thaw()


async def weather(seed: int) -> None:
    chance = random.Random(seed)
    config = LinkConfig(heartbeat_interval=0.05, handshake_timeout=1.0, first_delay=0.02, max_delay=0.2)
    async with ground() as made:
        nodes = [await made.node(f"node{number}", config=config) for number in range(NODES)]
        proxies: list[Proxy] = []
        for node in nodes:
            for other in nodes:
                if other is not node:
                    proxies.append(await made.proxy(other.address))
                    node.dial(proxies[-1].address)
        talking = asyncio.create_task(talk(nodes))
        await storm(chance, proxies, STORM)
        talking.cancel()
        await asyncio.wait([talking])
        await eventually(lambda: settled(nodes))
        for node in nodes:
            assert node.seen.early == []
            assert node.seen.bodies == sorted(set(node.seen.bodies), key=node.seen.bodies.index), "said twice"
            assert len(node.seen.ups) - len(node.seen.downs) == NODES - 1
            assert node.service.half_open == 0
        before = sum(len(node.seen.bodies) for node in nodes)
        for node in nodes:
            for link in node.seen.live:
                node.seen.send(link, b"after the storm, from " + node.name.encode())
        await eventually(lambda: sum(len(node.seen.bodies) for node in nodes) >= before + NODES * (NODES - 1))
        assert sum(len(node.seen.ups) for node in nodes) > NODES * (NODES - 1), "a storm that cut nothing"


async def talk(nodes: list[Node]) -> None:
    """Every node sends numbered messages over every link it has."""
    number = 0
    while True:
        for node in nodes:
            for link in node.seen.live:
                number += 1
                node.seen.send(link, b"%s %d" % (node.name.encode(), number))
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("seed", [1, 2])
async def test_after_a_storm_every_pair_has_one_link(seed: int) -> None:
    await weather(seed)


@pytest.mark.parametrize("seed", [3, 4])
def test_after_a_storm_on_uvloop(seed: int) -> None:
    pytest.importorskip("uvloop").run(weather(seed))
