"""The front door to links (edge): listeners and dials of all services of a daemon.

Several services share the listeners: the key id in a connection's preamble says
which node's it is, and from there on nodes share nothing. Until that is proven
a connection is a stranger's, and strangers live on the budget of
:class:`~irisd.link.limits.HandshakeLimits`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from irisd.config import Address, Listener
from irisd.errors import ConfigError
from irisd.keys import Keyring
from irisd.link.connection import LINGER, LinkConnection
from irisd.link.handshake import NOBODY, Credentials, Greeting, refusal
from irisd.link.limits import HandshakeLimits, Repeats, host_of
from irisd.link.link import Link, LinkHandler
from irisd.link.node_links import LinkConfig, NodeLinks
from irisd.link.outcome import LinkEnd, LinkFact, Outcome
from irisd.model import PeerInfo
from irisd.transport.tcp import tune
from irisd.transport.tcp_listener import TcpListener

_EVICTED: Final = LinkEnd(Outcome.OVERLOADED, "too many handshakes under way")
_LATE: Final = LinkEnd(Outcome.TIMEOUT, "the handshake took too long")


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
        self.counts: Counter[Outcome] = Counter()
        self._observer = observer
        self._limits = HandshakeLimits(self.config.limits)
        self._repeats = Repeats()
        self._listeners: list[TcpListener] = []
        self._nodes: dict[str, NodeLinks] = {}
        self._half_open: dict[int, LinkConnection] = {}
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
            if self._node_of(key.key_id) is not None:
                raise ConfigError(f"{key!r} belongs to two services; make a key of its own for each service")
        node = NodeLinks(keyring, identity, handler, self)
        self._nodes[keyring.service] = node
        return node

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
                self._accepted(sock, ip, remote, services)

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

    def links(self, service: str) -> list[Link]:
        """The links of a service that are up."""
        return self._nodes[service].links

    @property
    def half_open(self) -> int:
        """Connections of strangers at the moment."""
        return self._limits.half_open

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
        for connection in list(self._half_open.values()):
            connection.end(end)
            pending.append(connection.closed)
        if pending:
            await asyncio.wait(pending, timeout=LINGER + 1.0)
        if self._adoptions:
            await asyncio.wait(self._adoptions)

    # -------------------------------------------- for the node's links

    def new_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def proven(self, connection: LinkConnection) -> None:
        if self._half_open.pop(connection.number, None) is not None:
            self._limits.closed(connection.number)

    def report(self, fact: LinkFact, handler: LinkHandler | None) -> None:
        self.counts[fact.outcome] += 1
        if handler is not None:
            handler.outcome(fact)

    # --------------------------------------------------------- strangers

    def _accepted(self, sock: socket.socket, ip: str, remote: str, services: frozenset[str]) -> None:
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        host = host_of(ip)
        now = loop.time()
        if not self._limits.admits(host, now):
            sock.close()
            self._report_stranger(remote, host, Outcome.OVERLOADED, "this host's handshakes take too much time")
        else:
            connection = LinkConnection(
                self.new_number(),
                dial_address=None,
                board=_Strangers(self, host),
                options=self.config.tcp,
                max_message=self.config.max_message,
            )
            connection.address = remote
            evicted = self._limits.opened(connection.number, host)
            if evicted is not None:
                self._half_open[evicted].end(_EVICTED, reply=refusal(Outcome.OVERLOADED))
            self._half_open[connection.number] = connection
            connection.limit(self.config.handshake_timeout, _LATE)
            connection.spent = lambda seconds: self._limits.charge(host, seconds, loop.time())
            task = loop.create_task(self._adopt(connection, sock, services))
            self._adoptions.add(task)
            task.add_done_callback(self._adoptions.discard)
        self._limits.charge(host, time.perf_counter() - began, now)

    async def _adopt(self, connection: LinkConnection, sock: socket.socket, services: frozenset[str]) -> None:
        def find(key_id: bytes) -> Credentials | None:
            node = self._node_of(key_id, services)
            return None if node is None else node.credentials(key_id)

        def boards(key_id: bytes) -> tuple[NodeLinks, Greeting] | None:
            node = self._node_of(key_id, services)
            return None if node is None else (node, node.greeting())

        protocol = connection.respond(find, boards)
        try:
            tune(sock, self.config.tcp)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
        except OSError as error:
            sock.close()
            connection.fail(LinkEnd(Outcome.BROKEN, error.strerror or str(error)))

    def _node_of(self, key_id: bytes, services: frozenset[str] = frozenset()) -> NodeLinks | None:
        for name, node in self._nodes.items():
            if (not services or name in services) and node.keyring.find(key_id) is not None:
                return node
        return None

    def _starved(self, detail: str) -> None:
        self._report_stranger("", "", Outcome.OVERLOADED, detail)

    def _report_stranger(self, remote: str, host: str, outcome: Outcome, detail: str, *, by_peer: bool = False) -> None:
        self.counts[outcome] += 1
        if self._observer is None:
            return
        repeated = self._repeats.count(asyncio.get_running_loop().time(), host, outcome.value)
        if repeated:
            self._observer(LinkFact(outcome, remote, dialled=False, detail=detail, by_peer=by_peer, repeated=repeated))


class _Strangers:
    """Who decides about a connection before it is known whose it is: nobody; it is only noted how it ends."""

    def __init__(self, service: LinkService, host: str) -> None:
        self._service = service
        self._host = host

    def hailed(self, connection: LinkConnection, greeting: Greeting) -> Outcome | None:
        return Outcome.WRONG_KEY

    def shaken(self, connection: LinkConnection) -> None:
        """Strangers are never dialled."""

    def stood_by(self, connection: LinkConnection, generation: int) -> None:
        """Only after :meth:`hailed`, and then a node decides."""

    def messages(self, connection: LinkConnection, messages: list[bytes]) -> None:
        """Likewise."""

    def writable(self, connection: LinkConnection) -> None:
        """Likewise."""

    def ended(self, connection: LinkConnection, end: LinkEnd) -> None:
        self._service.proven(connection)
        self._service._report_stranger(connection.address, self._host, end.outcome, end.detail, by_peer=end.by_peer)
