from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("service",)
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: str
    def __init__(self, service: _Optional[str] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("version", "pid", "uptime", "host", "listeners", "services", "draining", "memory", "conditions")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    version: str
    pid: int
    uptime: float
    host: str
    listeners: _containers.RepeatedCompositeFieldContainer[Listener]
    services: _containers.RepeatedCompositeFieldContainer[ServiceStatus]
    draining: bool
    memory: int
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, version: _Optional[str] = ..., pid: _Optional[int] = ..., uptime: _Optional[float] = ..., host: _Optional[str] = ..., listeners: _Optional[_Iterable[_Union[Listener, _Mapping]]] = ..., services: _Optional[_Iterable[_Union[ServiceStatus, _Mapping]]] = ..., draining: bool = ..., memory: _Optional[int] = ..., conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class Listener(_message.Message):
    __slots__ = ("purpose", "address")
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    purpose: str
    address: str
    def __init__(self, purpose: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("name", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    detail: str
    def __init__(self, name: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class ServiceStatus(_message.Message):
    __slots__ = ("service", "key", "node", "peers", "attachments", "clusters", "subscriptions", "pending", "queued", "counters", "local_attachments")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    service: str
    key: str
    node: str
    peers: int
    attachments: int
    clusters: int
    subscriptions: int
    pending: int
    queued: int
    counters: _containers.ScalarMap[str, int]
    local_attachments: int
    def __init__(self, service: _Optional[str] = ..., key: _Optional[str] = ..., node: _Optional[str] = ..., peers: _Optional[int] = ..., attachments: _Optional[int] = ..., clusters: _Optional[int] = ..., subscriptions: _Optional[int] = ..., pending: _Optional[int] = ..., queued: _Optional[int] = ..., counters: _Optional[_Mapping[str, int]] = ..., local_attachments: _Optional[int] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("service", "node", "name", "state", "address", "since", "incarnation", "version", "round_trip", "linked", "heard", "heard_by", "health", "draining")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    LINKED_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    HEARD_BY_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    service: str
    node: str
    name: str
    state: str
    address: str
    since: float
    incarnation: int
    version: str
    round_trip: float
    linked: bool
    heard: float
    heard_by: str
    health: int
    draining: bool
    def __init__(self, service: _Optional[str] = ..., node: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., address: _Optional[str] = ..., since: _Optional[float] = ..., incarnation: _Optional[int] = ..., version: _Optional[str] = ..., round_trip: _Optional[float] = ..., linked: bool = ..., heard: _Optional[float] = ..., heard_by: _Optional[str] = ..., health: _Optional[int] = ..., draining: bool = ...) -> None: ...

class NodeList(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("service", "name", "members", "nodes", "patterns")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    PATTERNS_FIELD_NUMBER: _ClassVar[int]
    service: str
    name: str
    members: int
    nodes: _containers.RepeatedCompositeFieldContainer[ClusterNode]
    patterns: int
    def __init__(self, service: _Optional[str] = ..., name: _Optional[str] = ..., members: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[ClusterNode, _Mapping]]] = ..., patterns: _Optional[int] = ...) -> None: ...

class ClusterNode(_message.Message):
    __slots__ = ("node", "name", "members", "outstanding")
    NODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    OUTSTANDING_FIELD_NUMBER: _ClassVar[int]
    node: str
    name: str
    members: int
    outstanding: int
    def __init__(self, node: _Optional[str] = ..., name: _Optional[str] = ..., members: _Optional[int] = ..., outstanding: _Optional[int] = ...) -> None: ...

class ClusterList(_message.Message):
    __slots__ = ("clusters",)
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    clusters: _containers.RepeatedCompositeFieldContainer[Cluster]
    def __init__(self, clusters: _Optional[_Iterable[_Union[Cluster, _Mapping]]] = ...) -> None: ...

class Topic(_message.Message):
    __slots__ = ("service", "filter", "group", "subscribers", "nodes")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    service: str
    filter: str
    group: str
    subscribers: int
    nodes: int
    def __init__(self, service: _Optional[str] = ..., filter: _Optional[str] = ..., group: _Optional[str] = ..., subscribers: _Optional[int] = ..., nodes: _Optional[int] = ...) -> None: ...

class TopicList(_message.Message):
    __slots__ = ("topics",)
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedCompositeFieldContainer[Topic]
    def __init__(self, topics: _Optional[_Iterable[_Union[Topic, _Mapping]]] = ...) -> None: ...

class Discovery(_message.Message):
    __slots__ = ("multicast", "state_file", "state_problem", "heard", "services", "conditions")
    MULTICAST_FIELD_NUMBER: _ClassVar[int]
    STATE_FILE_FIELD_NUMBER: _ClassVar[int]
    STATE_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    multicast: Multicast
    state_file: str
    state_problem: str
    heard: _containers.RepeatedCompositeFieldContainer[Heard]
    services: _containers.RepeatedCompositeFieldContainer[ServiceDiscovery]
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, multicast: _Optional[_Union[Multicast, _Mapping]] = ..., state_file: _Optional[str] = ..., state_problem: _Optional[str] = ..., heard: _Optional[_Iterable[_Union[Heard, _Mapping]]] = ..., services: _Optional[_Iterable[_Union[ServiceDiscovery, _Mapping]]] = ..., conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class Multicast(_message.Message):
    __slots__ = ("state", "detail", "service_type", "groups", "interfaces", "counters")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    state: str
    detail: str
    service_type: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    interfaces: _containers.RepeatedCompositeFieldContainer[Interface]
    counters: _containers.ScalarMap[str, int]
    def __init__(self, state: _Optional[str] = ..., detail: _Optional[str] = ..., service_type: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., interfaces: _Optional[_Iterable[_Union[Interface, _Mapping]]] = ..., counters: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Interface(_message.Message):
    __slots__ = ("name", "addresses")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    name: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class Heard(_message.Message):
    __slots__ = ("node", "service", "verdict", "addresses", "count", "ago")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    AGO_FIELD_NUMBER: _ClassVar[int]
    node: str
    service: str
    verdict: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    count: int
    ago: float
    def __init__(self, node: _Optional[str] = ..., service: _Optional[str] = ..., verdict: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ..., ago: _Optional[float] = ...) -> None: ...

class ServiceDiscovery(_message.Message):
    __slots__ = ("service", "node", "advertised", "advertised_because", "seeds", "candidates", "known", "remembered", "counters")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADVERTISED_FIELD_NUMBER: _ClassVar[int]
    ADVERTISED_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    service: str
    node: str
    advertised: _containers.RepeatedScalarFieldContainer[str]
    advertised_because: str
    seeds: _containers.RepeatedCompositeFieldContainer[Seed]
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    known: int
    remembered: _containers.RepeatedScalarFieldContainer[str]
    counters: _containers.ScalarMap[str, int]
    def __init__(self, service: _Optional[str] = ..., node: _Optional[str] = ..., advertised: _Optional[_Iterable[str]] = ..., advertised_because: _Optional[str] = ..., seeds: _Optional[_Iterable[_Union[Seed, _Mapping]]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., known: _Optional[int] = ..., remembered: _Optional[_Iterable[str]] = ..., counters: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Seed(_message.Message):
    __slots__ = ("seed", "addresses", "problem")
    SEED_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    seed: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    problem: str
    def __init__(self, seed: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., problem: _Optional[str] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("node", "source", "addresses", "linked", "attempts", "outcome", "detail", "ago", "heard", "next_dial")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    LINKED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    AGO_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    NEXT_DIAL_FIELD_NUMBER: _ClassVar[int]
    node: str
    source: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    linked: bool
    attempts: int
    outcome: str
    detail: str
    ago: float
    heard: float
    next_dial: float
    def __init__(self, node: _Optional[str] = ..., source: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., linked: bool = ..., attempts: _Optional[int] = ..., outcome: _Optional[str] = ..., detail: _Optional[str] = ..., ago: _Optional[float] = ..., heard: _Optional[float] = ..., next_dial: _Optional[float] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("host", "version", "at", "uptime", "memory", "draining", "bounds", "services")
    HOST_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    host: str
    version: str
    at: float
    uptime: float
    memory: int
    draining: bool
    bounds: _containers.RepeatedScalarFieldContainer[float]
    services: _containers.RepeatedCompositeFieldContainer[ServiceLoad]
    def __init__(self, host: _Optional[str] = ..., version: _Optional[str] = ..., at: _Optional[float] = ..., uptime: _Optional[float] = ..., memory: _Optional[int] = ..., draining: bool = ..., bounds: _Optional[_Iterable[float]] = ..., services: _Optional[_Iterable[_Union[ServiceLoad, _Mapping]]] = ...) -> None: ...

class ServiceLoad(_message.Message):
    __slots__ = ("service", "node", "nodes", "links", "attachments", "pending", "queued", "clusters", "cluster_count", "members", "member_count", "queues", "queue_count", "drops")
    class DropsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    MEMBER_COUNT_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DROPS_FIELD_NUMBER: _ClassVar[int]
    service: str
    node: str
    nodes: int
    links: int
    attachments: int
    pending: int
    queued: int
    clusters: _containers.RepeatedCompositeFieldContainer[ClusterLoad]
    cluster_count: int
    members: _containers.RepeatedCompositeFieldContainer[MemberLoad]
    member_count: int
    queues: _containers.RepeatedCompositeFieldContainer[QueueLoad]
    queue_count: int
    drops: _containers.ScalarMap[str, int]
    def __init__(self, service: _Optional[str] = ..., node: _Optional[str] = ..., nodes: _Optional[int] = ..., links: _Optional[int] = ..., attachments: _Optional[int] = ..., pending: _Optional[int] = ..., queued: _Optional[int] = ..., clusters: _Optional[_Iterable[_Union[ClusterLoad, _Mapping]]] = ..., cluster_count: _Optional[int] = ..., members: _Optional[_Iterable[_Union[MemberLoad, _Mapping]]] = ..., member_count: _Optional[int] = ..., queues: _Optional[_Iterable[_Union[QueueLoad, _Mapping]]] = ..., queue_count: _Optional[int] = ..., drops: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Tally(_message.Message):
    __slots__ = ("answered", "failed", "took")
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    TOOK_FIELD_NUMBER: _ClassVar[int]
    answered: int
    failed: int
    took: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, answered: _Optional[int] = ..., failed: _Optional[int] = ..., took: _Optional[_Iterable[int]] = ...) -> None: ...

class ClusterLoad(_message.Message):
    __slots__ = ("name", "members", "nodes", "ejected", "in_flight", "called", "here", "at_work", "waiting", "served")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    EJECTED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    CALLED_FIELD_NUMBER: _ClassVar[int]
    HERE_FIELD_NUMBER: _ClassVar[int]
    AT_WORK_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    name: str
    members: int
    nodes: int
    ejected: int
    in_flight: int
    called: Tally
    here: int
    at_work: int
    waiting: int
    served: Tally
    def __init__(self, name: _Optional[str] = ..., members: _Optional[int] = ..., nodes: _Optional[int] = ..., ejected: _Optional[int] = ..., in_flight: _Optional[int] = ..., called: _Optional[_Union[Tally, _Mapping]] = ..., here: _Optional[int] = ..., at_work: _Optional[int] = ..., waiting: _Optional[int] = ..., served: _Optional[_Union[Tally, _Mapping]] = ...) -> None: ...

class MemberLoad(_message.Message):
    __slots__ = ("cluster", "name", "at_work", "concurrency", "level", "pace", "failing", "ejected", "on_trial")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AT_WORK_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    FAILING_FIELD_NUMBER: _ClassVar[int]
    EJECTED_FIELD_NUMBER: _ClassVar[int]
    ON_TRIAL_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    name: str
    at_work: int
    concurrency: int
    level: int
    pace: float
    failing: float
    ejected: bool
    on_trial: bool
    def __init__(self, cluster: _Optional[str] = ..., name: _Optional[str] = ..., at_work: _Optional[int] = ..., concurrency: _Optional[int] = ..., level: _Optional[int] = ..., pace: _Optional[float] = ..., failing: _Optional[float] = ..., ejected: bool = ..., on_trial: bool = ...) -> None: ...

class QueueLoad(_message.Message):
    __slots__ = ("to", "name", "bytes", "frames")
    TO_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    to: str
    name: str
    bytes: int
    frames: int
    def __init__(self, to: _Optional[str] = ..., name: _Optional[str] = ..., bytes: _Optional[int] = ..., frames: _Optional[int] = ...) -> None: ...

class TraceRequest(_message.Message):
    __slots__ = ("service", "cluster", "pattern", "key", "balance")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    service: str
    cluster: str
    pattern: int
    key: str
    balance: int
    def __init__(self, service: _Optional[str] = ..., cluster: _Optional[str] = ..., pattern: _Optional[int] = ..., key: _Optional[str] = ..., balance: _Optional[int] = ...) -> None: ...

class Trace(_message.Message):
    __slots__ = ("service", "cluster", "pattern", "hops")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    service: str
    cluster: str
    pattern: int
    hops: _containers.RepeatedCompositeFieldContainer[TraceHop]
    def __init__(self, service: _Optional[str] = ..., cluster: _Optional[str] = ..., pattern: _Optional[int] = ..., hops: _Optional[_Iterable[_Union[TraceHop, _Mapping]]] = ...) -> None: ...

class TraceHop(_message.Message):
    __slots__ = ("name", "node", "among", "policy", "because", "candidates", "count", "chosen", "why", "waiting", "outcome", "detail", "took")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    AMONG_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    TOOK_FIELD_NUMBER: _ClassVar[int]
    name: str
    node: str
    among: str
    policy: str
    because: str
    candidates: _containers.RepeatedCompositeFieldContainer[TraceCandidate]
    count: int
    chosen: str
    why: str
    waiting: int
    outcome: str
    detail: str
    took: float
    def __init__(self, name: _Optional[str] = ..., node: _Optional[str] = ..., among: _Optional[str] = ..., policy: _Optional[str] = ..., because: _Optional[str] = ..., candidates: _Optional[_Iterable[_Union[TraceCandidate, _Mapping]]] = ..., count: _Optional[int] = ..., chosen: _Optional[str] = ..., why: _Optional[str] = ..., waiting: _Optional[int] = ..., outcome: _Optional[str] = ..., detail: _Optional[str] = ..., took: _Optional[float] = ...) -> None: ...

class TraceCandidate(_message.Message):
    __slots__ = ("name", "id", "members", "out", "level", "slots", "busy", "pace", "failing", "handles", "first", "suspect", "ejected", "on_trial", "drawn", "chosen", "cost", "round_trip", "queued")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    OUT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    FAILING_FIELD_NUMBER: _ClassVar[int]
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_FIELD_NUMBER: _ClassVar[int]
    EJECTED_FIELD_NUMBER: _ClassVar[int]
    ON_TRIAL_FIELD_NUMBER: _ClassVar[int]
    DRAWN_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    name: str
    id: str
    members: int
    out: int
    level: int
    slots: int
    busy: float
    pace: float
    failing: float
    handles: bool
    first: bool
    suspect: bool
    ejected: bool
    on_trial: bool
    drawn: bool
    chosen: bool
    cost: float
    round_trip: float
    queued: int
    def __init__(self, name: _Optional[str] = ..., id: _Optional[str] = ..., members: _Optional[int] = ..., out: _Optional[int] = ..., level: _Optional[int] = ..., slots: _Optional[int] = ..., busy: _Optional[float] = ..., pace: _Optional[float] = ..., failing: _Optional[float] = ..., handles: bool = ..., first: bool = ..., suspect: bool = ..., ejected: bool = ..., on_trial: bool = ..., drawn: bool = ..., chosen: bool = ..., cost: _Optional[float] = ..., round_trip: _Optional[float] = ..., queued: _Optional[int] = ...) -> None: ...
