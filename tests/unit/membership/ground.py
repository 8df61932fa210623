"""One node's membership with its node worn by the test, or a few that hear each other; no event loop, no real time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from irisd.effects import Buffer, Cause
from irisd.membership import Known, Membership, MembershipSettings
from irisd.membership.rounds import Beat, encode_answer, encode_question
from irisd.model import NodeId, NodeRecord, State
from irisd.wire.views import Belief, Saying

START = 1000.0


def id_of(number: int) -> NodeId:
    return number.to_bytes(2) + bytes(14)


def record_of(number: int, incarnation: int = 1) -> NodeRecord:
    return NodeRecord(id_of(number), incarnation, f"n{number}", addresses=(f"10.0.0.{number}:7511",))


class FakePort:
    """Writes down whatever membership asks for."""

    def __init__(self) -> None:
        self.sent: list[tuple[NodeId, bytes]] = []
        self.told: list[tuple[NodeId, Belief]] = []
        self.unlinked: list[tuple[NodeId, str, Cause]] = []
        self.found: list[NodeId] = []
        self.refutals = 0
        self.passed: list[tuple[NodeId, NodeId]] = []
        self.differed: list[tuple[NodeId, tuple[int, ...]]] = []
        self.stepped: list[NodeId] = []
        self.changes: list[tuple[NodeId, State | None, State, str]] = []
        self.reaches = 0

    def control(self, node: NodeId, parts: tuple[Buffer, ...]) -> None:
        self.sent.append((node, b"".join(parts)))

    def tell(self, nodes: list[NodeId], beliefs: list[Belief]) -> None:
        self.told += [(node, belief) for node in nodes for belief in beliefs]

    def unlink(self, node: NodeId, reason: str, cause: Cause) -> None:
        self.unlinked.append((node, reason, cause))

    def find(self, node: NodeId) -> None:
        self.found.append(node)

    def refuted(self, incarnation: int) -> None:
        self.refutals += 1

    def pass_on(self, node: NodeId, to: NodeId) -> None:
        self.passed.append((node, to))

    def differs(self, node: NodeId, buckets: tuple[int, ...]) -> None:
        self.differed.append((node, buckets))

    def in_step(self, node: NodeId) -> None:
        self.stepped.append(node)

    def changed(self, known: Known, before: State | None, reason: str) -> None:
        self.changes.append((known.record.node_id, before, known.state, reason))

    def reach_changed(self) -> None:
        self.reaches += 1

    def told_about(self, node: NodeId) -> list[tuple[NodeId, Saying]]:
        return [(to, Saying(belief.saying)) for to, belief in self.told if belief.node == node]

    def states(self, node: NodeId) -> list[State]:
        return [state for who, _, state, _ in self.changes if who == node]


class Watcher:
    """A node's membership, number 1. ``present`` are peers that answer and ask in time.

    Args:
        limit: The largest full mesh.
        port: Where its words go.
    """

    def __init__(self, number: int = 1, *, limit: int = 64, port: FakePort | None = None, interval: float = 1.0):
        self.number = number
        self.now = START
        self.port = port or FakePort()
        self.counts: Counter[str] = Counter()
        self.m = Membership(
            record_of(number), 0, MembershipSettings(interval, limit), self.port, Random(number), self.counts, self.now
        )
        self.lively: set[int] = set()
        self._questions = 0
        self._seen = 0

    def link(self, number: int, *, dialled: bool | None = True, speaks: bool = True, version: int = 0) -> NodeId:
        """Link a peer that is lively, and take its record in."""
        record = record_of(number)
        self.m.link_up(record.node_id, record, dialled, speaks=speaks, now=self.now)
        if self.m.is_present(record.node_id):
            self.m.recorded(record.node_id, record, version, record.node_id, self.now)
        self.lively.add(number)
        return record.node_id

    def learn(self, number: int, by: int, *, incarnation: int = 1, version: int = 0) -> NodeId:
        """A record that is passed on."""
        record = record_of(number, incarnation)
        self.m.recorded(record.node_id, record, version, id_of(by), self.now)
        return record.node_id

    def down(self, number: int, *, left: bool = False, idle: bool = False) -> None:
        self.lively.discard(number)
        self.m.link_down(id_of(number), "test", self.now, left=left, idle=idle)

    def believed(self, sender: int, *beliefs: Belief) -> None:
        self.m.believed(id_of(sender), list(beliefs), self.now)

    def wait(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        """Let time pass; whoever is lively answers at once, and asks whenever this node asks."""
        until = self.now + seconds
        while (deadline := self.m.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.m.on_deadline(self.now)
            self.breathe()
            each()
        self.now = until

    def breathe(self) -> None:
        """Whoever is lively answers what was asked; those who dialled this node ask."""
        sent, self._seen = self.port.sent[self._seen :], len(self.port.sent)
        for node, message in sent:
            pulse = self.m.heart.pulses.get(node)
            if int.from_bytes(node[:2]) in self.lively and pulse is not None and pulse.asks:
                self.answer(node, message)
        for node, pulse in list(self.m.heart.pulses.items()):
            if int.from_bytes(node[:2]) in self.lively and not pulse.asks:
                self.question(node)
        self._seen = len(self.port.sent)

    def answer(self, node: NodeId, asked: bytes, *, digest: int | None = None) -> None:
        number = int.from_bytes(asked[9:17])
        beat = Beat(1, 0, self.m.view.digest if digest is None else digest)
        self.m.control_received(node, asked[:4] + encode_answer(number, beat, None), self.now)

    def question(self, node: NodeId, *, interval: float = 1.0, digest: int | None = None, health: int = 0) -> None:
        self._questions += 1
        beat = Beat(1, health, self.m.view.digest if digest is None else digest)
        survey = (0x8000_0000 | self._questions).to_bytes(4)
        self.m.control_received(node, survey + encode_question(interval, self._questions, beat), self.now)

    def state(self, number: int) -> State | None:
        return self.m.state(id_of(number))


class Ring(FakePort):
    """The port of a node in a :class:`Few`."""

    def __init__(self, few: Few, number: int) -> None:
        super().__init__()
        self._few = few
        self._number = number

    def control(self, node: NodeId, parts: tuple[Buffer, ...]) -> None:
        super().control(node, parts)
        message = b"".join(parts)
        self._few.carry(self._number, node, lambda far: far.m.control_received(id_of(self._number), message, far.now))

    def tell(self, nodes: list[NodeId], beliefs: list[Belief]) -> None:
        super().tell(nodes, beliefs)
        for node in nodes:
            self._few.carry(self._number, node, lambda far: far.believed(self._number, *beliefs))

    def unlink(self, node: NodeId, reason: str, cause: Cause) -> None:
        super().unlink(node, reason, cause)
        self._few.unlink(self._number, int.from_bytes(node[:2]))


class Few:
    """Several nodes, all linked with all (the lower dials), whose words arrive at once.

    Attributes:
        deaf: (from, to) whose words are lost.
        stopped: Nodes that do nothing and hear nothing.
    """

    def __init__(self, count: int) -> None:
        self.now = START
        self.nodes = {number: Watcher(number, port=Ring(self, number)) for number in range(1, count + 1)}
        self.deaf: set[tuple[int, int]] = set()
        self.stopped: set[int] = set()
        self.links: set[frozenset[int]] = set()
        self._words: list[tuple[int, Callable[[Watcher], None]]] = []
        for low in self.nodes:
            for high in self.nodes:
                if low < high:
                    self.links.add(frozenset((low, high)))
                    self.nodes[low].link(high)
                    self.nodes[high].link(low, dialled=False)
        self.settle()

    def carry(self, source: int, node: NodeId, word: Callable[[Watcher], None]) -> None:
        far = int.from_bytes(node[:2])
        if frozenset((source, far)) in self.links and (source, far) not in self.deaf:
            self._words.append((far, word))

    def unlink(self, one: int, other: int) -> None:
        if frozenset((one, other)) in self.links:
            self.links.discard(frozenset((one, other)))
            for end, far in ((one, other), (other, one)):
                if end not in self.stopped:
                    self._words.append((end, lambda node, far=far: node.down(far)))  # type: ignore[misc]

    def settle(self) -> None:
        while self._words:
            far, word = self._words.pop(0)
            if far not in self.stopped:
                word(self.nodes[far])

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            due = [
                (deadline, number)
                for number, node in self.nodes.items()
                if number not in self.stopped and (deadline := node.m.next_deadline()) is not None
            ]
            if not due or min(due)[0] > until:
                break
            deadline, number = min(due)
            self.now = max(self.now, deadline)
            for node in self.nodes.values():
                node.now = self.now
            self.nodes[number].m.on_deadline(self.now)
            self.settle()
        self.now = until
        for node in self.nodes.values():
            node.now = until

    def states_of(self, number: int) -> dict[int, State | None]:
        return {at: node.state(number) for at, node in self.nodes.items() if at != number and at not in self.stopped}
