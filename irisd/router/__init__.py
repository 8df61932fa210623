"""Where a message goes (pure): names, the choice among candidates, and calls under way."""

from irisd.router.balance import FEW, MAX_KEY, Chooser, Foresight, Pool, Rotation, cost, rank
from irisd.router.budget import RetryBudget
from irisd.router.calls import Call, CallState, Gather, Hedge, Leg, Tunnel
from irisd.router.candidate import Candidate, Contender, Ended
from irisd.router.names import Address, BadName, parse_address, valid_cluster, valid_filter, valid_topic
from irisd.router.tally import BOUNDS, Tally

__all__ = [
    "BOUNDS",
    "FEW",
    "MAX_KEY",
    "Address",
    "BadName",
    "Call",
    "CallState",
    "Candidate",
    "Chooser",
    "Contender",
    "Ended",
    "Foresight",
    "Gather",
    "Hedge",
    "Leg",
    "Pool",
    "RetryBudget",
    "Rotation",
    "Tally",
    "Tunnel",
    "cost",
    "parse_address",
    "rank",
    "valid_cluster",
    "valid_filter",
    "valid_topic",
]
