"""TCP (edge): one connection as a stream of bytes, and how to dial one.

A :class:`TcpConnection` reads into room that all connections of a loop share,
since each read is over before the next begins, and writes with ``writelines``;
whoever owns it is called back with views of that room. What a read leaves over
is all it keeps. What waits to be written is bounded by the owner, who asks
:attr:`TcpConnection.is_writable` before each batch, and what lies in the kernel
unsent is bounded by the socket, so that something urgent is never far behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from irisd.config import Address

STAGGER: Final = 0.25
"""Seconds between the dials of the addresses a name stands for."""
PER_ADDRESS: Final = 2.0
"""Seconds one address may take to answer."""

_LEAST_OWN: Final = 4096
_LINUX: Final = sys.platform == "linux"
_UNSENT_LOW_WATER: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if _LINUX else 0)
_THIN_LINEAR_TIMEOUTS: Final = 16 if _LINUX else 0
"""Who has little in flight, as heartbeats have, repeats it six times before the pauses between repeats double."""
_RTO_MAX_MS: Final = 44 if _LINUX else 0
"""The longest of these pauses (since Linux 6.15)."""
_RTO_MAX_RANGE: Final = (1_000, 120_000)
"""What it takes, ms."""


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """How connections are tuned. Sizes in bytes, times in seconds."""

    user_timeout: float = 5.0
    """How long sent bytes may stay unacknowledged before the kernel gives the connection up."""
    repeat_pause: float = 1.0
    """Longest pause between two attempts of the kernel to send what is not acknowledged, where it can be told: a second
    to two minutes. It would double them, so that a cable that was out for 2.5 s would seem to be out for five."""
    unsent: int = 128 * 1024
    """Most bytes that lie in the kernel and are not on their way."""
    high_water: int = 256 * 1024
    """Above this many bytes waiting in the process a connection is not writable."""
    low_water: int = 64 * 1024
    """Below this many it is writable again."""


class Owner(Protocol):
    """Who a connection belongs to. None of these may raise."""

    def connected(self, connection: TcpConnection) -> None:
        """The connection is open; comes first, once."""

    def received(self, data: memoryview) -> int:
        """Bytes are in: ``data`` is all that was not used yet, and valid during the call only.

        Returns:
            How many of them were used; the rest comes again, with more behind it.
        """

    def writable(self) -> None:
        """What was waiting has gone: write again."""

    def finished(self) -> None:
        """The other side will send nothing more."""

    def lost(self, error: Exception | None) -> None:
        """The connection is gone; comes last, once."""


class TcpConnection(asyncio.BufferedProtocol):
    """One TCP connection.

    Args:
        owner: Who is called back.
        options: How it is tuned.
        room: Where to read to. It must be longer than what the owner can leave
            over; :meth:`read_into` changes it.
    """

    def __init__(self, owner: Owner, options: TcpOptions, room: memoryview) -> None:
        self._owner = owner
        self._options = options
        self._transport: asyncio.Transport | None = None
        self._room = room
        self._rest = b""  # of the last read, to be read behind
        self._own: memoryview | None = None  # where the rest is instead, and is read to, while nothing comes of it
        self._have = 0  # bytes of the rest
        self._said_all = False
        self.is_writable = False
        """Whether little enough is waiting to write more."""
        self.remote: str = ""
        """The other side as ``host:port``."""

    # --------------------------------------------------- for the owner

    def write(self, buffers: Iterable[bytes]) -> None:
        """Send buffers in order. What is written after the end is dropped."""
        if self._transport is not None and not self._said_all and not self._transport.is_closing():
            self._transport.writelines(buffers)

    def read_into(self, room: memoryview) -> None:
        """Read to somewhere else, from the next read on; it must be longer than what is left over by then."""
        self._room = room

    def finish_writing(self) -> None:
        """Say that nothing more is coming, once all is sent; reading goes on."""
        if self._transport is not None and not self._said_all and not self._transport.is_closing():
            self._said_all = True
            with contextlib.suppress(OSError, RuntimeError):  # gone in the meantime: lost() says so
                self._transport.write_eof()

    def close(self) -> None:
        """Close once all is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now; what was not sent is lost."""
        if self._transport is not None:
            self._transport.abort()

    # ---------------------------------------------- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream transport by contract; uvloop's is one without being an asyncio.Transport.
        self._transport = stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=self._options.high_water, low=self._options.low_water)
        self.remote = show_address(stream.get_extra_info("peername"))
        self.is_writable = True
        self._owner.connected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._own is not None:
            return self._own[self._have :]
        self._room[: self._have] = self._rest
        return self._room[self._have :]

    def buffer_updated(self, nbytes: int) -> None:
        own, have = self._own, self._have + nbytes
        room = self._room if own is None else own
        used = self._owner.received(room[:have])
        self._have = left = have - used
        if used or not left:
            self._own, self._rest = None, bytes(room[used:have])
        elif own is None or left == len(own):
            # A long piece that comes in many reads: to copy for each what is there costs more than the reads.
            self._own = grown = memoryview(bytearray(min(max(2 * left, _LEAST_OWN), len(self._room))))
            grown[:left] = room[:left]

    def eof_received(self) -> bool:
        self._owner.finished()
        return True  # the owner decides when to close

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        self._owner.writable()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_writable = False
        self._transport = None
        self._owner.lost(error)


def tune(sock: socket.socket, options: TcpOptions) -> None:
    """Set a connection's socket options; those this system does not have are left out."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    least, most = _RTO_MAX_RANGE
    for option, value in (
        (getattr(socket, "TCP_USER_TIMEOUT", 0), round(options.user_timeout * 1000)),
        (_THIN_LINEAR_TIMEOUTS, 1),
        (_RTO_MAX_MS, min(max(least, round(options.repeat_pause * 1000)), most)),
        (_UNSENT_LOW_WATER, options.unsent),
    ):
        with contextlib.suppress(OSError):
            if option:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def attach(connection: TcpConnection, sock: socket.socket, *, accepted: bool) -> None:
    """Give a connected socket to the event loop; it belongs to ``connection`` from there on.

    It takes a turn or two and is seen through even when cancelled. In between the
    descriptor has two owners, the socket object and the loop, and if both closed
    it, the second would close a descriptor that is somebody else's by then.

    Raises:
        OSError: The socket is of no use any more; it is closed.
        asyncio.CancelledError: Cancelled; the connection is dropped.
    """
    loop = asyncio.get_running_loop()
    if accepted:
        handing_over = loop.create_task(loop.connect_accepted_socket(lambda: connection, sock))
    else:
        handing_over = loop.create_task(loop.create_connection(lambda: connection, sock=sock))
    try:
        await asyncio.shield(handing_over)
    except OSError:
        sock.close()
        raise
    except asyncio.CancelledError:
        await asyncio.wait([handing_over])
        connection.abort()
        raise
    finally:
        if handing_over.done() and not handing_over.cancelled() and handing_over.exception() is None:
            _let_go(handing_over.result()[0], sock)


def _let_go(transport: asyncio.BaseTransport, sock: socket.socket) -> None:
    """Make a socket forget its descriptor if a uvloop transport has closed it.

    uvloop tells the socket so itself, unless the connection ended before the
    handing over was through. The event loop's own transports always do.
    """
    if not isinstance(transport, asyncio.Transport) and transport.is_closing() and sock.fileno() != -1:
        sock.detach()


async def dial(address: Address, options: TcpOptions, *, per_address: float = PER_ADDRESS) -> socket.socket:
    """Connect to a host and port.

    A name is resolved anew each time. The addresses it stands for are tried in
    turn, each with a head start of 250 ms over the next, and the first that
    answers wins.

    Returns:
        A connected, tuned, non-blocking socket.

    Raises:
        OSError: Nothing answers; the message says how the last attempt ended.
        TimeoutError: Nothing answered in time (an ``OSError`` too).
        asyncio.CancelledError: Cancelled; every attempt is undone.
    """
    loop = asyncio.get_running_loop()
    found = await _resolve(address)
    attempts: set[asyncio.Task[socket.socket]] = set()
    failure: OSError = OSError(f"{address} cannot be reached")
    waiting = found
    winner: socket.socket | None = None
    try:
        while winner is None:
            if waiting:
                family, where = waiting.pop(0)
                attempts.add(loop.create_task(_connect(family, where, options, per_address)))
            elif not attempts:
                raise failure
            done, attempts = await asyncio.wait(
                attempts, timeout=STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            while done and winner is None:
                attempt = done.pop()
                error = attempt.exception()
                if error is None:
                    winner = attempt.result()
                elif isinstance(error, OSError):
                    failure = error
                else:
                    raise error
            attempts |= done  # a second one that was as fast
    finally:
        try:
            await _undo(attempts)
        except asyncio.CancelledError:
            if winner is not None:
                winner.close()
            raise
    return winner


async def _resolve(address: Address) -> list[tuple[int, Any]]:
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address(address.host)
        if ip.version == 4:
            return [(socket.AF_INET, (address.host, address.port))]
        if not ip.is_link_local:  # those have a scope, which the resolver knows
            return [(socket.AF_INET6, (address.host, address.port, 0, 0))]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
    except UnicodeError:
        raise OSError(f"{address.host!r} cannot be a host's name") from None
    if not found:
        raise OSError(f"{address.host} has no address")
    return [(family, where) for family, _, _, _, where in found]


async def _connect(family: int, where: Any, options: TcpOptions, per_address: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        tune(sock, options)
        async with asyncio.timeout(per_address):
            await asyncio.get_running_loop().sock_connect(sock, where)
        if sock.getsockname() == sock.getpeername():
            # Dialling a free port of one's own machine may meet itself (simultaneous open): nobody is there.
            raise ConnectionRefusedError(f"nothing listens at {show_address(where)}")
    except TimeoutError:
        sock.close()
        raise TimeoutError(f"no answer from {show_address(where)} within {per_address:g} s") from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _undo(attempts: set[asyncio.Task[socket.socket]]) -> None:
    """Cancel the attempts that lost, and close what they open all the same."""
    for attempt in attempts:
        attempt.cancel()
        attempt.add_done_callback(_close_unwanted)
    if attempts:
        await asyncio.wait(attempts)


def _close_unwanted(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def show_address(where: Any) -> str:
    """A socket address as ``host:port``."""
    if not isinstance(where, tuple) or len(where) < 2:
        return "?"
    return str(Address(str(where[0]), int(where[1])))
