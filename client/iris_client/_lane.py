"""A lane: one open stream of batches to a daemon. gRPC, a Unix socket, or in-process; the session cannot tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, Protocol, TypeAlias

from iris_client._frames import Kind
from iris_client._urls import Target

Buffer: TypeAlias = bytes | memoryview

CLOSED: Final = "the daemon closed the connection, or is gone"
"""The detail of an end that nobody has explained."""
LANE_KINDS: Final = frozenset({Kind.MOVE, Kind.PING, Kind.END})
"""What the daemon says of a lane an app has moved to."""


class LaneEnded(Exception):
    """The stream is over, or could not be opened.

    Args:
        status: How, as a gRPC status name: ``OK`` when both sides were done, ``UNAVAILABLE`` ...
        detail: A sentence for people.
    """

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(f"{status}: {detail}" if detail else status)
        self.status = status
        self.detail = detail


class Lane(Protocol):
    """What carries a session's batches. At most one task sends and one receives at a time.

    Attributes:
        name: ``grpc``, ``local`` or ``inproc``.
        batch: About how many bytes one batch should carry.
    """

    name: str
    batch: int

    async def send(self, parts: list[bytes]) -> None:
        """Hand over one batch, in pieces; return when the stream can take another.

        Raises:
            LaneEnded: The stream is over; :meth:`receive` says how.
        """

    async def pump(self, received: Callable[[Buffer], None]) -> NoReturn:
        """Give every batch to ``received``, as it comes; it is valid during the call only.

        Cancelling may end the stream.

        Raises:
            LaneEnded: The stream is over.
            Exception: What ``received`` raised.
        """

    async def finish(self) -> None:
        """Send no more; the other side may still."""

    async def close(self) -> None:
        """Release everything at once. May be called again."""


class Stream(Lane, Protocol):
    """The lane an app comes in by."""

    async def receive(self) -> bytes:
        """Wait for the next batch. Cancelling may end the stream.

        Raises:
            LaneEnded: The stream is over.
        """


OpenLane = Callable[[Target, str | None], Awaitable[Stream]]
"""Open a stream to a target, with a token if one is needed. Raises :class:`LaneEnded`."""
