"""What is believed of every other node, and how a belief changes (pure).

The table of nodes, the neighbours that follow from it, and who is suspected.
Whatever changes here is told through the port: routes, events and gossip follow.

Invariants:
    - only present nodes are suspected
    - whoever is buried is told of, once, by whoever found out
"""

from __future__ import annotations

from typing import Protocol

from irisd.effects import Buffer, Cause
from irisd.membership.health import Health
from irisd.membership.heart import Heart
from irisd.membership.rings import Rings
from irisd.membership.suspicion import Suspicion
from irisd.membership.view import Known, View
from irisd.model import NodeId, NodeRecord, State
from irisd.wire.views import Belief, Saying


class Port(Protocol):
    """What membership needs of the node it belongs to."""

    def control(self, node: NodeId, parts: tuple[Buffer, ...]) -> None:
        """Send on the control connection."""

    def tell(self, nodes: list[NodeId], beliefs: list[Belief]) -> None:
        """Tell others what is believed; those without a link get one for it."""

    def unlink(self, node: NodeId, reason: str, cause: Cause) -> None:
        """Give a link up."""

    def find(self, node: NodeId) -> None:
        """This node should be linked with that one."""

    def refuted(self, incarnation: int) -> None:
        """Somebody believes of this incarnation of this node what is not true: outbid it, tell everybody."""

    def pass_on(self, node: NodeId, to: NodeId) -> None:
        """Send a node's whole record to somebody who holds an older one."""

    def differs(self, node: NodeId, buckets: tuple[int, ...]) -> None:
        """A peer's view is not as ours; these are its buckets."""

    def in_step(self, node: NodeId) -> None:
        """A peer's view is as ours."""

    def changed(self, known: Known, before: State | None, reason: str) -> None:
        """A node's state has changed; ``before`` is None if it was not known."""

    def reach_changed(self) -> None:
        """The mesh has outgrown the full mesh, or fits into it again: whom links are needed for has changed."""


class Beliefs:
    """Beliefs of one node.

    Args:
        own: This node's record.
        version: Of its claims.
        heart: Its heartbeats.
        health: Its own time.
        port: The node.
        interval: Seconds between two heartbeats.
        full_mesh_limit: Up to so many nodes everybody watches everybody.
        now: Monotonic seconds.

    Attributes:
        spread: There are more nodes than a full mesh has.
        unwatched: Links whose edge watches them itself.
        suspicions: Nodes that are not heard here.
    """

    def __init__(
        self,
        own: NodeRecord,
        version: int,
        heart: Heart,
        health: Health,
        port: Port,
        interval: float,
        full_mesh_limit: int,
        now: float,
    ) -> None:
        self.own = own.node_id
        self.view = View(own, version, now)
        self.rings = Rings(own.node_id)
        self.spread = False
        self.unwatched: set[NodeId] = set()
        self.suspicions: dict[NodeId, Suspicion] = {}
        self._heart = heart
        self._health = health
        self._port = port
        self._interval = interval
        self._full_mesh_limit = full_mesh_limit

    def is_linked(self, node: NodeId) -> bool:
        """Whether there is a link with a node."""
        return node in self._heart.pulses or node in self.unwatched

    def hear(self, node: NodeId, now: float, reason: str) -> None:
        """This node heard another itself."""
        known = self.view.present.get(node)
        if known is None:
            return
        known.heard, known.heard_by = now, self.own
        if known.state is not State.ALIVE or node in self.suspicions:
            self.suspicions.pop(node, None)
            self.set(node, State.ALIVE, reason, now)

    def vouched(self, node: NodeId, by: NodeId, evidence: float, now: float) -> None:
        """Somebody else heard a node that is not heard here, at ``evidence`` (awake time)."""
        suspicion = self.suspicions[node]
        known = self.view.present[node]
        if suspicion.vouch(by, evidence):
            known.heard, known.heard_by = now - (self._health.awake(now) - evidence), by
            if known.state is State.SUSPECT:
                self.set(node, State.ALIVE, f"heard by {self.name(by)}", now)
            if self.spread and node not in self.rings.neighbours and not self.is_linked(node):
                del self.suspicions[node]  # its watchers see to it

    def set(self, node: NodeId, state: State, reason: str, now: float) -> None:
        known = self.view.present.get(node)
        if known is None or known.state is state or (known.state is State.JOINING and state is State.SUSPECT):
            return
        before, known.state, known.since = known.state, state, now
        self._port.changed(known, before, reason)

    def enter(self, known: Known, before: State | None, reason: str, now: float) -> None:
        node = known.record.node_id
        self.view.enter(known)
        near = self.rings.add(node)
        self._resize(now)
        self._port.changed(known, before, reason)
        if not self.is_linked(node) and (near or not self.spread):
            self._port.find(node)

    def bury(self, node: NodeId, state: State, reason: str, now: float, told_by: NodeId = b"") -> None:
        """A node is dead or has left: tell everybody who may not know."""
        before = self.view.present[node].state
        known = self.view.bury(node, state, now)
        self.suspicions.pop(node, None)
        if self.is_linked(node) and state is State.DEAD:
            self._port.unlink(node, f"it is dead: {reason}", Cause.SILENT)
        new_near: list[NodeId] = []
        near = self.rings.neighbours
        if self.rings.remove(node, self.view.present):
            new_near = [other for other in self.rings.neighbours if other not in near]
        self._resize(now)
        self._port.changed(known, before, reason)
        if not told_by or self.spread:
            others = [other for other, pulse in self._heart.pulses.items() if pulse.speaks and other != told_by]
            saying = Saying.DEAD if state is State.DEAD else Saying.LEFT
            self._port.tell(others, [Belief(node, known.record.incarnation, saying)])
        if self.spread:
            for other in new_near:
                if not self.is_linked(other):
                    self._port.find(other)

    def suspect(self, node: NodeId, since: float, reason: str, now: float) -> None:
        suspicion = self.suspicions.get(node)
        if suspicion is None:
            pulse = self._heart.pulses.get(node)
            announced = pulse.interval if pulse is not None and not pulse.asks else self._interval
            self.suspicions[node] = Suspicion(since, self._health.awake(now), max(announced, self._interval))
        elif suspicion.voucher:
            return  # others hear it
        else:
            suspicion.since = min(suspicion.since, since)
        self.set(node, State.SUSPECT, reason, now)

    def _resize(self, now: float) -> None:
        spread = len(self.view.present) > self._full_mesh_limit
        if spread != self.spread:
            self.spread = spread
            self._port.reach_changed()
            if spread:  # whoever was still to be linked with need not be any more
                for node, known in list(self.view.present.items()):
                    if known.state is State.JOINING:
                        self.set(node, State.ALIVE, "passed on", now)

    def incarnation(self, node: NodeId) -> int:
        known = self.view.known(node)
        return known.record.incarnation if known is not None else 0

    def name(self, node: NodeId) -> str:
        known = self.view.known(node)
        return known.record.name if known is not None and known.record.name else node.hex()[:8]
