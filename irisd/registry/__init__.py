"""Who serves which name (pure): each node authors its own record, and holds the others'."""

from irisd.registry.record import Record
from irisd.registry.registry import MAX_CLAIMS, BlockKey, Match, OwnRecord, Registry
from irisd.registry.topics import MAX_SHAPES, TopicIndex, entries

__all__ = ["MAX_CLAIMS", "MAX_SHAPES", "BlockKey", "Match", "OwnRecord", "Record", "Registry", "TopicIndex", "entries"]
