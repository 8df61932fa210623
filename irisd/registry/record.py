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

    __slots__ = ("filters", "group", "record")

    def __init__(self, record: Record, group: str) -> None:
        self.record = record
        self.group = group
        self.filters: dict[str, Subscribers] = {}

    def claim(self, filter: str) -> Claim | None:
        """What is claimed of a filter."""
        held = self.filters.get(filter)
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
        filters = [(audience, list(audience.filters)) for audience in self.audiences.values()]
        for cluster in clusters:
            claim = self.clusters.get(cluster)
            if claim is not None:
                yield claim
        for audience, names in filters:
            for filter in names:
                claim = audience.claim(filter)
                if claim is not None:
                    yield claim
