"""Membership (pure): what this node believes of every other, and why.

Three sources, from strong to weak: what it hears itself, over links, by
heartbeats (:class:`~irisd.membership.heart.Heart`); what others say they hear
or do not; and records passed on. Routing is not decided here: a node may be
believed alive and yet not be linked.

Invariants:
    - a node is present or gone, never both; this node is always present
    - nobody is dead before :data:`~irisd.membership.suspicion.LEAST` intervals of silence on this node's awake time,
      unless somebody else says so of the incarnation this node knows
    - a belief about this node itself that is not true raises its incarnation
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Final

from irisd.effects import Cause
from irisd.membership.beliefs import Beliefs, Port
from irisd.membership.health import Health
from irisd.membership.heart import Heart
from irisd.membership.pulse import Pulse
from irisd.membership.rings import watchers
from irisd.membership.rounds import Beat
from irisd.membership.suspicion import FAR_HELPERS, HELPERS, RELAPSE, Suspicion
from irisd.membership.view import MAX_JUMP, UNRECORDED, Known, Verdict
from irisd.model import NodeId, NodeRecord, State
from irisd.wire.views import Belief, Saying

SILENT: Final = 5.0
"""Intervals of silence after which a link is given up, whatever others say of the node."""
FRESH: Final = 1.5
"""Whoever heard a node within so many intervals vouches for it."""
UNLINKED: Final = 3.0
"""Intervals after which others are asked about a node that this one should watch and has no link with."""
MAX_CURIOUS: Final = 64
"""Most others that wait for one answer of a node."""
_CHECKS: Final = 4
"""How often an interval silence is looked at; four times as often while somebody is suspected."""


@dataclass(frozen=True, slots=True)
class MembershipSettings:
    """How a node watches.

    Attributes:
        interval: Seconds between two heartbeats.
        full_mesh_limit: Up to so many nodes everybody watches everybody.
    """

    interval: float = 1.0
    full_mesh_limit: int = 64


class Membership:
    """Heartbeats, gossip and verdicts of one node.

    Args:
        own: This node's record.
        version: Of its claims.
        settings: How it watches.
        port: The node.
        rng: Source of chance: the phase of rounds, survey ids, whom to ask.
        counts: Where drops are counted.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        own: NodeRecord,
        version: int,
        settings: MembershipSettings,
        port: Port,
        rng: Random,
        counts: Counter[str],
        now: float,
    ) -> None:
        interval = settings.interval
        self.own = own.node_id
        self.health = Health(interval)
        self.heart = Heart(interval, rng.getrandbits(31), port.control, self._beat, lambda: self.view.buckets, counts)
        self.beliefs = Beliefs(own, version, self.heart, self.health, port, interval, settings.full_mesh_limit, now)
        self.view = self.beliefs.view
        self.rings = self.beliefs.rings
        self._settings = settings
        self._port = port
        self._rng = rng
        self._counts = counts
        self._next_round = now + rng.random() * settings.interval
        self._next_check = math.inf
        self._refuted = -math.inf

    # -- what is believed

    @property
    def spread(self) -> bool:
        """Whether the mesh is too large for everybody to be linked with everybody."""
        return self.beliefs.spread

    def is_present(self, node: NodeId) -> bool:
        """Whether a node is believed to be there."""
        return node in self.view.present

    def state(self, node: NodeId) -> State | None:
        """What is believed of a node; None if it is not known."""
        known = self.view.known(node)
        return None if known is None else known.state

    def is_linked(self, node: NodeId) -> bool:
        """Whether there is a link with a node."""
        return self.beliefs.is_linked(node)

    def compares(self, node: NodeId) -> bool:
        """Whether views are compared with this peer, by heartbeats."""
        pulse = self.heart.pulses.get(node)
        return pulse is not None and pulse.speaks

    def watches(self, node: NodeId) -> bool:
        """Whether this node is to watch that one, and so to keep a link with it."""
        return not self.spread or node in self.rings.neighbours

    def spreads_to(self, node: NodeId) -> bool:
        """Whether what others say of themselves is passed on to this peer."""
        return self.spread and self.rings.spreads_to(node)

    def wants(self, node: NodeId) -> bool:
        """Whether to dial a node that discovery knows of: those to watch, those to be watched again, strangers."""
        if node in self.view.present:
            return self.watches(node)
        return not self.spread or node not in self.view.gone or self.rings.would_be_near(node)

    # -- links

    def link_up(self, node: NodeId, record: NodeRecord, dialled: bool | None, *, speaks: bool, now: float) -> None:
        """A link is settled.

        Args:
            node: With whom.
            record: What its handshake said.
            dialled: Whether this side did, and so asks; None: the edge watches the link itself.
            speaks: Whether the peer knows more than heartbeats.
            now: When.
        """
        if dialled is None:
            self.beliefs.unwatched.add(node)
        else:
            self.heart.link_up(node, asks=dialled, speaks=speaks, now=now, awake=self._awake(now))
        known = self.view.known(node)
        if known is not None and known.state >= State.DEAD and speaks:
            saying = Saying.DEAD if known.state is State.DEAD else Saying.LEFT
            self._port.tell([node], [Belief(node, known.record.incarnation, saying)])  # it will refute this
        elif known is None or known.state >= State.DEAD:
            self.beliefs.enter(Known(record, UNRECORDED, State.ALIVE, now, self.own), None, "linked", now)
        else:
            self.beliefs.hear(node, now, "linked")
        self._arm(now)  # there is somebody to watch, if only until it has refuted

    def link_down(self, node: NodeId, reason: str, now: float, *, left: bool = False, idle: bool = False) -> None:
        """A link has ended.

        Args:
            node: With whom.
            reason: Why, in a few words.
            now: When.
            left: The node said goodbye.
            idle: Nobody needed the link.
        """
        self.heart.link_down(node)
        self.beliefs.unwatched.discard(node)
        if node not in self.view.present:
            return
        if left:
            self.beliefs.bury(node, State.LEFT, reason, now)
        elif not idle:
            self.beliefs.suspect(node, self._awake(now), reason, now)
        self._arm(now)

    def heard(self, node: NodeId, now: float) -> None:
        """Frames came over a link."""
        pulse = self.heart.pulses.get(node)
        if pulse is not None:
            pulse.hear(self._awake(now))
        if node in self.beliefs.suspicions:
            self.beliefs.hear(node, now, "heard")

    def control_received(self, node: NodeId, message: bytes, now: float) -> None:
        """A message of a link's control connection.

        Raises:
            WireError: It is no heartbeat.
        """
        pulse = self.heart.pulses.get(node)
        if pulse is None:
            return
        heard = self.heart.received(node, message, now, self._awake(now))
        if heard is None:
            return
        self.beliefs.hear(node, now, "heard")
        if pulse.curious and heard.answered:
            self._vouch(list(pulse.curious), node, 0.0)
            pulse.curious.clear()
        beat = heard.beat
        if beat is None:
            return
        pulse.health = beat.health
        if beat.digest == self.view.digest:
            self._port.in_step(node)
        elif heard.buckets is not None:
            self._port.differs(node, heard.buckets)

    def probe(self, node: NodeId, now: float) -> None:
        """Ask a peer now, if this side asks."""
        pulse = self.heart.pulses.get(node)
        if pulse is not None and pulse.asks:
            self.heart.ask([node], now, self._awake(now))

    # -- records

    def judge(self, node: NodeId, about: NodeRecord | None, base: int, version: int, *, full: bool) -> Verdict:
        """What to make of a record; see :meth:`View.judge`."""
        return self.view.judge(node, about, base, version, full=full)

    def recorded(self, node: NodeId, about: NodeRecord | None, version: int, by: NodeId, now: float) -> None:
        """A record that is news was taken in; ``by`` sent it."""
        known = self.view.present.get(node)
        if known is None:
            assert about is not None, "a first record says what the node is"
            direct = self.is_linked(node)
            state = State.ALIVE if direct or self.spread else State.JOINING
            before = self.state(node)
            back = "it is back" if before is not None else "its record came"
            self.beliefs.enter(Known(about, version, state, now, by), before, back, now)
            self._arm(now)
            return
        refuted = about is not None and about.incarnation > known.record.incarnation
        moved = about is not None and about.addresses != known.record.addresses
        self.view.update(known, about or known.record, version)
        if moved and self.watches(node):  # linked or not: the next link is made there
            self._port.find(node)
        if refuted and node in self.beliefs.suspicions:
            self.beliefs.vouched(node, by, self._awake(now), now)

    def own_recorded(self, record: NodeRecord, version: int) -> None:
        """This node's own record has changed."""
        self.view.update(self.view.present[self.own], record, version)

    # -- what others believe

    def believed(self, sender: NodeId, beliefs: list[Belief], now: float) -> None:
        """What a peer says of others."""
        for belief in beliefs:
            node, saying = belief.node, belief.saying
            if node == self.own:
                if saying in (Saying.DEAD, Saying.LEFT):
                    self._accused(belief.incarnation, now)
                continue
            known = self.view.known(node)
            if known is None or belief.incarnation > known.record.incarnation:
                self._counts["dropped.belief-unseen"] += 1  # only what its own record has shown counts
            elif belief.incarnation < known.record.incarnation:
                if known.state < State.DEAD:
                    self._port.pass_on(node, sender)
            elif saying in (Saying.DEAD, Saying.LEFT):
                self._told_gone(sender, known, State(saying), now)
            elif known.state < State.DEAD:
                self._told_heard(sender, node, belief, now)

    def _accused(self, incarnation: int, now: float) -> None:
        """This node is taken for dead: outbid that, at most once an interval; who still believes it says so again."""
        ahead = incarnation - self.beliefs.incarnation(self.own)
        if ahead < 0 or now - self._refuted < self._settings.interval:
            return
        if ahead >= MAX_JUMP:  # nobody would believe what outbids it
            self._counts["dropped.belief-unseen"] += 1
            return
        self._refuted = now
        self.health.worse()
        self._port.refuted(incarnation)

    def _told_gone(self, sender: NodeId, known: Known, state: State, now: float) -> None:
        node = known.record.node_id
        if known.state >= state:
            return
        if known.state is State.DEAD:  # and now it is known to have left
            known.state = State.LEFT
            self._port.changed(known, State.DEAD, f"said by {self.beliefs.name(sender)}")
            return
        pulse = self.heart.pulses.get(node)
        awake = self._awake(now)
        if state is State.DEAD and pulse is not None and pulse.age(awake) < 2 * pulse.interval:
            # This node hears it: let it refute, for all who believe otherwise.
            self._port.tell([node], [Belief(node, known.record.incarnation, Saying.DEAD)])
            return
        self.beliefs.bury(node, state, f"said by {self.beliefs.name(sender)}", now, sender)

    def _told_heard(self, sender: NodeId, node: NodeId, belief: Belief, now: float) -> None:
        awake = self._awake(now)
        suspicion = self.beliefs.suspicions.get(node)
        if belief.saying == Saying.HEARD:
            if suspicion is not None:
                self.beliefs.vouched(node, sender, awake - belief.age, now)
            return
        if suspicion is not None and belief.saying in (Saying.SILENT, Saying.ASK):
            suspicion.confirmed.add(sender)
        if belief.saying != Saying.ASK:
            return
        pulse = self.heart.pulses.get(node)
        if pulse is not None and pulse.age(awake) <= FRESH * pulse.interval:
            self._vouch([sender], node, pulse.age(awake))
            return
        if pulse is not None and pulse.asks:
            if len(pulse.curious) < MAX_CURIOUS:
                pulse.curious[sender] = None
                if pulse.asked_at is None:  # else a question is on its way already
                    self.heart.ask([node], now, awake)
            else:
                self._counts["dropped.too-many-ask"] += 1
        if suspicion is not None and not suspicion.voucher:
            age = max(0.0, awake - suspicion.since)
            self._port.tell([sender], [Belief(node, belief.incarnation, Saying.SILENT, age)])

    def _vouch(self, to: list[NodeId], node: NodeId, age: float) -> None:
        self._port.tell(to, [Belief(node, self.beliefs.incarnation(node), Saying.HEARD, age)])

    # -- time

    def next_deadline(self) -> float | None:
        """When :meth:`on_deadline` has something to do."""
        return None if self._next_check == math.inf else self._next_check

    def on_deadline(self, now: float) -> None:
        """Ask, look for silence, decide. Early calls do nothing."""
        if now < self._next_check:
            return
        awake = self._awake(now)
        interval = self._settings.interval
        if now >= self._next_round:
            if self.heart.round(now, awake):
                self.health.better(now)
            self._next_round += interval * math.ceil((now - self._next_round + 1e-9) / interval)
            self._look_after(now, awake)
        stretch = self.health.stretch
        for node, pulse in list(self.heart.pulses.items()):
            if pulse.is_suspect(awake, stretch):
                self._silent(node, pulse, now, awake, stretch)
        for node, suspicion in list(self.beliefs.suspicions.items()):
            self._pursue(node, suspicion, now, awake, stretch)
        self._next_check = math.inf
        self._arm(now)

    def _awake(self, now: float) -> float:
        """Now, on the clock that stands still while this node is held up; it finds that out by checks that are late."""
        if now > self._next_check:
            self.health.on_time(self._next_check, now)
            self._next_check = now
        return self.health.awake(now)

    def _arm(self, now: float) -> None:
        present = self.view.present
        if not self.heart.pulses and len(present) - 1 <= sum(node in present for node in self.beliefs.unwatched):
            self._next_check = math.inf  # nobody to watch
            return
        often = 4 * _CHECKS if self.beliefs.suspicions else _CHECKS
        if self._next_check == math.inf and self._next_round < now:
            self._next_round = now + self._rng.random() * self._settings.interval
        self._next_check = min(self._next_check, now + self._settings.interval / often, max(now, self._next_round))

    def _look_after(self, now: float, awake: float) -> None:
        """Once a round: whom nobody has to watch here is not asked about, whom somebody has to is looked for."""
        self.view.expire(now)
        suspicions = self.beliefs.suspicions
        for node, suspicion in list(suspicions.items()):
            others_hear = suspicion.voucher and self.view.present[node].state is State.ALIVE
            if others_hear and not self.watches(node) and not self.is_linked(node):
                del suspicions[node]  # its watchers will tell
        for node in self._to_watch():
            known = self.view.present.get(node)
            if known is None or node == self.own or self.is_linked(node):
                continue
            if now - known.since >= UNLINKED * self._settings.interval:
                if node not in suspicions:
                    suspicions[node] = Suspicion(awake, awake, self._settings.interval)
                self._port.find(node)

    def _to_watch(self) -> list[NodeId]:
        return list(self.rings.neighbours if self.spread else self.view.present)

    def _silent(self, node: NodeId, pulse: Pulse, now: float, awake: float, stretch: float) -> None:
        silence = pulse.silence(awake)
        known = self.view.present.get(node)
        if silence >= SILENT * stretch * pulse.interval:
            self._port.unlink(node, f"nothing heard for {silence:.1f} s", Cause.SILENT)
        elif known is not None and node not in self.beliefs.suspicions:
            self.beliefs.suspect(node, awake - silence, f"silent for {silence:.1f} s", now)

    def _pursue(self, node: NodeId, suspicion: Suspicion, now: float, awake: float, stretch: float) -> None:
        """Ask others about a suspect, and decide."""
        interval = self._settings.interval
        known = self.view.present[node]
        silence = awake - suspicion.since
        if silence >= suspicion.timeout() * stretch:
            why = f"not heard for {silence:.1f} s, by {1 + len(suspicion.confirmed & suspicion.asked)}"
            self.beliefs.bury(node, State.DEAD, why, now)
            return
        if suspicion.voucher and silence >= RELAPSE * suspicion.interval and known.state is State.ALIVE:
            suspicion.voucher = b""
            self.beliefs.set(node, State.SUSPECT, "nobody hears it any more", now)
        if awake >= suspicion.next_ask:
            suspicion.next_ask = awake + interval
            helpers = self._helpers(node, suspicion)
            suspicion.asked |= set(helpers)
            if helpers:
                belief = Belief(node, known.record.incarnation, Saying.ASK, max(0.0, silence))
                self._port.tell(helpers, [belief])

    def _helpers(self, node: NodeId, suspicion: Suspicion) -> list[NodeId]:
        """Others who should hear a node: its other watchers, those that vouched first."""
        pulses = self.heart.pulses
        if self.spread:
            others = [other for other in watchers(node, self.view.present) if other != self.own]
        else:
            others = [other for other, pulse in pulses.items() if pulse.speaks and other != node]
        sound = [other for other in others if other not in self.beliefs.suspicions]
        most = FAR_HELPERS if self.spread else HELPERS
        chosen = self._rng.sample(sound, min(most, len(sound)))
        if suspicion.voucher in sound and suspicion.voucher not in chosen:
            chosen[0] = suspicion.voucher
        return chosen

    def _beat(self) -> Beat:
        return Beat(self.beliefs.incarnation(self.own), self.health.score, self.view.digest)
