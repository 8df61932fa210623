"""Discovery's view of the links: what it asks of them, in its own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from irisd.config import Address
from irisd.discovery import NOBODY, Attempted
from irisd.link.outcome import Outcome
from irisd.link.service import LinkService

HOPELESS: Final = frozenset({Outcome.SELF, Outcome.MISROUTED, Outcome.WRONG_KEY, Outcome.WRONG_VERSION})
"""Ends that the same dial would have a moment later too."""

_log = structlog.get_logger("irisd")


class DiscoveryLinks:
    """Dials for discovery.

    Args:
        links: All links of the daemon.
        wants: Whether the node of a service wants to be linked with another.
    """

    def __init__(self, links: LinkService, wants: Callable[[str, bytes], bool] = lambda service, node_id: True) -> None:
        self._links = links
        self._wants = wants

    async def attempt(self, service: str, addresses: Sequence[Address], expected: bytes) -> Attempted:
        """Dial once, at all addresses; say what became of it."""
        finish = await self._links.attempt(service, addresses, expected)
        return Attempted(
            outcome=str(finish.end.outcome),
            detail=finish.end.detail,
            linked=finish.end.outcome is Outcome.LINKED,
            node_id=finish.node_id,
            address=finish.address,
            hopeless=finish.end.outcome in HOPELESS,
        )

    def is_linked(self, service: str, node_id: bytes) -> bool:
        """Whether a link with this node is up."""
        return self._links.is_linked(service, node_id)

    def wants(self, service: str, node_id: bytes) -> bool:
        """Whether to dial this node now; whose id is not known is always dialled."""
        return node_id == NOBODY or self._wants(service, node_id)


def tell(event: str, *, warning: bool = False, **fields: object) -> None:
    """Log a fact of discovery's."""
    (_log.warning if warning else _log.info)(event, **fields)
