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
