"""Runs a cluster's handlers for what the daemon delivers, and answers for them.

Every delivery that is answerable is answered once, whatever its handler does. What goes back on failure never
carries a traceback or an exception's text: those are logged here, where they belong.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from iris_client._cluster import Cluster, Handler
from iris_client._codecs import BYTES, decode, encode
from iris_client._context import handler_deadline
from iris_client._deliveries import PATTERN_NAMES, Delivery
from iris_client._errors import CodecError, InvalidName, Reject
from iris_client._frames import EXECUTED_NO, EXECUTED_YES, Code, Kind
from iris_client._model import MiB, Reply
from iris_client._names import headers as checked_headers
from iris_client._threads import Threads
from iris_client._tunnel import Tunnel
from iris_client._watchdog import Watch

if TYPE_CHECKING:
    from iris_client._session import Session

_log = logging.getLogger("iris_client")

BROADCAST_BUFFER_BYTES: Final = 8 * MiB
"""Broadcasts that wait for a free handler; nobody is told when one is dropped, so it is logged."""


class MemberRunner:
    """One cluster's member in this app.

    Args:
        cluster: Whose handlers.
        session: For the daemon's limits.
        watch: Sees handlers that block the loop.
        stirred: Called whenever a handler has ended.
    """

    def __init__(self, cluster: Cluster, session: Session, watch: Watch, stirred: Callable[[], None]) -> None:
        self.cluster = cluster
        self._session = session
        self._watch = watch
        self._stirred = stirred
        self._handlers = cluster.handlers()
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: Threads | None = None
        self._abandoned = False
        self._arriving: set[Delivery] = set()  # requests whose bodies are on their way
        self._broadcasts: deque[Delivery] = deque()
        self._broadcast_bytes = 0
        self._broadcasting = 0
        self._dropped = 0

    @property
    def busy(self) -> int:
        """How many handlers are running, or will once the body of their request is here."""
        return len(self._tasks) + len(self._arriving)

    def takes(self, delivery: Delivery) -> bool:
        """Whether there is a handler for a delivery; answers for the one that is missing."""
        if (delivery.kind, delivery.method) in self._handlers and not self._abandoned:
            return True
        if self._abandoned:
            delivery.fail(Code.NO_MEMBER, EXECUTED_NO, f"this member of {self.cluster.name!r} has left")
            return False
        delivery.fail(Code.NOT_SUPPORTED, EXECUTED_NO, self._not_supported(delivery))
        return False

    def arriving(self, delivery: Delivery) -> None:
        """A request that :meth:`takes` said yes to will be delivered when its body is here."""
        self._arriving.add(delivery)

    def lost(self, delivery: Delivery) -> None:
        """It will not: its body stopped coming."""
        self._arriving.discard(delivery)
        self._stirred()

    def deliver(self, delivery: Delivery) -> None:
        """Start the handler for a delivery, or answer for the one that is missing."""
        self._arriving.discard(delivery)
        handler = self._handlers.get((delivery.kind, delivery.method))
        if handler is None or self._abandoned:
            self.takes(delivery)
        elif delivery.kind == Kind.TUNNEL:
            self._start(delivery, self._serve_tunnel(delivery, handler))
        elif delivery.kind != Kind.BROADCAST:
            self._start(delivery, self._answer(delivery, handler))
        elif self._broadcasting < self.cluster.concurrency:
            self._broadcasting += 1
            self._start(delivery, self._broadcast(delivery, handler))
        elif self._broadcast_bytes + len(delivery.body) > BROADCAST_BUFFER_BYTES:
            self._drop(delivery)
        else:
            self._broadcasts.append(delivery)
            self._broadcast_bytes += len(delivery.body) + 512

    def cancel(self) -> None:
        """Stop every handler that is still running."""
        self._broadcasts.clear()
        for delivery in tuple(self._arriving):
            delivery.cancel()
        for task in self._tasks:
            task.cancel()

    async def stopped(self) -> None:
        """Wait until no handler runs; one in a thread cannot be stopped and is waited for."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def abandon(self) -> None:
        """Wait for no thread any more: what still runs in one goes on by itself, and nobody hears of it."""
        self._abandoned = True
        self.cancel()
        if self._threads is not None:
            self._threads.close()

    # -------------------------------------------------------------- running

    def _start(self, delivery: Delivery, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        delivery.on_cancel = lambda late: self._cancel(task)
        task.add_done_callback(lambda done: self._ended(done, delivery))

    @staticmethod
    def _cancel(task: asyncio.Task[None]) -> None:
        task.cancel()

    def _ended(self, task: asyncio.Task[None], delivery: Delivery) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a defect of the SDK: a delivery was left unanswered", exc_info=error)
        if not delivery.over and (delivery.kind != Kind.TUNNEL or task.cancelled()):
            self._cancelled(delivery, EXECUTED_NO)  # before its first step
        self._stirred()

    async def run(self, handler: Handler, argument: Any) -> Any:
        """Run one handler: on the loop if it is async, else in a thread."""
        if handler.is_async:
            return await self._watch.follow(handler.function(argument), handler.name)
        if self._threads is None:
            self._threads = Threads(self.cluster.concurrency, f"iris-{self.cluster.name}")
        future = self._threads.submit(contextvars.copy_context().run, _called, handler.function, argument)
        running = asyncio.wrap_future(future)
        cancelled: asyncio.CancelledError | None = None
        while not running.done():
            try:
                await asyncio.wait((running,))
            except asyncio.CancelledError as error:
                if future.cancel():
                    raise _NotBegun from None
                if self._abandoned:
                    raise  # nobody waits for it any more
                cancelled = error  # a thread cannot be stopped: its place is taken until it returns
        if cancelled is not None:
            running.exception()
            raise cancelled
        return running.result()

    async def _answer(self, delivery: Delivery, handler: Handler) -> None:
        """Handle a request, a survey or a push, and answer it."""
        handler_deadline.set(delivery.deadline)
        try:
            argument = self._argument(delivery, handler)
        except CodecError as error:
            delivery.fail(Code.REJECTED, EXECUTED_NO, str(error), reason="bad_body")
            return
        try:
            result = await self.run(handler, argument)
            if delivery.kind == Kind.PUSH:
                delivery.done()
            else:
                self._reply(delivery, handler, result)
        except Reject as reject:
            self._reject(delivery, reject)
        except asyncio.CancelledError as error:
            if _being_cancelled():
                self._cancelled(delivery, EXECUTED_NO if isinstance(error, _NotBegun) else EXECUTED_YES)
            else:
                self._failed(delivery, handler, error)
        except Exception as error:
            self._failed(delivery, handler, error)

    async def _broadcast(self, delivery: Delivery, handler: Handler) -> None:
        """Handle a broadcast, and those that queued up behind it."""
        try:
            while True:
                context = contextvars.copy_context()
                context.run(handler_deadline.set, delivery.deadline)
                await asyncio.create_task(self._answer_nothing(delivery, handler), context=context)
                if not self._broadcasts:
                    return
                delivery = self._broadcasts.popleft()
                self._broadcast_bytes -= len(delivery.body) + 512
                handler = self._handlers[Kind.BROADCAST, delivery.method]
        finally:
            self._broadcasting -= 1

    async def _answer_nothing(self, delivery: Delivery, handler: Handler) -> None:
        try:
            await self.run(handler, self._argument(delivery, handler))
        except CodecError as error:
            _log.warning("handler %s was not run for a broadcast: %s", handler.name, error)
        except Reject as reject:
            _log.info("handler %s rejected a broadcast: %s", handler.name, reject.message)
        except Exception:
            _log.exception("handler %s failed", handler.name)
        delivery.done()

    async def _serve_tunnel(self, delivery: Delivery, handler: Handler) -> None:
        flow = delivery.flow
        assert flow is not None
        handler_deadline.set(delivery.deadline)
        tunnel = Tunnel.accepted(delivery, flow)
        try:
            if handler.is_async:
                await self.run(handler, tunnel)
            else:
                from iris_client._sync_things import Tunnel as SyncTunnel

                await self.run(handler, SyncTunnel(tunnel, asyncio.get_running_loop()))
            flow.accept()
            flow.finish()
            flow.discard()
        except Reject as reject:
            if tunnel.used:
                flow.abort(f"handler {handler.name} rejected it: {reject.message}", reason=reject.code)
            else:
                self._reject(delivery, reject)
        except asyncio.CancelledError:
            flow.abort(f"handler {handler.name} was cancelled")
        except Exception as error:
            if flow.broken is error:
                _log.info("handler %s ended with its tunnel: %s", handler.name, error)
            else:
                _log.exception("handler %s failed", handler.name)
            flow.abort(f"handler {handler.name} raised {type(error).__name__}; its traceback is in the member's log")

    # -------------------------------------------------------------- answers

    def _argument(self, delivery: Delivery, handler: Handler) -> Any:
        if handler.raw:
            return delivery.request()
        return decode(delivery.body, handler.wanted, self.cluster.codec)

    def _reply(self, delivery: Delivery, handler: Handler, result: Any) -> None:
        """Send what a handler returned.

        Raises:
            CodecError, InvalidName: It cannot be sent.
        """
        headers: dict[str, str] = {}
        content_type = self.cluster.codec.content_type
        if isinstance(result, Reply):
            body = encode(result.body, BYTES)
            headers, content_type = checked_headers(result.headers), result.content_type
        elif handler.answers_nothing:
            body, content_type = b"", ""
        else:
            body = encode(result, self.cluster.codec)
        limit = self._session.limits.max_body
        if len(body) <= limit:
            delivery.reply(body, headers, content_type)
        elif len(body) <= delivery.max_reply:
            delivery.reply_large(body, headers, content_type)
        else:
            limit = max(limit, delivery.max_reply)
            detail = f"handler {handler.name} answered with {len(body)} bytes, the limit is {limit} bytes"
            _log.error("%s", detail)
            delivery.fail(Code.TOO_LARGE, EXECUTED_YES, detail)

    def _reject(self, delivery: Delivery, reject: Reject) -> None:
        body = bytes(reject.body)
        limit = self._session.limits.max_body
        if len(body) > limit:
            _log.error("a Reject of %s carried %d bytes, the limit is %d bytes", self.cluster.name, len(body), limit)
            body = b""
        delivery.fail(
            Code.REJECTED,
            EXECUTED_YES,
            _clipped(str(reject.message)),
            reason=_clipped(str(reject.code), 200),
            body=body,
        )

    def _cancelled(self, delivery: Delivery, executed: int) -> None:
        when = "before it began" if executed == EXECUTED_NO else "while it ran"
        what = f"the handler in {self.cluster.name!r} was cancelled {when}"
        if delivery.late:
            delivery.fail(Code.DEADLINE_EXCEEDED, executed, f"{what}: its deadline passed")
        elif delivery.cancelled:
            delivery.fail(Code.CANCELLED, executed, f"{what}: its caller gave up")
        else:
            delivery.fail(Code.MEMBER_LOST, executed, f"{what}: its app is leaving")

    def _failed(self, delivery: Delivery, handler: Handler, error: BaseException) -> None:
        if isinstance(error, (CodecError, InvalidName)) and delivery.kind != Kind.PUSH:
            detail = f"handler {handler.name} answered with what cannot be sent: {error}"
            _log.error("%s", detail)
        else:
            detail = f"handler {handler.name} raised {type(error).__name__}; its traceback is in the member's log"
            _log.error("handler %s failed", handler.name, exc_info=error)
        delivery.fail(Code.HANDLER_FAILED, EXECUTED_YES, detail)

    def _not_supported(self, delivery: Delivery) -> str:
        pattern = PATTERN_NAMES[delivery.kind]
        methods = sorted(method for kind, method in self._handlers if kind == delivery.kind)
        if not methods:
            return f"this member of {self.cluster.name!r} does not handle {pattern} calls"
        named = ", ".join(method or "(none)" for method in methods)
        return f"this member of {self.cluster.name!r} has no {pattern} method {delivery.method!r}; it has: {named}"

    def _drop(self, delivery: Delivery) -> None:
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:  # 1, 2, 4, 8 ...
            _log.warning(
                "cluster %s: %d broadcasts dropped so far, its handlers are slower than they arrive",
                self.cluster.name,
                self._dropped,
            )


class _NotBegun(asyncio.CancelledError):
    """Cancelled while it waited for a thread."""


def _being_cancelled() -> bool:
    """Whether the running task was cancelled, as opposed to its handler raising ``CancelledError`` on its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _called(function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return function(argument)
    except StopIteration as stop:
        raise RuntimeError("handler raised StopIteration") from stop  # futures cannot carry one


def _clipped(text: str, limit: int = 4096) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
