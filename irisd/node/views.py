"""This node's view of the others, kept equal with theirs: beliefs and records that travel, and what follows from them.

Membership decides what is believed; here its words become frames, links and
routes. A route to a node is there while it is linked and its record is here;
in a mesh too large for everybody to be linked with everybody, also while it is
believed alive, over a link made when something waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from irisd.effects import Buffer, Cause, Control, Found, Unlink
from irisd.membership import Known, Membership, MembershipSettings
from irisd.model import Change, Frame, Kind, NodeId, NodeRecord, State
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import Peer
from irisd.node.records import Records
from irisd.wire import (
    Belief,
    WireError,
    decode_beliefs,
    decode_view,
    decode_want,
    encode_beliefs,
    encode_view,
    encode_want,
)

IDLE_CHECKS = 4
"""How often links are looked at within the time they may be idle."""
MAX_PASSED = 4_096
"""Most whole records that one VIEW brings; the rest comes a round later."""


class Views:
    """Implements :class:`irisd.membership.Port`.

    Args:
        core: Shared state.
        rng: Source of chance.
        forgotten: Told when a peer turns out to have lost count of what it published to us.
        buried: Told of a node that is dead or has left.
        settled: Told when this node knows what the first peer knows, and has tried to be linked with all of it.
    """

    def __init__(
        self,
        core: Core,
        rng: Random,
        forgotten: Callable[[NodeId], None],
        buried: Callable[[NodeId, bool], None],
        settled: Callable[[], None],
    ) -> None:
        self._core = core
        self._buried = buried
        self._settled = settled
        self._synced = False
        self._is_settled = False
        self._contradicted = -math.inf
        self._syncing_with: NodeId = b""
        self._syncing_since = 0.0
        identity, settings = core.identity, core.settings
        own = NodeRecord(identity.node_id, 1, identity.name, identity.cloud, identity.version)
        self.membership = Membership(
            own,
            core.record.version,
            MembershipSettings(settings.heartbeat_interval, settings.full_mesh_limit),
            self,
            rng,
            core.counters,
            core.now,
        )
        self.records = Records(core, self.membership, forgotten, self._arrived, self.contradict)
        core.registry.routable(identity.node_id, True)

    # -- frames of peers

    def beliefs(self, peer: Peer, frame: Frame) -> None:
        """BELIEFS: what a peer says of others."""
        try:
            beliefs = decode_beliefs(frame.body)
        except WireError as error:
            raise ProtocolError(str(error)) from None
        self.membership.believed(peer.node, beliefs, self._core.now)

    def view(self, peer: Peer, frame: Frame) -> None:
        """VIEW: send what the peer lacks, ask for what it has."""
        try:
            buckets, theirs = decode_view(frame.body)
        except WireError as error:
            raise ProtocolError(str(error)) from None
        view = self.membership.view
        wanted: list[NodeId] = []
        lacking: list[NodeId] = []
        held: set[NodeId] = set()
        for node, incarnation, version in theirs:
            if node in held:
                continue
            held.add(node)
            known = view.known(node)
            if known is None:
                wanted.append(node)
                continue
            newer = (incarnation, version) > (known.record.incarnation, known.version)
            if known.state >= State.DEAD and incarnation <= known.record.incarnation:
                self.records.say_gone(peer, node)
            elif newer and node != view.own:
                wanted.append(node)
            elif (incarnation, version) < (known.record.incarnation, known.version) and node != peer.node:
                lacking.append(node)
        lacking += [each.node for each in view.held(buckets) if each.node not in held and each.node != peer.node]
        for node in lacking[:MAX_PASSED]:
            self.records.send(peer, node)
        self._core.urgent(peer, Frame(Kind.SYNCED))
        for body in encode_want(wanted):
            self._core.urgent(peer, Frame(Kind.WANT, body=body))
        if not wanted:
            self._in_sync()

    def want(self, peer: Peer, frame: Frame) -> None:
        """WANT: send these records."""
        try:
            nodes = decode_want(frame.body)
        except WireError as error:
            raise ProtocolError(str(error)) from None
        for node in nodes:
            self.records.send(peer, node)
        self._core.urgent(peer, Frame(Kind.SYNCED))

    def synced(self, peer: Peer, frame: Frame) -> None:
        """SYNCED: the peer has sent all that was asked for."""
        if self._syncing_with == peer.node:
            self._syncing_with = b""
        self._in_sync()

    def _in_sync(self) -> None:
        self._synced = True
        self.look_settled()

    def look_settled(self) -> None:
        """Early apps may begin once all of which was heard are linked and have said whom they serve, or are gone."""
        if self._synced and not self._is_settled:
            self._is_settled = not any(map(self._is_awaited, self.membership.view.present.values()))
            if self._is_settled:
                self._settled()

    def _is_awaited(self, known: Known) -> bool:
        if known.state is State.JOINING:
            return True
        peer = self._core.peers.get(known.record.node_id)
        return peer is not None and peer.linked and not peer.synced

    def _arrived(self, node: NodeId) -> None:
        self.refresh(node)
        self.look_settled()

    # -- routes

    def refresh(self, node: NodeId) -> None:
        """Find out anew whether messages may be sent to a node."""
        core = self._core
        peer = core.peers.get(node)
        known = self.membership.view.present.get(node)
        if node == core.identity.node_id or known is None:
            routable = known is not None
        elif peer is not None and peer.linked:
            routable = peer.synced
        else:
            afar = self.membership.spread and known.state is State.ALIVE
            routable = afar and ("retry", node) not in core.timers
        if core.registry.is_routable(node) != routable:
            core.registry.routable(node, routable)
            if routable and peer is not None and peer.linked:
                self.records.tell_lost(peer)
            self.claimed(node)

    def claimed(self, node: NodeId) -> None:
        """What a node can be reached for may have changed: whoever watches is told."""
        self._core.claimed(node, self._core.registry.clusters_of(node), False)

    # -- for membership

    def control(self, node: NodeId, parts: tuple[Buffer, ...]) -> None:
        """Send on the control connection."""
        self._core.emit(Control(node, parts))

    def tell(self, nodes: list[NodeId], beliefs: list[Belief]) -> None:
        """Tell others what is believed."""
        bodies = encode_beliefs(beliefs)
        for node in nodes:
            peer = self._core.peers.get(node)
            if peer is None and self.membership.is_present(node):
                peer = self._core.connect(node)
            if peer is not None and (peer.speaks or not peer.linked):
                for body in bodies:
                    self._core.urgent(peer, Frame(Kind.BELIEFS, body=body))

    def unlink(self, node: NodeId, reason: str, cause: Cause) -> None:
        """Give a link up; the edge says when it is down."""
        self._core.emit(Unlink(node, reason, cause))

    def find(self, node: NodeId) -> None:
        """Be linked with a node."""
        known = self.membership.view.present.get(node)
        if known is not None and known.record.addresses:
            self._core.emit(Found(node, known.record.addresses))

    def refuted(self, incarnation: int) -> None:
        """This node is taken for dead: say that it is not."""
        self._core.fact("node.refuted", incarnation=incarnation + 1)
        self._announce(incarnation=incarnation + 1)

    def contradict(self, incarnation: int) -> None:
        """Somebody passes on a record of this node that it never made: outbid it, now and then."""
        core = self._core
        core.drop("record-of-ours")
        if core.now - self._contradicted >= core.settings.heartbeat_interval:
            self._contradicted = core.now
            self._announce(incarnation=incarnation + 1)

    def set_addresses(self, addresses: tuple[str, ...]) -> None:
        """Where other nodes may dial this one."""
        if addresses != self.records.about.addresses:
            self._announce(addresses=addresses)

    def set_draining(self) -> None:
        """This node takes no new work."""
        self._announce(draining=True)

    def _announce(
        self, incarnation: int = 0, addresses: tuple[str, ...] | None = None, draining: bool | None = None
    ) -> None:
        own = self.records.about
        self.records.announce(
            NodeRecord(
                own.node_id,
                incarnation or own.incarnation,
                own.name,
                own.cloud,
                own.release,
                own.addresses if addresses is None else addresses,
                own.draining if draining is None else draining,
            )
        )

    def pass_on(self, node: NodeId, to: NodeId) -> None:
        """Send a node's whole record to somebody who holds an older one."""
        peer = self._core.peers.get(to)
        if peer is not None and peer.linked and node != to:
            self.records.send(peer, node)

    def differs(self, node: NodeId, buckets: tuple[int, ...]) -> None:
        """A peer's view is not as ours: say what is held of what differs, to one peer at a time."""
        core = self._core
        peer = core.peers.get(node)
        busy = self._syncing_with and core.now - self._syncing_since < 2 * core.settings.heartbeat_interval
        if peer is None or not peer.speaks or busy:
            return
        view = self.membership.view
        differing = view.differing(buckets)
        if not differing:
            return
        self._syncing_with, self._syncing_since = node, core.now
        for body in encode_view(view.held(differing), differing):
            core.urgent(peer, Frame(Kind.VIEW, body=body))

    def in_step(self, node: NodeId) -> None:
        """A peer's view is as ours."""
        if not self._synced:
            self._in_sync()

    def changed(self, known: Known, before: State | None, reason: str) -> None:
        """A node's state has changed: routes follow, and whoever watches is told."""
        core = self._core
        record, state = known.record, known.state
        node = record.node_id
        word = state.name.lower()
        (core.suspects.add if state is State.SUSPECT else core.suspects.discard)(node)
        core.fact(f"node.{word}", peer=record.name, node=node.hex()[:8], reason=reason)
        if state >= State.DEAD:
            core.registry.routable(node, False)
            self._buried(node, state is State.LEFT)
        else:
            self.refresh(node)
        core.changed(Change(node, record.name, word, reason=reason))
        self.look_settled()

    def reach_changed(self) -> None:
        """Links are needed for others than before."""
        for node in list(self.membership.view.present):
            self.refresh(node)
            if not self.membership.spread and not self.membership.is_linked(node) and node != self.membership.own:
                self.find(node)
        self.watch_idle()

    def watch_idle(self) -> None:
        """Look for links that nobody needs, in a mesh that can have such."""
        core = self._core
        if self.membership.spread and ("idle",) not in core.timers:
            core.timers.add(("idle",), core.now + core.settings.idle_link / IDLE_CHECKS)

    # -- described

    def picture(self) -> list[Change]:
        """All nodes that are there, this one first."""
        view = self.membership.view
        own = view.present[view.own].record
        rows = [Change(view.own, own.name, "self")]
        for node, known in view.present.items():
            if node != view.own:
                rows.append(Change(node, known.record.name, known.state.name.lower()))
        return rows
