"""The registry (pure): every node's claims, and what they add up to.

Invariants:
    - a node's claims are only ever changed by that node's own record
    - ``serving`` and ``match`` speak only of claims whose node is routable
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from irisd.model import Claim, NodeId
from irisd.registry.topics import MAX_REMEMBERED, TopicIndex

MAX_CLAIMS = 1_000_000
"""Most claims one node's record may hold."""


class Match(NamedTuple):
    """Where a topic's messages go."""

    everyone: tuple[NodeId, ...]
    """Nodes with a subscriber that wants every message."""
    groups: dict[str, dict[NodeId, int]]
    """For each group: its nodes, and how many members each has."""
    unreachable: tuple[tuple[NodeId, str], ...]
    """(node, group) of those that would get messages if they could be reached: for counting losses."""


class OwnRecord:
    """The record this node authors. ``version`` rises with every change."""

    def __init__(self) -> None:
        self.version = 0
        self._claims: dict[tuple[str, str, str], Claim] = {}

    def __len__(self) -> int:
        return len(self._claims)

    def claims(self) -> list[Claim]:
        """All of it, for a peer that knows nothing yet."""
        return list(self._claims.values())

    def set(self, claim: Claim) -> bool:
        """Claim (or, with no members, withdraw); False if nothing changed."""
        before = self._claims.get(claim.key)
        if before == claim or (before is None and not claim.members):
            return False
        if claim.members:
            self._claims[claim.key] = claim
        else:
            del self._claims[claim.key]
        self.version += 1
        return True


@dataclass(slots=True)
class _NodeClaims:
    version: int = 0
    routable: bool = True
    claims: dict[tuple[str, str, str], Claim] = field(default_factory=dict)


class Registry:
    """What all nodes of the service claim, this node's own claims included."""

    def __init__(self) -> None:
        self._nodes: dict[NodeId, _NodeClaims] = {}
        self._clusters: dict[str, dict[NodeId, Claim]] = {}
        self._topics: TopicIndex[tuple[NodeId, Claim]] = TopicIndex()
        self._matches: dict[str, Match] = {}

    def learn(self, node: NodeId, version: int, claims: Iterable[Claim], *, full: bool = False) -> str | None:
        """Take in claims of a node's record, which they bring to ``version``. The node is routable from here on.

        Args:
            full: These are the first claims of a whole record: forget the others.

        Returns:
            None, or the rule that was broken.
        """
        held = self._nodes.setdefault(node, _NodeClaims())
        if full:
            self.forget(node)
            held = self._nodes[node] = _NodeClaims()
        for claim in claims:
            before = held.claims.pop(claim.key, None)
            if before is not None:
                self._withdraw(node, before)
            if claim.members:
                if len(held.claims) >= MAX_CLAIMS:
                    return f"record: more than {MAX_CLAIMS} claims"
                held.claims[claim.key] = claim
                self._enter(node, claim)
        held.version = version
        return None

    def version(self, node: NodeId) -> int:
        """The version of a node's record held here; 0 if none is."""
        held = self._nodes.get(node)
        return held.version if held else 0

    def unreachable(self, node: NodeId) -> None:
        """A node cannot be reached: nothing is routed there, what its subscribers miss can still be counted."""
        held = self._nodes.get(node)
        if held is None or not held.routable:
            return
        held.routable = False
        for claim in held.claims.values():
            if claim.cluster:
                self._withdraw(node, claim)
        self._matches.clear()

    def forget(self, node: NodeId) -> None:
        """Drop a node and all it claimed."""
        held = self._nodes.pop(node, None)
        if held is not None:
            for claim in held.claims.values():
                if held.routable or claim.topic:
                    self._withdraw(node, claim)

    def serving(self, cluster: str) -> dict[NodeId, Claim]:
        """The routable nodes that have members of a cluster, and their claims. Not to be changed."""
        return self._clusters.get(cluster, {})

    def match(self, topic: str) -> Match:
        """Where messages of a topic go."""
        match = self._matches.get(topic)
        if match is None:
            if len(self._matches) >= MAX_REMEMBERED:
                self._matches.clear()
            match = self._matches[topic] = self._add_up(topic)
        return match

    def clusters(self) -> list[tuple[str, dict[NodeId, Claim]]]:
        """Every cluster that has routable members, by name."""
        return sorted(self._clusters.items())

    def topics(self) -> dict[tuple[str, str], dict[NodeId, int]]:
        """Every (filter, group), with the nodes that subscribe and how many subscribers each has."""
        topics: dict[tuple[str, str], dict[NodeId, int]] = {}
        for node, held in self._nodes.items():
            for claim in held.claims.values():
                if claim.topic:
                    topics.setdefault((claim.topic, claim.group), {})[node] = claim.members
        return topics

    def _enter(self, node: NodeId, claim: Claim) -> None:
        if claim.cluster:
            self._clusters.setdefault(claim.cluster, {})[node] = claim
        else:
            self._topics.add(claim.topic, (node, claim))
            self._matches.clear()

    def _withdraw(self, node: NodeId, claim: Claim) -> None:
        if claim.cluster:
            nodes = self._clusters[claim.cluster]
            del nodes[node]
            if not nodes:
                del self._clusters[claim.cluster]
        else:
            self._topics.remove(claim.topic, (node, claim))
            self._matches.clear()

    def _add_up(self, topic: str) -> Match:
        everyone: dict[NodeId, None] = {}
        groups: dict[str, dict[NodeId, int]] = {}
        unreachable: dict[tuple[NodeId, str], None] = {}
        missed: dict[str, NodeId] = {}  # one node for each group: one of its members would have had them
        for node, claim in self._topics.match(topic):
            if not self._nodes[node].routable:
                if claim.group:
                    missed.setdefault(claim.group, node)
                else:
                    unreachable[node, ""] = None
            elif claim.group:
                nodes = groups.setdefault(claim.group, {})
                nodes[node] = max(nodes.get(node, 0), claim.members)
            else:
                everyone[node] = None
        unreachable |= {(node, group): None for group, node in missed.items() if group not in groups}
        return Match(tuple(everyone), groups, tuple(unreachable))
