"""One SP connection over a byte stream (pure): hello first, messages after.

For anything that carries bytes in order: a TCP or Unix socket, or the inside of
an encrypted session. It moves no bytes itself: what comes in is given to
:meth:`SpStream.receive`, what must go out is taken from
:meth:`SpStream.data_to_send` and from the encoder.
"""

from __future__ import annotations

from collections.abc import Iterable

from irisd.sp.endpoint import EndpointType
from irisd.sp.errors import SpError
from irisd.sp.framing import DEFAULT_MAX_SIZE, Buffer, Framing, MessageDecoder, MessageEncoder
from irisd.sp.hello import HelloDecoder, encode_hello
from irisd.sp.pair1 import DEFAULT_HOP_LIMIT, FIRST_HOP


class SpStream:
    """Hello, framing and PAIR1 headers of one connection.

    With one endpoint on offer its hello is ready to send at once. With several
    (many protocols on one listening port) the peer's hello decides which one we
    are, and ours is ready after it.

    Invariants:
        - ``peer`` is known if and only if messages may flow, and is then ``local.peer``

    Args:
        offer: The endpoints this side may be.
        framing: The mapping in use.
        max_size: Largest message either way, in bytes, protocol header included.
        hop_limit: For PAIR1, how many hops a message may have made (1..15).
    """

    def __init__(
        self,
        offer: EndpointType | Iterable[EndpointType],
        framing: Framing,
        *,
        max_size: int = DEFAULT_MAX_SIZE,
        hop_limit: int = DEFAULT_HOP_LIMIT,
    ) -> None:
        offers = {offer} if isinstance(offer, EndpointType) else set(offer)
        self._hello_decoder = HelloDecoder(endpoint.peer for endpoint in offers)
        self._framing, self._max_size, self._hop_limit = framing, max_size, hop_limit
        self._decoder: MessageDecoder | None = None
        self._encoder: MessageEncoder | None = None
        self._to_send = b""
        self._error: SpError | None = None
        self.local: EndpointType | None = None
        """What we are on this connection; ``None`` until settled."""
        self.peer: EndpointType | None = None
        """What the peer is; ``None`` until its hello is in."""
        if len(offers) == 1:
            self._settle(offers.pop())

    @property
    def encoder(self) -> MessageEncoder:
        """The encoder for messages to this peer.

        Raises:
            RuntimeError: Several endpoints are on offer and the peer has not spoken yet.
        """
        if self._encoder is None:
            raise RuntimeError("which protocol is spoken here is settled by the peer's hello, and it is not in yet")
        return self._encoder

    @property
    def hop_drops(self) -> int:
        """PAIR1 messages dropped because they made too many hops."""
        return 0 if self._decoder is None else self._decoder.hop_drops

    def data_to_send(self) -> bytes:
        """Return bytes that must go out before any message, once."""
        data, self._to_send = self._to_send, b""
        return data

    def receive(self, data: Buffer) -> list[bytes]:
        """Take bytes from the peer; return the messages they complete, in order.

        PAIR1 messages come without their header; all others as they are.

        Raises:
            SpError: The peer broke the protocol: close the connection. Every
                later call raises it again.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        try:
            if self._decoder is not None:
                return self._decoder.feed(data)
            greeting = self._hello_decoder.feed(bytes(data))
            if greeting is None:
                return []
            self.peer, rest = greeting
            local = self.peer.peer
            if self.local is None:
                self._settle(local)
            hop_limit = self._hop_limit if local is EndpointType.PAIR1 else None
            self._decoder = MessageDecoder(self._framing, max_size=self._max_size, hop_limit=hop_limit)
            return self._decoder.feed(rest)
        except SpError as error:
            self._error = error
            raise

    def send(self, *parts: Buffer) -> list[Buffer]:
        """Return one message as buffers for ``writelines``; ``parts`` themselves are among them, not copied.

        Raises:
            SpLimitError: The message is too large; nothing is to be sent then.
            RuntimeError: As :attr:`encoder`.
        """
        return self.encoder.encode(*parts)

    def _settle(self, local: EndpointType) -> None:
        self.local = local
        self._to_send = encode_hello(local)
        header = FIRST_HOP if local is EndpointType.PAIR1 else b""
        self._encoder = MessageEncoder(self._framing, max_size=self._max_size, header=header)
