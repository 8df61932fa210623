"""All links of one node (edge): which connections become links, and which do not.

Every connection of the service reports here, and here its fate is decided, with
:class:`~irisd.link.settling.Settling` for what must be the same on both sides.
Different services have different :class:`NodeLinks` and share nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from irisd.config import Address
from irisd.keys import Keyring
from irisd.link.connection import LinkConnection, Phase
from irisd.link.dialer import Dial
from irisd.link.handshake import NOBODY, Credentials, Greeting, PskCredentials, Purpose
from irisd.link.limits import Limits
from irisd.link.link import Link, LinkHandler
from irisd.link.outcome import LinkEnd, LinkFact, Outcome
from irisd.link.settling import Settling, Step, Verdict
from irisd.model import PeerInfo
from irisd.sp import EndpointType, Scratch
from irisd.transport.tcp import TcpOptions, attach, dial


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """How links behave. Times in seconds, sizes in bytes."""

    heartbeat_interval: float = 1.0
    """How often the brain has peers asked: a peer that asks is given two of these to show that it is alive."""
    handshake_timeout: float = 5.0
    """From the first byte to the first record, and from there to the data connection."""
    answer_timeout: float = 2.0
    """How long a peer that took our connection may take to answer it: the kernel takes one for a process that stands
    still, and an address is given no longer than this, so that it is dialled again soon after it goes on."""
    first_delay: float = 0.1
    """Back-off of a dial that failed; it doubles up to ``max_delay``, with jitter."""
    max_delay: float = 30.0
    max_message: int = 1024 * 1024
    """Largest message on a data connection."""
    tcp: TcpOptions = field(default_factory=TcpOptions)
    limits: Limits = field(default_factory=Limits)


class Host(Protocol):
    """What a node's links need from the service they live in."""

    config: LinkConfig
    scratch: Scratch

    def new_number(self) -> int:
        """A number no connection of this daemon has."""

    def proven(self, connection: LinkConnection) -> None:
        """This connection is not half-open any more."""

    def report(self, fact: LinkFact, handler: LinkHandler | None) -> None:
        """Something ended or came up."""


class NodeLinks:
    """The links of one node.

    Args:
        keyring: The service's keys.
        identity: Who we are; its ``address`` is not used.
        handler: What is done with links.
        host: The link service.
    """

    def __init__(self, keyring: Keyring, identity: PeerInfo, handler: LinkHandler, host: Host) -> None:
        self.keyring = keyring
        self.identity = identity
        self.handler = handler
        self.stopping = False
        self._host = host
        self._settling = Settling(identity.node_id)
        self._connections: dict[int, LinkConnection] = {}
        self._links: dict[int, Link] = {}  # by the number of either connection
        self._link_by_peer: dict[bytes, Link] = {}
        self._link_by_binding: dict[bytes, Link] = {}  # accepted, waiting for their data connection
        self._attempts: dict[int, asyncio.Future[LinkEnd]] = {}
        self._dials: dict[Address, Dial] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def links(self) -> list[Link]:
        """The links that are up."""
        return [link for link in self._link_by_peer.values() if link.is_up]

    @property
    def dialled_addresses(self) -> list[Address]:
        """The addresses that are kept linked."""
        return list(self._dials)

    def is_linked(self, peer_id: bytes) -> bool:
        """Whether a link with this peer is up."""
        link = self._link_by_peer.get(peer_id)
        return link is not None and link.is_up

    def dial(self, address: Address, expected: bytes = NOBODY) -> None:
        """Keep trying to be linked with whoever answers at an address, until told to forget it.

        Args:
            address: Host and port.
            expected: The only node id that is welcome there.
        """
        if not self.stopping and address not in self._dials:
            config = self._host.config
            self._dials[address] = Dial(
                self, address, expected, first_delay=config.first_delay, max_delay=config.max_delay
            )

    def forget(self, address: Address) -> None:
        """Dial this address no more. A link that is up stays."""
        entry = self._dials.pop(address, None)
        if entry is not None:
            entry.stop()

    def use(self, keyring: Keyring) -> None:
        """Go on with another keyring of the service; links made with a key it does not have are closed."""
        self.keyring = keyring
        for link in list(self._link_by_peer.values()):
            if keyring.find(link.control.key_id) is None:
                self._finish(link, LinkEnd(Outcome.CLOSED, "its key was removed"))

    def end_all(self, end: LinkEnd) -> list[asyncio.Future[None]]:
        """End every dial, connection and link; return what is done when nothing of them is left."""
        self.stopping = True
        pending: list[asyncio.Future[None]] = [entry.stop() for entry in self._dials.values()]
        self._dials.clear()
        for task in self._tasks:
            task.cancel()
            pending.append(task)
        connections = list(self._connections.values())
        for link in list(self._link_by_peer.values()):
            self._finish(link, end)
        for connection in connections:
            connection.end(end)
        return pending + [connection.closed for connection in connections]

    def greeting(self, *, expected: bytes = NOBODY, binding: bytes = NOBODY) -> Greeting:
        """Who we are, for a handshake."""
        me = self.identity
        return Greeting(me.node_id, me.incarnation, me.name, me.features, expected, binding)

    def credentials(self, key_id: bytes) -> Credentials | None:
        """What the key table says about a key id."""
        key = self.keyring.find(key_id)
        return None if key is None else PskCredentials(key.link_psk)

    # ---------------------------------------------------------- dialling

    async def attempt(self, address: Address, expected: bytes) -> tuple[LinkEnd, bytes]:
        """Dial once.

        Returns:
            What became of it (``LINKED`` when the link is up) and the id of the
            node that answered, if one did.

        Raises:
            asyncio.CancelledError: Cancelled; the connection is dropped unless its link is up.
        """
        if self.stopping:
            return LinkEnd(Outcome.STOPPING, "the daemon is stopping"), NOBODY
        connection = self._new_connection(address)
        done = asyncio.get_running_loop().create_future()
        self._attempts[connection.number] = done
        try:
            key = self.keyring.active
            await self._connect(connection, address, Purpose.CONTROL, self.greeting(expected=expected), key.key_id)
            end: LinkEnd = await done
        except asyncio.CancelledError:
            if not done.done():
                connection.end(LinkEnd(Outcome.CLOSED, "not wanted any more"))
            raise
        finally:
            self._attempts.pop(connection.number, None)
        return end, connection.peer.node_id if connection.peer is not None else NOBODY

    async def _connect(
        self, connection: LinkConnection, address: Address, purpose: Purpose, greeting: Greeting, key_id: bytes
    ) -> None:
        """Open the TCP connection and begin the handshake; a failure ends ``connection``."""
        config = self._host.config
        credentials = self.credentials(key_id)
        if credentials is None:
            connection.fail(LinkEnd(Outcome.WRONG_KEY, "the key was removed"))
            return
        connection.limit(config.handshake_timeout, LinkEnd(Outcome.TIMEOUT, "the peer took too long to answer"))
        protocol = connection.initiate(purpose, key_id, credentials, greeting)
        try:
            sock = await dial(address, config.tcp)
            await attach(protocol, sock, accepted=False)
            if connection.phase is Phase.SHAKING:
                timeout = min(config.answer_timeout, config.handshake_timeout)
                connection.limit(timeout, LinkEnd(Outcome.TIMEOUT, "it took the connection and does not answer"))
        except OSError as error:
            connection.fail(LinkEnd(Outcome.UNREACHABLE, error.strerror or str(error)))
        except asyncio.CancelledError:
            connection.fail(LinkEnd(Outcome.CLOSED, "not wanted any more"))
            raise

    async def _dial_data(self, link: Link) -> None:
        control = link.control
        address = control.dial_address
        assert address is not None  # this side dialled
        if link.ended:
            return
        connection = self._new_connection(address)
        self._links[connection.number] = link
        link.data = connection
        greeting = self.greeting(expected=link.peer.node_id, binding=control.binding)
        await self._connect(connection, address, Purpose.DATA, greeting, control.key_id)

    def _new_connection(self, address: Address) -> LinkConnection:
        connection = LinkConnection(
            self._host.new_number(),
            dial_address=address,
            board=self,
            options=self._host.config.tcp,
            max_message=self._host.config.max_message,
            scratch=self._host.scratch,
        )
        self._connections[connection.number] = connection
        return connection

    # ------------------------------------------- reports of connections

    def hailed(self, purpose: Purpose, key_id: bytes, greeting: Greeting) -> Outcome | None:
        if self.stopping:
            return Outcome.STOPPING
        if greeting.node_id == self.identity.node_id:
            return Outcome.SELF
        if greeting.expected not in (NOBODY, self.identity.node_id):
            return Outcome.MISROUTED
        if purpose is Purpose.DATA and self._link_for_data(key_id, greeting) is None:
            return Outcome.UNBOUND
        return None

    def adopt(self, connection: LinkConnection) -> None:
        """An accepted connection whose first message was answered; its peer has yet to stand by it."""
        self._connections[connection.number] = connection

    def shaken(self, connection: LinkConnection) -> None:
        peer = connection.peer
        assert peer is not None
        timeout = self._host.config.handshake_timeout  # its peer may have to survey the link there is before it settles
        connection.limit(timeout, LinkEnd(Outcome.TIMEOUT, "the peer took too long to settle"))
        if connection.purpose is Purpose.DATA:
            connection.stand_by(self._links[connection.number].control.generation)
        elif self._settling.decides(peer.node_id):
            self._apply(connection, self._settling.confirmed(peer.node_id, connection.number, dialled=True))
        else:
            connection.stand_by(0)

    def stood_by(self, connection: LinkConnection, generation: int) -> None:
        self._host.proven(connection)
        timeout = self._host.config.handshake_timeout
        connection.limit(timeout, LinkEnd(Outcome.TIMEOUT, "it was not settled in time"))
        peer = connection.peer
        assert peer is not None
        if connection.purpose is Purpose.DATA:
            self._data_stood_by(connection, peer, generation)
        elif self._settling.decides(peer.node_id):
            if not connection.dialled:
                self._apply(connection, self._settling.confirmed(peer.node_id, connection.number, dialled=False))
            elif generation == connection.generation:
                self._control_open(connection)
            else:
                connection.end(LinkEnd(Outcome.VIOLATION, "the peer settled on another generation"))
        elif generation == 0:
            connection.end(LinkEnd(Outcome.VIOLATION, "the peer has to decide and does not"))
        else:
            verdict = self._settling.decided(peer.node_id, connection.number, generation, dialled=connection.dialled)
            self._apply(connection, verdict)

    def messages(self, connection: LinkConnection, messages: list[bytes]) -> None:
        link = self._links.get(connection.number)
        if link is None or link.ended:
            return
        if connection is link.control:
            link.control_received(messages)
        elif link.is_up:
            link.data_received(messages)

    def writable(self, connection: LinkConnection) -> None:
        link = self._links.get(connection.number)
        if link is not None and connection is link.data:
            link.wake()

    def ended(self, connection: LinkConnection, end: LinkEnd) -> None:
        number = connection.number
        self._host.proven(connection)
        self._connections.pop(number, None)
        link = self._links.pop(number, None)
        if link is None:
            self._report(connection, end)
        else:
            self._finish(link, end, connection)
        done = self._attempts.get(number)
        if done is not None and not done.done():
            done.set_result(end)
        if connection.purpose is Purpose.CONTROL and connection.peer is not None:
            self._follow(self._settling.ended(connection.peer.node_id, number))

    # --------------------------------------------------------- decisions

    def _apply(self, connection: LinkConnection, verdict: Verdict) -> None:
        """Do what was decided about a control connection."""
        if self.stopping:
            connection.end(LinkEnd(Outcome.STOPPING, "the daemon is stopping"))
            return
        if verdict.step is Step.REJECT:
            connection.end(LinkEnd(Outcome.DUPLICATE, "the two nodes are linked over another connection"))
            return
        peer = connection.peer
        assert peer is not None
        if verdict.step is Step.PROBE:
            link = self._link_by_peer[peer.node_id]
            # Half the time a handshake has: the one that waits must live to see the result.
            within = self._host.config.handshake_timeout / 2
            link.probe(within, lambda alive: self._follow(self._settling.probed(peer.node_id, alive=alive)))
            return
        if verdict.drop is not None:
            self._drop(verdict.drop)
        if connection.dialled and not self._settling.decides(peer.node_id):
            connection.generation = verdict.generation  # we have stood by it already, and left this to the peer
        else:
            connection.stand_by(verdict.generation)
        if connection.stands:
            self._control_open(connection)

    def _follow(self, waited: tuple[int, Verdict] | None) -> None:
        """A connection that waited has its verdict."""
        if waited is not None:
            connection = self._connections.get(waited[0])
            if connection is not None:
                self._apply(connection, waited[1])

    def _drop(self, number: int) -> None:
        loser = self._connections.get(number)
        if loser is None:
            return
        link = self._links.get(number)
        was_up = link is not None and link.is_up
        loser.end(
            LinkEnd(Outcome.REPLACED, "a newer link with the same peer took its place")
            if was_up
            else LinkEnd(Outcome.DUPLICATE, "both nodes dialled; the other connection is the link")
        )

    def _control_open(self, connection: LinkConnection) -> None:
        """Both sides stand by this control connection: it is the link, once its data connection is open."""
        peer = connection.peer
        assert peer is not None
        info = PeerInfo(peer.node_id, peer.name, peer.incarnation, connection.address, peer.features)
        link = Link(
            info,
            connection,
            interval=self._host.config.heartbeat_interval,
            handler=self.handler,
            on_end=self._finish,
        )
        self._links[connection.number] = link
        self._link_by_peer[peer.node_id] = link
        connection.limit(
            self._host.config.handshake_timeout, LinkEnd(Outcome.TIMEOUT, "its data connection did not come up")
        )
        connection.open(EndpointType.SURVEYOR if connection.dialled else EndpointType.RESPONDENT)
        if connection.dialled:
            task = asyncio.get_running_loop().create_task(self._dial_data(link))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._link_by_binding[connection.binding] = link

    def _link_for_data(self, key_id: bytes, greeting: Greeting) -> Link | None:
        """The link that a data connection belongs to, if it really does."""
        link = self._link_by_binding.get(greeting.binding)
        if link is None or link.peer.node_id != greeting.node_id or link.control.key_id != key_id:
            return None
        return link

    def _data_stood_by(self, connection: LinkConnection, peer: Greeting, generation: int) -> None:
        if connection.dialled:
            link: Link | None = self._links[connection.number]
        else:
            link = self._link_for_data(connection.key_id, peer)
            if link is None:  # its control connection ended meanwhile, or another data connection was first
                connection.end(LinkEnd(Outcome.UNBOUND, "its control connection is gone"))
                return
            del self._link_by_binding[peer.binding]
            self._links[connection.number] = link
        assert link is not None
        if generation != link.control.generation:
            connection.end(LinkEnd(Outcome.VIOLATION, "a data connection of another generation"))
            return
        if not connection.dialled:
            connection.stand_by(generation)
        connection.unlimit()
        connection.open(EndpointType.PAIR1)
        link.control.unlimit()
        self._settling.came_up(peer.node_id, link.control.number)
        link.come_up(connection)
        self._report(link.control, LinkEnd(Outcome.LINKED))
        done = self._attempts.get(link.control.number)
        if done is not None and not done.done():
            done.set_result(LinkEnd(Outcome.LINKED))

    def _finish(self, link: Link, end: LinkEnd, culprit: LinkConnection | None = None) -> None:
        """A link is over: tell the handler, then end what is left of it."""
        if link.ended:
            return
        was_up = link.is_up
        link.finish()
        if self._link_by_peer.get(link.peer.node_id) is link:
            del self._link_by_peer[link.peer.node_id]
        self._link_by_binding.pop(link.control.binding, None)
        if was_up:
            self.handler.link_down(link, end)
        self._report(link.control if was_up or culprit is None else culprit, end)
        rest = LinkEnd(end.outcome, end.detail)
        for connection in (link.control, link.data):
            if connection is not None:
                connection.end(rest)
        for entry in self._dials.values():
            entry.nudge()

    def _report(self, connection: LinkConnection, end: LinkEnd) -> None:
        peer = connection.peer
        info = None
        if peer is not None:
            info = PeerInfo(peer.node_id, peer.name, peer.incarnation, connection.address, peer.features)
        fact = LinkFact(
            outcome=end.outcome,
            address=connection.address,
            dialled=connection.dialled,
            detail=end.detail,
            service=self.keyring.service,
            purpose="" if connection.purpose is None else connection.purpose.name.lower(),
            peer=info,
            by_peer=end.by_peer,
        )
        self._host.report(fact, self.handler)
