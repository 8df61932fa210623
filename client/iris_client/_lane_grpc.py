"""The lane over gRPC: one ``Attach`` call on a channel of its own.

grpc takes a while to import, so it is imported by the first connection and not by ``import iris_client``.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from iris_client._errors import MeshClosed
from iris_client._grpcio import import_grpc
from iris_client._lane import CLOSED, Buffer, LaneEnded
from iris_client._model import BATCH_BYTES, MiB
from iris_client._urls import Target

if TYPE_CHECKING:
    import grpc.aio

ATTACH: Final = "/iris.v1.Relay/Attach"
MAX_MESSAGE: Final = 16 * MiB

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # A daemon that hangs, or a host that vanished behind TCP, is noticed without traffic.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # One call, one connection: what to try again, where and when is the session's business.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # A local daemon is not reached through a proxy.
    ("grpc.enable_http_proxy", 0),
)


_CLOSED: Final = re.compile(
    r"Socket closed|Stream removed|(recv|send)msg:|Connection reset|Broken pipe|Internal error from Core"
)
"""How grpc begins to say that a connection has ended."""


class GrpcLane:
    """One ``Attach`` call. Made by :func:`open_grpc`."""

    name = "grpc"
    batch = BATCH_BYTES

    def __init__(self, channel: grpc.aio.Channel, call: Any) -> None:
        import grpc.aio

        self._channel = channel
        self._call = call
        self._errors = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError)
        self._eof = grpc.aio.EOF  # type: ignore[attr-defined]  # missing from the stubs

    async def send(self, parts: list[bytes]) -> None:
        try:
            await self._call.write(b"".join(parts))
        except self._errors as error:
            raise LaneEnded("UNAVAILABLE", str(error)) from None

    async def receive(self) -> bytes:
        try:
            batch = await self._call.read()
        except self._errors:
            batch = self._eof
        except asyncio.CancelledError:
            # grpc also raises this when the *call* was cancelled, by us or by the far side.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            batch = self._eof
        if batch is self._eof:
            raise LaneEnded(*await self._status())
        received: bytes = batch
        return received

    async def pump(self, received: Callable[[Buffer], None]) -> NoReturn:
        while True:
            received(await self.receive())

    async def finish(self) -> None:
        with suppress(*self._errors, asyncio.CancelledError):
            await self._call.done_writing()

    async def close(self) -> None:
        self._call.cancel()
        await self._channel.close(None)

    async def _status(self) -> tuple[str, str]:
        code = await self._call.code()
        detail = await self._call.details() or ""
        # "failed to connect to all addresses; last error: UNKNOWN: unix:/x: connect: No such file or directory (2)"
        if match := re.search(r"last error: [A-Z_]+: (.*)", detail):
            detail = match.group(1).rpartition(": ")[2] or match.group(1)
        elif _CLOSED.match(detail):
            detail = CLOSED
        return code.name, detail


_user: int | None = None  # the process that first used gRPC here


def _check_fork() -> None:
    """Refuse to use gRPC in a child of a process that has used it: calls made there would never end.

    Raises:
        MeshClosed: This is such a child.
    """
    global _user
    if _user is None:
        _user = os.getpid()
    elif _user != os.getpid():
        raise MeshClosed(
            "this process was forked from one that had a mesh already, and gRPC does not survive that: connect only "
            "after forking, or start processes with the 'spawn' or 'forkserver' method"
        )


async def open_grpc(target: Target, token: str | None, *, stays: bool = False) -> GrpcLane:
    """Start an ``Attach`` call. Whether anyone answers shows when it is first used.

    Args:
        target: Where.
        token: What lets this app in, if something has to.
        stays: It will not move to another lane.

    Raises:
        LaneEnded: The authorities' file of a ``tls`` target cannot be read.
        MeshClosed: This process was forked from one that has used gRPC.
    """
    _check_fork()
    # gRPC's own fork handlers cannot help a process that has calls under way, and write to standard error at every
    # subprocess it starts; an app that wants them says so by setting the variable itself.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    if stays or target.scheme != "unix":
        import_grpc()
    import grpc
    import grpc.aio

    address = f"unix:{target.place}" if target.scheme == "unix" else target.place
    if target.scheme == "tls":
        roots = None
        if target.ca_file:
            try:
                with open(target.ca_file, "rb") as file:  # noqa: ASYNC230 - small and local
                    roots = file.read()
            except OSError as error:
                raise LaneEnded("UNAVAILABLE", f"{target.ca_file}: {error.strerror}") from None
        channel = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(roots), options=_OPTIONS)
    else:
        channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
    metadata = (("authorization", f"Bearer {token}"),) if token and target.scheme != "unix" else None
    method: Any = channel.stream_stream(ATTACH, None, None)  # bytes, as they are
    call = method(metadata=metadata)
    return GrpcLane(channel, call)
