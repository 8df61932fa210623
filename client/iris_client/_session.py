"""One app's conversation with its daemon (pure): calls, deliveries, ids, deadlines, and what outlives a stream.

The session knows no sockets and no event loop. Its owner tells it of streams (:meth:`Session.lane_up`,
:meth:`Session.lane_down`), gives it what came (:meth:`Session.received`), sends what :meth:`Session.take` returns, and
calls :meth:`Session.on_deadline` in time.

Invariants:
    - nothing but HELLO is sent before WELCOME came
    - ids of this app are odd and rise on a stream; a call has one from the moment it is written
    - joins, subscriptions, watches, flushes and what waits to be published outlive a stream; other calls end with it
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iris_client._assembly import Assembly
from iris_client._calls import Call, Promise, Standing
from iris_client._deadlines import Deadlines, Timed
from iris_client._deliveries import PATTERN_NAMES, Delivery, Member
from iris_client._errors import IrisError, Overloaded
from iris_client._eventqueue import Returns, SubscribeCall
from iris_client._flows import Flows
from iris_client._flushcall import FlushCall
from iris_client._frames import EXECUTED_NO, Code, Header, Kind, ProtocolError, decode_batch, hello, limits, make
from iris_client._held import Held
from iris_client._lane import LANE_KINDS
from iris_client._large import PROCESS, Arrival, Feed, Reserve
from iris_client._model import CALL_BUFFER_BYTES, Executed, Limits
from iris_client._outbox import Out, Outbox
from iris_client._publishing import PACING, Publishing
from iris_client._requestcall import RequestCall
from iris_client._tunnelcall import TunnelCall, broken
from iris_client._tunnelflow import TunnelFlow

_WHOLE: Final = frozenset({Kind.DATA, Kind.PART, Kind.CHANGE})  # `more` means something else there


class Session:
    """What an app and its daemon have under way.

    Args:
        service: The service to attach to; empty for the daemon's only one.
        name: What this app is called, for people.
        version: This SDK's release.
        wake: Called when there is something new to send.
        reserve: What large bodies may hold.

    Attributes:
        attached: WELCOME came and the stream has not broken.
        draining: The daemon said goodbye: no new call is sent on this stream.
        limits: What the daemon allows.
        publishing: What waits to be published.
        on_attached: Called when WELCOME came.
        on_goodbye: Called with the daemon's reason when it starts to leave.
        user: The number of this process's user, if its next stream can move to a local lane; else empty.
        on_lane: Called with what the daemon says of a lane this app has moved to, of :data:`LANE_KINDS`.
    """

    def __init__(
        self, *, service: str, name: str, version: str, wake: Callable[[], None], reserve: Reserve = PROCESS
    ) -> None:
        self._service = service
        self._name = name
        self._version = version
        self._wake = wake
        self._next_id = 1
        self._calls: dict[int, Call] = {}
        self._held = Held(wake)
        self._standing: dict[Standing, None] = {}
        self._members: dict[str, Member] = {}
        self._leaving: dict[Standing, tuple[str, Member]] = {}  # what was on its way is still taken
        self._deliveries: dict[int, Delivery] = {}
        self._deadlines = Deadlines(self._expired, lambda: len(self._calls) + len(self._deliveries))
        self._assembly = Assembly()
        self._outbox = Outbox(self._opened, wake)
        self._hello_due = False
        self.publishing = Publishing(self._outbox.offer, self._opened, self._new_id)
        self._returns = Returns(self._outbox.offer)
        self.attached = False
        self.draining = False
        self.limits = Limits()
        self._flows = Flows(self._outbox, reserve, self.limits.max_body, self._flow_ended)
        self.on_attached: Callable[[], None] = lambda: None
        self.on_goodbye: Callable[[str], None] = lambda reason: None
        self.user = ""
        self.on_lane: Callable[[int, Header], None] | None = None

    # -------------------------------------------------------------- streams

    def lane_up(self) -> None:
        """A stream is open: HELLO goes first."""
        self._hello_due = True
        self._assembly = Assembly()
        self._wake()

    def lane_down(self, reason: str) -> int:
        """The stream is gone. End what cannot outlive it; return how many published messages may be lost."""
        self.attached = self.draining = self._hello_due = False
        calls, self._calls = list(self._calls.values()), {}
        deliveries, self._deliveries = list(self._deliveries.values()), {}
        unwritten = self._outbox.clear()
        self._returns.clear()
        flushes = [call for call in calls if isinstance(call, FlushCall)]
        for delivery in deliveries:  # their handlers go on, within their deadlines; the answers go nowhere
            if delivery.flow is not None:
                delivery.flow.fail(broken(f"tunnel of cluster {delivery.cluster!r}", reason))
        for call in (*calls, *unwritten):
            if call.over:
                continue
            if call.header.idempotent and call.header.kind == int(Kind.REQUEST) and call.flow is None:
                call.exposed = call.exposed or bool(call.id)
                call.id = 0
                self._held.add(call)  # the next stream takes it, within its deadline
            else:
                call.detached(reason)
        self._flows.lane_down(broken("tunnel", reason))
        for left in tuple(self._leaving):  # the LEAVE of each has gone with the stream
            self._has_left(left)
        self._standing = {call: None for call in self._standing if not call.over}
        return self.publishing.detached([call for call in flushes if not call.over])

    def take(self, limit: int, now: float) -> list[bytes] | None:
        """Return about ``limit`` bytes of what waits, in pieces, or None when nothing may be sent now."""
        if self._hello_due:
            self._hello_due = False
            return hello(self._service, self._name, self._version, self.user)
        return self._outbox.take(limit, now) if self.attached else None

    def goodbye(self, reason: str) -> None:
        """Tell the daemon that this app stops taking work and will close when what is open has ended."""
        if self.attached:
            self._outbox.push(Out(make(kind=Kind.GOODBYE, reason=reason)))

    def ping(self) -> None:
        """Ask the daemon for a sign of life."""
        self._outbox.push(Out(make(kind=Kind.PING)))

    def close(self, error: IrisError) -> None:
        """No stream will come any more: end what would have waited for one."""
        for call in (*self.publishing.close(), *self._held.take(), *self._standing):
            if not call.over:
                call.fail(error)
        self._standing.clear()
        self._members.clear()
        self._leaving.clear()

    @property
    def waits(self) -> bool:
        """Whether somebody waits for the next stream: a call, or what is to be published."""
        return bool(self._held) or not self.publishing.empty

    @property
    def quiet(self) -> bool:
        """Nothing waits to be sent."""
        return self._outbox.empty and self.publishing.empty and not self._held

    @property
    def idle(self) -> bool:
        """Nothing waits to be sent, and no call but joins, subscriptions and watches is open in either direction."""
        return (
            self.quiet
            and not self._deliveries
            and all(isinstance(call, Standing) and not call.leaving for call in self._calls.values())
        )

    @property
    def max_assembly(self) -> int:
        """Bytes a large body can have at most to be put together in this process."""
        return self._flows.most

    # ---------------------------------------------------------------- calls

    def open(self, call: Call, now: float) -> None:
        """Open a call; it ends through its own methods.

        Raises:
            Overloaded: Too much already waits in this process.
        """
        if call.body and self._outbox.bodies + self._held.bytes + len(call.body) > CALL_BUFFER_BYTES:
            raise Overloaded(
                f"{call.what}: {CALL_BUFFER_BYTES} bytes of calls already wait in this process", executed=Executed.NO
            )
        if call.deadline <= now:
            call.expired(now)
            return
        if self.attached and not self.draining:
            self._push(call)
        else:
            self._held.add(call)
        self.watch(call)

    def stand(self, call: Standing) -> None:
        """Open a join, a subscription or a watch, and again on every later stream until :meth:`leave`."""
        self._standing[call] = None
        if isinstance(call, SubscribeCall):
            call.queue.on_read = lambda: self._returns.add(call)
        if self.attached and not self.draining:
            self._push(call)

    def join(self, call: Standing, cluster: str, member: Member) -> None:
        """Serve a cluster: its deliveries go to ``member``."""
        self._members[cluster] = member
        self.stand(call)

    def leave(self, call: Standing, kind: Kind, cluster: str = "") -> None:
        """Let go of a join (LEAVE), a subscription or watch (UNSUBSCRIBE). ``call.over`` once the daemon confirmed."""
        self._standing.pop(call, None)
        if call.leaving:
            return
        call.leaving = True
        if cluster in self._members:
            self._leaving[call] = cluster, self._members[cluster]
        if call.id and not call.over:
            self._outbox.push(Out(make(kind=kind, id=call.id)))
            return
        self._has_left(call)
        if not call.over:
            call.over = True
            call.changed(None)

    def tunnel(self, call: TunnelCall, now: float) -> TunnelFlow:
        """Open a tunnel.

        Raises:
            Overloaded: All tunnels together already hold as much as they may.
        """
        flow = self._flows.open(call, call.what)
        if flow is None:
            raise Overloaded(f"{call.what}: the tunnels of this mesh already hold all the memory they may")
        try:
            self.open(call, now)
        except Overloaded as error:
            flow.fail(error)
            raise
        return flow

    def request(self, call: RequestCall, now: float) -> None:
        """Open a request.

        Raises:
            Overloaded: Too much already waits in this process.
        """
        call.prepare(self._flows)
        try:
            self.open(call, now)
        except Overloaded:
            call.dropped()
            raise

    def cancel(self, call: Call) -> None:
        """The opener no longer wants the call. Nothing is told to its promise."""
        if call.over:
            return
        call.over = True
        call.dropped()
        self._held.discard(call)
        self._calls.pop(call.id, None)
        if call.id:
            self._assembly.forget(call.id)
            self._outbox.push(Out(make(kind=Kind.CANCEL, id=call.id)))

    def flush(self, promise: Promise, deadline: float) -> FlushCall:
        """Ask when everything published so far has been routed."""
        call = self.publishing.flush(promise, deadline)
        self.watch(call)
        return call

    # ----------------------------------------------------------------- time

    def on_timer(self, told: Callable[[float], None]) -> None:
        """Call ``told`` with the time of every deadline that is now the next one."""
        self._deadlines.on_sooner = told

    def watch(self, timed: Timed) -> None:
        """Call ``timed.expired`` when its deadline passes, unless it is over by then."""
        self._deadlines.watch(timed)

    def next_deadline(self) -> float | None:
        """When :meth:`on_deadline` should be called next."""
        return self._deadlines.next()

    def on_deadline(self, now: float) -> None:
        """End every call whose time has come. Early calls do nothing."""
        self._deadlines.due(now)

    def _expired(self, timed: Timed, now: float) -> None:
        if not timed.over:
            if timed.deadline > now:
                self.watch(timed)  # it gave itself more time
        elif isinstance(timed, Call):
            self._held.discard(timed)
            if timed.id:
                self._calls.pop(timed.id, None)
                self._assembly.forget(timed.id)
                self._outbox.push(Out(make(kind=Kind.CANCEL, id=timed.id)))

    # ------------------------------------------------------------ what came

    def received(self, data: bytes | memoryview, now: float) -> None:
        """Take a batch from the daemon.

        Raises:
            ProtocolError: It breaks the rules; the stream must be given up.
        """
        calls = self._calls
        for header, body in decode_batch(data):
            kind: int = header.kind
            id: int = header.id
            if header.more and kind not in _WHOLE:
                if id in calls or not id & 1:
                    self._assembly.begin(header, body, self.limits.max_body)
                continue
            if kind == Kind.PART:
                whole = self._assembly.part(header, body)
                if whole is None:
                    continue
                header, body = whole
                kind = header.kind
            if id & 1:
                call = calls.get(id)
                if call is not None:  # else over already: ordinary
                    call.on_frame(kind, header, body)
                    if call.over or not call.id:  # made on the next stream
                        calls.pop(id, None)
                        self._assembly.forget(id)
                        if isinstance(call, Standing) and call.over:
                            self._standing.pop(call, None)
                            self._has_left(call)
            elif kind in PATTERN_NAMES:
                self._deliver(header, body, now)
            elif id:
                delivery = self._deliveries.get(id)
                if delivery is not None:
                    delivery.on_frame(kind, header, body)
                elif kind == Kind.CANCEL:
                    self._assembly.forget(id)
            else:
                self._about_stream(kind, header)

    def _about_stream(self, kind: int, header: Header) -> None:
        if kind == Kind.WELCOME and not self.attached:
            self.limits = limits(header, self.limits)
            self._flows.max_body = self.limits.max_body
            self.attached = True
            for standing in self._standing:
                self._push(standing)
            for call in self._held.take():
                self._push(call)
            self.on_attached()
            self._wake()
        elif kind in LANE_KINDS and self.on_lane is not None:
            self.on_lane(kind, header)
        elif kind in PACING:
            self.publishing.paced(kind, header)
        elif kind == Kind.GOODBYE and self.attached:
            if not self.draining:
                self.draining = True
                for call in self._outbox.withdraw(lambda call: not isinstance(call, Standing)):
                    self._held.add(call)
                self.publishing.depart(self._answer_goodbye if header.count else lambda: None)
            self.on_goodbye(header.reason)
        else:
            raise ProtocolError(f"unexpected frame kind {kind} without an id")

    def _answer_goodbye(self) -> None:  # the daemon has had all that this stream opens and publishes
        self._outbox.push(Out(make(kind=Kind.GOODBYE)))

    def _deliver(self, header: Header, body: bytes, now: float) -> None:
        kind: int = header.kind
        id: int = header.id
        if id in self._deliveries or (not id and kind != Kind.BROADCAST):
            raise ProtocolError(f"a call was opened with id {id}, which cannot be one of the daemon's new ones")
        cluster = header.address.rpartition("/")[2].partition("@")[0]
        delivery = Delivery(self, header, body, cluster, now)
        member = self._members.get(cluster)
        if kind != Kind.BROADCAST:
            self._deliveries[id] = delivery
        if member is None:
            return delivery.fail(Code.NO_MEMBER, EXECUTED_NO, f"this member of {cluster!r} has left")
        if kind == Kind.TUNNEL:
            if not member.takes(delivery):
                return None
            flow = self._flows.open(delivery, f"tunnel of cluster {cluster!r}", large=bool(header.carries))
            if flow is None:
                return delivery.fail(Code.OVERLOADED, EXECUTED_NO, "this member's tunnels hold all the memory they may")
            if header.carries:
                if not self._flows.hold(flow, header.total):
                    full = f"large bodies of this member's process hold what they may, of {self._flows.most} bytes"
                    return delivery.fail(Code.OVERLOADED, EXECUTED_NO, full)
                self.watch(delivery)
                member.arriving(delivery)
                Arrival(delivery, flow, header.total, member.deliver, member.lost)
                return None
        self.watch(delivery)
        member.deliver(delivery)
        return None

    # ---------------------------------------- for deliveries, flows, outbox

    def answer(self, delivery: Delivery, header: Header, body: bytes) -> None:
        """Send the answer of a delivery; it is over."""
        delivery.over = True
        if self._deliveries.get(delivery.id) is not delivery:
            return  # a broadcast, or one of a stream that is gone: nothing goes back
        del self._deliveries[delivery.id]
        if delivery.flow is not None:
            delivery.flow.fail(broken(f"tunnel of cluster {delivery.cluster!r}", header.detail))
        self._outbox.push(Out(header, body))

    def answer_large(self, delivery: Delivery, header: Header, body: bytes) -> None:
        """Send a reply that is too large for a frame; the delivery is over when it has left."""
        delivery.over = True
        if self._deliveries.get(delivery.id) is not delivery:
            return
        flow = delivery.flow
        if flow is None:
            flow = self._flows.open_outgoing(delivery, f"reply of cluster {delivery.cluster!r}")
            flow.accept()
        self._outbox.push(Out(header))
        feed = Feed(flow, body, self.limits.max_body)
        flow.on_change = feed.pump
        feed.pump()

    def _flow_ended(self, owner: Call | Delivery) -> None:
        if not isinstance(owner, Delivery):
            self._calls.pop(owner.id, None)
        elif self._deliveries.get(owner.id) is owner:
            del self._deliveries[owner.id]

    def _has_left(self, call: Standing) -> None:
        cluster, member = self._leaving.pop(call, ("", None))
        if member is not None and self._members.get(cluster) is member:
            del self._members[cluster]

    def _push(self, call: Call) -> None:
        self._outbox.push(Out(call.header, call.body, call.send_by, call))

    def _new_id(self) -> int:
        id = self._next_id
        self._next_id = id + 2
        return id

    def _opened(self, call: Call) -> int:
        call.id = id = self._new_id()
        self._calls[id] = call
        if call.flow is not None:
            call.flow.id = id
        return id
