"""What a daemon says of itself: the read-only control service, found where an app would find its daemon."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from iris_client._connection import DENIALS, refuse_plain_token
from iris_client._errors import DaemonUnavailable, DeadlineExceeded, Denied, IrisError
from iris_client._model import Executed, MiB
from iris_client._urls import Target, candidates
from iris_client.cli.options import Settings, token_in_environment
from iris_client.cli.output import Failure
from iris_proto.v1 import control_pb2 as pb

if TYPE_CHECKING:
    import grpc.aio

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 64 * MiB),  # a mesh of many names
    ("grpc.use_local_subchannel_pool", 1),  # a look at a target that has just failed is a new one
    ("grpc.enable_http_proxy", 0),  # a local daemon is not reached through a proxy
)

_Answer = TypeVar("_Answer")


class Control:
    """An open channel to a daemon's control service.

    Args:
        channel: Where it answers.
        metadata: The token, if one is needed.
        settings: Which service to ask about, and how long an answer may take.

    Every question may raise :class:`Denied`, :class:`DeadlineExceeded` or :class:`DaemonUnavailable`.
    """

    def __init__(self, channel: grpc.aio.Channel, metadata: Any, settings: Settings) -> None:
        from iris_proto.v1 import control_pb2_grpc

        self._stub: Any = control_pb2_grpc.ControlStub(channel)
        self._metadata = metadata
        self._timeout = settings.timeout
        self._asked = pb.ListRequest(service=settings.service or "")
        self._service = settings.service

    async def status(self, timeout: float | None = None) -> pb.Status:
        """The daemon, with only the chosen service if one was chosen."""
        status: pb.Status = await self._ask(self._stub.GetStatus, pb.GetStatusRequest(), timeout)
        if self._service is None:
            return status
        chosen = [row for row in status.services if row.service == self._service]
        if not chosen:
            here = ", ".join(row.service for row in status.services) or "none"
            raise Denied(f"the daemon refuses: no service {self._service!r} here; there is: {here}")
        del status.services[:]
        status.services.extend(chosen)
        return status

    async def nodes(self) -> list[pb.Node]:
        answer: pb.NodeList = await self._ask(self._stub.ListNodes, self._asked)
        return list(answer.nodes)

    async def clusters(self) -> list[pb.Cluster]:
        answer: pb.ClusterList = await self._ask(self._stub.ListClusters, self._asked)
        return list(answer.clusters)

    async def topics(self) -> list[pb.Topic]:
        answer: pb.TopicList = await self._ask(self._stub.ListTopics, self._asked)
        return list(answer.topics)

    async def discovery(self) -> pb.Discovery:
        answer: pb.Discovery = await self._ask(self._stub.GetDiscovery, self._asked)
        return answer

    async def load(self) -> pb.Load:
        answer: pb.Load = await self._ask(self._stub.GetLoad, self._asked, since="0.3")
        return answer

    async def trace(self, request: pb.TraceRequest) -> pb.Trace:
        """What would happen to a call of the chosen service."""
        request.service = self._service or ""
        answer: pb.Trace = await self._ask(self._stub.TraceCall, request, since="0.3")
        return answer

    async def probe(self, timeout: float) -> None:
        """Find out whether a daemon answers here, and answers us."""
        await self._ask(self._stub.GetStatus, pb.GetStatusRequest(), timeout)

    async def _ask(self, method: Any, request: Any, timeout: float | None = None, *, since: str = "") -> Any:
        """Ask; ``since`` is the release that first knew the answer, if it was not always known."""
        import grpc
        import grpc.aio

        try:
            return await method(request, timeout=timeout or self._timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            if since and error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise Failure(
                    f"the daemon is older than {since}, the first release that can tell",
                    hint="iris status shows its release",
                    kind="TooOld",
                ) from None
            raise _translated(error) from None


class _NobodyThere(Exception):
    """Nobody answers at a target."""


def _translated(error: grpc.aio.AioRpcError) -> Exception:
    status, detail = error.code().name, error.details() or ""
    if status in DENIALS:
        return Denied(f"the daemon refuses: {detail or status.lower()}")
    if status == "DEADLINE_EXCEEDED":
        return DeadlineExceeded("the daemon did not answer in time", executed=Executed.NO)
    if status == "UNAVAILABLE":
        return _NobodyThere(detail.rpartition(": ")[2] or detail or "nobody answers")
    if status == "UNIMPLEMENTED":
        return Failure("what answers there is no Iris daemon, or one without a control service", kind="NoControl")
    return IrisError(f"the daemon failed to answer: {detail or status.lower()}")


@asynccontextmanager
async def open_control(settings: Settings) -> AsyncIterator[Control]:
    """Find the daemon as an app would: the same places, in the same order, waiting for one that is late.

    Raises:
        DaemonUnavailable: Nobody answered within ``settings.timeout``.
        Denied: A daemon answered and refused.
    """
    deadline = time.monotonic() + settings.timeout
    targets = candidates(settings.url, os.environ, sys.platform)
    token = settings.token or token_in_environment(targets)
    tried: dict[Target, str] = {}
    pause = FIRST_PAUSE
    while True:
        for target in targets:
            if token:
                refuse_plain_token(target)
            channel = _channel(target)
            try:
                metadata = (("authorization", f"Bearer {token}"),) if token and target.scheme != "unix" else None
                control = Control(channel, metadata, settings)
                try:
                    await control.probe(max(0.05, deadline - time.monotonic()))
                except _NobodyThere as error:
                    tried[target] = str(error)
                else:
                    yield control
                    return
            finally:
                await channel.close(None)
        left = deadline - time.monotonic()
        if left <= 0:
            lines = "".join(f"\n  {target}: {reason}" for target, reason in tried.items())
            raise DaemonUnavailable(
                f"no Iris daemon answered within {settings.timeout:g} s; tried:{lines}\nStart one with: irisd"
            )
        await asyncio.sleep(min(left, pause))
        pause = min(pause * 2, LONGEST_PAUSE)


async def keep_asking(
    settings: Settings, ask: Callable[[Control], Awaitable[_Answer]], every: float
) -> AsyncGenerator[_Answer, None]:
    """Ask again and again, every ``every`` seconds; a daemon that went away is looked for anew."""
    while True:
        async with open_control(settings) as control:
            try:
                while True:
                    yield await ask(control)
                    await asyncio.sleep(every)
            except _NobodyThere:
                continue


async def ask_once(settings: Settings, ask: Callable[[Control], Awaitable[_Answer]]) -> _Answer:
    """Open, ask, close.

    Raises:
        DaemonUnavailable: Nobody answered, or it went away before it did.
        Denied: A daemon answered and refused.
        DeadlineExceeded: It did not answer in time.
    """
    async with open_control(settings) as control:
        try:
            return await ask(control)
        except _NobodyThere as error:
            raise DaemonUnavailable(f"the daemon went away: {error}") from None


def _channel(target: Target) -> grpc.aio.Channel:
    import grpc
    import grpc.aio

    address = f"unix:{target.place}" if target.scheme == "unix" else target.place
    if target.scheme != "tls":
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    roots = None
    if target.ca_file:
        try:
            with open(target.ca_file, "rb") as file:
                roots = file.read()
        except OSError as error:
            raise Failure(f"{target.ca_file}: {error.strerror}", kind="CaFile") from None
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(roots), options=_OPTIONS)
