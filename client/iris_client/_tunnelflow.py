"""One end of a tunnel (pure): pieces, credit both ways, half-close, and never a clean end that was not one.

Each end lets the other send only what it has room for. Room is given back as the app takes messages, a quarter of a
window at a time: while one quarter is read here, the others are on their way. An app that reads gets a larger window,
as long as all tunnels together stay within a budget, and gives it back when others have come.

Invariants:
    - bytes sent never exceed the credit granted by the other end
    - bytes held for the app never exceed the window and one message of at most ``max_body``
    - ``clean`` only when the other end said FINISH; ``broken`` is final
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from iris_client._errors import IrisError, TooLarge, TunnelBroken
from iris_client._frames import (
    Code,
    Header,
    Kind,
    ProtocolError,
    append_frame,
    append_joined,
    check_sizes,
    cut,
    make,
    sizes_field,
)
from iris_client._model import DATA_BYTES, MAX_SIZES, PART_BYTES, KiB, MiB

SMALLEST_WINDOW: Final = 64 * KiB
FIRST_WINDOW: Final = 256 * KiB
LARGEST_WINDOW: Final = MiB
SEND_BUFFER_BYTES: Final = 256 * KiB
"""How much of what was sent may wait for credit before ``send`` waits."""
TURN_BYTES: Final = PART_BYTES + KiB
"""What a flow writes before others get their turn, headers too: as much as a published batch or a part of a body."""
LONGEST_DATA: Final = PART_BYTES
"""Bytes one DATA may have at most between two ends that say so, and daemons that pass it on."""
GIVEN_BACK: Final = 4
"""The part of a window that is given back at once."""
DATA_COST: Final = 64
"""Credit a piece and each message uses besides its bytes, so that a flood of tiny messages is bounded too."""


class Budget:
    """What all tunnels of one mesh may grant together. Bytes.

    Half of it is for new tunnels alone, which then begin with the smallest window: those that were fast once and are
    open still must not keep others out. The other half is shared out: a window grows no larger than its share, and
    shrinks towards it when others have come, so that of many that send at once none gets more for having come first.
    """

    def __init__(self, limit: int = 64 * MiB) -> None:
        self._left = limit
        self._for_new = limit // 2
        self._windows = 0

    @property
    def share(self) -> int:
        """The window each tunnel should have, of as many as there are."""
        return max(SMALLEST_WINDOW, min(LARGEST_WINDOW, self._for_new // max(1, self._windows)))

    def first(self) -> int:
        """Take a window for a new tunnel: the usual one, a small one when little is left, 0 when that is too little."""
        size = FIRST_WINDOW if self._left - FIRST_WINDOW >= self._for_new else SMALLEST_WINDOW
        if size > self._left:
            return 0
        self._left -= size
        self._windows += 1
        return size

    def more(self, size: int) -> int:
        """Take up to ``size`` more bytes; return how many that were."""
        size = max(0, min(size, self._left - self._for_new))
        self._left -= size
        return size

    def give_back(self, size: int) -> None:
        """Return a part of a window."""
        self._left += size

    def ended(self, size: int) -> None:
        """Return what is left of a window that came from :meth:`first`."""
        self._left += size
        self._windows -= 1


class Port(Protocol):
    """What a flow needs of its session."""

    def push_for(self, flow: TunnelFlow, header: Header) -> None:
        """Queue a frame of this tunnel ahead of bulk; the id is filled in."""

    def offer_flow(self, flow: TunnelFlow) -> None:
        """Give the flow a turn among bulk."""

    def forget_flow(self, flow: TunnelFlow) -> None:
        """The tunnel is over: no frame of its id means anything any more."""


class TunnelFlow:
    """Both directions of one tunnel, at one end of it.

    Args:
        port: The session.
        budget: What all windows are taken from.
        window: The first window, already taken from ``budget``.
        max_body: Most bytes one message may have.
        what: For error messages: ``tunnel to 'storage'``.

    Attributes:
        id: The call's id.
        on_change: Called whenever there may be something new to read, room to send, or an end.
        broken: Why it broke, once it has.
        clean: The other end has finished: what is queued is all there is.
    """

    def __init__(self, port: Port, budget: Budget, window: int, max_body: int, what: str) -> None:
        self._port = port
        self._budget = budget
        self._window = window
        self._max_body = max_body
        self._what = what
        self.id = 0
        self.on_change: Callable[[], None] = lambda: None
        self.broken: IrisError | None = None
        self.clean = False
        # towards the other end
        self._credit = 0
        self._longest = 0  # bytes of a DATA with several messages, or with one if that is more than usual; 0: none such
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._at = 0  # how much of the first pending message has left
        self._finishing = False
        self._finished = False
        self._offered = False
        # from the other end
        self._messages: deque[tuple[bytes, int]] = deque()  # and what each has yet to give back in credit
        self._partial = bytearray()  # of a message whose last piece has not come
        self._partial_owed = 0
        self._granted = 0  # what the other end may still send
        self._owed = 0  # consumed and not granted again yet
        self._accepted = False
        self._discarding = False
        self._over = False

    # ------------------------------------------------------------- sending

    @property
    def room(self) -> bool:
        """Whether :meth:`send` may take another message."""
        return self._pending_bytes < SEND_BUFFER_BYTES

    @property
    def sent(self) -> bool:
        """Whether everything, FINISH included, has left."""
        return self._finished

    @property
    def finishing(self) -> bool:
        return self._finishing

    @property
    def over(self) -> bool:
        return self._over

    def send(self, body: bytes) -> None:
        """Queue one message.

        Raises:
            TooLarge: It is above the limit.
        """
        if len(body) > self._max_body:
            raise TooLarge(f"{self._what}: a message of {len(body)} bytes, the limit is {self._max_body} bytes")
        self._pending.append(body)
        self._pending_bytes += len(body) + DATA_COST
        self._turn()

    def finish(self) -> None:
        """Send no more; FINISH leaves behind what is queued."""
        if not self._finishing and self.broken is None:
            self._finishing = True
            self._turn()

    def pull(self, chunks: list[bytes], now: float) -> int:
        """Write messages and pieces of them within credit: a turn's worth, or one DATA."""
        self._offered = False
        if self._over:
            return 0
        written = 0
        pending = self._pending
        while pending and written < TURN_BYTES:
            if count := self._several(TURN_BYTES - written):
                written += self._write_several(chunks, count)
                continue
            size = self._piece()
            if size < 0 or (written and written + size > TURN_BYTES):
                break
            body = pending[0]
            more = size < len(body) - self._at
            header = make(kind=Kind.DATA, id=self.id, more=more)
            piece = body if size == len(body) else body[self._at : self._at + size]
            written += append_frame(chunks, header.SerializeToString(), piece)
            self._credit -= size + DATA_COST
            self._pending_bytes -= size
            if more:
                self._at += size
            else:
                pending.popleft()
                self._pending_bytes -= DATA_COST
                self._at = 0
        if not pending and self._finishing and not self._finished:
            header = make(kind=Kind.FINISH, id=self.id)
            written += append_frame(chunks, header.SerializeToString(), b"")
            self._finished = True
            self._end_if_both()
        self._turn()
        if written:
            self.on_change()
        return written

    def _piece(self) -> int:
        """Bytes of the first message that the next DATA takes; -1: it waits for credit.

        Where the other end sees to it that there will be credit for as much as one DATA holds, nothing is cut smaller.
        """
        left, credit = len(self._pending[0]) - self._at, self._credit - DATA_COST
        if self._longest >= DATA_BYTES:
            size = left if left <= self._longest else self._longest - DATA_COST  # four of those fill a window
            return size if size <= credit else -1
        return min(left, credit, DATA_BYTES) if credit > 0 or (credit == 0 and not left) else -1

    def _several(self, room: int) -> int:
        """How many of the pending messages fit into one DATA, if that is more than one."""
        longest = min(self._longest, room)
        if not longest or self._at:
            return 0
        size = count = 0
        for body in self._pending:
            size += len(body)
            if size > longest or size + DATA_COST * (count + 1) > self._credit or count == MAX_SIZES:
                break
            count += 1
        return count if count > 1 else 0

    def _write_several(self, chunks: list[bytes], count: int) -> int:
        take = self._pending.popleft
        bodies = [take() for _ in range(count)]
        size = sum(map(len, bodies))
        self._credit -= size + DATA_COST * count
        self._pending_bytes -= size + DATA_COST * count
        header = make(kind=Kind.DATA, id=self.id).SerializeToString() + sizes_field(bodies)
        return append_joined(chunks, header, bodies, size)

    # ----------------------------------------------------------- receiving

    def accept(self) -> None:
        """Let the other end send. At the member's end the first time accepts the tunnel."""
        if not self._accepted and self.broken is None:
            self._accepted = True
            self._grant(self._window)

    def receive(self) -> bytes | None:
        """Take the next whole message, or None when there is none now."""
        if not self._messages:
            return None
        body, owed = self._messages.popleft()
        self._owed += owed
        self._regrant()
        return body

    @property
    def readable(self) -> bool:
        return bool(self._messages)

    def discard(self) -> None:
        """The app reads no more: what came and what comes is thrown away, and its room given back."""
        self._discarding = True
        for _, owed in self._messages:
            self._owed += owed
        self._messages.clear()
        self._partial = bytearray()
        self._regrant()

    def abort(self, detail: str, code: int = Code.TUNNEL_BROKEN, reason: str = "", body: bytes = b"") -> None:
        """Break it, and tell the other end."""
        if self._over:
            return
        self._port.push_for(
            self,
            make(
                kind=Kind.ERROR,
                code=code,
                executed=3,
                reason=reason,
                detail=detail,
            ),
        )
        self.fail(TunnelBroken(f"{self._what}: {detail}"))

    def fail(self, error: IrisError) -> None:
        """It broke: nothing more is sent; what came whole may still be read."""
        if self._over:
            return
        if self.broken is None and not (self.clean and self._finished):
            self.broken = error
        self._pending.clear()
        self._pending_bytes = 0
        self._end()
        self.on_change()

    def on_data(self, header: Header, body: bytes) -> None:
        """Take a DATA frame."""
        size = len(body)
        sizes = list(header.sizes)
        if self.clean:
            return self.abort("the other end sent more after it had finished")
        if size > LONGEST_DATA:
            return self.abort(f"the other end sent a piece of {size} bytes, the limit is {LONGEST_DATA} bytes")
        cost = size + DATA_COST * (len(sizes) or 1)
        if cost > self._granted:
            return self.abort("the other end sent more than its credit")
        self._granted -= cost
        if self._discarding:
            self._owed += cost
            return self._regrant()
        if sizes:
            return self._on_several(header, body, sizes)
        self._partial_owed += cost
        if len(self._partial) + size > self._max_body:
            return self.abort(f"the other end sent a message above the limit of {self._max_body} bytes")
        if header.more:
            self._partial += body
            return self._regrant()
        whole = bytes(self._partial + body) if self._partial else body
        self._messages.append((whole, self._partial_owed))
        self._partial = bytearray()
        self._partial_owed = 0
        self.on_change()
        return None

    def _on_several(self, header: Header, body: bytes, sizes: list[int]) -> None:
        """Take a DATA of several messages."""
        if header.more or self._partial:
            return self.abort("the other end sent several messages in the middle of one")
        if max(sizes) > self._max_body:
            return self.abort(f"the other end sent a message above the limit of {self._max_body} bytes")
        try:
            check_sizes(sizes, body)
        except ProtocolError as error:
            return self.abort(f"the other end sent {error}")
        self._messages += [(each, len(each) + DATA_COST) for each in cut(body, sizes)]
        self.on_change()
        return None

    def on_credit(self, count: int, longest: int = 0) -> None:
        """Take a CREDIT: ``count`` more bytes, and how long a DATA of several messages may be."""
        self._credit += count
        self._longest = min(longest, LONGEST_DATA)
        self._turn()

    def on_finish(self) -> None:
        if self._partial and not self._discarding:
            return self.abort("the other end finished in the middle of a message")
        self.clean = True
        self._end_if_both()
        self.on_change()
        return None

    # ------------------------------------------------------------- inside

    def _turn(self) -> None:
        """Ask for a turn if there is something that may be sent now."""
        if self._offered or self._over or self._finished:
            return
        if self._piece() >= 0 if self._pending else self._finishing:
            self._offered = True
            self._port.offer_flow(self)

    def _grant(self, count: int) -> None:
        """Let the other end send more. Of what has been taken less than a quarter of a window is ever kept back."""
        self._granted += count
        longest = max(0, min(LONGEST_DATA, self._window // 2 - DATA_COST))
        self._port.push_for(self, make(kind=Kind.CREDIT, count=count, max_bytes=longest))

    def _regrant(self) -> None:
        if not self._messages and self._partial_owed:
            # A message longer than the window would wait for room that only its own end can free.
            self._owed += self._partial_owed
            self._partial_owed = 0
        if self.clean or self._over or not self._accepted or self._owed * GIVEN_BACK < self._window:
            return
        more, share = 0, self._budget.share
        shrinks = self._window > share
        if shrinks:
            spare = min(self._owed, self._window - share)
            self._owed -= spare
            self._window -= spare
            self._budget.give_back(spare)
        elif self._window < share:  # the app reads: let more be under way, for larger pieces at a time
            more = self._budget.more(min(self._window, share - self._window))
            self._window += more
        count, self._owed = self._owed + more, 0
        if count or shrinks:
            self._grant(count)

    def _end_if_both(self) -> None:
        if self.clean and self._finished:
            self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            if self._window:
                self._budget.ended(self._window)
            self._window = 0
            self._port.forget_flow(self)
