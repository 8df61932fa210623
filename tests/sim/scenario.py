"""A few seconds in the life of a mesh, chosen by the seed; then quiet, in which everything must come to its end."""

from __future__ import annotations

from collections.abc import Callable

from irisd.model import KiB, Kind, NodeId, WhenFull
from tests.sim.apps import ALL, App, Service
from tests.sim.invariants import check_agreement, check_quiet
from tests.sim.oracle import Asked, Oracle
from tests.sim.world import Daemon, World

CLUSTERS = ["db", "web", "jobs"]
TOPICS = ["orders.new", "orders.paid", "news", "tunnel"]
BUSY_UNTIL = 3.0
QUIET_UNTIL = 20.0
"""Longer than every timeout, and than the time lost peers are remembered."""

SLOWEST = 120.0
"""By then even subscribers that block with room for two messages have had all, one round trip each."""

CALM, CUTS, CRASHES = "calm", "cuts", "crashes"
WEATHERS = (CALM, CUTS, CRASHES)


class Scenario:
    """Chance, within what the weather allows: calm, links that break, or daemons and apps that die as well."""

    def __init__(self, seed: int, weather: str) -> None:
        self.weather = weather
        self.world = World(seed, Oracle)
        self.random = self.world.random
        self.oracle = self.world.oracle
        self.apps: list[App] = []
        self.calls: list[Asked] = []
        self._names = 0

    def run(self) -> World:
        """Play it; any broken invariant raises."""
        world, random = self.world, self.random
        for n in range(random.randint(1, 4)):
            world.start(f"n{n}", settle=n > 0)
        for daemon in world.daemons:
            for _ in range(random.randint(1, 3)):
                self.add_app(daemon)
        world.run(0.1)
        self.subscribe_all()
        world.run(1.2)
        for subscription in self.oracle.subscriptions:
            world.require(subscription.known_everywhere, f"{subscription.app} is not known everywhere")
        for _ in range(random.randint(40, 90)):
            world.at(random.uniform(0, BUSY_UNTIL - world.now), self.something)
        if self.weather != CALM:
            for _ in range(random.randint(1, 6)):
                world.at(random.uniform(0, BUSY_UNTIL - world.now), self.trouble)
        world.run(BUSY_UNTIL)
        self.settle()
        return world

    def settle(self) -> None:
        """Everything is whole again, nobody starts anything new: what is under way must end."""
        world = self.world
        world.note("quiet")
        for app in self.apps:
            if not app.gone:
                app.resume()
        world.at(0.2, world.heal)
        world.run(QUIET_UNTIL)
        world.heal()
        world.run(QUIET_UNTIL + 5)
        while world.now < SLOWEST and any(daemon.node.core.counters["held.topics"] for daemon in world.alive()):
            world.run(world.now + 5)
        for daemon in world.alive():
            check_quiet(world, daemon.node)
        check_agreement(world)
        self.oracle.check_end()
        if self.weather == CALM:
            self.check_calm()

    def check_calm(self) -> None:
        """Nothing broke, so nothing may be lost but by a bound that says so."""
        require = self.world.require
        lost = -sum(daemon.node.core.counters["dropped.push-lost"] for daemon in self.world.daemons)
        for call in self.oracle.calls.values():
            assert call.outcome is not None
            done = call.outcome.kind == Kind.DONE
            if call.kind == Kind.PUSH and done:
                lost += not call.runs
            elif call.kind == Kind.BROADCAST and done:
                require(len(call.runs) == call.outcome.count, f"{call.label} ran {len(call.runs)} times")
            elif call.kind == Kind.SURVEY and done and call.early:  # at the deadline some may not have said yet
                asked = {app.welcome.member for app in call.runs if app.welcome}
                require(asked <= set(call.outcome.members), f"{call.label}: somebody had it and is not among the asked")
        require(lost <= 0, f"{lost} more accepted pushes did not run than were counted as lost")
        for subscription in self.oracle.subscriptions:
            require(not (subscription.blocks and subscription.lost), f"{subscription.app} blocks and lost something")
        for line in self.oracle.lines.values():
            tried = line.ends[1] is not None and not (line.abort or line.refused or line.broken)
            require(not tried or line.completed, f"tunnel {line.label} did not complete")

    # -- who is there

    def add_app(self, daemon: Daemon) -> App:
        self._names += 1
        app = App(daemon, f"a{self._names}")
        self.apps.append(app)
        for cluster in CLUSTERS:
            if self.random.random() < 0.5:
                self.join(app, cluster)
        return app

    def join(self, app: App, cluster: str) -> None:
        random = self.random
        patterns = ALL if random.random() < 0.7 else random.randint(1, ALL)
        app.join(Service(cluster, random.choice([1, 2, 8]), self.behaviour), patterns)

    def behaviour(self) -> tuple[float, str]:
        random = self.random
        delay = random.choice([0.0, 0.001, 0.02, 0.3])
        return delay, random.choice(["reply"] * 12 + ["reject", "fail", "busy", "silent"])

    def subscribe_all(self) -> None:
        random = self.random
        billing = random.choice([WhenFull.DROP_OLDEST, WhenFull.BLOCK])
        for app in self.apps:
            for filter in ("orders.*", "news", ">", "tunnel"):
                if random.random() < 0.3:
                    self.oracle.subscriptions.append(
                        app.subscribe(
                            filter,
                            "",
                            random.choice([2 * KiB, 100 * KiB, 1024 * KiB]),
                            random.choice(list(WhenFull)),
                            permanent=True,
                        )
                    )
            if random.random() < 0.4:
                self.oracle.subscriptions.append(
                    app.subscribe("orders.*", "billing", 64 * KiB, billing, permanent=True)
                )

    # -- what happens

    def anybody(self) -> App | None:
        alive = [app for app in self.apps if app.welcome and not app.gone and not app.goodbye]
        return self.random.choice(alive) if alive else None

    def something(self) -> None:
        """One thing an app does."""
        app = self.anybody()
        if app is not None:
            deeds: list[tuple[Callable[[App], None], int]] = [
                (self.request, 12),
                (self.push, 4),
                (self.broadcast, 2),
                (self.survey, 3),
                (self.publish, 10),
                (self.tunnel, 4),
                (self.cancel, 3),
                (self.come_and_go, 1),
                (self.read_slowly, 1),
            ]
            deed = self.random.choices([deed for deed, _ in deeds], [weight for _, weight in deeds])[0]
            deed(app)

    def size(self) -> int:
        return self.random.choice([40, 40, 40, 1000, 10_000, 60_000, 300_000, 700_000])

    def timeout(self) -> float:
        return self.random.choice([0.005, 0.05, 0.5, 2.0])

    def where(self) -> str:
        return self.random.choice([*CLUSTERS, *CLUSTERS, *CLUSTERS, "nobody"])

    def request(self, app: App) -> None:
        for _ in range(self.random.choice([1, 1, 3, 20])):
            idempotent = self.random.random() < 0.3
            size = self.size() if self.random.random() < 0.5 else 40
            self.calls.append(app.ask(Kind.REQUEST, self.where(), self.timeout(), size, idempotent=idempotent))

    def push(self, app: App) -> None:
        for _ in range(self.random.choice([1, 10])):
            self.calls.append(app.ask(Kind.PUSH, self.where(), self.timeout(), self.size()))

    def broadcast(self, app: App) -> None:
        self.calls.append(app.ask(Kind.BROADCAST, self.where(), self.timeout(), self.size()))

    def survey(self, app: App) -> None:
        self.calls.append(app.ask(Kind.SURVEY, self.where(), self.timeout(), self.size()))

    def cancel(self, app: App) -> None:
        mine = [call for call in self.calls if call.app is app and not call.over and not call.cancelled]
        for call in mine[-5:]:
            app.cancel(call)
        if not mine and app.tunnels:
            ends = [end for end in app.tunnels.values() if end.side == 0 and not end.over]
            if ends:
                self.random.choice(ends).cancel()

    def publish(self, app: App) -> None:
        topic = self.random.choice(TOPICS)
        for _ in range(self.random.choice([1, 1, 5, 30])):
            messages = self.random.choice([1, 1, 3, 20])
            app.publish(topic, messages, self.random.choice([60, 60, 500, 8_000, 400_000 if messages == 1 else 100]))
        if self.random.random() < 0.3:
            app.flush()

    def tunnel(self, app: App) -> None:
        def messages() -> list[int]:
            size = self.random.choice([30, 1000, 60_000])
            return [self.random.randint(25, size) for _ in range(self.random.choice([0, 1, 30]))]

        app.open_tunnel(self.where(), self.timeout(), (messages(), messages()), abort=self.random.random() < 0.1)

    def come_and_go(self, app: App) -> None:
        joined = [id for id, service in app.services.items() if service.joined]
        if joined and self.random.random() < 0.5:
            app.leave(joined[0])
        else:
            serving = {service.cluster for service in app.services.values()}
            for cluster in CLUSTERS:
                if cluster not in serving:
                    self.join(app, cluster)
                    break

    def read_slowly(self, app: App) -> None:
        if app.last_pause != float("inf"):
            app.pause(self.random.uniform(0.01, 1.0))

    # -- what goes wrong

    def trouble(self) -> None:
        random = self.random
        kinds: list[Callable[[], None]] = [self.cut, self.cut, self.replace_link, self.partition]
        if self.weather == CRASHES:
            kinds += [self.crash_app, self.crash_app, self.crash_daemon, self.restart, self.drain]
        random.choice(kinds)()

    def cut(self) -> None:
        pairs = self.pairs()
        if pairs:
            one, other = self.of(self.random.choice(pairs))
            self.world.cut(one, other)
            # sometimes longer than a lost peer is remembered
            self.world.at(self.random.choice([0.06, 0.3, 1.0, 4.5]), lambda: self.relink(one, other))

    def relink(self, one: Daemon, other: Daemon) -> None:
        if one.alive and other.alive and not self.world.linked(one, other):
            self.world.note(f"relink {one} - {other}")
            self.world.link(one, other)

    def replace_link(self) -> None:
        """A newer link takes over before either end noticed that the older one was dead."""
        pairs = self.pairs()
        if pairs:
            one, other = self.of(self.random.choice(pairs))
            self.world.cut(one, other, noticed=False)
            self.world.link(one, other)

    def partition(self) -> None:
        alive = self.world.alive()
        if len(alive) > 1:
            self.world.note("partition")
            side = alive[: self.random.randint(1, len(alive) - 1)]
            for one in side:
                for other in alive:
                    if other not in side:
                        self.world.cut(one, other)
            self.world.at(self.random.choice([0.06, 0.5, 4.5]), self.world.heal)

    def crash_app(self) -> None:
        app = self.anybody()
        if app is not None:
            app.crash()

    def crash_daemon(self) -> None:
        alive = [daemon for daemon in self.world.alive() if not daemon.node.core.draining]
        if len(alive) > 1:
            self.random.choice(alive).stop()

    def restart(self) -> None:
        alive = [daemon for daemon in self.world.alive() if not daemon.node.core.draining]
        daemon = self.random.choice(alive)
        if len(alive) > 1:
            daemon.stop()
        new = self.world.start(daemon.name, settle=True)
        for _ in range(2):
            self.add_app(new)

    def drain(self) -> None:
        """A daemon says goodbye, finishes what it has, and leaves; one always stays."""
        alive = [daemon for daemon in self.world.alive() if not daemon.node.core.draining]
        if len(alive) > 1:
            daemon = self.random.choice(alive)
            self.world.note(f"{daemon} drains")
            daemon.apply(daemon.node.drain(self.world.now))
            self.world.at(self.random.uniform(0, 1.0), lambda: self.leave(daemon, self.world.now + 1.0))

    def leave(self, daemon: Daemon, at_last: float) -> None:
        """Go once everything has left and arrived; in the end go anyway, which is a crash to the others."""
        busy = not daemon.node.drained
        if not daemon.alive or self.world.now > at_last:
            daemon.stop()
        elif busy or daemon.quiet_since is None:
            daemon.quiet_since = None if busy else self.world.now
            self.world.at(0.1, lambda: self.leave(daemon, at_last))
        else:
            daemon.stop(left=True)

    def pairs(self) -> list[frozenset[NodeId]]:
        alive = {daemon.id for daemon in self.world.alive()}
        return [key for key in self.world.links if key <= alive]

    def of(self, key: frozenset[NodeId]) -> tuple[Daemon, Daemon]:
        one, other = [daemon for daemon in self.world.daemons if daemon.id in key]
        return one, other
