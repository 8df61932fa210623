"""How dials, accepted connections and links end: every way has a name (pure).

The same names appear in logs, in ``doctor``, in metric labels and in tests.
Those that travel, sealed or in the clear, have a number; numbers are on the
wire, so they are only ever added.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from irisd.model import PeerInfo

MAX_DETAIL_BYTES: Final = 200


class Outcome(StrEnum):
    """What became of a dial, an accepted connection or a link."""

    LINKED = "linked"
    """Control and data connection are up."""
    CLOSED = "closed"
    """Ended on purpose, and said so."""

    # Before keys are agreed.
    UNREACHABLE = "unreachable"
    """Nothing answers at the address, or its name does not resolve."""
    BAD_PREAMBLE = "bad-preamble"
    """The first bytes are not those of a link: a browser, a scanner, another protocol."""
    WRONG_VERSION = "wrong-version"
    WRONG_KEY = "wrong-key"
    """The other side does not hold the key it names, or we do not."""
    OVERLOADED = "overloaded"
    """Too many half-open connections, or the handshake budget is used up."""
    TIMEOUT = "timeout"
    """The other side took too long."""
    SELF = "self"
    """We reached ourselves."""
    MISROUTED = "misrouted"
    """Another node than the expected one answers there."""
    UNBOUND = "unbound"
    """A data connection without its control connection."""
    UNCONFIRMED = "unconfirmed"
    """A first message that nobody stood by: a replay, or a peer that went away."""
    DUPLICATE = "duplicate"
    """The two nodes have a link, or are making one, over another connection."""

    # After.
    REPLACED = "replaced"
    """A newer link with the same peer took its place, this one was found dead."""
    TAMPERED = "tampered"
    """A record does not open: it was changed, cut, reordered or replayed."""
    BROKEN = "broken"
    """The connection ended without a sealed close."""
    SILENT = "silent"
    """Nothing was heard for too long."""
    IDLE = "idle"
    """Nobody needed it; another is made when somebody does."""
    VIOLATION = "violation"
    """The peer holds the key and still breaks the protocol."""
    EXHAUSTED = "exhausted"
    """So many records that the session's keys are used up: link again."""
    STOPPING = "stopping"
    """The daemon is shutting down."""


CODES: Final[dict[Outcome, int]] = {
    Outcome.CLOSED: 0,
    Outcome.WRONG_VERSION: 1,
    Outcome.WRONG_KEY: 2,
    Outcome.OVERLOADED: 3,
    Outcome.TIMEOUT: 4,
    Outcome.SELF: 5,
    Outcome.MISROUTED: 6,
    Outcome.UNBOUND: 7,
    Outcome.DUPLICATE: 8,
    Outcome.REPLACED: 9,
    Outcome.TAMPERED: 10,
    Outcome.BROKEN: 11,
    Outcome.SILENT: 12,
    Outcome.VIOLATION: 13,
    Outcome.EXHAUSTED: 14,
    Outcome.STOPPING: 15,
    Outcome.IDLE: 16,
}
OUTCOMES: Final[dict[int, Outcome]] = {code: outcome for outcome, code in CODES.items()}


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """Why a link, or a connection that wanted to become one, is over."""

    outcome: Outcome
    detail: str = ""
    by_peer: bool = False
    """The peer said so; otherwise we found it ourselves."""

    def __str__(self) -> str:
        said = f"{self.outcome}: {self.detail}" if self.detail else str(self.outcome)
        return f"{said} (said by the peer)" if self.by_peer else said


@dataclass(frozen=True, slots=True)
class LinkFact:
    """One dial or accepted connection has reached its end, or a link is up."""

    outcome: Outcome
    address: str
    """Dialled, or remote: ``host:port``."""
    dialled: bool
    detail: str = ""
    service: str = ""
    """Empty while the key id is not known: nobody's connection yet."""
    purpose: str = ""
    """``control``, ``data``, or empty while unknown."""
    peer: PeerInfo | None = None
    """What the other side says it is; proven unless the outcome is from before keys were agreed."""
    by_peer: bool = False
    repeated: int = 1
    """How many equal facts about this host this one stands for."""
