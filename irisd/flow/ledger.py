"""What became of what was published to one node (pure).

Publishing is at most once, and every loss is counted and told. So each
direction between two nodes numbers its PUBLISH and LOST frames as the last byte
of each leaves; the sender remembers (topic, messages) of those not yet
acknowledged, never their bodies. When a link is made anew, the receiver says
which number it saw last, and what lies behind it is told as lost. The ledger
outlives links and dies with the node.
"""

from __future__ import annotations

import math
from collections import deque

ACK_EVERY = 64
"""The receiver acknowledges after this many frames."""

MAX_TOPICS = 4096
"""Losses of more topics than this are folded into one, the empty name: every topic lost something."""

TopicKey = tuple[str, str]
"""Topic and group ("" for every subscriber)."""


class Ledger:
    """Both directions towards one node."""

    def __init__(self) -> None:
        self.sent = 0
        self._unacknowledged: deque[tuple[int, TopicKey, int]] = deque()
        self._lost: dict[TopicKey, int] = {}
        self.received = 0
        self._acknowledged = 0

    @property
    def unacknowledged(self) -> int:
        """Frames sent and not yet acknowledged."""
        return len(self._unacknowledged)

    def sending(self, key: TopicKey, messages: int) -> int:
        """Number a frame that leaves now."""
        self.sent += 1
        self._unacknowledged.append((self.sent, key, messages))
        return self.sent

    def acknowledge(self, last: int) -> None:
        """The receiver has everything up to ``last``."""
        while self._unacknowledged and self._unacknowledged[0][0] <= last:
            self._unacknowledged.popleft()

    def lose(self, key: TopicKey, messages: int) -> None:
        """Messages that will never be sent; told at the next :meth:`relinked` or :meth:`untold`."""
        if key not in self._lost and len(self._lost) >= MAX_TOPICS:
            key = ("", "")
        self._lost[key] = self._lost.get(key, 0) + messages

    def relinked(self, last: int, before: float = math.inf) -> list[tuple[TopicKey, int]]:
        """A new link: the receiver had everything up to ``last``. Return what it lost, and forget it.

        What was sent after ``before`` went over the new link already, and is under way.
        """
        self.acknowledge(last)
        while self._unacknowledged and self._unacknowledged[0][0] <= before:
            _, key, messages = self._unacknowledged.popleft()
            self.lose(key, messages)
        return self.untold()

    def untold(self) -> list[tuple[TopicKey, int]]:
        """What was lost and not told yet. Forgotten: whoever asks tells it."""
        lost, self._lost = self._lost, {}
        return list(lost.items())

    def resumed(self, sent: int) -> bool:
        """A new link: the sender's last number is ``sent``. False if it has forgotten what it sent before."""
        if sent >= self.received:
            return True
        self.received = self._acknowledged = sent
        return False

    def receive(self, seq: int) -> bool:
        """Note an arrival; False for one seen before, which must be dropped."""
        if seq <= self.received:
            return False
        self.received = seq
        return True

    def acknowledgement(self) -> int | None:
        """The number to acknowledge, once enough frames have come."""
        if self.received - self._acknowledged < ACK_EVERY:
            return None
        self._acknowledged = self.received
        return self.received
