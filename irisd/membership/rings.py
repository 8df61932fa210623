"""Who watches whom when a mesh is too large for everybody to watch everybody (pure).

All nodes stand on several rings, each in an order of its own that hashing
their ids gives. A node is watched by its two neighbours on every ring. So each
has the same number of watchers, both sides of a pair know that they are one
without a word, and when watchers die the next ones take their place.

Source: the K rings of observers and subjects of Rapid (Suresh et al., "Stable
and Consistent Membership at Scale with Rapid", 2018). ``docs/decisions`` says
why this and not rendezvous hashing.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from irisd.model import NodeId

RINGS: Final = 6
"""A node has at most twice as many watchers."""
SPREADING_RINGS: Final = 2
"""News travel along these; heartbeats find what they miss."""

_POSITIONS: Final = struct.Struct(f">{RINGS}Q")
_AROUND: Final = (1 << 64) - 1


@lru_cache(maxsize=16_384)
def positions(node: NodeId) -> tuple[int, ...]:
    """Where a node stands on each ring."""
    return _POSITIONS.unpack(blake2b(node, digest_size=_POSITIONS.size).digest())


class Rings:
    """The neighbours of one node, kept up to date as others come and go.

    Args:
        own: Whose.
    """

    def __init__(self, own: NodeId) -> None:
        self._own = own
        self._at = positions(own)
        self._next: list[tuple[int, NodeId] | None] = [None] * RINGS  # distance clockwise, the least
        self._last: list[tuple[int, NodeId] | None] = [None] * RINGS  # distance clockwise, the greatest
        self._neighbours: dict[NodeId, None] | None = {}
        self._spreading: frozenset[NodeId] = frozenset()

    @property
    def neighbours(self) -> dict[NodeId, None]:
        """Whom this node watches, and who watches it: a set with an order. Not to be changed."""
        if self._neighbours is None:
            both = [near[1] for pair in zip(self._next, self._last, strict=True) for near in pair if near is not None]
            self._neighbours = dict.fromkeys(both)
            self._spreading = frozenset(both[: 2 * SPREADING_RINGS])
        return self._neighbours

    def spreads_to(self, node: NodeId) -> bool:
        """Whether news of others are passed on to this neighbour at once."""
        return node in self.neighbours and node in self._spreading

    def add(self, node: NodeId) -> bool:
        """A node is there; return whether it is a neighbour."""
        near = False
        for ring, (at, own) in enumerate(zip(positions(node), self._at, strict=True)):
            place = ((at - own) & _AROUND, node)
            following, preceding = self._next[ring], self._last[ring]
            if following is None or place < following:
                self._next[ring] = place
                near = True
            if preceding is None or place > preceding:
                self._last[ring] = place
                near = True
        if near:
            self._neighbours = None
        return near

    def remove(self, node: NodeId, others: Collection[NodeId]) -> bool:
        """A node is gone; return whether it was a neighbour. ``others`` are all that are left."""
        if node not in self.neighbours:
            return False
        self._next, self._last = [None] * RINGS, [None] * RINGS
        self._neighbours = None
        for other in others:
            if other not in (node, self._own):
                self.add(other)
        return True

    def would_be_near(self, node: NodeId) -> bool:
        """Whether a node that is not there would be a neighbour."""
        for at, own, following, preceding in zip(positions(node), self._at, self._next, self._last, strict=True):
            place = ((at - own) & _AROUND, node)
            if following is None or preceding is None or place < following or place > preceding:
                return True
        return False


def watchers(node: NodeId, others: Collection[NodeId]) -> list[NodeId]:
    """Who watches a node, among all that are there."""
    rings = Rings(node)
    for other in others:
        if other != node:
            rings.add(other)
    return list(rings.neighbours)
