"""Everything of a session that has a deadline, soonest first (pure)."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Protocol


class Timed(Protocol):
    """What a deadline can be watched for."""

    deadline: float
    over: bool

    def expired(self, now: float) -> None: ...


class Deadlines:
    """The deadlines ahead.

    Args:
        expired: Called with each thing right after its own ``expired``.
        expected: How many may be waiting: many more of them are mostly over, and cleared away.

    Attributes:
        on_sooner: Called with the time of a deadline that is now the next one.
    """

    def __init__(self, expired: Callable[[Timed, float], None], expected: Callable[[], int]) -> None:
        self._expired = expired
        self._expected = expected
        self._heap: list[tuple[float, int, Timed]] = []
        self._count = 0
        self.on_sooner: Callable[[float], None] = lambda deadline: None

    def watch(self, timed: Timed) -> None:
        """Call ``timed.expired`` when its deadline passes, unless it is over by then."""
        if timed.deadline == math.inf:
            return
        heap = self._heap
        if len(heap) > 1024 and len(heap) > 4 * self._expected():
            heap[:] = [entry for entry in heap if not entry[2].over]
            heapq.heapify(heap)
        self._count += 1
        heapq.heappush(heap, (timed.deadline, self._count, timed))
        if heap[0][2] is timed:
            self.on_sooner(timed.deadline)

    def next(self) -> float | None:
        """When :meth:`due` should be called next."""
        heap = self._heap
        while heap and heap[0][2].over:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float) -> None:
        """End everything whose time has come. Early calls do nothing."""
        heap = self._heap
        while heap and (heap[0][0] <= now or heap[0][2].over):
            timed = heapq.heappop(heap)[2]
            if not timed.over and timed.deadline != math.inf:
                timed.expired(now)
                self._expired(timed, now)
