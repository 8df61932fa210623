"""Publishing (pure): messages gathered into frames while they wait, within a bound, and what became of them.

Consecutive messages of one topic with equal headers share a frame. Nothing waits in order to be gathered: what is
waiting when the stream can take more goes out together.

What was written is unconfirmed until a FLUSH that came after it is answered; the app need not ask, a FLUSH of our own
goes out now and then, so that when a stream breaks the number of messages nobody can vouch for is small and known. No
more is written while too much is unconfirmed, so that the daemon can make a topic PAUSE with little under way: what is
published to it then waits aside, and other topics go on.

Invariants:
    - messages of one topic leave in the order they were added
    - ``waiting`` is the cost of what has not been handed to the stream; it exceeds ``limit`` by at most one message and
      what waited aside until a moment ago
    - what waits aside is at most ``limit`` for all topics, and a share of it for each, and one message
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final

from iris_client._batches import MESSAGE_COST, Batch, Side, publish_lost
from iris_client._calls import Call, Promise
from iris_client._errors import SlowSubscriber
from iris_client._flushcall import FlushCall
from iris_client._frames import Header, Kind, append_frame, make
from iris_client._model import MAX_SIZES, PART_BYTES, PUBLISH_BUFFER_BYTES, Executed, MiB

CONFIRM_BYTES: Final = 4 * MiB
"""How much is written before a FLUSH of our own goes out; and how much more before it is answered."""

FRAME_COST: Final = 256
"""Bytes a frame that is on its way is charged besides what is written: what a daemon needs to hold it, about."""

CONFIRM_SECONDS: Final = 1.0
"""How long after the last one the next goes out, if anything was written."""

PACING: Final = frozenset({Kind.PAUSE, Kind.RESUME, Kind.STALLED})
"""What the daemon says of a topic that has to wait."""

SHARE: Final = 8
"""A topic that is paused may fill this part of the buffer."""


class Publishing:
    """What this app publishes, on its way to the daemon.

    Args:
        offer: Called with this object when it has something to send and no turn in the outbox.
        opened: Registers a FLUSH as it is written; gives it its id.
        next_id: Gives a PUBLISH its id.
        limit: Bytes that may wait before :meth:`add` says no.

    Attributes:
        waiting: What waits, in bytes (bodies and :data:`MESSAGE_COST` each).
        paused: The daemon is leaving: what waits goes to the next one.
        on_room: Called when half of the limit has become free again, or room for a topic may have.
        on_stall: Called with what to tell those who wait for room for a topic.
        lost: Messages the daemon said it dropped, since the app last asked.
        unknown: Messages that were unconfirmed on streams that broke, since the app last asked.
    """

    def __init__(
        self,
        offer: Callable[[Publishing], None],
        opened: Callable[[Call], int],
        next_id: Callable[[], int],
        limit: int = PUBLISH_BUFFER_BYTES,
    ) -> None:
        self._offer = offer
        self._opened = opened
        self._next_id = next_id
        self.limit = limit
        self.waiting = 0
        self.paused = False
        self.on_room: Callable[[], None] = lambda: None
        self.on_stall: Callable[[SlowSubscriber], None] = lambda error: None
        self.lost = 0
        self.unknown = 0
        self._queue: deque[Batch | FlushCall] = deque()
        self._last: Batch | None = None  # where the next message may be added
        self._offered = False
        self._full = False
        self._shut = False
        self._number = 0  # of the last batch
        self._written = 0  # messages, ever
        self._confirmed = 0  # of them, how many the daemon has read
        self._held = 0  # of them, how many it holds for slow subscribers
        self._unasked_bytes = 0  # written since the last FLUSH of ours
        self._asking: FlushCall | None = None  # the FLUSH of ours that is under way
        self._ask_at = inf  # when the next one is due, once something was written
        self._sides: dict[str, Side] = {}  # topics that are paused
        self._aside = 0  # what waits there
        self._departing: FlushCall | None = None  # the last that the daemon that is leaving gets
        self._departed: Callable[[], None] = lambda: None

    def add(self, topic: str, body: bytes) -> bool:
        """Add to the batch that is open for ``topic``, if one is and there is room. The hot path: no checks."""
        batch = self._last
        if batch is None or batch.topic != topic or batch.headers is not None or batch.content_type:
            return False
        size = len(body)
        bodies = batch.bodies
        if batch.size + size > PART_BYTES or len(bodies) == MAX_SIZES or self.waiting >= self.limit:
            return False
        bodies.append(body)
        batch.size += size
        self.waiting += size + MESSAGE_COST
        return True

    def add_checked(self, topic: str, body: bytes, headers: dict[str, str] | None, content_type: str = "") -> bool:
        """Add one message whose name, size and headers were found good; False when there is no room now."""
        if self._sides and (side := self._sides.get(topic)) is not None:
            return self._add_aside(side, topic, body, headers, content_type)
        if self.waiting >= self.limit:
            self._full = True
            return False
        batch = self._last
        size = len(body)
        if batch is None or not batch.takes(topic, size, headers, content_type):
            batch = self._new_batch(topic, headers, content_type)
            self._queue.append(batch)
            self._last = batch if size < PART_BYTES and not self._shut else None
        batch.bodies.append(body)
        batch.size += size
        self.waiting += size + MESSAGE_COST
        self._wake()
        return True

    def _add_aside(
        self, side: Side, topic: str, body: bytes, headers: dict[str, str] | None, content_type: str
    ) -> bool:
        if side.waiting >= self.limit // SHARE or self._aside >= self.limit:
            side.full = True
            return False
        size = len(body)
        if not side.batches or not side.batches[-1].takes(topic, size, headers, content_type) or side.flushes:
            side.batches.append(self._new_batch(topic, headers, content_type))
        batch = side.batches[-1]
        batch.bodies.append(body)
        batch.size += size
        side.waiting += size + MESSAGE_COST
        self._aside += size + MESSAGE_COST
        return True

    def _new_batch(self, topic: str, headers: dict[str, str] | None, content_type: str) -> Batch:
        self._number += 1
        return Batch(self._number, topic, headers, content_type)

    # -- topics that are paused

    def paced(self, kind: int, header: Header) -> None:
        """The daemon says how a topic gets on, by one of :data:`PACING`."""
        if kind == Kind.PAUSE:
            self.pause(header.address, header.count)
        elif kind == Kind.RESUME:
            self.resume(header.address, header.count)
        else:
            self.stalled(header.address, header.reason, header.detail)

    def pause(self, topic: str, held: int) -> None:
        """The daemon wants no more of a topic for now, and holds so many of this app's messages."""
        self._held = held
        side = self._sides.get(topic)
        if side is not None:
            return
        side = self._sides[topic] = Side()
        kept: deque[Batch | FlushCall] = deque()
        for item in self._queue:
            if isinstance(item, Batch) and item.topic == topic and not item.at:
                side.batches.append(item)
                side.waiting += item.cost
            else:
                kept.append(item)
        self._queue = kept
        self.waiting -= side.waiting
        self._aside += side.waiting
        if self._last is not None and self._last.topic == topic:
            self._last = None
        if self._full or side.waiting:
            self.on_room()  # those who wait for this topic wait for something else now

    def resume(self, topic: str, held: int) -> None:
        """A topic may go on."""
        self._held = held
        side = self._sides.pop(topic, None)
        if side is None:
            return
        first = self._queue.popleft() if self._queue and self._in_parts(self._queue[0]) else None
        self._queue.extendleft(reversed([*side.batches, *side.flushes]))
        if first is not None:
            self._queue.appendleft(first)
        self.waiting += side.waiting
        self._aside -= side.waiting
        if side.full or any(other.full for other in self._sides.values()):
            self.on_room()
        self._wake()

    def stalled(self, topic: str, who: str, detail: str) -> None:
        """A topic that is paused does not move: those who wait for it are told, what waits stays.

        The daemon says so again for as long as that lasts; who comes later waits until then.
        """
        if topic not in self._sides:
            self.pause(topic, self._held)
        side = self._sides[topic]
        flushes, side.flushes = side.flushes, deque()
        for call in flushes:
            call.fail(SlowSubscriber(f"flush: {detail}", topic=topic, waits_for=who))
        what = f"publish to {topic!r}: {detail}"
        self.on_stall(SlowSubscriber(what, executed=Executed.NO, topic=topic, waits_for=who))

    def is_paused(self, topic: str) -> bool:
        """Whether the daemon wants no more of a topic for now."""
        return topic in self._sides

    def is_full(self, topic: str) -> bool:
        """Whether :meth:`add_checked` would say no."""
        side = self._sides.get(topic)
        if side is None:
            return self.waiting >= self.limit
        return side.waiting >= self.limit // SHARE or self._aside >= self.limit

    def shut(self) -> None:
        """Take no more through :meth:`add`: the app must come by :meth:`add_checked`, which its mesh guards."""
        self._shut = True
        self._last = None

    def close(self) -> list[FlushCall]:
        """Forget what waits; return the flushes that will not be answered."""
        self.shut()
        self._merge()
        flushes = [call for call in self._queue if isinstance(call, FlushCall) and not call.over]
        self._queue.clear()
        self.waiting = 0
        return flushes

    @property
    def messages(self) -> int:
        """How many messages wait."""
        waiting = (*self._queue, *(batch for side in self._sides.values() for batch in side.batches))
        return sum(len(batch.bodies) for batch in waiting if isinstance(batch, Batch))

    def depart(self, departed: Callable[[], None]) -> None:
        """The daemon is leaving: write what waits, ask whether it was routed, and keep what comes later for the next.

        Args:
            departed: Called, perhaps at once, when all of that is written.
        """
        self._last = None
        self._departed = departed
        if self._queue or self._confirmed < self._written:
            self._departing = FlushCall(self, None, inf)
            self._queue.append(self._departing)
            self._wake()
        else:
            self._depart()

    def _depart(self) -> None:
        self.paused, self._departing = True, None
        self._departed()

    def flush(self, promise: Promise, deadline: float) -> FlushCall:
        """Ask the daemon to say when everything added before this has been routed.

        The promise gets None, or :class:`PublishLost`.
        """
        self._number += 1
        call = FlushCall(self, promise, deadline, self._number)
        self._queue.append(call)
        self._last = None
        self._wake()
        return call

    def pull(self, chunks: list[bytes], now: float) -> int:
        """Write the next frame."""
        self._offered = False
        size = 0
        while self._queue and size == 0 and not self.paused and not self._choked:
            head = self._queue[0]
            size = self._write_flush(head, chunks) if isinstance(head, FlushCall) else self._write(head, chunks)
        if not self._unasked_bytes:
            self._ask_at = inf
        elif self._ask_at == inf:
            self._ask_at = now + CONFIRM_SECONDS
        if (self._unasked_bytes >= CONFIRM_BYTES or now >= self._ask_at) and self._asking is None:
            self._asking = FlushCall(self, None, inf)
            # Right after what was just written, unless that is the middle of a message.
            self._queue.insert(1 if self._queue and self._in_parts(self._queue[0]) else 0, self._asking)
        self._say_room()
        self._wake()
        return size

    @property
    def empty(self) -> bool:
        return not self._queue and not any(side.batches or side.flushes for side in self._sides.values())

    @property
    def _choked(self) -> bool:
        """Too much is on its way: first the daemon must have read some of it."""
        return self._asking is not None and self._asking.id > 0 and self._unasked_bytes >= CONFIRM_BYTES

    def _say_room(self) -> None:
        if self._full and self.waiting <= self.limit // 2:
            self._full = False
            self.on_room()

    def confirmed(self, call: FlushCall, lost: int, held: int) -> None:
        """A FLUSH was answered: what it covers was routed, but for ``lost``, and what is ``held`` of this app."""
        self._confirmed = max(self._confirmed, call.covers)
        self._held = held
        self.lost += lost
        if call.promise is None:
            if call is self._asking:
                self._asking = None
            self._wake()
            return
        lost, unknown, self.lost, self.unknown = self.lost, self.unknown, 0, 0
        if call.promise.done():
            self.lost, self.unknown = lost, unknown  # nobody heard: tell it the next time
        elif lost or unknown:
            call.promise.set_exception(publish_lost(lost, unknown))
        else:
            call.promise.set_result(None)

    def failed(self, call: FlushCall) -> None:
        """A FLUSH came to nothing: it no longer waits for its turn."""
        if call is self._asking:
            self._asking = None
        if call.id:
            return
        if call in self._queue:
            self._queue.remove(call)
        for side in self._sides.values():
            if call in side.flushes:
                side.flushes.remove(call)

    def detached(self, flushes: list[FlushCall]) -> int:
        """The stream broke. Return how many messages nobody can vouch for; what was not written waits for the next.

        Args:
            flushes: Those of :class:`FlushCall` that were written and not answered, oldest first.
        """
        unknown = self._written - self._confirmed + self._held
        self.unknown += unknown
        self._confirmed, self._held = self._written, 0
        self._unasked_bytes = 0
        self._asking = self._departing = None
        self._offered = self.paused = False
        self._merge()
        for item in self._queue:
            if isinstance(item, Batch):
                item.at = 0  # a message that was half written was not routed: it goes out whole
        kept = [call for call in self._queue if isinstance(call, Batch) or call.promise is not None]
        again = [call for call in flushes if call.promise is not None and not call.promise.done()]
        self._queue = deque([*again, *kept])
        self._wake()
        return unknown

    def _merge(self) -> None:
        """No topic is paused any more: what waited aside takes its old place."""
        if not self._sides:
            return
        sides, self._sides = list(self._sides.values()), {}
        waiting = [*self._queue]
        for side in sides:
            waiting += [*side.batches, *side.flushes]
        self._queue = deque(sorted(waiting, key=lambda item: item.number))
        self.waiting += self._aside
        self._aside = 0
        if any(side.full for side in sides):
            self.on_room()

    def _wake(self) -> None:
        if self._queue and not self._offered and not self.paused and not self._choked:
            self._offered = True
            self._offer(self)

    @staticmethod
    def _in_parts(head: Batch | FlushCall) -> bool:
        return isinstance(head, Batch) and head.at > 0

    def _write_flush(self, call: FlushCall, chunks: list[bytes]) -> int:
        self._queue.popleft()
        if call.over or (call.promise is not None and call.promise.done()):
            return 0
        if call.promise is not None:
            for side in self._sides.values():
                if side.batches and side.batches[0].number < call.number:
                    side.flushes.append(call)
                    return 0
        call.header.id = self._opened(call)
        call.covers = self._written
        if call.promise is None:
            self._unasked_bytes = 0
        if call is self._departing:
            self._depart()
        return append_frame(chunks, call.header.SerializeToString(), b"")

    def _write(self, batch: Batch, chunks: list[bytes]) -> int:
        if batch is self._last:
            self._last = None
        if batch.size > PART_BYTES:
            return self._write_part(batch, chunks)
        self._queue.popleft()
        size = batch.write(chunks, self._next_id())
        self._leaves(batch)
        self._unasked_bytes += size + FRAME_COST
        return size

    def _write_part(self, batch: Batch, chunks: list[bytes]) -> int:
        body = batch.bodies[0]
        start, stop = batch.at, batch.at + PART_BYTES
        more = stop < len(body)
        if start == 0:
            header = batch.header(self._next_id())
            batch.id = header.id
            header.more = True
            header.total = len(body)
        else:
            header = make(kind=Kind.PART, id=batch.id, more=more)
        size = append_frame(chunks, header.SerializeToString(), body[start:stop])
        if more:
            batch.at = stop
        else:
            self._queue.popleft()
            self._leaves(batch)
        self._unasked_bytes += size + FRAME_COST
        return size

    def _leaves(self, batch: Batch) -> None:
        self.waiting -= batch.cost
        self._written += len(batch.bodies)
