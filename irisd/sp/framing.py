"""Messages <-> bytes of a stream, for the tcp and the ipc mapping.

Layout of one message, big-endian::

    tcp (and inside an encrypted session):    u64 size | protocol header | body
    ipc (Unix sockets):                    01 u64 size | protocol header | body

``size`` counts header and body; zero is legal. There is no padding, no
keep-alive and no end marker.

Each byte is looked at once and copied at most once more than its message needs:
chunks of one large message are kept as they came and joined when the last one is
in. Nothing is allocated because a length field says so; what is held never
exceeds what has arrived.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import Enum
from typing import Final, TypeAlias

from irisd.sp.errors import SpError, SpFault, SpLimitError
from irisd.sp.pair1 import PAIR1_HEADER_SIZE, check_hop_limit

Buffer: TypeAlias = bytes | bytearray | memoryview

DEFAULT_MAX_SIZE: Final = 1024 * 1024
"""Bytes. What nanomsg and mangos accept unless told otherwise."""

_IN_BAND: Final = 1
_SIZE_WIDTH: Final = 8
_SMALL_CHUNK: Final = 4096
"""Below this many bytes chunks are gathered in one buffer: a peer that sends byte
by byte must not cost an object per byte."""


class Framing(Enum):
    """How a mapping delimits messages."""

    TCP = "tcp"
    IPC = "ipc"


class MessageDecoder:
    """Cuts a byte stream into messages, however the stream itself was cut.

    Invariants:
        - inside a message (``_missing > 0``) no prefix is pending (``_prefix`` is empty)
        - bytes held never exceed ``max_size`` plus one prefix
        - after an error every feed raises that error again

    Args:
        framing: The mapping in use.
        max_size: Largest ``size`` accepted, in bytes, protocol header included.
        hop_limit: ``None`` gives whole messages. A number (1..15) says that this
            is PAIR1: its header is checked and taken off in the same pass,
            because doing so afterwards would copy every body twice.
    """

    def __init__(self, framing: Framing, *, max_size: int = DEFAULT_MAX_SIZE, hop_limit: int | None = None) -> None:
        if max_size < 0:
            raise ValueError(f"max_size is a size in bytes, not {max_size}")
        self._max_size = max_size
        self._hop_limit = None if hop_limit is None else check_hop_limit(hop_limit)
        self._is_ipc = framing is Framing.IPC
        # Where the counted part begins, and where the body does, from the message's first byte.
        self._counted_at = _SIZE_WIDTH + self._is_ipc
        self._header_size = 0 if hop_limit is None else PAIR1_HEADER_SIZE
        self._body_at = self._counted_at + self._header_size
        self._layout = struct.Struct(f">{'x' * self._is_ipc}Q{'I' if self._header_size else ''}")

        self._prefix = b""  # an incomplete prefix
        self._parts: list[bytes | bytearray] | None = None  # of an incomplete body; None: it is being dropped
        self._missing = 0  # bytes the incomplete body still lacks
        self._error: SpError | None = None
        self.hop_drops = 0
        """PAIR1 messages dropped because they made too many hops."""

    @property
    def held(self) -> int:
        """Bytes of an incomplete message held at the moment."""
        return len(self._prefix) + sum(map(len, self._parts or ()))

    @property
    def is_between_messages(self) -> bool:
        """Whether the stream may end here without cutting a message short."""
        return not self._missing and not self._prefix

    def feed(self, data: Buffer) -> list[bytes]:
        """Take bytes; return the messages they complete, in order.

        Args:
            data: Anything, of any length. ``bytes`` may be kept until their
                message is complete; mutable buffers are copied at once and may
                be reused by the caller afterwards.

        Raises:
            SpError: ``TOO_LARGE``, ``NOT_IN_BAND`` or ``MALFORMED``, as soon as
                the bytes that show it are in. Messages completed by the same
                feed are lost with it: the stream is broken and must be closed.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        chunk = data if type(data) is bytes else bytes(data)
        messages: list[bytes] = []
        try:
            position = self._resume(chunk, messages) if self._missing or self._prefix else 0
            if not self._missing and not self._prefix:
                self._split(chunk, position, messages)
        except SpError as error:
            self._error = error
            self._prefix, self._parts, self._missing = b"", None, 0
            raise
        return messages

    def _split(self, chunk: bytes, position: int, messages: list[bytes]) -> None:
        """Cut out the messages that lie wholly in the chunk. The hot loop: locals, no calls that are not needed."""
        unpack = self._layout.unpack_from
        counted_at, body_at, is_ipc = self._counted_at, self._body_at, self._is_ipc
        least, max_size, hop_limit = self._header_size, self._max_size, self._hop_limit
        append = messages.append
        end = len(chunk)
        last_start = end - body_at
        while position <= last_start:
            if is_ipc and chunk[position] != _IN_BAND:
                raise self._not_in_band(chunk[position])
            if hop_limit is None:
                (size,) = unpack(chunk, position)
                is_kept = True
            else:
                size, hops = unpack(chunk, position)
                is_kept = hops <= hop_limit
            if not least <= size <= max_size:
                raise self._too_large(size) if size > max_size else self._headless(size)
            stop = position + counted_at + size
            if stop > end:
                self._open(stop - end, chunk[position + body_at :] if is_kept else None)
                return
            if is_kept:
                append(chunk[position + body_at : stop])
            else:
                self.hop_drops += 1
            position = stop
        if position < end:
            self._prefix = chunk[position:]
            self._check_prefix()

    def _resume(self, chunk: bytes, messages: list[bytes]) -> int:
        """Carry on with what the last feed left unfinished; return how much of the chunk that took."""
        taken = 0
        if self._prefix:
            taken = self._body_at - len(self._prefix)
            self._prefix += chunk[:taken]
            size = self._check_prefix()
            if len(self._prefix) < self._body_at:
                return len(chunk)
            is_kept = self._hop_limit is None or self._layout.unpack(self._prefix)[1] <= self._hop_limit
            self._prefix = b""
            self._open(size - self._header_size, b"" if is_kept else None)
        available = len(chunk) - taken
        if available < self._missing:
            self._missing -= available
            self._gather(chunk[taken:] if taken else chunk)
            return len(chunk)
        stop = taken + self._missing
        if self._parts is None:
            self.hop_drops += 1
        else:
            messages.append(b"".join([*self._parts, memoryview(chunk)[taken:stop]]))
        self._parts, self._missing = None, 0
        return stop

    def _open(self, missing: int, arrived: bytes | None) -> None:
        """Begin a body that is not complete yet; ``None`` for one that will be dropped."""
        self._missing = missing
        self._parts = None if arrived is None else []
        if arrived:
            self._gather(arrived)

    def _gather(self, arrived: bytes) -> None:
        parts = self._parts
        if parts is None or not arrived:
            return
        if len(arrived) >= _SMALL_CHUNK:
            parts.append(arrived)
        elif parts and isinstance(parts[-1], bytearray):
            parts[-1] += arrived
        else:
            parts.append(bytearray(arrived))

    def _check_prefix(self) -> int:
        """Refuse a pending prefix at the first byte that condemns it; return the size, 0 while it is unknown."""
        prefix = self._prefix
        if self._is_ipc and prefix[0] != _IN_BAND:
            raise self._not_in_band(prefix[0])
        if len(prefix) < self._counted_at:
            return 0
        size = int.from_bytes(prefix[self._is_ipc : self._counted_at])
        if size > self._max_size:
            raise self._too_large(size)
        if size < self._header_size:
            raise self._headless(size)
        return size

    def _too_large(self, size: int) -> SpError:
        limit = self._max_size
        return SpError(SpFault.TOO_LARGE, f"a message of {size} bytes, the limit is {limit}", size=size, limit=limit)

    def _headless(self, size: int) -> SpError:
        return SpError(SpFault.MALFORMED, f"a PAIR1 message of {size} bytes has no room for its header", size=size)

    def _not_in_band(self, kind: int) -> SpError:
        return SpError(SpFault.NOT_IN_BAND, f"an ipc message of type {kind}, only {_IN_BAND} exists")


class MessageEncoder:
    """Puts prefixes before messages; bodies pass through untouched.

    What it returns goes to ``writelines`` or ``b"".join`` as it is.

    Args:
        framing: The mapping in use.
        max_size: Largest message the peer accepts, in bytes, protocol header included.
        header: The protocol header of every message, where it never changes
            (``FIRST_HOP`` for PAIR1); it costs nothing then.
    """

    def __init__(self, framing: Framing, *, max_size: int = DEFAULT_MAX_SIZE, header: bytes = b"") -> None:
        self._max_size = max_size
        self._header_size = len(header)
        # The size is the only thing that differs between two prefixes; pack() is given the rest as constants.
        kind = b"\x01" if framing is Framing.IPC else b""
        self._layout = struct.Struct(f">{len(kind)}sQ{len(header)}s")
        self._kind, self._header = kind, header

    def encode(self, *parts: Buffer) -> list[Buffer]:
        """Return one message as buffers: its prefix, then ``parts`` themselves.

        Raises:
            SpLimitError: A message is too large, before anything is sent.
        """
        size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
        return [self._prefix(size), *parts]

    def encode_many(self, bodies: Iterable[bytes]) -> list[Buffer]:
        """Return many messages as buffers, prefix and body in turn.

        Raises:
            SpLimitError: A message is too large; none of them is to be sent then.
        """
        pack, kind, header, header_size = self._layout.pack, self._kind, self._header, self._header_size
        largest = self._max_size - header_size
        buffers: list[Buffer] = []
        append = buffers.append
        for body in bodies:
            size = len(body)
            if size > largest:
                raise self._too_large(size)
            append(pack(kind, size + header_size, header))
            append(body)
        return buffers

    def _prefix(self, body_size: int) -> bytes:
        if body_size + self._header_size > self._max_size:
            raise self._too_large(body_size)
        return self._layout.pack(self._kind, body_size + self._header_size, self._header)

    def _too_large(self, body_size: int) -> SpLimitError:
        size, limit = body_size + self._header_size, self._max_size
        return SpLimitError(f"a message of {size} bytes, the limit is {limit}", wanted=size, limit=limit)
