"""The local lane: a Unix socket beside a listener's, to which apps of this host move their frames.

An app is let in by the ticket its WELCOME brought, and by being the user it said
it was, which the kernel tells. Until then a connection is a stranger: there are
few of them, for a few seconds, and none can make us hold more than a ticket's
worth of bytes. From then on it is the attachment's :class:`Channel`: it is read
only as fast as the app's frames are taken, and one write is in flight.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Protocol, cast

import structlog

from irisd.attach.channel import ChannelLost
from irisd.attach.leaving import Leaving
from irisd.attach.tickets import TICKET_BYTES, Refusal, Tickets
from irisd.model import Frame, KiB, LaneKind, MiB
from irisd.sp import (
    PAIR1_HEADER_SIZE,
    EndpointType,
    Framing,
    HelloDecoder,
    Inbox,
    MessageDecoder,
    Scratch,
    SpError,
    encode_hello,
)
from irisd.wire import WireError, encode_batch_parts

LANE_BATCH: Final = 256 * KiB
"""About what one message towards an app carries."""
MAX_MESSAGE: Final = 4 * MiB
"""The largest message taken from an app."""
READ_BYTES: Final = 512 * KiB
"""The most one read brings; whole batches as a rule, into room that all apps share."""
MAX_WAITING: Final = 256 * KiB
"""About what may wait for the brain to take it."""
KERNEL_BYTES: Final = 512 * KiB
"""What the kernel is asked to hold of what an app has not read: a batch and the next. Systems may allow less."""
SHORT: Final = 2 * KiB
"""What a read brought, up to which it is handed over at once, without waking the reader."""
HIGH_WATER: Final = 64 * KiB
"""What the kernel did not take, above which a write is in flight."""

_PEER_CREDENTIALS: Final = getattr(socket, "SO_PEERCRED", None)
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid
_PREFIX: Final = struct.Struct(">BQI")  # in band, size, hops

_log = structlog.get_logger("irisd.attach")


class Holder(Protocol):
    """An attachment, as far as its lane is concerned."""

    def admit(self, local: LocalChannel) -> bool:
        """Take the connection; False when it is ending."""


class LocalChannel(asyncio.BufferedProtocol):
    """One connection: a stranger, then an attachment's channel."""

    name = "local"
    batch = LANE_BATCH
    turn = 0.001  # a write costs little, and apps are at work on what has left while the rest is worked on here

    __slots__ = (
        "_broken",
        "_drained",
        "_ended",
        "_error",
        "_heard",
        "_held",
        "_hello",
        "_inbox",
        "_lane",
        "_leaving",
        "_loop",
        "_moved",
        "_news",
        "_paused",
        "_scratch",
        "_ticket",
        "_transport",
        "_waiting",
        "taker",
    )

    def __init__(self, lane: LocalLane, scratch: Scratch) -> None:
        self._lane: LocalLane | None = lane  # None: it is a stranger no more
        self._loop = asyncio.get_running_loop()
        self._scratch = scratch
        self._hello: HelloDecoder | None = HelloDecoder([EndpointType.PAIR1])
        self._ticket: MessageDecoder | None = None
        self._inbox: Inbox | None = None
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[bytes] = deque()
        self._held = 0  # bytes waiting
        self._paused = False  # not reading
        self._news: asyncio.Future[None] | None = None  # the reader, with nothing to read
        self._drained: asyncio.Future[None] | None = None  # the writer, with a write in flight
        self._moved = False  # the app's MOVE is in: it may be read
        self._ended = False
        self._broken = False
        self._error: Exception | None = None
        self._leaving: Leaving | None = None  # where it is waited for, once it is an attachment's no more
        self._heard = self._loop.time()  # when the app last said something, or began to be read
        self.taker: Callable[[bytes], bool] | None = None
        """Takes a short batch in the step of the loop that read it; False: the reader has to."""

    # ----------------------------------------------------- for the attachment

    async def read(self) -> bytes | None:
        """As :meth:`Channel.read`."""
        if not self._moved:
            self._moved = True
            self._resume()
        waiting = self._waiting
        while not waiting:
            if self._error is not None:
                raise self._error
            if self._broken:
                raise ChannelLost
            if self._ended:
                return None
            self._news = self._loop.create_future()
            await self._news
        batch = waiting.popleft()
        self._held -= len(batch)
        if self._paused and not waiting:
            self._resume()
        return batch

    async def write(self, frames: list[Frame]) -> None:
        """As :meth:`Channel.write`."""
        transport = self._transport
        if transport is None:
            raise ChannelLost
        parts = encode_batch_parts(frames)
        size = sum(map(len, parts))
        transport.writelines([_prefix(size), *parts])
        if self._drained is not None:
            await self._drained
        elif size > HIGH_WATER:
            await asyncio.sleep(0)  # the app takes as much as it is given: the others get their turn all the same
        if self._transport is None:
            raise ChannelLost

    async def flush(self) -> None:
        """As :meth:`Channel.flush`: the kernel has it all."""
        if self._transport is not None:
            self._transport.set_write_buffer_limits(0)  # pauses writing if anything is left
        while self._drained is not None:
            await self._drained
        if self._transport is None:
            raise ChannelLost

    def finish(self, last: Frame, leaving: Leaving) -> None:
        """Write this, and close once the app has taken it all, or is not waited for any longer."""
        transport = self._transport
        if transport is not None:
            parts = encode_batch_parts([last])
            transport.writelines([_prefix(sum(map(len, parts))), *parts])
            transport.close()
            self._leaving = leaving
            leaving.add(self)

    @property
    def unread(self) -> int:
        """Bytes that the kernel has yet to take."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def silent_since(self) -> float | None:
        """When the app last said something; None while it would not be read."""
        return None if self._paused else self._heard

    def close(self) -> None:
        """Close now."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    # ------------------------------------------------------ for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream transport by contract; uvloop's is one without being an asyncio.Transport.
        self._transport = stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER // 4)
        if self._lane is not None:
            self._lane.came(self)
        stream.write(encode_hello(EndpointType.PAIR1))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._scratch.view if self._inbox is None else self._inbox.space()

    def buffer_updated(self, nbytes: int) -> None:
        if self._inbox is None:
            self._introduce(bytes(self._scratch.view[:nbytes]))
            return
        self._heard = self._loop.time()
        try:
            batch = self._inbox.filled(nbytes)
            if self._news is not None and len(batch) <= SHORT and self.taker is not None and self.taker(batch):
                return
        except SpError as error:
            return self._fail(WireError(str(error)))
        except Exception as defect:
            return self._fail(defect)
        if batch:
            self._waiting.append(batch)
            self._held += len(batch)
            if self._held >= MAX_WAITING:
                self._pause()
            self._stir()

    def eof_received(self) -> bool:
        self._ended = True
        if self._lane is not None:
            self.close()
        elif self._inbox is not None and not self._inbox.is_between_messages:
            self._broken = True
        self._stir()
        return True  # what is queued for the app still goes out

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._leaving is not None:
            self._leaving.gone(self)
        self._broken = self._broken or error is not None
        self._ended = True
        if self._lane is not None:
            self._lane.gone(self)
            self._lane = None
        self._stir()
        self.resume_writing()

    # ---------------------------------------------------------------- inside

    def _introduce(self, data: bytes) -> None:
        """Take what a stranger says: hello, then a ticket, and nothing more before it is answered."""
        lane = self._lane
        if lane is None:
            return self.close()  # it speaks before it was let in, or while it is being closed
        try:
            if self._hello is not None:
                greeting = self._hello.feed(data)
                if greeting is None:
                    return None
                self._hello, data = None, greeting[1]
                largest = TICKET_BYTES + PAIR1_HEADER_SIZE
                self._ticket = MessageDecoder(Framing.IPC, max_size=largest, hop_limit=1)
            assert self._ticket is not None
            messages = self._ticket.feed(data)
        except SpError as error:
            return lane.refuse(self, error.fault.value)
        if not messages:
            return None
        if len(messages) > 1 or not self._ticket.is_between_messages or len(messages[0]) != TICKET_BYTES:
            return lane.refuse(self, "no-ticket")
        return lane.shown(self, messages[0])

    def let_in(self) -> None:
        """It has shown a good ticket: it is answered, and read from when its app has moved."""
        assert self._transport is not None
        self._lane = self._ticket = None
        self._inbox = Inbox(self._scratch, max_size=MAX_MESSAGE)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        self._pause()
        self._transport.write(_prefix(0))

    @property
    def user(self) -> int | None:
        """The user at the other end, as the kernel says."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is None or _PEER_CREDENTIALS is None:
            return None
        raw = sock.getsockopt(socket.SOL_SOCKET, _PEER_CREDENTIALS, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(raw)[1])

    def _fail(self, error: Exception) -> None:
        """It is over; the reader says so."""
        self._error = error
        self._pause()
        self._stir()

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and self._transport is not None and self._error is None:
            self._paused = False
            self._heard = self._loop.time()
            self._transport.resume_reading()

    def _stir(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)


class LocalLane:
    """The socket of one listener's lane, and the tickets for it.

    Args:
        path: Where the socket is.
        sock: The socket, bound; the lane's from here on.
        unready: Most strangers at once; beyond, the oldest has to go.
        timeout: Seconds a stranger has to show its ticket.
        linger: Seconds an app has to read how its attachment ended.

    Attributes:
        leaving: The apps that do.
        refused: Strangers that were turned away, by reason.
        user_of: Tells who is at the other end of a connection.
    """

    def __init__(self, path: str, sock: socket.socket, *, unready: int, timeout: float, linger: float) -> None:
        self.path = path
        self.leaving = Leaving(linger)
        self.refused: Counter[str] = Counter()
        self._unready = unready
        self._timeout = timeout
        self._tickets: Tickets[Holder] = Tickets()
        self._strangers: dict[LocalChannel, asyncio.TimerHandle] = {}  # the oldest first
        self._scratch = Scratch(READ_BYTES)
        self._sock = sock
        self._server: asyncio.Server | None = None
        self.user_of: Callable[[LocalChannel], int | None] = lambda channel: channel.user

    async def start(self) -> None:
        """Take connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: LocalChannel(self, self._scratch), sock=self._sock, backlog=self._unready
        )

    def close(self) -> None:
        """Take no more connections, and close those of nobody's; attachments close theirs."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._sock.close()
        for stranger in list(self._strangers):
            stranger.close()
        self.leaving.close()

    def offer(self, holder: Holder, hello: Frame, welcome: Frame) -> bool:
        """Write a ticket into the WELCOME of an app that says that it can move; whether it was."""
        user = hello.group
        if not hello.lanes & LaneKind.LOCAL or not (user.isascii() and user.isdecimal() and len(user) <= 10):
            return False
        welcome.lane, welcome.ticket = self.path, secrets.token_bytes(TICKET_BYTES)
        welcome.lanes = hello.lanes & (LaneKind.LOCAL | LaneKind.LOCAL_ALONE)
        self._tickets.issue(welcome.ticket, holder, int(user), time.monotonic())
        return True

    # ----------------------------------------------- strangers (channels call)

    def came(self, stranger: LocalChannel) -> None:
        """Somebody has connected."""
        if len(self._strangers) >= self._unready:
            self.refuse(next(iter(self._strangers)), "too-many")
        timer = asyncio.get_running_loop().call_later(self._timeout, self.refuse, stranger, "silent")
        self._strangers[stranger] = timer

    def gone(self, stranger: LocalChannel) -> None:
        """It is a stranger no more: let in, refused, or gone."""
        timer = self._strangers.pop(stranger, None)
        if timer is not None:
            timer.cancel()

    def refuse(self, stranger: LocalChannel, reason: str) -> None:
        """Turn it away."""
        self.gone(stranger)
        self.refused[reason] += 1
        count = self.refused[reason]
        if not count & (count - 1):  # the first, the second, the fourth ...: a flood must not fill the log
            _log.warning("attach.lane_refused", lane=self.path, reason=reason, count=count)
        stranger.close()

    def shown(self, stranger: LocalChannel, ticket: bytes) -> None:
        """It shows a ticket."""
        user = self.user_of(stranger)
        found = self._tickets.redeem(ticket, -1 if user is None else user, time.monotonic())
        if isinstance(found, Refusal):
            self.refuse(stranger, found.value)
            return
        if not found.admit(stranger):
            self.refuse(stranger, "ended")
            return
        self.gone(stranger)
        stranger.let_in()


def can_tell_users() -> bool:
    """Whether this system says who is at the other end of a Unix socket."""
    return _PEER_CREDENTIALS is not None


def bind(path: str) -> socket.socket:
    """Bind a Unix socket.

    Raises:
        OSError: It cannot be.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _prefix(size: int) -> bytes:
    return _PREFIX.pack(1, size + PAIR1_HEADER_SIZE, 1)
