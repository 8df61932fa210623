"""Keep one address linked (edge): dial, wait while there is a link, dial again."""

from __future__ import annotations

import asyncio
import random
from typing import Final, Protocol

from irisd.config import Address
from irisd.link.handshake import NOBODY
from irisd.link.outcome import LinkEnd, Outcome

STEADY: Final = 5.0
"""Seconds a link must have lasted for its address to be dialled again without delay growing."""


class Attempts(Protocol):
    """What a dial needs of its node's links."""

    async def attempt(self, address: Address, expected: bytes) -> tuple[LinkEnd, bytes]:
        """Dial once; return what became of it and who answered."""

    def is_linked(self, peer_id: bytes) -> bool:
        """Whether a link with this peer is up."""


class Dial:
    """One address that is dialled until it is forgotten.

    Delays double from ``first_delay`` to ``max_delay`` and are drawn from their
    upper half, so that two nodes that lost each other do not dial in step. While
    a link with the node behind the address is up, no matter who dialled it,
    nothing is dialled. Our own address is tried at the longest delay only: it
    may belong to somebody else one day.

    Args:
        attempts: The node's links.
        address: Where.
        expected: The only node that is welcome there; ``NOBODY``: any.
        first_delay: Seconds.
        max_delay: Seconds.
    """

    def __init__(
        self, attempts: Attempts, address: Address, expected: bytes, *, first_delay: float, max_delay: float
    ) -> None:
        self.address = address
        self.last: LinkEnd | None = None
        """How the last attempt ended."""
        self.peer_id = NOBODY
        """Who answered last."""
        self._attempts = attempts
        self._expected = expected
        self._first_delay = first_delay
        self._max_delay = max_delay
        self._nudge = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"dial {address}")

    def nudge(self) -> None:
        """Some link has ended: look whether it was this one."""
        self._nudge.set()

    def stop(self) -> asyncio.Task[None]:
        """Dial no more; return what is done when the last attempt is undone."""
        self._task.cancel()
        return self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            self.last, peer_id = await self._attempts.attempt(self.address, self._expected)
            if peer_id != NOBODY:
                self.peer_id = peer_id
            began = loop.time()
            was_linked = await self._while_linked()
            failures = 0 if was_linked and loop.time() - began >= STEADY else failures + 1
            await asyncio.sleep(self._delay(failures))
            await self._while_linked()

    async def _while_linked(self) -> bool:
        """Wait while a link with the node behind this address is up; return whether one was."""
        was_linked = False
        while self.peer_id != NOBODY and self._attempts.is_linked(self.peer_id):
            was_linked = True
            self._nudge.clear()
            await self._nudge.wait()
        return was_linked

    def _delay(self, failures: int) -> float:
        if self.last is not None and self.last.outcome is Outcome.SELF:
            longest = self._max_delay
        else:
            longest = min(self._max_delay, self._first_delay * 2.0 ** min(max(failures - 1, 0), 30))
        return longest * random.uniform(0.5, 1.0)
