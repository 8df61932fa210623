"""One link per pair of nodes: dials at the same time, dials that come later, dials that replace a dead link."""

from __future__ import annotations

import asyncio
import os

import pytest

from irisd.link.node_links import LinkConfig
from irisd.link.outcome import Outcome
from tests.integration.link_ground import QUICK, Ground, Node, eventually, ground

LOW, HIGH = b"\x01" * 16, b"\x02" * 16


async def both_dial(made: Ground, one: Node, two: Node) -> None:
    one.dial(two.address)
    two.dial(one.address)
    await one.seen.until(lambda: one.links.is_linked(two.node_id))
    await two.seen.until(lambda: two.links.is_linked(one.node_id))


def check_one_link(one: Node, two: Node) -> None:
    """Exactly one link, the same on both sides."""
    (here,), (there,) = one.seen.live, two.seen.live
    assert here.dialled != there.dialled
    assert here.control.generation == there.control.generation
    assert here.control.binding == there.control.binding
    assert here.data is not None and there.data is not None
    assert here.data.binding == there.data.binding
    assert one.seen.early == [] and two.seen.early == []


@pytest.mark.timeout(120)
async def test_two_hundred_simultaneous_dials() -> None:
    dialled_by_lower = 0
    async with ground() as made:
        for _ in range(200):
            one, two = await made.node("one"), await made.node("two")
            await both_dial(made, one, two)
            # Nothing is judged before all else that was under way has ended: only the link's connections are left.
            sides = (one.links._connections, two.links._connections)
            await eventually(lambda sides=sides: [len(side) for side in sides] == [2, 2])  # type: ignore[misc]
            check_one_link(one, two)
            lower = min(one, two, key=lambda node: node.node_id)
            if lower.seen.live[0].dialled:
                dialled_by_lower += 1
            else:  # not simultaneous after all: the link was up before the lower's own handshake was done
                assert [fact.dialled for fact in lower.seen.named(Outcome.DUPLICATE)] == [True], lower.seen.facts
            assert len(one.seen.ups) == len(two.seen.ups) == 1, "a link came up only to be given up"
            one.seen.send(one.seen.live[0], b"ping")
            await two.seen.until(lambda two=two: two.seen.bodies)  # type: ignore[misc]
            await one.service.stop()
            await two.service.stop()
    assert dialled_by_lower >= 180


@pytest.mark.parametrize("later", ["lower", "higher"])
async def test_a_later_dial_does_not_disturb_a_link_that_is_alive(later: str) -> None:
    async with ground() as made:
        low, high = await made.node("low", node_id=LOW), await made.node("high", node_id=HIGH)
        first, second = (high, low) if later == "lower" else (low, high)
        first.dial(second.address)
        link = await first.linked()
        await second.linked()
        second.dial(first.address)
        await second.seen.until(lambda: second.seen.named(Outcome.DUPLICATE))
        await first.seen.until(lambda: first.seen.named(Outcome.DUPLICATE))
        assert first.seen.downs == [] and second.seen.downs == []
        first.seen.send(link, b"still here")
        await second.seen.until(lambda: second.seen.bodies)
        check_one_link(first, second)


@pytest.mark.parametrize("dialler", ["lower", "higher"])
async def test_a_later_dial_replaces_a_link_that_is_dead(dialler: str) -> None:
    slow = LinkConfig(heartbeat_interval=0.4, handshake_timeout=2.0, first_delay=0.02)
    async with ground() as made:
        low = await made.node("low", node_id=LOW, config=slow)
        high = await made.node("high", node_id=HIGH, config=slow)
        one, two = (low, high) if dialler == "lower" else (high, low)
        frozen = await made.proxy(two.address)
        one.dial(frozen.address)
        await one.linked()
        await two.linked()
        frozen.freeze()
        began = asyncio.get_running_loop().time()
        one.dial(two.address)  # another way to the same node
        await one.seen.until(lambda: one.seen.downs and one.seen.live)
        await two.seen.until(lambda: two.seen.downs and two.seen.live)
        # The decider found the link dead long before silence would have ended it.
        assert asyncio.get_running_loop().time() - began < 5 * 0.4
        ends = {one.seen.downs[0][1].outcome, two.seen.downs[0][1].outcome}
        assert ends == {Outcome.REPLACED}
        check_one_link(one, two)
        one.links.forget(frozen.address)


async def test_two_ways_to_one_node_make_one_link() -> None:
    async with ground() as made:
        one, two = await made.node("one"), await made.node("two")
        ways = [(await made.proxy(two.address)).address for _ in range(4)]
        for way in ways:
            one.dial(way)
        await one.linked()
        await one.seen.until(lambda: len(one.seen.named(Outcome.DUPLICATE)) >= 3)
        await two.linked()
        check_one_link(one, two)
        assert len(one.seen.ups) == 1


async def test_a_mesh_of_eight_that_all_dial_each_other() -> None:
    config = LinkConfig(heartbeat_interval=0.2, handshake_timeout=5.0, first_delay=0.05, max_delay=0.5)
    async with ground() as made:
        nodes = [await made.node(f"node{number}", config=config) for number in range(8)]
        for node in nodes:
            for other in nodes:
                if other is not node:
                    node.dial(other.address)
        for node in nodes:
            await node.seen.until(lambda node=node: len(node.seen.live) == 7)  # type: ignore[misc]
        for node in nodes:
            assert node.seen.early == []
            assert len({link.peer.node_id for link in node.seen.live}) == 7


async def test_the_incarnation_and_features_of_now_are_announced() -> None:
    async with ground() as made:
        one = await made.node("one", config=QUICK)
        two = await made.node("two")
        one.links.identity = type(one.links.identity)(one.node_id, "one", incarnation=7, features=5)
        one.dial(two.address)
        peer = (await two.linked()).peer
        assert (peer.incarnation, peer.features, peer.name) == (7, 5, "one")
        assert peer.node_id == one.node_id != os.urandom(16)
