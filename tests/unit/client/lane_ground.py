"""A daemon's end of the local lane, written by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NoReturn

from iris_client._frames import Kind, ProtocolError, make
from iris_client._lane import Buffer, LaneEnded
from iris_client._lane_local import LocalLane, move
from iris_client._sp import HELLO, prefix

TICKET = b"0123456789abcdef"
LET_IN = HELLO + prefix(0)


class FakeStream:
    """The gRPC stream an app came by."""

    name = "grpc"
    batch = 1 << 20

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.said: asyncio.Queue[bytes | LaneEnded] = asyncio.Queue()
        self.closed = False

    async def send(self, parts: list[bytes]) -> None:
        self.sent.append(b"".join(parts))

    async def receive(self) -> bytes:
        said = await self.said.get()
        if isinstance(said, LaneEnded):
            raise said
        return said

    async def pump(self, received: Callable[[Buffer], None]) -> NoReturn:
        while True:
            received(await self.receive())

    async def finish(self) -> None: ...

    async def close(self) -> None:
        self.closed = True


class FakeDaemon:
    """The lane's socket. ``answer`` is what a hello and a ticket get."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heard = b""
        self.stream = FakeStream()
        self.writer: asyncio.StreamWriter | None = None
        self.reader: asyncio.StreamReader | None = None

    async def came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.heard = await reader.read(1000)
        writer.write(self.answer)
        if self.answer != LET_IN:
            writer.close()

    async def message(self) -> bytes:
        assert self.reader is not None
        size = int.from_bytes((await self.reader.readexactly(13))[1:9], "big") - 4
        return await self.reader.readexactly(size)


@asynccontextmanager
async def daemon_at(path: Path, answer: bytes = LET_IN) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(answer)
    server = await asyncio.start_unix_server(daemon.came, path)
    try:
        yield daemon
    finally:
        server.close()
        if daemon.writer is not None:
            daemon.writer.close()
            with suppress(ConnectionError):
                await daemon.writer.wait_closed()


@asynccontextmanager
async def moved(
    daemon: FakeDaemon, path: Path, ping: Callable[[], None] | None = None
) -> AsyncIterator[tuple[LocalLane, list[bytes], asyncio.Task[None]]]:
    """A lane, what came on it, and the task that pumps it; MOVE is spoken both ways."""
    lane = await move(daemon.stream, str(path), TICKET, ping)
    came: list[bytes] = []

    def received(batch: Buffer) -> None:
        came.append(bytes(batch))
        if came[-1] == b"MOVE":
            lane.told(Kind.MOVE, make())
        if came[-1] == b"END":
            lane.told(Kind.END, make(reason="RESOURCE_EXHAUSTED", detail="not-reading"))
        if came[-1] == b"PING":
            lane.told(Kind.PING, make())
        if came[-1] == b"bad":
            raise ProtocolError("a rule")

    pumping: asyncio.Task[None] = asyncio.create_task(lane.pump(received))
    try:
        yield lane, came, pumping
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
        await lane.close()
        await lane.close()  # again does nothing
    assert daemon.stream.closed


async def until(came: list[bytes], count: int) -> None:
    async with asyncio.timeout(5):
        while len(came) < count:
            await asyncio.sleep(0.001)
