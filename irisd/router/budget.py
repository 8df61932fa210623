"""How much may be tried again (pure): retries must not multiply a failure into an overload.

Source: the retry budgets of Finagle and Linkerd: a share of the calls made, and
a little for those who make few.
"""

from __future__ import annotations

SHARE = 0.2
"""Retries that each call earns."""

A_SECOND = 10.0
"""Retries that each second earns."""

MOST = 1000.0
"""Retries that may be saved up."""


class RetryBudget:
    """What one app may have tried again."""

    __slots__ = ("_at", "_left")

    def __init__(self, now: float) -> None:
        self._left = 10 * A_SECOND
        self._at = now

    def earn(self) -> None:
        """A call was made."""
        self._left = min(MOST, self._left + SHARE)

    def spend(self, now: float) -> bool:
        """Whether one more retry may be made; it counts as made then."""
        self._left = min(MOST, self._left + A_SECOND * max(0.0, now - self._at))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
