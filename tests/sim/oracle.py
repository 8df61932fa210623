"""Knows what was asked, what ran and what was said about it, and finds every contradiction."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from irisd.flow.timers import TICK
from irisd.model import Code, Executed, Frame, Kind
from tests.sim.apps import App, Subscribed
from tests.sim.tunnels import Line
from tests.sim.world import Daemon, World

MANY = (Kind.SURVEY, Kind.BROADCAST)


@dataclass(eq=False)
class Asked:
    """One logical call."""

    app: App
    kind: Kind
    id: int
    label: str
    cluster: str
    timeout: float
    idempotent: bool
    reached: float | None = None  # when its node had all of it
    cancelled: bool = False
    over: bool = False
    early: bool = False  # ended before its deadline
    void: bool = False  # its app is gone: nobody can be told
    outcome: Frame | None = None
    answers: dict[str, Frame] = field(default_factory=dict)
    runs: list[App] = field(default_factory=list)


def matches(filter: str, topic: str) -> bool:
    wanted, tokens = filter.split("."), topic.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        tokens = tokens[: len(wanted)] if len(tokens) > len(wanted) else []
    return len(wanted) == len(tokens) and all(want in ("*", token) for want, token in zip(wanted, tokens, strict=True))


class Oracle:
    """One for a world; everything apps see passes it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: dict[str, Asked] = {}
        self.lines: dict[str, Line] = {}
        self.subscriptions: list[Subscribed] = []
        self.outcomes: Counter[str] = Counter()
        self.grouped: defaultdict[tuple[str, str, str, int], int] = defaultdict(int)
        self.published: Counter[str] = Counter()
        self.group_expected: Counter[str] = Counter()
        self._coming: dict[tuple[App, int], Frame] = {}

    # -- calls

    def asked(self, app: App, kind: Kind, id: int, cluster: str, timeout: float, idempotent: bool) -> Asked:
        label = f"{kind.name[0].lower()}{len(self.calls)}"
        call = self.calls[label] = Asked(app, kind, id, label, cluster, timeout, idempotent)
        return call

    def reached(self, daemon: Daemon, app: App, frame: Frame) -> None:
        """A frame of an app has reached its node, a part counts when it is the last."""
        if frame.more and frame.kind != Kind.DATA:
            if frame.kind != Kind.PART:
                self._coming[app, frame.id] = frame
            return
        if frame.kind == Kind.PART:
            whole = self._coming.pop((app, frame.id), None)
            if whole is None:
                return
            frame = whole
        call = app.asked.get(frame.id)
        if call is not None and frame.kind == call.kind:
            call.reached = self.world.now
        if frame.kind == Kind.PUBLISH:
            self._published(daemon, frame.address, frame.messages)

    def ran(self, app: App, frame: Frame) -> None:
        """A handler has a call."""
        if frame.kind == Kind.TUNNEL:
            return
        call = self.calls[bytes(frame.body[:24]).partition(b"|")[0].decode()]
        require = self.world.require
        require(frame.address == call.cluster, f"{call.label} for {call.cluster} came to {frame.address}")
        require(app not in call.runs or call.idempotent, f"{call.label} ran twice at {app}")
        call.runs.append(app)
        if call.kind not in MANY and not call.idempotent:
            require(len(call.runs) == 1, f"{call.label} ran {len(call.runs)} times: {[str(a) for a in call.runs]}")
        said = call.outcome
        if said is not None and said.kind == Kind.ERROR and said.executed == Executed.NO:
            self.world.fail(f"{call.label} runs at {app} after its caller was told that it did not: {said!r}")

    def did_not_run(self, app: App, frame: Frame) -> None:
        """A member gives a call back untouched."""
        call = self.calls[bytes(frame.body[:24]).partition(b"|")[0].decode()]
        call.runs.remove(app)

    def answered(self, call: Asked, frame: Frame) -> None:
        """The app that asked hears something."""
        require, who = self.world.require, f"{call.label} of {call.app}"
        if call.kind == Kind.SURVEY and frame.member and frame.kind in (Kind.REPLY, Kind.ERROR):
            require(not call.over, f"{who}: an answer after the survey was over")
            require(frame.member not in call.answers, f"{who}: {frame.member} answered twice")
            call.answers[frame.member] = frame
            return
        require(not call.over, f"{who} ended twice: {call.outcome!r} and {frame!r}")
        call.over, call.outcome = True, frame
        call.early = call.reached is not None and self.world.now < call.reached + call.timeout
        self.outcomes[f"{call.kind.name} {Kind(frame.kind).name} {Code(frame.code).name if frame.code else ''}"] += 1
        expected = {Kind.REQUEST: (Kind.REPLY,), Kind.PUSH: (Kind.DONE,)}.get(call.kind, (Kind.DONE,))
        require(frame.kind in (*expected, Kind.ERROR), f"{who} ended with {frame!r}")
        require(call.reached is not None, f"{who} was answered before it was asked")
        assert call.reached is not None
        if call.app.last_pause < call.reached:
            latest = call.reached + call.timeout + 2 * TICK + call.app.latency + 1e-6
            require(self.world.now <= latest, f"{who} ended {self.world.now - latest:.4f} s late: {frame!r}")
        if frame.kind == Kind.ERROR:
            self._check_executed(call, frame, who)
        elif call.kind in (Kind.REQUEST, Kind.PUSH):
            ran = call.runs or call.kind == Kind.PUSH  # a push is accepted before it runs
            require(ran, f"{who} was answered, and no handler had it")
            if call.kind == Kind.REQUEST:
                require(frame.body.startswith(f"{call.label}|".encode()), f"{who} got somebody else's answer")
        elif call.kind == Kind.SURVEY:
            strangers = call.answers.keys() - set(frame.members)
            require(not strangers, f"{who}: {strangers} answered and were not asked")

    def _check_executed(self, call: Asked, frame: Frame, who: str) -> None:
        require = self.world.require
        require(frame.code, f"{who} failed without a code: {frame!r}")
        require(frame.executed in (1, 2, 3), f"{who}: does not say whether it ran: {frame!r}")
        if frame.executed == Executed.NO:
            require(
                not call.runs, f"{who}: not executed, and yet it ran at {[str(app) for app in call.runs]}: {frame!r}"
            )
        if frame.executed == Executed.YES:
            require(call.runs, f"{who}: executed, and yet nobody had it: {frame!r}")

    def app_gone(self, app: App) -> None:
        for call in app.asked.values():
            call.void = True
        for subscription in app.subscriptions.values():
            subscription.permanent = False
        for end in app.tunnels.values():
            end.line.broken = True

    # -- events

    def _published(self, daemon: Daemon, topic: str, messages: int) -> None:
        self.published[topic] += messages
        registry = daemon.node.core.registry
        groups = set()
        for subscription in self.subscriptions:
            if matches(subscription.filter, topic):
                home = subscription.app.daemon
                known = registry.claim(home.id, ("", subscription.filter, subscription.group)) is not None
                if home is daemon or known:
                    subscription.expected += messages
                    subscription.expected_of[str(daemon)] += messages
                    groups.add(subscription.group)
        for group in groups:
            self.group_expected[group] += messages

    def event(self, subscription: Subscribed, frame: Frame) -> None:
        """A subscriber hears something; without an address it is only told of losses."""
        require = self.world.require
        subscription.lost += frame.lost
        subscription.unknown = subscription.unknown or frame.lost_unknown
        if not frame.address:
            require(frame.lost or frame.lost_unknown, f"{subscription.app} got an event without topic or losses")
            return
        require(matches(subscription.filter, frame.address), f"{frame.address} does not match {subscription.filter}")
        at = 0
        sizes = memoryview(frame.sizes).cast("I") if frame.sizes else [len(frame.body)]
        for size in sizes:
            label = bytes(frame.body[at : at + 80]).partition(b"|")[0].decode()
            at += size
            daemon, publisher, topic, number = label.split(";")
            subscription.heard_of.add(daemon)
            require(topic == frame.address, f"an event of {topic} came as {frame.address}")
            last = subscription.last.get((publisher, topic), 0)
            require(int(number) > last, f"{subscription.app}: {label} came after number {last}")
            subscription.last[publisher, topic] = int(number)
            subscription.received += 1
            if subscription.group:
                key = (subscription.group, publisher, topic, int(number))
                self.grouped[key] += 1
                require(self.grouped[key] == 1, f"{label} came to two members of group {subscription.group}")
        require(at == len(frame.body), "sizes that do not add up")

    # -- at the end

    def check_end(self) -> None:
        """Everything that can be said once nothing is under way."""
        require = self.world.require
        for call in self.calls.values():
            if not call.void and call.reached is not None:
                require(call.over, f"{call.label} of {call.app} never ended")
        for line in self.lines.values():
            for end in line.ends:
                if end is not None and not end.app.gone:
                    require(end.over or line.broken, f"{end} never ended")
            heard = [end is not None and end.heard_finish and end.said_finish for end in line.ends]
            if any(heard) and not line.broken:
                require(all(heard), f"tunnel {line.label} finished at one end only")
        groups: dict[str, list[Subscribed]] = defaultdict(list)
        crashed = {str(daemon) for daemon in self.world.daemons if daemon.crashed}
        for subscription in self.subscriptions:
            # what a node that died had published is only missed by those who had ever heard of it
            subscription.unknown |= bool(crashed & subscription.expected_of.keys() - subscription.heard_of)
            groups[subscription.group].append(subscription)
            if not subscription.permanent or subscription.unknown:
                continue
            if subscription.group:
                continue
            accounted = subscription.received + subscription.lost
            require(
                accounted == subscription.expected,
                f"{subscription.app} on {subscription.filter}: {subscription.received} came and {subscription.lost} "
                f"were told lost, of {subscription.expected}",
            )
        groups.pop("", None)
        for group, members in groups.items():
            accounted = sum(member.received + member.lost for member in members)
            if all(member.permanent and not member.unknown for member in members):
                require(
                    accounted == self.group_expected[group],
                    f"group {group}: {accounted} came or were told lost, of {self.group_expected[group]}",
                )
