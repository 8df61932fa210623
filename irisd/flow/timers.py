"""Deadlines of many things at once (pure): a wheel of 10 ms ticks.

Most deadlines never come: a reply arrives first. So adding and removing cost a
dict operation each, and only ticks that hold something are ordered.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable

TICK = 0.01
"""Resolution in seconds; nothing fires early, nothing more than a tick late."""


SLACK = 1024
"""Emptied ticks that may always stay."""


class Timers:
    """Things with a deadline, each at most once.

    Invariants:
        - every thing in a tick's set maps back to that tick
        - the heap holds every tick that has a set, emptied ones too
        - emptied ticks are swept before they outnumber things: far deadlines leave nothing behind
    """

    def __init__(self) -> None:
        self._ticks: dict[int, dict[Hashable, None]] = {}
        self._where: dict[Hashable, int] = {}
        self._heap: list[int] = []

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, thing: Hashable) -> bool:
        return thing in self._where

    def add(self, thing: Hashable, deadline: float) -> None:
        """Fire ``thing`` at ``deadline`` (monotonic seconds); an earlier entry of it is replaced."""
        self.remove(thing)
        tick = math.ceil(deadline / TICK)
        things = self._ticks.get(tick)
        if things is None:
            things = self._ticks[tick] = {}
            heapq.heappush(self._heap, tick)
        things[thing] = None
        self._where[thing] = tick

    def remove(self, thing: Hashable) -> None:
        """Forget ``thing``; unknown things are ordinary."""
        tick = self._where.pop(thing, None)
        if tick is not None:
            del self._ticks[tick][thing]
            if len(self._ticks) > 2 * len(self._where) + SLACK:
                self._sweep()

    def next_deadline(self) -> float | None:
        """When :meth:`due` next has something to say, or None."""
        while self._heap and not self._ticks[self._heap[0]]:
            del self._ticks[heapq.heappop(self._heap)]
        return self._heap[0] * TICK if self._heap else None

    def due(self, now: float) -> list[Hashable]:
        """Take out everything whose deadline has come, in order of ticks."""
        fired: list[Hashable] = []
        while self._heap and self._heap[0] * TICK <= now:
            things = self._ticks.pop(heapq.heappop(self._heap))
            for thing in things:
                del self._where[thing]
            fired.extend(things)
        return fired

    def _sweep(self) -> None:
        self._ticks = {tick: things for tick, things in self._ticks.items() if things}
        self._heap = sorted(self._ticks)
