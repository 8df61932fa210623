"""What can be wrong: :class:`SpError` is the peer's fault, :class:`SpLimitError` our own."""

from __future__ import annotations

from enum import StrEnum

from irisd.errors import IrisdError, WireError


class SpFault(StrEnum):
    """Why bytes were refused; stable words for logs, counters and tests."""

    NOT_SP = "not-sp"
    """The first bytes are not ``00 'S' 'P'``: the peer speaks something else."""
    VERSION = "version"
    """An SP version other than 0."""
    RESERVED = "reserved"
    """The two reserved bytes of the hello are not zero."""
    OBSOLETE = "obsolete"
    """Endpoint 0x60 or 0x61, the survey protocol from before 1.0, without a backtrace."""
    WRONG_PEER = "wrong-peer"
    """An SP endpoint, but not one this endpoint may talk to."""
    NOT_IN_BAND = "not-in-band"
    """An ipc message whose type byte is not 1."""
    TOO_LARGE = "too-large"
    """A message above the size limit."""
    MALFORMED = "malformed"
    """A message too short for its protocol header, or a header without an end."""


class SpError(WireError):
    """The peer broke the Scalability Protocols, or a limit set on them.

    After it a byte stream cannot be trusted any more: close the connection.

    Attributes:
        fault: What is wrong, as a stable word (``reason`` is the same word as text).
        size: The size announced, in bytes; ``None`` where sizes play no part.
        limit: The limit it broke, in bytes; ``None`` likewise.
        endpoint: The endpoint number the peer announced; ``None`` where it did not get that far.
    """

    def __init__(
        self,
        fault: SpFault,
        detail: str,
        *,
        size: int | None = None,
        limit: int | None = None,
        endpoint: int | None = None,
    ) -> None:
        super().__init__(fault.value, detail)
        self.fault = fault
        self.size = size
        self.limit = limit
        self.endpoint = endpoint


class SpLimitError(IrisdError):
    """We asked for more than we may: a message above the peer's limit, or one survey too many.

    Nothing has happened and nothing was sent; the connection is as good as before.

    Attributes:
        wanted: What was asked for, in bytes or surveys.
        limit: The most that is possible, in the same unit.
    """

    def __init__(self, detail: str, *, wanted: int, limit: int) -> None:
        super().__init__(detail)
        self.wanted = wanted
        self.limit = limit
