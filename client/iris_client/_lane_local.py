"""The lane over a Unix socket of a daemon on this host: what an ``Attach`` stream moves to, if it can.

Nothing but this process and its daemon: a batch leaves by one system call and comes in by one, without a thread in
between. The stream it began on is done with then, and the daemon's END says how the lane ended. Daemons before 0.6 keep
that stream open and silent: there it says so, and ends the lane when it ends itself.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from iris_client import _sp
from iris_client._frames import Header, Kind, ProtocolError, append_frame, make
from iris_client._lane import CLOSED, Buffer, LaneEnded, Stream
from iris_client._model import KiB, MiB

MOVE_TIMEOUT: Final = 0.5
"""Seconds the daemon may take to let this app in; on one host it takes a fraction of a millisecond."""
LINGER: Final = 2.0
"""Seconds between the end of the socket and the end of the stream, or the other way round."""
PING_INTERVAL: Final = 30.0
"""Seconds after which an app that has said or heard nothing asks its daemon whether it is there."""
PING_TIMEOUT: Final = 10.0
"""Seconds the daemon may take to say anything at all then."""
BATCH: Final = 256 * KiB
KERNEL_BYTES: Final = 512 * KiB
"""What the kernel is asked to hold of what the daemon has not read: a batch and the next. Systems may allow less."""
MAX_MESSAGE: Final = 16 * MiB
MAX_BUFFERS: Final = 512
"""Most pieces one system call is given; systems allow 1,024."""
WORTH_KEEPING: Final = 4 * KiB
"""Pieces smaller than this on average are joined: that costs less than telling the kernel of each."""


class CannotMove(Exception):
    """There is no local lane to be had; the message says why. The stream is as it was."""


async def move(stream: Stream, path: str, ticket: bytes, ping: Callable[[], None] | None = None) -> LocalLane:
    """Move from ``stream`` to the socket at ``path``; alone, if there is a ``ping`` to be had instead of the stream.

    Raises:
        CannotMove: The socket is not there, or the daemon does not let this app in.
        LaneEnded: The stream is over.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise CannotMove("this system has no Unix sockets")
    try:
        async with asyncio.timeout(MOVE_TIMEOUT):
            sock = await _enter(path, ticket)
    except TimeoutError:
        raise CannotMove(f"{path}: no answer within {MOVE_TIMEOUT:g} s") from None
    except OSError as error:
        raise CannotMove(f"{path}: {error.strerror or error}") from None
    try:
        last: list[bytes] = []
        append_frame(last, make(kind=Kind.MOVE).SerializeToString(), b"")
        await stream.send(last)
    except BaseException:
        sock.close()
        raise
    return LocalLane(sock, stream, ping)


async def _enter(path: str, ticket: bytes) -> socket.socket:
    """Connect and show the ticket; return the socket once the daemon has said yes.

    Raises:
        OSError: It cannot be connected to.
        CannotMove: The answer was another.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        while True:  # at once or not at all: the loop's own would take a full backlog for a connection
            try:
                sock.connect(path)
                break
            except BlockingIOError:
                await asyncio.sleep(0.005)
        await loop.sock_sendall(sock, _sp.HELLO + _sp.prefix(len(ticket)) + ticket)
        wanted = _sp.HELLO + _sp.prefix(0)
        got = b""
        while got != wanted:
            came = await loop.sock_recv(sock, len(wanted) - len(got))
            got += came
            if not came or not wanted.startswith(got):
                raise CannotMove(f"{path}: the daemon did not let this app in")
    except BaseException:
        sock.close()
        raise
    return sock


class LocalLane:
    """A socket on which the daemon has let this app in. Made by :func:`move`.

    Args:
        sock: The socket.
        stream: The one the app came by.
        ping: Has the daemon asked whether it is there. None: the stream stays, and tells.
    """

    name = "local"
    batch = BATCH

    def __init__(self, sock: socket.socket, stream: Stream, ping: Callable[[], None] | None = None) -> None:
        self._sock = sock
        self._stream: Stream | None = stream
        self._ping = ping
        self._loop = asyncio.get_running_loop()
        self._inbox = _sp.Inbox(MAX_MESSAGE)
        self._moved = False  # the daemon's MOVE is in
        self._received: Callable[[Buffer], None] = lambda batch: None
        self._body: memoryview | None = None  # the next batch, when it is whole already
        self._over = False
        self._over_now: asyncio.Future[None] | None = None
        self._error: Exception | None = None  # of whoever received
        self._closed = False
        self._finishing = False
        self._room: asyncio.Future[None] | None = None
        self._half: asyncio.Future[None] | None = None  # a batch of which some has been written
        self._read_at = self._wrote_at = self._loop.time()
        self._watch: asyncio.Task[LaneEnded | None] | None = None
        self._look: asyncio.TimerHandle | None = None
        self._told: LaneEnded | None = None  # how it ended
        _lanes.add(self)

    def told(self, kind: int, header: Header) -> None:
        """The daemon's MOVE has come: what follows is read here. Or its END; or a PING, whose coming says all.

        Raises:
            ProtocolError: It says what it must not.
        """
        if kind == Kind.MOVE and not self._moved:
            self._moved = True
            self._watch = self._loop.create_task(self._watch_stream(), name="iris-mesh-stream")
            if self._ping is not None:
                self._look_again()
        elif kind == Kind.END and self._ping is not None and self._moved:
            self._told = LaneEnded(header.reason, header.detail)
            self._end()
        elif kind != Kind.PING or self._ping is None:
            raise ProtocolError(f"unexpected frame kind {kind} from a lane")

    async def send(self, parts: list[bytes]) -> None:
        if self._finishing:
            raise LaneEnded("CANCELLED", "closed by the app")
        size = sum(map(len, parts))
        if size < len(parts) * WORTH_KEEPING:
            parts = [b"".join(parts)]
        buffers: list[Buffer] = [_sp.prefix(size), *parts]
        left = size + _sp.PREFIX_BYTES
        sent = self._write(buffers)
        if sent == left:
            return
        self._half = half = self._loop.create_future()
        try:
            while (left := left - sent) > 0:
                _drop(buffers, sent)
                if not sent:
                    await self._writable()
                sent = self._write(buffers)
        finally:
            half.set_result(None)
            self._half = None

    def _write(self, buffers: list[Buffer]) -> int:
        """Write what the kernel takes; return how many bytes that was.

        Raises:
            LaneEnded: The socket is of no use any more.
        """
        self._wrote_at = self._loop.time()
        try:
            return self._sock.sendmsg(buffers[:MAX_BUFFERS])
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if not self._closed and error.errno not in (errno.EPIPE, errno.ECONNRESET):  # no end to read would follow
                self._end()
            raise LaneEnded("UNAVAILABLE", error.strerror or str(error)) from None

    async def pump(self, received: Callable[[Buffer], None]) -> NoReturn:
        stream = self._stream
        while not self._moved:
            assert stream is not None  # it is let go of later
            received(await stream.receive())
        del stream
        self._received = received
        if not self._over:
            self._over_now = self._loop.create_future()
            self._loop.add_reader(self._sock, self._readable)
            await self._over_now
        raise self._error or await self._how_it_ended()

    async def finish(self) -> None:
        self._finishing = True  # nothing new
        if self._half is not None:  # the end of what is being sent comes first
            await asyncio.wait((self._half,), timeout=LINGER)
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def forked(self) -> None:
        """This is a child of the process whose lane it is: close this copy of the socket, and leave the rest alone."""
        self._over = self._closed = True
        self._sock.close()

    async def close(self) -> None:
        if not self._closed:
            self._end()
            self._closed = True
            self._loop.remove_writer(self._sock)
            self._sock.close()
            if self._room is not None and not self._room.done():
                self._room.set_exception(LaneEnded("CANCELLED", "closed by the app"))
            if self._look is not None:
                self._look.cancel()
            if self._watch is not None:
                self._watch.cancel()
        if self._stream is not None:
            await self._stream.close()
        if self._watch is not None:
            await asyncio.gather(self._watch, return_exceptions=True)

    # ---------------------------------------------------------------- inside

    def _readable(self) -> None:
        """Read once and hand on what is whole, the first batch in this very step of the loop."""
        if self._body is not None:
            return
        inbox = self._inbox
        try:
            count = self._sock.recv_into(inbox.space())
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        if not count:
            self._end()
            return
        self._read_at = self._loop.time()
        inbox.filled(count)
        self._deliver()

    def _deliver(self) -> None:
        """Hand on one batch: what it sets off goes out before the next, and is worked on elsewhere meanwhile."""
        if self._over:
            return
        try:
            body, self._body = self._body, None
            if body is None:
                body = self._inbox.next()
            if body is not None:
                self._received(body)
                self._body = self._inbox.next()
        except Exception as error:
            self._error = error
            self._end()
        else:
            if self._body is not None:
                self._loop.call_soon(self._deliver)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._loop.remove_reader(self._sock)
            if self._over_now is not None and not self._over_now.done():
                self._over_now.set_result(None)

    async def _writable(self) -> None:
        if self._closed:
            raise LaneEnded("CANCELLED", "closed by the app")
        self._room = room = self._loop.create_future()
        self._loop.add_writer(self._sock, _set, room)
        try:
            await room
        finally:
            self._room = None
            if not self._closed:
                self._loop.remove_writer(self._sock)

    async def _watch_stream(self) -> LaneEnded | None:
        """Wait for the stream's end, which may be all that tells how the lane ended.

        If the lane can do without, let go of it; else the socket's end follows.
        """
        stream = self._stream
        assert stream is not None
        try:
            await stream.receive()
            ended = LaneEnded("INTERNAL", "a batch came on the stream after the daemon's MOVE")
        except LaneEnded as error:
            ended = error
        if self._ping is not None:
            await stream.close()
            self._stream = None
            return None if ended.status == "OK" else ended
        self._loop.call_later(LINGER, self._cut, self._read_at)
        return ended

    def _cut(self, read_at: float) -> None:
        """The stream has ended, and this socket has not: give it up unless something still comes."""
        if self._read_at == read_at:
            self._end()
        elif not self._over:
            self._loop.call_later(LINGER, self._cut, self._read_at)

    async def _how_it_ended(self) -> LaneEnded:
        watch = self._watch
        if self._told is None and watch is not None and not self._closed:
            await asyncio.wait((watch,), timeout=LINGER)
            if watch.done() and not watch.cancelled():
                self._told = watch.result()
        return self._told or LaneEnded("UNAVAILABLE", CLOSED)

    def _look_again(self) -> None:
        since = min(self._read_at, self._wrote_at)
        self._look = self._loop.call_at(since + PING_INTERVAL, self._check)

    def _check(self) -> None:
        """Ask whether the daemon is there if nothing was heard of it for a while, or by it."""
        assert self._ping is not None
        if self._over:
            return
        now = self._loop.time()
        if now - min(self._read_at, self._wrote_at) < PING_INTERVAL * 0.99:  # timers may be a little early
            self._look_again()
        else:
            self._ping()
            self._await_answer(now, misses=0)

    def _await_answer(self, asked: float, misses: int) -> None:
        due = self._loop.time() + PING_TIMEOUT / 2
        self._look = self._loop.call_at(due, self._answered, asked, due, misses)

    def _answered(self, asked: float, due: float, misses: int) -> None:
        """Give the lane up once the daemon has twice had half the time, undisturbed, and not said a word."""
        if self._read_at <= asked and self._body is None:
            self._readable()  # it may have come while this loop was at something else
        if self._over:
            return
        if self._read_at > asked or self._body is not None:
            self._look_again()
        elif self._loop.time() - due > PING_TIMEOUT / 8:
            self._await_answer(asked, 0)  # the loop was held up: the PING may not have left, or the daemon not been run
        elif not misses:
            self._await_answer(asked, 1)
        else:
            self._told = LaneEnded("UNAVAILABLE", f"the daemon has not answered for {PING_TIMEOUT:g} s")
            self._end()


def _after_fork() -> None:
    """Let go of the parent's sockets: as long as one is open here, the daemon cannot see that the parent has died."""
    for lane in tuple(_lanes):
        lane.forked()


_lanes: Final[weakref.WeakSet[LocalLane]] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _set(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)


def _drop(buffers: list[Buffer], count: int) -> None:
    """Take the first ``count`` bytes away."""
    at = 0
    while count and count >= len(buffers[at]):
        count -= len(buffers[at])
        at += 1
    del buffers[:at]
    if count:
        buffers[0] = memoryview(buffers[0])[count:]
