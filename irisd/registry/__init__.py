"""Who serves which name (pure): each node authors its own record, and holds the others'."""

from irisd.registry.registry import MAX_CLAIMS, BlockKey, Match, OwnRecord, Registry
from irisd.registry.topics import TopicIndex

__all__ = ["MAX_CLAIMS", "BlockKey", "Match", "OwnRecord", "Registry", "TopicIndex"]
