"""What carries an attachment's batches: a gRPC stream, and perhaps later the local lane."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from irisd.model import Frame, MiB
from irisd.wire import encode_batch

Context = grpc.aio.ServicerContext[Any, Any]

EOF: object = grpc.aio.EOF  # type: ignore[attr-defined]  # missing from the stubs

GRPC_BATCH: Final = 1 * MiB
"""About what one gRPC message towards an app carries."""


class ChannelLost(Exception):
    """What carried the attachment broke: nobody is left to read or to be told."""


class Channel(Protocol):
    """One task at a time reads, and one writes.

    Attributes:
        name: ``grpc`` or ``local``.
        batch: About how many bytes one batch should carry.
        turn: Seconds one app's frames may keep all others waiting, as nearly as can be foreseen.
    """

    name: str
    batch: int
    turn: float

    async def read(self) -> bytes | None:
        """Wait for what came, one or more batches one after another; None once the app has said its last.

        Raises:
            ChannelLost: It broke.
            WireError: The app broke the channel's own rules.
        """

    async def write(self, frames: list[Frame]) -> None:
        """Write a batch; return when the next may be written.

        Raises:
            ChannelLost: It broke.
        """

    async def flush(self) -> None:
        """Return once all that was written is out of this process's hands.

        Raises:
            ChannelLost: It broke.
        """


class GrpcChannel:
    """The stream an app comes in by."""

    name = "grpc"
    batch = GRPC_BATCH
    turn = 0.005

    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self) -> bytes | None:
        data = await self._context.read()
        if data is not EOF:
            batch: bytes = data
            return batch
        if self._context.cancelled():
            raise ChannelLost
        return None

    async def write(self, frames: list[Frame]) -> None:
        try:
            await self._context.write(encode_batch(frames))
        except (grpc.aio.BaseError, asyncio.InvalidStateError):
            raise ChannelLost from None  # the call was over before gRPC told us

    async def flush(self) -> None:
        """Nothing to do: a write ends when gRPC has taken it, and the call's status comes after it."""
