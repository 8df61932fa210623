"""What two nodes say before keys are agreed (pure).

On the wire, big-endian::

    dialling side                                   listening side
    "IRIS" u8 major u8 purpose u16 0 8s key id      the preamble, in the clear; the handshake's prologue
    u16 size, Noise message 1 (greeting)
                                                    "iris" u8 major u8 refusal u16 size
                                                    Noise message 2 (verdict, greeting)

    greeting:  16s node id | 16s expected peer | u64 incarnation | u32 features | 16s binding | u8 size, name | ...
    message 2: u8 verdict, greeting

What follows the name belongs to later versions and is ignored. ``binding`` is
zero on a control connection; on a data connection it is the first 16 bytes of
its control connection's handshake hash.

A refusal in the clear (``refusal`` other than 0, size 0) is a hint for people:
anybody on the path can forge it, so it is reported and nothing else. A verdict
is sealed inside message 2 and binding.

Which credentials a key id stands for is the listener's knowledge (``find``);
the role is taken from there and never from the preamble.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from irisd.errors import WireError
from irisd.keys import KEY_ID_BYTES
from irisd.link.noise import DH_BYTES, TAG_BYTES, HandshakeState, NoiseError
from irisd.link.outcome import CODES, OUTCOMES, Outcome
from irisd.link.session import Session

MAJOR: Final = 1
NODE_ID_BYTES: Final = 16
BINDING_BYTES: Final = 16
NOBODY: Final = bytes(NODE_ID_BYTES)
"""No expectation, and no binding."""
MAX_NAME_BYTES: Final = 255
MAX_MESSAGE_BYTES: Final = 1024
"""Of one handshake message; a greeting of this version needs 364."""

_MAGIC: Final = b"IRIS"
_REPLY_MAGIC: Final = b"iris"
_PREAMBLE: Final = struct.Struct(f">4sBBH{KEY_ID_BYTES}s")
_REPLY: Final = struct.Struct(">4sBBH")
_SIZE: Final = struct.Struct(">H")
_GREETING: Final = struct.Struct(f">{NODE_ID_BYTES}s{NODE_ID_BYTES}sQI{BINDING_BYTES}sB")
_MIN_MESSAGE: Final = DH_BYTES + TAG_BYTES + _GREETING.size

PREAMBLE_BYTES: Final = _PREAMBLE.size


class Purpose(IntEnum):
    """What a connection is for."""

    CONTROL = 1
    DATA = 2


class Refused(WireError):
    """The handshake ends here.

    Attributes:
        outcome: Its name.
        reply: What to send, in the clear, before closing; may be empty.
        by_peer: The other side said so.
    """

    def __init__(self, outcome: Outcome, detail: str, *, reply: bytes = b"", by_peer: bool = False) -> None:
        super().__init__(outcome.value, detail)
        self.outcome = outcome
        self.detail = detail
        self.reply = reply
        self.by_peer = by_peer


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a node says of itself in the handshake."""

    node_id: bytes
    incarnation: int
    name: str
    features: int = 0
    expected: bytes = NOBODY
    """The node we mean to reach; ``NOBODY``: whoever answers."""
    binding: bytes = NOBODY
    """Which control connection this data connection belongs to."""

    def encode(self) -> bytes:
        """The greeting as bytes."""
        name = self.name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").encode()
        head = _GREETING.pack(self.node_id, self.expected, self.incarnation, self.features, self.binding, len(name))
        return head + name

    @classmethod
    def decode(cls, data: bytes) -> Greeting:
        """Read a greeting.

        Raises:
            Refused: ``VIOLATION``, it is cut short or says what cannot be.
        """
        if len(data) < _GREETING.size:
            raise Refused(Outcome.VIOLATION, f"a greeting of {len(data)} bytes")
        node_id, expected, incarnation, features, binding, name_size = _GREETING.unpack_from(data)
        raw = data[_GREETING.size : _GREETING.size + name_size]
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            raise Refused(Outcome.VIOLATION, "a greeting whose name is not UTF-8") from None
        if len(raw) != name_size or not name.isprintable():
            raise Refused(Outcome.VIOLATION, "a greeting whose name is cut short or not printable")
        if node_id == NOBODY or incarnation == 0:
            raise Refused(Outcome.VIOLATION, "a greeting without a node id or an incarnation")
        return cls(node_id, incarnation, name, features, expected, binding)


@dataclass(frozen=True, slots=True)
class PskCredentials:
    """Both nodes hold the service's key: ``Noise_NNpsk0``."""

    psk: bytes = field(repr=False)

    def begin(self, *, initiator: bool, prologue: bytes, ephemeral: bytes = b"") -> HandshakeState:
        """Start a handshake."""
        return HandshakeState("NNpsk0", initiator=initiator, prologue=prologue, ephemeral=ephemeral, psk=self.psk)


@dataclass(frozen=True, slots=True)
class PinnedCredentials:
    """Two federated services, each pinning the other's public key: ``Noise_KK``.

    Raises:
        ValueError: The two are the same: a service does not federate with itself.
    """

    static_private: bytes = field(repr=False)
    static_public: bytes
    remote_static: bytes

    def __post_init__(self) -> None:
        if self.static_public == self.remote_static:
            raise ValueError("the two static keys of a federation must differ")

    def begin(self, *, initiator: bool, prologue: bytes, ephemeral: bytes = b"") -> HandshakeState:
        """Start a handshake."""
        return HandshakeState(
            "KK",
            initiator=initiator,
            prologue=prologue,
            ephemeral=ephemeral,
            static_private=self.static_private,
            remote_static=self.remote_static,
        )


Credentials = PskCredentials | PinnedCredentials


class Initiator:
    """The dialling side.

    Args:
        purpose: What the connection is for.
        key_id: Names the key in the clear.
        credentials: What the key gives.
        greeting: Who we are.
        ephemeral: 32 fresh random bytes.

    Attributes:
        first: What to send at once.
    """

    def __init__(
        self, purpose: Purpose, key_id: bytes, credentials: Credentials, greeting: Greeting, ephemeral: bytes
    ) -> None:
        preamble = _PREAMBLE.pack(_MAGIC, MAJOR, purpose, 0, key_id)
        self._state = credentials.begin(initiator=True, prologue=preamble, ephemeral=ephemeral)
        message = self._state.write_message(greeting.encode())
        self.first = preamble + _SIZE.pack(len(message)) + message
        self._greeting = greeting
        self._buffer = b""

    def feed(self, data: bytes | memoryview) -> tuple[Greeting, Session] | None:
        """Take bytes; return who answered and the session, once the reply is whole.

        Raises:
            Refused: By either side. ``reply`` is empty: there is nothing to say.
        """
        self._buffer += data
        if not _REPLY_MAGIC.startswith(self._buffer[:4]):
            raise Refused(Outcome.BAD_PREAMBLE, "what listens there does not speak irisd's link protocol")
        if len(self._buffer) < _REPLY.size:
            return None
        _, major, refusal, size = _REPLY.unpack_from(self._buffer)
        if refusal:
            raise _hinted(refusal, major)
        if major != MAJOR:
            raise Refused(Outcome.WRONG_VERSION, f"the peer answers in version {major}, this is version {MAJOR}")
        if not _MIN_MESSAGE < size <= MAX_MESSAGE_BYTES:
            raise Refused(Outcome.BAD_PREAMBLE, f"a handshake message of {size} bytes")
        if len(self._buffer) < _REPLY.size + size:
            return None
        if len(self._buffer) > _REPLY.size + size:
            raise Refused(Outcome.VIOLATION, "bytes after the handshake that we did not ask for")
        try:
            payload = self._state.read_message(self._buffer[_REPLY.size :])
        except NoiseError:
            raise Refused(Outcome.WRONG_KEY, "the peer does not hold the service's key") from None
        theirs = Greeting.decode(payload[1:])
        if payload[0]:
            outcome = OUTCOMES.get(payload[0], Outcome.VIOLATION)
            raise Refused(outcome, f"refused by node '{theirs.name}'", by_peer=True)
        if theirs.node_id == self._greeting.node_id:
            raise Refused(Outcome.SELF, "this address is our own")
        if self._greeting.expected not in (NOBODY, theirs.node_id):
            raise Refused(Outcome.MISROUTED, f"another node, '{theirs.name}', answers there")
        return theirs, Session(*self._state.split(), self._state.handshake_hash)


class Responder:
    """The listening side. Nothing it learns may be acted on before the initiator's first record opens.

    Args:
        find: The credentials a key id stands for, or ``None``.

    Attributes:
        purpose: What the connection is for, once the preamble is in.
        key_id: The key it names, likewise.
    """

    def __init__(self, find: Callable[[bytes], Credentials | None]) -> None:
        self._find = find
        self._buffer = b""
        self._state: HandshakeState | None = None
        self.purpose: Purpose | None = None
        self.key_id = b""

    def feed(self, data: bytes | memoryview) -> Greeting | None:
        """Take bytes; return the greeting, once the first message is whole.

        Raises:
            Refused: With what to answer in the clear.
        """
        self._buffer += data
        if self.purpose is None and not self._read_preamble():
            return None
        if len(self._buffer) < PREAMBLE_BYTES + _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self._buffer, PREAMBLE_BYTES)
        if not _MIN_MESSAGE <= size <= MAX_MESSAGE_BYTES:
            raise Refused(Outcome.BAD_PREAMBLE, f"a handshake message of {size} bytes")
        end = PREAMBLE_BYTES + _SIZE.size + size
        if len(self._buffer) < end:
            return None
        if len(self._buffer) > end:
            raise Refused(Outcome.VIOLATION, "bytes before the handshake is done")
        credentials = self._find(self.key_id)
        if credentials is None:
            raise self._wrong_key("we do not hold the key it names")
        # The ephemeral comes with the answer: most first messages of a flood never get one.
        self._state = credentials.begin(initiator=False, prologue=self._buffer[:PREAMBLE_BYTES])
        try:
            payload = self._state.read_message(self._buffer[PREAMBLE_BYTES + _SIZE.size :])
        except NoiseError:
            raise self._wrong_key("it does not hold the key it names") from None
        return Greeting.decode(payload)

    @property
    def first_ephemeral(self) -> bytes:
        """The peer's ephemeral public key, which no two honest first messages share."""
        start = PREAMBLE_BYTES + _SIZE.size
        return self._buffer[start : start + DH_BYTES]

    def answer(self, verdict: Outcome | None, greeting: Greeting, ephemeral: bytes) -> tuple[bytes, Session | None]:
        """Answer the first message.

        Args:
            verdict: Why not, sealed; ``None`` to go on.
            greeting: Who we are.
            ephemeral: 32 fresh random bytes.

        Returns:
            What to send, and the session unless refused.

        Raises:
            Refused: The peer sent a point of low order (``TAMPERED``).
        """
        assert self._state is not None  # feed() gave a greeting
        self._state.set_ephemeral(ephemeral)
        payload = bytes((CODES[verdict] if verdict else 0,)) + greeting.encode()
        try:
            message = self._state.write_message(payload)
        except NoiseError as error:
            raise Refused(Outcome.TAMPERED, str(error)) from None
        reply = _REPLY.pack(_REPLY_MAGIC, MAJOR, 0, len(message)) + message
        if verdict:
            return reply, None
        return reply, Session(*self._state.split(), self._state.handshake_hash)

    def _read_preamble(self) -> bool:
        """Whether the preamble is whole; refuses at the first byte that is wrong."""
        if not _MAGIC.startswith(self._buffer[:4]):
            raise Refused(Outcome.BAD_PREAMBLE, "these bytes are not irisd's link protocol")
        if len(self._buffer) > 4 and self._buffer[4] != MAJOR:
            detail = f"the peer speaks version {self._buffer[4]}, this is version {MAJOR}"
            raise Refused(Outcome.WRONG_VERSION, detail, reply=refusal(Outcome.WRONG_VERSION))
        if len(self._buffer) < PREAMBLE_BYTES:
            return False
        _, _, purpose, zero, self.key_id = _PREAMBLE.unpack_from(self._buffer)
        try:
            self.purpose = Purpose(purpose)
        except ValueError:
            raise Refused(Outcome.BAD_PREAMBLE, f"purpose {purpose} is unknown") from None
        if zero:
            raise Refused(Outcome.BAD_PREAMBLE, "the preamble's reserved bytes are not zero")
        return True

    def _wrong_key(self, detail: str) -> Refused:
        return Refused(Outcome.WRONG_KEY, f"{detail} ({self.key_id.hex()})", reply=refusal(Outcome.WRONG_KEY))


def refusal(outcome: Outcome) -> bytes:
    """A refusal in the clear."""
    return _REPLY.pack(_REPLY_MAGIC, MAJOR, CODES[outcome], 0)


def _hinted(code: int, major: int) -> Refused:
    outcome = OUTCOMES.get(code, Outcome.VIOLATION)
    details = {
        Outcome.WRONG_VERSION: f"the peer speaks version {major}, this is version {MAJOR}",
        Outcome.WRONG_KEY: "the peer does not hold this service's key, or not the one we dial with",
        Outcome.OVERLOADED: "the peer has too many handshakes under way",
    }
    return Refused(outcome, details.get(outcome, f"refused with code {code}"), by_peer=True)
