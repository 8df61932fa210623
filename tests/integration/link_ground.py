"""What the link tests stand on: nodes that record what happens, a proxy to be the network, peers made by hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from irisd.config import Address, Listener
from irisd.keys import Keyring, ServiceKey
from irisd.link.handshake import NOBODY, Greeting, Initiator, PskCredentials, Purpose
from irisd.link.limits import Limits
from irisd.link.link import Link
from irisd.link.node_links import LinkConfig, NodeLinks
from irisd.link.outcome import LinkEnd, LinkFact, Outcome
from irisd.link.service import LinkService
from irisd.link.session import Received, Session, Settled
from irisd.model import PeerInfo
from irisd.sp import AnswerVerdict, EndpointType, Respondent, Surveyor, encode_hello, encode_survey_id

PATIENCE = 10.0
"""Seconds until a state that should come is given up."""
REMEMBERED = 16_384


class Recorder:
    """A service that writes down what its links do, and whose heartbeats are as simple as can be.

    Args:
        interval: Seconds between two questions.
    """

    def __init__(self, interval: float = 0.1) -> None:
        self.answers = 0
        """Questions of ours that were answered."""
        self.asked = 0
        """Questions that were put to us."""
        self.ups: list[Link] = []
        self.downs: list[tuple[Link, LinkEnd]] = []
        self.facts: list[LinkFact] = []
        self.bodies: list[bytes] = []
        self.early: list[str] = []
        """Callbacks that came when there was no link: never."""
        self.outbox: dict[bytes, list[list[bytes]]] = {}
        self.pulls = 0
        self._interval = interval
        self._surveyor: Surveyor[Link] = Surveyor(first_id=1)
        self._respondent: Respondent[Link] = Respondent()
        self._beats: dict[Link, asyncio.TimerHandle] = {}
        self._live: dict[bytes, Link] = {}
        self._changed = asyncio.Event()

    def link_up(self, link: Link) -> None:
        if link.peer.node_id in self._live:
            self.early.append("a second link with the same peer came up")
        self._live[link.peer.node_id] = link
        self.ups.append(link)
        self._changed.set()
        self.probe(link)

    def link_down(self, link: Link, end: LinkEnd) -> None:
        if self._live.pop(link.peer.node_id, None) is not link:
            self.early.append("a link went down that was not up")
        self.downs.append((link, end))
        self._changed.set()
        if link in self._beats:
            self._beats.pop(link).cancel()
        self._surveyor.pipe_lost(link)
        self._respondent.pipe_lost(link)

    def messages_received(self, link: Link, bodies: list[bytes]) -> None:
        if self._live.get(link.peer.node_id) is not link:
            self.early.append("messages came over a link that was not up")
        self.bodies += bodies
        self._changed.set()

    def probe(self, link: Link) -> None:
        """Ask now, and again every interval."""
        if not link.dialled:
            return
        loop = asyncio.get_running_loop()
        if link in self._beats:
            self._beats[link].cancel()
        self._beats[link] = loop.call_later(self._interval, self.probe, link)
        self._surveyor.on_deadline(loop.time())
        survey_id, _ = self._surveyor.begin([link], 1.0, loop.time())
        link.send_control([encode_survey_id(survey_id), b"?"])

    def control_received(self, link: Link, messages: list[bytes]) -> None:
        if self._live.get(link.peer.node_id) is not link:
            self.early.append("a heartbeat came over a link that was not up")
        for message in messages:
            if link.dialled:
                answer = self._surveyor.answer_received(link, message, asyncio.get_running_loop().time())
                self.answers += answer.verdict is AnswerVerdict.COUNTED
            else:
                _, question = self._respondent.question_received(link, message)
                assert question is not None
                self.asked += 1
                said = self._respondent.answer(question, b"!")
                assert said is not None
                link.send_control(said)
        self._changed.set()

    def pull(self, link: Link, limit: int) -> Sequence[Sequence[bytes]]:
        self.pulls += 1
        waiting = self.outbox.get(link.peer.node_id, [])
        batch, size = 0, 0
        while batch < len(waiting) and size < limit:
            size += sum(map(len, waiting[batch]))
            batch += 1
        taken = waiting[:batch]
        del waiting[:batch]
        return taken

    def outcome(self, fact: LinkFact) -> None:
        self.facts.append(fact)
        self._changed.set()

    def send(self, link: Link, *bodies: bytes) -> None:
        self.outbox.setdefault(link.peer.node_id, []).extend([body] for body in bodies)
        link.wake()

    @property
    def live(self) -> list[Link]:
        return list(self._live.values())

    def named(self, outcome: Outcome) -> list[LinkFact]:
        return [fact for fact in self.facts if fact.outcome is outcome]

    async def until(self, state: Callable[[], Any], patience: float = PATIENCE) -> None:
        """Wait until something recorded makes ``state`` true."""
        async with asyncio.timeout(patience):
            while not state():
                self._changed.clear()
                await self._changed.wait()


@dataclass
class Node:
    """One daemon's links with one service."""

    name: str
    service: LinkService
    links: NodeLinks
    seen: Recorder
    address: Address
    node_id: bytes
    strangers: list[LinkFact] = field(default_factory=list)

    def dial(self, address: Address, expected: bytes = NOBODY) -> None:
        self.links.dial(address, expected)

    async def linked(self) -> Link:
        await self.seen.until(lambda: self.seen.live)
        return self.seen.live[0]

    def outcomes(self) -> list[Outcome]:
        return [fact.outcome for fact in (*self.seen.facts, *self.strangers)]


QUICK = LinkConfig(heartbeat_interval=0.1, handshake_timeout=2.0, first_delay=0.02, max_delay=0.2)


async def eventually(state: Callable[[], Any]) -> None:
    """Wait for a state that nobody announces."""
    async with asyncio.timeout(PATIENCE):
        while not state():
            await asyncio.sleep(0.002)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Ground:
    """Makes nodes, proxies, strangers and servers, and takes them down again."""

    def __init__(self) -> None:
        self.key = ServiceKey.generate("shop", os.urandom(32))
        self._stack = contextlib.AsyncExitStack()

    async def node(
        self,
        name: str,
        *,
        key: ServiceKey | None = None,
        node_id: bytes | None = None,
        config: LinkConfig = QUICK,
        port: int = 0,
        services: tuple[str, ...] = (),
    ) -> Node:
        strangers: list[LinkFact] = []
        service = LinkService(config, strangers.append)
        seen = Recorder(config.heartbeat_interval)
        node_id = node_id or os.urandom(16)
        links = service.register(Keyring(key or self.key), PeerInfo(node_id, name), seen)
        bound = await service.start([Listener(Address("127.0.0.1", port), services)])
        self._stack.push_async_callback(service.stop)
        return Node(name, service, links, seen, bound[0], node_id, strangers)

    async def pair(self, config: LinkConfig = QUICK) -> tuple[Node, Node]:
        """Two nodes, linked; the first dialled."""
        one, two = await self.node("one", config=config), await self.node("two", config=config)
        one.dial(two.address)
        await one.linked()
        await two.linked()
        return one, two

    async def proxy(self, target: Address) -> Proxy:
        proxy = Proxy(target)
        await proxy.start()
        self._stack.push_async_callback(proxy.stop)
        return proxy

    async def open(self, address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A stranger's connection."""
        reader, writer = await asyncio.open_connection(address.host, address.port)
        self._stack.push_async_callback(_drop, writer)
        return reader, writer

    async def dial(
        self,
        address: Address,
        *,
        purpose: Purpose = Purpose.CONTROL,
        node_id: bytes = b"\x00" * 15 + b"\x01",
        expected: bytes = NOBODY,
        binding: bytes = NOBODY,
        psk: bytes | None = None,
    ) -> HandMade:
        """A dialling side made by hand; its node id is the lowest, so it decides."""
        reader, writer = await self.open(address)
        greeting = Greeting(node_id, 1, "hand-made", expected=expected, binding=binding)
        credentials = PskCredentials(psk or self.key.link_psk)
        initiator = Initiator(purpose, self.key.key_id, credentials, greeting, os.urandom(32))
        writer.write(initiator.first)
        return HandMade(reader, writer, initiator, node_id)

    async def server(self, serve: Serve) -> Address:
        """A listener made by hand; ``serve`` may leave its connection open."""
        tasks: set[asyncio.Task[Any]] = set()

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await serve(reader, writer)
                await reader.read()
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                await _drop(writer)

        server = await asyncio.start_server(served, "127.0.0.1", 0)

        async def stop() -> None:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()

        self._stack.push_async_callback(stop)
        return Address("127.0.0.1", server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        await self._stack.aclose()


async def _drop(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    made = Ground()
    try:
        yield made
    finally:
        await made.close()


class Proxy:
    """The network between two nodes, under the test's control.

    Attributes:
        targets: Where the next connections go, in order; the last one repeats.
        change: What becomes of bytes on their way: ``(number, towards target, bytes) -> bytes``.
        cut_short: The connection whose next bytes towards the target lose their last five, and then it ends.
        seen: The first bytes sent, by connection and direction.
    """

    def __init__(self, target: Address) -> None:
        self.targets = [target]
        self.change: Callable[[int, bool, bytes], bytes] = lambda number, forth, data: data
        self.cut_short: int | None = None
        self.seen: dict[tuple[int, bool], bytes] = {}
        self.connections = 0
        self.address = Address("127.0.0.1", 0)
        self._moving = asyncio.Event()
        self._moving.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: dict[int, list[asyncio.StreamWriter]] = {}

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = Address("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for _ in range(5):  # connections that asyncio is in the middle of accepting become tasks
            await asyncio.sleep(0)
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        for writers in self._writers.values():
            for writer in writers:
                writer.transport.abort()
        await self._server.wait_closed()

    def freeze(self) -> None:
        """Hold everything back, say nothing."""
        self._moving.clear()

    def thaw(self) -> None:
        self._moving.set()

    def cut(self, number: int | None = None, *, reset: bool = False) -> None:
        """End connections on both sides."""
        for key, writers in self._writers.items():
            if number in (None, key):
                for writer in writers:
                    if reset:
                        writer.transport.abort()
                    else:
                        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        number = self.connections
        self.connections += 1
        self._writers[number] = [writer]
        target = self.targets.pop(0) if len(self.targets) > 1 else self.targets[0]
        try:
            far_reader, far_writer = await asyncio.open_connection(target.host, target.port)
        except OSError:
            writer.close()
            return
        self._writers[number].append(far_writer)
        for task in (
            asyncio.create_task(self._pump(number, True, reader, far_writer)),
            asyncio.create_task(self._pump(number, False, far_reader, writer)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, number: int, forth: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._moving.wait()
                self.seen[number, forth] = (self.seen.get((number, forth), b"") + data)[:REMEMBERED]
                if forth and number == self.cut_short:
                    writer.write(data[:-5])
                    break
                writer.write(self.change(number, forth, data))
                await writer.drain()
        await self._moving.wait()
        writer.close()


class HandMade:
    """A dialling side made by hand: knows the key, follows the protocol as far as the test wants."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, initiator: Initiator, node_id: bytes
    ) -> None:
        self.reader, self.writer = reader, writer
        self.initiator, self.node_id = initiator, node_id
        self.session: Session | None = None
        self.peer: Greeting | None = None
        self._rest = b""
        self._received: list[Received] = []

    async def shake(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                data = await self.reader.read(4096)
                assert data, "closed during the handshake"
                answer = self.initiator.feed(data)
                if answer is not None:
                    self.peer, self.session = answer
                    return

    def say(self, buffers: list[bytes]) -> None:
        self.writer.writelines(buffers)

    async def next(self) -> Received:
        """The next record's content or notice."""
        assert self.session is not None
        async with asyncio.timeout(PATIENCE):
            while not self._received:
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self._rest += data
                used = self.session.open(memoryview(self._rest), self._received)
                self._rest = self._rest[used:]
        return self._received.pop(0)

    async def until_closed(self) -> LinkEnd | None:
        """Read to the end; return the sealed close, if one was said."""
        said: LinkEnd | None = None
        with contextlib.suppress(EOFError, OSError):
            while True:
                item = await self.next()
                if isinstance(item, LinkEnd):
                    said = item
        return said

    async def settle(self) -> int:
        """Stand by the handshake, as the lower node id, which decides; return the generation."""
        assert self.session is not None
        generation = 1 if self.node_id < self.peer_id else 0
        self.say(self.session.seal_settle(generation))
        answer = await self.next()
        assert isinstance(answer, Settled), answer
        return answer.generation

    def hello(self, endpoint: EndpointType) -> None:
        assert self.session is not None
        self.say(self.session.seal([encode_hello(endpoint)]))

    @property
    def peer_id(self) -> bytes:
        assert self.peer is not None
        return self.peer.node_id

    @property
    def binding(self) -> bytes:
        assert self.session is not None
        return self.session.handshake_hash[:16]


def tight(**limits: Any) -> LinkConfig:
    """A quick configuration with other limits."""
    return LinkConfig(
        heartbeat_interval=0.1, handshake_timeout=0.5, first_delay=0.02, max_delay=0.2, limits=Limits(**limits)
    )
