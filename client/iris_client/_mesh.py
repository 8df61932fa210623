"""The mesh, as one app sees it: every pattern, over one attachment to the daemon of this host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, overload

from iris_client import _names
from iris_client._balance import balanced, hedged
from iris_client._calls import SurveyCall
from iris_client._cluster import Cluster
from iris_client._codecs import JSON, Codec, decode, encode_body
from iris_client._context import deadline_in
from iris_client._errors import CodecError, Rejected, WouldBlock
from iris_client._frames import Header, Kind, make
from iris_client._joined import Joined
from iris_client._lifecycle import Lifecycle
from iris_client._model import NO_HEADERS, PART_BYTES, Executed, MiB, Reply
from iris_client._subscription import Subscription
from iris_client._survey import Survey
from iris_client._tunnel import Tunnel
from iris_client._tunnelcall import TunnelCall
from iris_client._watch import Watch

T = TypeVar("T")


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
    """Attach to a daemon: ``async with iris.connect() as mesh``, or ``mesh = await iris.connect()``.

    Args:
        url: ``unix:///path``, ``tcp://host:port`` or ``tls://host:port``. None: ``IRIS_URL`` if that is set, else
            ``$XDG_RUNTIME_DIR/irisd/irisd.sock``, ``/run/irisd/irisd.sock``, ``127.0.0.1:7510``, in that order.
        service: Which of the daemon's services to attach to. None: its only one.
        name: What this app is called, for people. None: the program's name and process id.
        token: For ``tcp`` and ``tls``. None: what the file named by ``IRIS_TOKEN_FILE`` holds.
        timeout: Seconds to wait for a daemon; an app may start before its daemon.
        codec: Encodes bodies that are not bytes, decodes replies with ``returns``. None: bytes; JSON for ``returns``.
        lane: ``auto``: a Unix socket (``local``) where the daemon has one, else ``grpc``. None: ``IRIS_LANE``, or auto.

    Raises, when entered:
        DaemonUnavailable: Nobody answered in time; names every address tried.
        Denied: The daemon refuses the token or the service.
        InvalidUrl: ``url`` or ``IRIS_URL`` is malformed.
    """
    return Mesh(url, service, name, token, timeout, codec, lane)


class Mesh(Lifecycle):
    """An attachment to the mesh; made by :func:`connect`.

    Every call may be cancelled at any time; each says what may have happened by then. A mesh belongs to the event
    loop it was entered in and to the process that made it.

    It survives its daemon: when the stream breaks, what is under way fails :class:`Detached`, new calls wait for the
    next stream until their deadline, publishes are kept up to a bound, clusters are joined and topics subscribed anew.
    """

    # ------------------------------------------------------------- patterns

    @overload
    async def request(
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
    async def request(
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
    async def request(
        self,
        cluster: str,
        body: Any = b"",
        *,
        returns: Any = None,
        method: str = "",
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = False,
        hedge_after: float | None = None,
        key: str | None = None,
        balance: str | None = None,
        codec: Codec | None = None,
    ) -> Any:
        """Ask one member and return its answer.

        A body above ``max_body``, and a reply, may have up to ``max_request`` bytes: it rides a tunnel by itself, and
        no daemon holds more of it than a window.

        Args:
            cluster: ``[service/]cluster[@cloud]``.
            body: Bytes; or, with a codec or ``returns``, any value it encodes.
            returns: Decode the answer as this type, and return that instead of a :class:`Reply`.
            method: Which of the member's handlers.
            timeout: Seconds. In a handler, never longer than its own caller waits.
            headers: The app's own, at most 64 entries and 8 KiB.
            idempotent: Running the handler twice does no harm, so the mesh may try again where it otherwise could not,
                and when the daemon is lost, until the timeout.
            hedge_after: Seconds after which a second member is asked too, if the first has not answered; the first
                answer counts. Needs ``idempotent``.
            key: Requests with the same key go to the same member, as long as that is there; at most 1,024 bytes.
            balance: ``p2c``, ``round_robin``, ``random`` or ``local``, instead of what the cluster's members say.
            codec: Instead of the mesh's.

        Cancelling tells the member to stop; the handler may have run, in full or in part, or not at all.

        Raises:
            DeliveryError: It was not answered; ``executed`` says whether the handler ran. See its subclasses.
            TooLarge: The body is above the limit, which the error names. Nothing was sent.
            InvalidName, InvalidCall, CodecError: The call is no call. Nothing was sent.
        """
        codec = codec or self._codec or (JSON if returns is not None else None)
        header, data, deadline = self._call(Kind.REQUEST, cluster, body, method, timeout, headers, codec)
        if idempotent:
            header.idempotent = True
        hedged(header, hedge_after)
        balanced(header, balance, key)
        what = f"request to {cluster!r}"
        answer, answered = await self._request(header, data, deadline, what)
        if returns is not None:
            assert codec is not None
            try:
                return decode(answered, returns, codec)
            except CodecError as error:
                raise Rejected(f"{what}: the answer: {error}", code="bad_body", executed=Executed.YES) from error
        return Reply(
            answered,
            dict(answer.headers) if len(answer.headers) else NO_HEADERS,
            answer.member,
            answer.content_type,
        )

    async def push(
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
        """Give one member a job, without an answer. Returns when the member's node has queued it.

        ``key`` and ``balance`` are as for :meth:`request`. Cancelling may come too late: the job may have been queued.

        Raises:
            DeliveryError: It was not queued, or nobody knows (``executed``).
            TooLarge, InvalidName, InvalidCall, CodecError: As for :meth:`request`.
        """
        header, data, deadline = self._call(Kind.PUSH, cluster, body, method, timeout, headers, codec or self._codec)
        balanced(header, balance, key)
        await self._unary(header, data, deadline, f"push to {cluster!r}")

    async def broadcast(
        self,
        cluster: str,
        body: Any = b"",
        *,
        method: str = "",
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        codec: Codec | None = None,
    ) -> int:
        """Send to every member, and return how many it was queued to.

        Cancelling may come too late: it may have been queued to any of them.

        Raises:
            DeliveryError: Nobody serves the name, or the daemon was lost.
            TooLarge, InvalidName, InvalidCall, CodecError: As for :meth:`request`.
        """
        header, data, deadline = self._call(
            Kind.BROADCAST, cluster, body, method, timeout, headers, codec or self._codec
        )
        answer, _ = await self._unary(header, data, deadline, f"broadcast to {cluster!r}")
        count: int = answer.count
        return count

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
        """Ask every member: ``async with mesh.survey(...) as survey``, then iterate over the answers.

        It ends when everyone has answered or ``timeout`` seconds have passed; leaving earlier tells the members to
        stop. Afterwards ``survey.asked``, ``answered`` and ``silent`` say who.

        Raises:
            TooLarge, InvalidName, InvalidCall, CodecError: As for :meth:`request`.
        """
        header, data, deadline = self._call(Kind.SURVEY, cluster, body, method, timeout, headers, codec or self._codec)
        return Survey(self, SurveyCall(header, data, deadline, f"survey of {cluster!r}", lambda: None))

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
        """Open a tunnel to one member: ``async with mesh.tunnel(...) as tunnel``.

        Args:
            cluster: ``[service/]cluster[@cloud]``.
            body: Handed to the member along with the tunnel.
            method: Which of the member's handlers.
            timeout: Seconds until a member must have accepted; the tunnel itself lasts as long as it is used.
            headers, key, balance: As for :meth:`request`.
            codec: For ``body``.

        Raises:
            TooLarge, InvalidName, InvalidCall, CodecError: As for :meth:`request`.
        """
        header, data, deadline = self._call(Kind.TUNNEL, cluster, body, method, timeout, headers, codec or self._codec)
        balanced(header, balance, key)
        promise: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call = TunnelCall(header, data, deadline, f"tunnel to {cluster!r}", promise)
        return Tunnel(mesh=self, call=call, method=method)

    def join(self, *clusters: Cluster) -> Joined:
        """Serve clusters: ``async with mesh.join(databases, workers) as joined``.

        Raises:
            InvalidCall: There is none, or one twice.
        """
        self._check()
        return Joined(self, clusters)

    def subscribe(
        self,
        topic_filter: str,
        *,
        group: str | None = None,
        when_full: str = "drop_oldest",
        max_bytes: int = 64 * MiB,
    ) -> Subscription:
        """Subscribe: ``async with mesh.subscribe("orders.*") as events``, then iterate.

        Args:
            topic_filter: ``*`` stands for one token, a last ``>`` for the rest.
            group: Share the events with whoever subscribes as the same group, each going to one of them:
                what ``on_event`` of a cluster does under the cluster's name.
            when_full: What gives way when events arrive faster than they are read: ``drop_oldest`` or ``drop_newest``;
                or nothing does, ``block``: who publishes to these topics waits until this app has read.
            max_bytes: How much may wait in this process, and as much again in the daemon. With ``block``: in both
                together, and the daemon may allow less.

        Raises:
            InvalidName, InvalidCall: The filter or a setting makes no sense.
        """
        self._check()
        name = _names.cluster(group) if group is not None else ""
        return Subscription(self, _names.topic_filter(topic_filter), when_full, max_bytes, name)

    def watch(self, cluster: str = "") -> Watch:
        """Hear of members and nodes that come and go: ``async for change in mesh.watch("databases")``.

        It begins with the picture, a change with ``present`` set for everything there is, and goes on with what
        changes. Leaving the loop ends it. As ``async with mesh.watch(...) as changes`` it can also tell the picture
        at once: ``await changes.picture()``.

        Args:
            cluster: Whose members; and the nodes that serve it, or did a moment ago. Empty: every cluster and node.

        Needs a daemon of release 0.2 or later; an older one ends the whole stream once, and the watch fails
        :class:`NotSupported`.

        Raises:
            InvalidName: The name makes no sense.
        """
        self._check()
        return Watch(self, _names.cluster(cluster) if cluster != "" else "")

    # ------------------------------------------------------------ publishing

    async def publish(
        self,
        topic: str,
        body: Any,
        *,
        headers: Mapping[str, str] | None = None,
        codec: Codec | None = None,
        wait: bool = True,
    ) -> None:
        """Publish one message. Returns when the local buffer holds it; waits only while that is full.

        Messages of one topic published by one task arrive in order. What becomes of them is told by :meth:`flush`.
        Cancelling while it waits publishes nothing.

        Args:
            topic: Where to.
            body: Bytes; or, with a codec, any value it encodes.
            headers: As for :meth:`request`.
            codec: Instead of the mesh's.
            wait: False: do not wait.

        Raises:
            WouldBlock: There is no room, and ``wait`` is False. Nothing was published.
            SlowSubscriber: A subscriber that must lose nothing has not read for a while, so there is no room for this
                topic; it says who. Nothing was published; what was accepted before stays, and other topics go on.
            TooLarge, InvalidName, CodecError: It cannot be published. Nothing was.
            MeshClosed: The mesh is closed.
        """
        if headers is None and type(body) is bytes and self._publishing.add(topic, body):
            return
        await self._publish(topic, body, headers, codec or self._codec, wait)

    async def publish_many(
        self,
        topic: str,
        bodies: Iterable[Any],
        *,
        headers: Mapping[str, str] | None = None,
        codec: Codec | None = None,
        wait: bool = True,
    ) -> int:
        """Publish several messages of one topic, and return how many.

        Cancelling (or a body that cannot be published) leaves those before it published, and so does an error.

        Raises:
            WouldBlock, SlowSubscriber: As for :meth:`publish`.
            TooLarge, InvalidName, CodecError, MeshClosed: As for :meth:`publish`.
        """
        add = self._publishing.add
        plain = headers is None
        count = 0
        for body in bodies:
            if not (plain and type(body) is bytes and add(topic, body)):
                await self._publish(topic, body, headers, codec or self._codec, wait)
            count += 1
        return count

    async def flush(self, timeout: float = 30.0) -> None:
        """Wait until the daemon has routed everything published before.

        Cancelling takes nothing back.

        Raises:
            PublishLost: Messages published since the last flush were lost, or may have been; says how many.
            SlowSubscriber: A topic with messages from before has stalled; they stay queued.
            DeadlineExceeded: The daemon did not say in time.
        """
        self._check()
        deadline = deadline_in(timeout, time.monotonic())
        promise: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._session.flush(promise, deadline)
        await promise

    async def _publish(
        self, topic: str, body: Any, headers: Mapping[str, str] | None, codec: Codec | None, wait: bool
    ) -> None:
        self._check()
        _names.topic(topic)
        checked = _names.headers(headers) or None
        data, content_type = encode_body(body, codec)
        if len(data) > PART_BYTES:
            self._check_size(data, "publish")
        while not self._publishing.add_checked(topic, data, checked, content_type):
            if not wait:
                raise WouldBlock(f"publish to {topic!r}: the local buffer is full", executed=Executed.NO)
            await self._until_room(topic)

    async def _until_room(self, topic: str) -> None:
        """Wait until something has changed about the room there is.

        Raises:
            SlowSubscriber: Nothing of the topic moves.
        """
        room = asyncio.get_running_loop().create_future()
        self._room_waiters.append((topic, room))
        await room
        self._check()

    # -------------------------------------------------------------- inside

    def _call(
        self,
        kind: Kind,
        cluster: str,
        body: Any,
        method: str,
        timeout: float,
        headers: Mapping[str, str] | None,
        codec: Codec | None,
    ) -> tuple[Header, bytes, float]:
        """Check everything about a call; return its header, body and deadline."""
        self._check()
        _names.address(cluster)
        deadline = deadline_in(timeout, time.monotonic())
        if type(body) is bytes:
            data, content_type = body, ""
        else:
            data, content_type = encode_body(body, codec)
        self._check_size(data, f"{kind.name.lower()} to {cluster!r}", request=kind == Kind.REQUEST)
        header = make(kind=kind, address=cluster)
        if method:
            header.method = _names.method(method)
        if content_type:
            header.content_type = content_type
        if headers:
            header.headers.update(_names.headers(headers))
        return header, data, deadline
