"""PAIR1 of the Scalability Protocols over the ipc mapping (pure): how batches travel on the local lane.

    both ways, once      00 53 50 00 00 11 00 00
    then, big-endian     01 | u64 size of what follows | u32 1 | body

Bodies are handed out as views of the buffer they were read into, so what is in them is copied once: by whoever cuts
it out.
"""

from __future__ import annotations

import struct
from typing import Final

from iris_client._frames import ProtocolError
from iris_client._model import KiB

HELLO: Final = b"\x00SP\x00\x00\x11\x00\x00"
PREFIX_BYTES: Final = 13

_PREFIX: Final = struct.Struct(">BQI")
_HEADER_BYTES: Final = 4  # counted by the size
_COUNTED_AT: Final = PREFIX_BYTES - _HEADER_BYTES
READ_BYTES: Final = 512 * KiB
"""Room to read into, once reads fill it; more only while a message does not fit."""
LEAST_ROOM: Final = 16 * KiB
"""Room to begin with: an app that is told little holds little."""


def prefix(size: int) -> bytes:
    """What goes before a body of ``size`` bytes."""
    return _PREFIX.pack(1, size + _HEADER_BYTES, 1)


class Inbox:
    """Cuts a stream into bodies, however it arrives.

    Read into :meth:`space`, say so with :meth:`filled`, then take bodies with :meth:`next` until there is none.

    Invariants:
        - it holds :data:`LEAST_ROOM`, four times as much whenever a read fills it, up to :data:`READ_BYTES`; or twice
          what came of the message under way

    Args:
        max_size: Largest body taken, in bytes.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._room = LEAST_ROOM
        self._view = memoryview(bytearray(self._room))
        self._start = self._end = 0  # what came and was not handed out
        self._wanted = 0  # bytes of the message at the start, prefix included; 0 while that is unknown

    def space(self) -> memoryview:
        """Where to read to next; never empty. Bodies handed out are gone."""
        start, end = self._start, self._end
        if start == end:
            if len(self._view) != self._room:
                self._view = memoryview(bytearray(self._room))
            self._start = self._end = 0
            return self._view
        room = len(self._view)
        if end == room or start + self._wanted > room:
            have = end - start
            into = self._view
            if have > room // 2:
                into = memoryview(bytearray(2 * room))
            into[:have] = self._view[start:end]
            self._view, self._start, self._end = into, 0, have
        return self._view[self._end :]

    def filled(self, count: int) -> None:
        """Take note of ``count`` bytes read."""
        self._end += count
        if self._end == len(self._view):
            self._room = min(READ_BYTES, 4 * self._room)

    def next(self) -> memoryview | None:
        """The next whole body, valid until :meth:`space`; None when there is none yet.

        Raises:
            ProtocolError: What came is no such message, or too large.
        """
        start, have = self._start, self._end - self._start
        if have < PREFIX_BYTES:
            self._wanted = 0
            if have and self._view[start] != 1:
                raise ProtocolError(f"an ipc message of type {self._view[start]}, only 1 exists")
            return None
        kind, size, hops = _PREFIX.unpack_from(self._view, start)
        if kind != 1 or hops != 1 or size < _HEADER_BYTES:
            raise ProtocolError(f"not a PAIR1 message: type {kind}, {size} bytes, {hops} hops")
        if size - _HEADER_BYTES > self._max_size:
            raise ProtocolError(f"a message of {size} bytes, the limit is {self._max_size}")
        wanted = _COUNTED_AT + size
        if have < wanted:
            self._wanted = wanted
            return None
        self._start = stop = start + wanted
        self._wanted = 0
        return self._view[start + PREFIX_BYTES : stop]
