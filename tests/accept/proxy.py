"""The cables of a mesh on one machine: a TCP proxy between every two daemons that can delay, stall and cut.

Daemon *i* knows daemon *j* only by the address of the wire from *i* to *j* (what *j* itself advertises leads
nowhere), so every link between the two runs over one of their two wires, whoever dialled it.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Iterable
from contextlib import suppress

CHUNK = 64 * 1024
CHUNKS = 64
"""Most chunks in flight one way of a connection; then the proxy stops reading, as a full network would."""


class Way:
    """One direction of a wire, for all its connections."""

    def __init__(self) -> None:
        self.delay = 0.0  # seconds
        self.open = asyncio.Event()
        self.open.set()


class Wire:
    """From one daemon to another: where the one dials, and whatever then goes either way.

    Attributes:
        address: ``host:port`` to dial.
        target: ``host:port`` it leads to; empty: nobody is there yet.
        there: From the dialler to the target.
        back: From the target to the dialler.
    """

    def __init__(self) -> None:
        self.address = ""
        self.target = ""
        self.there, self.back = Way(), Way()
        self.severed = False
        self._connections: dict[asyncio.Task[None], None] = {}
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=CHUNK)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening and end everything."""
        assert self._server is not None
        self._server.close()
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def cut(self) -> None:
        """End all its connections at once, and every new one, until it is mended."""
        self.severed = True
        for task in list(self._connections):
            task.cancel()

    def mend(self) -> None:
        """As new."""
        self.severed = False
        for way in (self.there, self.back):
            way.delay = 0.0
            way.open.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = None
        far: asyncio.StreamWriter | None = None
        try:
            if self.severed or not self.target:
                return
            host, port = self.target.rsplit(":", 1)
            far_reader, far = await asyncio.open_connection(host, int(port), limit=CHUNK)
            for near in (writer, far):
                near.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(self.there, reader, far))
                pumps.create_task(_pump(self.back, far_reader, writer))
        except (OSError, ExceptionGroup):
            return  # one end is gone, and so is the other
        except asyncio.CancelledError:
            return  # cut
        finally:
            del self._connections[task]
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()


async def _pump(way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one direction of one connection to its end."""
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS)
    loop = asyncio.get_running_loop()

    async def carry() -> None:
        while True:
            due, chunk = await under_way.get()
            if (early := due - loop.time()) > 0:
                await asyncio.sleep(early)
            await way.open.wait()
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()

    async with asyncio.TaskGroup() as both:
        both.create_task(carry())
        while True:
            chunk = await reader.read(CHUNK)
            await under_way.put((loop.time() + way.delay, chunk))
            if not chunk:
                break


class Cables:
    """The wires between every two of some daemons, by number."""

    def __init__(self, nodes: int) -> None:
        self.wires = {(i, j): Wire() for i, j in itertools.permutations(range(nodes), 2)}
        self._nowhere: list[socket.socket] = []

    async def __aenter__(self) -> Cables:
        for wire in self.wires.values():
            await wire.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        for wire in self.wires.values():
            await wire.close()
        for sock in self._nowhere:
            sock.close()

    def seeds(self, node: int) -> list[str]:
        """Where a daemon finds the others."""
        return [wire.address for (i, _), wire in self.wires.items() if i == node]

    def nowhere(self) -> str:
        """An address for a daemon to advertise: nobody ever listens there, so no link goes past the wires."""
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self._nowhere.append(sock)
        return f"127.0.0.1:{sock.getsockname()[1]}"

    def lead_to(self, node: int, address: str) -> None:
        """A daemon listens there."""
        for (_, j), wire in self.wires.items():
            if j == node:
                wire.target = address

    def between(self, one: int, other: int) -> tuple[Wire, Wire]:
        """Both wires of two daemons."""
        return self.wires[one, other], self.wires[other, one]

    def cut(self, one: int, other: int) -> None:
        """Both ways, and both ends are told."""
        for wire in self.between(one, other):
            wire.cut()

    def stall(self, one: int, other: int) -> None:
        """Nothing from one reaches the other; nobody is told, and the way back stays open."""
        self.wires[one, other].there.open.clear()
        self.wires[other, one].back.open.clear()

    def delay(self, one: int, other: int, seconds: float) -> None:
        """Each way takes that much longer."""
        for wire in self.between(one, other):
            wire.there.delay = wire.back.delay = seconds

    def mend(self, pairs: Iterable[tuple[int, int]] | None = None) -> None:
        """Heal these pairs, or all."""
        for pair, wire in self.wires.items():
            if pairs is None or pair in pairs or pair[::-1] in pairs:
                wire.mend()
