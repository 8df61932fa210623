"""A mesh's life: how it attaches, survives and ends; and the narrow door its calls go through to the session."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
import weakref
from collections.abc import Callable, Generator, Mapping
from copy import copy
from functools import partial
from random import Random
from types import TracebackType
from typing import Any, Final, Self

from iris_client import _names
from iris_client._calls import Standing, SurveyCall, Unary
from iris_client._cluster import Cluster
from iris_client._codecs import Codec
from iris_client._connection import Connection, refuse_plain_token
from iris_client._context import deadline_in, handler_deadline
from iris_client._errors import DeliveryError, Denied, InvalidCall, MemberLost, MeshClosed, SlowSubscriber, TooLarge
from iris_client._frames import Header, Kind
from iris_client._joined import DRAIN_TIMEOUT, Joined
from iris_client._lane import Stream
from iris_client._large import PROCESS
from iris_client._model import Executed, State, StateChange
from iris_client._publishing import Publishing
from iris_client._requestcall import RequestCall
from iris_client._session import Session
from iris_client._tunnelcall import TunnelCall
from iris_client._tunnelflow import TunnelFlow
from iris_client._urls import Target, candidates
from iris_client._version import VERSION
from iris_client._watchdog import Watch, watch

_log = logging.getLogger("iris_client")

LARGE_ATTEMPTS: Final = 3
"""How often a request is made whose large body found its member lost: nobody on the way holds it to try again."""


class Lifecycle:
    """What every mesh does besides its patterns."""

    def __init__(
        self,
        url: str | None,
        service: str | None,
        name: str | None,
        token: str | None,
        timeout: float,
        codec: Codec | None,
        lane: str | None = None,
    ) -> None:
        if service:
            _names.cluster(service)
        if (bound := os.environ.get("IRIS_MAX_ASSEMBLY")) is not None:
            PROCESS.limit = _bytes_of("IRIS_MAX_ASSEMBLY", bound)
        self._url = url
        self._token = token
        self._timeout = timeout
        self._codec = codec
        self._wanted_lane = _lane_of(lane, os.environ)
        program = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
        shown = name or f"{program}@{socket.gethostname()}:{os.getpid()}"
        self._session = Session(service=service or "", name=shown[:200], version=VERSION, wake=self._wake)
        self._publishing: Publishing = self._session.publishing
        self._publishing.on_room = self._room
        self._publishing.on_stall = self._stalled
        self._room_waiters: list[tuple[str, asyncio.Future[None]]] = []  # and for which topic
        self._connection: Connection | None = None
        self._callbacks: list[Callable[[StateChange], object]] = []
        self._joined: dict[str, Joined] = {}
        self._loop_watch: Watch | None = None
        self._refusal: str | None = "the mesh is not connected yet: use `async with iris.connect() as mesh`"
        self._allowed_in_handlers = False
        _meshes.add(self)

    def __repr__(self) -> str:
        return f"<Mesh {self.state.value} {self.url}>"

    # ------------------------------------------------------- opening, closing

    async def __aenter__(self) -> Self:
        """Attach. See :func:`connect` for what it raises. Cancelling attaches to nothing."""
        if self._connection is not None:
            raise MeshClosed(self._refusal or "a mesh is entered once; make another with iris.connect()")
        deadline_in(self._timeout, 0.0)
        targets = candidates(self._url, os.environ, sys.platform)
        token = self._token if self._token is not None else _token_of(os.environ, targets)
        if token:
            for target in targets:
                refuse_plain_token(target)
        open_lane = partial(_open_lane, stays=self._wanted_lane == "grpc")
        connection = Connection(self._session, targets, open_lane, token, Random(), lane=self._wanted_lane)
        connection.on_state = self._state_changed
        self._connection = connection
        try:
            await connection.start(self._timeout)
        except BaseException:
            self._refusal = "the mesh could not be connected; make another with iris.connect()"
            raise
        self._refusal = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def close(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Drain and detach: leave the clusters, let handlers and calls in flight finish, send what was published.

        Args:
            timeout: Seconds after which what is still open is given up.

        Cancelling gives it up at once. May be called again.
        """
        connection = self._connection
        if self.forked:
            return  # the stream is the parent's
        if connection is None or connection.state is State.CLOSED or self._allowed_in_handlers:
            self._refusal = self._refusal or "the mesh is closed"
            return
        deadline = time.monotonic() + timeout
        self._refusal, self._allowed_in_handlers = "the mesh is closing", True
        self._publishing.shut()
        session = self._session
        kindly = False
        try:
            connection.closing()
            joined = set(self._joined.values())
            await asyncio.gather(*(each.leave(max(0.0, deadline - time.monotonic())) for each in joined))
            await connection.until(lambda: session.quiet, deadline - time.monotonic())
            session.goodbye("the app is closing")
            if not await connection.until(lambda: session.idle, deadline - time.monotonic()):
                self._tell_unfinished()
            kindly = True
        finally:
            self._refusal, self._allowed_in_handlers = "the mesh is closed", False
            await connection.stop("the mesh was closed", kindly=kindly)
            session.close(MeshClosed("the mesh was closed"))
            self._room()

    def _tell_unfinished(self) -> None:
        waiting = self._publishing.messages
        if waiting:
            _log.warning("the mesh was closed before %d published messages were sent", waiting)

    @property
    def forked(self) -> bool:
        """Whether this mesh was made by the process this one was forked from."""
        return self._refusal is _FORKED

    @property
    def state(self) -> State:
        """Where this mesh stands with its daemon."""
        return self._connection.state if self._connection is not None else State.CONNECTING

    @property
    def url(self) -> str:
        """The daemon it is attached to, or was last."""
        return self._connection.url if self._connection is not None else ""

    @property
    def lane(self) -> str:
        """What carries its frames, or did last: ``local`` (a Unix socket), ``grpc``, or ``inproc`` in tests."""
        return self._connection.lane if self._connection is not None else ""

    @property
    def node(self) -> str:
        """The id of the node it is attached to, hexadecimal."""
        return self._session.limits.node

    @property
    def max_body(self) -> int:
        """Most bytes a body may have, as the daemon says."""
        return self._session.limits.max_body

    @property
    def max_request(self) -> int:
        """Most bytes the body of a request, or of its reply, may have; at least ``max_body``."""
        return self._session.limits.max_request

    def on_state(self, callback: Callable[[StateChange], object]) -> Callable[[], None]:
        """Call ``callback`` with every change of state, on the loop. Returns a function that stops that."""
        self._callbacks.append(callback)

        def stop() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return stop

    # -------------------------------------------------------------- inside

    async def _unary(self, header: Header, body: bytes, deadline: float, what: str) -> tuple[Header, bytes]:
        promise: asyncio.Future[tuple[Header, bytes]] = asyncio.get_running_loop().create_future()
        call = Unary(header, body, deadline, what, promise)
        self._session.open(call, time.monotonic())
        try:
            return await promise
        except asyncio.CancelledError:
            self._session.cancel(call)
            raise

    async def _request(self, header: Header, body: bytes, deadline: float, what: str) -> tuple[Header, bytes]:
        """Make a request; once more when a large body, or reply, lost its member half way and that does no harm."""
        limits = self._session.limits
        header.max_large = limits.max_large
        large = len(body) > limits.max_body
        may_have_run = False
        for attempt in range(1, LARGE_ATTEMPTS + 1):
            this = header
            if large:  # a call changes its header, and this one may be made again
                this = Header()
                this.CopyFrom(header)
            promise: asyncio.Future[tuple[Header, bytes]] = asyncio.get_running_loop().create_future()
            call = RequestCall(this, body, deadline, what, promise, large=large)
            self._session.request(call, time.monotonic())
            try:
                return await promise
            except asyncio.CancelledError:
                self._session.cancel(call)
                raise
            except TooLarge as error:  # for the other end's daemon, which allows less in a frame than ours
                if large or error.executed is not Executed.NO or len(body) > limits.max_large:
                    raise
                large = True
            except DeliveryError as error:
                ran = error.executed is not Executed.NO
                if may_have_run and not ran:
                    error.executed = Executed.MAYBE
                may_have_run = may_have_run or ran
                carried = large or call.flow is not None
                again = isinstance(error, MemberLost) and carried and (header.idempotent or not ran)
                if not again or attempt == LARGE_ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _open_tunnel(self, call: TunnelCall) -> TunnelFlow:
        self._check()
        flow = self._session.tunnel(call, time.monotonic())
        promise: Any = call.promise
        try:
            await promise
        except asyncio.CancelledError:
            self._session.cancel(call)
            raise
        return flow

    def _open(self, call: SurveyCall) -> None:
        self._check()
        self._session.open(call, time.monotonic())

    def _cancel(self, call: SurveyCall) -> None:
        self._session.cancel(call)

    def _stand(self, call: Standing) -> None:
        self._check()
        self._session.stand(call)

    def _unstand(self, call: Standing, kind: Kind, cluster: str = "") -> None:
        self._session.leave(call, kind, cluster)

    def _joining(self, joined: Joined, cluster: Cluster) -> None:
        self._check()
        if cluster.name in self._joined:
            raise InvalidCall(f"this mesh already serves {cluster.name!r}")
        self._joined[cluster.name] = joined

    def _left(self, joined: Joined) -> None:
        for name in [name for name, each in self._joined.items() if each is joined]:
            del self._joined[name]

    @property
    def _attached(self) -> bool:
        return self._session.attached

    def _watch(self) -> Watch:
        if self._loop_watch is None:
            self._loop_watch = watch()
        return self._loop_watch

    def _stirred(self) -> None:
        if self._connection is not None:
            self._connection.look_again()

    def _check(self) -> None:
        """Refuse a mesh that cannot be used here.

        Raises:
            MeshClosed: It is not open, or came here by fork.
            InvalidCall: It belongs to another event loop.
        """
        self._check_open()
        connection = self._connection
        if connection is not None and asyncio._get_running_loop() is not connection.loop:
            raise InvalidCall(
                "this mesh belongs to another event loop (or thread): use it there, or iris_client.sync from threads"
            )

    def _check_open(self) -> None:
        if self._refusal is not None and not (self._allowed_in_handlers and handler_deadline.get() is not None):
            raise MeshClosed(self._refusal)

    def _check_size(self, body: bytes, what: str, *, request: bool = False) -> None:
        limits = self._session.limits
        limit = limits.max_request if request else limits.max_body
        if len(body) > limit:
            raise TooLarge(f"{what}: the body has {len(body)} bytes, the limit is {limit} bytes")

    def _room(self) -> None:
        waiters, self._room_waiters = self._room_waiters, []
        for _, room in waiters:
            if not room.done():
                room.set_result(None)

    def _stalled(self, error: SlowSubscriber) -> None:
        """Those who wait for room for a topic are told why there is none."""
        told = [room for topic, room in self._room_waiters if topic == error.topic]
        self._room_waiters = [waiter for waiter in self._room_waiters if waiter[0] != error.topic]
        for room in told:
            if not room.done():
                room.set_exception(copy(error))

    def _wake(self) -> None:
        if self._connection is not None:
            self._connection.wake()

    def _state_changed(self, change: StateChange) -> None:
        _log.debug("%s: %s", change.state.value, change.reason)
        for callback in tuple(self._callbacks):
            try:
                callback(change)
            except Exception:
                _log.exception("an on_state callback failed")

    def _forked(self) -> None:
        self._refusal = _FORKED
        self._allowed_in_handlers = False
        self._publishing.shut()


_FORKED: Final = "this mesh was connected before fork and belongs to the parent process; connect after forking"
_meshes: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


def _after_fork() -> None:
    for mesh in tuple(_meshes):
        mesh._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


async def _open_lane(target: Target, token: str | None, *, stays: bool) -> Stream:
    if target.scheme == "inproc":
        from iris_client.testing import open_lane

        return open_lane(target.place)
    from iris_client._lane_grpc import open_grpc

    return await open_grpc(target, token, stays=stays)


def _lane_of(asked: str | None, environment: Mapping[str, str]) -> str:
    """Which lane is wanted.

    Raises:
        InvalidCall: There is no such lane.
    """
    lane = asked if asked is not None else environment.get("IRIS_LANE") or "auto"
    if lane not in ("auto", "grpc", "local"):
        raise InvalidCall(f"{'lane' if asked is not None else 'IRIS_LANE'}={lane!r}: auto, grpc or local")
    return lane


def _bytes_of(name: str, text: str) -> int:
    """Read a number of bytes from the environment.

    Raises:
        InvalidCall: It is none.
    """
    if not (text.isascii() and text.isdecimal()):
        raise InvalidCall(f"{name}={text[:80]!r}: write a number of bytes")
    return int(text)


def _token_of(environment: Mapping[str, str], targets: list[Target]) -> str | None:
    """Read the token ``IRIS_TOKEN_FILE`` names, if any target wants one.

    Raises:
        Denied: The file cannot be read or is empty.
    """
    path = environment.get("IRIS_TOKEN_FILE")
    if not path or not any(target.scheme in ("tcp", "tls") for target in targets):
        return None
    try:
        with open(path, encoding="ascii") as file:
            token = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Denied(f"IRIS_TOKEN_FILE={path}: {reason}") from None
    if not token:
        raise Denied(f"IRIS_TOKEN_FILE={path}: the file is empty")
    return token
