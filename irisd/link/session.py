"""What two nodes say after keys are agreed (pure): sealed records in order.

On the wire, big-endian::

    record:  u16 size, ciphertext        size counts the ciphertext: 16 to 65,535 bytes

A record's plaintext (at most 65,519 bytes) is a piece of the byte stream inside.
An *empty* plaintext announces that the next record is a notice: one byte that
says which, then its body. So the stream costs no copy to tell the two apart.

    1  settle  u64 generation                which of several connections is the link
    2  close   u8 outcome, text              the last record: without it the ending is ``broken``

Unknown notices are skipped: later versions may have more. Both directions
replace their keys every 2^24 records and end before 2^48.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from irisd.errors import WireError
from irisd.link.noise import MAX_MESSAGE, TAG_BYTES, CipherState, NoiseError
from irisd.link.outcome import CODES, MAX_DETAIL_BYTES, OUTCOMES, LinkEnd, Outcome

MAX_PLAINTEXT: Final = MAX_MESSAGE - TAG_BYTES
HEADER_BYTES: Final = 2
MAX_RECORD: Final = HEADER_BYTES + MAX_MESSAGE
REKEY_EVERY: Final = 2**24
LAST_NONCE: Final = 2**48
_RESERVE: Final = 64
"""Records kept back so that a batch under way, and the close after it, can still be said."""

_SETTLE: Final = 1
_CLOSE: Final = 2
_GENERATION: Final = struct.Struct(">BQ")

Bytes = bytes | bytearray | memoryview


class SessionError(WireError):
    """A record does not open or cannot be: the connection is worthless from here on.

    Attributes:
        outcome: ``TAMPERED``, ``VIOLATION`` or ``EXHAUSTED``.
    """

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(outcome.value, detail)
        self.outcome = outcome
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Settled:
    """The first record of either side: it stands by its handshake.

    ``generation`` is 0 while the sender leaves the decision to the other side.
    """

    generation: int


Received = bytes | Settled | LinkEnd
"""A piece of the stream, or a notice."""


class Session:
    """Both directions of one connection.

    Invariants:
        - after a ``LinkEnd`` was received, or an error raised, nothing is received any more
        - what is sealed is sent, in this order: a sealed record that is not sent ends the session

    Args:
        send: Key and counter of our direction.
        receive: Of theirs.
        handshake_hash: Names the conversation; its first 16 bytes bind the data connection.
        rekey_every: Records between two keys, per direction.
        last_nonce: Records one direction may have in all.
    """

    __slots__ = (
        "_awaits_notice",
        "_last_nonce",
        "_receive",
        "_rekey_every",
        "_send",
        "closed",
        "handshake_hash",
    )

    def __init__(
        self,
        send: CipherState,
        receive: CipherState,
        handshake_hash: bytes,
        *,
        rekey_every: int = REKEY_EVERY,
        last_nonce: int = LAST_NONCE,
    ) -> None:
        self._send = send
        self._receive = receive
        self.handshake_hash = handshake_hash
        self._rekey_every = rekey_every
        self._last_nonce = last_nonce
        self._awaits_notice = False
        self.closed = False
        """The peer said its close: what follows is not read."""

    @property
    def exhausted(self) -> bool:
        """Whether it is time to close and link again."""
        return max(self._send.nonce, self._receive.nonce) >= self._last_nonce - _RESERVE

    def seal(self, parts: Iterable[Bytes]) -> list[bytes]:
        """Seal a piece of the stream into as few records as hold it.

        Returns:
            Buffers for ``writelines``, sizes and ciphertexts in turn.

        Raises:
            SessionError: ``EXHAUSTED``.
        """
        sealed: list[bytes] = []
        for plaintext in _pieces(parts):
            sealed += self._record(plaintext)
        return sealed

    def seal_settle(self, generation: int) -> list[bytes]:
        """Seal the first record: we stand by our handshake."""
        return self._record(b"") + self._record(_GENERATION.pack(_SETTLE, generation))

    def seal_close(self, end: LinkEnd) -> list[bytes]:
        """Seal the last record; empty if not even that can be said any more."""
        detail = end.detail.encode()[:MAX_DETAIL_BYTES].decode(errors="ignore").encode()
        try:
            return self._record(b"") + self._record(bytes((_CLOSE, CODES.get(end.outcome, 0))) + detail)
        except SessionError:
            return []

    def open(self, data: memoryview, received: list[Received]) -> int:
        """Open every whole record in ``data``.

        Args:
            data: Bytes from the connection; may be reused afterwards.
            received: What the records hold is appended here, also when an error follows.

        Returns:
            How many bytes were used; the rest is the beginning of a record.

        Raises:
            SessionError: A record does not open or breaks the rules.
        """
        position, end = 0, len(data)
        while not self.closed and end - position >= HEADER_BYTES:
            size = data[position] << 8 | data[position + 1]
            if size < TAG_BYTES:
                raise SessionError(Outcome.TAMPERED, f"a record of {size} bytes cannot be")
            stop = position + HEADER_BYTES + size
            if stop > end:
                break
            plaintext = self._open_record(data[position + HEADER_BYTES : stop])
            position = stop
            if self._awaits_notice:
                self._awaits_notice = False
                self._read_notice(plaintext, received)
            elif plaintext:
                received.append(plaintext)
            else:
                self._awaits_notice = True
        return end if self.closed else position

    def _record(self, plaintext: bytes | memoryview) -> list[bytes]:
        cipher = self._send
        if cipher.nonce >= self._last_nonce:
            raise SessionError(Outcome.EXHAUSTED, "this session's keys are used up")
        ciphertext = cipher.encrypt(plaintext)
        if cipher.nonce % self._rekey_every == 0:
            cipher.rekey()
        return [len(ciphertext).to_bytes(HEADER_BYTES), ciphertext]

    def _open_record(self, ciphertext: memoryview) -> bytes:
        cipher = self._receive
        if cipher.nonce >= self._last_nonce:
            raise SessionError(Outcome.EXHAUSTED, "the peer uses its keys beyond their bound")
        try:
            plaintext = cipher.decrypt(ciphertext)
        except NoiseError:
            raise SessionError(Outcome.TAMPERED, "a record does not open") from None
        if cipher.nonce % self._rekey_every == 0:
            cipher.rekey()
        return plaintext

    def _read_notice(self, notice: bytes, received: list[Received]) -> None:
        if not notice:
            raise SessionError(Outcome.VIOLATION, "an empty notice")
        if notice[0] == _SETTLE:
            if len(notice) < _GENERATION.size:
                raise SessionError(Outcome.VIOLATION, "a settle notice cut short")
            received.append(Settled(_GENERATION.unpack_from(notice)[1]))
        elif notice[0] == _CLOSE:
            self.closed = True
            received.append(_read_close(notice))


def _pieces(parts: Iterable[Bytes]) -> Iterator[bytes | memoryview]:
    """Cut a stream into what records hold. Only what lies across two parts is copied."""
    gathered: list[Bytes] = []
    room = MAX_PLAINTEXT
    for part in parts:
        if len(part) < room:
            gathered.append(part)
            room -= len(part)
            continue
        view = memoryview(part)
        while len(view) >= room:
            piece = view[:room]
            yield b"".join([*gathered, piece]) if gathered else piece
            view = view[room:]
            gathered, room = [], MAX_PLAINTEXT
        if view:
            gathered.append(view)
            room -= len(view)
    if room < MAX_PLAINTEXT:
        yield b"".join(gathered)


def _read_close(notice: bytes) -> LinkEnd:
    code = notice[1] if len(notice) > 1 else 0
    text = notice[2 : 2 + MAX_DETAIL_BYTES].decode(errors="replace")
    detail = "".join(c if c.isprintable() else "?" for c in text)
    return LinkEnd(OUTCOMES.get(code, Outcome.CLOSED), detail, by_peer=True)
