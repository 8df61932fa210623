"""The registry (pure): every node's claims, and what they add up to.

Invariants:
    - a node's claims are only ever changed by that node's own record
    - ``serving`` and ``match`` speak only of claims whose node is routable
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from irisd.model import Claim, NodeId
from irisd.registry.topics import MAX_REMEMBERED, TopicIndex

MAX_CLAIMS = 1_000_000
"""Most claims one node's record may hold."""


BlockKey = tuple[NodeId, str, str]
"""Whose, of which filter and group: subscribers that must lose nothing."""


class Blocking(NamedTuple):
    """Whose credit a topic's messages need."""

    everyone: tuple[BlockKey, ...]
    """In an order that is the same at every node."""
    nodes: frozenset[NodeId]
    """Those of ``everyone``."""
    groups: dict[str, dict[NodeId, tuple[BlockKey, ...]]]


class Match(NamedTuple):
    """Where a topic's messages go."""

    everyone: tuple[NodeId, ...]
    """Nodes with a subscriber that wants every message."""
    groups: dict[str, dict[NodeId, int]]
    """For each group: its nodes, and how many members each has."""
    unreachable: tuple[tuple[NodeId, str], ...]
    """(node, group) of those that would get messages if they could be reached: for counting losses."""
    blocking: Blocking | None = None
    """Set when some of its subscribers must lose nothing."""


class OwnRecord:
    """The claims this node makes. ``version`` rises with every change of its record."""

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

    def touch(self) -> None:
        """Something else than a claim has changed."""
        self.version += 1


class Registry:
    """What all nodes of the service claim, this node's own claims included.

    Attributes:
        generation: Rises whenever any ``serving`` changes.
        freed: Claims that made publishers wait and perhaps do so no longer; whoever looks takes them out.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._claims: dict[NodeId, dict[tuple[str, str, str], Claim]] = {}
        self._routable: set[NodeId] = set()
        self._clusters: dict[str, dict[NodeId, Claim]] = {}
        self._topics: TopicIndex[tuple[NodeId, Claim]] = TopicIndex()
        self._matches: dict[str, Match] = {}
        self.freed: dict[BlockKey, None] = {}

    def learn(self, node: NodeId, claims: Collection[Claim], *, full: bool = False) -> str | None:
        """Take in claims of a node's record, all of them or, if they are too many, none.

        Args:
            node: Whose.
            claims: Those with members are made, those without withdrawn.
            full: They are all: forget the others.

        Returns:
            None, or the rule that was broken.
        """
        held = self._claims.get(node, {})
        if len(claims) + len(held) > MAX_CLAIMS:  # then it is worth counting
            made = {claim.key for claim in claims if claim.members}
            if len(made if full else made | held.keys()) > MAX_CLAIMS:
                return f"record: more than {MAX_CLAIMS} claims"
        self._claims[node] = held
        if full:
            self._withdraw_all(node)
            held.clear()
        for claim in claims:
            before = held.pop(claim.key, None)
            if before is not None:
                self._withdraw(node, before)
            if claim.members:
                held[claim.key] = claim
                self._enter(node, claim)
        if not held:
            del self._claims[node]
        return None

    def claims(self, node: NodeId) -> Collection[Claim]:
        """What a node claims. Not to be changed."""
        return self._claims.get(node, {}).values()

    def is_routable(self, node: NodeId) -> bool:
        """Whether messages may be sent to a node."""
        return node in self._routable

    def routable(self, node: NodeId, routable: bool) -> None:
        """Say whether a node can be reached.

        Nothing is routed to one that cannot; what its subscribers miss can still be counted.
        """
        if routable == (node in self._routable):
            return
        clusters = [claim for claim in self.claims(node) if claim.cluster]
        if routable:
            self._routable.add(node)
            self.generation += 1
            for claim in clusters:
                self._clusters.setdefault(claim.cluster, {})[node] = claim
        else:
            for claim in clusters:
                self._withdraw(node, claim)
            self._routable.discard(node)
            self.freed |= {(node, claim.topic, claim.group): None for claim in self.claims(node) if claim.blocks}
        self._matches.clear()

    def forget(self, node: NodeId) -> None:
        """Drop a node and all it claimed."""
        self._withdraw_all(node)
        self._claims.pop(node, None)
        self._routable.discard(node)

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

    def blocks(self, key: BlockKey) -> bool:
        """Whether publishers must wait for these subscribers."""
        node, filter, group = key
        claim = self._claims.get(node, {}).get(("", filter, group))
        return claim is not None and claim.blocks and node in self._routable

    def clusters(self) -> list[tuple[str, dict[NodeId, Claim]]]:
        """Every cluster that has routable members, by name."""
        return sorted(self._clusters.items())

    def topics(self) -> dict[tuple[str, str], dict[NodeId, int]]:
        """Every (filter, group), with the routable nodes that subscribe and how many subscribers each has."""
        topics: dict[tuple[str, str], dict[NodeId, int]] = {}
        for node, held in self._claims.items():
            for claim in held.values():
                if claim.topic and node in self._routable:
                    topics.setdefault((claim.topic, claim.group), {})[node] = claim.members
        return topics

    def _enter(self, node: NodeId, claim: Claim) -> None:
        if claim.topic:
            self._topics.add(claim.topic, (node, claim))
            self._matches.clear()
        elif node in self._routable:
            self.generation += 1
            self._clusters.setdefault(claim.cluster, {})[node] = claim

    def _withdraw_all(self, node: NodeId) -> None:
        for claim in self.claims(node):
            self._withdraw(node, claim)

    def _withdraw(self, node: NodeId, claim: Claim) -> None:
        if claim.topic:
            self._topics.remove(claim.topic, (node, claim))
            self._matches.clear()
            if claim.blocks:
                self.freed[node, claim.topic, claim.group] = None
        elif node in self._routable:
            self.generation += 1
            nodes = self._clusters[claim.cluster]
            del nodes[node]
            if not nodes:
                del self._clusters[claim.cluster]

    def _add_up(self, topic: str) -> Match:
        everyone: dict[NodeId, None] = {}
        groups: dict[str, dict[NodeId, int]] = {}
        unreachable: dict[tuple[NodeId, str], None] = {}
        blocking: list[BlockKey] = []
        missed: dict[str, NodeId] = {}  # one node for each group: one of its members would have had them
        for node, claim in self._topics.match(topic):
            if node not in self._routable:
                if claim.group:
                    missed.setdefault(claim.group, node)
                else:
                    unreachable[node, ""] = None
                continue
            if claim.blocks:
                blocking.append((node, claim.topic, claim.group))
            if claim.group:
                nodes = groups.setdefault(claim.group, {})
                nodes[node] = max(nodes.get(node, 0), claim.members)
            else:
                everyone[node] = None
        unreachable |= {(node, group): None for group, node in missed.items() if group not in groups}
        return Match(tuple(everyone), groups, tuple(unreachable), _sorted(blocking) if blocking else None)


def _sorted(keys: list[BlockKey]) -> Blocking:
    everyone = tuple(sorted(key for key in keys if not key[2]))
    groups: dict[str, dict[NodeId, tuple[BlockKey, ...]]] = {}
    for key in keys:
        if key[2]:
            nodes = groups.setdefault(key[2], {})
            nodes[key[0]] = (*nodes.get(key[0], ()), key)
    return Blocking(everyone, frozenset(key[0] for key in everyone), groups)
