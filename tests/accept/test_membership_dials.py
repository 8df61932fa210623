"""Both sides dial at once, two hundred times: one link each time, and nothing that was sent is lost.

Whole nodes with their links in this process, over real TCP: what is sent goes out the moment a node knows whom to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from random import SystemRandom

import pytest
import structlog

from irisd.attach import Attachment
from irisd.config import Address, Listener
from irisd.daemon.service import Service
from irisd.keys import Keyring, ServiceKey
from irisd.link.link import Link
from irisd.link.node_links import LinkConfig
from irisd.link.outcome import LinkEnd, Outcome
from irisd.link.race import Finish
from irisd.link.service import LinkService
from irisd.model import FEATURES, Frame, Kind, MiB, NodeId, PeerInfo
from irisd.node import Node, NodeIdentity, NodeSettings
from tests.accept.membership_ground import quantile, until
from tests.unit.node.house import ask, join, publish, subscribe

pytestmark = [pytest.mark.accept, pytest.mark.timeout(600)]

ROUNDS = 200
MESSAGES = 60  # of each kind, each way, each round
INTERVAL = 0.1


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Nodes in this process log as a daemon would: here only what is wrong."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


class Counted(Service):
    """A service that notes its links as they come and go."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.ups: list[Link] = []
        self.downs: list[LinkEnd] = []

    def link_up(self, link: Link) -> None:
        self.ups.append(link)
        super().link_up(link)

    def link_down(self, link: Link, end: LinkEnd) -> None:
        self.downs.append(end)
        super().link_down(link, end)


class Surroundings:
    """No discovery: whom to dial the test says."""

    def linked(self, service: str, node_id: NodeId, *, up: bool, left: bool) -> None:
        pass

    def found(self, service: str, node_id: NodeId, addresses: object) -> None:
        pass

    async def attempt(self, service: str, addresses: object, node_id: NodeId) -> Finish:
        raise AssertionError("everybody is linked")


class Side:
    """One node with its links, and one app on it: a member, a subscriber, a pusher and a publisher."""

    def __init__(self, name: str, key: ServiceKey) -> None:
        clock = time.monotonic
        node_id = os.urandom(16)
        settings = NodeSettings(heartbeat_interval=INTERVAL)
        node = Node(NodeIdentity(node_id, name, "shop"), settings, SystemRandom(), now=clock())
        self.name = name
        self.keyring = Keyring(key)
        self.service = Counted(node, self.keyring, clock, Surroundings())
        self.links = LinkService(LinkConfig(heartbeat_interval=INTERVAL, handshake_timeout=2.0, first_delay=0.02))
        self.links.register(self.keyring, PeerInfo(node_id, name, features=FEATURES), self.service)
        self.address = Address("127.0.0.1", 0)
        self.attachment = Attachment(1, "test", "test", frozenset())
        self.pushed: list[int] = []
        self.events: list[int] = []
        self.lost = 0
        self.done = 0
        self.wrong: list[Frame] = []

    async def start(self) -> None:
        self.service.apply([])
        (self.address,) = await self.links.start([Listener(Address("127.0.0.1", 0))])
        self.service.app_attached(self.attachment, Frame(Kind.HELLO, address="shop", member=self.name))
        self.say(join(1, f"at-{self.name}", concurrency=256), subscribe(3, f"to-{self.name}.*", max_bytes=16 * MiB))

    def say(self, *frames: Frame) -> None:
        self.service.app_frames(self.attachment, list(frames))

    def knows(self, other: Side) -> bool:
        """Whether messages to the other side have somewhere to go."""
        registry = self.service.node.core.registry
        topics = {filter for filter, _ in registry.topics()}
        return bool(registry.serving(f"at-{other.name}")) and f"to-{other.name}.*" in topics

    async def read(self) -> None:
        """Be an app that takes what comes, until cancelled."""
        while True:
            await self.attachment.awake.wait()
            self.attachment.awake.clear()
            while frames := self.service.app_pull(self.attachment, MiB):
                for frame in frames:
                    self._take(frame)

    def _take(self, frame: Frame) -> None:
        self.lost += frame.lost + frame.lost_unknown
        if frame.kind == Kind.PUSH:
            self.pushed.append(int(frame.body))
            self.say(Frame(Kind.DONE, id=frame.id))
        elif frame.kind == Kind.EVENT:
            if frame.address:
                self.events.append(int(frame.body))
        elif frame.kind == Kind.DONE:
            self.done += 1
        elif frame.kind != Kind.WELCOME:
            self.wrong.append(frame)

    async def speak(self, other: Side) -> None:
        """As soon as it is known whom to, send numbers: half of them before anything can have come back."""
        while not self.knows(other):
            await asyncio.sleep(0)
        for number in range(MESSAGES):
            topic = f"to-{other.name}.numbers"
            self.say(
                publish(topic, b"%d" % number), ask(Kind.PUSH, 11 + 2 * number, f"at-{other.name}", body=b"%d" % number)
            )
            if number >= MESSAGES // 2:
                await asyncio.sleep(0.0005)  # the rest while the links settle for good

    async def stop(self) -> None:
        await self.service.dial_no_more()
        await self.links.stop()
        self.service.close()


@asynccontextmanager
async def two_sides() -> AsyncIterator[tuple[Side, Side]]:
    key = ServiceKey.generate("shop", os.urandom(32))
    sides = Side("one", key), Side("two", key)
    for side in sides:
        await side.start()
    reading = [asyncio.create_task(side.read()) for side in sides]
    try:
        yield sides
        for task in reading:
            assert not task.done(), task.exception()
    finally:
        for side in sides:
            await side.stop()
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


async def test_two_that_dial_each_other_at_once_lose_nothing() -> None:
    crossed, times = 0, []
    for number in range(ROUNDS):
        async with two_sides() as (one, two):
            speaking = [asyncio.create_task(one.speak(two)), asyncio.create_task(two.speak(one))]
            began = time.monotonic()
            one.links.dial("shop", two.address)
            two.links.dial("shop", one.address)
            await asyncio.gather(*speaking)
            times.append(time.monotonic() - began)
            sides = (one, two)
            await until(
                lambda sides=sides: all(  # type: ignore[misc]
                    len(side.pushed) >= MESSAGES
                    and len(side.events) >= MESSAGES
                    and side.done >= MESSAGES + 2  # of JOIN and SUBSCRIBE too
                    for side in sides
                ),
                f"round {number}: everything has arrived",
                10.0,
            )
            for side in sides:
                assert sorted(side.pushed) == list(range(MESSAGES))
                assert side.events == list(range(MESSAGES)), "in order, each once"
                assert not side.lost
                assert not side.wrong, vars(side.wrong[0])
                assert len(side.service.ups) == side.service.peers == len(side.links.links("shop")) == 1
                assert not side.service.downs, side.service.downs
            crossed += any(side.links.counts[Outcome.DUPLICATE] for side in sides)
    sent = ROUNDS * 2 * 2 * MESSAGES
    print(
        f"\ntwo that dial each other at once, {ROUNDS} times, {crossed} of them with crossed dials: one link each time,"
    )
    print(f"{sent} messages, none lost; sent {quantile(times, 0.5) * 1e3:.0f} ms after the dials, as a rule")
    assert crossed >= ROUNDS // 2, "hardly ever at once"
