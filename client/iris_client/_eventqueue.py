"""What a subscription holds for its reader (pure): frames of events, bounded in bytes, every loss counted.

Events stay as they came, a frame of many at a time, and are cut apart as they are read.

Invariants:
    - the bytes held never exceed ``max_bytes``, one frame that alone is larger aside when nothing else is held; of a
      subscription that blocks the daemon sees to that, which is told what has been read
    - every event is read once, or counted once as lost
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from iris_client._calls import Standing
from iris_client._errors import IrisError
from iris_client._frames import Header, Kind, append_frame, check_sizes, cut, make
from iris_client._model import NO_HEADERS, Event

EVENT_COST: Final = 32
"""Bytes a waiting event is charged besides its body."""

BLOCK: Final = 3
"""``when_full`` of a subscription that loses nothing: its publishers wait."""


class _Held:
    """One frame of events that waits."""

    __slots__ = ("body", "cost", "count", "credit", "header", "lost", "lost_unknown", "sizes")

    def __init__(self, header: Header, body: bytes, sizes: list[int] | None, cost: int) -> None:
        self.header = header
        self.body = body
        self.sizes = sizes
        self.count = 1 if sizes is None else len(sizes)
        self.cost = cost
        self.credit: int = header.cost  # what the daemon gets back when it has been read
        self.lost = 0
        self.lost_unknown = False


class EventQueue:
    """Events between the stream and their reader.

    Args:
        max_bytes: Most bytes to hold.
        drop_oldest: Which end gives way when that is not enough: the oldest, or what has just come.
        block: Neither: what has been read is given back, and the daemon sends no more than that.

    Attributes:
        lost: Events lost so far, as far as they could be counted.
        owed: Credit to be given back.
        on_change: Called when there is something new to read.
        on_read: Called when so much is owed that the daemon should have it.
    """

    def __init__(self, max_bytes: int, *, drop_oldest: bool, block: bool = False) -> None:
        self._max_bytes = max_bytes
        self._drop_oldest = drop_oldest
        self._block = block
        self._in_hand = 0  # credit of what was taken and is being read
        self.owed = 0
        self._held: deque[_Held] = deque()
        self._bytes = 0
        self._gap = 0  # lost after everything that is held
        self._gap_unknown = False
        self.lost = 0
        self.on_change: Callable[[], None] = lambda: None
        self.on_read: Callable[[], None] = lambda: None

    def __bool__(self) -> bool:
        return bool(self._held)

    @property
    def held_bytes(self) -> int:
        """What the held events cost."""
        return self._bytes

    def add(self, header: Header, body: bytes) -> None:
        """Take an EVENT frame.

        Raises:
            ProtocolError: Its sizes do not add up to its body.
        """
        if header.lost:
            self._gap += header.lost
            self.lost += header.lost
        if header.lost_unknown:
            self._gap_unknown = True
        sizes: list[int] | None = None
        if len(header.sizes):
            sizes = list(header.sizes)
            check_sizes(sizes, body)
        elif not header.address:
            return  # only a notice of loss: an event has a topic, however empty its body
        count = 1 if sizes is None else len(sizes)
        held = _Held(header, body, sizes, len(body) + EVENT_COST * count)
        if self._bytes + held.cost > self._max_bytes and self._held and not self._block:
            if not self._drop_oldest:
                self._gap += count
                self.lost += count
                return
            while self._held and self._bytes + held.cost > self._max_bytes:
                self._drop(self._held.popleft())
        held.lost, held.lost_unknown = self._gap, self._gap_unknown
        self._gap, self._gap_unknown = 0, False
        self._held.append(held)
        self._bytes += held.cost
        self.on_change()

    def gap(self) -> None:
        """What comes next may come after losses nobody counted: the stream was a new one."""
        self._gap_unknown = True

    def forget_credit(self) -> None:
        """Nothing of what is here will be given back: the stream it came on is gone."""
        self._in_hand = self.owed = 0
        for held in self._held:
            held.credit = 0

    def take(self) -> list[Event]:
        """Take the oldest frame's events; an empty list when there is nothing. Those taken before have been read."""
        if self._in_hand:
            self.owed += self._in_hand
            self._in_hand = 0
            if self.owed >= self._max_bytes // 8 or not self._held:
                self.on_read()
        if not self._held:
            return []
        held = self._held.popleft()
        self._bytes -= held.cost
        self._in_hand = held.credit
        header, body = held.header, held.body
        topic = header.address
        headers: Mapping[str, str] = dict(header.headers) if len(header.headers) else NO_HEADERS
        first_lost = None if held.lost_unknown else held.lost
        if held.sizes is None:
            return [Event(topic, body, headers, first_lost)]
        events = [Event(topic, each, headers) for each in cut(body, held.sizes)]
        events[0].lost = first_lost
        return events

    def _drop(self, held: _Held) -> None:
        """Drop a frame: what it held, and what was lost before it, was lost before the one that follows."""
        self._bytes -= held.cost
        self.lost += held.count
        if self._held:
            follower = self._held[0]
            follower.lost += held.lost + held.count
            follower.lost_unknown |= held.lost_unknown
        else:
            self._gap += held.lost + held.count
            self._gap_unknown |= held.lost_unknown


class SubscribeCall(Standing):
    """A subscription, and the queue its events go to.

    Attributes:
        keep: Events that come while it is being let go of are kept: they were meant for this member of a group.
    """

    __slots__ = ("keep", "queue")

    def __init__(
        self, header: Header, queue: EventQueue, what: str, changed: Callable[[IrisError | None], None]
    ) -> None:
        super().__init__(header, what, changed)
        self.queue = queue
        self.keep = False

    def on_frame(self, kind: int, header: Header, body: bytes) -> None:
        if kind != Kind.EVENT:
            super().on_frame(kind, header, body)
        elif self.keep or not self.leaving:
            self.queue.add(header, body)

    def detached(self, reason: str) -> None:
        super().detached(reason)
        self.queue.forget_credit()
        if self.established and not self.leaving:
            self.queue.gap()


class Returns:
    """Credit on its way back to the daemon: what was read before it leaves goes with it."""

    def __init__(self, offer: Callable[[Returns], None]) -> None:
        self._offer = offer
        self._calls: dict[SubscribeCall, None] = {}

    def add(self, call: SubscribeCall) -> None:
        """A subscription owes something."""
        first = not self._calls
        self._calls[call] = None
        if first:
            self._offer(self)  # perhaps it is pulled from this very moment

    def pull(self, chunks: list[bytes], now: float) -> int:
        """Write what is owed, for all subscriptions."""
        calls, self._calls = self._calls, {}
        size = 0
        for call in calls:
            owed, call.queue.owed = call.queue.owed, 0
            if owed and call.id and not call.leaving:
                header = make(kind=Kind.CREDIT, id=call.id, count=owed)
                size += append_frame(chunks, header.SerializeToString(), b"")
        return size

    def clear(self) -> None:
        """The stream is gone."""
        self._calls.clear()
