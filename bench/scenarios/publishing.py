"""Publish and subscribe: how many, how large, to how many, and how late."""

from __future__ import annotations

from collections.abc import Sequence

from bench.measure import Running, publish
from bench.process import JSON, Failed
from bench.scenarios.base import SHARE, KiB, Scenario, Settings
from bench.systems.base import PUBSUB, System

MiB = KiB * KiB
ENOUGH_BYTES = 512 * MiB


class PubSub(Scenario):
    """One publisher, one subscriber, 1 KiB, as fast as it goes without loss."""

    name = "pubsub"
    title = "Publish/subscribe, one to one, 1 KiB, lossless"
    needs = PUBSUB
    figure = "received/s"
    more = ("sent/s", "lost", "messages")

    async def measure(self, running: Running, point: int, settings: Settings) -> JSON:
        messages = await settings.affordable(running, settings.messages, KiB)
        figures = await publish(running, messages, KiB)
        settings.rates[running.system.name, KiB, 1] = figures["received/s"]
        return figures


class Latency(Scenario):
    """The mean latency of so many messages sent at a share of what the system can sustain."""

    name = "latency"
    title = f"Mean latency at {SHARE:.0%} of the sustainable rate, by messages sent"
    needs = PUBSUB
    figure = "mean us"
    more = ("p50 us", "p99 us", "rate", "lost")
    less_is_better = True
    axis = "messages"

    def points(self, settings: Settings) -> Sequence[int]:
        if settings.quick:
            return (10_000, 100_000)
        return (10_000, 100_000, 1_000_000)

    async def measure(self, running: Running, point: int, settings: Settings) -> JSON:
        rate = SHARE * await settings.sustainable(running)
        longest = 3 * settings.seconds
        if point / rate > longest:
            raise Failed(f"{point:,} messages would take {point / rate:,.0f} s at {rate:,.0f}/s")
        return {**await publish(running, point, KiB, rate=rate), "rate": rate}


class Sizes(Scenario):
    """One to one, from 16 bytes to 1 MiB."""

    name = "sizes"
    title = "Publish/subscribe by size of the message"
    needs = PUBSUB
    figure = "received/s"
    more = ("MB/s", "lost", "messages")
    axis = "bytes"

    def points(self, settings: Settings) -> Sequence[int]:
        if settings.quick:
            return (16, 16 * KiB)
        return (16, 128, KiB, 8 * KiB, 64 * KiB, MiB)

    def fits(self, system: System, point: int) -> bool:
        return super().fits(system, point) and point <= system.max_size

    async def measure(self, running: Running, point: int, settings: Settings) -> JSON:
        wanted = min(settings.messages, ENOUGH_BYTES // point)
        messages = await settings.affordable(running, wanted, point)
        figures = await publish(running, messages, point)
        return {**figures, "MB/s": figures["received/s"] * point / 1e6}


class FanOut(Scenario):
    """One publisher, many subscribers that all get everything. What is compared is deliveries a second."""

    name = "fanout"
    title = "Deliveries a second by number of subscribers, 1 KiB"
    needs = PUBSUB
    figure = "received/s"
    more = ("sent/s", "lost", "messages")
    axis = "subscribers"

    def points(self, settings: Settings) -> Sequence[int]:
        return (1, 10) if settings.quick else (1, 10, 100)

    async def measure(self, running: Running, point: int, settings: Settings) -> JSON:
        wanted = max(500, settings.messages // (2 * point))
        messages = await settings.affordable(running, wanted, KiB, point)
        return await publish(running, messages, KiB, subscribers=point)
