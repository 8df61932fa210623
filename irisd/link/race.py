"""Dial a node at all its addresses at once (edge): the first that becomes a link wins.

A host has addresses that lead nowhere from here: of a container bridge, a VPN,
a network somebody else uses too. Some do not answer, at some answers somebody
else, and only the handshake tells. So whole attempts run against each other,
not just TCP connections: each address has a head start over the next, and the
next goes at once when one has failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from irisd.config import Address
from irisd.link.dialer import Attempts
from irisd.link.handshake import NOBODY
from irisd.link.outcome import LinkEnd, Outcome

STAGGER: Final = 0.25
"""Most seconds of head start an address has over the next."""
SPREAD: Final = 0.4
"""Seconds within which all addresses are under way, however many there are."""

_TELLING: Final = (Outcome.UNREACHABLE, Outcome.TIMEOUT, Outcome.SELF, Outcome.MISROUTED)
"""Outcomes that say little about the node we wanted, least first; any other says more."""


@dataclass(frozen=True, slots=True)
class Finish:
    """How a race ended: ``LINKED``, or the failure that says most, where it was, and who answered there."""

    end: LinkEnd
    address: Address
    node_id: bytes = NOBODY


async def race(attempts: Attempts, addresses: Sequence[Address], expected: bytes) -> Finish:
    """Dial once, at all addresses.

    Args:
        attempts: The node's links.
        addresses: At least one, best first.
        expected: The only node that is welcome; ``NOBODY``: any.

    Returns:
        The winner; or, when all have failed, the failure that says most.

    Raises:
        asyncio.CancelledError: Cancelled; every attempt is undone, a link that is up stays.
    """
    if len(addresses) == 1:
        end, node_id = await attempts.attempt(addresses[0], expected)
        return Finish(end, addresses[0], node_id)
    loop = asyncio.get_running_loop()
    stagger = min(STAGGER, SPREAD / (len(addresses) - 1))
    waiting = list(addresses)
    running: dict[asyncio.Task[tuple[LinkEnd, bytes]], Address] = {}
    best: Finish | None = None
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop(0)
                running[loop.create_task(attempts.attempt(address, expected), name=f"dial {address}")] = address
            done, _ = await asyncio.wait(
                running, timeout=stagger if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                address = running.pop(task)
                end, node_id = task.result()
                finish = Finish(end, address, node_id)
                if end.outcome is Outcome.LINKED:
                    return finish
                if best is None or _says(finish) > _says(best):
                    best = finish
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)
    assert best is not None, "a race needs an address"
    return best


def _says(finish: Finish) -> int:
    outcome = finish.end.outcome
    return _TELLING.index(outcome) if outcome in _TELLING else len(_TELLING)
