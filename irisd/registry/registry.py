"""The registry (pure): every node's claims, and what they add up to.

Invariants:
    - a node's claims are only ever changed by that node's own record
    - ``serving`` and ``match`` speak only of claims whose node is routable
    - a whole record replaces the one before at once, however long either is: drafts are entered, and retired records
      taken out, bit by bit, while they do not count
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from irisd.model import Claim, NodeId
from irisd.registry.record import Audience, ClaimKey, Record, subscribers
from irisd.registry.topics import TopicIndex

MAX_CLAIMS = 1_000_000
"""Most claims one node's record may hold."""

SWEEP = 4096
"""Claims of a record that is over that are forgotten at a time: a few milliseconds."""

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
    """The claims this node makes, as its registry holds them. ``version`` rises with every change of them."""

    def __init__(self, registry: Registry, node: NodeId) -> None:
        self.version = 0
        self._registry = registry
        self._node = node

    def __len__(self) -> int:
        return self._registry.size(self._node)

    def claims(self) -> Iterator[Claim]:
        """All of it, for a peer that knows nothing yet; see :meth:`Record.claims`."""
        return self._registry.claims(self._node)

    def get(self, key: ClaimKey) -> Claim | None:
        """What is claimed under these names."""
        return self._registry.claim(self._node, key)

    def set(self, claim: Claim) -> bool:
        """Claim (or, with no members, withdraw); False if nothing changed."""
        before = self.get(claim.key)
        if before == claim or (before is None and not claim.members):
            return False
        self._registry.learn(self._node, [claim])
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
        retired: Records that count no longer and still stand in the index: :meth:`sweep` takes them out.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.freed: dict[BlockKey, None] = {}
        self.retired: list[Record] = []
        self._records: dict[NodeId, Record] = {}
        self._routable: set[NodeId] = set()
        self._clusters: dict[str, dict[NodeId, Claim]] = {}
        self._topics: TopicIndex[Audience, Match] = TopicIndex(self._add_up)

    # -- what nodes say

    def learn(self, node: NodeId, claims: Collection[Claim], *, full: bool = False) -> str | None:
        """Take in claims of a node's record, all of them or, if they are too many, none.

        Args:
            node: Whose.
            claims: Those with members are made, those without withdrawn.
            full: They are all: forget the others.

        Returns:
            None, or the rule that was broken.
        """
        if full:
            draft = Record(node, counts=False)
            broken = self.write(draft, claims)
            if broken is None:
                self.adopt(draft)
            return broken
        record = self._records.get(node)
        if record is None:
            record = self._records[node] = Record(node, counts=True)
        broken = self.write(record, claims)
        if not record:
            del self._records[node]
        return broken

    def draft(self, node: NodeId) -> Record:
        """A record that is on its way: :meth:`write` what comes of it, then :meth:`adopt` or :meth:`retire` it."""
        return Record(node, counts=False)

    def write(self, record: Record, claims: Collection[Claim]) -> str | None:
        """Enter claims into a record: all, or none and return the rule that was broken."""
        if len(claims) + len(record) > MAX_CLAIMS:  # then it is worth counting
            last = {claim.key: claim for claim in claims}
            grown = sum(bool(claim.members) - (record.get(key) is not None) for key, claim in last.items())
            if len(record) + grown > MAX_CLAIMS:
                return f"record: more than {MAX_CLAIMS} claims"
        for claim in claims:
            if claim.topic:
                self._write_topic(record, claim)
            else:
                self._write_cluster(record, claim)
        return None

    def adopt(self, draft: Record) -> None:
        """A draft is whole: from now on it counts, and what was held of its node does not."""
        node = draft.node
        self._end(node)
        draft.counts = True
        if draft:
            self._records[node] = draft
        if node in self._routable:
            self._serve(draft)
        self._topics.forget_answers()

    def retire(self, record: Record) -> None:
        """A record counts no longer, or never did. What it takes to forget it is done bit by bit."""
        record.counts = False
        self.retired.append(record)
        self.sweep()

    def sweep(self, limit: int = SWEEP) -> None:
        """Take up to ``limit`` claims of retired records out of the index."""
        while self.retired and limit > 0:
            record = self.retired[-1]
            for group, audience in list(record.audiences.items()):
                while audience and limit > 0:
                    self._topics.remove(audience.pop(), audience)
                    limit -= 1
                if audience:
                    return
                del record.audiences[group]
            self.retired.pop()

    def routable(self, node: NodeId, routable: bool) -> None:
        """Say whether a node can be reached.

        Nothing is routed to one that cannot; what its subscribers miss can still be counted.
        """
        if routable == (node in self._routable):
            return
        record = self._records.get(node)
        if routable:
            self._routable.add(node)
            self.generation += 1
            if record is not None:
                self._serve(record)
        else:
            if record is not None:
                self._free(record)
            self._routable.discard(node)
        self._topics.forget_answers()

    def forget(self, node: NodeId) -> None:
        """Drop a node and all it claimed."""
        self._end(node)
        self._routable.discard(node)
        self._topics.forget_answers()

    # -- what they add up to

    def claims(self, node: NodeId) -> Iterator[Claim]:
        """What a node claims; see :meth:`Record.claims`."""
        record = self._records.get(node)
        return record.claims() if record is not None else iter(())

    def record(self, node: NodeId) -> Record | None:
        """All that a node claims, to be read only; None: nothing."""
        return self._records.get(node)

    def claim(self, node: NodeId, key: ClaimKey) -> Claim | None:
        """What a node claims under these names."""
        record = self._records.get(node)
        return record.get(key) if record is not None else None

    def size(self, node: NodeId) -> int:
        """How many claims a node makes."""
        record = self._records.get(node)
        return len(record) if record is not None else 0

    def clusters_of(self, node: NodeId) -> list[Claim]:
        """What a node claims of clusters."""
        record = self._records.get(node)
        return list(record.clusters.values()) if record is not None else []

    @property
    def nodes(self) -> Collection[NodeId]:
        """Those that claim anything."""
        return self._records.keys()

    def is_routable(self, node: NodeId) -> bool:
        """Whether messages may be sent to a node."""
        return node in self._routable

    def serving(self, cluster: str) -> dict[NodeId, Claim]:
        """The routable nodes that have members of a cluster, and their claims. Not to be changed."""
        return self._clusters.get(cluster, {})

    def match(self, topic: str) -> Match:
        """Where messages of a topic go."""
        return self._topics.match(topic)

    def blocks(self, key: BlockKey) -> bool:
        """Whether publishers must wait for these subscribers."""
        node, filter, group = key
        record = self._records.get(node)
        return record is not None and (filter, group) in record.blocking and node in self._routable

    def clusters(self) -> list[tuple[str, dict[NodeId, Claim]]]:
        """Every cluster that has routable members, by name."""
        return sorted(self._clusters.items())

    def topics(self) -> dict[tuple[str, str], dict[NodeId, int]]:
        """Every (filter, group), with the routable nodes that subscribe and how many subscribers each has."""
        topics: dict[tuple[str, str], dict[NodeId, int]] = {}
        for node, record in self._records.items():
            for group, audience in record.audiences.items():
                if node in self._routable:
                    for filter in audience:
                        topics.setdefault((filter, group), {})[node] = audience.part(filter)[filter].members
        return topics

    # -- inside

    def _write_topic(self, record: Record, claim: Claim) -> None:
        filter, group = claim.topic, claim.group
        audience = record.audiences.get(group)
        before = audience.get(filter) if audience is not None else None
        if before is not None and before.blocks:
            del record.blocking[filter, group]
            if record.counts:
                self.freed[record.node, filter, group] = None
        if claim.members:
            if audience is None:
                audience = record.audiences[group] = Audience(record, group)
            audience.part(filter)[filter] = subscribers(claim.members, claim.blocks)
            if claim.blocks:
                record.blocking[filter, group] = None
            if before is None:
                record.size += 1
                self._topics.add(filter, audience)
            else:
                self._topics.touch(filter)
        elif audience is not None and before is not None:
            del audience.part(filter)[filter]
            record.size -= 1
            self._topics.remove(filter, audience)
            if not audience:
                del record.audiences[group]

    def _write_cluster(self, record: Record, claim: Claim) -> None:
        cluster = claim.cluster
        serves = record.counts and record.node in self._routable
        before = record.clusters.pop(cluster, None)
        if before is not None:
            record.size -= 1
            if serves:
                self._withdraw(record.node, cluster)
        if claim.members:
            record.clusters[cluster] = claim
            record.size += 1
            if serves:
                self.generation += 1
                self._clusters.setdefault(cluster, {})[record.node] = claim

    def _serve(self, record: Record) -> None:
        for cluster, claim in record.clusters.items():
            self.generation += 1
            self._clusters.setdefault(cluster, {})[record.node] = claim

    def _withdraw(self, node: NodeId, cluster: str) -> None:
        self.generation += 1
        nodes = self._clusters[cluster]
        del nodes[node]
        if not nodes:
            del self._clusters[cluster]

    def _free(self, record: Record) -> None:
        """Nobody calls what it serves or waits for its subscribers any more."""
        if record.node in self._routable:
            for cluster in record.clusters:
                self._withdraw(record.node, cluster)
        self.freed |= {(record.node, filter, group): None for filter, group in record.blocking}

    def _end(self, node: NodeId) -> None:
        record = self._records.pop(node, None)
        if record is not None:
            self._free(record)
            self.retire(record)

    def _add_up(self, found: list[tuple[str, Audience]]) -> Match:
        everyone: dict[NodeId, None] = {}
        groups: dict[str, dict[NodeId, int]] = {}
        unreachable: dict[tuple[NodeId, str], None] = {}
        blocking: list[BlockKey] = []
        missed: dict[str, NodeId] = {}  # one node for each group: one of its members would have had them
        for filter, audience in found:
            record, group = audience.record, audience.group
            node = record.node
            if not record.counts:
                continue
            if node not in self._routable:
                if group:
                    missed.setdefault(group, node)
                else:
                    unreachable[node, ""] = None
                continue
            if record.blocking and (filter, group) in record.blocking:
                blocking.append((node, filter, group))
            if group:
                nodes = groups.setdefault(group, {})
                nodes[node] = max(nodes.get(node, 0), audience.part(filter)[filter].members)
            else:
                everyone[node] = None
        for group, node in missed.items():
            if group not in groups:
                unreachable[node, group] = None
        return Match(tuple(everyone), groups, tuple(unreachable), _sorted(blocking) if blocking else None)


def _sorted(keys: list[BlockKey]) -> Blocking:
    everyone = tuple(sorted(key for key in keys if not key[2]))
    groups: dict[str, dict[NodeId, tuple[BlockKey, ...]]] = {}
    for key in keys:
        if key[2]:
            nodes = groups.setdefault(key[2], {})
            nodes[key[0]] = (*nodes.get(key[0], ()), key)
    return Blocking(everyone, frozenset(key[0] for key in everyone), groups)
