"""Links come and go: what a node keeps of a peer meanwhile, and links that are made when something waits.

A peer that something is to be sent to and that is not linked gets an outbox at
once and a link as soon as it can be had. Links that nobody has to watch are
closed when they are not used: the side that dialled asks, and holds what it has
until the other side has said yes, by closing, or no.
"""

from __future__ import annotations

from collections.abc import Callable

from irisd.effects import Cause, Connect, Unlink
from irisd.flow import Ledger
from irisd.membership import MAX_JUMP
from irisd.model import MEMBERSHIP, Frame, Kind, NodeId, NodeRecord, PeerInfo
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import Endpoint, Peer
from irisd.node.events import Events
from irisd.node.views import Views

RETRY = 5.0
"""Seconds for which nothing is routed to a node that could not be dialled."""
FAR_OVER = 4
"""How many times what else may wait for a peer it may leave unread of what goes ahead of all."""
ASK, NO = 1, 3
_OF_ITS_LINK = frozenset(
    {
        Kind.RECORD,
        Kind.RECORD_ACK,
        Kind.PUBLISH_ACK,
        Kind.VIEW,
        Kind.WANT,
        Kind.SYNCED,
        Kind.HEARSAY,
        Kind.IDLE,
        Kind.NEED,
        Kind.GRANT,
        Kind.RETURN,
    }
)
"""What is not sent over the next link: that begins with the whole record."""


class Peers:
    """Links of one node.

    Args:
        core: Shared state.
        views: What is known of others.
        events: For what was published.
        end_calls: Ends what was under way with a neighbour that is gone.
    """

    def __init__(self, core: Core, views: Views, events: Events, end_calls: Callable[[Endpoint], None]) -> None:
        self._core = core
        self._views = views
        self._events = events
        self._end_calls = end_calls
        self._orderly: set[NodeId] = set()  # whose last link ended with all of it read
        core.connect = self.connect

    def link_up(self, info: PeerInfo, dialled: bool | None) -> None:
        """A link is settled; an older one to the same peer has ended with it."""
        core, node = self._core, info.node_id
        peer = core.peers.get(node)
        if peer is not None and peer.linked:
            self.drop(peer)
            peer = None
        core.timers.remove(("forget", node))
        core.timers.remove(("retry", node))
        self._orderly.discard(node)
        core.ledgers.setdefault(node, Ledger())
        if peer is None:
            peer = self._new(info)
        peer.info = info
        peer.linked = True
        peer.dialled = bool(dialled)
        peer.speaks = bool(info.features & MEMBERSHIP)
        peer.since = peer.last_used = core.now
        peer.outbox.idle = True
        if not peer.speaks:
            peer.outbox.forget_urgent({Kind.BELIEFS})  # it waited for the link, and would be a violation
        incarnation = info.incarnation if info.incarnation <= MAX_JUMP else 1  # its record will say
        record = NodeRecord(node, incarnation, info.name, addresses=(info.address,) if dialled else ())
        self._views.membership.link_up(node, record, dialled, speaks=peer.speaks, now=core.now)
        self._views.refresh(node)
        self._views.records.link_up(peer)

    def link_down(self, node: NodeId, reason: str, *, left: bool, idle: bool) -> None:
        """A link has ended."""
        peer = self._core.peers.get(node)
        again = False
        if peer is not None and peer.linked:
            if idle:
                peer.outbox.forget_urgent(_OF_ITS_LINK)
            again = idle and bool(peer.outbox) and self._views.membership.is_present(node)
            if again:  # something came while the other side said yes
                self._reset(peer)
            else:
                self.remove(peer)
        if left or idle:
            self._orderly.add(node)
        self._views.membership.link_down(node, reason, self._core.now, left=left, idle=idle)
        self._views.refresh(node)
        self._views.claimed(node)
        if left:
            self.forget(node, died=False)
        elif again:
            self._dial(node)

    def connect(self, node: NodeId) -> Peer:
        """The peer that something is to be sent to."""
        core = self._core
        peer = core.peers.get(node)
        if peer is None:
            known = self._views.membership.view.present[node]
            peer = self._new(PeerInfo(node, known.record.name, known.record.incarnation))
            core.ledgers.setdefault(node, Ledger())
            self._dial(node)
        peer.last_used = core.now
        return peer

    def connect_failed(self, node: NodeId, reason: str) -> None:
        """The link that something waits for could not be made: nothing is routed there for a while."""
        core = self._core
        peer = core.peers.get(node)
        if peer is None or peer.linked:
            return
        core.fact("link.failed", peer=peer.info.name, node=node.hex()[:8], reason=reason)
        core.timers.add(("retry", node), core.now + RETRY)
        self._views.refresh(node)
        self.remove(peer)

    def due(self, thing: tuple[object, ...]) -> None:
        """A time of ours has come."""
        match thing:
            case ("forget", bytes(node)):
                self.forget(node, died=True)
            case ("retry", bytes(node)):  # it may be dialled again
                self._views.refresh(node)
            case ("tidy",):
                self._core.registry.sweep()
                self._views.records.tidy()
            case _:
                self._look_for_idle()

    def drop(self, peer: Peer) -> None:
        """A peer's link is given up here, whatever the edge will say of it."""
        self.remove(peer)
        self._views.claimed(peer.node)

    def remove(self, peer: Peer) -> None:
        """A peer is not linked any more: whatever was under way ends."""
        core = self._core
        del core.peers[peer.node]
        core.registry.routable(peer.node, False)
        self._views.records.link_lost(peer)
        self._events.link_lost(peer)
        self._views.records.settle()
        self._end_calls(peer)
        core.timers.add(("forget", peer.node), core.now + core.settings.lost_peer_memory)

    def buried(self, node: NodeId, left: bool) -> None:
        """A node is dead or has left. What a dead one misses is counted for a while: it may be back."""
        peer = self._core.peers.get(node)
        if peer is not None and not peer.linked:
            self.remove(peer)
        if left or (node not in self._core.peers and ("forget", node) not in self._core.timers):
            self.forget(node, died=node not in self._orderly)  # what it published while it was cut off is lost

    def forget(self, node: NodeId, *, died: bool) -> None:
        """Nothing of a node that is gone is kept any longer."""
        core = self._core
        if node in core.peers:
            return
        core.timers.remove(("forget", node))
        if self._views.membership.is_present(node):  # only the link is gone: it may be back
            return
        self._orderly.discard(node)
        core.registry.forget(node)
        self._views.records.tidy()
        core.ledgers.pop(node, None)
        self._events.publisher_gone(node, died=died)

    def check_reading(self, peer: Peer) -> None:
        """A peer that has us answer and answer, and reads nothing, is unlinked: its heartbeats do not show that."""
        unread = peer.outbox.urgent_bytes
        if unread > FAR_OVER * self._core.settings.peer_outbox:
            raise ProtocolError(f"not-reading: {unread} bytes of answers and news lie unread")

    # -- links that nobody needs

    @staticmethod
    def hold_if_closing(peer: Peer, frames: list[Frame]) -> list[Frame]:
        """The question whether a link may be closed leaves alone, and nothing after it."""
        for frame in frames:
            if frame.kind == Kind.IDLE and frame.count == ASK:
                if len(frames) == 1:
                    peer.closing = True
                    return frames
                return [other for other in frames if other is not frame]
        return frames

    def _look_for_idle(self) -> None:
        """Ask the other side of links that are not used whether they may be closed."""
        core, membership = self._core, self._views.membership
        for peer in core.peers.values():
            unused = peer.linked and peer.is_idle and core.now - peer.last_used >= core.settings.idle_link
            if unused and peer.dialled and peer.speaks and not peer.closing and not membership.watches(peer.node):
                core.urgent(peer, Frame(Kind.IDLE, count=ASK))
        self._views.watch_idle()

    def idle(self, peer: Peer, frame: Frame) -> None:
        """IDLE: the other side wants to close, or not to."""
        core = self._core
        if frame.count == ASK:
            needed = not peer.is_idle or self._views.membership.watches(peer.node)
            if needed or core.now - peer.last_used < core.settings.idle_link / 2:
                core.urgent(peer, Frame(Kind.IDLE, count=NO))
            else:
                core.emit(Unlink(peer.node, "nobody needs it", Cause.IDLE))
        elif frame.count == NO:
            peer.closing = False
            peer.last_used = core.now
            if peer.outbox:
                peer.outbox.idle = True
                core.wake(peer)
        else:
            raise ProtocolError(f"IDLE: {frame.count} is neither question nor answer")

    # -- inside

    def _new(self, info: PeerInfo) -> Peer:
        core = self._core
        settings = core.settings
        first = 1 if core.identity.node_id < info.node_id else 2
        peer = Peer(info, first_id=first, outbox_limit=settings.peer_outbox, max_body=settings.max_body, now=core.now)
        core.peers[info.node_id] = peer
        return peer

    def _dial(self, node: NodeId) -> None:
        known = self._views.membership.view.present[node]
        self._core.emit(Connect(node, known.record.addresses))

    def _reset(self, peer: Peer) -> None:
        """The link is gone, what waits stays."""
        peer.linked = peer.closing = peer.synced = False
        peer.change = None
        self._views.records.link_lost(peer)
        peer.acknowledged = 0
        self._views.records.settle()
        self._events.lending.link_lost(peer.node)
        self._events.pacing.link_lost(peer.node)
