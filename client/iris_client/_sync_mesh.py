"""A mesh for threads: a loop in one thread of the process, and every pattern as a blocking call into it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from copy import copy
from types import TracebackType
from typing import Any, Final, TypeVar, overload

from iris_client import _names
from iris_client._cluster import Cluster
from iris_client._codecs import Codec, encode_body
from iris_client._errors import DeadlineExceeded, InvalidCall, MeshClosed, SlowSubscriber, TooLarge, WouldBlock
from iris_client._joined import DRAIN_TIMEOUT
from iris_client._joined import Joined as AsyncJoined
from iris_client._mesh import Mesh as AsyncMesh
from iris_client._mesh import connect as _connect
from iris_client._model import Executed, MiB, Reply, State, StateChange
from iris_client._portal import Portal
from iris_client._subscription import Subscription as AsyncSubscription
from iris_client._survey import Survey as AsyncSurvey
from iris_client._sync_things import Joined, Subscription, Survey, Tunnel, Watch
from iris_client._tunnel import Tunnel as AsyncTunnel
from iris_client._watch import Watch as AsyncWatch

T = TypeVar("T")

_log = logging.getLogger("iris_client")

_BUFFER: Final = MiB
"""Bytes of published messages that may be on their way from other threads to the loop."""


def connect(
    url: str | None = None,
    service: str | None = None,
    name: str | None = None,
    token: str | None = None,
    timeout: float = 5.0,
    *,
    codec: Codec | None = None,
    lane: str | None = None,
) -> Mesh:
    """Attach to a daemon, now. Close what is returned, or use it in a ``with``.

    Arguments and errors are those of :func:`iris_client.connect`.
    """
    portal = Portal.shared()
    try:
        mesh = _connect(url, service, name, token, timeout, codec=codec, lane=lane)
        return Mesh(portal, portal.call(_entered(mesh)))
    except BaseException:
        portal.release()
        raise


async def _entered(mesh: AsyncMesh) -> AsyncMesh:
    return await mesh


class Mesh:
    """An attachment to the mesh, for threads; made by :func:`connect`. See :class:`iris_client.Mesh`."""

    def __init__(self, portal: Portal, mesh: AsyncMesh) -> None:
        self._portal = portal
        self._mesh = mesh
        self._published: deque[tuple[str, bytes, dict[str, str] | None, str]] = deque()
        self._published_bytes = 0
        self._late: dict[str, deque[tuple[str, bytes, dict[str, str] | None, str]]] = {}  # of topics without room
        self._stalls: dict[str, SlowSubscriber] = {}  # of them, those that do not move
        self._closing = False
        self._carrying = False
        self._stirred = asyncio.Event()  # set on the loop whenever something was carried over or has stalled
        self._lock = threading.Condition()

    def __repr__(self) -> str:
        return f"<sync.Mesh {self.state.value} {self.url}>"

    def __enter__(self) -> Mesh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Drain and detach; see :meth:`iris_client.Mesh.close`. May be called again."""
        if self._mesh.forked:
            return  # the stream, and the thread, are the parent's
        with self._lock:
            if self._closing:
                return
            self._closing = True
        try:
            self._portal.call(self._closed(timeout))
        finally:
            self._portal.release()

    async def _closed(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._carrying or self._late:
                    await self._stir()
        await self._mesh.close(max(0.0, deadline - time.monotonic()))

    @property
    def state(self) -> State:
        """Where this mesh stands with its daemon."""
        return self._mesh.state

    @property
    def url(self) -> str:
        """The daemon it is attached to, or was last."""
        return self._mesh.url

    @property
    def lane(self) -> str:
        """What carries its frames, or did last: ``local`` (a Unix socket), ``grpc``, or ``inproc`` in tests."""
        return self._mesh.lane

    @property
    def node(self) -> str:
        """The id of the node it is attached to, hexadecimal."""
        return self._mesh.node

    @property
    def max_body(self) -> int:
        """Most bytes a body may have, as the daemon says."""
        return self._mesh.max_body

    @property
    def max_request(self) -> int:
        """Most bytes the body of a request, or of its reply, may have; at least ``max_body``."""
        return self._mesh.max_request

    def on_state(self, callback: Callable[[StateChange], object]) -> Callable[[], None]:
        """Call ``callback`` with every change of state, on the mesh's own thread: it must not block."""
        return self._mesh.on_state(callback)

    @overload
    def request(
        self,
        cluster: str,
        body: Any = b"",
        *,
        method: str = "",
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = False,
        hedge_after: float | None = None,
        key: str | None = None,
        balance: str | None = None,
        codec: Codec | None = None,
    ) -> Reply: ...
    @overload
    def request(
        self,
        cluster: str,
        body: Any = b"",
        *,
        returns: type[T],
        method: str = "",
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = False,
        hedge_after: float | None = None,
        key: str | None = None,
        balance: str | None = None,
        codec: Codec | None = None,
    ) -> T: ...
    def request(self, cluster: str, body: Any = b"", **options: Any) -> Any:
        """Ask one member and return its answer; see :meth:`iris_client.Mesh.request`."""
        return self._call(self._mesh.request(cluster, body, **options))

    def push(
        self,
        cluster: str,
        body: Any = b"",
        *,
        method: str = "",
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        balance: str | None = None,
        codec: Codec | None = None,
    ) -> None:
        """Give one member a job; see :meth:`iris_client.Mesh.push`."""
        options: dict[str, Any] = {"headers": headers, "key": key, "balance": balance, "codec": codec}
        self._call(self._mesh.push(cluster, body, method=method, timeout=timeout, **options))

    def broadcast(
        self,
        cluster: str,
        body: Any = b"",
        *,
        method: str = "",
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        codec: Codec | None = None,
    ) -> int:
        """Send to every member; see :meth:`iris_client.Mesh.broadcast`."""
        return self._call(
            self._mesh.broadcast(cluster, body, method=method, timeout=timeout, headers=headers, codec=codec)
        )

    def survey(
        self,
        cluster: str,
        body: Any = b"",
        *,
        method: str = "",
        timeout: float = 1.0,
        headers: Mapping[str, str] | None = None,
        codec: Codec | None = None,
    ) -> Survey:
        """Ask every member: ``with mesh.survey(...) as survey``; see :meth:`iris_client.Mesh.survey`."""

        async def make() -> AsyncSurvey:
            return self._mesh.survey(cluster, body, method=method, timeout=timeout, headers=headers, codec=codec)

        return Survey(self._call(make()), self._portal.loop)

    def tunnel(
        self,
        cluster: str,
        body: Any = b"",
        *,
        method: str = "",
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        balance: str | None = None,
        codec: Codec | None = None,
    ) -> Tunnel:
        """Open a tunnel: ``with mesh.tunnel(...) as tunnel``; see :meth:`iris_client.Mesh.tunnel`."""

        async def make() -> AsyncTunnel:
            options: dict[str, Any] = {"headers": headers, "key": key, "balance": balance, "codec": codec}
            return self._mesh.tunnel(cluster, body, method=method, timeout=timeout, **options)

        return Tunnel(self._call(make()), self._portal.loop)

    def join(self, *clusters: Cluster) -> Joined:
        """Serve clusters: ``with mesh.join(databases) as joined``; see :meth:`iris_client.Mesh.join`."""

        async def make() -> AsyncJoined:
            return self._mesh.join(*clusters)

        return Joined(self._call(make()), self._portal.loop)

    def subscribe(
        self,
        topic_filter: str,
        *,
        group: str | None = None,
        when_full: str = "drop_oldest",
        max_bytes: int = 64 * MiB,
    ) -> Subscription:
        """Subscribe: ``with mesh.subscribe("orders.*") as events``; see :meth:`iris_client.Mesh.subscribe`."""

        async def make() -> AsyncSubscription:
            return self._mesh.subscribe(topic_filter, group=group, when_full=when_full, max_bytes=max_bytes)

        return Subscription(self._call(make()), self._portal.loop)

    def watch(self, cluster: str = "") -> Watch:
        """Hear who comes and goes: ``for change in mesh.watch("databases")``; see :meth:`iris_client.Mesh.watch`."""

        async def make() -> AsyncWatch:
            return self._mesh.watch(cluster)

        return Watch(self._call(make()), self._portal.loop)

    # ------------------------------------------------------------ publishing

    def publish(
        self,
        topic: str,
        body: Any,
        *,
        headers: Mapping[str, str] | None = None,
        codec: Codec | None = None,
        wait: bool = True,
    ) -> None:
        """Publish one message; see :meth:`iris_client.Mesh.publish`. Waits only while the local buffer is full."""
        self._mesh._check_open()
        _names.topic(topic)
        checked = _names.headers(headers) or None
        data, content_type = encode_body(body, codec or self._mesh._codec)
        if len(data) > self._mesh.max_body:
            raise TooLarge(f"publish: the body has {len(data)} bytes, the limit is {self._mesh.max_body} bytes")
        if asyncio._get_running_loop() is self._portal.loop:
            raise InvalidCall("a blocking call on the mesh's own loop; async handlers use the async API (await)")
        with self._lock:
            known = self._stalls.get(topic)
            while self._published_bytes >= _BUFFER or topic in self._late:
                if not wait:
                    raise WouldBlock(f"publish to {topic!r}: the local buffer is full", executed=Executed.NO)
                if (stall := self._stalls.get(topic)) is not None and stall is not known:
                    raise copy(stall)
                self._lock.wait()
                self._mesh._check_open()
            if not wait and self._mesh._publishing.is_full(topic):
                raise WouldBlock(f"publish to {topic!r}: the local buffer is full", executed=Executed.NO)
            self._published.append((topic, data, checked, content_type))
            self._published_bytes += len(data) + 64
            if not self._carrying:
                self._carrying = True
                self._portal.start(self._carry())

    def publish_many(
        self,
        topic: str,
        bodies: Iterable[Any],
        *,
        headers: Mapping[str, str] | None = None,
        codec: Codec | None = None,
        wait: bool = True,
    ) -> int:
        """Publish several messages of one topic, and return how many; see :meth:`iris_client.Mesh.publish_many`."""
        count = 0
        for body in bodies:
            self.publish(topic, body, headers=headers, codec=codec, wait=wait)
            count += 1
        return count

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until the daemon has routed everything published before; see :meth:`iris_client.Mesh.flush`."""

        async def flush() -> None:
            deadline = time.monotonic() + timeout
            known = list(self._stalls.values())
            try:
                async with asyncio.timeout(timeout):
                    while self._carrying or self._late:
                        await self._stir()
                        for stall in self._stalls.values():
                            if stall not in known:
                                raise copy(stall)
            except TimeoutError:
                raise DeadlineExceeded("flush: what was published does not leave in time") from None
            await self._mesh.flush(max(0.001, deadline - time.monotonic()))

        self._call(flush())

    async def _stir(self) -> None:
        self._stirred.clear()
        await self._stirred.wait()

    async def _carry(self) -> None:
        """On the loop: hand over what other threads published, in order. A topic without room holds up no other."""
        mesh = self._mesh
        try:
            while True:
                with self._lock:
                    batch, self._published = self._published, deque()
                    if not batch:
                        self._carrying = False
                        return
                for message in batch:
                    topic = message[0]
                    if topic in self._late:
                        self._late[topic].append(message)
                    elif not mesh._publishing.add_checked(*message):
                        while not mesh._publishing.is_paused(topic):
                            await mesh._until_room(topic)
                            if mesh._publishing.add_checked(*message):
                                break
                        else:
                            with self._lock:
                                self._late[topic] = deque([message])
                            self._portal.start(self._carry_late(topic))
                with self._lock:
                    self._published_bytes -= sum(len(body) + 64 for _, body, _, _ in batch)
                    self._lock.notify_all()
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            self._stirred.set()

    async def _carry_late(self, topic: str) -> None:
        """On the loop: hand over what waits for a topic that is paused."""
        mesh, publishing = self._mesh, self._mesh._publishing
        messages = self._late[topic]
        try:
            while messages:
                while not publishing.add_checked(*messages[0]):
                    try:
                        await mesh._until_room(topic)
                    except SlowSubscriber as stall:
                        with self._lock:
                            self._stalls[topic] = stall
                            self._lock.notify_all()
                        self._stirred.set()
                messages.popleft()
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            with self._lock:
                self._late.pop(topic, None)
                self._stalls.pop(topic, None)
                self._lock.notify_all()
            self._stirred.set()

    def _give_up(self, error: BaseException) -> None:
        """Closed: nobody may wait for room that will not come."""
        if not isinstance(error, (MeshClosed, asyncio.CancelledError)):
            _log.exception("a defect of the SDK: what was published is lost")
        with self._lock:
            self._carrying, self._published_bytes = False, 0
            self._published.clear()
            self._lock.notify_all()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            self._mesh._check_open()
        except BaseException:
            coroutine.close()
            raise
        return self._portal.call(coroutine)
