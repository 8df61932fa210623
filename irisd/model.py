"""The values every room speaks in: frames, their kinds, and who is who.

A :class:`Frame` is the unit on a link or an attachment. Its numbers and names
are those of ``proto/iris/v1/frame.proto``, which says what each one means; the
kinds from 64 up are spoken between nodes only and are described in
``docs/wire.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

NodeId = bytes
"""16 random bytes, new at every process start."""

AttachmentId = int
"""A daemon's number for one app's stream; never used twice by one daemon."""

Destination = NodeId | AttachmentId
"""Where an outbox leads: a peer or an attachment."""

KiB = 1024
MiB = 1024 * KiB

PART_BYTES = 256 * KiB
"""A body above this many bytes travels as parts."""

MAX_SEATS = 8192
"""Most members of a cluster at one node that a key may be given to."""

MAX_SIZES = 65_536
"""Most messages one batch frame may hold."""


class Kind(IntEnum):
    """What a frame is; ``frame.proto`` has the grammar."""

    HELLO = 1
    WELCOME = 2
    GOODBYE = 3
    JOIN = 4
    LEAVE = 5
    SUBSCRIBE = 6
    UNSUBSCRIBE = 7
    DONE = 8
    ERROR = 9
    CANCEL = 10
    REQUEST = 11
    REPLY = 12
    PUSH = 13
    BROADCAST = 14
    SURVEY = 15
    PUBLISH = 16
    EVENT = 17
    FLUSH = 18
    TUNNEL = 19
    DATA = 20
    FINISH = 21
    CREDIT = 22
    PART = 23
    WATCH = 24
    CHANGE = 25
    PAUSE = 26
    RESUME = 27
    STALLED = 28
    MOVE = 29
    PING = 30
    END = 31
    # Between nodes only.
    RECORD = 64  # claims of the sender's registry record; `count` is the version they bring it to
    RECORD_ACK = 65  # `count`: the version of your record I now hold
    PUBLISH_ACK = 66  # `count`: the last publish sequence number I received from you
    LOST = 67  # `count` messages of topic `address` (and `group`) never reached you
    ACCEPTED = 68  # the call `id` reached its member's node
    BELIEFS = 69  # what the sender thinks of other nodes: heard, not heard, dead, left
    VIEW = 70  # which records the sender holds, of some buckets: tell me what I lack
    WANT = 71  # send me these nodes' records
    SYNCED = 72  # that was all for your VIEW or WANT
    HEARSAY = 73  # claims of another node's record, passed on
    IDLE = 74  # `count` 1: may this link be closed? 2: yes, 3: no
    NEED = 75  # lend me `count` bytes for BLOCK subscribers of `address` (and `group`), `total` at least; I hold `cost`
    GRANT = 76  # you may send `count` more bytes to them; 0: wait for `member`
    RETURN = 77  # `count` bytes of a GRANT will not be used; 0: please return what you do not need
    TRACE = 78  # which of your members would get a call to `address` now? `count` numbers the question
    TRACED = 79  # the answer to question `count`


class Code(IntEnum):
    """Why a call failed."""

    NO_MEMBER = 1
    NOT_SUPPORTED = 2
    DEADLINE_EXCEEDED = 3
    MEMBER_LOST = 4
    OVERLOADED = 5
    REJECTED = 6
    HANDLER_FAILED = 7
    TOO_LARGE = 8
    TUNNEL_BROKEN = 9
    CANCELLED = 10
    DENIED = 11
    INVALID = 12
    SLOW_SUBSCRIBER = 13


class Executed(IntEnum):
    """Did the handler run?"""

    NO = 1
    MAYBE = 2
    YES = 3


class WhenFull(IntEnum):
    """What a full queue does to a subscription."""

    DROP_OLDEST = 1
    DROP_NEWEST = 2
    BLOCK = 3


class Pattern(IntFlag):
    """What a member handles."""

    REQUEST = 1
    PUSH = 2
    BROADCAST = 4
    SURVEY = 8
    TUNNEL = 16


class Balance(IntEnum):
    """How calls are shared out among the members of a cluster."""

    P2C = 1
    """Of two candidates by chance, the one with less to do for its slots and its speed."""
    ROUND_ROBIN = 2
    RANDOM = 3
    HASH = 4
    """The call's key decides; a key stays with its member while that lives."""
    LOCAL = 5
    """The caller's own node first."""


MAX_BALANCE = max(Balance)


class LaneKind(IntFlag):
    """Where an app can move to, besides the stream it begins on."""

    LOCAL = 1
    LOCAL_ALONE = 2  # and that stream ends then


LARGE = 32
"""Beside the patterns of a member and of a claim: it takes requests that a tunnel carries."""


class Frame:
    """A header and a body.

    Only the fields that were given live in the instance, the rest are the
    defaults below: a frame costs as much as what it says, and the codec walks
    ``vars(frame)``. ``deadline`` and those after it are this node's own notes
    and never travel: a header's ``remaining_ms`` becomes ``deadline`` when the
    frame comes in, and is worked out from it again when it leaves.
    """

    kind: int
    id: int = 0
    address: str = ""
    remaining_ms: int = 0
    hops: int = 0
    method: str = ""
    content_type: str = ""
    headers: tuple[bytes, ...] = ()  # encoded entries, passed through unread
    sizes: bytes = b""  # fixed32 little-endian, one per message
    member: str = ""
    members: tuple[str, ...] = ()
    count: int = 0
    code: int = 0
    executed: int = 0
    reason: str = ""
    detail: str = ""
    lost: int = 0
    lost_unknown: bool = False
    idempotent: bool = False
    more: bool = False
    total: int = 0
    patterns: int = 0
    concurrency: int = 0
    group: str = ""
    when_full: int = 0
    max_bytes: int = 0
    version: str = ""
    node: str = ""
    balance: int = 0
    key: str = ""
    priority: int = 0
    hedge_ms: int = 0
    carries: int = 0
    max_large: int = 0
    cost: int = 0  # EVENT, PUBLISH between nodes: bytes of credit it uses
    at_once: bool = False
    lane: str = ""
    ticket: bytes = b""
    lanes: int = 0
    seq: int = 0  # PUBLISH between nodes: position in the sender's sequence towards this node
    full: bool = False  # RECORD: first piece of a whole record, forget what you held

    body: bytes = b""

    deadline: float = math.inf  # monotonic seconds, local
    sent: bool = False  # has begun to leave this node's outbox, local
    header_bytes: int = 0  # as it came in, if it was unusually large, local
    whole: Frame | None = None  # on a last PART: the frame it completes, local

    def __init__(self, kind: int, **fields: Any) -> None:
        self.kind = kind
        self.__dict__.update(fields)

    def copy(self, **changes: Any) -> Frame:
        """A frame with the same fields but for ``changes``; it has not been ``sent``."""
        other = Frame.__new__(Frame)
        fields = other.__dict__
        fields.update(self.__dict__)
        fields.pop("sent", None)
        fields.update(changes)
        return other

    @property
    def messages(self) -> int:
        """How many messages the body holds."""
        return len(self.sizes) >> 2 or 1

    def __repr__(self) -> str:
        said = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if k not in ("kind", "body", "ticket"))
        return f"<{_kind_name(self.kind)} {said} body={len(self.body)}B>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def _kind_name(kind: int) -> str:
    try:
        return Kind(kind).name
    except ValueError:
        return f"KIND_{kind}"


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What a handshake proved about the other node."""

    node_id: NodeId
    name: str
    incarnation: int = 1
    address: str = ""
    features: int = 0


MEMBERSHIP = 1
"""Feature: speaks BELIEFS, VIEW, WANT, SYNCED, HEARSAY and IDLE, and tells digests in its heartbeats."""

TRACES = 2
"""Feature: answers TRACE."""

FEATURES = MEMBERSHIP | TRACES
"""What this release speaks beyond the first."""


class State(IntEnum):
    """What is believed of a node. Of the same incarnation the greater wins, ``JOINING`` and ``ALIVE`` aside."""

    JOINING = 1
    """Heard of, never linked."""
    ALIVE = 2
    SUSPECT = 3
    """It misses heartbeats, or its link broke: chosen only when nobody else remains."""
    DEAD = 4
    LEFT = 5
    """It said goodbye."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What a node says of itself, its claims aside; only it may.

    Attributes:
        node_id: Who.
        incarnation: Rises only to refute what others believe of it.
        name: For people.
        cloud: Its site.
        release: The version of its daemon.
        addresses: Where it takes links, ``host:port``, best first.
        draining: It takes no new work.
    """

    node_id: NodeId
    incarnation: int = 1
    name: str = ""
    cloud: str = "default"
    release: str = ""
    addresses: tuple[str, ...] = ()
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """The mesh is not what it was: a node's state, or how many members of a cluster a node has.

    Attributes:
        node: Whose.
        name: Its name for people.
        state: The node's state now (``joining`` ... ``left``); for a change of members too.
        cluster: The cluster whose members changed; empty: the node's state did.
        members: Of that cluster, at that node, now.
        reason: Why, in a few words.
    """

    node: NodeId
    name: str
    state: str
    cluster: str = ""
    members: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one node says it can be reached for.

    Either ``cluster`` is set (k members of that cluster, and the patterns they
    handle) or ``topic`` is (k local subscribers, as ``group`` if that is set).

    Of a cluster's members:

    Attributes:
        slots: Calls they take at once, those that are ejected aside, at the best level there is.
        ejected: How many of them are given nothing for a while, because they fail.
        level: The best level of those that are not.
        balance: How calls should be shared out.
        seats: Which seats they have, one bit each; 0: the first ``members``.
    """

    members: int
    cluster: str = ""
    patterns: int = 0
    topic: str = ""
    group: str = ""
    slots: int = 0
    ejected: int = 0
    level: int = 0
    balance: int = 0
    seats: int = 0
    blocks: bool = False  # some of its subscribers must lose nothing: credit first

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.cluster, self.topic, self.group)

    @property
    def capacity(self) -> int:
        """Calls its members take at once; the first release says only how many they are."""
        return 0 if self.ejected >= self.members else self.slots or self.members

    @property
    def taken_seats(self) -> Iterator[int]:
        """The numbers of the seats its members have, the first :data:`MAX_SEATS` of them."""
        if not self.seats:
            return iter(range(min(self.members, MAX_SEATS)))
        return (seat for seat in range(self.seats.bit_length()) if self.seats >> seat & 1)
