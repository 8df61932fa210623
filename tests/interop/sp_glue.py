"""Just enough asyncio around ``irisd.sp`` to hold a conversation with other people's sockets, on loopback only."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from irisd.sp import DEFAULT_MAX_SIZE, EndpointType, Framing, SpError, SpStream

PATIENCE = 15.0  # seconds until a peer that should have done something has failed the test


ACCEPTING = 3
"""Turns of the loop until an accepted connection is made: its task, its protocol, its transport."""


class Pipe(asyncio.Protocol):
    """One SP connection: bytes in, messages to its socket's inbox."""

    def __init__(self, owner: SpSocket) -> None:
        self._owner = owner
        self._stream = SpStream(owner.offer, owner.framing, max_size=owner.max_size)
        self._transport: asyncio.Transport | None = None
        self.error: SpError | None = None
        self.is_up = False
        owner.connections.append(self)  # from the start: asyncio makes us a turn before the connection

    @property
    def local(self) -> EndpointType | None:
        return self._stream.local

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._owner.is_closing:
            transport.abort()
            return
        transport.write(self._stream.data_to_send())

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            messages = self._stream.receive(data)
        except SpError as error:
            self.error = error
            self.abort()
            return
        self._transport.write(self._stream.data_to_send())
        if not self.is_up and self._stream.peer is not None:
            self.is_up = True
            self._owner.up.put_nowait(self)
        for message in messages:
            self._owner.inbox.put_nowait((self, message))

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connections.remove(self)
        self._owner.down.put_nowait(self)

    def send(self, *parts: bytes) -> None:
        assert self._transport is not None
        self._transport.writelines(self._stream.send(*parts))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


@dataclass
class SpSocket:
    """Our side: listeners and dialled connections with one inbox."""

    offer: EndpointType | Iterable[EndpointType]
    framing: Framing
    max_size: int = DEFAULT_MAX_SIZE
    inbox: asyncio.Queue[tuple[Pipe, bytes]] = field(default_factory=asyncio.Queue)
    up: asyncio.Queue[Pipe] = field(default_factory=asyncio.Queue)
    down: asyncio.Queue[Pipe] = field(default_factory=asyncio.Queue)
    connections: list[Pipe] = field(default_factory=list)
    is_closing: bool = False
    _servers: list[asyncio.Server] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_closing = True
        loop = asyncio.get_running_loop()
        for server in self._servers:  # accept no more, but close only when all are gone: those of a closed server
            for sock in server.sockets:  # that were accepted in this very turn would never be made, nor ended
                loop.remove_reader(sock.fileno())
        for _ in range(ACCEPTING):
            await asyncio.sleep(0)
        for pipe in list(self.connections):
            pipe.abort()
        while self.connections:
            await asyncio.wait_for(self.down.get(), PATIENCE)
        for server in self._servers:
            server.close()
            await server.wait_closed()

    async def listen(self, url: str) -> None:
        loop = asyncio.get_running_loop()
        host, port, path = split_url(url)
        if path:
            server = await loop.create_unix_server(lambda: Pipe(self), path)
        else:
            server = await loop.create_server(lambda: Pipe(self), host, port)
        self._servers.append(server)

    async def dial(self, url: str) -> None:
        """Connect, trying again while the other process has not bound its address yet."""
        loop = asyncio.get_running_loop()
        host, port, path = split_url(url)
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    if path:
                        await loop.create_unix_connection(lambda: Pipe(self), path)
                    else:
                        await loop.create_connection(lambda: Pipe(self), host, port)
                    return
                except (ConnectionRefusedError, FileNotFoundError):
                    await asyncio.sleep(0.02)  # only the kernel knows when another process listens

    async def receive(self) -> tuple[Pipe, bytes]:
        return await asyncio.wait_for(self.inbox.get(), PATIENCE)

    async def wait_up(self) -> Pipe:
        return await asyncio.wait_for(self.up.get(), PATIENCE)

    async def wait_down(self) -> Pipe:
        return await asyncio.wait_for(self.down.get(), PATIENCE)


def split_url(url: str) -> tuple[str, int, str]:
    """Return host, port and, for ipc, the path."""
    scheme, _, rest = url.partition("://")
    if scheme == "ipc":
        return "", 0, rest
    host, _, port = rest.rpartition(":")
    return host, int(port), ""


def free_url(framing: Framing, folder: Path) -> str:
    """Return an address of this machine that nobody listens on yet."""
    if framing is Framing.IPC:
        return f"ipc://{folder / 'sp.sock'}"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@dataclass(frozen=True)
class Tool:
    """A running nngcat or nanocat."""

    process: asyncio.subprocess.Process

    async def line(self) -> str:
        """Return the next line it prints."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        if not line:
            assert self.process.stderr is not None
            complaint = (await self.process.stderr.read()).decode(errors="replace")
            raise AssertionError(f"the tool ended without printing what was expected; it said: {complaint!r}")
        return line.decode().rstrip("\n")


StartTool = Callable[..., Awaitable[Tool]]
