"""The edge where apps come in: listeners, and on each of them Attach, Control, health and reflection.

A server is started, drained (health says NOT_SERVING, new apps are told to go
elsewhere) and stopped (the apps still here are told too, the sockets go).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from iris_proto.v1 import attach_pb2, control_pb2, control_pb2_grpc
from irisd.attach.attachment import (
    GONE,
    AttachHandler,
    AttachLimits,
    Attachment,
    AttachRefused,
    Over,
    abort,
)
from irisd.attach.channel import Context
from irisd.attach.control import ControlService, ControlSource
from irisd.attach.hello import Unready
from irisd.attach.listener import Listener, ListenerSpec, open_listener
from irisd.attach.stream import Stream

# From the descriptors, which must be loaded anyway for reflection to have them.
RELAY = attach_pb2.DESCRIPTOR.services_by_name["Relay"].full_name
CONTROL = control_pb2.DESCRIPTOR.services_by_name["Control"].full_name

_log = structlog.get_logger("irisd.attach")

_STOPPING = "the daemon is shutting down; attach again elsewhere or later"


class AttachServer:
    """All listeners for apps of one daemon.

    Args:
        handler: What becomes of apps and their frames.
        source: What the control service tells.
        listeners: Where to listen.
        limits: The edge's bounds.
        ids: Where attachment ids come from; never the same one twice.
    """

    def __init__(
        self,
        handler: AttachHandler,
        source: ControlSource,
        listeners: Sequence[ListenerSpec],
        limits: AttachLimits | None = None,
        *,
        ids: Iterator[int] | None = None,
    ) -> None:
        self._handler = handler
        self._source = source
        self._specs = tuple(listeners)
        self._limits = limits or AttachLimits()
        self._ids = ids or itertools.count(1)
        self._listeners: list[Listener] = []
        self._health: list[Any] = []  # health.aio.HealthServicer
        self._attachments: dict[int, tuple[Attachment, asyncio.Task[Over]]] = {}
        self._unready = Unready(self._limits)
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._watch: asyncio.Task[None] | None = None

    @property
    def urls(self) -> list[str]:
        """Where apps reach the open listeners, in the order they were given."""
        return [listener.url for listener in self._listeners]

    @property
    def attachments(self) -> int:
        """How many apps are attached."""
        return len(self._attachments)

    async def start(self) -> list[str]:
        """Open every listener, or none; return their URLs.

        Raises:
            ConfigError, RuntimeFolderError, AlreadyRunningError, TokenFileError, ListenError: A listener cannot be
                opened; those that were are closed again.
        """
        try:
            for spec in self._specs:
                self._listeners.append(open_listener(spec, self._limits))
            for listener in self._listeners:
                await self._add_services(listener)
                await listener.start()
        except BaseException:
            await self._close(0.0)
            raise
        self._watch = asyncio.create_task(self._watch_readers(), name="attach-watch")
        return self.urls

    def reload_tokens(self) -> None:
        """Read every token file again. Streams that are open stay open.

        Raises:
            TokenFileError: One is not usable any more; all listeners keep their old tokens.
        """
        for listener, token in [(listener, listener.read_token()) for listener in self._listeners]:
            listener.use_token(token)

    def allow(self, attachments: int) -> None:
        """Take so many apps at once from now on; those attached stay."""
        self._limits = replace(self._limits, attachments=attachments)

    async def drain(self) -> None:
        """Take no new apps, and say so to health checks. Those attached stay."""
        if not self._draining:
            self._draining = True
            for servicer in self._health:
                await servicer.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Drain, end every attachment with UNAVAILABLE, close the listeners, remove the socket.

        Args:
            grace: Seconds for apps to be told; what runs after it is aborted.
        """
        await self.drain()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        for attachment, _ in list(self._attachments.values()):
            attachment.end("UNAVAILABLE", _STOPPING, reason="shutdown")
        until = asyncio.get_running_loop().time() + grace
        try:
            async with asyncio.timeout_at(until):
                await self._empty.wait()
        except TimeoutError:
            for attachment, _ in list(self._attachments.values()):
                attachment.give_up()
            await self._empty.wait()  # at once: nothing but our own tasks is waited for
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                for listener in self._listeners:
                    if listener.lane is not None:
                        await listener.lane.leaving.done()
        await self._close(min(grace, 0.5))

    # ---------------------------------------------------------------- streams

    async def _attach(self, listener: Listener, context: Context) -> None:
        await self._refuse_when_full(context)
        hello, rest = await self._unready.hello(context)
        await self._refuse_when_full(context)  # again: much may have happened meanwhile
        if len(listener.services) == 1 and not hello.address:
            hello.address = next(iter(listener.services))
        attachment = Attachment(next(self._ids), _peer(context), listener.url, listener.services)
        if hello.address and not attachment.allows(hello.address):
            await abort(
                context,
                grpc.StatusCode.PERMISSION_DENIED,
                f"{listener.url} does not offer service {hello.address[:200]!r}; attach through another listener",
            )
        stream = Stream(attachment, context, self._handler, self._limits, listener.lane)
        running = self._start(attachment, stream.run(hello, rest))
        try:
            await asyncio.wait((running, stream.moved), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not stream.moving:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            raise
        if not running.done():
            return  # it goes on without this call
        try:
            over = running.result()
        except AttachRefused as refused:
            over = Over(refused.status, refused.detail, "refused")
        if over is GONE and attachment.local is not None:
            over = Over(grpc.StatusCode.UNAVAILABLE, "the local lane broke", "gone")
        if over is not GONE and over.status is not grpc.StatusCode.OK:
            await abort(context, over.status, over.detail)

    def _start(self, attachment: Attachment, stream: Coroutine[Any, Any, Over]) -> asyncio.Task[Over]:
        """Serve an attachment to its end, which is not always that of its call."""

        def ended(running: asyncio.Task[Over]) -> None:
            del self._attachments[attachment.id]
            if not self._attachments:
                self._empty.set()

        self._empty.clear()
        running = asyncio.create_task(stream, name=f"attach-{attachment.id}")
        self._attachments[attachment.id] = attachment, running  # nobody else may hold the task
        running.add_done_callback(ended)
        return running

    async def _refuse_when_full(self, context: Context) -> None:
        if self._draining:
            await abort(context, grpc.StatusCode.UNAVAILABLE, _STOPPING)
        most = self._limits.attachments
        if len(self._attachments) >= most:
            sentence = f"too many attachments: this daemon takes {most}"
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, sentence)

    async def _watch_readers(self) -> None:
        """Detach apps that do not read while what they must hear piles up, and those that are there in name only."""
        patience, silent = self._limits.not_reading, self._limits.silent
        pause = min(5.0, patience / 4, silent / 4)
        clock = asyncio.get_running_loop().time
        looked = awake = clock()
        while True:
            await asyncio.sleep(pause)
            now = clock()
            if now - looked > 2 * pause:
                awake = now  # this daemon stood still, and what was said meanwhile is yet to be read
            looked = now
            for attachment, _ in list(self._attachments.values()):
                since = attachment.silent_since
                if since is not None and now - max(since, awake) > silent:
                    attachment.end("UNAVAILABLE", f"silent: the app has said nothing for {silent:g} s", reason="silent")
                if attachment.stalled < patience:
                    continue
                try:
                    full = self._handler.control_full(attachment)
                except Exception:  # a defect of ours must not end the watch over the others
                    _log.exception("attach.watch_failed", attachment=attachment.id)
                    continue
                if full:
                    sentence = f"not-reading: the app has not read what it was sent for {patience:g} s"
                    attachment.end("RESOURCE_EXHAUSTED", sentence, reason="not-reading")

    # --------------------------------------------------------------- services

    async def _add_services(self, listener: Listener) -> None:
        async def attach(_requests: object, context: Context) -> None:
            await self._attach(listener, context)

        # Bytes in, bytes out: batches are read and written by irisd.wire, which is far quicker than the general codec.
        methods = {"Attach": grpc.stream_stream_rpc_method_handler(attach)}
        server = listener.server
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(RELAY, methods),))
        control = ControlService(self._source, listener.services)
        control_pb2_grpc.add_ControlServicer_to_server(control, server)
        servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # untyped
        for name in ("", RELAY, CONTROL):
            await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        self._health.append(servicer)
        names = (RELAY, CONTROL, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)

    async def _close(self, grace: float) -> None:
        listeners, self._listeners = self._listeners, []
        await asyncio.gather(*(listener.close(grace) for listener in listeners))


def _peer(context: Context) -> str:
    """``ipv4:127.0.0.1:50312`` -> ``127.0.0.1:50312``; a Unix socket's peer has no name."""
    scheme, _, address = unquote(context.peer()).partition(":")
    return scheme if scheme == "unix" else address
