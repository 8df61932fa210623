"""How publishers are kept back, how subscribers share processes, and the loops over a system made of lists."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from operator import attrgetter
from typing import Any

import pytest

from bench import roles
from bench.measure import shares, window_for
from bench.systems import SYSTEMS
from bench.systems.base import Client


class Wire:
    """What one publisher and one subscriber share."""

    def __init__(self):
        self.sent: deque[bytes] = deque()
        self.reports: deque[bytes] = deque()
        self.most = 0


class Blocking(Client):
    """A system without flow control, whose messages wait in a list."""

    asynchronous = False
    body: Any = bytes

    def __init__(self, wire):
        self.wire = wire

    def publisher(self, subscribers):
        pass

    def publish(self, body):
        self.wire.sent.append(body)

    def flush(self):
        self.wire.most = max(self.wire.most, len(self.wire.sent))

    def heard(self):
        """As if the subscriber had read everything by now."""
        self.flush()
        read = sum(len(body) > roles.CONTROL_BYTES for body in self.wire.sent)
        self.wire.sent.clear()
        self.read = getattr(self, "read", 0) + read
        return roles.REPORT.pack(0, self.read)

    def subscriber(self, number):
        return "here"

    def messages(self):
        return iter(list(self.wire.sent))

    def report(self, report):
        self.wire.reports.append(report)


class Event:
    def __init__(self, body):
        self.body = body


class Asynchronous(Blocking):
    """The same, to be awaited."""

    asynchronous = True
    body = attrgetter("body")

    async def messages(self):
        for body in self.wire.sent:
            yield Event(body)

    async def report(self, report):
        self.wire.reports.append(report)


class Handing(Asynchronous):
    """The same, with a handler."""

    handles = True

    async def deliver(self, handler):
        for body in self.wire.sent:
            await handler(Event(body))


def spec(**more):
    return {"messages": 20, "size": 64, "window": 0, "every": 0, "numbers": [0], "stamped": False, **more}


async def told(kind, bodies, **more):
    """Have a subscriber read these, and return all it says."""
    wire, said = Wire(), []
    wire.sent.extend(bodies)
    await roles.subscribe([kind(wire)], spec(**more), lambda **words: said.append(words))
    return wire, said


@pytest.mark.parametrize("kind", [Blocking, Asynchronous, Handing])
async def test_a_subscriber_counts_what_is_between_the_first_word_and_the_last(kind):
    body = bytes(64)
    wire, said = await told(kind, [roles.WARM, roles.WARM, *[body] * 20, roles.END], every=8)
    assert said[:2] == [{"ready": ["here"]}, {"seen": True}]
    assert (said[2]["figures"]["received"], said[2]["figures"]["lost"]) == (20, 0)
    assert [roles.REPORT.unpack(report) for report in wire.reports] == [(0, 8), (0, 16)]


@pytest.mark.parametrize("kind", [Blocking, Asynchronous, Handing])
async def test_what_is_lost_is_counted(kind):
    _, said = await told(kind, [roles.WARM, *[bytes(64)] * 13, roles.END])
    assert (said[2]["figures"]["received"], said[2]["figures"]["lost"]) == (13, 7)


@pytest.mark.parametrize("kind", [Blocking, Asynchronous, Handing])
async def test_latency_is_counted_from_the_stamp(kind):
    stamped = roles.STAMP.pack(roles.clock() - 1.5) + bytes(56)
    _, said = await told(kind, [roles.WARM, *[stamped] * 20, roles.END], stamped=True)
    assert said[2]["figures"]["p50 us"] == pytest.approx(1.5e6, rel=0.05)


async def published(wire, **more):
    """Run a publisher to its end, and return its figures."""
    go, said = threading.Event(), []
    go.set()
    done = asyncio.Event()

    def tell(**words):
        said.append(words)
        if "figures" in words:
            done.set()

    task = asyncio.create_task(roles.publish(Blocking(wire), spec(subscribers=1, **more), go, tell))
    await done.wait()
    while roles.END not in wire.sent:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return said[-1]["figures"]


async def test_a_publisher_says_the_end_after_all_messages():
    wire = Wire()
    figures = await published(wire)
    assert figures["sent/s"] > 0
    assert [len(body) for body in wire.sent][:21] == [64] * 20 + [1]


async def test_a_publisher_stays_within_its_window():
    wire = Wire()
    await published(wire, messages=100, window=8)
    assert wire.most <= 8


async def test_a_paced_publisher_exceeds_neither_its_rate_nor_its_window():
    wire = Wire()
    figures = await published(wire, messages=200, window=64, rate=10_000.0)
    assert figures["sent/s"] < 10_500  # never faster; how much slower is the machine's business
    assert wire.most <= 64


def test_a_window_holds_few_large_messages():
    assert window_for(SYSTEMS["nats"], 1024) == 8_192
    assert window_for(SYSTEMS["nats"], 2**20) == 32
    assert window_for(SYSTEMS["zeromq-ipc"], 1024) == 0  # it keeps its publisher back itself


def test_subscribers_share_ten_processes():
    assert shares(1) == [[0]]
    assert shares(3) == [[0], [1], [2]]
    assert [len(numbers) for numbers in shares(100)] == [10] * 10
    assert sorted(number for numbers in shares(25) for number in numbers) == list(range(25))
