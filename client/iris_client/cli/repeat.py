"""``iris request --repeat``: the same request many times, and what came of them in a few lines."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import iris_client as iris
from iris_client.cli.output import FAILED, exit_code, hint_for, note, print_json, table
from iris_client.cli.values import count_of, printable, show_time


@dataclass(slots=True)
class Tally:
    """What came of many requests.

    Attributes:
        times: How long each reply took, in seconds.
        members: Replies by member.
        errors: Failures by kind; ``examples`` holds the first of each.
        took: Seconds for all.
    """

    times: array[float] = field(default_factory=lambda: array("d"))
    members: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, iris.IrisError] = field(default_factory=dict)
    took: float = 0.0

    def replied(self, member: str, took: float) -> None:
        self.times.append(took)
        self.members[member] += 1

    def failed(self, error: iris.IrisError) -> None:
        kind = type(error).__name__
        self.errors[kind] += 1
        self.examples.setdefault(kind, error)

    @property
    def exit_code(self) -> int:
        """0 when all were answered; the code of what went wrong when it was one thing."""
        codes = {exit_code(error) for error in self.examples.values()}
        return 0 if not codes else codes.pop() if len(codes) == 1 else FAILED

    def quantile(self, share: float) -> float:
        """The time within which ``share`` of the replies came; 0 when there were none."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def repeat_requests(
    once: Callable[[], Awaitable[iris.Reply]], count: int, concurrency: int, *, as_json: bool
) -> int:
    """Call ``once`` ``count`` times, ``concurrency`` at a time, and print a summary.

    Returns:
        What the process exits with.
    """
    tally = Tally()
    left = count

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            started = time.perf_counter()
            try:
                reply = await once()
            except (iris.InvalidName, iris.InvalidCall, iris.TooLarge):
                raise  # none of them would fare better
            except iris.DeliveryError as error:
                tally.failed(error)
            else:
                tally.replied(reply.member, time.perf_counter() - started)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as workers:
        for _ in range(min(concurrency, count)):
            workers.create_task(work())
    tally.took = time.perf_counter() - started
    _show(tally, as_json=as_json)
    return tally.exit_code


def _show(tally: Tally, *, as_json: bool) -> None:
    replies = len(tally.times)
    rate = replies / tally.took if tally.took else 0.0
    p50, p99 = tally.quantile(0.5), tally.quantile(0.99)
    if as_json:
        print_json(
            {
                "replies": replies,
                "errors": dict(tally.errors),
                "members": dict(tally.members.most_common()),
                "took": round(tally.took, 6),
                "rate": round(rate, 1),
                "p50": round(p50, 6),
                "p99": round(p99, 6),
            }
        )
        return
    words = "reply" if replies == 1 else "replies"
    print(f"{replies:,} {words} in {show_time(tally.took)} ({rate:,.0f}/s), p50 {show_time(p50)}, p99 {show_time(p99)}")
    if replies:
        rows = [(who or "-", count, f"{count / replies:.1%}") for who, count in tally.members.most_common()]
        print(table(("MEMBER", "REPLIES", "SHARE"), rows))
    for kind, count in tally.errors.most_common():
        example = tally.examples[kind]
        note(f"iris: {count_of(count, 'error')} {kind}: {printable(str(example))}")
        if hint := hint_for(example):
            note(f"iris: hint: {hint}")
