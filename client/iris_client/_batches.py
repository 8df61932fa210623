"""What waits to be published (pure): messages that will share a frame, and topics whose messages wait aside."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from iris_client._errors import PublishLost
from iris_client._frames import Header, Kind, append_frame, append_joined, make, sizes_field
from iris_client._model import MAX_SIZES, PART_BYTES

if TYPE_CHECKING:
    from iris_client._flushcall import FlushCall

MESSAGE_COST: Final = 32
"""Bytes a waiting message is charged besides its body: what Python needs to hold it, about."""


class Batch:
    """Messages that will share a frame, or one message that travels in parts."""

    __slots__ = ("at", "bodies", "content_type", "headers", "id", "number", "size", "topic")

    def __init__(self, number: int, topic: str, headers: dict[str, str] | None, content_type: str) -> None:
        self.number = number
        self.topic = topic
        self.headers = headers
        self.content_type = content_type
        self.bodies: list[bytes] = []
        self.size = 0
        self.at = 0  # of a message in parts: how much has been written
        self.id = 0

    def takes(self, topic: str, size: int, headers: dict[str, str] | None, content_type: str) -> bool:
        """Whether one more message may share the frame."""
        return (
            self.topic == topic
            and self.size + size <= PART_BYTES
            and len(self.bodies) < MAX_SIZES
            and self.headers == headers
            and self.content_type == content_type
        )

    @property
    def cost(self) -> int:
        """What it is charged for while it waits."""
        return self.size + len(self.bodies) * MESSAGE_COST

    def header(self, id: int) -> Header:
        """The header of its frame, without sizes."""
        return make(kind=Kind.PUBLISH, id=id, address=self.topic, headers=self.headers, content_type=self.content_type)

    def write(self, chunks: list[bytes], id: int) -> int:
        """Append its frame, whole; return how many bytes that added."""
        header = self.header(id).SerializeToString()
        if len(self.bodies) == 1:
            return append_frame(chunks, header, self.bodies[0])
        return append_joined(chunks, header + sizes_field(self.bodies), self.bodies, self.size)


class Side:
    """What waits for one topic that is paused."""

    __slots__ = ("batches", "flushes", "full", "waiting")

    def __init__(self) -> None:
        self.batches: deque[Batch] = deque()
        self.flushes: deque[FlushCall] = deque()  # that come after some of them
        self.waiting = 0
        self.full = False  # somebody waits for room


def publish_lost(lost: int, unknown: int) -> PublishLost:
    """The error that tells of messages that were lost, or may have been."""
    parts = []
    if lost:
        parts.append(f"the daemon dropped {lost} published messages because queues were full")
    if unknown:
        parts.append(f"{unknown} may have been lost when the stream to the daemon broke")
    return PublishLost("; ".join(parts), lost=lost, unknown=unknown)
