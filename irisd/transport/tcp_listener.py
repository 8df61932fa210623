"""TCP listeners (edge): accept at a pace that leaves the rest of the process room.

The event loop's own servers accept as fast as they can and build a connection
for each; under a flood that is most of the cost. Here whoever owns the listener
judges each connection by its address first, and one turn of the loop accepts
one at most, so that links that are up get their turn in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from irisd.config import Address
from irisd.errors import ListenError
from irisd.transport.tcp import show_address

BACKLOG: Final = 1024
PAUSE: Final = 0.1
"""Seconds without accepting when the process has no file descriptor left."""

_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class TcpListener:
    """Listening sockets of one address (a name or ``*`` may stand for several).

    Args:
        address: Where; host ``*`` or empty means everywhere, port 0 a free one.
        accepted: Called with each connection's socket (non-blocking) and its
            remote IP address; it owns the socket from there on.
        starved: Called when the process has no file descriptor left.

    Raises:
        ListenError: The address cannot be listened on; the message says why and what to do.
    """

    def __init__(
        self,
        address: Address,
        accepted: Callable[[socket.socket, str, str], None],
        starved: Callable[[str], None],
    ) -> None:
        self._accepted = accepted
        self._starved = starved
        self._loop = asyncio.get_running_loop()
        self._sockets = _listen(address)
        self._pauses: dict[int, asyncio.TimerHandle] = {}  # by file descriptor
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, with the ports that were chosen."""
        return [Address(str(name[0]), int(name[1])) for name in (sock.getsockname() for sock in self._sockets)]

    def close(self) -> None:
        """Stop listening; connections already accepted are not touched."""
        for pause in self._pauses.values():
            pause.cancel()
        self._pauses.clear()
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()

    def _accept(self, listening: socket.socket) -> None:
        """Accept one connection; if more are waiting, the next turn of the loop comes back."""
        try:
            sock, where = listening.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                self._pause(listening)
                self._starved(f"{os.strerror(error.errno)}; raise RLIMIT_NOFILE")
            return  # or this one died before it was accepted
        sock.setblocking(False)
        self._accepted(sock, str(where[0]), show_address(where))

    def _pause(self, listening: socket.socket) -> None:
        self._loop.remove_reader(listening.fileno())
        self._pauses[listening.fileno()] = self._loop.call_later(PAUSE, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        del self._pauses[listening.fileno()]
        self._loop.add_reader(listening.fileno(), self._accept, listening)


def _listen(address: Address) -> list[socket.socket]:
    host = None if address.host in ("", "*") else address.host
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        port = address.port
        for family, _, _, _, where in dict.fromkeys(found):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((where[0], port, *where[2:]))
            port = port or sock.getsockname()[1]  # one port for all addresses of a name
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.close()
        raise ListenError(f"cannot listen for links on {address}: {_why(error)}") from None
    return sockets


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; stop what uses it, or choose another with --listen HOST:PORT (port 0: a free one)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; listen on one it has, and use --advertise for the other"
    if error.errno == errno.EACCES:
        return "this user may not use the port; choose one above 1023"
    if isinstance(error, socket.gaierror):
        return "the name does not resolve"
    return error.strerror or str(error)
