"""Whole meshes on a virtual clock: real nodes, simulated links and app streams, one seed.

Nothing here waits and nothing is concurrent: events lie in a heap and run one after another. Frames cross every link
and stream as the bytes the wire room makes of them, so nothing can travel here that could not be encoded.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import TYPE_CHECKING, NoReturn

from irisd.effects import Buffer, Cause, Control, Detach, Effect, Unlink, Wake
from irisd.model import FEATURES, Destination, Frame, KiB, Kind, MiB, NodeId, PeerInfo, WhenFull
from irisd.node import Node, NodeIdentity, NodeSettings
from irisd.wire import decode_batch, decode_frame, encode_batch, encode_frame
from tests.sim.invariants import check_bounds

if TYPE_CHECKING:
    from tests.sim.apps import App
    from tests.sim.oracle import Oracle

SETTINGS = NodeSettings(
    max_body=MiB,
    peer_outbox=2 * MiB,
    app_outbox=2 * MiB,
    topic_queue=128 * KiB,
    request_queue=64 * KiB,
    lost_peer_memory=3.0,
)
"""Small enough that every bound is met now and then."""

TRACE_TAIL = 60


class World:
    """The clock, the heap, the daemons and the links.

    Args:
        seed: All chance comes from it.
        make_oracle: Makes the one who knows what must be true.
    """

    def __init__(self, seed: int, make_oracle: Callable[[World], Oracle], settings: NodeSettings = SETTINGS) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.settings = settings
        self.now = 0.0
        self.trace: list[str] = []
        self.daemons: list[Daemon] = []
        self.links: dict[frozenset[NodeId], Link] = {}
        self.largest = 0  # credit the largest message published so far uses
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.oracle = make_oracle(self)

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Run ``action`` after ``delay`` virtual seconds."""
        self.at_time(self.now + delay, action)

    def at_time(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` at ``when``; of two at the same time, the one that was asked for first."""
        heapq.heappush(self._heap, (when, next(self._order), action))

    def run(self, until: float) -> None:
        """Let everything happen that happens before ``until``."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action = heapq.heappop(self._heap)
            self.steps += 1
            action()
        self.now = until

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now:9.4f} {text}")

    def fail(self, what: str) -> NoReturn:
        tail = "\n".join(self.trace[-TRACE_TAIL:])
        raise AssertionError(f"seed {self.seed} at {self.now:.4f} s, step {self.steps}: {what}\n{tail}")

    def require(self, truth: object, what: str) -> None:
        if not truth:
            self.fail(what)

    def start(self, name: str, *, settle: bool = False) -> Daemon:
        """Start a daemon and link it to all others."""
        daemon = Daemon(self, name, settle=settle)
        self.note(f"{daemon} starts")
        for other in self.alive():
            self.link(daemon, other)
        self.daemons.append(daemon)
        return daemon

    def alive(self) -> list[Daemon]:
        return [daemon for daemon in self.daemons if daemon.alive]

    def link(self, one: Daemon, other: Daemon) -> None:
        """Make a link; an older one of the same two is replaced."""
        key = frozenset((one.id, other.id))
        before = self.links.get(key)
        if before is not None:
            before.close()
        self.links[key] = Link(one, other)

    def cut(self, one: Daemon, other: Daemon, *, noticed: bool = True) -> None:
        """Lose a link and what is in flight; each end notices in its own time, or not at all before the next link."""
        link = self.links.pop(frozenset((one.id, other.id)), None)
        if link is not None:
            self.note(f"cut {one} - {other}")
            link.close()
            if noticed:
                for end, far in ((one, other), (other, one)):
                    self.at(self.random.uniform(0, 0.05), lambda end=end, far=far: end.lost(far))  # type: ignore[misc]

    def linked(self, one: Daemon, other: Daemon) -> bool:
        return frozenset((one.id, other.id)) in self.links

    def links_of(self, daemon: Daemon) -> list[frozenset[NodeId]]:
        return [key for key in self.links if daemon.id in key]

    def heal(self) -> None:
        """Link every two living daemons that are not."""
        alive = self.alive()
        for at, one in enumerate(alive):
            for other in alive[:at]:
                if not self.linked(one, other):
                    self.note(f"heal {one} - {other}")
                    self.link(one, other)


class Daemon:
    """A node and its edges, as far as the node can tell."""

    def __init__(self, world: World, name: str, *, settle: bool) -> None:
        self.world = world
        self.name = name
        self.id: NodeId = world.random.randbytes(16)
        self.node = Node(
            NodeIdentity(self.id, name, "sim"),
            world.settings,
            Random(world.random.getrandbits(64)),
            now=world.now,
            settle=settle,
        )
        self.alive = True
        self.crashed = False
        self.apps: dict[int, App] = {}
        self.pipes: dict[Destination, Pipe] = {}
        self.controls: dict[NodeId, ControlPipe] = {}
        self.quiet_since: float | None = None  # once it drains
        self._attachments = count(1)
        self._timer = float("inf")
        self.apply([])

    def __str__(self) -> str:
        return f"{self.name}/{self.id.hex()[:4]}"

    def apply(self, effects: list[Effect]) -> None:
        """Carry out what the node asks for, and look at everything it holds."""
        world = self.world
        for effect in effects:
            if isinstance(effect, Wake):
                pipe = self.pipes.get(effect.destination)
                if pipe is not None:
                    pipe.wake()
            elif isinstance(effect, Control):
                control = self.controls.get(effect.peer)
                if control is not None:
                    control.send(effect.parts)
            elif isinstance(effect, Unlink) and effect.cause is Cause.SILENT:
                world.at(0.0, lambda node=effect.peer: self.give_up(node))  # type: ignore[misc]
            elif isinstance(effect, Detach | Unlink):
                world.fail(f"{self} says somebody broke the rules: {effect}")
        deadline = self.node.next_deadline()
        if deadline is not None and deadline < self._timer:
            self._timer = deadline
            world.at_time(max(world.now, deadline), self._on_timer)
        check_bounds(world, self.node)

    def _on_timer(self) -> None:
        if self.alive and self.world.now >= self._timer:
            self._timer = float("inf")
            self.apply(self.node.on_deadline(self.world.now))

    # -- apps

    def attach(self, app: App) -> int:
        number = next(self._attachments)
        self.apps[number] = app
        self.pipes[number] = Pipe(self, number, app.latency, float("inf"), 64 * KiB, app.received)
        hello = Frame(Kind.HELLO, member=app.name, when_full=WhenFull.BLOCK if app.heeds_pause else 0)
        self.apply(self.node.attach(number, hello, self.world.now))
        return number

    def from_app(self, number: int, raw: bytes) -> None:
        app = self.apps.get(number)
        if self.alive and app is not None:
            frames = decode_batch(raw, self.world.settings.max_body)
            for frame in frames:
                self.world.oracle.reached(self, app, frame)
            self.apply(self.node.frames_from_app(number, frames, self.world.now))

    def detached(self, number: int) -> None:
        if self.alive and self.apps.pop(number, None) is not None:
            self.pipes.pop(number).closed = True
            self.apply(self.node.detach(number, "gone", self.world.now))

    # -- peers

    def linked(self, far: Daemon, pipe: Pipe, control: ControlPipe, *, dialled: bool) -> None:
        if self.alive:
            self.pipes[far.id] = pipe
            self.controls[far.id] = control
            info = PeerInfo(far.id, far.name, features=FEATURES)
            self.apply(self.node.link_up(info, self.world.now, dialled=dialled))

    def control_received(self, far: NodeId, message: bytes) -> None:
        if self.alive:
            self.apply(self.node.control_received(far, [message], self.world.now))

    def give_up(self, node: NodeId) -> None:
        """The node has heard nothing over this link for too long."""
        link = self.world.links.get(frozenset((self.id, node)))
        if self.alive and link is not None:
            self.world.cut(*link.ends)

    def lost(self, far: Daemon, *, left: bool = False) -> None:
        """The link to ``far`` has ended, unless there is a newer one already."""
        if self.alive and not self.world.linked(self, far):
            self.pipes.pop(far.id, None)
            self.controls.pop(far.id, None)
            self.apply(self.node.link_down(far.id, "sim", self.world.now, left=left))

    def from_peer(self, far: NodeId, raws: list[bytes]) -> None:
        if self.alive:
            frames = [decode_frame(raw, 0, len(raw), self.world.settings.max_body) for raw in raws]
            self.apply(self.node.frames_from_peer(far, frames, self.world.now))

    def stop(self, *, left: bool = False) -> None:
        """Be gone, apps and all."""
        if not self.alive:
            return
        self.world.note(f"{self} {'leaves' if left else 'crashes'}")
        self.alive = False
        self.crashed = not left or len(self.world.links_of(self)) < len(self.world.alive())
        for app in list(self.apps.values()):
            app.vanished()
        for other in self.world.alive():
            link = self.world.links.get(frozenset((self.id, other.id)))
            if link is None:
                self.world.at(0.0, lambda other=other: other.lost(self))  # type: ignore[misc]
            elif left:  # what has been written arrives before the goodbye
                self.world.at(0.03, lambda other=other, link=link: self._said_goodbye(other, link))  # type: ignore[misc]
            else:
                self._end(other, link)
                delay = self.world.random.uniform(0, 0.05)
                self.world.at(delay, lambda other=other: other.lost(self))  # type: ignore[misc]

    def _said_goodbye(self, other: Daemon, link: Link) -> None:
        if self._end(other, link):
            other.lost(self, left=True)

    def _end(self, other: Daemon, link: Link) -> bool:
        """Whether that was still the link."""
        key = frozenset((self.id, other.id))
        if self.world.links.get(key) is not link:
            return False
        del self.world.links[key]
        link.close()
        return True


class Link:
    """Two pipes that live and die together. Bytes come only once both ends have settled it."""

    def __init__(self, one: Daemon, other: Daemon) -> None:
        world = one.world
        latency = world.random.choice([0.0, 0.0005, 0.005, 0.02])
        rate = world.random.choice([float("inf"), 1e8, 2e6])
        limit = world.random.choice([8 * KiB, 64 * KiB, MiB])
        settled = world.now + world.random.uniform(0, 0.005)
        self.ends = (one, other)
        self.pipes: list[Pipe | ControlPipe] = []
        pipes = []
        for end, far in ((one, other), (other, one)):
            pipe = Pipe(end, far.id, latency, rate, limit, lambda raws, e=end, f=far: f.from_peer(e.id, raws))  # type: ignore[misc]
            pipe.not_before = settled
            pipes.append(pipe)
        controls = [ControlPipe(one, other, latency, settled), ControlPipe(other, one, latency, settled)]
        self.pipes = [*pipes, *controls]
        world.at(0.0, lambda: self._up(one, other, pipes[0], controls[0], dialled=True))
        world.at_time(settled, lambda: self._up(other, one, pipes[1], controls[1], dialled=False))

    @staticmethod
    def _up(end: Daemon, far: Daemon, pipe: Pipe, control: ControlPipe, *, dialled: bool) -> None:
        if not pipe.closed:
            end.linked(far, pipe, control, dialled=dialled)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.closed = True


class ControlPipe:
    """One direction of a link's control connection: small messages, in order."""

    def __init__(self, source: Daemon, far: Daemon, latency: float, not_before: float) -> None:
        self._source = source
        self._far = far
        self._latency = latency
        self._not_before = not_before
        self.closed = False

    def send(self, parts: tuple[Buffer, ...]) -> None:
        world = self._source.world
        message = b"".join(parts)
        world.at_time(max(self._not_before, world.now) + self._latency, lambda: self._arrive(message))

    def _arrive(self, message: bytes) -> None:
        if not self.closed:
            self._far.control_received(self._source.id, message)


class Pipe:
    """One direction of a link or an app's stream: pulls from an outbox, one write in flight, delivers in order.

    Attributes:
        closed: Nothing arrives any more. The node is still pulled from: what it writes before it notices is lost.
        paused: The other end does not read.
    """

    def __init__(
        self,
        source: Daemon,
        destination: Destination,
        latency: float,
        rate: float,
        limit: int,
        deliver: Callable[[list[bytes]], None],
    ) -> None:
        self._source = source
        self._destination = destination
        self._latency = latency
        self._rate = rate
        self._limit = limit
        self._deliver = deliver
        self.not_before = 0.0
        self.closed = False
        self.paused = False
        self._writing = False
        self._last = 0.0

    def wake(self) -> None:
        source, world = self._source, self._source.world
        if self._writing or self.paused or not source.alive or source.pipes.get(self._destination) is not self:
            return
        frames = source.node.take(self._destination, self._limit, world.now)
        if not frames:
            return
        raws = [encode_frame(frame) for frame in frames]
        world.note(f"{source} -> {self._name()}: {' '.join(brief(frame) for frame in frames)}")
        busy = sum(map(len, raws)) / self._rate
        self._writing = True
        self._last = max(self._last, self.not_before, world.now + busy + self._latency)
        world.at(busy, self._written)
        world.at_time(self._last, lambda: self._arrive(raws))

    def resume(self) -> None:
        self.paused = False
        self.wake()

    def _written(self) -> None:
        self._writing = False
        self.wake()

    def _arrive(self, raws: list[bytes]) -> None:
        if not self.closed:
            self._deliver(raws)

    def _name(self) -> str:
        return str(self._destination) if isinstance(self._destination, int) else self._destination.hex()[:4]


def brief(frame: Frame) -> str:
    """A frame in a trace: what it is, which call, how much, and which message it carries."""
    label = bytes(frame.body[:24]).partition(b"|")[0].decode(errors="replace") if b"|" in frame.body[:24] else ""
    return f"{Kind(frame.kind).name}#{frame.id}{'+' if frame.more else ''}[{label or len(frame.body)}]"


def batch(frames: list[Frame]) -> bytes:
    """What an app's stream carries."""
    return encode_batch(frames)
