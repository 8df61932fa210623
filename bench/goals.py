"""What we want to be true, as ratios (pure): each is met, missed, or could not be judged in this run."""

from __future__ import annotations

from dataclasses import dataclass

from bench.results import Results


@dataclass(frozen=True, slots=True)
class Side:
    """A figure of a run: of the largest point measured where ``point`` is None."""

    scenario: str
    system: str
    figure: str
    point: int | None = 0

    def of(self, results: Results) -> float | None:
        return results.median(self.scenario, self.system, self.point, self.figure)


@dataclass(frozen=True, slots=True)
class Goal:
    """One promise.

    Attributes:
        text: For people.
        ours: What is judged.
        other: What it is divided by; None: nothing, the goal is about the figure itself.
        bound: The ratio, or the figure, to reach.
        most: The bound is a most, else a least.
    """

    text: str
    ours: Side
    other: Side | None
    bound: float
    most: bool = False

    def reached(self, results: Results) -> float | None:
        """The ratio of this run; None: one of the two was not measured."""
        ours = self.ours.of(results)
        if self.other is None or ours is None:
            return ours
        other = self.other.of(results)
        return ours / other if other else None

    def verdict(self, results: Results) -> str:
        """``met``, ``missed`` or ``not measured``."""
        reached = self.reached(results)
        if reached is None:
            return "not measured"
        return "met" if (reached <= self.bound if self.most else reached >= self.bound) else "missed"

    def wanted(self) -> str:
        unit = "x" if self.other else ""
        return f"{'<=' if self.most else '>='} {self.bound:g}{unit}"


def _versus(
    text: str, scenario: str, figure: str, ours: str, other: str, bound: float, *, point: int = 0, most: bool = False
) -> Goal:
    return Goal(text, Side(scenario, ours, figure, point), Side(scenario, other, figure, point), bound, most)


def _pubsub(ours: str, other: str, bound: float) -> Goal:
    return _versus(f"publish/subscribe: {ours} to {other}", "pubsub", "received/s", ours, other, bound)


def _trip(ours: str, bound: float) -> Goal:
    return _versus(f"request p50: {ours} to nats", "roundtrip", "p50 us", ours, "nats", bound, most=True)


def _small(ours: str, other: str, bound: float) -> Goal:
    return _versus(f"16-byte messages: {ours} to {other}", "sizes", "received/s", ours, other, bound, point=16)


def _busy(ours: str, bound: float) -> Goal:
    text = f"requests/s, 64 in flight: {ours} to nats"
    return _versus(text, "requests", "requests/s", ours, "nats", bound, point=64)


def _fan_out(subscribers: int) -> Goal:
    text = f"fan-out to {subscribers}: irisd-local-1 to nats"
    return _versus(text, "fanout", "received/s", "irisd-local-1", "nats", 1.5, point=subscribers)


def _tunnel(lane: str) -> Goal:
    ours = f"irisd-{lane}-2"
    limit = Side("limit", "this machine", "MB/s")
    return Goal(f"tunnel: {ours} to one sealing and two socket copies", Side("tunnel", ours, "MB/s"), limit, 0.5)


def _flat(ours: str) -> Goal:
    few, many = (Side("latency", ours, "mean us", point) for point in (10_000, 1_000_000))
    return Goal(f"latency stays flat: {ours}, 1,000,000 to 10,000 messages", many, few, 1.5, most=True)


def _idle(lane: str, kilobytes: float) -> Goal:
    side = Side("attachments", f"irisd-{lane}-1", "KB each", None)
    return Goal(f"KB of memory per idle attachment, {lane}", side, None, kilobytes, most=True)


def _of_build(build: str) -> tuple[Goal, ...]:
    """What is judged of the local lane, as written and compiled."""
    one, two = f"irisd-{build}-1", f"irisd-{build}-2"
    return (
        _pubsub(one, "nats", 4.0),
        _pubsub(one, "zenoh-unix", 1.2),
        _pubsub(one, "zenoh-tcp", 1.2),
        _pubsub(one, "zeromq-ipc", 1.0),
        _pubsub(one, "zeromq-tcp", 1.0),
        _pubsub(two, "nats", 3.5),
        _pubsub(two, "zenoh-unix", 1.0),
        _pubsub(two, "zenoh-tcp", 1.0),
        _pubsub(two, "zeromq-ipc", 0.9),
        _pubsub(two, "zeromq-tcp", 0.9),
        _small(one, "nats", 4.0),
        _small(one, "zeromq-ipc", 1.0),
        _trip(one, 0.8),
        _trip(two, 1.0),
        _busy(one, 2.0),
        _busy(two, 1.5),
        _tunnel(build),
    )


GOALS: tuple[Goal, ...] = (
    *_of_build("local"),
    *_of_build("compiled"),
    _pubsub("irisd-grpc-1", "nats", 1.3),
    _trip("irisd-grpc-1", 2.0),
    _fan_out(1),
    _fan_out(10),
    _fan_out(100),
    _tunnel("grpc"),
    _flat("irisd-local-1"),
    _flat("irisd-local-2"),
    _idle("grpc", 100.0),
    _idle("local", 40.0),
    Goal(
        "time to match among 1,000,000 subscriptions to 10",
        Side("matching", "registry", "match us", 1_000_000),
        Side("matching", "registry", "match us", 10),
        2.0,
        most=True,
    ),
    Goal(
        "bytes of memory per subscription",
        Side("matching", "registry", "bytes each", None),
        None,
        400.0,
        most=True,
    ),
)


def judged(results: Results) -> list[dict[str, object]]:
    """All goals with their verdicts, for ``--json``."""
    return [
        {
            "goal": goal.text,
            "wanted": goal.wanted(),
            "reached": goal.reached(results),
            "verdict": goal.verdict(results),
        }
        for goal in GOALS
    ]
