"""Which node a call goes to: what this node knows of each that serves a cluster.

A caller's node knows of another what its claim says (how many calls its members
take at once, at which level they stand, how many are ejected), what this node
gave it and how fast that was answered, and how busy it said it was in its last
answer. What a member fails at is judged by its own node.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from irisd.model import Balance, Claim, Code, NodeId
from irisd.node.addressing import needed
from irisd.node.core import Core
from irisd.node.members import Members, policy_of
from irisd.router import Call, Candidate, Chooser, Ended, Pool, Tally, rank

MAX_CLUSTERS = 4096
"""Clusters of which something is remembered; those with nothing under way give way."""


class Place(Candidate):
    """All members of a cluster at one node."""

    __slots__ = ("claim", "node")

    def __init__(self, node: NodeId, claim: Claim) -> None:
        super().__init__(claim.capacity)
        self.node = node
        self.claim = claim

    def claims(self, claim: Claim) -> None:
        """Its node says something else now."""
        if claim.ejected < self.claim.ejected:
            self.forgive()
        self.claim = claim
        self.weight = float(claim.capacity)


class First(NamedTuple):
    """Those that a call goes to before others are asked, and by what rule one is chosen."""

    pool: Pool[Place]
    policy: int


class Nodes:
    """The places of one cluster."""

    def __init__(self) -> None:
        self.places: dict[NodeId, Place] = {}
        self.chooser = Chooser()
        self.tally = Tally()
        self.generation = -1
        self._able: dict[int, list[Place]] = {}
        self._first: dict[int, First] = {}

    def refresh(self, serving: dict[NodeId, Claim], generation: int) -> None:
        """Take over what the registry says now."""
        self.generation = generation
        self._able.clear()
        self._first.clear()
        places = self.places
        for node in places.keys() - serving.keys():
            del places[node]
        lowest = min((place.turn for place in places.values()), default=0.0)
        for node, claim in serving.items():
            place = places.get(node)
            if place is None:
                place = places[node] = Place(node, claim)
                place.turn = lowest
            elif place.claim is not claim:
                place.claims(claim)

    def able(self, pattern: int) -> list[Place]:
        """Those with members that handle a pattern."""
        able = self._able.get(pattern)
        if able is None:
            able = self._able[pattern] = [p for p in self.places.values() if p.claim.patterns & pattern]
        return able

    def first(self, pattern: int) -> First:
        """Those of all of them that come first."""
        first = self._first.get(pattern)
        if first is None:
            first = self._first[pattern] = first_of(self.able(pattern))
        return first


def first_of(places: list[Place]) -> First:
    """Those that come first: not all ejected, and of the best level there is."""
    sound = [place for place in places if place.weight] or places
    level = min(place.claim.level for place in sound)
    return First(Pool([place for place in sound if place.claim.level == level]), policy_of(p.claim for p in places))


class Places:
    """All clusters' places, as this node's own apps call them."""

    def __init__(self, core: Core, members: Members) -> None:
        self._core = core
        self._members = members
        self._clusters: dict[str, Nodes] = {}

    def of(self, cluster: str) -> Nodes:
        """The places of a cluster, as the registry has them now."""
        registry = self._core.registry
        nodes = self._clusters.get(cluster)
        if nodes is None:
            if len(self._clusters) >= MAX_CLUSTERS:
                self._forget()
            nodes = self._clusters[cluster] = Nodes()
        if nodes.generation != registry.generation:
            nodes.refresh(registry.serving(cluster), registry.generation)
        return nodes

    def untried(self, call: Call, pattern: int) -> list[Place]:
        """Those that may still be asked."""
        able = self.of(call.cluster).able(pattern)
        return [place for place in able if place.node not in call.tried] if call.tried else able

    def choose(self, call: Call, untried: list[Place], chooser: Chooser | None = None) -> Place:
        """The node that gets a call, of those that were not tried (not empty).

        A ``chooser`` is given by whoever only wants to know.
        """
        core, own = self._core, self._core.identity.node_id
        nodes = self._clusters[call.cluster]
        pattern, key = needed(call.frame), call.frame.key
        if core.suspects:
            untried = [place for place in untried if place.node not in core.suspects] or untried
        if key:
            return max(untried, key=lambda place: rank(key, place.node, place.claim.taken_seats))
        whole = untried is nodes.able(pattern)
        pool, policy = nodes.first(pattern) if whole else first_of(untried)
        policy = call.frame.balance or policy
        home = nodes.places.get(own)
        if home is not None:
            home.told(self._members.busy(call.cluster), core.now)
            if policy == Balance.LOCAL and home.load(core.now) < 1 and home in pool.candidates:
                return home
        return (chooser or nodes.chooser).choose(policy, pool, core.rng, core.now)

    def gave(self, call: Call, place: Place) -> None:
        """A node was given a call."""
        place.begin(call, self._core.now)

    def ended(self, call: Call, node: NodeId, ended: Ended, *, timed: bool = True, busy: int = -1) -> None:
        """A node has ended a call.

        Args:
            call: Which.
            node: Who had it.
            ended: How.
            timed: Its time says how fast the members there are.
            busy: Calls of the cluster the node says it has now; -1 if it does not.
        """
        nodes = self._clusters.get(call.cluster)
        place = nodes.places.get(node) if nodes is not None else None
        if place is None:
            return
        took = place.end(call, self._core.now, ended, timed=timed)
        if nodes is not None and took is not None and timed and ended is not Ended.OTHERWISE:
            nodes.tally.time(took)
            nodes.tally.answered += ended is Ended.WELL
        if busy >= 0:
            place.told(busy, self._core.now)

    def accepted(self, call: Call) -> None:
        """A push lies with its member, or a tunnel is open: all its caller waits for."""
        if call.origin and (nodes := self._clusters.get(call.cluster)) is not None:
            nodes.tally.answered += 1

    def failed(self, call: Call, code: int) -> None:
        """A call's caller is told that it failed; a rejection on purpose is an answer."""
        nodes = self._clusters.get(call.cluster)
        if call.origin and code != Code.REJECTED and nodes is not None:
            nodes.tally.failed += 1

    def called(self) -> Iterable[tuple[str, Nodes]]:
        """Every cluster that an app of this node called, as far as it is remembered."""
        return self._clusters.items()

    def outstanding(self, cluster: str, node: NodeId) -> int:
        """Calls of this node's apps that another has."""
        nodes = self._clusters.get(cluster)
        place = nodes.places.get(node) if nodes is not None else None
        return place.outstanding if place is not None else 0

    @property
    def under_way(self) -> int:
        """Calls given to nodes that have not ended."""
        return sum(place.outstanding for nodes in self._clusters.values() for place in nodes.places.values())

    def _forget(self) -> None:
        serving = self._core.registry.serving
        idle = [c for c, nodes in self._clusters.items() if not any(p.under_way for p in nodes.places.values())]
        for cluster in [c for c in idle if not serving(c)] or idle:  # names nobody serves first
            del self._clusters[cluster]
