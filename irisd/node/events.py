"""Publish and subscribe: to every subscriber, or to one member of each group.

The publisher's node decides where messages go: one frame to each node with
subscribers, one to a member's node for each group. Order holds per publisher
and topic because every hop keeps one queue per topic. Every loss is counted
where it happens and told to the subscriber by the next frame it gets.
"""

from __future__ import annotations

from collections.abc import Iterator

from irisd.flow import Ledger
from irisd.model import PART_BYTES, Code, Executed, Frame, Kind, NodeId, WhenFull
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import App, Peer, Subscription
from irisd.registry import TopicIndex
from irisd.router import Rotation
from irisd.router.names import BadName, valid_topic

MAX_ROTATIONS = 4096
MAX_SHARES = 64
"""Most members of a group that share one batch."""


class Events:
    """Topics of this node's apps and peers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._index: TopicIndex[Subscription] = TopicIndex()
        self._node_turns: dict[str, Rotation] = {}
        self._member_turns: dict[str, Rotation] = {}

    def add(self, subscription: Subscription) -> None:
        """A local subscription takes messages from now on."""
        self._index.add(subscription.filter, subscription)

    def withdraw(self, subscription: Subscription) -> None:
        """A local subscription takes no more messages; what waits for it may still leave."""
        self._index.remove(subscription.filter, subscription)

    def remove(self, subscription: Subscription) -> None:
        """A local subscription has ended; what still waits for it is dropped."""
        self.withdraw(subscription)
        dropped = subscription.app.outbox.discard(subscription.id)
        if dropped:
            self._core.drop("unsubscribed", dropped)

    # -- out

    def publish(self, app: App, frame: Frame) -> None:
        """A PUBLISH of a local app."""
        core = self._core
        try:
            topic = valid_topic(frame.address)
        except BadName as error:
            raise ProtocolError(f"PUBLISH: {error}") from None
        core.counters["published.messages"] += frame.messages
        core.counters["published.bytes"] += len(frame.body)
        match = core.registry.match(topic)
        own = core.identity.node_id
        for node in match.everyone:
            if node == own:
                self._deliver(own, frame, topic)
            else:
                self._send(app, core.connect(node), frame, topic, "")
        for group, nodes in match.groups.items():
            turns = self._turns(self._node_turns, group)
            if not core.suspects.isdisjoint(nodes):
                nodes = {node: nodes[node] for node in core.sound(nodes)}
            for piece in _split(frame, sum(nodes.values())):
                node = turns.pick(nodes)
                if node == own:
                    self._deliver_group(own, piece, topic, group)
                else:
                    self._send(app, core.connect(node), piece, topic, group)
        for node, group in match.unreachable:
            core.drop("no-link", frame.messages)
            core.ledgers.setdefault(node, Ledger()).lose((topic, group), frame.messages)

    def _send(self, app: App, peer: Peer, frame: Frame, topic: str, group: str) -> None:
        flow = peer.outbox.open((topic, group), limit=self._core.settings.topic_queue, when_full=WhenFull.DROP_OLDEST)
        message = _message(Kind.PUBLISH, frame, topic)
        if len(frame.body) > PART_BYTES:
            message.id = peer.next_id()
        if group:
            message.group = group
        dropped = peer.outbox.offer(flow, message)
        if dropped:
            self._core.drop("topic-queue-full", dropped)
            app.lost += dropped
        self._core.wake(peer)

    def number(self, peer: Peer, frames: list[Frame]) -> None:
        """Publishes have left towards a peer to the last byte: number them, remember them until acknowledged."""
        ledger = self._core.ledgers[peer.id]
        for frame in frames:
            if frame.more:
                continue
            whole = frame.whole or frame
            if whole.kind == Kind.PUBLISH:  # losses it carries are lost with it
                frame.seq = ledger.sending((whole.address, whole.group), whole.messages + whole.lost)
            elif whole.kind == Kind.LOST:
                frame.seq = ledger.sending((whole.address, whole.group), whole.count)

    def link_lost(self, peer: Peer) -> None:
        """What waited for a peer whose link broke is lost; it is told when the link is back."""
        ledger = self._core.ledgers[peer.id]
        for flow in peer.outbox.flows():
            lost = flow.lost + sum(frame.messages + frame.lost for frame in flow.frames)
            if lost and flow.topic is not None:
                ledger.lose(flow.topic, lost)
                self._core.drop("link-lost", lost)
        for frame in peer.outbox.urgent():
            if frame.kind == Kind.LOST:  # counted before, and still untold
                ledger.lose((frame.address, frame.group), frame.count)

    # -- in

    def received(self, peer: Peer, frame: Frame) -> None:
        """A PUBLISH of a peer: to this node's subscribers, never further."""
        peer.last_used = self._core.now
        ledger = self._core.ledgers[peer.id]
        if not ledger.receive(frame.seq):
            self._core.drop("duplicate", frame.messages)
            return
        if frame.lost or frame.lost_unknown:
            self._note_lost(frame.address, frame.group, frame.lost, unknown=frame.lost_unknown)
        if frame.group:
            self._deliver_group(peer.id, frame, frame.address, frame.group)
        else:
            self._deliver(peer.id, frame, frame.address)

    def too_large(self, peer: Peer, frame: Frame) -> None:
        """A PUBLISH of a peer that allows larger bodies than this node: lost to its subscribers, who are told."""
        if frame.seq and not self._core.ledgers[peer.id].receive(frame.seq):
            self._core.drop("duplicate", frame.messages)
            return
        self._core.drop("too-large", frame.messages)
        self._note_lost(frame.address, frame.group, frame.messages + frame.lost, unknown=frame.lost_unknown)

    def acknowledge(self, peer: Peer) -> None:
        """Tell a peer how far its publishes have come, now and then."""
        last = self._core.ledgers[peer.id].acknowledgement()
        if last is not None:
            self._core.urgent(peer, Frame(Kind.PUBLISH_ACK, count=last))

    def lost(self, peer: Peer, frame: Frame) -> None:
        """A peer says what never reached this node. Without a topic: some of every topic."""
        if not self._core.ledgers[peer.id].receive(frame.seq):
            self._core.drop("duplicate", frame.count)
            return
        self._note_lost(frame.address, frame.group, frame.count, unknown=not frame.address)

    def publisher_gone(self, node: NodeId, *, died: bool) -> None:
        """A node that published here is gone for good. When it died, what was under way cannot be counted."""
        for subscription in self._everyone():
            if node in subscription.sources:
                subscription.sources.discard(node)
                if died:
                    self._lose(subscription, 0, unknown=True)

    def _note_lost(self, topic: str, group: str, count: int, *, unknown: bool) -> None:
        if not topic:
            for subscription in self._everyone():
                self._lose(subscription, 0, unknown=True)
            return
        for subscription in self._index.match(topic):
            if subscription.group == group:
                self._lose(subscription, count, unknown=unknown)
                if group:
                    return  # one of them would have had it

    def _lose(self, subscription: Subscription, count: int, *, unknown: bool) -> None:
        subscription.app.outbox.lose(subscription.flow, count, unknown=unknown)
        self._core.wake(subscription.app)

    def _everyone(self) -> Iterator[Subscription]:
        for app in self._core.apps.values():
            yield from app.subscriptions.values()

    def _deliver(self, source: NodeId, frame: Frame, topic: str) -> None:
        for subscription in self._index.match(topic):
            if not subscription.group:
                self._offer(source, subscription, frame, topic)

    def _deliver_group(self, source: NodeId, frame: Frame, topic: str, group: str) -> None:
        members = {s: 1 for s in self._index.match(topic) if s.group == group and not s.app.draining}
        if not members:
            self._core.drop("group-gone", frame.messages)
            return
        chosen = self._turns(self._member_turns, group).pick(members)
        self._offer(source, chosen, frame, topic)

    def _offer(self, source: NodeId, subscription: Subscription, frame: Frame, topic: str) -> None:
        event = _message(Kind.EVENT, frame, topic)
        event.id = subscription.id
        subscription.sources.add(source)
        app = subscription.app
        dropped = app.outbox.offer(subscription.flow, event)
        if dropped:
            self._core.drop("subscription-full", dropped)
        self._core.counters["delivered.messages"] += event.messages
        self._core.wake(app)

    def _turns(self, turns: dict[str, Rotation], group: str) -> Rotation:
        rotation = turns.get(group)
        if rotation is None:
            if len(turns) >= MAX_ROTATIONS:
                turns.clear()
            rotation = turns[group] = Rotation()
        return rotation

    def flush(self, app: App, frame: Frame) -> None:
        """Everything the app published earlier has been routed: say so, and what was dropped of it."""
        lost, app.lost = app.lost, 0
        self._core.answer(app.id, Frame(Kind.DONE, id=frame.id, lost=lost))

    def refuse_block(self, app: App, frame: Frame) -> bool:
        """Subscriptions that block their publishers are not offered; say so rather than drop."""
        if frame.when_full != WhenFull.BLOCK:
            return False
        detail = "when_full=block is not offered by this release; use drop_oldest or drop_newest"
        self._core.fail(app.id, frame.id, Code.NOT_SUPPORTED, detail, Executed.NO)
        return True


def _message(kind: Kind, frame: Frame, topic: str) -> Frame:
    """The messages of a frame, and nothing else its sender may have put there."""
    message = Frame(kind, address=topic, body=frame.body)
    if frame.sizes:
        message.sizes = frame.sizes
    if frame.content_type:
        message.content_type = frame.content_type
    if frame.headers:
        message.headers = frame.headers
    if frame.header_bytes:
        message.header_bytes = frame.header_bytes
    return message


def _split(frame: Frame, members: int) -> Iterator[Frame]:
    """Cut a batch so that the members of a group can share it."""
    messages = frame.messages
    if members <= 1 or messages == 1:
        yield frame
        return
    share = -(-messages // min(messages, members, MAX_SHARES))
    sizes = memoryview(frame.sizes).cast("I")
    start = 0
    for at in range(0, messages, share):
        some = sizes[at : at + share]
        end = start + sum(some)
        yield frame.copy(sizes=bytes(some), body=frame.body[start:end])
        start = end
