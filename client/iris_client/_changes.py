"""What a watch holds for its reader (pure): changes, bounded in number, every loss counted.

Between the changes stand marks: where the picture ends, and where a new stream began it anew.

Invariants:
    - never more than ``limit`` changes and marks are held
    - every change is read once, or counted once as lost
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Final

from iris_client._calls import Standing
from iris_client._errors import IrisError, NotSupported
from iris_client._frames import Header, Kind
from iris_client._model import Change, Executed

MAX_WAITING: Final = 65_536
"""Most changes that wait for a watch's reader; then the oldest give way."""

_UNKNOWN_KIND: Final = f"kind {Kind.WATCH.value} "
"""What a daemon that knows no watches ends its stream with."""


class Mark(Enum):
    """What is no change, and lies between changes."""

    BEGIN = "begin"  # a new stream: the picture comes anew
    END = "end"  # of the picture


class ChangeQueue:
    """Changes between the stream and their reader.

    Args:
        limit: Most changes to hold.

    Attributes:
        lost: Changes lost so far, as far as they could be counted.
        on_change: Called when there is something new to read.
    """

    def __init__(self, limit: int = MAX_WAITING) -> None:
        self._limit = limit
        self._waiting: deque[Change | Mark] = deque()
        self._gap: int | None = 0  # lost behind everything that waits
        self._before: int | None = 0  # lost before the first change that waits, besides what it says itself
        self.lost = 0
        self.on_change: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, header: Header) -> None:
        """Take a CHANGE frame."""
        if header.lost:
            self.lost += header.lost
            self._gap = _sum(self._gap, header.lost)
        if not header.node:
            return  # only a notice of loss
        gap, self._gap = self._gap, 0
        change = Change(
            header.node,
            header.member,
            header.reason,
            header.address,
            header.count,
            header.detail,
            header.more,
            gap,
        )
        self._append(change)

    def mark(self, mark: Mark) -> None:
        """The picture ends here, or begins anew."""
        if mark is Mark.BEGIN:
            self._gap = None
        self._append(mark)

    def pop(self) -> Change | Mark | None:
        """Take what has waited longest; None when nothing does."""
        if not self._waiting:
            return None
        first = self._waiting.popleft()
        if isinstance(first, Change) and self._before != 0:
            first = replace(first, lost=_sum(first.lost, self._before))
            self._before = 0
        return first

    def put_back(self, change: Change) -> None:
        """Undo the last :meth:`pop`."""
        self._waiting.appendleft(change)

    def clear(self) -> None:
        """Nobody will read any more."""
        self._waiting.clear()

    def _append(self, item: Change | Mark) -> None:
        while len(self._waiting) >= self._limit:
            dropped = self._waiting.popleft()
            if isinstance(dropped, Change):
                self.lost += 1
                self._before = _sum(_sum(self._before, dropped.lost), 1)
        self._waiting.append(item)
        self.on_change()


class WatchCall(Standing):
    """A watch, and the queue its changes go to. Established with the first thing it is told."""

    __slots__ = ("_heard", "queue")

    def __init__(
        self, header: Header, queue: ChangeQueue, what: str, changed: Callable[[IrisError | None], None]
    ) -> None:
        super().__init__(header, what, changed)
        self.queue = queue
        self._heard = False  # on this stream

    def on_frame(self, kind: int, header: Header, body: bytes) -> None:
        self._heard = True
        if kind == Kind.CHANGE:
            if not self.leaving:
                self.queue.add(header)
                if not self.established:
                    self.established = True
                    self.changed(None)
        elif kind == Kind.DONE and self.leaving:
            self.over = True  # of the two DONEs either may come first: the picture's may have been dropped
            self.changed(None)
        else:
            super().on_frame(kind, header, body)
            if kind == Kind.DONE:
                self.queue.mark(Mark.END)

    def detached(self, reason: str) -> None:
        if self.id and not self._heard and _UNKNOWN_KIND in reason:
            text = f"{self.what}: this daemon knows no watches, irisd 0.2 and later do ({reason})"
            self.fail(NotSupported(text, executed=Executed.NO))
            return
        self._heard = False
        super().detached(reason)
        if self.established and not self.leaving:
            self.queue.mark(Mark.BEGIN)


def _sum(one: int | None, other: int | None) -> int | None:
    """Losses added up; None: nobody knows how many."""
    return None if one is None or other is None else one + other
