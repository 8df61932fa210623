"""From "I do not hear it" to "it is dead" (pure): others are asked, and what they say moves the deadline.

Whoever hears the suspect puts the deadline off. Whoever does not confirms: the
more of those asked do, the sooner the suspect is dead. Source: the suspicion
subprotocol of SWIM (Das, Gupta, Motivala, 2002) with the timeouts of Lifeguard.
"""

from __future__ import annotations

import math
from typing import Final

from irisd.model import NodeId

LEAST: Final = 3.3
"""Intervals of silence before which nobody is dead: three, and what TCP needs to notice that a cable is back
(its fourth repetition comes after 3.0 to 3.2 s)."""
MOST: Final = 3.8
"""Intervals of silence after which it needs no confirmation."""
RELAPSE: Final = 2.0
"""Intervals without word from those who vouched before a node is suspect again."""
HELPERS: Final = 5
"""Most others that are asked at a time."""
FAR_HELPERS: Final = 3
"""The same where it may take a link of its own to ask one."""


class Suspicion:
    """A node that is not heard here.

    Attributes:
        since: Where its silence begins, awake time.
        interval: Seconds between the signs of life that are missing.
        asked: Who was asked about it.
        confirmed: Who of them does not hear it either.
        voucher: Who heard it last; empty: nobody since it is not heard here.
        next_ask: When to ask again.
    """

    __slots__ = ("asked", "confirmed", "interval", "next_ask", "since", "voucher")

    def __init__(self, since: float, awake: float, interval: float) -> None:
        self.since = since
        self.interval = interval
        self.asked: set[NodeId] = set()
        self.confirmed: set[NodeId] = set()
        self.voucher: NodeId = b""
        self.next_ask = awake

    def timeout(self) -> float:
        """Seconds of silence after which the node is dead."""
        interval = self.interval
        confirmed = len(self.confirmed & self.asked)
        if not self.asked:
            return LEAST * interval
        share = math.log(confirmed + 1) / math.log(len(self.asked) + 1)
        return (MOST - (MOST - LEAST) * share) * interval

    def vouch(self, by: NodeId, evidence: float) -> bool:
        """Somebody heard the node at ``evidence``; return whether that is news."""
        since = evidence + self.interval  # the next sign of life is due then
        if since <= self.since:
            return False
        self.since = since
        self.voucher = by
        self.asked.clear()  # of this silence nobody was asked yet
        self.confirmed.clear()
        return True
