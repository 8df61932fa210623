"""Tickets for the local lane (pure): secrets that let one app in, once, for a few seconds.

What is kept is a digest of each, so a look-up takes no longer for a ticket that
is nearly right, and nothing here can give one away.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final, Generic, TypeVar

TICKET_BYTES: Final = 16
LIFETIME: Final = 5.0
"""Seconds a ticket is good for."""
MAX_TICKETS: Final = 4_096
"""Most that are good at once; beyond, the oldest is not any more."""

Holder = TypeVar("Holder")


class Refusal(StrEnum):
    """Why a ticket lets nobody in; stable words for counters and logs."""

    UNKNOWN = "unknown-ticket"  # never issued, used, forgotten, or late by more than anybody remembers
    LATE = "late-ticket"
    OTHER_USER = "other-user"


class Tickets(Generic[Holder]):
    """The tickets of one lane.

    Invariants:
        - a ticket that was shown is gone, whatever came of it
        - at most :data:`MAX_TICKETS` are held
    """

    def __init__(self) -> None:
        self._open: dict[bytes, tuple[Holder, int, float]] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._open)

    def issue(self, ticket: bytes, holder: Holder, user: int, now: float) -> None:
        """Let ``holder`` in with ``ticket``, if ``user`` shows it by ``now + LIFETIME``."""
        for digest, (_, _, until) in list(self._open.items()):
            if until >= now and len(self._open) < MAX_TICKETS:
                break
            del self._open[digest]
        self._open[_digest(ticket)] = (holder, user, now + LIFETIME)

    def redeem(self, ticket: bytes, user: int, now: float) -> Holder | Refusal:
        """Whom a ticket stands for, or why for nobody."""
        found = self._open.pop(_digest(ticket), None)
        if found is None:
            return Refusal.UNKNOWN
        holder, wanted, until = found
        if now > until:
            return Refusal.LATE
        if user != wanted:
            return Refusal.OTHER_USER
        return holder


def _digest(ticket: bytes) -> bytes:
    return hashlib.sha256(ticket).digest()
