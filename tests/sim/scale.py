"""Meshes of up to thousands of nodes on a virtual clock: how fast they agree, and what that costs.

The nodes are the real ones. Links, dials and clocks are simulated, frames cross
as objects, and a record that crosses many links is decoded once: a thousand
nodes fit into one process. ``python -m tests.sim.scale --nodes 1000``.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import count
from random import Random
from typing import Any
from unittest import mock

from irisd.effects import Buffer, Cause, Connect, Control, Effect, Fact, Found, Unlink, Wake
from irisd.model import FEATURES, Claim, Frame, NodeId, PeerInfo
from irisd.node import Node, NodeIdentity, NodeSettings
from irisd.wire import decode_record

LATENCY = 0.001
DIAL = 0.004
"""Seconds a dial takes: TCP and two handshakes."""
OVERHEAD = 8 + 4 + 18 + 12
"""Bytes around a message: SP size and header, record, frame header."""
CLUSTERS = 50


class Mesh:
    """The clock and the network. All chance comes from the seed."""

    def __init__(self, seed: int, *, limit: int = 64) -> None:
        self.random = Random(seed)
        self.settings = NodeSettings(full_mesh_limit=limit)
        self.now = 0.0
        self.hosts: dict[NodeId, Host] = {}
        self.links: dict[tuple[NodeId, NodeId], Link] = {}
        self.deaths: list[tuple[float, NodeId, NodeId]] = []  # when, who believes it, of whom
        self.frames = 0
        self.bytes = 0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()

    def at(self, delay: float, action: Callable[..., None], *arguments: Any) -> None:
        self.at_time(self.now + delay, action, *arguments)

    def at_time(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Exactly then: a timer that fires a rounding error early would be lost."""
        heapq.heappush(self._heap, (when, next(self._order), action, arguments))

    def run(self, seconds: float, until: Callable[[], bool] | None = None, every: float = 0.05) -> bool:
        """Let time pass; stop as soon as ``until`` holds, looked at every so often."""
        end = self.now + seconds
        look = self.now + every
        heap = self._heap
        while heap and heap[0][0] <= end:
            if until is not None and heap[0][0] > look:
                self.now = look
                if until():
                    return True
                look = max(look + every, heap[0][0])
            self.now, _, action, arguments = heapq.heappop(heap)
            self.events += 1
            action(*arguments)
        self.now = end
        return until is not None and until()

    def alive(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.alive]

    def start(self, name: str, seeds: list[Host]) -> Host:
        host = Host(self, name)
        for seed in seeds:
            host.want(seed.id)
        return host

    def sent(self, size: int) -> None:
        self.frames += 1
        self.bytes += size + OVERHEAD

    def complete(self) -> bool:
        """Whether everybody knows everybody, and nobody else, and the same of each."""
        alive = self.alive()
        digest = alive[0].node.membership.view.digest
        return all(
            len(host.node.membership.view.present) == len(alive) and host.node.membership.view.digest == digest
            for host in alive
        )

    def false_deaths(self) -> int:
        """How often somebody believed dead who was not."""
        return sum(1 for at, _, node in self.deaths if self.hosts[node].died_at > at)


class Link:
    """Two directions that live and die together; in order, one latency."""

    def __init__(self, mesh: Mesh, dialler: Host, listener: Host) -> None:
        self.mesh = mesh
        self.ends = (dialler, listener)
        self.up = True
        mesh.links[_pair(dialler.id, listener.id)] = self
        for end, far in ((dialler, listener), (listener, dialler)):
            end.links[far.id] = self
        dialler.do(Node.link_up, self._info(listener), mesh.now, dialled=True)
        listener.do(Node.link_up, self._info(dialler), mesh.now, dialled=False)
        for end, far in ((dialler, listener), (listener, dialler)):
            self.pull(end, far)

    def _info(self, host: Host) -> PeerInfo:
        return PeerInfo(host.id, host.name, address=host.address, features=FEATURES)

    def far(self, end: Host) -> Host:
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    def pull(self, end: Host, far: Host) -> None:
        frames = end.node.take(far.id, 1 << 18, self.mesh.now)
        while frames:
            for frame in frames:
                self.mesh.sent(len(frame.body))
            self.post(end, far, far.frames, frames)
            frames = end.node.take(far.id, 1 << 18, self.mesh.now)

    def control(self, end: Host, parts: tuple[Buffer, ...]) -> None:
        message = b"".join(parts)
        self.mesh.sent(len(message))
        far = self.far(end)
        self.post(end, far, far.control, message)

    def post(self, end: Host, far: Host, deliver: Callable[[Link, NodeId, Any], None], what: Any) -> None:
        """Send one way."""
        self.mesh.at(LATENCY, deliver, self, end.id, what)

    def reaches(self, end: Host) -> bool:
        """Whether what comes over it is read at this end."""
        return self.up

    def cut(self, by: Host, cause: Cause | None = None) -> None:
        """End it; both ends notice, a dead one does not."""
        if self.up:
            self.up = False
            one, other = self.ends
            del self.mesh.links[_pair(one.id, other.id)]
            for end, far in ((one, other), (other, one)):
                end.links.pop(far.id, None)
                self.mesh.at(LATENCY, end.link_down, far.id, cause is Cause.IDLE)


def _pair(one: NodeId, other: NodeId) -> tuple[NodeId, NodeId]:
    return (one, other) if one < other else (other, one)


class Host:
    """A node, its dials and its clock."""

    def __init__(self, mesh: Mesh, name: str) -> None:
        self.mesh = mesh
        self.name = name
        self.address = name
        self.id: NodeId = mesh.random.randbytes(16)
        mesh.hosts[self.id] = self
        self.links: dict[NodeId, Link] = {}
        self.alive = True
        self.died_at = float("inf")
        self.held_until = 0.0
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._wanted: dict[NodeId, int] = {}  # failures
        self._timer = float("inf")
        rng = Random(mesh.random.getrandbits(64))
        self.node = Node(NodeIdentity(self.id, name, "scale"), mesh.settings, rng, now=mesh.now)
        self.do(Node.set_addresses, (name,), mesh.now)

    # -- time

    def hold(self, seconds: float) -> None:
        """Be stopped for so long: nothing is read, no timer fires."""
        self.held_until = self.mesh.now + seconds
        self.mesh.at_time(self.held_until, self._go_on)

    def _go_on(self) -> None:
        held, self._held = self._held, []
        for action, arguments in held:
            action(*arguments)
        self._on_timer()

    def is_held(self, action: Callable[..., None], *arguments: Any) -> bool:
        if self.mesh.now < self.held_until:
            self._held.append((action, arguments))
            return True
        return False

    def _on_timer(self) -> None:
        if self.alive and self.mesh.now >= self._timer and self.mesh.now >= self.held_until:
            self._timer = float("inf")
            self.do(Node.on_deadline, self.mesh.now)

    # -- events

    def do(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        """Give the node an event and carry out what it asks for."""
        mesh, node = self.mesh, self.node
        for effect in method(node, *arguments, **named):
            if type(effect) is Wake:
                link = self.links.get(effect.destination)  # type: ignore[arg-type]
                if link is not None:
                    link.pull(self, link.far(self))
            elif type(effect) is Control:
                link = self.links.get(effect.peer)
                if link is not None:
                    link.control(self, effect.parts)
            elif type(effect) is Found:
                self.found(effect)
            elif type(effect) is Connect:
                self.connect(effect)
            elif type(effect) is Unlink:
                assert effect.cause is not Cause.VIOLATION, effect
                link = self.links.get(effect.peer)
                if link is not None:
                    link.cut(self, effect.cause)
            elif type(effect) is Fact:
                self.told(effect)
        deadline = node.next_deadline()
        if deadline is not None and deadline < self._timer:
            self._timer = deadline
            mesh.at_time(max(mesh.now, deadline), self._on_timer)

    def told(self, fact: Fact) -> None:
        """What the node would log."""
        if fact.event == "node.dead":
            self.believes_dead(fact.fields["node"])

    def believes_dead(self, short: object) -> None:
        """Note that the node believes that another is dead."""
        gone = self.node.membership.view.gone
        node = next(node for node in reversed(gone) if node.hex()[:8] == short)
        self.mesh.deaths.append((self.mesh.now, self.id, node))

    def frames(self, link: Link, source: NodeId, frames: list[Frame]) -> None:
        if self.alive and link.reaches(self) and not self.is_held(self.frames, link, source, frames):
            self.do(Node.frames_from_peer, source, frames, self.mesh.now)

    def control(self, link: Link, source: NodeId, message: bytes) -> None:
        if self.alive and link.reaches(self) and not self.is_held(self.control, link, source, message):
            self.do(Node.control_received, source, [message], self.mesh.now)

    def link_down(self, far: NodeId, idle: bool) -> None:
        if self.alive and far not in self.links and not self.is_held(self.link_down, far, idle):
            self.do(Node.link_down, far, "cut", self.mesh.now, idle=idle)
            if not idle:
                self.want(far)

    def stop(self, *, silent: bool) -> None:
        """Die: as a process, whose kernel closes its links, or as a host, of which nothing more is heard."""
        self.alive = False
        self.died_at = self.mesh.now
        if not silent:
            for link in list(self.links.values()):
                link.cut(self)

    # -- dials

    def found(self, effect: Found) -> None:
        """The node heard of another."""
        self.want(effect.node)

    def connect(self, effect: Connect) -> None:
        """Something waits for another node."""
        self.mesh.at(DIAL, self._dial, effect.node, True)

    def want(self, node: NodeId) -> None:
        """Be linked with a node: dial it until that is so, or it is not wanted any more."""
        if node not in self._wanted and node != self.id:
            self._wanted[node] = 0
            self.mesh.at(DIAL * self.mesh.random.uniform(1, 2), self._dial, node, False)

    def _dial(self, node: NodeId, once: bool) -> None:
        mesh = self.mesh
        if not self.alive or self.is_held(self._dial, node, once):
            return
        if node not in self.links:
            far = mesh.hosts.get(node)
            key = _pair(self.id, node)
            if far is not None and far.alive and mesh.now >= far.held_until and key not in mesh.links:
                if once or self.node.wants(node):
                    Link(mesh, self, far)
            elif once:
                self.do(Node.connect_failed, node, "unreachable", mesh.now)
            elif self.node.wants(node):
                failures = self._wanted[node] = self._wanted.get(node, 0) + 1
                delay = min(0.1 * 2.0**failures, max(1.0, failures / 2), 30.0)
                mesh.at(delay * mesh.random.uniform(0.5, 1.0), self._dial, node, once)
                return
        if not once:
            self._wanted.pop(node, None)


@dataclass
class Row:
    """One line of the table."""

    nodes: int
    full_view: float = 0.0
    links: float = 0.0
    frames: float = 0.0
    bytes: float = 0.0
    crash_first: float = 0.0
    crash_all: float = 0.0
    silent_first: float = 0.0
    silent_all: float = 0.0
    stalled_false: int = 0
    churn_false: int = 0
    churn_known: float = 0.0
    churn_ghosts: float = 0.0
    churn_settles: float = 0.0
    took: float = 0.0
    memory: float = 0.0


def measure(nodes: int, seed: int, *, churn: float = 60.0, say: Callable[[str], None] = print) -> Row:
    """Play a mesh of so many nodes; return what was seen. ``churn``: seconds of 20% a minute."""
    row = Row(nodes)
    began = time.perf_counter()
    mesh = Mesh(seed)
    started: list[Host] = []
    for number in range(nodes):
        mesh.at(number / nodes, _start, mesh, started, f"n{number}")
    assert mesh.run(120.0, mesh.complete, 0.1), "no full view within two minutes"
    row.full_view = mesh.now
    say(f"{nodes} nodes: full view after {row.full_view:.1f} s ({time.perf_counter() - began:.0f} s here)")
    mesh.run(45.0)  # links of the first, when the mesh was still small, are closed by then

    frames, sent = mesh.frames, mesh.bytes
    mesh.run(10.0)
    row.frames = (mesh.frames - frames) / nodes / 10
    row.bytes = (mesh.bytes - sent) / nodes / 10
    row.links = 2 * len(mesh.links) / nodes
    say(f"  idle: {row.links:.1f} links, {row.frames:.0f} frames and {row.bytes:.0f} bytes a node and second")

    row.crash_first, row.crash_all = _death(mesh, silent=False)
    row.silent_first, row.silent_all = _death(mesh, silent=True)
    say(f"  a crash is known to be one after {row.crash_first:.2f} to {row.crash_all:.2f} s")
    say(f"  a host that falls silent after {row.silent_first:.2f} to {row.silent_all:.2f} s")

    mesh.deaths.clear()
    end = mesh.now + 30.0
    for host in mesh.random.sample(mesh.alive(), max(1, nodes // 20)):
        mesh.at(mesh.random.random(), _stall, mesh, host, end)
    mesh.run(35.0)
    row.stalled_false = mesh.false_deaths()
    say(f"  5% stalled for 1 to 3 s again and again, 30 s: {row.stalled_false} false deaths")

    mesh.deaths.clear()
    _churn(mesh, churn, row)
    row.churn_false = mesh.false_deaths()
    before = mesh.now
    assert mesh.run(60.0, mesh.complete, 0.1), "no agreement within a minute of the churn"
    row.churn_settles = mesh.now - before
    say(
        f"  20% churn a minute: {100 * row.churn_known:.2f}% known, {row.churn_ghosts:.1f} ghosts a node, "
        f"{row.churn_false} false deaths; agreement {row.churn_settles:.1f} s after"
    )
    row.took = time.perf_counter() - began
    row.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"  {mesh.now:.0f} simulated seconds, {mesh.events} events in {row.took:.0f} s, {row.memory:.0f} MB")
    return row


def _start(mesh: Mesh, started: list[Host], name: str) -> None:
    seeds = mesh.random.sample(started, 1) if started else []
    host = mesh.start(name, seeds)
    started.append(host)
    if len(started) % 10 == 0:
        cluster = f"c{len(started) // 10 % CLUSTERS}"
        host.node._records.claim(Claim(1, cluster=cluster, patterns=1))


def _death(mesh: Mesh, *, silent: bool) -> tuple[float, float]:
    mesh.deaths.clear()
    host = mesh.random.choice(mesh.alive())
    host.stop(silent=silent)
    at = mesh.now
    mesh.run(10.0, lambda: len({who for _, who, node in mesh.deaths if node == host.id}) >= len(mesh.alive()), 0.01)
    times = [when - at for when, _, node in mesh.deaths if node == host.id]
    assert len(times) >= len(mesh.alive()), "not everybody knows of a death within 10 s"
    return min(times), max(times)


def _stall(mesh: Mesh, host: Host, end: float) -> None:
    if mesh.now < end and host.alive:
        seconds = mesh.random.uniform(1.0, 2.9)
        host.hold(seconds)
        mesh.at(seconds + mesh.random.uniform(0.2, 2.0), _stall, mesh, host, end)


def _churn(mesh: Mesh, seconds: float, row: Row) -> None:
    """Every minute a fifth of the nodes die, and as many come."""
    nodes = len(mesh.alive())
    names = count()
    known: list[float] = []
    ghosts: list[float] = []
    times = max(1, int(nodes * 0.2 * seconds / 60))
    for number in range(times):
        mesh.run(seconds / times)
        if number % max(1, times // 20) == 0:
            alive = mesh.alive()
            there = {host.id for host in alive}
            some = mesh.random.sample(alive, min(50, len(alive)))
            views = [host.node.membership.view.present.keys() for host in some]
            known += [len(there & view) / len(there) for view in views]
            ghosts += [len(view - there) for view in views]
        mesh.random.choice(mesh.alive()).stop(silent=mesh.random.random() < 0.5)
        mesh.start(f"x{next(names)}", mesh.random.sample(mesh.alive(), 1))
    row.churn_known = sum(known) / max(1, len(known))
    row.churn_ghosts = sum(ghosts) / max(1, len(ghosts))


def trace(nodes: int, seed: int, seconds: float) -> str:
    """Everything that is sent in the life of a mesh, for comparison."""
    mesh = Mesh(seed, limit=16)
    lines: list[str] = []
    sent = mesh.sent

    def note(size: int) -> None:
        lines.append(f"{mesh.now:.6f} {size}")
        sent(size)

    mesh.sent = note  # type: ignore[method-assign]
    started: list[Host] = []
    for number in range(nodes):
        mesh.at(number / nodes, _start, mesh, started, f"n{number}")
    mesh.run(seconds / 2)
    mesh.random.choice(mesh.alive()).stop(silent=True)
    mesh.run(seconds / 2)
    return "\n".join(lines)


def records_shared() -> Any:
    """Decode a record once for all nodes of the process."""
    return mock.patch("irisd.node.records.decode_record", lru_cache(maxsize=1 << 16)(decode_record))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.scale", description="How a large mesh behaves.")
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--churn", type=float, default=60.0, help="seconds of 20%% churn a minute")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    gc.disable()  # nothing here is garbage before the end
    with records_shared():
        for nodes in options.nodes:
            row = measure(nodes, options.seed, churn=options.churn, say=_quiet if options.json else print)
            if options.json:
                print(json.dumps(asdict(row)), flush=True)


def _quiet(line: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    main()
