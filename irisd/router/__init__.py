"""Where a message goes (pure): names, the choice among members, and calls under way."""

from irisd.router.balance import Rotation, least_outstanding
from irisd.router.calls import Call, CallState, Gather, Leg, Tunnel
from irisd.router.names import Address, BadName, parse_address, valid_cluster, valid_filter, valid_topic

__all__ = [
    "Address",
    "BadName",
    "Call",
    "CallState",
    "Gather",
    "Leg",
    "Rotation",
    "Tunnel",
    "least_outstanding",
    "parse_address",
    "valid_cluster",
    "valid_filter",
    "valid_topic",
]
