"""Scripted apps: they follow frame.proto to the letter and report to the oracle what they see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irisd.flow.credit import least
from irisd.model import PART_BYTES, Code, Executed, Frame, Kind, WhenFull
from irisd.wire import decode_frame
from tests.sim.tunnels import Line, TunnelEnd
from tests.sim.world import Daemon, batch

if TYPE_CHECKING:
    from tests.sim.oracle import Asked

ALL = 31


@dataclass(eq=False)
class Service:
    """One JOIN: how this member behaves.

    ``act`` is asked for each delivery and says (delay, what): ``reply``, ``reject``, ``fail``, ``busy`` or ``silent``.
    """

    cluster: str
    concurrency: int
    act: Callable[[], tuple[float, str]]
    joined: bool = False


@dataclass(eq=False)
class Subscribed:
    """One SUBSCRIBE, and what came of it."""

    app: App
    id: int
    filter: str
    group: str
    permanent: bool
    blocks: bool = False
    established: bool = False
    known_everywhere: bool = False
    received: int = 0
    lost: int = 0
    unknown: bool = False
    expected: int = 0
    expected_of: Counter[str] = field(default_factory=Counter)  # by the publisher's daemon
    heard_of: set[str] = field(default_factory=set)
    last: dict[tuple[str, str], int] = field(default_factory=dict)


class App:
    """One app on one daemon.

    Attributes:
        latency: Seconds between it and its daemon, each way.
    """

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.daemon = daemon
        self.world = daemon.world
        self.oracle = daemon.world.oracle
        self.name = name
        self.latency = self.world.random.choice([0.0, 0.0001, 0.002])
        self.heeds_pause = self.world.random.random() < 0.7
        self.paused: dict[str, list[Frame]] = {}  # by topic: what waits until it is resumed
        self.gone = False
        self.welcome: Frame | None = None
        self.goodbye = False
        self.last_pause = -1.0
        self.asked: dict[int, Asked] = {}
        self.services: dict[int, Service] = {}
        self.subscriptions: dict[int, Subscribed] = {}
        self.tunnels: dict[int, TunnelEnd] = {}
        self.handling: dict[int, Frame] = {}
        self.flushes: set[int] = set()
        self._next_id = 1
        self._parts: dict[int, tuple[Frame, bytearray]] = {}
        self._numbers: dict[str, int] = {}
        self.attachment = daemon.attach(self)
        self.world.note(f"{self} attaches")

    def __str__(self) -> str:
        return f"{self.name}@{self.daemon}"

    # -- the stream

    def id(self) -> int:
        id, self._next_id = self._next_id, self._next_id + 2
        return id

    def send(self, *frames: Frame) -> None:
        """Put frames on the stream; large bodies go as parts."""
        if self.gone:
            return
        out: list[Frame] = []
        for frame in frames:
            body = frame.body
            if len(body) <= PART_BYTES:
                out.append(frame)
                continue
            out.append(frame.copy(body=body[:PART_BYTES], more=True, total=len(body)))
            for at in range(PART_BYTES, len(body), PART_BYTES):
                more = at + PART_BYTES < len(body)
                out.append(Frame(Kind.PART, id=frame.id, body=body[at : at + PART_BYTES], more=more))
        raw = batch(out)
        self.world.at(self.latency, lambda: self.daemon.from_app(self.attachment, raw))

    def received(self, raws: list[bytes]) -> None:
        if self.gone:
            return
        for raw in raws:
            frame = decode_frame(raw, 0, len(raw), self.world.settings.max_body)
            if frame.kind == Kind.PART:
                first, body = self._parts[frame.id]
                body += frame.body
                if frame.more:
                    continue
                del self._parts[frame.id]
                self.world.require(len(body) == first.total, f"{self} was promised {first.total} bytes")
                frame = first.copy(body=bytes(body), more=False)
            elif frame.more and frame.kind != Kind.DATA:
                self.world.require(frame.id not in self._parts, f"{self} got parts of {frame.id} twice")
                self._parts[frame.id] = (frame, bytearray(frame.body))
                continue
            self._dispatch(frame)

    def pause(self, seconds: float) -> None:
        """Stop reading for a while."""
        pipe = self.daemon.pipes.get(self.attachment)
        if pipe is not None and not self.gone:
            pipe.paused = True
            self.last_pause = float("inf")
            self.world.note(f"{self} stops reading")
            self.world.at(seconds, self.resume)

    def resume(self) -> None:
        pipe = self.daemon.pipes.get(self.attachment)
        self.last_pause = self.world.now
        if pipe is not None:
            pipe.resume()

    def vanished(self) -> None:
        """Its daemon is gone, or it was killed."""
        if not self.gone:
            self.gone = True
            self.oracle.app_gone(self)

    def crash(self) -> None:
        self.world.note(f"{self} crashes")
        self.vanished()
        self.daemon.detached(self.attachment)

    # -- what it does

    def join(self, service: Service, patterns: int = ALL) -> int:
        id = self.id()
        self.services[id] = service
        self.send(Frame(Kind.JOIN, id=id, address=service.cluster, patterns=patterns, concurrency=service.concurrency))
        return id

    def leave(self, id: int) -> None:
        self.services[id].joined = False
        self.send(Frame(Kind.LEAVE, id=id))

    def ask(self, kind: Kind, cluster: str, timeout: float, size: int, **fields: Any) -> Asked:
        """Open a request, push, broadcast or survey."""
        id = self.id()
        asked = self.oracle.asked(self, kind, id, cluster, timeout, bool(fields.get("idempotent")))
        self.asked[id] = asked
        body = f"{asked.label}|".encode().ljust(size, b".")
        self.send(Frame(kind, id=id, address=cluster, remaining_ms=int(timeout * 1000), body=body, **fields))
        return asked

    def cancel(self, asked: Asked) -> None:
        asked.cancelled = True
        self.send(Frame(Kind.CANCEL, id=asked.id))

    def publish(self, topic: str, messages: int, size: int) -> None:
        """The messages say where they come from: daemon, app, topic, number."""
        bodies = []
        for _ in range(messages):
            number = self._numbers[topic] = self._numbers.get(topic, 0) + 1
            bodies.append(f"{self.daemon};{self.name};{topic};{number}|".encode().ljust(size, b"."))
        sizes = b"".join(len(body).to_bytes(4, "little") for body in bodies) if messages > 1 else b""
        frame = Frame(Kind.PUBLISH, address=topic, body=b"".join(bodies), sizes=sizes)
        self.world.largest = max(self.world.largest, least(frame))
        if topic in self.paused:
            self.paused[topic].append(frame)
        else:
            self.send(frame)

    def flush(self) -> None:
        id = self.id()
        self.flushes.add(id)
        self.send(Frame(Kind.FLUSH, id=id))

    def subscribe(self, filter: str, group: str, max_bytes: int, when_full: WhenFull, *, permanent: bool) -> Subscribed:
        blocks = when_full == WhenFull.BLOCK
        subscription = Subscribed(self, self.id(), filter, group, permanent, blocks)
        self.subscriptions[subscription.id] = subscription
        self.send(
            Frame(
                Kind.SUBSCRIBE,
                id=subscription.id,
                address=filter,
                group=group,
                max_bytes=max_bytes,
                when_full=when_full,
            )
        )
        return subscription

    def unsubscribe(self, subscription: Subscribed) -> None:
        self.send(Frame(Kind.UNSUBSCRIBE, id=subscription.id))

    def open_tunnel(self, cluster: str, timeout: float, sizes: tuple[list[int], list[int]], *, abort: bool) -> Line:
        line = Line(self.world, cluster, self, sizes, abort=abort)
        end = TunnelEnd(self, self.id(), line, 0)
        self.tunnels[end.id] = end
        self.send(
            Frame(
                Kind.TUNNEL,
                id=end.id,
                address=cluster,
                remaining_ms=int(timeout * 1000),
                body=f"{line.label}|".encode(),
            )
        )
        return line

    # -- what comes

    def _dispatch(self, frame: Frame) -> None:
        id, kind = frame.id, frame.kind
        self.world.require(self.welcome or kind == Kind.WELCOME, f"{self} got {kind} before its welcome")
        if kind == Kind.WELCOME:
            self.welcome = frame
        elif kind == Kind.GOODBYE:
            self.goodbye = True
            self.send(Frame(Kind.GOODBYE))
        elif id in self.tunnels:
            self.tunnels[id].frame(frame)
        elif kind == Kind.EVENT:
            if id in self.subscriptions:
                self.oracle.event(self.subscriptions[id], frame)
                if frame.cost:
                    delay = self.world.random.choice([0.0, 0.0, 0.002, 0.01])
                    self.world.at(delay, lambda: self.send(Frame(Kind.CREDIT, id=id, count=frame.cost)))
        elif kind in (Kind.PAUSE, Kind.STALLED):
            self.world.require(self.heeds_pause, f"{self} was told to pause")
            self.paused.setdefault(frame.address, [])
        elif kind == Kind.RESUME:
            self.send(*self.paused.pop(frame.address, []))
        elif id % 2 == 0:
            self._delivery(frame)
        elif id in self.asked:
            self.oracle.answered(self.asked[id], frame)
        elif id in self.services:
            self.world.require(kind == Kind.DONE or self.goodbye, f"{self} was refused: {frame!r}")
            self.services[id].joined = kind == Kind.DONE
        elif id in self.subscriptions:
            subscription = self.subscriptions[id]
            self.world.require(kind == Kind.DONE or self.goodbye, f"{self} was refused: {frame!r}")
            subscription.known_everywhere = not subscription.established and frame.count == 1
            subscription.established = True
        elif id in self.flushes:
            self.flushes.discard(id)
        else:
            self.world.fail(f"{self} got {frame!r}, which it never asked for")

    def _delivery(self, frame: Frame) -> None:
        """A call for one of its members, or what becomes of one."""
        id, kind = frame.id, frame.kind
        if kind == Kind.CANCEL:
            if self._parts.pop(id, None) is None and id in self.handling:
                self._answer(id, "cancelled")
            return
        if kind not in (Kind.REQUEST, Kind.PUSH, Kind.BROADCAST, Kind.SURVEY, Kind.TUNNEL):
            return  # of a call that is over: messages cross
        services = [service for service in self.services.values() if service.cluster == frame.address]
        self.world.require(services, f"{self} got a call for {frame.address}, which it does not serve")
        service = services[-1]
        self.oracle.ran(self, frame)
        if kind == Kind.BROADCAST:
            return
        delay, what = service.act()
        if kind == Kind.TUNNEL:
            line = self.oracle.lines[bytes(frame.body).partition(b"|")[0].decode()]
            self.tunnels[id] = end = TunnelEnd(self, id, line, 1)
            if what == "reply":
                self.world.at(delay, end.accept)
            else:
                self.world.at(delay, end.refuse)
            return
        self.handling[id] = frame
        if kind in (Kind.REQUEST, Kind.PUSH):
            under_way = sum(f.address == frame.address and f.kind != Kind.SURVEY for f in self.handling.values())
            slots = sum(service.concurrency for service in services)
            self.world.require(
                under_way <= slots, f"{self} has {under_way} calls of {frame.address}, for {slots} slots"
            )
        if what == "silent" and kind != Kind.PUSH:
            return
        self.world.at(delay, lambda: self._answer(id, what))

    def _answer(self, id: int, what: str) -> None:
        frame = self.handling.pop(id, None)
        if frame is None or self.gone:
            return
        if what == "busy":
            self.oracle.did_not_run(self, frame)
            answer = Frame(Kind.ERROR, id=id, code=Code.OVERLOADED, executed=Executed.NO, detail="busy")
        elif what == "cancelled":
            answer = Frame(Kind.ERROR, id=id, code=Code.CANCELLED, executed=Executed.YES)
        elif what == "reject":
            answer = Frame(Kind.ERROR, id=id, code=Code.REJECTED, executed=Executed.YES, reason="no", body=b"because")
        elif what == "fail":
            answer = Frame(Kind.ERROR, id=id, code=Code.HANDLER_FAILED, executed=Executed.YES, detail="oops")
        elif frame.kind == Kind.PUSH:
            answer = Frame(Kind.DONE, id=id)
        else:
            answer = Frame(Kind.REPLY, id=id, body=frame.body)
        self.send(answer)
