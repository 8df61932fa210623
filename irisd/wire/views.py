"""What nodes say of each other <-> bytes (pure): bodies of BELIEFS, VIEW and WANT frames.

Big-endian, entries of one size one after another::

    BELIEFS:  16s node | u64 incarnation | u8 what | u32 age in ms
    VIEW:     32s bits of the buckets it speaks of, then 16s node | u64 incarnation | u64 version
    WANT:     16s node

A body holds at most :data:`MAX_ENTRIES` entries; there may be several frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple, TypeVar

from irisd.model import NodeId
from irisd.wire.protobuf import WireError

T = TypeVar("T")

BUCKETS: Final = 256
MAX_ENTRIES: Final = 512

_BELIEF: Final = struct.Struct(">16sQBI")
_HELD: Final = struct.Struct(">16sQQ")
_MAX_AGE: Final = 0xFFFF_FFFF


class Saying(IntEnum):
    """What is said of a node."""

    HEARD = 2
    """I heard it ``age`` ago."""
    SILENT = 3
    """I should have heard it for ``age``, and did not."""
    DEAD = 4
    LEFT = 5
    ASK = 6
    """As ``SILENT``; and you?"""


class Belief(NamedTuple):
    """One entry of BELIEFS."""

    node: NodeId
    incarnation: int
    saying: int
    """A :class:`Saying`; others are of later releases."""
    age: float = 0.0
    """Seconds."""


class Held(NamedTuple):
    """One entry of VIEW: a record that the sender holds."""

    node: NodeId
    incarnation: int
    version: int


def encode_beliefs(beliefs: Iterable[Belief]) -> list[bytes]:
    """Encode what is believed, as one or more bodies."""
    entries = (_BELIEF.pack(b.node, b.incarnation, b.saying, min(round(b.age * 1000), _MAX_AGE)) for b in beliefs)
    return [b"".join(some) for some in _some(entries)]


def decode_beliefs(body: bytes) -> list[Belief]:
    """Decode a BELIEFS body.

    Raises:
        WireError: It is malformed.
    """
    _check(body, _BELIEF.size, "beliefs")
    return [Belief(node, number, what, age / 1000) for node, number, what, age in _BELIEF.iter_unpack(body)]


def encode_view(held: Iterable[Held], buckets: Iterable[int]) -> list[bytes]:
    """Encode the records held in these buckets, as one or more bodies, each whole for the buckets it names."""
    in_bucket: dict[int, list[bytes]] = {bucket: [] for bucket in buckets}
    for each in held:
        in_bucket[each.node[0]].append(_HELD.pack(*each))
    bodies: list[bytes] = []
    bits, entries = 0, list[bytes]()
    for bucket, some in sorted(in_bucket.items()):
        if entries and len(entries) + len(some) > MAX_ENTRIES:
            bodies.append(bits.to_bytes(BUCKETS // 8) + b"".join(entries))
            bits, entries = 0, []
        bits |= 1 << bucket
        entries += some
    if bits:
        bodies.append(bits.to_bytes(BUCKETS // 8) + b"".join(entries))
    return bodies


def decode_view(body: bytes) -> tuple[list[int], list[Held]]:
    """Decode a VIEW body into the buckets it speaks of and what the sender holds in them.

    Raises:
        WireError: It is malformed.
    """
    head = BUCKETS // 8
    if len(body) < head or (len(body) - head) % _HELD.size:
        raise WireError(f"view: {len(body)} bytes")
    bits = int.from_bytes(body[:head])
    buckets = [bucket for bucket in range(BUCKETS) if bits >> bucket & 1]
    held = [Held(*entry) for entry in _HELD.iter_unpack(body[head:])]
    if any(not bits >> each.node[0] & 1 for each in held):
        raise WireError("view: a node of another bucket")
    return buckets, held


def encode_want(nodes: Iterable[NodeId]) -> list[bytes]:
    """Encode whose records are wanted, as one or more bodies."""
    return [b"".join(some) for some in _some(iter(nodes))]


def decode_want(body: bytes) -> list[NodeId]:
    """Decode a WANT body.

    Raises:
        WireError: It is malformed.
    """
    _check(body, 16, "want")
    return [bytes(body[at : at + 16]) for at in range(0, len(body), 16)]


def _check(body: bytes, size: int, what: str) -> None:
    if len(body) % size or len(body) > size * MAX_ENTRIES:
        raise WireError(f"{what}: {len(body)} bytes are not up to {MAX_ENTRIES} entries of {size}")


def _some(entries: Iterator[T]) -> Iterator[list[T]]:
    some: list[T] = []
    for entry in entries:
        some.append(entry)
        if len(some) == MAX_ENTRIES:
            yield some
            some = []
    if some:
        yield some
