"""A daemon to be bad to: apps that ignore the SDK, strangers on its ports, and a neighbour whose requests go on."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

import iris_client as iris
from iris_proto.v1 import attach_pb2_grpc, control_pb2, control_pb2_grpc
from iris_proto.v1 import frame_pb2 as pb
from tests.integration.cli_iris_ground import Mesh

PATIENCE = 10.0  # seconds for something that must happen; only a failing test waits so long
MiB = 1 << 20
BODY_LIMIT = 8 * MiB
REQUEST_LIMIT = 256 * MiB
"""The same of requests and replies, which ride tunnels."""


def frame(kind: Any, id: int = 0, body: bytes = b"", **header: Any) -> pb.Frame:
    """One frame, whatever the rules say of it."""
    return pb.Frame(header=pb.Header(kind=kind, id=id, **header), body=body)  # type: ignore[arg-type]  # any number


def call(kind: int, id: int, address: str, body: bytes = b"", **header: Any) -> pb.Frame:
    """A frame that opens a call, in time for everything."""
    return frame(kind, id, body, **{"address": address, "remaining_ms": 5000, **header})


def join(id: int, cluster: str, patterns: int = 31, concurrency: int = 16) -> pb.Frame:
    return frame(pb.KIND_JOIN, id, address=cluster, patterns=patterns, concurrency=concurrency)


@contextmanager
def daemons(*names: str, flags: tuple[str, ...] = ()) -> Iterator[Mesh]:
    """Daemons that are linked to each other, as processes of their own."""
    folder = Path(tempfile.mkdtemp(prefix="irisd-", dir="/tmp"))
    mesh = Mesh(folder)
    try:
        for name in names:
            mesh.daemon(name, *flags)
        for name in names:
            mesh.await_peers(len(names) - 1, name)
        yield mesh
    finally:
        mesh.end()
        shutil.rmtree(folder, ignore_errors=True)


def url_of(mesh: Mesh, name: str = "oak") -> str:
    return f"unix://{mesh.socket(name)}"


class RawApp:
    """An app that writes what it likes: gRPC and the stubs, nothing of the SDK."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: Any = attach_pb2_grpc.RelayStub(channel).Attach()
        self._heard: deque[pb.Frame] = deque()

    async def hello(self, *more: pb.Frame) -> pb.Frame:
        await self.say(frame(pb.KIND_HELLO, member="raw"), *more)
        welcome = await self.hear()
        assert welcome.header.kind == pb.KIND_WELCOME
        return welcome

    async def say(self, *frames: pb.Frame, patience: float = PATIENCE) -> None:
        """One batch. A stream that is over already takes it silently: what is heard then says how it ended."""
        try:
            async with asyncio.timeout(patience):
                await self._call.write(pb.Batch(frames=frames))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass

    async def hear(self) -> pb.Frame:
        """The next frame, whatever batch it came in."""
        async with asyncio.timeout(PATIENCE):
            while not self._heard:
                batch = await self._call.read()
                assert batch is not grpc.aio.EOF, await self._call.details()  # type: ignore[attr-defined]
                self._heard.extend(batch.frames)
            return self._heard.popleft()

    async def heard(self, kind: int, id: int | None = None) -> pb.Frame:
        """The next frame of this kind; what comes before it is of no interest."""
        while True:
            found = await self.hear()
            if found.header.kind == kind and id in (None, found.header.id):
                return found

    async def ended(self) -> tuple[str, str]:
        """Read to the end; the stream's status and details."""
        async with asyncio.timeout(PATIENCE):
            try:
                while await self._call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                    pass
            except grpc.aio.AioRpcError:
                pass  # the status it carries is read below
            return (await self._call.code()).name, await self._call.details()

    async def well(self) -> None:
        """A frame there and back: the stream still stands."""
        await self.say(frame(pb.KIND_FLUSH, 99_999_999_999))
        await self.heard(pb.KIND_DONE, 99_999_999_999)

    def cancel(self) -> None:
        self._call.cancel()


@asynccontextmanager
async def raw_app(url: str) -> AsyncIterator[RawApp]:
    # A pool of its own: an app is a process, and shares no connection with its neighbour.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(url, options) as channel:
        yield RawApp(channel)


class Neighbour:
    """Two apps whose requests go on, whatever happens beside them.

    Attributes:
        times: Seconds each request took.
    """

    def __init__(self, mesh: iris.Mesh) -> None:
        self._mesh = mesh
        self._stop = False
        self.times: list[float] = []

    async def run(self) -> None:
        while not self._stop:
            began = time.perf_counter()
            reply = await self._mesh.request("neighbours", b"are you well?", timeout=PATIENCE)
            assert reply.body == b"are you well?"
            self.times.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)

    async def more(self, count: int = 5) -> None:
        """Wait for that many more requests."""
        wanted = len(self.times) + count
        async with asyncio.timeout(PATIENCE):
            while len(self.times) < wanted:
                await asyncio.sleep(0.005)

    def stop(self) -> None:
        self._stop = True


@asynccontextmanager
async def neighbour(url: str) -> AsyncIterator[Neighbour]:
    """A pair of apps that must not notice; a request of theirs that fails fails the test."""
    cluster = iris.Cluster("neighbours")

    @cluster.on_request
    async def echo(body: bytes) -> bytes:
        return body

    async with iris.connect(url) as serving, serving.join(cluster), iris.connect(url) as asking:
        pair = Neighbour(asking)
        requests = asyncio.create_task(pair.run())
        try:
            await pair.more()
            yield pair
            await pair.more()
        finally:
            pair.stop()
            await requests


def status_of(url: str) -> control_pb2.Status:
    with grpc.insecure_channel(url) as channel:
        return control_pb2_grpc.ControlStub(channel).GetStatus(control_pb2.GetStatusRequest(), timeout=PATIENCE)


async def eventually(truth: Callable[[], bool], what: str) -> None:
    """Wait until something is so that nobody announces."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(truth):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not so within {PATIENCE:g} s: {what}") from None


async def nothing_left(url: str) -> control_pb2.Status:
    """Wait until nobody is attached and nothing is under way; what the daemon then says of itself."""

    def idle() -> bool:
        [service] = status_of(url).services
        return not (service.attachments or service.pending or service.queued or service.subscriptions)

    await eventually(idle, "no attachment, no call, no queue is left")
    return await asyncio.to_thread(status_of, url)


def connect(address: str) -> socket.socket:
    """A bare connection to ``unix:///path`` or ``tcp://host:port``."""
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        sock.connect(rest)
        return sock
    host, _, port = rest.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE)


def memory_of(pid: int) -> int:
    """Resident bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096
