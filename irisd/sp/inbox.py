"""PAIR1 messages of the ipc mapping, cut out of the buffer they are read into.

:class:`MessageDecoder` is given bytes; here the owner of a socket asks where to
read to, and a body is copied once between the kernel and whoever gets it. What
lies in whole messages is read into a :class:`Scratch` that all connections of a
loop share, since each read is over before the next begins. Only a connection in
the middle of a message has memory of its own.
"""

from __future__ import annotations

import struct
from typing import Final

from irisd.sp.errors import SpError, SpFault
from irisd.sp.pair1 import PAIR1_HEADER_SIZE

_PREFIX: Final = struct.Struct(">BQI")
_IN_BAND: Final = 1
_BODY_AT: Final = _PREFIX.size
_COUNTED_AT: Final = _BODY_AT - PAIR1_HEADER_SIZE
_LEAST_ROOM: Final = 16 * 1024


class Scratch:
    """Where a loop's connections read to, one at a time.

    Args:
        size: In bytes; the most that one read brings.
    """

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))


class Inbox:
    """One connection's reads.

    Read into :meth:`space`, then say so with :meth:`filled` before anybody else
    reads into the same scratch.

    Invariants:
        - it holds memory only while a message is incomplete, and at most twice what came of it (16 KiB at least)
        - after an error every :meth:`filled` raises that error again

    Args:
        scratch: What it shares with others.
        max_size: Largest ``size`` accepted, in bytes, protocol header included.
    """

    __slots__ = ("_error", "_have", "_max_size", "_own", "_scratch", "_wanted")

    def __init__(self, scratch: Scratch, *, max_size: int) -> None:
        self._scratch = scratch
        self._max_size = max_size
        self._own: memoryview | None = None  # holds the beginning of a message
        self._have = 0  # bytes of it
        self._wanted = 0  # bytes it has in all, prefix included; 0 while that is unknown
        self._error: SpError | None = None

    @property
    def is_between_messages(self) -> bool:
        """Whether the stream may end here without cutting a message short."""
        return self._own is None

    def space(self) -> memoryview:
        """Where to read to next; never empty."""
        own = self._own
        if own is None:
            return self._scratch.view
        if self._have == len(own):
            self._own = own = _grown(own, self._have, self._wanted)
        return own[self._have :]

    def filled(self, count: int) -> bytes:
        """Take note of ``count`` bytes read; return the bodies they complete, one after another.

        Raises:
            SpError: ``NOT_IN_BAND``, ``TOO_LARGE`` or ``MALFORMED``: close the connection.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        try:
            return self._cut(count)
        except SpError as error:
            self._error, self._own = error, None
            raise

    def _cut(self, count: int) -> bytes:
        own = self._own
        if own is None:
            view, end = self._scratch.view, count
        else:
            view, end = own, self._have + count
        bodies: list[memoryview] = []
        at, wanted = 0, 0
        while end - at >= _BODY_AT:
            kind, size, hops = _PREFIX.unpack_from(view, at)
            if kind != _IN_BAND:
                raise SpError(SpFault.NOT_IN_BAND, f"an ipc message of type {kind}, only {_IN_BAND} exists")
            if size > self._max_size:
                limit = self._max_size
                raise SpError(
                    SpFault.TOO_LARGE, f"a message of {size} bytes, the limit is {limit}", size=size, limit=limit
                )
            if size < PAIR1_HEADER_SIZE or hops != 1:
                raise SpError(SpFault.MALFORMED, f"a message of {size} bytes after {hops} hops, where there are none")
            stop = at + _COUNTED_AT + size
            if stop > end:
                wanted = stop - at
                break
            bodies.append(view[at + _BODY_AT : stop])
            at = stop
        if at < end and view[at] != _IN_BAND:
            raise SpError(SpFault.NOT_IN_BAND, f"an ipc message of type {view[at]}, only {_IN_BAND} exists")
        joined = b"".join(bodies)
        self._keep(view, at, end, wanted)
        return joined

    def _keep(self, view: memoryview, at: int, end: int, wanted: int) -> None:
        """Hold the beginning of a message, until its rest is in."""
        have = end - at
        self._have, self._wanted = have, wanted
        if not have:
            self._own = None
        elif view is not self._own or at:
            self._own = _grown(view[at:end], have, wanted)


def _grown(view: memoryview, have: int, wanted: int) -> memoryview:
    """Room for twice as much, though not for more than the message has."""
    room = max(2 * have, _LEAST_ROOM)
    fresh = memoryview(bytearray(min(room, wanted) if wanted > have else room))
    fresh[:have] = view[:have]
    return fresh
