"""What the brain asks its edges to do. Small, few, and never a carrier of data frames."""

from __future__ import annotations

from dataclasses import dataclass, field

from irisd.model import AttachmentId, Destination, NodeId


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


@dataclass(frozen=True, slots=True)
class Unlink:
    """Close the link to this peer: it broke the protocol. ``reason`` names the rule."""

    peer: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Fact:
    """Something worth a log line: ``event`` is ``room.fact``; never bodies, never keys."""

    event: str
    fields: dict[str, object] = field(default_factory=dict)


Effect = Wake | Detach | Unlink | Fact
