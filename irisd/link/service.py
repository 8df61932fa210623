"""The front door to links (edge): listeners and dials of all services of a daemon.

Several services share the listeners: the key id in a connection's preamble says
which node's it is, and from there on nodes share nothing. Until that is proven
a connection is a stranger's and waits at the :class:`~irisd.link.gate.Gate`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from irisd.config import Address, Listener
from irisd.errors import ConfigError
from irisd.keys import Keyring
from irisd.link.connection import LINGER, READ_BYTES, LinkConnection
from irisd.link.gate import Gate, Stranger
from irisd.link.handshake import NOBODY, Greeting
from irisd.link.limits import HandshakeLimits, Repeats, host_of
from irisd.link.link import Link, LinkHandler
from irisd.link.node_links import LinkConfig, NodeLinks
from irisd.link.outcome import LinkEnd, LinkFact, Outcome
from irisd.link.race import Finish, race
from irisd.link.session import Session
from irisd.model import PeerInfo
from irisd.sp import Scratch
from irisd.transport.tcp import TcpConnection, attach, tune
from irisd.transport.tcp_listener import TcpListener

_EVICTED: Final = LinkEnd(Outcome.OVERLOADED, "too many handshakes under way")
_UNCONFIRMED: Final = LinkEnd(Outcome.UNCONFIRMED, "nobody stood by the first message")


class LinkService:
    """Links of all services of one daemon.

    The shape of its life: :meth:`register` each service, :meth:`start`
    listening, :meth:`dial`, and in the end :meth:`stop`.

    Args:
        config: How links behave.
        observer: Told about connections that belong to no service: equal facts
            about one host at most once a second, with their number.

    Attributes:
        counts: How often each outcome came about, strangers included.
    """

    def __init__(self, config: LinkConfig | None = None, observer: Callable[[LinkFact], None] | None = None) -> None:
        self.config = config or LinkConfig()
        self.scratch = Scratch(READ_BYTES)
        self.counts: Counter[Outcome] = Counter()
        self._observer = observer
        self._gate = Gate(self, HandshakeLimits(self.config.limits), self.config.handshake_timeout)
        self._repeats = Repeats()
        self._listeners: list[TcpListener] = []
        self._nodes: dict[str, NodeLinks] = {}
        self._unconfirmed: dict[int, LinkConnection] = {}
        self._adoptions: set[asyncio.Task[None]] = set()
        self._last_number = 0

    # ------------------------------------------------- for the daemon

    def register(self, keyring: Keyring, identity: PeerInfo, handler: LinkHandler) -> NodeLinks:
        """Take part in a service.

        Args:
            keyring: Its keys.
            identity: Our node id, name, incarnation and features there.
            handler: What is done with its links.

        Raises:
            ConfigError: The service, or one of its keys, is registered already.
        """
        if keyring.service in self._nodes:
            raise ConfigError(f"service '{keyring.service}' is configured twice; give each service's key once")
        for key in keyring:
            if self.node_of(key.key_id) is not None:
                raise ConfigError(f"{key!r} belongs to two services; make a key of its own for each service")
        node = NodeLinks(keyring, identity, handler, self)
        self._nodes[keyring.service] = node
        return node

    def use(self, keyring: Keyring) -> None:
        """Go on with another keyring of a service, which was checked; links with a key it does not have are closed."""
        self._nodes[keyring.service].use(keyring)

    def check(self, keyring: Keyring) -> None:
        """Find out whether another keyring of a service can be used.

        Raises:
            ConfigError: One of its keys belongs to another service.
        """
        for key in keyring:
            owner = self.node_of(key.key_id)
            if owner is not None and owner is not self._nodes[keyring.service]:
                raise ConfigError(f"{key!r} belongs to two services; make a key of its own for each service")

    async def start(self, listeners: Iterable[Listener]) -> list[Address]:
        """Listen; may be called again to listen at more addresses.

        Returns:
            The addresses listened at, with the ports that were chosen.

        Raises:
            ListenError: One cannot be listened at; those before it are.
        """
        bound: list[Address] = []
        for listener in listeners:
            services = frozenset(listener.services)

            def accepted(sock: socket.socket, ip: str, remote: str, services: frozenset[str] = services) -> None:
                self._gate.accepted(sock, ip, remote, services)

            opened = TcpListener(listener.address, accepted, self._starved)
            self._listeners.append(opened)
            bound += opened.addresses
        return bound

    def dial(self, service: str, address: Address, expected: bytes = NOBODY) -> None:
        """Keep an address linked until :meth:`forget`; see :meth:`NodeLinks.dial`."""
        self._nodes[service].dial(address, expected)

    def forget(self, service: str, address: Address) -> None:
        """Dial an address no more. A link that is up stays."""
        self._nodes[service].forget(address)

    async def attempt(self, service: str, addresses: Sequence[Address], expected: bytes = NOBODY) -> Finish:
        """Dial once, at all addresses of one node, and say how it ended; see :func:`irisd.link.race.race`."""
        return await race(self._nodes[service], addresses, expected)

    def is_linked(self, service: str, node_id: bytes) -> bool:
        """Whether a link with this node is up."""
        return self._nodes[service].is_linked(node_id)

    def links(self, service: str) -> list[Link]:
        """The links of a service that are up."""
        return self._nodes[service].links

    @property
    def half_open(self) -> int:
        """Connections that nobody has stood by at the moment."""
        return self._gate.half_open

    async def stop(self, reason: str = "the daemon is stopping") -> None:
        """Say goodbye to everybody and close everything; takes two seconds at most.

        Cancelling stops the waiting, not the closing.
        """
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        end = LinkEnd(Outcome.STOPPING, reason)
        pending: list[asyncio.Future[None]] = []
        for node in self._nodes.values():
            pending += node.end_all(end)
        self._gate.close()
        if pending:
            await asyncio.wait(pending, timeout=LINGER + 1.0)
        if self._adoptions:
            await asyncio.wait(self._adoptions)

    # -------------------------------------------- for the node's links

    def new_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def proven(self, connection: LinkConnection) -> None:
        if self._unconfirmed.pop(connection.number, None) is not None:
            self._gate.proven(connection.number)

    def report(self, fact: LinkFact, handler: LinkHandler | None) -> None:
        self.counts[fact.outcome] += 1
        if handler is not None:
            handler.outcome(fact)

    # ------------------------------------------------------ for the gate

    def node_of(self, key_id: bytes, services: frozenset[str] = frozenset()) -> NodeLinks | None:
        for name, node in self._nodes.items():
            if (not services or name in services) and node.keyring.find(key_id) is not None:
                return node
        return None

    def welcome(self, stranger: Stranger, greeting: Greeting, session: Session, remaining: float) -> None:
        node, purpose = stranger.node, stranger.purpose
        assert isinstance(node, NodeLinks) and purpose is not None
        connection = LinkConnection(
            stranger.number,
            dial_address=None,
            board=node,
            options=self.config.tcp,
            max_message=self.config.max_message,
            scratch=self.scratch,
        )
        protocol = connection.resume(purpose, stranger.key_id, greeting, session, stranger.remote)
        self._unconfirmed[connection.number] = connection
        node.adopt(connection)
        connection.limit(remaining, _UNCONFIRMED)
        task = asyncio.get_running_loop().create_task(self._adopt(connection, protocol, stranger.sock))
        self._adoptions.add(task)
        task.add_done_callback(self._adoptions.discard)

    def evicted(self, number: int) -> None:
        connection = self._unconfirmed.get(number)
        if connection is not None:
            connection.end(_EVICTED)

    def turned_away(self, stranger: Stranger | None, remote: str, outcome: Outcome, detail: str) -> None:
        if stranger is None or stranger.greeting is None:
            self._report_stranger(remote, outcome, detail)
            return
        node, greeting = stranger.node, stranger.greeting
        assert isinstance(node, NodeLinks) and stranger.purpose is not None
        peer = PeerInfo(greeting.node_id, greeting.name, greeting.incarnation, remote, greeting.features)
        fact = LinkFact(
            outcome,
            remote,
            dialled=False,
            detail=detail,
            service=node.keyring.service,
            purpose=stranger.purpose.name.lower(),
            peer=peer,
        )
        self.report(fact, node.handler)

    async def _adopt(self, connection: LinkConnection, protocol: TcpConnection, sock: socket.socket) -> None:
        try:
            tune(sock, self.config.tcp)
            await attach(protocol, sock, accepted=True)
        except OSError as error:
            connection.fail(LinkEnd(Outcome.BROKEN, error.strerror or str(error)))

    def _starved(self, detail: str) -> None:
        self._report_stranger("", Outcome.OVERLOADED, detail)

    def _report_stranger(self, remote: str, outcome: Outcome, detail: str) -> None:
        self.counts[outcome] += 1
        if self._observer is None:
            return
        host = host_of(remote.rpartition(":")[0].strip("[]"))
        repeated = self._repeats.count(asyncio.get_running_loop().time(), host, outcome.value)
        if repeated:
            self._observer(LinkFact(outcome, remote, dialled=False, detail=detail, repeated=repeated))
