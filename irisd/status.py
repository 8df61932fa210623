"""A daemon described, as plain values (pure).

What the brain and the composition root tell, and what the control service, the
dashboard and the metrics show: one row type per table, mirroring
``proto/iris/v1/control.proto``, which says what each field means. Times are
seconds, sizes bytes, ids hexadecimal. Never a key, never a body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ListenerInfo:
    """An open listener. ``address`` is a URL an operator can use."""

    purpose: str  # "links", "attach"
    address: str


@dataclass(frozen=True, slots=True)
class Condition:
    """Something an operator should know: a stable name and a sentence."""

    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """One node of this daemon: its presence in one service."""

    service: str
    key: str = ""
    node: str = ""
    peers: int = 0
    attachments: int = 0
    clusters: int = 0
    subscriptions: int = 0
    pending: int = 0
    queued: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    local_attachments: int = 0  # of them, on the local lane


@dataclass(frozen=True, slots=True)
class StatusInfo:
    """The daemon as a whole."""

    version: str
    pid: int
    uptime: float
    host: str
    listeners: tuple[ListenerInfo, ...] = ()
    services: tuple[ServiceInfo, ...] = ()
    draining: bool = False
    memory: int = 0
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node of a service, the daemon's own included (state ``self``).

    Attributes:
        address: How it is, or was last, linked; else where its record says that it is.
        since: Seconds in this state.
        linked: Whether this daemon has a link with it now.
        heard: Seconds since it was last heard.
        heard_by: The name of the node that heard it; the daemon's own name if it was this one.
        health: What it says of itself: 0 well, up to 8 ever slower.
    """

    service: str
    node: str
    name: str
    state: str
    address: str = ""
    since: float = 0.0
    incarnation: int = 0
    version: str = ""
    round_trip: float = 0.0
    linked: bool = False
    heard: float = 0.0
    heard_by: str = ""
    health: int = 0
    draining: bool = False


@dataclass(frozen=True, slots=True)
class ClusterNodeRow:
    """The part of a cluster one node holds."""

    node: str
    name: str
    members: int
    outstanding: int = 0


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A cluster known anywhere in a service."""

    service: str
    name: str
    members: int
    nodes: tuple[ClusterNodeRow, ...] = ()
    patterns: int = 0


@dataclass(frozen=True, slots=True)
class TopicRow:
    """A topic filter somebody subscribes to; ``group`` is empty for every subscriber."""

    service: str
    filter: str
    group: str
    subscribers: int
    nodes: int


@dataclass(frozen=True, slots=True)
class InterfaceRow:
    """An interface on which the multicast group is joined."""

    name: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MulticastInfo:
    """Multicast discovery of a daemon; ``state`` is ``off``, ``starting``, ``on`` or ``unavailable``."""

    state: str
    detail: str = ""
    service_type: str = ""
    groups: tuple[str, ...] = ()
    interfaces: tuple[InterfaceRow, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeardRow:
    """Somebody who announces himself on the network; ``verdict`` says what was made of it."""

    node: str
    service: str
    verdict: str
    addresses: tuple[str, ...] = ()
    count: int = 0
    ago: float = 0.0


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """Where a node might be, and how dialling it ended."""

    node: str
    source: str
    addresses: tuple[str, ...] = ()
    linked: bool = False
    attempts: int = 0
    outcome: str = ""
    detail: str = ""
    ago: float = 0.0
    heard: float = 0.0
    next_dial: float = 0.0


@dataclass(frozen=True, slots=True)
class SeedRow:
    """A seed as it was written, what it stands for now, and why it was not resolved."""

    seed: str
    addresses: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ServiceDiscovery:
    """How one node looks for its peers."""

    service: str
    node: str
    advertised: tuple[str, ...] = ()
    advertised_because: str = ""
    seeds: tuple[SeedRow, ...] = ()
    candidates: tuple[CandidateRow, ...] = ()
    known: int = 0
    remembered: tuple[str, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DiscoveryInfo:
    """How a daemon looks for peers."""

    multicast: MulticastInfo
    state_file: str = ""
    state_problem: str = ""
    heard: tuple[HeardRow, ...] = ()
    services: tuple[ServiceDiscovery, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class TallyRow:
    """Calls of a cluster that ended, since the daemon began; ``took`` counts them by :attr:`LoadInfo.bounds`."""

    answered: int = 0
    failed: int = 0
    took: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterLoad:
    """A cluster, as this node's apps call it and as its members here serve it.

    Attributes:
        ejected: Members, anywhere, that are given nothing because they fail.
        in_flight: Calls of this node's apps that have not ended.
        here: Members of this node.
        at_work: Calls these have.
        waiting: Calls that wait here for a free slot.
    """

    name: str
    members: int = 0
    nodes: int = 0
    ejected: int = 0
    in_flight: int = 0
    called: TallyRow = TallyRow()
    here: int = 0
    at_work: int = 0
    waiting: int = 0
    served: TallyRow = TallyRow()


@dataclass(frozen=True, slots=True)
class MemberLoad:
    """A member of this node; ``pace`` is how long it takes to answer, ``failing`` the share of its calls that fail."""

    cluster: str
    name: str
    at_work: int = 0
    concurrency: int = 0
    level: int = 0
    pace: float = 0.0
    failing: float = 0.0
    ejected: bool = False
    on_trial: bool = False


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What waits to leave towards a neighbour, ``to`` ``node`` or ``app``."""

    to: str
    name: str
    bytes: int
    frames: int


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """What one node has to do now; lists are shortened, the counts beside them are not."""

    service: str
    node: str = ""
    nodes: int = 0
    links: int = 0
    attachments: int = 0
    pending: int = 0
    queued: int = 0
    clusters: tuple[ClusterLoad, ...] = ()
    cluster_count: int = 0
    members: tuple[MemberLoad, ...] = ()
    member_count: int = 0
    queues: tuple[QueueLoad, ...] = ()
    queue_count: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadInfo:
    """What a daemon has to do now. ``bounds`` are the upper bounds, in seconds, of the buckets of its tallies."""

    host: str
    version: str
    at: float = 0.0
    uptime: float = 0.0
    memory: int = 0
    draining: bool = False
    bounds: tuple[float, ...] = ()
    services: tuple[ServiceLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class TraceAsked:
    """A call that is only thought of. ``pattern`` is a bit of Pattern, ``balance`` 0 or one of Balance."""

    cluster: str
    pattern: int = 1
    key: str = ""
    balance: int = 0


@dataclass(frozen=True, slots=True)
class TraceCandidate:
    """Somebody who could be chosen: a node, or a member.

    Attributes:
        slots: Calls it takes at once.
        busy: Calls it has, as far as whoever chooses knows.
        pace: Seconds an answer is expected to take; 0: nothing is known.
        failing: Share of its calls that fail.
        handles: Whether it handles the pattern.
        first: Whether it is among those that are asked before others.
        drawn: Whether it was one of the two that were compared.
        cost: What one more call costs there, beside the chosen one; 0: it does not count.
        round_trip: To the node, as heartbeats measure it, in seconds; 0: not measured.
        queued: Bytes that wait to leave towards it.
    """

    name: str
    id: str = ""
    members: int = 0
    out: int = 0
    level: int = 0
    slots: int = 0
    busy: float = 0.0
    pace: float = 0.0
    failing: float = 0.0
    handles: bool = True
    first: bool = True
    suspect: bool = False
    ejected: bool = False
    on_trial: bool = False
    drawn: bool = False
    chosen: bool = False
    cost: float = 0.0
    round_trip: float = 0.0
    queued: int = 0


@dataclass(frozen=True, slots=True)
class TraceHop:
    """One choice: of a node, or of a member.

    Attributes:
        name: Of the node that chooses.
        among: ``nodes`` or ``members``.
        because: Where the policy comes from.
        why: Why this one was chosen.
        waiting: Calls that wait for a slot there.
        outcome: ``handed``, ``waits``, ``no-member``, ``not-supported``, ``overloaded``, ``invalid``, or ``unknown``.
        detail: What comes of it, in a sentence.
        took: Seconds the question took to this node and back, through the queues a call goes through.
    """

    name: str
    node: str = ""
    among: str = "nodes"
    policy: str = ""
    because: str = ""
    candidates: tuple[TraceCandidate, ...] = ()
    count: int = 0
    chosen: str = ""
    why: str = ""
    waiting: int = 0
    outcome: str = ""
    detail: str = ""
    took: float = 0.0


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """What would happen to a call now; the last hop's outcome is the call's."""

    service: str
    cluster: str
    pattern: int
    hops: tuple[TraceHop, ...] = ()
