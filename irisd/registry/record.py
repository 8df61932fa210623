"""What one node claims (pure), held so that a subscription costs little.

Most claims are subscriptions, and most of those are of one subscriber who wants every message: of such a one nothing is
kept here but that its filter is a key. :class:`Claim` objects of subscriptions are made when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from irisd.model import Claim, NodeId

ClaimKey = tuple[str, str, str]
"""Cluster, topic filter, group."""

PART = 65_536
"""Most filters in one dict: one of a million would take 30 ms to grow, at once."""


class Subscribers(NamedTuple):
    """How many there are under one filter and group, and whether some of them must lose nothing."""

    members: int
    blocks: bool


@lru_cache(maxsize=4096)
def subscribers(members: int, blocks: bool) -> Subscribers:
    """The same object for the same numbers: a million subscriptions share a few."""
    return Subscribers(members, blocks)


class Audience:
    """One node's subscribers of one group, or of none: what stands in the index under each of their filters."""

    __slots__ = ("_parts", "group", "record")

    def __init__(self, record: Record, group: str) -> None:
        self.record = record
        self.group = group
        self._parts: list[dict[str, Subscribers]] = [{}]

    def __bool__(self) -> bool:
        return any(self._parts)

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            yield from part

    def part(self, filter: str) -> dict[str, Subscribers]:
        """The dict that a filter is in, or belongs in."""
        roomy = None
        for part in self._parts:
            if filter in part:
                return part
            if roomy is None and len(part) < PART:
                roomy = part
        if roomy is None:
            roomy = {}
            self._parts.append(roomy)
        return roomy

    def get(self, filter: str) -> Subscribers | None:
        """Those under a filter."""
        return self.part(filter).get(filter)

    def pop(self) -> str:
        """Take out any filter; there is one."""
        return next(part for part in self._parts if part).popitem()[0]

    def claim(self, filter: str) -> Claim | None:
        """What is claimed of a filter."""
        held = self.get(filter)
        return Claim(held.members, topic=filter, group=self.group, blocks=held.blocks) if held else None


class Record:
    """All that a node claims.

    Attributes:
        counts: It is whole, and not yet replaced: messages are routed by it.
        clusters: Claims by cluster.
        audiences: Subscribers by group; "": of none.
        blocking: (filter, group) of those that must lose nothing.
    """

    __slots__ = ("audiences", "blocking", "clusters", "counts", "node", "size")

    def __init__(self, node: NodeId, *, counts: bool) -> None:
        self.node = node
        self.counts = counts
        self.clusters: dict[str, Claim] = {}
        self.audiences: dict[str, Audience] = {}
        self.blocking: dict[tuple[str, str], None] = {}
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def get(self, key: ClaimKey) -> Claim | None:
        """The claim with these names."""
        cluster, filter, group = key
        if cluster:
            return self.clusters.get(cluster)
        audience = self.audiences.get(group)
        return audience.claim(filter) if audience is not None else None

    def claims(self) -> Iterator[Claim]:
        """Those there are now, each as it is when its turn comes: what changes meanwhile may be among them or not."""
        clusters = list(self.clusters)
        filters = [(audience, list(audience)) for audience in self.audiences.values()]
        for cluster in clusters:
            claim = self.clusters.get(cluster)
            if claim is not None:
                yield claim
        for audience, names in filters:
            for filter in names:
                claim = audience.claim(filter)
                if claim is not None:
                    yield claim
