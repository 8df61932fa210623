"""How a cluster's calls ended and how long they took, counted (pure).

Counts only ever grow, so whoever looks twice knows the rate and the percentiles
of the time in between, however many look and however often.
"""

from __future__ import annotations

from bisect import bisect_left

BOUNDS = tuple(50e-6 * 2 ** (step / 2) for step in range(41))
"""Upper bounds of the buckets in seconds, 50 us to 52 s, two to an octave. One more bucket holds what took longer."""


class Tally:
    """Counts of one cluster, seen from one side.

    Attributes:
        answered: Calls that were answered; a rejection on purpose is an answer.
        failed: Calls that ended with an error.
        took: Calls by the time they took, in the buckets of :data:`BOUNDS`.
    """

    __slots__ = ("answered", "failed", "took")

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self.took = [0] * (len(BOUNDS) + 1)

    def time(self, seconds: float) -> None:
        """A call took so long."""
        self.took[bisect_left(BOUNDS, seconds)] += 1
