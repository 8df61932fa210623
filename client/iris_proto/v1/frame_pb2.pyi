from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_HELLO: _ClassVar[Kind]
    KIND_WELCOME: _ClassVar[Kind]
    KIND_GOODBYE: _ClassVar[Kind]
    KIND_JOIN: _ClassVar[Kind]
    KIND_LEAVE: _ClassVar[Kind]
    KIND_SUBSCRIBE: _ClassVar[Kind]
    KIND_UNSUBSCRIBE: _ClassVar[Kind]
    KIND_DONE: _ClassVar[Kind]
    KIND_ERROR: _ClassVar[Kind]
    KIND_CANCEL: _ClassVar[Kind]
    KIND_REQUEST: _ClassVar[Kind]
    KIND_REPLY: _ClassVar[Kind]
    KIND_PUSH: _ClassVar[Kind]
    KIND_BROADCAST: _ClassVar[Kind]
    KIND_SURVEY: _ClassVar[Kind]
    KIND_PUBLISH: _ClassVar[Kind]
    KIND_EVENT: _ClassVar[Kind]
    KIND_FLUSH: _ClassVar[Kind]
    KIND_TUNNEL: _ClassVar[Kind]
    KIND_DATA: _ClassVar[Kind]
    KIND_FINISH: _ClassVar[Kind]
    KIND_CREDIT: _ClassVar[Kind]
    KIND_PART: _ClassVar[Kind]
    KIND_WATCH: _ClassVar[Kind]
    KIND_CHANGE: _ClassVar[Kind]
    KIND_PAUSE: _ClassVar[Kind]
    KIND_RESUME: _ClassVar[Kind]
    KIND_STALLED: _ClassVar[Kind]
    KIND_MOVE: _ClassVar[Kind]
    KIND_PING: _ClassVar[Kind]
    KIND_END: _ClassVar[Kind]

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODE_UNSPECIFIED: _ClassVar[Code]
    CODE_NO_MEMBER: _ClassVar[Code]
    CODE_NOT_SUPPORTED: _ClassVar[Code]
    CODE_DEADLINE_EXCEEDED: _ClassVar[Code]
    CODE_MEMBER_LOST: _ClassVar[Code]
    CODE_OVERLOADED: _ClassVar[Code]
    CODE_REJECTED: _ClassVar[Code]
    CODE_HANDLER_FAILED: _ClassVar[Code]
    CODE_TOO_LARGE: _ClassVar[Code]
    CODE_TUNNEL_BROKEN: _ClassVar[Code]
    CODE_CANCELLED: _ClassVar[Code]
    CODE_DENIED: _ClassVar[Code]
    CODE_INVALID: _ClassVar[Code]
    CODE_SLOW_SUBSCRIBER: _ClassVar[Code]

class Executed(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXECUTED_UNSPECIFIED: _ClassVar[Executed]
    EXECUTED_NO: _ClassVar[Executed]
    EXECUTED_MAYBE: _ClassVar[Executed]
    EXECUTED_YES: _ClassVar[Executed]

class WhenFull(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WHEN_FULL_UNSPECIFIED: _ClassVar[WhenFull]
    WHEN_FULL_DROP_OLDEST: _ClassVar[WhenFull]
    WHEN_FULL_DROP_NEWEST: _ClassVar[WhenFull]
    WHEN_FULL_BLOCK: _ClassVar[WhenFull]

class Pattern(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PATTERN_UNSPECIFIED: _ClassVar[Pattern]
    PATTERN_REQUEST: _ClassVar[Pattern]
    PATTERN_PUSH: _ClassVar[Pattern]
    PATTERN_BROADCAST: _ClassVar[Pattern]
    PATTERN_SURVEY: _ClassVar[Pattern]
    PATTERN_TUNNEL: _ClassVar[Pattern]

class Balance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BALANCE_UNSPECIFIED: _ClassVar[Balance]
    BALANCE_P2C: _ClassVar[Balance]
    BALANCE_ROUND_ROBIN: _ClassVar[Balance]
    BALANCE_RANDOM: _ClassVar[Balance]
    BALANCE_HASH: _ClassVar[Balance]
    BALANCE_LOCAL: _ClassVar[Balance]

class LaneKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LANE_UNSPECIFIED: _ClassVar[LaneKind]
    LANE_LOCAL: _ClassVar[LaneKind]
    LANE_LOCAL_ALONE: _ClassVar[LaneKind]
KIND_UNSPECIFIED: Kind
KIND_HELLO: Kind
KIND_WELCOME: Kind
KIND_GOODBYE: Kind
KIND_JOIN: Kind
KIND_LEAVE: Kind
KIND_SUBSCRIBE: Kind
KIND_UNSUBSCRIBE: Kind
KIND_DONE: Kind
KIND_ERROR: Kind
KIND_CANCEL: Kind
KIND_REQUEST: Kind
KIND_REPLY: Kind
KIND_PUSH: Kind
KIND_BROADCAST: Kind
KIND_SURVEY: Kind
KIND_PUBLISH: Kind
KIND_EVENT: Kind
KIND_FLUSH: Kind
KIND_TUNNEL: Kind
KIND_DATA: Kind
KIND_FINISH: Kind
KIND_CREDIT: Kind
KIND_PART: Kind
KIND_WATCH: Kind
KIND_CHANGE: Kind
KIND_PAUSE: Kind
KIND_RESUME: Kind
KIND_STALLED: Kind
KIND_MOVE: Kind
KIND_PING: Kind
KIND_END: Kind
CODE_UNSPECIFIED: Code
CODE_NO_MEMBER: Code
CODE_NOT_SUPPORTED: Code
CODE_DEADLINE_EXCEEDED: Code
CODE_MEMBER_LOST: Code
CODE_OVERLOADED: Code
CODE_REJECTED: Code
CODE_HANDLER_FAILED: Code
CODE_TOO_LARGE: Code
CODE_TUNNEL_BROKEN: Code
CODE_CANCELLED: Code
CODE_DENIED: Code
CODE_INVALID: Code
CODE_SLOW_SUBSCRIBER: Code
EXECUTED_UNSPECIFIED: Executed
EXECUTED_NO: Executed
EXECUTED_MAYBE: Executed
EXECUTED_YES: Executed
WHEN_FULL_UNSPECIFIED: WhenFull
WHEN_FULL_DROP_OLDEST: WhenFull
WHEN_FULL_DROP_NEWEST: WhenFull
WHEN_FULL_BLOCK: WhenFull
PATTERN_UNSPECIFIED: Pattern
PATTERN_REQUEST: Pattern
PATTERN_PUSH: Pattern
PATTERN_BROADCAST: Pattern
PATTERN_SURVEY: Pattern
PATTERN_TUNNEL: Pattern
BALANCE_UNSPECIFIED: Balance
BALANCE_P2C: Balance
BALANCE_ROUND_ROBIN: Balance
BALANCE_RANDOM: Balance
BALANCE_HASH: Balance
BALANCE_LOCAL: Balance
LANE_UNSPECIFIED: LaneKind
LANE_LOCAL: LaneKind
LANE_LOCAL_ALONE: LaneKind

class Header(_message.Message):
    __slots__ = ("kind", "id", "address", "remaining_ms", "hops", "method", "content_type", "headers", "sizes", "member", "members", "count", "code", "executed", "reason", "detail", "lost", "lost_unknown", "idempotent", "more", "total", "patterns", "concurrency", "group", "when_full", "max_bytes", "version", "node", "balance", "key", "priority", "hedge_ms", "carries", "max_large", "cost", "lane", "ticket", "lanes", "at_once")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_MS_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    LOST_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENT_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PATTERNS_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    WHEN_FULL_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    HEDGE_MS_FIELD_NUMBER: _ClassVar[int]
    CARRIES_FIELD_NUMBER: _ClassVar[int]
    MAX_LARGE_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    kind: Kind
    id: int
    address: str
    remaining_ms: int
    hops: int
    method: str
    content_type: str
    headers: _containers.ScalarMap[str, str]
    sizes: _containers.RepeatedScalarFieldContainer[int]
    member: str
    members: _containers.RepeatedScalarFieldContainer[str]
    count: int
    code: Code
    executed: Executed
    reason: str
    detail: str
    lost: int
    lost_unknown: bool
    idempotent: bool
    more: bool
    total: int
    patterns: int
    concurrency: int
    group: str
    when_full: WhenFull
    max_bytes: int
    version: str
    node: str
    balance: Balance
    key: str
    priority: int
    hedge_ms: int
    carries: Kind
    max_large: int
    cost: int
    lane: str
    ticket: bytes
    lanes: int
    at_once: bool
    def __init__(self, kind: _Optional[_Union[Kind, str]] = ..., id: _Optional[int] = ..., address: _Optional[str] = ..., remaining_ms: _Optional[int] = ..., hops: _Optional[int] = ..., method: _Optional[str] = ..., content_type: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., sizes: _Optional[_Iterable[int]] = ..., member: _Optional[str] = ..., members: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ..., code: _Optional[_Union[Code, str]] = ..., executed: _Optional[_Union[Executed, str]] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., lost: _Optional[int] = ..., lost_unknown: bool = ..., idempotent: bool = ..., more: bool = ..., total: _Optional[int] = ..., patterns: _Optional[int] = ..., concurrency: _Optional[int] = ..., group: _Optional[str] = ..., when_full: _Optional[_Union[WhenFull, str]] = ..., max_bytes: _Optional[int] = ..., version: _Optional[str] = ..., node: _Optional[str] = ..., balance: _Optional[_Union[Balance, str]] = ..., key: _Optional[str] = ..., priority: _Optional[int] = ..., hedge_ms: _Optional[int] = ..., carries: _Optional[_Union[Kind, str]] = ..., max_large: _Optional[int] = ..., cost: _Optional[int] = ..., lane: _Optional[str] = ..., ticket: _Optional[bytes] = ..., lanes: _Optional[int] = ..., at_once: bool = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("header", "body")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    header: Header
    body: bytes
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., body: _Optional[bytes] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[Frame]
    def __init__(self, frames: _Optional[_Iterable[_Union[Frame, _Mapping]]] = ...) -> None: ...
