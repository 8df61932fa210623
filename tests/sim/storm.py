"""Random lives of a mesh: what happens when, and what must be true meanwhile and afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from hypothesis import strategies as st

from irisd.effects import Effect
from irisd.membership.heart import MAX_SURVEYS
from irisd.membership.view import View
from irisd.model import Claim, Frame, Kind, NodeId, State
from irisd.node import Node
from irisd.wire.views import Belief, Saying, encode_beliefs
from tests.sim.weather import Sky, Station, Wire, group_of, sky_is_clear

LOOK = 0.25
"""Seconds between two looks at everything; the cheap checks are made at every step."""
AFTERWARDS = 15.0
KNOWN_WITHIN = 5.0
PROPAGATION = 0.5
GRACE = 15.0
"""Seconds after a cut in which those it had set apart may still be called dead: news travel, refutations follow."""
MOST_NODES = 28
POSTED = 30.0
POSTED_PER_LINK = 10.0
"""Messages a node may send in a second."""


@dataclass(frozen=True)
class Happening:
    """Something that happens. ``a`` and ``b`` say to whom, ``x`` (0 to 1) how long or how much."""

    at: float
    what: str
    a: int = 0
    b: int = 0
    x: float = 0.5


@dataclass(frozen=True)
class Plan:
    """The life of a mesh."""

    seed: int
    nodes: int
    limit: int
    happenings: tuple[Happening, ...]


def plan_of(seed: int) -> Plan:
    """A plan, from a seed."""
    random = Random(seed)
    nodes = random.choice([2, 3, 3, 4, 5, 5, 6, 7, 8, 9, 10, 12, random.randint(2, 24)])
    limit = random.choice([64, 64, 4, 8])
    seconds = random.choice([5.0, 15.0, 30.0])
    kinds = random.sample(KINDS, random.randint(1, len(KINDS)))  # few kinds, often: more happens than of all, rarely
    times = sorted(random.uniform(0.0, seconds) for _ in range(random.randint(1, 25)))
    happenings = (
        Happening(round(at, 3), random.choice(kinds), random.randrange(64), random.randrange(64), random.random())
        for at in times
    )
    return Plan(seed, nodes, limit, tuple(happenings))


def plans() -> st.SearchStrategy[Plan]:
    """Plans to be shrunk."""
    happening = st.builds(
        Happening,
        at=st.integers(0, 250).map(lambda tenths: tenths / 10),
        what=st.sampled_from(KINDS),
        a=st.integers(0, 23),
        b=st.integers(0, 23),
        x=st.integers(0, 8).map(lambda eighths: eighths / 8),
    )
    return st.builds(
        Plan,
        seed=st.integers(0, 1000),
        nodes=st.integers(2, 10),
        limit=st.sampled_from([64, 4, 8]),
        happenings=st.lists(happening, min_size=1, max_size=12).map(
            lambda some: tuple(sorted(some, key=lambda happening: happening.at))
        ),
    )


class Storm:
    """One life of a mesh.

    Args:
        plan: What happens.
        label: What to print when something fails.
    """

    def __init__(self, plan: Plan, label: str = "") -> None:
        self.plan = plan
        self.sky = Sky(plan.seed, limit=plan.limit, label=label or f"seed {plan.seed}")
        self.random = Random(plan.seed + 1)
        self.sky.check = self.check
        self.sky.buried = self.buried
        self.weather = True
        self.began = 0.0
        self.cut = -GRACE  # until when the network is not whole
        self.incarnations: dict[tuple[NodeId, NodeId], int] = {}
        self.marks: dict[NodeId, int] = {}

    # -- playing

    def run(self) -> Storm:
        """Play it all."""
        try:
            return self._run()
        except AssertionError as error:
            if str(error).startswith(self.sky.label):
                raise
            self.sky.fail(f"{type(error).__name__}: {error}")
        except (ArithmeticError, LookupError, AttributeError, TypeError, ValueError) as error:
            self.sky.trace.append(f"{type(error).__name__}: {error}")
            tail = "\n".join(self.sky.trace[-40:])
            raise AssertionError(f"{self.sky.label} at {self.sky.now:.4f} s:\n{tail}") from error

    def _run(self) -> Storm:
        sky, plan = self.sky, self.plan
        self.grow()
        self.began = sky.now
        end = max((happening.at for happening in plan.happenings), default=0.0)
        for happening in plan.happenings:
            sky.at(happening.at, self.happen, happening)
        sky.run(end + 1.0)
        self.quiet()
        return self

    def grow(self) -> None:
        """Start all stations and let them agree."""
        sky = self.sky
        for number in range(self.plan.nodes):
            sky.at(number * 0.05, self.start, f"n{number}")
        sky.at(0.0, self._look)
        sky.run(6.0)
        self.agree()

    def quiet(self) -> None:
        """The weather clears; soon everybody knows the same of everybody."""
        sky = self.sky
        self.weather = False
        sky.note("the weather clears")
        sky.clear()
        held = max(station.held_until for station in sky.hosts.values())
        sky.run(max(0.0, held - sky.now))
        self._bridge()
        sky.run(AFTERWARDS)
        self.agree()

    def _is_troubled(self, station: Station) -> bool:
        return station.troubled_until + GRACE >= self.sky.now

    def start(self, name: str, address: str = "") -> None:
        """Start a station that knows some of those that are up."""
        up = self.sky.up()
        seeds = [other.address for other in self.random.sample(up, min(3, len(up)))]
        self.sky.begin(name, seeds, address)

    def _bridge(self) -> None:
        """Stations that have never heard of each other are told, as by multicast; those that have find each other."""
        up = self.sky.up()
        component = {station.id: station.id for station in up}

        def root(node: NodeId) -> NodeId:
            while component[node] != node:
                node = component[node]
            return node

        for station in up:
            for candidate in station.candidates.values():
                far = self.sky.where.get(candidate.address)
                if far is not None and far.alive and candidate.expected in (b"", far.id):
                    component[root(station.id)] = root(far.id)
        first = up[0]
        for station in up[1:]:
            if root(station.id) != root(first.id):
                self.sky.note(f"{station} is told of {first}")
                station.hear_of(first.address, b"")
                component[root(station.id)] = root(first.id)

    def happen(self, happening: Happening) -> None:
        up = self.sky.up()
        a = up[happening.a % len(up)]
        others = [station for station in up if station is not a]
        b = others[happening.b % len(others)] if others else a
        self.sky.note(f"-- {happening.what} {a} {b} {happening.x:.3f}")
        _DOES[happening.what](self, a, b, happening.x)

    # -- what happens

    def hold(self, a: Station, b: Station, x: float) -> None:
        a.hold(0.5 + 7.5 * x)

    def slow(self, a: Station, b: Station, x: float) -> None:
        self._stall(a, self.sky.now + 4.0 + 16.0 * x)

    def _stall(self, a: Station, until: float) -> None:
        if a.alive and self.weather and self.sky.now < until:
            seconds = self.random.uniform(1.0, 2.9)
            a.hold(seconds)
            self.sky.at(seconds + self.random.uniform(1.1, 3.0), self._stall, a, until)

    def partition(self, a: Station, b: Station, x: float) -> None:
        sky = self.sky
        seconds = 1.0 + 19.0 * x
        group = group_of(a.number * 64 + b.number, 2 + (a.number + b.number) % 2)
        groups = {group(station) for station in sky.up()}
        sky.note(" | ".join(" ".join(map(str, (s for s in sky.up() if group(s) == one))) for one in sorted(groups)))
        sky.divide(group, seconds)
        if len(groups) > 1:
            for station in sky.up():
                station.trouble(seconds)
            self._is_cut(seconds)
        for one in sorted(groups):
            first, *more = [station for station in sky.up() if group(station) == one]
            if not more and seconds > KNOWN_WITHIN + 2 * PROPAGATION:
                self._silent(first)

    def isolate(self, a: Station, b: Station, x: float) -> None:
        seconds = 5.5 + 6.0 * x
        self.sky.divide(lambda station: station is a, seconds)
        a.trouble(seconds)
        self._is_cut(seconds)
        self._silent(a)

    def one_way(self, a: Station, b: Station, x: float) -> None:
        self._cut([(a.id, b.id)], a, b, 1.0 + 20.0 * x)

    def cable(self, a: Station, b: Station, x: float) -> None:
        self._cut([(a.id, b.id), (b.id, a.id)], a, b, 0.2 + 15.0 * x)

    def _cut(self, pairs: list[tuple[NodeId, NodeId]], a: Station, b: Station, seconds: float) -> None:
        if a is not b:
            self.sky.darken(pairs, seconds)
            a.trouble(seconds)
            b.trouble(seconds)
            self._is_cut(seconds)

    def _is_cut(self, seconds: float) -> None:
        self.cut = max(self.cut, self.sky.now + seconds)

    def broken(self, a: Station, b: Station, x: float) -> None:
        """A link ends, and the network is sound."""
        wire = a.links.get(b.id)
        if wire is not None:
            wire.cut(a)

    def crash(self, a: Station, b: Station, x: float) -> None:
        if len(self.sky.up()) > 1:
            a.stop(silent=False)
            self._silent(a)

    def die(self, a: Station, b: Station, x: float) -> None:
        if len(self.sky.up()) > 1:
            a.stop(silent=True)
            self._silent(a)

    def leave(self, a: Station, b: Station, x: float) -> None:
        if len(self.sky.up()) > 1:
            if x < 0.5:
                a.do(Node.drain, self.sky.now)
            a.leave()
            self._silent(a)

    def restart(self, a: Station, b: Station, x: float) -> None:
        if len(self.sky.up()) > 1:
            a.stop(silent=x < 0.3)
            self.sky.at(0.05 + 4.0 * x, self.start, a.name, a.address)

    def more(self, a: Station, b: Station, x: float) -> None:
        for number in range(1 + int(x * 4)):
            if len(self.sky.up()) < MOST_NODES:
                self.start(f"x{len(self.sky.hosts)}.{number}")

    def fewer(self, a: Station, b: Station, x: float) -> None:
        for _ in range(1 + int(x * 3)):
            up = self.sky.up()
            if len(up) > 2:
                self.random.choice(up).stop(silent=self.random.random() < 0.5)

    def jitter(self, a: Station, b: Station, x: float) -> None:
        self.sky.jitter = 0.4 * x
        self.sky.at(2.0 + 8.0 * x, setattr, self.sky, "jitter", 0.0)

    def mischief(self, a: Station, b: Station, x: float) -> None:
        self.sky.mischief = 0.5 * x
        self.sky.at(8.0, setattr, self.sky, "mischief", 0.0)

    def lose_found(self, a: Station, b: Station, x: float) -> None:
        self.sky.loses_found = x
        self.sky.at(8.0, setattr, self.sky, "loses_found", 0.0)

    def replay(self, a: Station, b: Station, x: float) -> None:
        """What was said once is said again, by anybody."""
        for _ in range(1 + int(x * 20)):
            wire = self._some_wire(a)
            if wire is not None and self.sky.past:
                frame = self.random.choice(self.sky.past).copy()
                wire.post(a, wire.far(a), wire.far(a).frames, [frame])

    def forge(self, a: Station, b: Station, x: float) -> None:
        """Accusations of incarnations that are over, or that nobody has seen, and of nobody."""
        for _ in range(1 + int(x * 10)):
            wire = self._some_wire(a)
            if wire is None:
                return
            whom = self.random.choice(list(self.sky.hosts.values()))
            known = wire.far(a).node.membership.view.known(whom.id)
            now = whom.node.membership.view.present[whom.id].record.incarnation
            incarnation = self.random.choice([now + 1, max(0, (known.record.incarnation if known else now) - 1)])
            if whom is wire.far(a):
                incarnation = now - 1
            node = whom.id if self.random.random() < 0.9 else self.random.randbytes(16)
            saying = self.random.choice([Saying.DEAD, Saying.LEFT, Saying.SILENT, Saying.ASK])
            (body,) = encode_beliefs([Belief(node, incarnation, saying, self.random.uniform(0, 9))])
            wire.post(a, wire.far(a), wire.far(a).frames, [Frame(Kind.BELIEFS, body=body)])

    def _some_wire(self, a: Station) -> Wire | None:
        return self.random.choice(list(a.links.values())) if a.links else None

    def claim(self, a: Station, b: Station, x: float) -> None:
        claim = Claim(int(x * 3), cluster=f"c{b.number % 5}", patterns=1)  # no members: it is withdrawn
        a.do(_claim, claim, self.sky.now)

    def drain(self, a: Station, b: Station, x: float) -> None:
        a.do(Node.drain, self.sky.now)

    def move(self, a: Station, b: Station, x: float) -> None:
        a.move(f"{a.name}.{len(self.sky.trace)}")

    # -- what must be true

    def check(self, station: Station) -> None:
        """After every step of a station: what is cheap to see."""
        membership = station.node.membership
        view, beliefs = membership.view, membership.beliefs
        require = self.sky.require
        require(station.id in view.present, f"{station} is not here")
        require(view.present.keys().isdisjoint(view.gone), f"{station}: somebody is present and gone")
        require(beliefs.suspicions.keys() <= view.present.keys(), f"{station} suspects somebody who is not here")
        require(station.id not in beliefs.suspicions, f"{station} suspects itself")
        routable = station.node.core.registry._routable
        require(routable <= view.present.keys(), f"{station} routes to somebody who is not here")

    def _look(self) -> None:
        for station in self.sky.up():
            self.look(station)
        self.sky.at(LOOK, self._look)

    def look(self, station: Station) -> None:
        """Now and then: the rest."""
        node, require = station.node, self.sky.require
        core, membership = node.core, node.membership
        view = membership.view
        fresh = View(view.present[station.id].record, view.present[station.id].version, 0.0)
        for other, known in view.present.items():
            if other != station.id:
                fresh.enter(known)
        require(fresh.digest == view.digest and fresh.buckets == view.buckets, f"{station}: a wrong digest")
        require(membership.spread == (len(view.present) > self.plan.limit), f"{station}: a wrong reach")
        for other, known in (*view.present.items(), *view.gone.items()):
            key = station.id, other
            before, now = self.incarnations.get(key, 0), known.record.incarnation
            require(now >= before, f"{station}: the incarnation of {self.sky.hosts[other]} fell from {before} to {now}")
            self.incarnations[key] = now
            require((known.state < State.DEAD) == (other in view.present), f"{station}: {known.state} in its place")
            author = self.sky.hosts[other].node.membership.view.present[other].record.incarnation
            require(
                now <= author, f"{station} knows incarnation {now} of {self.sky.hosts[other]}, which is at {author}"
            )
            if other != station.id and core.registry.is_routable(other) and not membership.spread:
                peer = core.peers.get(other)
                require(
                    peer is not None and peer.linked and peer.synced, f"{station} routes to one it has no link with"
                )
        ever = len(self.sky.hosts)
        sizes = {
            "peers": (len(core.peers), ever),
            "ledgers": (len(core.ledgers), ever),
            "timers": (len(core.timers), 2 * ever + 4),
            "pulses": (len(membership.heart.pulses), ever),
            "surveys": (membership.heart._surveyor.open_count, MAX_SURVEYS),
            "wanted": (len(node._records._wanted), ever + 1),
            "gone": (len(view.gone), ever),
            "claims": (len(core.registry.nodes), ever),
            "suspects": (len(core.suspects), len(view.present)),
        }
        for what, (size, bound) in sizes.items():
            require(size <= bound, f"{station} holds {size} {what}")
        for peer in core.peers.values():
            require(
                peer.outbox.urgent_bytes <= 1 << 14, f"{station}: {peer.outbox.urgent_bytes} bytes wait for one peer"
            )
        if int(self.sky.now / LOOK) % 4 == 0:
            posted = station.posted - self.marks.get(station.id, 0)
            self.marks[station.id] = station.posted
            most = POSTED + POSTED_PER_LINK * ever
            require(posted <= most or self.sky.now < 6.0, f"{station} has sent {posted} messages in a second")

    def buried(self, who: Station, whom: Station, reason: str) -> None:
        """Somebody believes that another is dead."""
        if self.sky.now - self.cut < GRACE and (who.node.membership.spread or whom.id not in who.links):
            return  # somebody who was set apart said so, and its refutation has a way to go
        was_cut = who.cut_until + GRACE >= self.sky.now  # to have been held is no excuse
        if whom.alive and not self._is_troubled(whom) and not was_cut:
            self.sky.fail(f"{who} believes that {whom} is dead ({reason}), which was always there")

    def _silent(self, whom: Station) -> None:
        """From now on nobody hears this one: soon everybody who is well knows."""
        sky = self.sky
        since = sky.now
        if since - whom.born < KNOWN_WITHIN or sky.now < self.began:
            return
        hearing = set(whom.links) if whom.alive else {s.id for s in sky.up() if whom.id in s.node.core.peers}
        sky.at(KNOWN_WITHIN + PROPAGATION, self._must_be_known, whom, since, hearing)

    def _must_be_known(self, whom: Station, since: float, hearing: set[NodeId]) -> None:
        if not self.weather:
            return
        sky = self.sky
        well = [
            station
            for station in sky.up()
            if station is not whom and station.unsteady_until < since - 2.0 and station.born < since - KNOWN_WITHIN
        ]
        tellers = [s for s in well if s.id in hearing and s.node.membership.health.score == 0]
        if not tellers or sky.jitter or 2 * len(well) <= len(sky.up()):
            return
        if any(s.unsteady_until >= since - 2.0 for s in sky.up() if s.id in hearing):
            return  # whoever was held takes what it reads then for fresh, and vouches
        for station in well:
            linked = any(teller is station or teller.id in station.links for teller in tellers)
            if linked and station.node.membership.is_present(whom.id):
                sky.fail(f"{station} does not know that {whom} is gone, of which nothing was heard since {since:.3f}")

    def agree(self) -> None:
        """Everybody knows the same of everybody."""
        sky = self.sky
        up = sky.up()
        there = {station.id for station in up}
        for station in up:
            core, membership = station.node.core, station.node.membership
            view = membership.view
            ghosts = [str(sky.hosts[node]) for node in view.present if node not in there]
            sky.require(not ghosts, f"{station} knows of {ghosts}, which are not there")
            missing = [str(other) for other in up if other.id not in view.present]
            sky.require(not missing, f"{station} does not know of {missing}")
            for other in up:
                state = membership.state(other.id)
                sky.require(state is State.ALIVE, f"{station} does not believe that {other} lives: {state}")
                believed = {claim.key: claim for claim in core.registry.claims(other.id)}
                said = {claim.key: claim for claim in other.node.core.record.claims()}
                sky.require(believed == said, f"{station} believes {believed} of {other}, which says {said}")
                sky.require(core.registry.is_routable(other.id), f"{station} cannot reach {other}")
                about = other.node.membership.view.present[other.id].record
                held = view.present[other.id].record
                sky.require(held == about, f"{station} holds {held} of {other}, which says {about}")
            suspected = [str(sky.hosts[node]) for node in membership.beliefs.suspicions]
            sky.require(not suspected, f"{station} suspects {suspected}")
            sky.require(view.digest == up[0].node.membership.view.digest, f"{station} and {up[0]}: different digests")
            names = [known.record.name for known in view.present.values()]
            sky.require(len(set(names)) == len(names), f"{station} knows somebody twice: {names}")
            sky.require(sky_is_clear(sky, station), f"{station} is held")


def _claim(node: Node, claim: Claim, now: float) -> list[Effect]:
    node.core.now = now
    node._records.claim(claim)
    return node._collect()


_DOES: dict[str, Callable[[Storm, Station, Station, float], None]] = {
    "hold": Storm.hold,
    "slow": Storm.slow,
    "partition": Storm.partition,
    "isolate": Storm.isolate,
    "one_way": Storm.one_way,
    "cable": Storm.cable,
    "broken": Storm.broken,
    "crash": Storm.crash,
    "die": Storm.die,
    "leave": Storm.leave,
    "restart": Storm.restart,
    "more": Storm.more,
    "fewer": Storm.fewer,
    "jitter": Storm.jitter,
    "mischief": Storm.mischief,
    "lose_found": Storm.lose_found,
    "replay": Storm.replay,
    "forge": Storm.forge,
    "claim": Storm.claim,
    "drain": Storm.drain,
    "move": Storm.move,
}
KINDS = sorted(_DOES)
