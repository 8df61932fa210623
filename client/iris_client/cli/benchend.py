"""The other end of ``iris bench``: answers, counts what is published, and takes what comes through tunnels."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import iris_client as iris

COUNT: Final = "count"
"""The method that waits for published messages and says how many came."""
QUIET: Final = 2.0
"""Seconds without a message after which those that are missing are not waited for."""
MAX_TOPICS: Final = 256
"""Topics of which the counts are kept; the oldest is forgotten."""
CONCURRENCY: Final = 4096
SINK_BYTES: Final = 16 * 1024 * 1024


@dataclass(slots=True)
class Tally:
    """What came of a topic."""

    received: int = 0
    unknown: bool = False
    """Some may have been lost, how many cannot be known."""
    came: asyncio.Event = field(default_factory=asyncio.Event)


class OtherEnd:
    """Serves as many that measure as there are, each with topics of its own.

    Args:
        name: The cluster, and what the topics it listens to begin with.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.cluster = iris.Cluster(name, concurrency=CONCURRENCY)
        self.cluster.on_request(self._echo)
        self.cluster.on_request(COUNT)(self._count)
        self.cluster.on_tunnel(self._swallow)
        self._tallies: OrderedDict[str, Tally] = OrderedDict()

    def subscribe(self, mesh: iris.Mesh) -> iris.Subscription:
        """What :meth:`listen` listens to, to be entered."""
        return mesh.subscribe(f"{self.name}.*", when_full="block", max_bytes=SINK_BYTES)

    async def listen(self, events: iris.Subscription) -> None:
        """Count what is published, until cancelled."""
        topic, tally = "", Tally()
        async for event in events:
            if event.topic != topic:
                topic, tally = event.topic, self._tally(event.topic)
            tally.received += 1
            if event.lost is None:
                for each in self._tallies.values():  # whose, is not known
                    each.unknown = True
            tally.came.set()

    def _tally(self, topic: str) -> Tally:
        tally = self._tallies.get(topic)
        if tally is None:
            tally = self._tallies[topic] = Tally()
            if len(self._tallies) > MAX_TOPICS:
                self._tallies.popitem(last=False)
        return tally

    async def _echo(self, request: iris.Request) -> bytes:
        return request.body

    async def _count(self, request: iris.Request) -> bytes:
        """Wait until so many messages of a topic have come, or no more do."""
        try:
            asked = json.loads(request.body)
            tally, count = self._tally(str(asked["topic"])), int(asked["count"])
        except (ValueError, TypeError, KeyError):
            raise iris.Reject("not a question of iris bench", code="bad_request") from None
        last = time.perf_counter()
        while tally.received < count:
            tally.came.clear()
            try:
                async with asyncio.timeout(QUIET):
                    await tally.came.wait()
            except TimeoutError:
                break
            last = time.perf_counter()
        quiet = time.perf_counter() - last if tally.received < count else 0.0
        told = {"received": tally.received, "unknown": tally.unknown, "quiet": quiet}
        return json.dumps(told).encode()

    async def _swallow(self, tunnel: iris.Tunnel) -> None:
        """Take everything, then say how much that was."""
        moved = 0
        async for piece in tunnel:
            moved += len(piece)
        await tunnel.send(b"%d" % moved)
