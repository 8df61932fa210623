"""What the parts of the brain share: neighbours, tables, timers, effects, and how to send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from random import Random

from irisd.effects import Connect, Control, Detach, Effect, Fact, Found, Traced, Unlink, Wake
from irisd.flow import Ledger, Timers
from irisd.flow.outbox import FRAME_COST, REPLIES, cost
from irisd.model import PART_BYTES, AttachmentId, Change, Claim, Code, Destination, Executed, Frame, Kind, MiB, NodeId
from irisd.node.endpoints import App, Endpoint, Peer
from irisd.registry import OwnRecord, Registry

UNANSWERED = 5 * MiB
"""More than a client publishes before it asks whether that was read, and as much before it waits for the answer."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who this node is. ``node_id`` is 16 random bytes, new at every start."""

    node_id: NodeId
    name: str
    service: str
    cloud: str = "default"
    version: str = ""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Bounds and waits of a node. Sizes in bytes, durations in seconds.

    Attributes:
        max_body: Largest body of one message.
        max_large_body: Largest body of a request or reply that a tunnel carries; 0: none.
        peer_outbox: What may wait towards one peer.
        app_outbox: What may wait towards one app, its subscriptions' own bounds aside.
        app_backlog: What may wait for all subscriptions of one app together; tunnels break a little above it.
        topic_queue: What may wait of one topic towards one peer.
        request_queue: What may wait here for a free slot of one cluster.
        max_subscription: Most a subscription may ask for as its bound.
        max_pending: Calls one app may have under way.
        max_claims: Clusters and topics one app may join, subscribe to and watch.
        attempts: How often a request is tried that provably did not run.
        sync_timeout: How long a join waits for every peer to know.
        settle_timeout: How long an attachment waits at start for the first peer's record.
        block_window: Credit one node may be lent of the subscriptions that block under one filter.
        publish_hold: What is held of one app's messages because subscribers block, before it is kept from sending any.
        stall_timeout: How long such messages may stand still before their publisher is told for whom.
        lost_peer_memory: How long losses towards a peer without a link are counted.
        not_reading_timeout: How long an app may let urgent frames lie before it is detached.
        heartbeat_interval: Between two heartbeats.
        full_mesh_limit: Nodes up to which each is linked with each.
        idle_link: How long a link that nobody has to watch may be unused before it is closed.
    """

    max_body: int = 8 * MiB
    max_large_body: int = 256 * MiB
    peer_outbox: int = 64 * MiB
    app_outbox: int = 64 * MiB
    app_backlog: int = 256 * MiB
    topic_queue: int = 16 * MiB
    request_queue: int = 16 * MiB
    max_subscription: int = 256 * MiB
    max_pending: int = 65_536
    max_claims: int = 100_000
    attempts: int = 3
    sync_timeout: float = 1.0
    settle_timeout: float = 1.0
    block_window: int = 4 * MiB
    publish_hold: int = 16 * MiB
    stall_timeout: float = 5.0
    lost_peer_memory: float = 60.0
    not_reading_timeout: float = 60.0
    heartbeat_interval: float = 1.0
    full_mesh_limit: int = 64
    idle_link: float = 30.0

    @property
    def most_held(self) -> int:
        """What may be held of one app, on its way included when it gets no more answers: see `UNANSWERED`."""
        return self.publish_hold + 2 * (UNANSWERED + self.max_body)


class ProtocolError(Exception):
    """A neighbour broke a rule: its stream or link ends, nothing else. The message names the rule."""


class Core:
    """Shared state. Parts of the brain reach each other through it, never directly.

    Attributes:
        changed: To be told of every change of a node's state, after the registry knows what it means.
        claimed: To be told of a node's claims that the registry has learned, and whether they are all it has.
    """

    def __init__(self, identity: NodeIdentity, settings: NodeSettings, rng: Random) -> None:
        self.identity = identity
        self.settings = settings
        self.rng = rng
        self.now = 0.0
        self.apps: dict[AttachmentId, App] = {}
        self.peers: dict[NodeId, Peer] = {}
        self.registry = Registry()
        self.record = OwnRecord(self.registry, identity.node_id)
        self.ledgers: dict[NodeId, Ledger] = {}
        self.timers = Timers()
        self.counters: Counter[str] = Counter()
        self.draining = False
        self.evicted: list[App] = []
        self.suspects: set[NodeId] = set()
        """Nodes that are chosen only when nobody else remains."""
        self.changed: Callable[[Change], None] = lambda change: None
        self.connect: Callable[[NodeId], Peer] = self.peers.__getitem__
        """The peer that something is to be sent to; one without a link gets one."""
        self.claimed: Callable[[NodeId, Iterable[Claim], bool], None] = lambda node, claims, whole: None
        self._effects: list[Effect] = []
        self._woken: dict[Destination, None] = {}

    def collect(self) -> list[Effect]:
        """What the edges must do now."""
        effects, self._effects = self._effects, []
        if self._woken:
            effects.extend([Wake(destination) for destination in self._woken])
            self._woken.clear()
        return effects

    def emit(self, effect: Detach | Unlink | Control | Found | Connect | Fact | Traced) -> None:
        """Ask the edges for something."""
        self._effects.append(effect)

    def fact(self, event: str, **fields: object) -> None:
        """Something worth a log line."""
        self._effects.append(Fact(event, fields))

    def drop(self, reason: str, count: int = 1) -> None:
        """Count a drop; every one has a reason."""
        self.counters[f"dropped.{reason}"] += count

    def drop_late(self, endpoint: Endpoint) -> None:
        """Count what was taken out of a neighbour's outbox because its time was up."""
        if endpoint.outbox.late:
            self.drop("late", endpoint.outbox.late)
            endpoint.outbox.late = 0

    def unheard(self, frames: int) -> list[Effect]:
        """Count frames of a neighbour that is gone; nothing follows from them."""
        self.drop("neighbour-gone", frames)
        return []

    def sound(self, nodes: Collection[NodeId]) -> Collection[NodeId]:
        """Those that are not suspected; all, if all are."""
        if self.suspects.isdisjoint(nodes):
            return nodes
        return [node for node in nodes if node not in self.suspects] or nodes

    def endpoint(self, destination: Destination) -> Endpoint | None:
        """The neighbour, if it is still there."""
        if isinstance(destination, int):
            return self.apps.get(destination)
        return self.peers.get(destination)

    def wake(self, endpoint: Endpoint) -> None:
        """Something lies in this outbox; tell the edge unless it knows."""
        if endpoint.outbox.idle:
            endpoint.outbox.idle = False
            self._woken[endpoint.id] = None

    def urgent(self, endpoint: Endpoint, frame: Frame) -> None:
        """Send ahead of data: credit, cancel, registry changes, small replies."""
        endpoint.outbox.put_urgent(frame)
        self.wake(endpoint)

    def send(self, endpoint: Endpoint, key: object, frame: Frame) -> None:
        """Send in a flow whose bound the caller has seen to."""
        endpoint.outbox.put(key, frame)
        self.wake(endpoint)

    def answer(self, destination: Destination, frame: Frame, *, last: bool = False) -> None:
        """Send what ends or answers a call; a neighbour that left no longer cares.

        An answer that would fill its queue beyond the bound becomes an error that says so.

        Args:
            last: It must not overtake earlier answers of its call.
        """
        endpoint = self.endpoint(destination)
        if endpoint is None:
            return
        outbox = endpoint.outbox
        waiting, waiting_bytes = outbox.queued(REPLIES)
        limit = self.settings.app_outbox if isinstance(endpoint, App) else self.settings.peer_outbox
        held = waiting_bytes + outbox.urgent_bytes
        if held and cost(frame) > FRAME_COST and held + cost(frame) > limit:  # one always fits, and so do bare words
            self.drop("answer-queue-full")
            frame = Frame(
                Kind.ERROR,
                id=frame.id,
                code=Code.OVERLOADED,
                executed=Executed.YES,
                member=frame.member,
                detail="the answer did not fit into the queue towards its caller",
            )
        if len(frame.body) > PART_BYTES or (last and waiting):
            self.send(endpoint, REPLIES, frame)
            return
        self.urgent(endpoint, frame)
        if outbox.urgent_bytes > limit and isinstance(endpoint, App):
            self._check_reading(endpoint)

    def _check_reading(self, app: App) -> None:
        """An app that lets its answers lie is detached: in time, or at once when they grow out of bounds."""
        waited = self.now - app.last_taken
        far_over = app.outbox.urgent_bytes > 4 * self.settings.app_outbox
        if (far_over or waited > self.settings.not_reading_timeout) and app not in self.evicted:
            why = f"not-reading: what was sent lay unread for {waited:.0f} s"
            self.emit(Detach(app.attachment, "RESOURCE_EXHAUSTED", why))
            self.evicted.append(app)

    def fail(
        self,
        destination: Destination,
        id: int,
        code: Code,
        detail: str,
        executed: Executed = Executed.NO,
        *,
        member: str = "",
        last: bool = False,
    ) -> None:
        """Answer a call with an error."""
        frame = Frame(Kind.ERROR, id=id, code=code, executed=executed, detail=detail)
        if member:
            frame.member = member
        self.answer(destination, frame, last=last)

    def deadline_of(self, frame: Frame) -> float | None:
        """When a frame's time is up; None if it states none, which is refused where one is due."""
        if not frame.remaining_ms:
            return None
        frame.deadline = self.now + frame.remaining_ms / 1000
        return frame.deadline

    def label(self, destination: Destination) -> str:
        """A neighbour's name for people."""
        endpoint = self.endpoint(destination)
        if isinstance(endpoint, App):
            return endpoint.member_name
        return endpoint.info.name if isinstance(endpoint, Peer) else "?"


Handler = Callable[[Endpoint, Frame], None]
