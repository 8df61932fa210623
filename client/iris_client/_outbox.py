"""What waits to be sent to the daemon (pure): small frames first, bulk in turns.

Answers, credit, cancellations and calls leave in the order they were made, ahead of bulk. Bulk (published batches,
bodies in parts, tunnels) takes turns, a piece at a time, so that one large body holds nobody up for long. A call
gets its id here, at the moment it leaves: ids rise on the stream, and a call without an id was never written.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from iris_client._calls import Call
from iris_client._frames import MAX_REMAINING_MS, Header, Kind, append_frame, make
from iris_client._model import PART_BYTES, MiB

MAX_PIECES: Final = 16_384
"""Pieces of a batch after which it ends, however short: it may hold 65,536 frames, and a turn of bulk adds 32,768."""

MAX_UNFINISHED_BYTES: Final = 32 * MiB
"""Bodies under way in parts at once, together: the far side holds what is unfinished, and bounds it."""


class Source(Protocol):
    """Something with bulk to send."""

    def pull(self, chunks: list[bytes], now: float) -> int:
        """Append the next piece to ``chunks``; return the bytes added, 0 when there is nothing now."""


class Out:
    """One frame that waits. ``call`` is set on the frame that opens one."""

    __slots__ = ("body", "call", "deadline", "header")

    def __init__(self, header: Header, body: bytes = b"", deadline: float = math.inf, call: Call | None = None) -> None:
        self.header = header
        self.body = body
        self.deadline = deadline
        self.call = call


class _Transfer:
    """A body above :data:`PART_BYTES` on its way out, part by part."""

    __slots__ = ("_at", "_outbox", "out")

    def __init__(self, out: Out, outbox: Outbox) -> None:
        self.out = out
        self._outbox = outbox
        self._at = 0

    @property
    def begun(self) -> bool:
        return self._at > 0

    def pull(self, chunks: list[bytes], now: float) -> int:
        out, start = self.out, self._at
        body = out.body
        self._at = stop = start + PART_BYTES
        more = stop < len(body)
        if start == 0:
            if not self._outbox.stamp(out, now):
                self._outbox.transferred(self)
                return 0
            header = out.header
            header.more = True
            header.total = len(body)
        elif out.call is not None and out.call.over:
            self._outbox.transferred(self)
            return 0  # cancelled: the rest would be ignored over there
        else:
            header = make(kind=Kind.PART, id=out.header.id, more=more)
        size = append_frame(chunks, header.SerializeToString(), body[start:stop])
        if more:
            self._outbox.offer(self)
        else:
            self._outbox.transferred(self)
        return size


class Outbox:
    """Everything this app has for its daemon, in the order it will leave.

    Args:
        opened: Called with each call as its first frame leaves; gives the call its id.
        wake: Called when there is something new to take.

    Attributes:
        bodies: Bytes of bodies waiting here; published ones and tunnels, which have bounds of their own, aside.
    """

    def __init__(self, opened: Callable[[Call], int], wake: Callable[[], None]) -> None:
        self._opened = opened
        self._wake = wake
        self._urgent: deque[Out] = deque()
        self._ring: deque[Source] = deque()
        self._large: deque[_Transfer] = deque()  # bodies that wait for others to finish
        self._unfinished: dict[_Transfer, int] = {}
        self._unfinished_bytes = 0
        self.bodies = 0

    def push(self, out: Out) -> None:
        """Queue one frame; a body above :data:`PART_BYTES` takes turns with other bulk."""
        self.bodies += len(out.body)
        if len(out.body) > PART_BYTES:
            self._large.append(_Transfer(out, self))
            self._begin_transfers()
            return
        self._urgent.append(out)
        self._wake()

    def offer(self, source: Source) -> None:
        """Give ``source`` a turn. It must not have one already."""
        self._ring.append(source)
        self._wake()

    def take(self, limit: int, now: float) -> list[bytes] | None:
        """Return a batch of about ``limit`` bytes, in pieces, or None when nothing waits."""
        urgent, ring = self._urgent, self._ring
        while urgent or ring:
            chunks: list[bytes] = []
            size = 0
            while urgent and size < limit and len(chunks) < MAX_PIECES:
                out = urgent.popleft()
                self.bodies -= len(out.body)
                if self.stamp(out, now):
                    size += append_frame(chunks, out.header.SerializeToString(), out.body)
            if ring:
                # One turn in any case: small frames alone must not starve bulk.
                size += ring.popleft().pull(chunks, now)
                while ring and size < limit and len(chunks) < MAX_PIECES:
                    size += ring.popleft().pull(chunks, now)
            if chunks:
                return chunks
        return None

    def stamp(self, out: Out, now: float) -> bool:
        """Give an opening frame its id and remaining time; False when there is no point in sending it."""
        call = out.call
        if call is not None:
            if call.over:
                return False
            if out.deadline != math.inf:
                remaining = math.ceil((out.deadline - now) * 1000)
                if remaining <= 0:
                    return False  # its deadline is being told to the caller this very moment
                out.header.remaining_ms = min(remaining, MAX_REMAINING_MS)
            out.header.id = self._opened(call)
        return True

    def transferred(self, transfer: _Transfer) -> None:
        """A large body has left, or will not: the next may begin."""
        size = self._unfinished.pop(transfer, 0)
        self._unfinished_bytes -= size
        self.bodies -= size
        self._begin_transfers()

    def withdraw(self, wanted: Callable[[Call], bool]) -> list[Call]:
        """Take back the calls of which nothing has been written yet, in order."""
        found = [out for out in self._urgent if out.call is not None and not out.call.over and wanted(out.call)]
        unwritten = [transfer for transfer in (*self._unfinished, *self._large) if not transfer.begun]
        large = [each for each in unwritten if (call := each.out.call) is not None and not call.over and wanted(call)]
        taken = set(found)
        self._urgent = deque(out for out in self._urgent if out not in taken)
        self._large = deque(each for each in self._large if each not in large)
        self._ring = deque(source for source in self._ring if source not in large)
        for each in large:
            self._unfinished_bytes -= self._unfinished.pop(each, 0)
        outs = [*found, *(each.out for each in large)]
        self.bodies -= sum(len(out.body) for out in outs)
        self._begin_transfers()
        return [out.call for out in outs if out.call is not None]

    def clear(self) -> list[Call]:
        """Forget everything; return the calls that were never written."""
        waiting = [*self._urgent, *(transfer.out for transfer in (*self._unfinished, *self._large))]
        self._urgent.clear()
        self._ring.clear()
        self._large.clear()
        self._unfinished.clear()
        self._unfinished_bytes = self.bodies = 0
        return [out.call for out in waiting if out.call is not None and not out.call.id]

    @property
    def empty(self) -> bool:
        return not self._urgent and not self._ring

    def _begin_transfers(self) -> None:
        large = self._large
        while large:
            size = len(large[0].out.body)
            if self._unfinished and self._unfinished_bytes + size > MAX_UNFINISHED_BYTES:
                return
            transfer = large.popleft()
            self._unfinished[transfer] = size
            self._unfinished_bytes += size
            self.offer(transfer)
