"""``python -m bench.index``: what a subscription costs and what a match takes, with few and with very many.

No daemon: the registry and the brains of two nodes alone, in this process.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from random import Random

import click

from irisd.model import FEATURES, Claim, Destination, Frame, Kind, MiB, PeerInfo
from irisd.node import Node, NodeIdentity, NodeSettings
from irisd.registry import Registry
from irisd.wire import decode_frame, encode_frame

COUNTS = (10, 1_000, 100_000, 1_000_000)
APPS = 100
AT_ONCE = 64
"""SUBSCRIBE frames of one read."""

PIECES = 8
"""Pieces of a record in one read of a link, at most."""

HERE, THERE = b"\1" * 16, b"\2" * 16

Names = Callable[[int], tuple[str, str]]
"""Makes the n-th filter, and a topic that it alone matches."""


def _exact(n: int) -> tuple[str, str]:
    return f"sensors.{n}.temperature", f"sensors.{n}.temperature"


def _star(n: int) -> tuple[str, str]:
    return f"sensors.*.t{n}", f"sensors.hall.t{n}"


def _tail(n: int) -> tuple[str, str]:
    return f"halls.{n}.>", f"halls.{n}.temperature"


def _mixed(n: int) -> tuple[str, str]:
    return (_exact, _star, _tail, _exact)[n % 4](n)


KINDS: dict[str, Names] = {"exact": _exact, "*": _star, ">": _tail, "mixed": _mixed}


def match_times(counts: Sequence[int] = COUNTS) -> dict[str, dict[int, dict[str, float]]]:
    """Seconds of one match by kind of filter and number of subscriptions: ``cold``, and ``warm`` (remembered)."""
    return {kind: _match(names, counts) for kind, names in KINDS.items()}


def _match(names: Names, counts: Sequence[int], rounds: int = 21) -> dict[int, dict[str, float]]:
    registries = {}
    for count in counts:
        registry = registries[count] = Registry()
        registry.routable(THERE, True)
        registry.learn(THERE, [Claim(1, topic=names(n)[0]) for n in range(count)])
    found: dict[int, dict[str, list[float]]] = {count: {"cold": [], "warm": []} for count in counts}
    rng = Random(1)
    for _ in range(rounds):  # interleaved: whatever else the machine does falls on all alike
        for count, registry in registries.items():
            took = {"cold": 0.0, "warm": 0.0}
            repeats = max(1, 1000 // count)
            for _ in range(repeats):
                topics = [names(n)[1] for n in rng.sample(range(count), min(count, 1000))]  # new, as from the wire
                registry.routable(THERE, False)  # and so forgotten
                registry.routable(THERE, True)
                for what in took:
                    began = time.process_time()
                    for topic in topics:
                        registry.match(topic)
                    took[what] += time.process_time() - began
            assert registry.match(topics[0]).everyone == (THERE,)
            for what, seconds in took.items():
                found[count][what].append(seconds / repeats / len(topics))
    return {
        count: {what: statistics.median(each) for what, each in by_what.items()} for count, by_what in found.items()
    }


def churn_times(count: int, matches: int = 100_000) -> dict[str, float]:
    """Seconds of one match of a thousand topics in turn, while a subscription comes or goes before every tenth."""
    found = {}
    for what, filter in {"nothing": "", "exact": "sensors.none.flips", "*": "sensors.*.flips"}.items():
        registry = Registry()
        registry.routable(THERE, True)
        registry.learn(THERE, [Claim(1, topic=_mixed(n)[0]) for n in range(count)])
        topics = [_mixed(n)[1] for n in range(min(count, 1000))]
        began = time.process_time()
        for at in range(matches):
            if filter and at % 10 == 0:
                registry.learn(THERE, [Claim(at // 10 % 2, topic=filter)])
            registry.match(topics[at % len(topics)])
        found[what] = (time.process_time() - began) / matches
    return found


class Pauses:
    """The garbage collector's, since it was made."""

    def __init__(self) -> None:
        self.total = self.longest = self._began = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, info: object) -> None:
        if phase == "start":
            self._began = time.process_time()
        else:
            pause = time.process_time() - self._began
            self.total += pause
            self.longest = max(self.longest, pause)


PAUSES = Pauses()


class Place:
    """A node without edges."""

    def __init__(self, id: bytes, count: int) -> None:
        identity = NodeIdentity(id, f"n{id[0]}", "bench")
        self.id = id
        self.node = Node(identity, NodeSettings(max_claims=count), Random(1), now=0.0, settle=False)
        self.longest = 0.0

    def call(self, call: Callable[[], object]) -> None:
        """One brain call, timed, the collector's pauses aside."""
        paused, began = PAUSES.total, time.process_time()
        call()
        self.longest = max(self.longest, time.process_time() - began - (PAUSES.total - paused))

    def subscribe(self, count: int, apps: int) -> None:
        """Subscribe to ``count`` topics, as ``apps`` apps that read what they are answered."""
        for app in range(1, apps + 1):
            self.node.attach(app, Frame(Kind.HELLO, member="app"), 0.0)
            mine = range((app - 1) * count // apps, app * count // apps)
            for at in range(0, len(mine), AT_ONCE):
                frames = [
                    crossed(Frame(Kind.SUBSCRIBE, id=2 * n + 1, address=_exact(n)[0], max_bytes=64 * MiB))
                    for n in mine[at : at + AT_ONCE]
                ]
                self.call(lambda app=app, frames=frames: self.node.frames_from_app(app, frames, 0.0))  # type: ignore[misc]
                while self.node.take(app, MiB, 0.0):
                    pass

    def end(self, apps: int) -> None:
        """All apps go."""
        for app in range(1, apps + 1):
            self.call(lambda app=app: self.node.detach(app, "gone", 0.0))  # type: ignore[misc]
        self.pass_time()

    def pass_time(self, seconds: float = 30.0) -> None:
        """Until all that is done bit by bit is done."""
        while (deadline := self.node.core.timers.next_deadline()) is not None and deadline < seconds:
            self.call(lambda deadline=deadline: self.node.on_deadline(deadline))  # type: ignore[misc]

    def link(self, other: Place) -> None:
        """Its side of a link is up."""
        info = PeerInfo(other.id, f"n{other.id[0]}", features=FEATURES)
        self.call(lambda: self.node.link_up(info, 0.0, dialled=self.id < other.id))

    def take(self, whom: Destination) -> list[Frame]:
        """What one write takes."""
        found: list[Frame] = []
        self.call(lambda: found.extend(self.node.take(whom, 256 * 1024, 0.0)))
        return found

    def hear(self, other: Place, frames: list[Frame]) -> None:
        """One read."""
        self.call(lambda: self.node.frames_from_peer(other.id, frames, 0.0))


def crossed(frame: Frame) -> Frame:
    """The frame as it is after a journey: nothing of it is shared with who sent it."""
    raw = encode_frame(frame)
    return decode_frame(raw, 0, len(raw), 1 << 30)


def carry(*places: Place) -> None:
    """Carry what the two places have for each other until nothing moves."""
    moving = True
    while moving:
        moving = False
        for one, other in (places, places[::-1]):
            while frames := one.take(other.id):
                for at in range(0, len(frames), PIECES):
                    other.hear(one, [crossed(frame) for frame in frames[at : at + PIECES]])
                moving = True


def subscription_bytes(count: int, apps: int = APPS) -> float:
    """Bytes that one subscription of a local app to a topic of its own costs its daemon, all told."""
    place = Place(HERE, count)
    gc.collect()
    tracemalloc.start()
    try:
        place.subscribe(count, apps)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()


def subscribing(count: int, apps: int = APPS) -> dict[str, float]:
    """Subscribe, then link a second node that is told of it all, then let all apps go.

    Returns:
        ``subscribed`` and ``told``: subscriptions a second of processor time, both nodes' where there are two.
        ``here`` and ``there``: resident bytes each subscription costs its own node and the other. ``longest`` ...:
        seconds of the longest brain call, the garbage collector's pauses aside; and of those.
    """
    one, other = Place(HERE, count), Place(THERE, count)
    gc.collect()
    before, began = _resident(), time.process_time()
    one.subscribe(count, apps)
    took = time.process_time() - began
    gc.collect()
    here = _resident() - before
    figures = {"subscribed": count / took, "longest_subscribing": one.longest, "here": here / count}
    one.longest = 0.0
    before, began = _resident(), time.process_time()
    one.link(other)
    other.link(one)
    carry(one, other)
    took = time.process_time() - began
    assert len(other.node.core.registry.topics()) == count
    gc.collect()
    there = _resident() - before
    figures["longest_telling"], figures["longest_learning"] = one.longest, other.longest
    one.longest = other.longest = 0.0
    one.end(apps)
    carry(one, other)
    other.pass_time()
    assert not other.node.core.registry.topics()
    return figures | {
        "told": count / took,
        "there": there / count,
        "longest_ending": max(one.longest, other.longest),
        "longest_pause": PAUSES.longest,
    }


def _resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@click.command(help=__doc__)
@click.option("--count", default=COUNTS[-1], show_default=True, help="Subscriptions.")
@click.option("--apps", default=APPS, show_default=True, help="Apps that have them.")
def main(count: int, apps: int) -> None:
    """Measure, and print a table."""
    figures = subscribing(count, apps)
    click.echo(
        f"subscribing: {figures['subscribed']:,.0f}/s, longest call {figures['longest_subscribing'] * 1e3:.1f} ms"
    )
    click.echo(
        f"told to another node: {figures['told']:,.0f}/s, longest call {figures['longest_telling'] * 1e3:.1f} ms here, "
        f"{figures['longest_learning'] * 1e3:.1f} ms there"
    )
    click.echo(f"when its apps go: longest call {figures['longest_ending'] * 1e3:.1f} ms")
    click.echo(f"longest pause of the garbage collector: {figures['longest_pause'] * 1e3:.0f} ms")
    click.echo(f"resident: {figures['here']:.0f} B a subscription here, {figures['there']:.0f} B there")
    click.echo(f"traced: {subscription_bytes(count, apps):.0f} B a subscription here")
    counts = sorted({10, 1_000, count // 10, count})
    click.echo(f"\n{'one match, us':16}" + "".join(f"{each:>14,}" for each in counts))
    for kind, by_count in match_times(counts).items():
        for what in ("cold", "warm"):
            click.echo(f"{kind:10}{what:6}" + "".join(f"{by_count[each][what] * 1e6:14.2f}" for each in counts))
    click.echo(f"\none match among {counts[-2]:,} mixed, while a subscription comes or goes before every tenth:")
    for what, seconds in churn_times(counts[-2]).items():
        click.echo(f"{what:16}{seconds * 1e6:14.2f}")


if __name__ == "__main__":
    main()
