"""Finding candidates: multicast DNS, seeds, what peers told, what worked before.

Nothing found here is trusted. A candidate is an address somebody might answer
at; the handshake of ``irisd.link`` says who does.
"""

from __future__ import annotations

from irisd.discovery.discovery import Discovery, Presence
from irisd.discovery.table import NOBODY, Attempted

__all__ = ["NOBODY", "Attempted", "Discovery", "Presence"]
