"""One of those that could take a call, as the chooser knows it (pure).

A candidate is a member, seen by its own node, or all members of a cluster on
another node, seen by a caller's node. Both are chosen by the same rules
(:mod:`irisd.router.balance`) from the same few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from enum import Enum

SMOOTHING = 0.1
"""Weight of a new sample in the smoothed latency and the share of failures."""

HALF_LIFE = 5.0
"""Seconds without a sample in which what is known of a candidate loses half its weight: so it is tried again."""

TOLD_FOR = 2.0
"""Seconds for which a node's word of how busy it is counts, ever less."""

FLOOR = 0.005
"""Seconds. Below this it is the scheduler that differs, not the candidate."""


class Ended(Enum):
    """How a call ended, as far as it says something of whoever had it."""

    WELL = 1
    """It was answered; a rejection on purpose is an answer."""
    BADLY = 2
    """Its handler failed, or it was not answered in time."""
    OTHERWISE = 3
    """Nothing follows from it: taken back, refused, cancelled."""


class Contender:
    """One of those that could take something, of whom nothing is known but how busy it is.

    Attributes:
        weight: Its share of what there is.
        turn: How much it was given, for its weight: evens out what is equal otherwise.
    """

    __slots__ = ("turn",)

    weight: float = 1.0

    def __init__(self) -> None:
        self.turn = 0.0

    def load(self, now: float) -> float:
        """What it has of what it can have; above 1 things wait."""
        return 0.0

    def pace(self, now: float) -> float:
        """Seconds it is expected to take; 0 if nothing is known."""
        return 0.0

    def fails(self, now: float) -> float:
        """The share of what it was given that ended badly."""
        return 0.0


class Candidate(Contender):
    """What is known of a member, or of a node's members of a cluster.

    Attributes:
        weight: Calls it takes at once.
        latency: Smoothed seconds to an answer; 0 before the first.
        failing: Smoothed share of calls that ended badly, 0 to 1.
        streak: Calls in a row that ended badly.
    """

    __slots__ = (
        "_told",
        "_told_at",
        "ended",
        "failing",
        "latency",
        "sampled",
        "samples",
        "streak",
        "under_way",
        "weight",
    )

    def __init__(self, weight: float = 1) -> None:
        super().__init__()
        self.weight = weight
        self.under_way: dict[Hashable, float] = {}  # since when, oldest first
        self.latency = 0.0
        self.failing = 0.0
        self.streak = 0
        self.sampled = -math.inf
        self.ended = -math.inf
        self._told = 0
        self._told_at = -math.inf

    @property
    def outstanding(self) -> int:
        """Calls it was given by whoever counts here and that have not ended."""
        return len(self.under_way)

    def busy(self, now: float) -> float:
        """Calls it has, those of others included as far as it told of them."""
        age = now - self._told_at
        others = self._told * (1 - age / TOLD_FOR) if age < TOLD_FOR else 0.0
        return len(self.under_way) + others

    def load(self, now: float) -> float:
        """Share of its slots taken; above 1 calls wait."""
        return self.busy(now) / self.weight if self.weight > 0 else math.inf

    def pace(self, now: float) -> float:
        """Seconds an answer is expected to take, :data:`FLOOR` at least; 0 if nothing is known.

        The smoothed latency, fading while there are no samples; or, if that is
        longer, for how long nothing has come back of what it has.
        """
        pace = self.latency
        idle = now - self.sampled
        if pace and idle > 1.0:
            pace *= 0.5 ** (idle / HALF_LIFE)
        if self.under_way:
            oldest = next(iter(self.under_way.values()))
            pace = max(pace, now - max(oldest, self.ended))
        return max(pace, FLOOR) if pace else 0.0

    def fails(self, now: float) -> float:
        """The share of failures, fading while there are no samples."""
        idle = now - self.sampled
        return self.failing * 0.5 ** (idle / HALF_LIFE) if self.failing and idle > 1.0 else self.failing

    def begin(self, call: Hashable, now: float) -> None:
        """It was given a call."""
        self.under_way[call] = now
        if self.weight > 0:
            self.turn += 1 / self.weight

    def end(self, call: Hashable, now: float, ended: Ended, *, timed: bool = True) -> float | None:
        """A call it was given has ended; an unknown one is ordinary.

        Args:
            call: The same as for :meth:`begin`.
            now: When.
            ended: How.
            timed: Its time says something of how fast others will be.

        Returns:
            Seconds for which it had the call; None if it did not.
        """
        began = self.under_way.pop(call, None)
        if began is None:
            return None
        self.ended = now
        if ended is not Ended.OTHERWISE:
            self._judge(began, now, ended, timed)
        return now - began

    def missed(self, call: Hashable, now: float) -> None:
        """A call that it has was not answered in time; it has it still."""
        began = self.under_way.get(call)
        if began is not None:
            self._judge(began, now, Ended.BADLY, True)

    def _judge(self, began: float, now: float, ended: Ended, timed: bool) -> None:
        if ended is Ended.BADLY:
            self.failing += SMOOTHING * (1 - self.failing)
            self.streak += 1
            timed = timed and now - began > max(self.latency, FLOOR)  # one that fails fast must not look fast
        else:
            self.failing -= SMOOTHING * self.failing
            self.streak = 0
        if timed:
            took = now - began
            self.latency = took if not self.latency else self.latency + SMOOTHING * (took - self.latency)
        self.sampled = now

    def told(self, busy: int, now: float) -> None:
        """It says how many calls it has, from whomever."""
        self._told = max(0, busy - len(self.under_way))
        self._told_at = now

    def forgive(self) -> None:
        """Forget its failures: whoever knows better has said that it is sound again."""
        self.failing = 0.0
        self.streak = 0
