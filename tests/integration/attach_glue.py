"""A handler that notes what the edge tells it, and an app that speaks batches of frames."""

from __future__ import annotations

import asyncio
import os
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from irisd.attach import AttachLimits, Attachment, AttachRefused, AttachServer, UnixSocket
from irisd.model import Frame, Kind, MiB
from irisd.status import (
    ClusterRow,
    DiscoveryInfo,
    LoadInfo,
    MulticastInfo,
    NodeRow,
    ServiceInfo,
    StatusInfo,
    TopicRow,
    TraceAsked,
    TraceInfo,
)
from irisd.wire import decode_batch, encode_batch

MAX_BODY = 8 * MiB
LANES = pytest.mark.parametrize("lane", ["grpc", "local", "alone"])
"""What an attachment is, it is on every lane; ``alone`` is the local one without the stream the app came by."""

LIMITS = AttachLimits()

PATIENCE = 10.0  # seconds for something that must happen; only a failing test waits so long


SECRET = "a-token-of-enough-bytes"
BEARER = ("authorization", f"Bearer {SECRET}")


def with_limits(**changes: float) -> pytest.MarkDecorator:
    """Of the fixture ``ground``, for one test."""
    return pytest.mark.parametrize("limits", [replace(LIMITS, **changes)], ids=lambda _: "")  # type: ignore[arg-type]


class Apps:
    """Stands for the composition root: welcomes apps and echoes their frames.

    Attributes:
        calls: Everything the edge said, in order: (what, attachment id, more).
        refuse: Services nobody may attach to, and the status they get.
        echo: Whether frames go back to their sender.
        full: What ``control_full`` answers.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, Any]] = []
        self.attachments: dict[int, Attachment] = {}
        self.outboxes: dict[int, deque[Frame]] = {}
        self.pulled: dict[int, int] = {}
        self.refuse: dict[str, AttachRefused | Exception] = {}
        self.echo = True
        self.full = False
        self.on_frames: Callable[[Attachment, list[Frame]], None] | None = None
        self._happened = asyncio.Event()

    def attached(self, attachment: Attachment, hello: Frame) -> None:
        self._note("attached", attachment, hello.address)
        refused = self.refuse.get(hello.address)
        if refused is not None:
            raise refused
        self.attachments[attachment.id] = attachment
        self.outboxes[attachment.id] = deque([Frame(Kind.WELCOME, node="ab" * 16, max_bytes=MAX_BODY)])
        self.pulled[attachment.id] = 0

    def frames_received(self, attachment: Attachment, frames: list[Frame]) -> None:
        self._note("frames", attachment, frames)
        if self.on_frames is not None:
            self.on_frames(attachment, frames)
        elif self.echo:
            self.send(attachment.id, *frames)

    def pull(self, attachment: Attachment, limit: int) -> list[Frame]:
        outbox = self.outboxes[attachment.id]
        frames: list[Frame] = []
        size = 0
        while outbox and size < limit:
            frames.append(outbox.popleft())
            size += len(frames[-1].body) + 32
        self.pulled[attachment.id] += size
        return frames

    def control_full(self, attachment: Attachment) -> bool:
        return self.full

    def detached(self, attachment: Attachment, reason: str) -> None:
        self._note("detached", attachment, reason)
        del self.outboxes[attachment.id], self.attachments[attachment.id]

    def send(self, attachment_id: int, *frames: Frame) -> None:
        self.outboxes[attachment_id].extend(frames)
        self.attachments[attachment_id].wake()

    def said(self, what: str) -> list[Any]:
        """What the edge said of one kind, in order."""
        return [more for said, _, more in self.calls if said == what]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a state the edge's calls bring about."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._happened.clear()
                await self._happened.wait()

    def _note(self, what: str, attachment: Attachment, more: Any) -> None:
        self.calls.append((what, attachment.id, more))
        self._happened.set()


class Source:
    """A daemon with two services and little to tell."""

    def services(self) -> list[str]:
        return ["shop", "bank"]

    def status(self) -> StatusInfo:
        return StatusInfo("0.1.0", 4711, 1.0, "here", services=(ServiceInfo("shop"), ServiceInfo("bank")))

    def nodes(self, service: str) -> list[NodeRow]:
        return [NodeRow("shop", "ab" * 16, "here", "self")]

    def clusters(self, service: str) -> list[ClusterRow]:
        return [ClusterRow("shop", "databases", 2)]

    def topics(self, service: str) -> list[TopicRow]:
        return [TopicRow("shop", "orders.*", "", 1, 1)]

    def load(self) -> LoadInfo:
        return LoadInfo("left", "0.1.0")

    async def trace(self, service: str, asked: TraceAsked) -> TraceInfo:
        return TraceInfo(service, asked.cluster, asked.pattern)

    def discovery(self) -> DiscoveryInfo:
        return DiscoveryInfo(MulticastInfo("off"))


SP_HELLO = b"\x00SP\x00\x00\x11\x00\x00"


def sp_message(body: bytes) -> bytes:
    return struct.pack(">BQI", 1, len(body) + 4, 1) + body


class Lane:
    """An app's end of the local lane, written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, path: str) -> Lane:
        return cls(*await asyncio.open_unix_connection(path, limit=MiB))

    async def enter(self, ticket: bytes) -> bool:
        """Show a ticket; say whether it let us in."""
        self.writer.write(SP_HELLO + sp_message(ticket))
        try:
            return await self.reader.readexactly(21) == SP_HELLO + sp_message(b"")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False

    async def write(self, data: bytes) -> None:
        self.writer.write(sp_message(data))
        await self.writer.drain()

    async def read(self) -> bytes | None:
        try:
            kind, size, hops = struct.unpack(">BQI", await self.reader.readexactly(13))
            assert (kind, hops) == (1, 1)
            return await self.reader.readexactly(size - 4)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


class App:
    """An app's end of one attachment, which moves to ``lane`` once it is welcome."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Sequence[tuple[str, str]] = (), lane: str = "grpc") -> None:
        attach: Any = channel.stream_stream  # grpc-stubs wants the serializers that bytes do without
        self.call: Any = attach("/iris.v1.Relay/Attach")(metadata=tuple(metadata))
        self.wants = lane
        self.lane: Lane | None = None
        self._moved = False  # the daemon's MOVE has come
        self._end: tuple[str, str] | None = None  # what its END says
        self._heard: deque[Frame] = deque()

    async def say(self, *frames: Frame) -> None:
        await self.write(encode_batch(list(frames)))

    async def write(self, batch: bytes) -> None:
        if self.lane is not None:
            await self.lane.write(batch)
        else:
            await self.call.write(batch)

    async def read(self) -> bytes | None:
        """Return the next batch, from wherever it comes; None at the end."""
        if self._moved:
            assert self.lane is not None
            assert self._end is None
            data = await self.lane.read()
            if data is not None and self.wants == "alone":
                last = decode_batch(data, MAX_BODY)[-1]
                if last.kind == Kind.END:
                    self._end = last.reason, last.detail
                    assert await self.lane.read() is None
                    return None
            return data
        data = await self.call.read()
        if data is grpc.aio.EOF:  # type: ignore[attr-defined]
            return None
        if self.lane is not None:
            frames = decode_batch(data, MAX_BODY)
            self._moved = frames[-1].kind == Kind.MOVE
        return data

    async def done(self) -> None:
        """Close our side."""
        if self.lane is not None:
            self.lane.writer.write_eof()
        else:
            await self.call.done_writing()

    def cut(self) -> None:
        """Go without a word."""
        if self.wants == "alone" and self.lane is not None:
            self.lane.writer.transport.abort()
        else:
            self.call.cancel()

    async def hear(self) -> Frame:
        """Return the next frame, whatever batch it came in."""
        async with asyncio.timeout(PATIENCE):
            while not self._heard:
                data = await self.read()
                assert data is not None, await self.status()
                self._heard.extend(frame for frame in decode_batch(data, MAX_BODY) if frame.kind != Kind.MOVE)
            return self._heard.popleft()

    async def hello(self, service: str = "shop", *more: Frame) -> Frame:
        lanes = {"grpc": 0, "local": 1, "alone": 3}[self.wants]
        about: dict[str, Any] = {"lanes": lanes, "group": str(os.getuid())} if lanes else {}
        await self.say(Frame(Kind.HELLO, address=service, member="test", **about), *more)
        welcome = await self.hear()
        assert welcome.kind == Kind.WELCOME
        assert welcome.lanes == lanes
        if lanes:
            await self.move(welcome)
        return welcome

    async def move(self, welcome: Frame) -> None:
        lane = await Lane.connect(welcome.lane)
        assert await lane.enter(welcome.ticket)
        await self.say(Frame(Kind.MOVE))
        self.lane = lane

    async def ping(self, body: bytes = b"ping") -> None:
        """A frame there and back: the stream and the daemon behind it are well."""
        await self.say(Frame(Kind.PUBLISH, id=1, address="echo", body=body))
        assert (await self.hear()).body == body

    async def status(self) -> tuple[str, str]:
        """Read to the end; return the status of the stream, or what END says in its place, and the details."""
        async with asyncio.timeout(PATIENCE):
            try:
                while await self.read() is not None:
                    pass
                if self.lane is not None:
                    self.lane.writer.close()
            except grpc.aio.AioRpcError:
                pass  # the status it carries is the one read below
            if self.wants == "alone" and self._moved:
                told = self._end or ("", "the end of the socket")
                assert (await self.call.code()).name in ("OK", told[0])  # the latter if it ended as it moved
                return told
            return (await self.call.code()).name, await self.call.details()


def target(url: str) -> str:
    """An attach URL as gRPC wants it."""
    scheme, _, address = url.partition("://")
    return f"unix:{address}" if scheme == "unix" else address


@asynccontextmanager
async def channel_to(url: str, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[grpc.aio.Channel]:
    # A pool of its own: channels to one address must not share a connection, or a test's neighbour sees its troubles.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    if credentials is None:
        channel = grpc.aio.insecure_channel(target(url), options)
    else:
        channel = grpc.aio.secure_channel(target(url), credentials, options)
    try:
        yield channel
    finally:
        await channel.close(None)


@asynccontextmanager
async def app_at(url: str, *metadata: tuple[str, str], lane: str = "grpc") -> AsyncIterator[App]:
    async with channel_to(url) as channel:
        app = App(channel, metadata, lane)
        try:
            yield app
        finally:
            if app.lane is not None:
                app.lane.writer.transport.abort()
            await channel.close(None)  # cut off, whatever was under way ...
            app.call.cancel()  # ... and told so here: grpc waits for the status of a call it lost now and then


@asynccontextmanager
async def cut_at_will(path: Path, url: str) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """A Unix socket that leads to another; calling the second value cuts everything that passes through it."""
    ends: list[asyncio.StreamWriter] = []
    pumps: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # it was cut
        finally:
            writer.close()

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(url.removeprefix("unix://"))
        ends.extend((writer, far_writer))
        for ways in ((reader, far_writer), (far_reader, writer)):
            pumps.append(asyncio.create_task(pump(*ways)))

    def cut() -> None:
        server.close()
        path.unlink()
        for writer in ends:
            writer.transport.abort()

    server = await asyncio.start_unix_server(passed, path)
    try:
        yield f"unix://{path}", cut
    finally:
        server.close()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for writer in ends:
            writer.close()


@asynccontextmanager
async def running(server: AttachServer, grace: float = 1.0) -> AsyncIterator[list[str]]:
    try:
        yield await server.start()
    finally:
        await server.stop(grace)


@dataclass
class Ground:
    url: str
    apps: Apps
    server: AttachServer

    async def empty(self) -> None:
        """Wait until nobody is attached."""
        async with asyncio.timeout(PATIENCE):
            await self.server._empty.wait()
        assert self.server.attachments == 0


@asynccontextmanager
async def ground_in(run_dir: Path, limits: AttachLimits) -> AsyncIterator[Ground]:
    """A running server on a Unix socket, with a handler that echoes."""
    apps = Apps()
    server = AttachServer(apps, Source(), [UnixSocket(run_dir / "irisd.sock")], limits)
    async with running(server) as urls:
        yield Ground(urls[0], apps, server)


def write_token(run_dir: Path) -> Path:
    path = run_dir / "token"
    path.touch(mode=0o600)
    path.write_text(SECRET + "\n")
    return path


def ask_control(channel: grpc.aio.Channel, method: str, request: Any, answer: Any, *metadata: tuple[str, str]) -> Any:
    call = channel.unary_unary(
        f"/iris.v1.Control/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    return call(request, metadata=metadata, timeout=10)
