"""Is the other side of this link still there (pure)? One object for each watched link.

The side that dialled asks, the other answers; both hear. Silence begins where
something was due and did not come: on the asking side when a question was left
without an answer, on the other when the next question should have come. So a
node that stops is never silent for longer than it has been stopped. All times
are awake time (:class:`~irisd.membership.health.Health`).
"""

from __future__ import annotations

from typing import Final

from irisd.model import NodeId

MISSED: Final = 2.0
"""Intervals of silence after which the answering side, which has then missed three questions, suspects the other."""


class Pulse:
    """One link's signs of life.

    Attributes:
        asks: Whether this side asks.
        interval: Seconds between two questions.
        heard: When anything last came.
        rtt: Seconds the last answer took; None on the answering side.
        health: How slow the peer says it is.
        speaks: Whether the peer knows more than heartbeats.
        curious: Who asked whether we hear this peer, and waits.
    """

    __slots__ = ("asked_at", "asks", "curious", "health", "heard", "interval", "rtt", "speaks")

    def __init__(self, *, asks: bool, interval: float, awake: float, speaks: bool) -> None:
        self.asks = asks
        self.interval = interval
        self.heard = awake
        self.asked_at: float | None = None
        self.rtt: float | None = None
        self.health = 0
        self.speaks = speaks
        self.curious: dict[NodeId, None] = {}

    def hear(self, awake: float) -> None:
        """Something came."""
        self.heard = awake
        self.asked_at = None

    def ask(self, awake: float) -> None:
        """A question leaves."""
        if self.asked_at is None:
            self.asked_at = awake

    def age(self, awake: float) -> float:
        """Seconds since anything last came."""
        return max(0.0, awake - self.heard)

    def silence(self, awake: float) -> float:
        """Seconds for which something is due that did not come."""
        if not self.asks:
            return max(0.0, awake - self.heard - self.interval)
        return 0.0 if self.asked_at is None else awake - self.asked_at

    def is_suspect(self, awake: float, stretch: float) -> bool:
        """Whether a round was missed."""
        missed = 1.0 if self.asks else MISSED
        return self.silence(awake) >= missed * stretch * self.interval
