"""Publishing (pure): messages gathered into frames while they wait, within a bound, and what became of them.

Consecutive messages of one topic with equal headers share a frame. Nothing waits in order to be gathered: what is
waiting when the stream can take more goes out together.

What was written is unconfirmed until a FLUSH that came after it is answered; the app need not ask, a FLUSH of our own
goes out now and then, so that when a stream breaks the number of messages nobody can vouch for is small and known.

Invariants:
    - messages of one topic leave in the order they were added
    - ``waiting`` is the cost of what has not been handed to the stream, and exceeds ``limit`` by at most one message
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from math import inf
from sys import byteorder
from typing import Final

from iris_client._calls import Call, Promise
from iris_client._errors import DeadlineExceeded, IrisError, PublishLost
from iris_client._frames import Header, Kind, append_frame, append_joined, make, sizes_field
from iris_client._model import MAX_SIZES, PART_BYTES, PUBLISH_BUFFER_BYTES, MiB

MESSAGE_COST: Final = 32
"""Bytes a waiting message is charged besides its body: what Python needs to hold it, about."""

CONFIRM_BYTES: Final = 4 * MiB
"""How much is written before a FLUSH of our own goes out."""

CONFIRM_SECONDS: Final = 1.0
"""How long after the last one the next goes out, if anything was written."""


class _Batch:
    """Messages that will share a frame, or one message that travels in parts."""

    __slots__ = ("at", "bodies", "content_type", "headers", "id", "size", "topic")

    def __init__(self, topic: str, headers: dict[str, str] | None, content_type: str) -> None:
        self.topic = topic
        self.headers = headers
        self.content_type = content_type
        self.bodies: list[bytes] = []
        self.size = 0
        self.at = 0  # of a message in parts: how much has been written
        self.id = 0


class FlushCall(Call):
    """A FLUSH. Ours when ``promise`` is None; the app's otherwise, and then it outlives the stream it was sent on."""

    __slots__ = ("_publishing", "covers", "promise")

    def __init__(self, publishing: Publishing, promise: Promise | None, deadline: float) -> None:
        super().__init__(make(kind=Kind.FLUSH), b"", deadline, "flush")
        self._publishing = publishing
        self.promise = promise
        self.covers = 0

    def on_frame(self, kind: int, header: Header, body: bytes) -> None:
        if kind == Kind.ERROR:
            self.fail(self.error(header, body))
        elif kind == Kind.DONE:
            self.over = True
            self._publishing.confirmed(self, header.lost)
        else:
            super().on_frame(kind, header, body)

    def fail(self, error: IrisError) -> None:
        self.over = True
        self._publishing.failed(self)
        if self.promise is not None and not self.promise.done():
            self.promise.set_exception(error)

    def expired(self, now: float) -> None:
        self.fail(DeadlineExceeded("flush: the daemon did not answer in time", executed=None))

    def detached(self, reason: str) -> None:
        self.id = 0  # asked again on the next stream


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
        on_room: Called when half of the limit has become free again.
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
        self.lost = 0
        self.unknown = 0
        self._queue: deque[_Batch | FlushCall] = deque()
        self._last: _Batch | None = None  # where the next message may be added
        self._offered = False
        self._full = False
        self._shut = False
        self._unconfirmed = 0  # messages written since the last confirmation
        self._unasked = 0  # messages written since the last FLUSH, ours or the app's
        self._unasked_bytes = 0  # and what they cost
        self._asking: FlushCall | None = None  # the FLUSH of ours that is under way
        self._ask_at = inf  # when the next one is due, once something was written

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
        if self.waiting >= self.limit:
            self._full = True
            return False
        batch = self._last
        size = len(body)
        if (
            batch is None
            or batch.topic != topic
            or batch.headers != headers
            or batch.content_type != content_type
            or batch.size + size > PART_BYTES
            or len(batch.bodies) == MAX_SIZES
        ):
            batch = _Batch(topic, headers, content_type)
            self._queue.append(batch)
            self._last = batch if size < PART_BYTES and not self._shut else None
        batch.bodies.append(body)
        batch.size += size
        self.waiting += size + MESSAGE_COST
        self._wake()
        return True

    def shut(self) -> None:
        """Take no more through :meth:`add`: the app must come by :meth:`add_checked`, which its mesh guards."""
        self._shut = True
        self._last = None

    def close(self) -> list[FlushCall]:
        """Forget what waits; return the flushes that will not be answered."""
        self.shut()
        flushes = [call for call in self._queue if isinstance(call, FlushCall) and not call.over]
        self._queue.clear()
        self.waiting = 0
        return flushes

    @property
    def messages(self) -> int:
        """How many messages wait."""
        return sum(len(batch.bodies) for batch in self._queue if isinstance(batch, _Batch))

    def flush(self, promise: Promise, deadline: float) -> FlushCall:
        """Ask the daemon to say when everything added before this has been routed.

        The promise gets None, or :class:`PublishLost`.
        """
        call = FlushCall(self, promise, deadline)
        self._queue.append(call)
        self._last = None
        self._wake()
        return call

    def pull(self, chunks: list[bytes], now: float) -> int:
        """Write the next frame."""
        self._offered = False
        size = 0
        while self._queue and size == 0 and not self.paused:
            head = self._queue[0]
            size = self._write_flush(head, chunks) if isinstance(head, FlushCall) else self._write(head, chunks)
        if not self._unasked:
            self._ask_at = inf
        elif self._ask_at == inf:
            self._ask_at = now + CONFIRM_SECONDS
        if (self._unasked_bytes >= CONFIRM_BYTES or now >= self._ask_at) and self._asking is None:
            self._asking = FlushCall(self, None, inf)
            # Right after what was just written, unless that is the middle of a message.
            self._queue.insert(1 if self._queue and self._in_parts(self._queue[0]) else 0, self._asking)
        if self._full and self.waiting <= self.limit // 2:
            self._full = False
            self.on_room()
        self._wake()
        return size

    @property
    def empty(self) -> bool:
        return not self._queue

    def confirmed(self, call: FlushCall, lost: int) -> None:
        """A FLUSH was answered: what it covers was routed, but for ``lost``."""
        self._unconfirmed -= call.covers
        self.lost += lost
        if call.promise is None:
            self._asking = None
            return
        lost, unknown, self.lost, self.unknown = self.lost, self.unknown, 0, 0
        if call.promise.done():
            self.lost, self.unknown = lost, unknown  # nobody heard: tell it the next time
        elif lost or unknown:
            call.promise.set_exception(_publish_lost(lost, unknown))
        else:
            call.promise.set_result(None)

    def failed(self, call: FlushCall) -> None:
        """A FLUSH came to nothing: it no longer waits for its turn."""
        if call is self._asking:
            self._asking = None
        if not call.id and call in self._queue:
            self._queue.remove(call)

    def detached(self, flushes: list[FlushCall]) -> int:
        """The stream broke. Return how many messages nobody can vouch for; what was not written waits for the next.

        Args:
            flushes: Those of :class:`FlushCall` that were written and not answered, oldest first.
        """
        unknown, self._unconfirmed = self._unconfirmed, 0
        self.unknown += unknown
        self._unasked = self._unasked_bytes = 0
        self._asking = None
        self._offered = self.paused = False
        if self._queue and isinstance(head := self._queue[0], _Batch):
            head.at = 0  # a message that was half written was not routed: it goes out whole
        kept = [call for call in self._queue if isinstance(call, _Batch) or call.promise is not None]
        again = [call for call in flushes if call.promise is not None and not call.promise.done()]
        self._queue = deque([*again, *kept])
        self._wake()
        return unknown

    def _wake(self) -> None:
        if self._queue and not self._offered and not self.paused:
            self._offered = True
            self._offer(self)

    @staticmethod
    def _in_parts(head: _Batch | FlushCall) -> bool:
        return isinstance(head, _Batch) and head.at > 0

    def _write_flush(self, call: FlushCall, chunks: list[bytes]) -> int:
        self._queue.popleft()
        if call.over or (call.promise is not None and call.promise.done()):
            return 0
        call.header.id = self._opened(call)
        call.covers = self._unasked
        self._unasked = self._unasked_bytes = 0
        return append_frame(chunks, call.header.SerializeToString(), b"")

    def _write(self, batch: _Batch, chunks: list[bytes]) -> int:
        if batch is self._last:
            self._last = None
        if batch.size > PART_BYTES:
            return self._write_part(batch, chunks)
        self._queue.popleft()
        count = len(batch.bodies)
        header = self._header(batch).SerializeToString()
        if count == 1:
            size = append_frame(chunks, header, batch.bodies[0])
        else:
            sizes = array("I", map(len, batch.bodies))
            if byteorder == "big":
                sizes.byteswap()
            size = append_joined(chunks, header + sizes_field(sizes.tobytes()), batch.bodies, batch.size)
        self._written(batch, count)
        return size

    def _write_part(self, batch: _Batch, chunks: list[bytes]) -> int:
        body = batch.bodies[0]
        start, stop = batch.at, batch.at + PART_BYTES
        more = stop < len(body)
        if start == 0:
            header = self._header(batch)
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
            self._written(batch, 1)
        return size

    def _header(self, batch: _Batch) -> Header:
        return make(
            kind=Kind.PUBLISH,
            id=self._next_id(),
            address=batch.topic,
            headers=batch.headers,
            content_type=batch.content_type,
        )

    def _written(self, batch: _Batch, count: int) -> None:
        self.waiting -= batch.size + count * MESSAGE_COST
        self._unconfirmed += count
        self._unasked += count
        self._unasked_bytes += batch.size + count * MESSAGE_COST


def _publish_lost(lost: int, unknown: int) -> PublishLost:
    parts = []
    if lost:
        parts.append(f"the daemon dropped {lost} published messages because queues were full")
    if unknown:
        parts.append(f"{unknown} may have been lost when the stream to the daemon broke")
    return PublishLost("; ".join(parts), lost=lost, unknown=unknown)
