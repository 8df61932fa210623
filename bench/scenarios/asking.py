"""Requests: how long one takes, and how many there are in a second."""

from __future__ import annotations

from collections.abc import Sequence

from bench.measure import Running, request
from bench.process import JSON
from bench.scenarios.base import KiB, Scenario, Settings
from bench.systems.base import REQUEST

RATE = 300.0
"""Requests/s; low enough for everything measured here, so that it shows the trip and no queue."""


class RoundTrip(Scenario):
    """Requests of 1 KiB at a fixed rate; latency counts from the intended instant."""

    name = "roundtrip"
    title = f"Round trip of a request at {RATE:.0f}/s, 1 KiB"
    needs = REQUEST
    figure = "p50 us"
    more = ("p99 us", "p99.9 us", "mean us")
    less_is_better = True

    async def measure(self, running: Running, point: int, settings: Settings) -> JSON:
        return await request(running, KiB, 8, settings.seconds, RATE)


class InFlight(Scenario):
    """Requests/s with a fixed number of them under way."""

    name = "requests"
    title = "Requests a second by number in flight, 1 KiB"
    needs = REQUEST
    figure = "requests/s"
    axis = "in flight"

    def points(self, settings: Settings) -> Sequence[int]:
        return (1, 64) if settings.quick else (1, 64, 512)

    async def measure(self, running: Running, point: int, settings: Settings) -> JSON:
        return await request(running, KiB, point, settings.seconds / 2)
