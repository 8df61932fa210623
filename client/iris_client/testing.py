"""A mesh inside a test: the daemon's real nodes, in this process, without daemons or sockets.

    async with iris_client.testing.mesh(nodes=2) as local:
        async with local.connect() as here, local.connect(node=1) as there:
            async with there.join(greeters):
                assert (await here.request("greeters", b"x")).body == b"hello x"

Code under test that connects by itself finds it by URL: ``iris.connect(local.url())``, or ``IRIS_URL``.

The nodes are those of ``irisd``, so what works here works there; only bytes on wires, keys and processes are missing.
Needs ``irisd`` installed: ``pip install iris-client[testing]``.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from iris_client._codecs import Codec
from iris_client._errors import InvalidCall, IrisError
from iris_client._lane import Buffer, LaneEnded, Stream
from iris_client._mesh import Mesh, connect
from iris_client._model import BATCH_BYTES, DEFAULT_MAX_BODY, DEFAULT_MAX_LARGE_BODY

if TYPE_CHECKING:
    from irisd.node import Node

_numbers: Final[Iterator[int]] = itertools.count(1)
_nodes: Final[dict[str, _LocalNode]] = {}


class TestingUnavailable(IrisError, ImportError):
    """``irisd`` is not installed, and a mesh inside a test is made of its nodes."""

    __test__ = False  # for pytest: no test


def mesh(
    nodes: int = 1,
    *,
    service: str = "test",
    max_body: int = DEFAULT_MAX_BODY,
    max_large_body: int = DEFAULT_MAX_LARGE_BODY,
    stall_timeout: float = 5.0,
    seed: int = 0,
) -> LocalMesh:
    """Make a mesh of ``nodes`` linked nodes: ``async with testing.mesh() as local``.

    Args:
        nodes: How many nodes, 1 to 64.
        service: The service's name.
        max_body: Most bytes a body may have.
        max_large_body: Most bytes the body of a request or a reply may have; one above ``max_body`` rides a tunnel.
        stall_timeout: Seconds for which a publisher waits for a subscriber that blocks before it is told.
        seed: What the nodes' choices among equals depend on.

    Raises:
        TestingUnavailable: ``irisd`` is not installed.
    """
    bounds = {"max_body": max_body, "max_large_body": max_large_body, "stall_timeout": stall_timeout}
    return LocalMesh(nodes, service, bounds, seed)


class LocalMesh:
    """Nodes linked in memory; made by :func:`mesh`. Belongs to the event loop it is entered in."""

    def __init__(self, nodes: int, service: str, bounds: dict[str, Any], seed: int) -> None:
        if isinstance(nodes, bool) or not isinstance(nodes, int) or not 1 <= nodes <= 64:
            raise InvalidCall(f"nodes={nodes!r}: a whole number from 1 to 64")
        number = next(_numbers)
        random = Random(seed)
        self._nodes = [
            _LocalNode(f"mesh{number}-node{at}", service, bounds, Random(random.random())) for at in range(nodes)
        ]

    async def __aenter__(self) -> LocalMesh:
        for node in self._nodes:
            node.start()
        for first, second in itertools.combinations(self._nodes, 2):
            first.link(second)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self._nodes:
            node.stop()

    def url(self, node: int = 0) -> str:
        """Where an app attaches to a node; for ``iris.connect`` or ``IRIS_URL``."""
        return f"inproc://{self._nodes[node].name}"

    def connect(
        self, node: int = 0, *, name: str | None = None, timeout: float = 5.0, codec: Codec | None = None
    ) -> Mesh:
        """Attach an app to a node, as :func:`iris_client.connect` does."""
        return connect(self.url(node), name=name, timeout=timeout, codec=codec)

    def stop(self, node: int) -> None:
        """End a node as a crash would: its apps are detached, its peers lose their links."""
        self._nodes[node].stop()

    def start(self, node: int) -> None:
        """Start a node that was stopped, as a new one, linked to all that run."""
        this = self._nodes[node]
        this.start()
        for other in self._nodes:
            if other is not this and other.running:
                this.link(other)

    def drain(self, node: int) -> None:
        """Let a node say goodbye to its apps and peers, as a daemon told to stop does."""
        self._nodes[node].drain()

    def cut(self, first: int, second: int) -> None:
        """Break the link between two nodes."""
        self._nodes[first].unlink(self._nodes[second])

    def heal(self, first: int, second: int) -> None:
        """Link two nodes again."""
        self._nodes[first].link(self._nodes[second])


def open_lane(name: str) -> Stream:
    """Open a lane to a local node. For the SDK's own use.

    Raises:
        LaneEnded: There is none of that name, or it is stopped.
    """
    node = _nodes.get(name)
    if node is None:
        raise LaneEnded("UNAVAILABLE", "no such node in this process is running")
    return node.lane()


class _LocalNode:
    """One node, and what a daemon would do for it."""

    def __init__(self, name: str, service: str, bounds: dict[str, Any], random: Random) -> None:
        self.name = name
        self._service = service
        self._bounds = bounds
        self._random = random
        self._node: Node | None = None
        self._lanes: dict[int, _InprocLane] = {}
        self._peers: dict[bytes, _LocalNode] = {}
        self._ids = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        return self._node is not None

    @property
    def id(self) -> bytes:
        assert self._node is not None
        return self._node.identity.node_id

    def start(self) -> None:
        try:
            from irisd.node import Node, NodeIdentity, NodeSettings
        except ImportError as error:
            raise TestingUnavailable(
                "iris_client.testing needs the daemon's package: pip install 'iris-client[testing]'"
            ) from error
        if self._node is None:
            identity = NodeIdentity(self._random.randbytes(16), self.name, self._service)
            self._node = Node(identity, NodeSettings(**self._bounds), self._random, now=time.monotonic())
            _nodes[self.name] = self

    def stop(self) -> None:
        if self._node is None:
            return
        del _nodes[self.name]
        for peer in tuple(self._peers.values()):
            self.unlink(peer)
        self._node = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.end("UNAVAILABLE", "the node was stopped")

    def drain(self) -> None:
        if self._node is not None:
            self.apply(self._node.drain(time.monotonic()))

    # -------------------------------------------------------------- apps

    def lane(self) -> _InprocLane:
        number = next(self._ids)
        self._lanes[number] = lane = _InprocLane(self, number)
        return lane

    def sent(self, number: int, batch: bytes, *, first: bool) -> None:
        """Take a batch an app sent."""
        from irisd.model import Kind
        from irisd.wire import WireError, decode_batch

        node = self._node
        lane = self._lanes.get(number)
        if node is None or lane is None:
            return
        try:
            frames = decode_batch(batch, self._bounds["max_body"])
        except WireError as error:
            lane.end("INVALID_ARGUMENT", str(error))
            self.detached(number)
            return
        now = time.monotonic()
        if first:
            if not frames or frames[0].kind != Kind.HELLO:
                lane.end("INVALID_ARGUMENT", "the first frame of a stream must be HELLO")
                return
            hello = frames.pop(0)
            if hello.address not in ("", self._service):
                lane.end("NOT_FOUND", f"no key for service {hello.address!r}; this daemon holds {self._service!r}")
                return
            self.apply(node.attach(number, hello, now))
        if frames:
            self.apply(node.frames_from_app(number, frames, now))

    def take(self, number: int) -> bytes:
        """Return what waits for an app; empty when nothing does."""
        from irisd.wire import encode_batch

        if self._node is None:
            return b""
        frames = self._node.take(number, BATCH_BYTES, time.monotonic())
        return encode_batch(frames) if frames else b""

    def detached(self, number: int) -> None:
        if self._lanes.pop(number, None) is not None and self._node is not None:
            self.apply(self._node.detach(number, "closed", time.monotonic()))

    # ------------------------------------------------------------- links

    def link(self, other: _LocalNode) -> None:
        from irisd.model import PeerInfo

        if self.id in other._peers:
            return
        now = time.monotonic()
        for here, there in ((self, other), (other, self)):
            here._peers[there.id] = there
        for here, there in ((self, other), (other, self)):
            assert here._node is not None
            here.apply(here._node.link_up(PeerInfo(there.id, there.name), now))

    def unlink(self, other: _LocalNode) -> None:
        now = time.monotonic()
        for here, there in ((self, other), (other, self)):
            if here._node is not None and there._node is not None and here._peers.pop(there.id, None) is not None:
                here.apply(here._node.link_down(there.id, "cut", now))

    def _pump(self, peer_id: bytes) -> None:
        """Carry what waits towards a peer, as bytes, as a link would."""
        from irisd.wire import decode_batch, encode_batch

        peer = self._peers.get(peer_id)
        while self._node is not None and peer is not None and peer._node is not None and peer_id in self._peers:
            now = time.monotonic()
            frames = self._node.take(peer_id, BATCH_BYTES, now)
            if not frames:
                return
            received = decode_batch(encode_batch(frames), self._bounds["max_body"])
            peer.apply(peer._node.frames_from_peer(self.id, received, now))

    # ----------------------------------------------------------- effects

    def apply(self, effects: list[Any]) -> None:
        """Carry out what the node asks for."""
        from irisd.effects import Detach, Unlink, Wake

        loop = asyncio.get_running_loop()
        for effect in effects:
            if isinstance(effect, Wake):
                if isinstance(effect.destination, bytes):
                    loop.call_soon(self._pump, effect.destination)
                elif effect.destination in self._lanes:
                    self._lanes[effect.destination].wake()
            elif isinstance(effect, Detach):
                if effect.attachment in self._lanes:
                    self._lanes.pop(effect.attachment).end(effect.status, effect.reason)
            elif isinstance(effect, Unlink) and effect.peer in self._peers:
                self.unlink(self._peers[effect.peer])
        self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._node.next_deadline() if self._node is not None else None
        if deadline is not None:
            self._timer = loop.call_later(max(0.0, deadline - time.monotonic()), self._tick, deadline)

    def _tick(self, deadline: float) -> None:
        self._timer = None
        if self._node is not None:
            self.apply(self._node.on_deadline(max(deadline, time.monotonic())))


class _InprocLane:
    """A lane to a node in this process."""

    name = "inproc"
    batch = BATCH_BYTES

    def __init__(self, node: _LocalNode, number: int) -> None:
        self._node = node
        self._number = number
        self._first = True
        self._news = asyncio.Event()
        self._ended: LaneEnded | None = None
        self._finished = False

    async def send(self, parts: list[bytes]) -> None:
        if self._ended is not None:
            raise LaneEnded(self._ended.status, self._ended.detail)
        first, self._first = self._first, False
        self._node.sent(self._number, b"".join(parts), first=first)
        await asyncio.sleep(0)  # as a stream would, let others run

    async def receive(self) -> bytes:
        while True:
            batch = self._node.take(self._number)
            if batch:
                return batch
            if self._ended is not None:
                raise LaneEnded(self._ended.status, self._ended.detail)
            if self._finished:
                self._node.detached(self._number)
                raise LaneEnded("OK", "")
            self._news.clear()
            await self._news.wait()

    async def pump(self, received: Callable[[Buffer], None]) -> NoReturn:
        while True:
            received(await self.receive())

    async def finish(self) -> None:
        self._finished = True
        self._news.set()

    async def close(self) -> None:
        self.end("CANCELLED", "closed by the app")
        self._node.detached(self._number)

    def wake(self) -> None:
        self._news.set()

    def end(self, status: str, detail: str) -> None:
        if self._ended is None:
            self._ended = LaneEnded(status, detail)
        self._news.set()
