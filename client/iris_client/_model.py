"""The values app authors hold: replies, requests, events, answers; and the sizes everything is bounded by."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from iris_client._errors import DeliveryError

KiB: Final = 1024
MiB: Final = 1024 * KiB

PART_BYTES: Final = 256 * KiB
"""A body above this many bytes travels as parts."""

DATA_BYTES: Final = 64 * KiB
"""Most bytes one DATA frame of a tunnel carries, unless the other end takes more."""

BATCH_BYTES: Final = MiB
"""About how much one batch carries: what was waiting, never more than this and one frame."""

MAX_SIZES: Final = 65_536
"""Most messages one PUBLISH or EVENT frame may hold."""

DEFAULT_MAX_BODY: Final = 8 * MiB
"""The body limit until the daemon has told its own."""

DEFAULT_MAX_LARGE_BODY: Final = 256 * MiB
"""The limit of bodies that ride a tunnel, where nothing else is configured."""

PUBLISH_BUFFER_BYTES: Final = 8 * MiB
"""How much may wait in this process to be published before ``publish`` waits."""

CALL_BUFFER_BYTES: Final = 64 * MiB
"""How much may wait in this process as bodies of other calls before they are refused ``Overloaded``."""

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Executed(StrEnum):
    """Did the handler run? Every delivery error says so."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


class Pattern(IntFlag):
    """What a member handles, as JOIN tells it."""

    REQUEST = 1
    PUSH = 2
    BROADCAST = 4
    SURVEY = 8
    TUNNEL = 16


class State(StrEnum):
    """Where a mesh stands with its daemon."""

    CONNECTING = "connecting"  # the first attachment is being made
    ATTACHED = "attached"
    DRAINING = "draining"  # the daemon said goodbye: what is open may end, new calls wait for the next one
    DETACHED = "detached"  # the stream is gone; a new one is being tried
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class StateChange:
    """What :meth:`Mesh.on_state` callbacks get.

    Attributes:
        state: Where the mesh stands now.
        reason: A sentence for people: which daemon, or why it went away.
    """

    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request. A handler may return one to set headers of its own.

    Attributes:
        body: The bytes of the answer.
        headers: The answering app's headers.
        member: Who answered, as the mesh names it; empty in a reply a handler makes.
        content_type: What the body is, if its sender said.
    """

    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    member: str = ""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """The raw form of what a handler gets: annotate its parameter with this to receive it.

    Attributes:
        body: The bytes that were sent.
        headers: The sender's headers.
        method: Which handler the sender asked for.
        sender: Who sent it, as the mesh names it.
        content_type: What the body is, if its sender said.
        deadline: The instant (``time.monotonic``) after which nobody waits for the answer; infinite for pushes
            and broadcasts, whose senders wait for no answer.
    """

    body: bytes
    headers: Mapping[str, str]
    method: str = ""
    sender: str = ""
    content_type: str = ""
    deadline: float = math.inf

    @property
    def remaining(self) -> float:
        """Seconds until nobody waits any more; 0 when that has passed, infinite when nobody waits for an answer."""
        return max(0.0, self.deadline - time.monotonic())


class Event:
    """One published message, as a subscriber gets it.

    Attributes:
        topic: Where it was published.
        body: Its bytes.
        headers: The publisher's headers.
        lost: How many messages this subscription lost just before this one; None when some may have been lost and
            nobody can know how many.
    """

    __slots__ = ("body", "headers", "lost", "topic")

    def __init__(self, topic: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS, lost: int | None = 0) -> None:
        self.topic = topic
        self.body = body
        self.headers = headers
        self.lost = lost

    def __repr__(self) -> str:
        return f"Event(topic={self.topic!r}, body=<{len(self.body)} bytes>, lost={self.lost})"


@dataclass(frozen=True, slots=True)
class Change:
    """What a watch tells: how many members a node has of a cluster, or what is believed of the node.

    Attributes:
        node: The node's id, hexadecimal; new whenever its daemon starts.
        name: What its daemon is called, for people.
        state: The node's: ``joining`` (heard of), ``alive``, ``suspect``, ``dead`` or ``left`` (it said goodbye);
            ``self`` is the node this app is attached to.
        cluster: Whose members changed; empty when the node's state did.
        members: Of that cluster, at that node, now; 0 when none are left.
        reason: Why, in a few words; may be empty.
        present: It is part of the picture a watch begins with: so it was when the watch began (or began anew).
        lost: How many changes this watch lost just before this one. None: the daemon was lost meanwhile, and the
            picture is told anew from here on; what is not in it is gone.
    """

    node: str
    name: str
    state: str
    cluster: str = ""
    members: int = 0
    reason: str = ""
    present: bool = False
    lost: int | None = 0


class Answer:
    """One member's answer to a survey.

    Attributes:
        member: Who answered.
        body: What it answered; empty when it failed.
        headers: The answering app's headers.
        error: What it failed with, or None.
    """

    __slots__ = ("body", "error", "headers", "member")

    def __init__(
        self, member: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS, error: DeliveryError | None = None
    ) -> None:
        self.member = member
        self.body = body
        self.headers = headers
        self.error = error

    def __repr__(self) -> str:
        what = f"error={self.error!r}" if self.error is not None else f"body=<{len(self.body)} bytes>"
        return f"Answer(member={self.member!r}, {what})"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the daemon allows, as its WELCOME told.

    Attributes:
        max_body: Most bytes a body may have.
        max_large: Most bytes a request's or a reply's body may have, over a tunnel; 0 when that cannot be.
        node: The id of the node this app is attached to, hexadecimal.
        version: The daemon's release.
        lane: The socket this app may move to; empty: it cannot.
        ticket: What lets it in there, once.
        alone: The stream ends when it has moved.
    """

    max_body: int = DEFAULT_MAX_BODY
    node: str = ""
    version: str = ""
    max_large: int = 0
    lane: str = ""
    ticket: bytes = field(default=b"", repr=False)
    alone: bool = False

    @property
    def max_request(self) -> int:
        """Most bytes the body of a request or of its reply may have."""
        return max(self.max_body, self.max_large)
