"""How well this node itself keeps time (pure): whoever was held up doubts itself first.

A process that was stopped, or whose event loop was blocked, finds everybody
silent when it goes on. So silence is measured on a clock of its own, *awake
time*, that stands still while the node was held up; and a node that is held up
again and again gives others more time. Source: local health awareness of
Lifeguard (Dadgar, Phillips, Currey, 2017).
"""

from __future__ import annotations

from collections import deque
from typing import Final

MAX_SCORE: Final = 8
RECOVERY: Final = 5.0
"""Intervals without being held up after which complete rounds count."""
MEMORY: Final = 60.0
"""Seconds for which an operator is told that the node was held up."""
_TOLD: Final = 256


class Health:
    """The node's own time.

    Args:
        interval: Seconds between two heartbeats: being late by a quarter of it is being held up.
    """

    def __init__(self, interval: float) -> None:
        self.score = 0
        """0: well; each step stretches this node's own timeouts by a quarter."""
        self._tolerance = max(interval / 4, 0.02)
        self._recovery = RECOVERY * interval
        self._asleep = 0.0
        self._stalls: deque[tuple[float, float]] = deque(maxlen=_TOLD)

    def awake(self, now: float) -> float:
        """``now`` on the clock that stands still while the node is held up."""
        return now - self._asleep

    @property
    def stretch(self) -> float:
        """What this node's timeouts are multiplied by."""
        return 1.0 + self.score / 4

    def on_time(self, expected: float, now: float) -> None:
        """Something that was due at ``expected`` is done now; early is on time."""
        late = now - expected
        if late > self._tolerance:
            self._asleep += late
            self._stalls.append((now, late))
            self.worse()

    def worse(self) -> None:
        """The node was slow, or was taken for dead."""
        self.score = min(self.score + 1, MAX_SCORE)

    def better(self, now: float) -> None:
        """A round in which everybody answered in time; it counts when the node has kept time for a while."""
        if not self._stalls or now - self._stalls[-1][0] >= self._recovery:
            self.score = max(self.score - 1, 0)

    def stalls(self, now: float) -> tuple[int, float]:
        """How often the node was held up within the last minute, and how long at most, in seconds."""
        recent = [late for at, late in self._stalls if now - at <= MEMORY]
        return len(recent), max(recent, default=0.0)
