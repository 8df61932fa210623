"""The PAIR1 header: a hop count before each body.

Layout: one u32, big-endian, 1 on the first hop, raised by every forwarder.
A message that made more hops than allowed goes round in circles: it is dropped
without closing the pipe. A message too short for the header is malformed, and
the pipe is closed.

This is the plain form, one message at a time. The message decoder does the same
in its own pass over the bytes (``hop_limit``), where speed matters.
"""

from __future__ import annotations

from typing import Final

from irisd.sp.errors import SpError, SpFault

PAIR1_HEADER_SIZE: Final = 4
DEFAULT_HOP_LIMIT: Final = 8
"""The default of every implementation, for PAIR1 and for backtraces."""
MAX_HOP_LIMIT: Final = 15
"""nng refuses a higher setting; staying inside keeps topologies mixable."""

FIRST_HOP: Final = b"\x00\x00\x00\x01"
"""The header of every message that was not forwarded: all that an endpoint ever sends."""


def check_hop_limit(hop_limit: int) -> int:
    """Return ``hop_limit`` if it lies in 1..15.

    Raises:
        ValueError: It does not.
    """
    if not 1 <= hop_limit <= MAX_HOP_LIMIT:
        raise ValueError(f"a hop limit lies between 1 and {MAX_HOP_LIMIT}, not {hop_limit}")
    return hop_limit


def split_pair1(message: bytes, hop_limit: int = DEFAULT_HOP_LIMIT) -> bytes | None:
    """Take the header off a message.

    Returns:
        The body, or ``None`` for a message to drop: it made more than
        ``hop_limit`` hops (which covers the counts above 255 that SP forbids).

    Raises:
        SpError: ``MALFORMED``, shorter than its header.
    """
    if len(message) < PAIR1_HEADER_SIZE:
        raise SpError(SpFault.MALFORMED, f"a PAIR1 message of {len(message)} bytes has no room for its header")
    hops = int.from_bytes(message[:PAIR1_HEADER_SIZE])
    return None if hops > hop_limit else message[PAIR1_HEADER_SIZE:]
