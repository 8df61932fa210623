"""Flow (pure): outboxes, parts of large bodies, the publish ledger, timers. Every queue here is bounded."""

from irisd.flow.ledger import Ledger, TopicKey
from irisd.flow.outbox import Flow, Outbox
from irisd.flow.parts import Assembler, PartsError
from irisd.flow.timers import Timers

__all__ = ["Assembler", "Flow", "Ledger", "Outbox", "PartsError", "Timers", "TopicKey"]
