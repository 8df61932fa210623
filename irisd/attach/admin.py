"""The Admin service: a daemon drained and reloaded, over a Unix socket that only its own user may open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio

from iris_proto.v1 import admin_pb2 as pb
from iris_proto.v1 import admin_pb2_grpc
from irisd.attach.attachment import AttachLimits, abort
from irisd.attach.listener import Listener, UnixSocket, open_listener
from irisd.errors import IrisdError

LOOK_EVERY = 0.1
"""Seconds between two looks at how a drain goes."""


@dataclass(frozen=True, slots=True)
class DrainInfo:
    """How a drain goes. Seconds and bytes.

    Attributes:
        drained: Whether it is over, and everything is being closed.
        cut_short: Whether it ended with calls under way.
    """

    under_way: int
    attachments: int
    queued: int
    left: float
    drained: bool = False
    cut_short: bool = False


class AdminSource(Protocol):
    """The daemon, as far as it can be operated."""

    def begin_drain(self, timeout: float | None) -> None:
        """Stop as SIGTERM does; ``timeout`` in place of the setting. One that is under way goes on."""

    def drain_info(self) -> DrainInfo:
        """How the drain goes."""

    def reload(self) -> tuple[Sequence[str], Sequence[str]]:
        """Reload as SIGHUP does; return what was applied and what wants a restart. Raises IrisdError."""


_Context = grpc.aio.ServicerContext[Any, Any]


class AdminServer(admin_pb2_grpc.AdminServicer):
    """The admin socket of a daemon.

    Args:
        source: The daemon.
        path: Where the socket is.
    """

    def __init__(self, source: AdminSource, path: Path) -> None:
        self._source = source
        self._path = path
        self._listener: Listener | None = None
        self._closing = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"unix://{self._path}"

    async def start(self) -> None:
        """Open the socket.

        Raises:
            ConfigError, RuntimeFolderError, AlreadyRunningError, ListenError: It cannot be opened.
        """
        self._listener = open_listener(UnixSocket(self._path, mode=0o600, lane=False), AttachLimits())
        admin_pb2_grpc.add_AdminServicer_to_server(self, self._listener.server)
        await self._listener.server.start()

    async def stop(self, grace: float) -> None:
        """End the streams of those who watched the drain, and remove the socket. ``grace`` in seconds."""
        self._closing.set()
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close(grace)

    # -------------------------------------------------------------- calls

    async def Drain(self, request: pb.DrainRequest, context: _Context) -> AsyncIterator[pb.DrainProgress]:
        if not 0.0 <= request.timeout <= 3_600.0:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "timeout: 0 to 3600 seconds")
        self._source.begin_drain(request.timeout or None)
        said = None
        while said is None or not said.drained:
            info = self._source.drain_info()
            yield _progress(info)
            said = info
            if not info.drained:
                await asyncio.sleep(LOOK_EVERY)
        await self._closing.wait()  # the stream ends when all else is closed

    async def Reload(self, request: pb.ReloadRequest, context: _Context) -> pb.ReloadResult:
        try:
            applied, restart = self._source.reload()
        except IrisdError as error:
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, f"nothing was changed: {error}")
        return pb.ReloadResult(applied=applied, restart=restart)


def _progress(info: DrainInfo) -> pb.DrainProgress:
    return pb.DrainProgress(
        under_way=info.under_way,
        attachments=info.attachments,
        queued=info.queued,
        left=info.left,
        drained=info.drained,
        cut_short=info.cut_short,
    )
