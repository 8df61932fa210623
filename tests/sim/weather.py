"""Networks that lose, delay and tear, under the meshes of :mod:`tests.sim.scale`; dials as discovery makes them.

What a cut does is what it does to TCP. Nothing is lost while a link lives:
what cannot pass waits in order, and passes some time after the cut is mended
(retransmissions back off), unless an end has given the link up by then. An end
that closes a link it cannot reach the other over leaves it half open: the other
finds out when the close passes, when something it sends meets a reset, or when
the first dials anew. Where only one direction is cut, the other loses its
acknowledgements with it: :data:`WINDOW` more messages come through, then that
direction is silent too, and no dial either way succeeds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, NoReturn

from irisd.effects import Buffer, Cause, Connect, Effect, Fact, Found
from irisd.model import Frame, Kind, NodeId
from irisd.node import Node
from irisd.sp import encode_survey_id
from tests.sim.scale import DIAL, LATENCY, Host, Link, Mesh

WINDOW = 10
"""Messages that pass before a direction without acknowledgements is silent: TCP's first window."""
DIAL_TIMEOUT = 2.0
FIRST_DELAY, SOON, MAX_DELAY, GONE_SHARE, STEADY, HOLD_BACK = 0.1, 1.0, 30.0, 1 / 8, 5.0, 0.2
"""As in ``irisd/discovery/table.py``."""
TOLD = frozenset({Kind.HEARSAY, Kind.BELIEFS, Kind.VIEW, Kind.WANT})
TRACE_TAIL = 80
ENDLESS = float("inf")

Deliver = Callable[[Link, NodeId, Any], None]


class Sky(Mesh):
    """A mesh, and the weather over it.

    Args:
        seed: All chance comes from it.
        limit: ``full_mesh_limit``.
        label: What to print when something fails.

    Attributes:
        dark: For (source, destination): how many cuts lie between them.
        past: What was said once, for replays.
        changes: How often a node (first) changed its mind about another (second).
    """

    hosts: dict[NodeId, Station]  # type: ignore[assignment]

    def __init__(self, seed: int, *, limit: int = 64, label: str = "") -> None:
        super().__init__(seed, limit=limit)
        self.label = label or f"seed {seed}"
        self.dark: Counter[tuple[NodeId, NodeId]] = Counter()
        self.partitions: list[Callable[[Station], int]] = []
        self.jitter = 0.0
        self.loses_found = 0.0
        self.mischief = 0.0
        self.past: deque[Frame] = deque(maxlen=300)
        self.changes: Counter[tuple[NodeId, NodeId]] = Counter()
        self.trace: list[str] = []
        self.where: dict[str, Station] = {}
        self.by_short: dict[str, Station] = {}
        self.wires: dict[int, Wire] = {}
        self.check: Callable[[Station], None] = lambda station: None
        self.buried: Callable[[Station, Station, str], None] = lambda who, whom, reason: None

    # -- telling

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now:9.4f} {text}")

    def fail(self, what: str) -> NoReturn:
        tail = "\n".join(self.trace[-TRACE_TAIL:])
        raise AssertionError(f"{self.label} at {self.now:.4f} s: {what}\n{tail}\n{self.label}: {what}")

    def require(self, truth: object, what: str) -> None:
        if not truth:
            self.fail(what)

    # -- what passes

    def up(self) -> list[Station]:
        return [station for station in self.hosts.values() if station.alive]

    def passes(self, source: Station, far: Station) -> bool:
        """Whether packets get from one to the other."""
        if self.dark and self.dark[source.id, far.id]:
            return False
        return all(group(source) == group(far) for group in self.partitions)

    def talk(self, one: Station, other: Station) -> bool:
        """Whether packets get both ways."""
        return self.passes(one, other) and self.passes(other, one)

    def latency(self) -> float:
        return LATENCY if not self.jitter else LATENCY + self.jitter * self.random.random() ** 2

    def darken(self, pairs: list[tuple[NodeId, NodeId]], seconds: float) -> None:
        """Cut these directions for a while."""
        for pair in pairs:
            self.dark[pair] += 1
        self.at(seconds, self._lighten, pairs)

    def _lighten(self, pairs: list[tuple[NodeId, NodeId]]) -> None:
        for pair in pairs:
            if self.dark[pair]:
                self.dark[pair] -= 1
            if not self.dark[pair]:
                del self.dark[pair]
        self.mended(0.5)

    def divide(self, group: Callable[[Station], int], seconds: float) -> None:
        """Cut the network into groups for a while."""
        self.partitions.append(group)
        self.at(seconds, self._unite, group)

    def _unite(self, group: Callable[[Station], int]) -> None:
        if group in self.partitions:
            self.partitions.remove(group)
        self.mended(1.0)

    def clear(self) -> None:
        """All weather ends; stations that are held go on in their own time."""
        self.dark.clear()
        self.partitions.clear()
        self.jitter = self.loses_found = self.mischief = 0.0
        self.mended(1.0)

    def mended(self, backoff: float) -> None:
        """What waits is retransmitted, at some time within ``backoff``."""
        for wire in list(self.wires.values()):
            wire.mended(backoff)

    # -- stations

    def begin(self, name: str, seeds: list[str], address: str = "") -> Station:
        """Start a station that knows these addresses."""
        station = Station(self, name, address)
        for seed in seeds:
            station.hear_of(seed, b"")
        return station


@dataclass
class Lane:
    """One direction of a wire.

    Attributes:
        window: Messages that pass without an acknowledgement.
        waiting: What has not passed yet.
        last: When the last one arrives: they stay in order.
    """

    window: int = WINDOW
    waiting: deque[tuple[Deliver, Any]] = field(default_factory=deque)
    last: float = 0.0


class Wire(Link):
    """A link over the weather. Each end closes on its own.

    Attributes:
        open: The ends that have not closed it.
    """

    mesh: Sky
    ends: tuple[Station, Station]

    def __init__(self, sky: Sky, dialler: Station, listener: Station) -> None:
        self.open = {dialler.id: True, listener.id: True}
        self.lanes = {dialler.id: Lane(), listener.id: Lane()}
        self.flushing = False
        for end, far in ((dialler, listener), (listener, dialler)):
            before = end.links.get(far.id)
            if before is not None:
                before.open.pop(end.id, None)
        sky.wires[id(self)] = self
        sky.note(f"{dialler} linked with {listener}")
        for end, far in ((dialler, listener), (listener, dialler)):
            end.linked(far)
        super().__init__(sky, dialler, listener)

    def reaches(self, end: Host) -> bool:
        return end.id in self.open

    def post(self, end: Host, far: Host, deliver: Deliver, what: Any) -> None:
        assert isinstance(end, Station) and isinstance(far, Station)
        if end.id not in self.open:
            return
        end.posted += 1
        if isinstance(what, list) and self.mesh.random.random() < 0.2:
            self.mesh.past.extend(frame.copy() for frame in what if frame.kind in TOLD)
        lane = self.lanes[end.id]
        if lane.waiting or not self._passes(end, far, lane):
            lane.waiting.append((deliver, what))
        else:
            self._send(end, far, lane, deliver, what)

    def _passes(self, end: Station, far: Station, lane: Lane) -> bool:
        if not self.mesh.passes(end, far):
            return False
        if self.mesh.passes(far, end):
            lane.window = WINDOW
        lane.window -= 1
        return lane.window >= 0

    def _send(self, end: Station, far: Station, lane: Lane, deliver: Deliver, what: Any) -> None:
        lane.last = max(lane.last, self.mesh.now + self.mesh.latency())
        self.mesh.at(lane.last - self.mesh.now, self._arrive, end, far, deliver, what)

    def _arrive(self, end: Station, far: Station, deliver: Deliver, what: Any) -> None:
        if far.id in self.open and far.alive:
            deliver(self, end.id, what)
        elif end.id in self.open and far.resets and self.mesh.talk(end, far):
            self.mesh.at(self.mesh.latency(), self._down, end, far, False, False)  # a reset

    def control(self, end: Host, parts: tuple[Buffer, ...]) -> None:
        sky = self.mesh
        if sky.mischief and sky.random.random() < sky.mischief:
            message = b"".join(parts)
            far = self.far(end)
            kind = sky.random.choice(["twice", "late", "swapped", "unasked"])
            if kind == "twice":
                super().control(end, (message,))
            elif kind == "unasked":
                message = encode_survey_id(0x8000_0000 | sky.random.getrandbits(31)) + message[4:]
                self.post(end, far, far.control, message)
            elif kind == "late":
                sky.at(sky.random.uniform(0.1, 7.0), self._late, end, far, message)
            else:
                sky.at(sky.random.uniform(0.0, 0.3), self._late, end, far, message)
                return
        super().control(end, parts)

    def _late(self, end: Station, far: Station, message: bytes) -> None:
        if end.alive and sky_is_clear(self.mesh, end) and self.mesh.talk(end, far):  # no sign of life of a dead one
            self.post(end, far, far.control, message)

    def cut(self, by: Host, cause: Cause | None = None) -> None:
        assert isinstance(by, Station)
        far = self.far(by)
        self.close(by, far, idle=cause is Cause.IDLE, left=False)

    def close(self, by: Station, far: Station, *, idle: bool, left: bool) -> None:
        """One end closes it; the other finds out when that passes."""
        if by.id not in self.open:
            return
        self.post(by, far, self._closed, (idle, left))
        self.mesh.at(LATENCY, self._down, by, far, idle, False)
        del self.open[by.id]
        if by.links.get(far.id) is self:
            del by.links[far.id]
        by.closing.add(far.id)

    def _closed(self, link: Link, source: NodeId, how: tuple[bool, bool]) -> None:
        end = self.mesh.hosts[source]
        self._down(self.far(end), end, *how)

    def far(self, end: Host) -> Station:
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    def _down(self, end: Station, far: Station, idle: bool, left: bool) -> None:
        if end.is_held(self._down, end, far, idle, left):
            return
        if end.links.get(far.id) is self:
            del end.links[far.id]
        elif far.id not in end.closing:
            return
        end.closing.discard(far.id)
        self.open.pop(end.id, None)
        if not self.open and not any(lane.waiting for lane in self.lanes.values()):
            self.mesh.wires.pop(id(self), None)
        end.link_down(far.id, idle, left=left)

    def mended(self, backoff: float) -> None:
        """Some cut is over: send what waits, if it was that."""
        if not self.flushing and any(lane.waiting for lane in self.lanes.values()):
            self.flushing = True
            self.mesh.at(self.mesh.random.uniform(0.0, backoff), self._flush)

    def _flush(self) -> None:
        self.flushing = False
        for end in self.ends:
            far, lane = self.far(end), self.lanes[end.id]
            while lane.waiting and not end.is_silent and self._passes(end, far, lane):
                self._send(end, far, lane, *lane.waiting.popleft())


def sky_is_clear(sky: Sky, station: Station) -> bool:
    """Whether a station is neither held nor down."""
    return station.alive and sky.now >= station.held_until


class Candidate:
    """An address to dial, and what is known of it; see ``irisd/discovery/table.py``."""

    def __init__(self, address: str, expected: NodeId, now: float) -> None:
        self.address = address
        self.node = self.expected = expected
        self.heard = now
        self.linked_at = -ENDLESS
        self.failures = self.flaps = 0
        self.proven = self.put_off = self.dialling = False
        self.due = ENDLESS
        self.began = now


class Station(Host):
    """A host under weather.

    Attributes:
        cut_until: Until when there is somebody it cannot reach.
        troubled_until: The same, long holds included: until when others may take it for dead.
        unsteady_until: The same, short holds included: until when it may be late to know.
        closing: With whom it has closed a link and not noticed yet.
    """

    mesh: Sky
    links: dict[NodeId, Wire]  # type: ignore[assignment]

    def __init__(self, sky: Sky, name: str, address: str = "") -> None:
        self.born = sky.now
        self.number = len(sky.hosts)
        self.is_silent = False
        self.has_left = False
        self.cut_until = self.troubled_until = self.unsteady_until = -ENDLESS
        self.held_since = -ENDLESS
        self.posted = 0
        self.closing: set[NodeId] = set()
        self.candidates: dict[str, Candidate] = {}
        self.ready = False
        super().__init__(sky, name)
        sky.by_short[self.id.hex()[:8]] = self
        sky.note(f"{self} starts")
        self.move(address or name)
        self.ready = True

    def __str__(self) -> str:
        return f"{self.name}/{self.id.hex()[:4]}"

    @property
    def resets(self) -> bool:
        """Whether somebody at its address answers what is sent to a closed link of it."""
        there = self.mesh.where.get(self.address)
        return not self.is_silent or (there is not None and there.alive)

    def move(self, address: str) -> None:
        """Be at another address."""
        if self.mesh.where.get(self.address) is self:
            del self.mesh.where[self.address]
        self.address = address
        self.mesh.where[address] = self
        self.do(Node.set_addresses, (address,), self.mesh.now)

    # -- events

    def do(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        own = self.node.membership.view.present[self.id].record.incarnation if self.ready else 1
        super().do(method, *arguments, **named)
        after = self.node.membership.view.present[self.id].record.incarnation
        if after != own:
            self.mesh.require(after > own, f"{self}: its own incarnation fell to {after}")
            accused = method is Node.frames_from_peer and any(
                frame.kind in (Kind.BELIEFS, Kind.HEARSAY) and self.id in frame.body for frame in arguments[1]
            )
            self.mesh.require(accused, f"{self}: its incarnation rose to {after}, and nobody accused it")
        if self.ready:
            self.mesh.check(self)

    def told(self, fact: Fact) -> None:
        event = fact.event
        if not event.startswith("node.") or "node" not in fact.fields:
            self.mesh.note(f"{self}: {event} {fact.fields}")
            return
        whom = self.mesh.by_short[str(fact.fields["node"])]
        reason = str(fact.fields.get("reason", ""))
        self.mesh.note(f"{self}: {event} {whom}, {reason}")
        self.mesh.changes[self.id, whom.id] += 1
        if event == "node.dead":
            self.mesh.deaths.append((self.mesh.now, self.id, whom.id))
            self.mesh.buried(self, whom, reason)

    def hold(self, seconds: float) -> None:
        sky = self.mesh
        if sky.now > self.held_until + 1.0:
            self.held_since = sky.now
        until = max(self.held_until, sky.now + seconds)
        super().hold(until - sky.now)
        self.unsteady_until = max(self.unsteady_until, until)
        if until - self.held_since >= 3.0:
            self.troubled_until = max(self.troubled_until, until)

    def _go_on(self) -> None:
        if self.number % 2:  # a timer was ready already, and comes before all that is to be read
            self._on_timer()
        super()._go_on()

    def trouble(self, seconds: float) -> None:
        """It will not be reachable from everywhere for so long."""
        self.cut_until = max(self.cut_until, self.mesh.now + seconds)
        self.troubled_until = max(self.troubled_until, self.cut_until)
        self.unsteady_until = max(self.unsteady_until, self.troubled_until)

    def link_down(self, far: NodeId, idle: bool, *, left: bool = False) -> None:
        if not self.alive or far in self.links or self.is_held(self._link_down, far, idle, left):
            return
        self._link_down(far, idle, left)

    def _link_down(self, far: NodeId, idle: bool, left: bool) -> None:
        if not self.alive or far in self.links:
            return
        sky = self.mesh
        sky.note(f"{self}: no link with {sky.hosts[far]}{', idle' if idle else ', left' if left else ''}")
        self.do(Node.link_down, far, "cut", sky.now, idle=idle, left=left)
        for candidate in list(self.candidates.values()):
            if candidate.node == far:
                candidate.heard = sky.now
                if not candidate.dialling:
                    candidate.flaps = 0 if sky.now - candidate.linked_at >= STEADY else candidate.flaps + 1
                    self._schedule(candidate, _doubled(candidate.flaps) * self._half() + self._hesitation(candidate))

    def stop(self, *, silent: bool) -> None:
        self.mesh.note(f"{self} {'falls silent' if silent else 'crashes'}")
        self.is_silent = silent
        super().stop(silent=silent)

    def leave(self) -> None:
        """Say goodbye and be gone."""
        self.mesh.note(f"{self} leaves")
        self.has_left = True
        self.alive = False
        self.died_at = self.mesh.now
        for wire in list(self.links.values()):
            wire.close(self, wire.far(self), idle=False, left=True)

    # -- dials

    def found(self, effect: Found) -> None:
        if self.mesh.random.random() < self.mesh.loses_found:
            self.mesh.note(f"{self}: Found is lost")
            return
        for address in effect.addresses:
            self.hear_of(address, effect.node)

    def connect(self, effect: Connect) -> None:
        self.mesh.at(DIAL, self._reach_once, effect)

    def hear_of(self, address: str, node: NodeId) -> None:
        """Somebody, perhaps this node, is said to be at this address."""
        if address == self.address:
            return
        candidate = self.candidates.get(address)
        if candidate is None:
            candidate = self.candidates[address] = Candidate(address, node, self.mesh.now)
        elif node and candidate.node != node and not self._parked(candidate):
            candidate.node = node
            candidate.expected = b"" if candidate.proven else node  # where one was linked, whoever is there is welcome
        elif not candidate.put_off:
            return
        if not candidate.dialling and not self._parked(candidate):
            self._schedule(candidate, self._hesitation(candidate) + DIAL * self.mesh.random.random())

    def linked(self, far: Station) -> None:
        """A link is up, no matter who dialled."""
        for candidate in self.candidates.values():
            if candidate.node == far.id:
                candidate.proven, candidate.failures = True, 0
                candidate.heard = candidate.linked_at = self.mesh.now

    def _parked(self, candidate: Candidate) -> bool:
        return candidate.node in self.links

    def _half(self) -> float:
        return self.mesh.random.uniform(0.5, 1.0)

    def _hesitation(self, candidate: Candidate) -> float:
        if not candidate.proven or not b"" < candidate.node < self.id:
            return 0.0
        return HOLD_BACK * self.mesh.random.uniform(1.0, 1.5)

    def _schedule(self, candidate: Candidate, delay: float) -> None:
        candidate.due = self.mesh.now + delay
        self.mesh.at(delay, self._try, candidate, candidate.due)

    def _try(self, candidate: Candidate, due: float) -> None:
        if not self.alive or candidate.due != due or candidate.dialling or self.is_held(self._try, candidate, due):
            return
        candidate.due = ENDLESS
        if self._parked(candidate) or candidate.address == self.address:
            return
        if candidate.node and not self.node.wants(candidate.node):
            candidate.put_off = True
            self._schedule(candidate, MAX_DELAY * self._half())
            return
        candidate.dialling, candidate.put_off, candidate.began = True, False, self.mesh.now
        self.mesh.at(DIAL, self._reach, candidate)

    def _reach(self, candidate: Candidate) -> None:
        if not self.alive or self.is_held(self._reach, candidate):
            return
        far = self.mesh.where.get(candidate.address)
        if far is None or not far.alive or not self.mesh.talk(self, far):
            refused = far is not None and self.mesh.talk(self, far) and not far.is_silent
            self.mesh.at(0.0 if refused else DIAL_TIMEOUT, self._failed, candidate, False)
        elif not sky_is_clear(self.mesh, far):
            self.mesh.at(0.1, self._failed, candidate, False)
        elif candidate.expected and candidate.expected != far.id:
            self._failed(candidate, True)
        else:
            candidate.node, candidate.expected, candidate.dialling = far.id, b"", False
            self._link(far)
            self.linked(far)

    def _link(self, far: Station) -> None:
        """Link with whoever was reached, unless that is so."""
        wire = self.links.get(far.id)
        if wire is None or far.links.get(self.id) is not wire:
            Wire(self.mesh, self, far)

    def _failed(self, candidate: Candidate, hopeless: bool) -> None:
        if not self.alive or self.is_held(self._failed, candidate, hopeless):
            return
        candidate.dialling = False
        candidate.failures += 1
        if self._parked(candidate):
            return
        now = self.mesh.now
        longest = MAX_DELAY if hopeless else _doubled(candidate.failures)
        began = now
        if candidate.proven and not hopeless:
            longest, began = min(longest, max(SOON, (now - candidate.heard) * GONE_SHARE)), candidate.began
        self._schedule(candidate, max(began + longest * self._half() - now, FIRST_DELAY * self._half()))

    def _reach_once(self, effect: Connect) -> None:
        if not self.alive or self.is_held(self._reach_once, effect):
            return
        for address in effect.addresses:
            far = self.mesh.where.get(address)
            if far is not None and far.id == effect.node and sky_is_clear(self.mesh, far) and self.mesh.talk(self, far):
                self._link(far)
                return
        self.mesh.at(self.mesh.random.uniform(0.0, DIAL_TIMEOUT), self._missed_once, effect)

    def _missed_once(self, effect: Connect) -> None:
        if self.alive and not self.is_held(self._missed_once, effect):
            self.do(Node.connect_failed, effect.node, "unreachable", self.mesh.now)


def _doubled(times: int) -> float:
    return min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(max(times - 1, 0), 30))


def group_of(salt: int, groups: int) -> Callable[[Station], int]:
    """A division of all stations, those included that are yet to start."""

    of: dict[int, int] = {}

    def group(station: Station) -> int:
        number = station.number
        if number not in of:
            of[number] = Random(salt * 1000 + number).randrange(groups)
        return of[number]

    return group
