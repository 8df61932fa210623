"""Flow (pure): outboxes, parts of large bodies, the publish ledger, credit, timers. Every queue here is bounded."""

from irisd.flow.credit import Book, Purse, Queue
from irisd.flow.ledger import Ledger, TopicKey
from irisd.flow.outbox import Flow, Outbox
from irisd.flow.parts import Assembler, PartsError
from irisd.flow.timers import Timers

__all__ = ["Assembler", "Book", "Flow", "Ledger", "Outbox", "PartsError", "Purse", "Queue", "Timers", "TopicKey"]
