"""Lanes: who is dialled next, how many dials are under way, and how many may begin (pure)."""

from __future__ import annotations

import heapq
import math
from typing import Generic, Protocol, TypeVar


class Due(Protocol):
    """Something that waits for its turn.

    Attributes:
        due: When it comes; changed only together with a :meth:`Lane.push`.
        dialling: Whether it is being dialled: it gets no turn meanwhile.
    """

    due: float
    dialling: bool


DueT = TypeVar("DueT", bound=Due)


class Bucket:
    """Fills with ``rate`` per second up to ``size``; each take is one."""

    __slots__ = ("_at", "_level", "_rate", "_size")

    def __init__(self, rate: float, size: float) -> None:
        self._rate, self._size = rate, size
        self._level = size
        self._at = -math.inf

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        if self.wait(now) > 0:
            return False
        self._level -= 1.0
        return True

    def wait(self, now: float) -> float:
        """Seconds until there is one."""
        if self._at > -math.inf:
            self._level = min(self._size, self._level + max(0.0, now - self._at) * self._rate)
        self._at = max(now, self._at)
        return max(0.0, (1.0 - self._level) / self._rate)


class Lane(Generic[DueT]):
    """Who is due next, and a bound on dials under way and on dials per second.

    Args:
        dials: Most under way at once.
        rate: Most that begin per second.
        burst: Most that begin at once.
    """

    def __init__(self, dials: int, rate: float, burst: float) -> None:
        self._most = dials
        self._under_way = 0
        self._bucket = Bucket(rate, burst)
        self._heap: list[tuple[float, int, DueT]] = []
        self._pushed = 0

    def push(self, one: DueT) -> None:
        """Give it a turn at ``one.due``; an earlier push of the same counts no more."""
        self._pushed += 1
        heapq.heappush(self._heap, (one.due, self._pushed, one))
        if len(self._heap) > 1_024 and self._pushed % 1_024 == 0:  # entries that were overtaken
            self._heap = [entry for entry in self._heap if entry[2].due == entry[0]]
            heapq.heapify(self._heap)

    def pop(self, now: float) -> DueT | None:
        """The next that is due and may be dialled."""
        while self._heap and self._heap[0][0] <= now:
            due, _, one = self._heap[0]
            if one.due != due or one.dialling:
                heapq.heappop(self._heap)
                continue
            if self._under_way >= self._most or self._bucket.wait(now) > 0:
                return None
            heapq.heappop(self._heap)
            return one
        return None

    def begin(self, now: float) -> None:
        """The one that was popped is dialled; followed by :meth:`end`."""
        self._bucket.take(now)
        self._under_way += 1

    def end(self) -> None:
        """A dial has ended."""
        self._under_way -= 1

    def deadline(self, now: float) -> float:
        """When :meth:`pop` may have one, at the earliest."""
        if not self._heap or self._under_way >= self._most:
            return math.inf
        return max(self._heap[0][0], now + self._bucket.wait(now))
