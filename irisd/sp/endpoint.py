"""Endpoint types: who speaks which protocol, and to whom.

An endpoint number is ``protocol * 16 + role``. Both sides announce theirs in
the hello; a conversation exists only between an endpoint and its :attr:`peer`.

Numbers 0x60 and 0x61 (the survey protocol from before 1.0, which has no
backtrace) have no member here on purpose: nobody can offer or accept them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

OBSOLETE_ENDPOINTS: Final = frozenset({0x60, 0x61})
"""Numbers to refuse with their own fault, because old software may still announce them."""


class EndpointType(IntEnum):
    """One role of one Scalability Protocol, by its number in the hello."""

    # Numbers are on the wire: append only.
    PAIR0 = 0x10
    PAIR1 = 0x11
    PUB = 0x20
    SUB = 0x21
    REQ = 0x30
    REP = 0x31
    PUSH = 0x50
    PULL = 0x51
    SURVEYOR = 0x62
    RESPONDENT = 0x63
    BUS = 0x70
    STAR = 0x640

    @property
    def peer(self) -> EndpointType:
        """The only endpoint this one may talk to."""
        return _PEERS[self]


def _pair_up(*pairs: tuple[EndpointType, EndpointType]) -> dict[EndpointType, EndpointType]:
    return {one: other for left, right in pairs for one, other in ((left, right), (right, left))}


_PEERS: Final = _pair_up(
    (EndpointType.PAIR0, EndpointType.PAIR0),
    (EndpointType.PAIR1, EndpointType.PAIR1),
    (EndpointType.PUB, EndpointType.SUB),
    (EndpointType.REQ, EndpointType.REP),
    (EndpointType.PUSH, EndpointType.PULL),
    (EndpointType.SURVEYOR, EndpointType.RESPONDENT),
    (EndpointType.BUS, EndpointType.BUS),
    (EndpointType.STAR, EndpointType.STAR),
)
