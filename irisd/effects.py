"""What the brain asks its edges to do. Small, few, and never a carrier of data frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from irisd.model import AttachmentId, Destination, NodeId

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Wake:
    """An outbox turned non-empty: pull from it with ``Node.take`` when you can write."""

    destination: Destination


@dataclass(frozen=True, slots=True)
class Detach:
    """End this attachment. ``status`` is the gRPC status name, ``reason`` a sentence for people."""

    attachment: AttachmentId
    status: str
    reason: str


class Cause(StrEnum):
    """Why a link is closed."""

    VIOLATION = "violation"
    """The peer broke the protocol."""
    SILENT = "silent"
    """Nothing was heard of it for too long."""
    IDLE = "idle"
    """Nobody needs it; another is made when somebody does."""


@dataclass(frozen=True, slots=True)
class Unlink:
    """Close the link to this peer. ``reason`` is a sentence for people."""

    peer: NodeId
    reason: str
    cause: Cause = Cause.VIOLATION


@dataclass(frozen=True, slots=True)
class Control:
    """Send this message on the control connection of the link to this peer: a heartbeat, never data.

    Heartbeats are best effort. An edge that cannot write now drops it.
    """

    peer: NodeId
    parts: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A node is said to be at these addresses: be linked with it, as with any that discovery finds."""

    node: NodeId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Connect:
    """Something waits for this node, which is not linked: dial it once, now.

    Followed by ``Node.link_up``, or by ``Node.connect_failed``.
    """

    node: NodeId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something worth a log line: ``event`` is ``room.fact``; never bodies, never keys."""

    event: str
    fields: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Traced:
    """A trace is complete: fetch it with ``Node.traces.take(number)``."""

    number: int


Effect = Wake | Detach | Unlink | Control | Found | Connect | Fact | Traced
