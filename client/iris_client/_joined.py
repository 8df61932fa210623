"""An app serving clusters: from the JOIN until the last handler has ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from iris_client._calls import Standing
from iris_client._cluster import Cluster, Handler
from iris_client._codecs import decode
from iris_client._errors import CodecError, InvalidCall, IrisError, Reject
from iris_client._eventqueue import EventQueue, SubscribeCall
from iris_client._frames import Kind, make
from iris_client._member import MemberRunner
from iris_client._model import Event, MiB

if TYPE_CHECKING:
    from iris_client._mesh import Mesh

_log = logging.getLogger("iris_client")

EVENT_BUFFER_BYTES: Final = 64 * MiB
DRAIN_TIMEOUT: Final = 10.0
STOP_TIMEOUT: Final = 1.0
"""Seconds that handlers get to end once they were cancelled."""


class Joined:
    """Membership of one or more clusters; made by :meth:`Mesh.join`.

    It outlives a daemon that restarts: the clusters are joined anew there. Leaving stops taking calls at once, and
    lets those in hand finish.

    Attributes:
        ready: Every living node knew of every cluster when it was joined; False when that took longer than a second
            and is still on its way.
        clusters: What is served.
    """

    def __init__(self, mesh: Mesh, clusters: tuple[Cluster, ...]) -> None:
        if not clusters:
            raise InvalidCall("join() needs at least one cluster")
        for cluster in clusters:
            if not isinstance(cluster, Cluster):
                raise InvalidCall(f"join() takes clusters, not {type(cluster).__name__}")
        if len({cluster.name for cluster in clusters}) != len(clusters):
            raise InvalidCall("join() got the same cluster twice")
        self.clusters = clusters
        self._mesh = mesh
        self._runners: list[MemberRunner] = []
        self._events: list[EventRunner] = []
        self._joins: list[tuple[Standing, str]] = []
        self._error: IrisError | None = None
        self._entered = False
        self._left = False
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def ready(self) -> bool:
        calls = [call for call, _ in self._joins] + [each.call for each in self._events]
        return bool(calls) and all(call.ready for call in calls)

    async def __aenter__(self) -> Joined:
        """Join; entered when every living node knows, or a second has passed.

        Raises:
            InvalidCall: A cluster has no handlers or unusable ones, or this mesh serves it already.
            IrisError: The daemon refuses.
        """
        if self._entered:
            raise RuntimeError("a join is entered once; make another with mesh.join(...)")
        self._entered = True
        try:
            for cluster in self.clusters:
                self._join(cluster)
            while not all(call.established for call in self._calls()):
                if self._error is not None:
                    raise self._error
                self._changed.clear()
                await self._changed.wait()
        except BaseException:
            self._leave()
            for each in self._all():
                each.cancel()
            self._mesh._left(self)
            self._closed.set()
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    async def wait_closed(self) -> None:
        """Wait until the clusters were left, or the mesh was closed. Cancelling leaves them served.

        Raises:
            IrisError: The daemon refused them after it had taken them (another key, say, after a restart).
        """
        await self._closed.wait()
        if self._error is not None and not self._left:
            raise self._error

    async def leave(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Stop serving: take nothing new, let what is in hand finish.

        Args:
            timeout: Seconds after which what still runs is cancelled.

        Cancelling cancels what still runs, and waits no longer.
        """
        self._leave()
        deadline = time.monotonic() + timeout
        try:
            while self._busy() and (left := deadline - time.monotonic()) > 0:
                self._changed.clear()
                try:
                    async with asyncio.timeout(left):
                        await self._changed.wait()
                except TimeoutError:
                    break
        finally:
            for each in self._all():
                each.cancel()
            self._mesh._left(self)
            self._closed.set()
            await self._stop()

    async def _stop(self) -> None:
        """See the cancelled handlers end; those in threads cannot be stopped, and are left behind."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await asyncio.gather(*(each.stopped() for each in self._all()))
        except TimeoutError:
            names = ", ".join(cluster.name for cluster in self.clusters)
            _log.warning("left %s while handlers were still running in threads or refusing to be cancelled", names)
        finally:
            for runner in self._runners:
                runner.abandon()

    # ------------------------------------------------------------- inside

    def _all(self) -> list[MemberRunner | EventRunner]:
        return [*self._events, *self._runners]

    def _calls(self) -> list[Standing]:
        return [*(call for call, _ in self._joins), *(each.call for each in self._events)]

    def _join(self, cluster: Cluster) -> None:
        mesh = self._mesh
        runner = MemberRunner(cluster, mesh._session, mesh._watch(), self._stirred)
        events = cluster.event_handlers()
        mesh._joining(self, cluster)
        self._runners.append(runner)
        if cluster.patterns:
            header = make(
                kind=Kind.JOIN,
                address=cluster.name,
                patterns=int(cluster.patterns),
                concurrency=cluster.concurrency,
                balance=cluster.balance,
                priority=cluster.priority,
                max_large=mesh._session.max_assembly,
            )
            call = Standing(header, f"joining {cluster.name!r}", self._call_changed)
            self._joins.append((call, cluster.name))
            mesh._session.join(call, cluster.name, runner)
        for topic_filter, handler in events.items():
            each = EventRunner(runner, topic_filter, handler, self._call_changed, self._stirred)
            self._events.append(each)
            mesh._stand(each.call)
            each.start()

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            for call, cluster in self._joins:
                self._mesh._unstand(call, Kind.LEAVE, cluster)
            for each in self._events:
                self._mesh._unstand(each.call, Kind.UNSUBSCRIBE)

    def _busy(self) -> bool:
        if any(not call.over for call in self._calls()) and self._mesh._attached:
            return True  # what was on its way when we left may still come
        return any(each.busy for each in self._all())

    def _stirred(self) -> None:
        self._changed.set()
        self._mesh._stirred()

    def _call_changed(self, error: IrisError | None) -> None:
        if error is not None:
            if self._error is None:
                self._error = error
            self._closed.set()
        for each in self._events:
            each.look()
        self._changed.set()


class EventRunner:
    """Runs one ``on_event`` handler: in order within a topic, topics side by side."""

    def __init__(self, runner: MemberRunner, topic_filter: str, handler: Handler, changed: Any, stirred: Any) -> None:
        self._runner = runner
        self._handler = handler
        self._stirred = stirred
        self._queue = EventQueue(EVENT_BUFFER_BYTES, drop_oldest=True)
        header = make(
            kind=Kind.SUBSCRIBE,
            address=topic_filter,
            group=runner.cluster.name,
            when_full=1,
            max_bytes=EVENT_BUFFER_BYTES,
        )
        self.call = SubscribeCall(header, self._queue, f"subscription of {handler.name}", changed)
        self.call.keep = True
        self._news = asyncio.Event()
        self._queue.on_change = self._news.set
        self._waiting: dict[str, deque[Event]] = {}
        self._in_hand = 0
        self._lost = 0
        self._reader: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """How many events are in hand or wait."""
        return self._in_hand + bool(self._queue)

    def start(self) -> None:
        self._reader = asyncio.create_task(self._read(), name=f"iris-{self._handler.name}")

    def look(self) -> None:
        self._news.set()

    def cancel(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
        for task in self._tasks:
            task.cancel()

    async def stopped(self) -> None:
        while tasks := [*self._tasks, *([self._reader] if self._reader is not None else [])]:
            await asyncio.gather(*tasks, return_exceptions=True)
            self._reader = None
            self._tasks.difference_update(tasks)

    async def _read(self) -> None:
        limit = self._runner.cluster.concurrency
        while True:
            self._tell_losses()
            for event in self._queue.take():
                while self._in_hand >= limit:
                    self._news.clear()
                    await self._news.wait()
                self._begin(event)
            if not self._queue:
                self._news.clear()
                await self._news.wait()

    def _begin(self, event: Event) -> None:
        self._in_hand += 1
        waiting = self._waiting.get(event.topic)
        if waiting is not None:
            waiting.append(event)
            return
        self._waiting[event.topic] = deque((event,))
        task = asyncio.create_task(self._topic(event.topic))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _topic(self, topic: str) -> None:
        waiting = self._waiting[topic]
        try:
            while waiting:
                await self._handle(waiting.popleft())
                self._in_hand -= 1
                self._news.set()
        finally:
            self._in_hand -= len(waiting)
            del self._waiting[topic]
            self._stirred()

    async def _handle(self, event: Event) -> None:
        handler = self._handler
        try:
            argument = event if handler.raw else decode(event.body, handler.wanted, self._runner.cluster.codec)
            await self._runner.run(handler, argument)
        except CodecError as error:
            _log.warning("handler %s was not run for an event of %s: %s", handler.name, event.topic, error)
        except Reject as reject:
            _log.info("handler %s rejected an event of %s: %s", handler.name, event.topic, reject.message)
        except Exception:
            _log.exception("handler %s failed for an event of %s", handler.name, event.topic)

    def _tell_losses(self) -> None:
        lost = self._queue.lost
        if lost != self._lost:
            _log.warning(
                "handler %s: %d events were lost, it is slower than they arrive", self._handler.name, lost - self._lost
            )
            self._lost = lost
