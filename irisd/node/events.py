"""Publish and subscribe: to every subscriber, or to one member of each group.

The publisher's node decides where messages go: one frame to each node with
subscribers, one to a member's node for each group. Order holds per publisher
and topic because every hop keeps one queue per topic. Every loss is counted
where it happens and told to the subscriber by the next frame it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from irisd.flow import Ledger
from irisd.flow.credit import charge
from irisd.model import PART_BYTES, Balance, Frame, Kind, NodeId, WhenFull
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import App, Head, Peer, Subscription
from irisd.node.lending import Lending
from irisd.node.members import policy_of
from irisd.node.pacing import Pacing
from irisd.registry import Match, TopicIndex, entries
from irisd.router import Chooser, Pool, Rotation
from irisd.router.names import BadName, valid_topic

MAX_ROTATIONS = 4096
MAX_SHARES = 64
"""Most members of a group that share one batch."""


class Events:
    """Topics of this node's apps and peers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._index: TopicIndex[Subscription, tuple[Subscription, ...]] = TopicIndex(entries)
        self._rotations: dict[str, Rotation] = {}  # over nodes, by group
        self._choosers: dict[str, Chooser] = {}  # among members here, by group
        self._heard: dict[NodeId, dict[Subscription, None]] = {}  # those that have had messages from another node
        self.lending = Lending(core)
        self.pacing = Pacing(core, self.lending, self)
        self.peer_frames: dict[int, Callable[[Peer, Frame], None]] = {
            Kind.PUBLISH: self.received,
            Kind.LOST: self.lost,
            Kind.NEED: self.lending.needed,
            Kind.GRANT: self.pacing.granted,
            Kind.RETURN: self.credit_returned,
        }

    def fits(self, filter: str) -> bool:
        """Whether one more subscription to this filter leaves the work of a match bounded."""
        return self._index.fits(filter)

    def add(self, subscription: Subscription) -> None:
        """A local subscription takes messages from now on."""
        self._index.add(subscription.filter, subscription)
        self.lending.open(subscription)

    def withdraw(self, subscription: Subscription) -> None:
        """A local subscription takes no more messages; what waits for it may still leave."""
        self._index.remove(subscription.filter, subscription)
        self.lending.close(subscription)

    def remove(self, subscription: Subscription) -> None:
        """A local subscription has ended; what still waits for it is dropped."""
        self.withdraw(subscription)
        for heard in self._heard.values():
            heard.pop(subscription, None)
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
        if match.blocking is not None or (app.held and topic in app.held):
            self.pacing.publish(app, frame, topic)
            return
        self.to_everyone(app, frame, topic, match, 0)
        for group in match.groups:
            for piece in self.split(frame, match, group):
                self.to_group(app, piece, topic, group, self.choose(topic, group, match.groups[group]), 0)
        for _, group in match.unreachable:
            if group:
                self.to_nobody(topic, group, frame.messages, match)

    def to_everyone(self, app: App, frame: Frame, topic: str, match: Match, cost: int) -> None:
        """Send to every node whose subscribers want all of a topic; ``cost`` was paid where they block."""
        core = self._core
        own = core.identity.node_id
        for node in match.everyone:
            if node == own:
                self._deliver(own, frame, topic, cost)
            else:
                paid = cost if match.blocking is not None and node in match.blocking.nodes else 0
                self._send(app, core.connect(node), frame, topic, "", paid)
        self.to_nobody(topic, "", frame.messages, match)

    def to_nobody(self, topic: str, group: str, messages: int, match: Match) -> None:
        """Count what those of a group (of none: every subscriber) miss who cannot be reached."""
        for node, missing in match.unreachable:
            if missing == group:
                self._core.drop("no-link", messages)
                self._core.ledgers.setdefault(node, Ledger()).lose((topic, group), messages)

    def to_group(self, app: App, frame: Frame, topic: str, group: str, node: NodeId, cost: int) -> None:
        """Send to a member of a group at ``node``; ``cost`` was paid if they block."""
        if node == self._core.identity.node_id:
            self._deliver_group(node, frame, topic, group, cost)
        else:
            self._send(app, self._core.connect(node), frame, topic, group, cost)

    def split(self, frame: Frame, match: Match, group: str) -> Iterator[Frame]:
        """A frame in pieces for the members of a group."""
        return _split(frame, sum(match.groups[group].values()))

    def choose(self, topic: str, group: str, nodes: dict[NodeId, int]) -> NodeId:
        """The node whose member of a group is next."""
        core = self._core
        if not core.suspects.isdisjoint(nodes):
            nodes = {node: nodes[node] for node in core.sound(nodes)}
        own = core.identity.node_id
        if own in nodes and self._balance(group) == Balance.LOCAL:
            return own
        if len(nodes) > 1:
            nodes = {
                node: members for node, members in nodes.items() if not self._is_behind(node, topic, group)
            } or nodes
        return self._turns(group).pick(nodes)

    def _balance(self, group: str) -> int:
        """How the cluster the group is named after has its calls shared out."""
        return policy_of(self._core.registry.serving(group).values())

    def _is_behind(self, node: NodeId, topic: str, group: str) -> bool:
        """Whether much of a topic waits for a node already."""
        peer = self._core.peers.get(node)
        return peer is not None and peer.outbox.queued((topic, group))[1] > self._core.settings.topic_queue // 2

    def unsent(self, app: App, topic: str, head: Head) -> None:
        """What nobody will be sent: tell those who would have had it."""
        match = self._core.registry.match(topic)
        if head.rest is not None:
            for node in match.everyone:
                self._not_sent(node, topic, "", head.rest.messages)
            self.to_nobody(topic, "", head.rest.messages, match)
        for group in [*match.groups, *(group for _, group in match.unreachable if group)]:
            pieces = head.groups.get(group, ()) if head.groups is not None else [head.rest]
            messages = sum(piece.messages for piece in pieces if piece is not None)
            if messages and group in match.groups:
                self._not_sent(self.choose(topic, group, match.groups[group]), topic, group, messages)
            elif messages:
                self.to_nobody(topic, group, messages, match)

    def _not_sent(self, node: NodeId, topic: str, group: str, messages: int) -> None:
        if node == self._core.identity.node_id:
            self._note_lost(topic, group, messages, unknown=False)
        else:
            peer = self._core.connect(node)
            limit = self._core.settings.topic_queue
            flow = peer.outbox.open((topic, group), limit=limit, when_full=WhenFull.DROP_OLDEST)
            peer.outbox.lose(flow, messages)
            self._core.wake(peer)

    def _send(self, app: App, peer: Peer, frame: Frame, topic: str, group: str, cost: int) -> None:
        flow = peer.outbox.open((topic, group), limit=self._core.settings.topic_queue, when_full=WhenFull.DROP_OLDEST)
        message = _message(Kind.PUBLISH, frame, topic)
        if len(frame.body) > PART_BYTES:
            message.id = peer.next_id()
        if group:
            message.group = group
        if cost:
            message.cost = cost
            peer.outbox.commit(flow, message)
        else:
            dropped = peer.outbox.offer(flow, message)
            if dropped:
                self._core.drop("topic-queue-full", dropped)
                app.lost += dropped
        self._core.wake(peer)

    def number(self, peer: Peer, frames: list[Frame]) -> None:
        """Publishes have left towards a peer to the last byte: number them, remember them until acknowledged."""
        ledger = self._core.ledgers[peer.node]
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
        self.lending.link_lost(peer.node)
        self.pacing.link_lost(peer.node)
        ledger = self._core.ledgers[peer.node]
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
        ledger = self._core.ledgers[peer.node]
        if not ledger.receive(frame.seq):
            self._core.drop("duplicate", frame.messages)
            return
        if frame.lost or frame.lost_unknown:
            self._note_lost(frame.address, frame.group, frame.lost, unknown=frame.lost_unknown)
        if frame.group:
            self._deliver_group(peer.node, frame, frame.address, frame.group, frame.cost)
        else:
            self._deliver(peer.node, frame, frame.address, frame.cost)

    def too_large(self, peer: Peer, frame: Frame) -> None:
        """A PUBLISH of a peer that allows larger bodies than this node: lost to its subscribers, who are told."""
        if frame.seq and not self._core.ledgers[peer.node].receive(frame.seq):
            self._core.drop("duplicate", frame.messages)
            return
        self._core.drop("too-large", frame.messages)
        if frame.cost:
            self.lending.arrived(peer.node, frame.address, frame.group, frame.cost)
        self._note_lost(frame.address, frame.group, frame.messages + frame.lost, unknown=frame.lost_unknown)

    def acknowledge(self, peer: Peer) -> None:
        """Tell a peer how far its publishes have come, now and then."""
        last = self._core.ledgers[peer.node].acknowledgement()
        if last is not None:
            self._core.urgent(peer, Frame(Kind.PUBLISH_ACK, count=last))

    def lost(self, peer: Peer, frame: Frame) -> None:
        """A peer says what never reached this node. Without a topic: some of every topic."""
        if not self._core.ledgers[peer.node].receive(frame.seq):
            self._core.drop("duplicate", frame.count)
            return
        self._note_lost(frame.address, frame.group, frame.count, unknown=not frame.address)

    def publisher_gone(self, node: NodeId, *, died: bool) -> None:
        """A node that published here is gone for good. When it died, what was under way cannot be counted."""
        heard = self._heard.pop(node, ())
        if died:
            for subscription in heard:
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

    def _deliver(self, source: NodeId, frame: Frame, topic: str, cost: int) -> None:
        paid = self.lending.arrived(source, topic, "", cost)
        anybody = False
        for subscription in self._index.match(topic):
            if not (subscription.group or subscription.app.gone):
                self._offer(source, subscription, frame, topic, subscription.filter in paid)
                anybody = True
        if not anybody:
            self._core.drop("subscriber-gone", frame.messages)

    def _deliver_group(self, source: NodeId, frame: Frame, topic: str, group: str, cost: int) -> None:
        paid = self.lending.arrived(source, topic, group, cost)
        members = [s for s in self._index.match(topic) if s.group == group and not (s.app.draining or s.app.gone)]
        if not members:
            self._core.drop("group-gone", frame.messages)
            return
        if paid:
            size = charge(frame)
            able = [s for s in members if s.queue is None or s.queue.takes(size)]
            members = able or [max(members, key=lambda s: s.queue.room if s.queue is not None else 0)]
        chooser, policy = self._chooser(group), self._balance(group)
        chosen = chooser.choose(policy, Pool(members), self._core.rng, self._core.now)
        chosen.turn += 1
        self._offer(source, chosen, frame, topic, bool(paid))

    def _offer(self, source: NodeId, subscription: Subscription, frame: Frame, topic: str, paid: bool) -> None:
        event = _message(Kind.EVENT, frame, topic)
        event.id = subscription.id
        if source != self._core.identity.node_id:
            self._heard.setdefault(source, {})[subscription] = None
        app, queue = subscription.app, subscription.queue
        dropped = 0
        if queue is None:
            dropped = app.outbox.offer(subscription.flow, event)
        elif paid or queue.takes(charge(event)):
            self.lending.hold(subscription, event)
            app.outbox.commit(subscription.flow, event)
        else:  # published before its node knew that it has to wait
            app.outbox.lose(subscription.flow, event.messages)
            dropped = event.messages
        if dropped:
            self._core.drop("subscription-full", dropped)
        self._core.counters["delivered.messages"] += event.messages
        self._core.wake(app)

    def _turns(self, group: str) -> Rotation:
        if len(self._rotations) >= MAX_ROTATIONS and group not in self._rotations:
            self._rotations.clear()
        return self._rotations.setdefault(group, Rotation())

    def _chooser(self, group: str) -> Chooser:
        if len(self._choosers) >= MAX_ROTATIONS and group not in self._choosers:
            self._choosers.clear()
        return self._choosers.setdefault(group, Chooser())

    @property
    def is_due(self) -> bool:
        """Whether :meth:`settle` has something to do."""
        return bool(self._core.registry.freed or self.pacing.refilled) or self.lending.is_due

    def settle(self) -> None:
        """Let those go on who wait for what has come or gone."""
        while self.is_due:
            self.pacing.freed()
            self.lending.settle()

    def credit_returned(self, peer: Peer, frame: Frame) -> None:
        """RETURN: credit that comes back, or is asked back."""
        if frame.count:
            self.lending.returned(peer, frame)
        else:
            self.pacing.recalled(peer, frame)


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
