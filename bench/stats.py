"""Figures from samples (pure): medians with their spread, percentiles, ratios, schedules."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some rounds, and how far they lie apart."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Sum up one figure of all rounds.

    Raises:
        ValueError: There are none.
    """
    if not values:
        raise ValueError("no values")
    return Spread(statistics.median(values), min(values), max(values))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of ``ordered`` do not exceed: a sample, never something between two.

    Args:
        ordered: Rising.
        share: 0.99 for the 99th percentile.

    Raises:
        ValueError: There are no values, or ``share`` is none.
    """
    if not ordered or not 0 <= share <= 1:
        raise ValueError("a percentile needs values and a share from 0 to 1")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When things are to be sent, whatever became of those before.

    A latency counted from :meth:`due` holds the time a late sender made it wait. Counted from the sending it
    would leave out exactly the worst moments: a stalled system also stalls whoever asks it.

    Attributes:
        start: The instant of the first, in seconds.
        rate: How many a second.
    """

    start: float
    rate: float

    def due(self, number: int) -> float:
        """The intended instant of one, counted from 0."""
        return self.start + number / self.rate


def latencies(schedule: Schedule, ended: Sequence[float]) -> list[float]:
    """How long each took from its intended instant to its end, rising.

    Args:
        schedule: When each was due.
        ended: The instant at which number 0, 1, 2 ... ended.
    """
    return sorted(end - schedule.due(number) for number, end in enumerate(ended))


def summary(ordered: Sequence[float]) -> dict[str, float]:
    """Mean and percentiles of rising latencies in seconds, as figures in microseconds."""
    return {
        "mean us": statistics.fmean(ordered) * 1e6,
        "p50 us": percentile(ordered, 0.5) * 1e6,
        "p99 us": percentile(ordered, 0.99) * 1e6,
        "p99.9 us": percentile(ordered, 0.999) * 1e6,
    }


def ratio(value: float, base: float) -> float | None:
    """``value`` in terms of ``base``; None where the base is nothing."""
    return value / base if base else None


def human(value: float) -> str:
    """A figure with the digits it deserves: three that mean something."""
    if value and abs(value) < 10:
        return f"{value:.2f}"
    if abs(value) < 100:
        return f"{value:.1f}"
    return f"{value:,.0f}"
