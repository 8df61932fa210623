"""One connection on its way to be half of a link (edge).

A :class:`LinkConnection` moves bytes between a TCP connection and what is pure:
the handshake, the session, the SP stream inside. It decides nothing. What it
finds out it tells its *board* (the node's links, :mod:`irisd.link.node_links`),
which answers with :meth:`LinkConnection.stand_by`, :meth:`LinkConnection.open`
and :meth:`LinkConnection.end`.

The life of a connection::

    dialled:   SHAKING -- message 2 --> SHAKEN: stand_by(), the peer's first record, open() --> OPEN
    accepted:                           SHAKEN: the peer's first record, stand_by(), open() --> OPEN
    both:      any -- end() --> ENDING -- the peer has read it --> GONE

So the dialling side speaks first, and the other acts on nothing before that. An
accepted connection comes from the :mod:`~irisd.link.gate`, its handshake done.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Final, Protocol

from irisd.config import Address
from irisd.errors import WireError
from irisd.link.handshake import Credentials, Greeting, Initiator, Purpose, Refused
from irisd.link.outcome import LinkEnd, Outcome
from irisd.link.session import MAX_RECORD, Received, Session, SessionError, Settled
from irisd.sp import Buffer, EndpointType, Framing, MessageEncoder, Scratch, SpStream
from irisd.transport.tcp import TcpConnection, TcpOptions

HANDSHAKE_BYTES: Final = 2048
"""The most that is read and kept of a connection that is not settled."""
READ_BYTES: Final = 4 * MAX_RECORD
"""The most that one read brings, into room that all connections share; more would not stay in the processor's cache."""
LINGER: Final = 2.0
"""Seconds the last bytes, the sealed close among them, may take to be read."""
MAX_CONTROL_MESSAGE: Final = 64 * 1024
_SMALL: Final = 4096


class Phase(Enum):
    """Where in its life a connection is."""

    SHAKING = auto()
    SHAKEN = auto()
    """Keys are agreed; which connection is the link is not."""
    OPEN = auto()
    """Messages flow."""
    ENDING = auto()
    """The sealed close is said; the other side may still have to read it."""
    GONE = auto()


class Board(Protocol):
    """Who decides about a node's connections."""

    def shaken(self, connection: LinkConnection) -> None:
        """Dialled: the peer answered and holds the key."""

    def stood_by(self, connection: LinkConnection, generation: int) -> None:
        """The peer's first record opened: it stands by its handshake."""

    def messages(self, connection: LinkConnection, messages: list[bytes]) -> None:
        """Messages of one read, in order."""

    def writable(self, connection: LinkConnection) -> None:
        """The connection takes more."""

    def ended(self, connection: LinkConnection, end: LinkEnd) -> None:
        """The connection is over, once; its socket may take until ``closed`` to go."""


class LinkConnection:
    """One TCP connection and what is spoken on it.

    Args:
        number: Unique in this daemon.
        dial_address: Where to, if this side dials.
        board: Who decides.
        max_message: Largest message either way on a data connection, in bytes.
        scratch: Where the daemon's connections read to, :data:`READ_BYTES` long.
    """

    def __init__(
        self,
        number: int,
        *,
        dial_address: Address | None,
        board: Board,
        options: TcpOptions,
        max_message: int,
        scratch: Scratch,
    ) -> None:
        self.number = number
        self.dialled = dial_address is not None
        self.dial_address = dial_address
        self.address = "" if dial_address is None else str(dial_address)
        """Dialled, or remote: ``host:port``."""
        self.phase = Phase.SHAKING
        self.purpose: Purpose | None = None
        self.peer: Greeting | None = None
        self.key_id = b""
        self.generation = 0
        self.board = board
        self.end_reason: LinkEnd | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the socket is gone."""
        self._scratch = scratch.view
        self._tcp = TcpConnection(self, options, self._scratch[:HANDSHAKE_BYTES])
        self._max_message = max_message
        self._initiator: Initiator | None = None
        self._session: Session | None = None
        self._stream: SpStream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_end: LinkEnd | None = None
        self._peer_stood_by = False

    # ------------------------------------------------------- beginning

    def initiate(self, purpose: Purpose, key_id: bytes, credentials: Credentials, greeting: Greeting) -> TcpConnection:
        """Be the dialling side; return the protocol for the event loop."""
        self.purpose, self.key_id = purpose, key_id
        self._initiator = Initiator(purpose, key_id, credentials, greeting, os.urandom(32))
        return self._tcp

    def resume(self, purpose: Purpose, key_id: bytes, peer: Greeting, session: Session, remote: str) -> TcpConnection:
        """Be the listening side, its handshake done; return the protocol for the event loop."""
        self.purpose, self.key_id, self.peer, self._session = purpose, key_id, peer, session
        self.address = remote
        self.phase = Phase.SHAKEN
        return self._tcp

    @property
    def binding(self) -> bytes:
        """What a data connection names its control connection by."""
        return b"" if self._session is None else self._session.handshake_hash[:16]

    @property
    def hop_drops(self) -> int:
        """Messages dropped because they say that they were passed on too often."""
        return self._stream.hop_drops if self._stream is not None else 0

    @property
    def is_writable(self) -> bool:
        return self.phase is Phase.OPEN and self._tcp.is_writable

    @property
    def stands(self) -> bool:
        """Whether the peer's first record has opened."""
        return self._peer_stood_by

    def limit(self, seconds: float, end: LinkEnd) -> None:
        """End with ``end`` unless :meth:`unlimit` comes within so many seconds; one limit at a time."""
        self.unlimit()
        self._timer_end = end
        self._timer = asyncio.get_running_loop().call_later(seconds, self._out_of_time)

    def unlimit(self) -> None:
        """Lift the limit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --------------------------------------------------------- settling

    def stand_by(self, generation: int) -> None:
        """Say our first record.

        Args:
            generation: Our decision, or the one we follow; 0 leaves it to the peer.
        """
        if self.phase is not Phase.SHAKEN or self._session is None:
            return
        self.generation = generation
        self._tcp.write(self._session.seal_settle(generation))

    def open(self, offer: EndpointType) -> None:
        """Let messages flow: both sides stand by this connection.

        Args:
            offer: What we are on it.
        """
        if self.phase is not Phase.SHAKEN or self._session is None:
            return
        max_message = self._max_message if self.purpose is Purpose.DATA else MAX_CONTROL_MESSAGE
        self._stream = SpStream(offer, Framing.TCP, max_size=max_message)
        self.phase = Phase.OPEN
        self._tcp.read_into(self._scratch)
        self._tcp.write(self._session.seal([self._stream.data_to_send()]))

    # ---------------------------------------------------------- sending

    def send(self, messages: Iterable[Sequence[Buffer]]) -> None:
        """Send messages, each given as its parts, sealed and written as one batch.

        Raises:
            SpLimitError: A message is too large; nothing was sent.
        """
        if self.phase is not Phase.OPEN or self._session is None or self._stream is None:
            return
        try:
            sealed = self._session.seal(_framed(self._stream.encoder, messages))
        except SessionError as error:
            self.end(LinkEnd(error.outcome, error.detail))
            return
        self._tcp.write(sealed)
        if self._session.exhausted:
            self.end(LinkEnd(Outcome.EXHAUSTED, "the session's keys are used up"))

    # ----------------------------------------------------------- ending

    def end(self, end: LinkEnd) -> None:
        """End this connection, once; later calls do nothing.

        Within a session the ending is said, sealed, unless the peer is gone or
        has said its own.

        The board is told at once, the socket goes when the peer has read it or
        after :data:`LINGER` seconds; a peer that is ``SILENT`` is not waited for.
        """
        if self.phase in (Phase.ENDING, Phase.GONE):
            return
        self.phase = Phase.ENDING
        self.end_reason = end
        self.unlimit()
        if end.outcome is Outcome.BROKEN and not end.by_peer:
            self._tcp.abort()
        elif end.outcome is Outcome.SILENT and not end.by_peer:
            if self._session is not None:
                self._tcp.write(self._session.seal_close(end))  # read when it goes on, if it ever does
            self._tcp.abort()
        else:
            if self._session is not None and not end.by_peer:
                self._tcp.write(self._session.seal_close(end))
            if end.by_peer or not (self.dialled or self._peer_stood_by):
                self._tcp.close()  # the peer waits for us, or is a stranger, who is not waited for
            else:
                self._tcp.finish_writing()
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._tcp.abort)
        self.board.ended(self, end)

    def fail(self, end: LinkEnd) -> None:
        """End before there was a socket."""
        self.end(end)
        self.lost(None)

    def _out_of_time(self) -> None:
        self._timer = None
        if self._timer_end is not None:
            self.end(self._timer_end)

    # ---------------------------------------- for the TCP connection

    def connected(self, connection: TcpConnection) -> None:
        if self.phase is Phase.ENDING:  # ended while the event loop was setting it up
            connection.abort()
        elif self._initiator is not None:
            connection.write([self._initiator.first])

    def received(self, data: memoryview) -> int:
        if self.phase is Phase.SHAKING:
            self._shake(data)
            return len(data)
        if self.phase in (Phase.ENDING, Phase.GONE) or self._session is None:
            return len(data)
        received: list[Received] = []
        failure: SessionError | None = None
        used = len(data)
        try:
            used = self._session.open(data, received)
        except SessionError as error:
            failure = error
        self._take(received)
        if failure is not None:
            self.end(LinkEnd(failure.outcome, failure.detail))
        elif self.phase is Phase.SHAKEN and len(data) - used >= HANDSHAKE_BYTES:
            self.end(LinkEnd(Outcome.VIOLATION, "a long record before the connection was settled"))
            return len(data)
        elif self._session.exhausted and self.phase is Phase.OPEN:
            self.end(LinkEnd(Outcome.EXHAUSTED, "the session's keys are used up"))
        return used

    def writable(self) -> None:
        if self.phase is Phase.OPEN:
            self.board.writable(self)

    def finished(self) -> None:
        if self.phase is Phase.ENDING:
            self._tcp.close()
        else:
            self.end(LinkEnd(Outcome.BROKEN, self._where("the peer closed the connection")))

    def lost(self, error: Exception | None) -> None:
        detail = "the connection was lost" if error is None else f"the connection was lost: {_reason(error)}"
        self.end(LinkEnd(Outcome.BROKEN, self._where(detail)))
        self.phase = Phase.GONE
        self.unlimit()
        if not self.closed.done():
            self.closed.set_result(None)

    # ------------------------------------------------------- handshake

    def _shake(self, data: memoryview) -> None:
        assert self._initiator is not None  # accepted connections have it behind them
        try:
            answer = self._initiator.feed(data)
        except Refused as refused:
            self.end(LinkEnd(refused.outcome, refused.detail, refused.by_peer))
            return
        if answer is not None:
            self.peer, self._session = answer
            self.phase = Phase.SHAKEN
            self.board.shaken(self)

    # --------------------------------------------------------- records

    def _take(self, received: list[Received]) -> None:
        board = self.board
        messages: list[bytes] = []
        for item in received:
            if self.phase in (Phase.ENDING, Phase.GONE):
                return
            if isinstance(item, bytes):
                if self._stream is None:
                    self.end(LinkEnd(Outcome.VIOLATION, "data before the connection was settled"))
                    return
                try:
                    messages += self._stream.receive(item)
                except WireError as error:
                    self.end(LinkEnd(Outcome.VIOLATION, str(error)))
                    return
            elif isinstance(item, Settled):
                if self._peer_stood_by:
                    self.end(LinkEnd(Outcome.VIOLATION, "settled twice"))
                    return
                self._peer_stood_by = True
                board.stood_by(self, item.generation)
            else:
                if messages:
                    board.messages(self, messages)
                    messages = []
                self.end(item)
                return
        if messages:
            board.messages(self, messages)

    def _where(self, detail: str) -> str:
        if self.phase is Phase.SHAKING:
            return f"{detail} during the handshake"
        if self.phase is Phase.SHAKEN:
            return f"{detail} before the link was settled"
        return f"{detail} without saying so"


def _framed(encoder: MessageEncoder, messages: Iterable[Sequence[Buffer]]) -> list[Buffer]:
    """Frame messages. Small ones are joined first: a copy of a few hundred bytes costs less than a call."""
    buffers: list[Buffer] = []
    small: list[bytes] = []
    for parts in messages:
        last = parts[-1]
        if len(last) <= _SMALL:
            small.append(last if len(parts) == 1 and type(last) is bytes else b"".join(parts))
            continue
        if small:
            buffers += encoder.encode_many(small)
            small = []
        buffers += encoder.encode(*parts)
    if small:
        buffers += encoder.encode_many(small)
    return buffers


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__
