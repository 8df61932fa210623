"""Apps that have been told how their attachment ended, and may take a while to read it.

They are no attachments any more, so nothing else bounds them: there are few, they
hold little, and whoever does not read in time is cut off.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from irisd.model import MiB

MAX_LEAVING: Final = 256
"""Most at once on one lane; beyond, the one that has had longest to read is cut off."""
MAX_UNREAD: Final = 32 * MiB
"""Most bytes that wait for all of them together; likewise."""


class Leaver(Protocol):
    """A connection on which nothing more will be said."""

    @property
    def unread(self) -> int:
        """Bytes this process holds for it."""

    def close(self) -> None:
        """Cut it off."""


class Leaving:
    """Those of one lane.

    Args:
        patience: Seconds each has to read.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._waiting: dict[Leaver, asyncio.TimerHandle] = {}  # the first to leave first
        self._nobody = asyncio.Event()
        self._nobody.set()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, leaver: Leaver) -> None:
        """Give it its time, and the oldest of too many none."""
        self._waiting[leaver] = asyncio.get_running_loop().call_later(self._patience, self._cut, leaver)
        self._nobody.clear()
        while len(self._waiting) > MAX_LEAVING or sum(each.unread for each in self._waiting) > MAX_UNREAD:
            self._cut(next(iter(self._waiting)))

    def gone(self, leaver: Leaver) -> None:
        """It has read all, or broken off."""
        timer = self._waiting.pop(leaver, None)
        if timer is not None:
            timer.cancel()
        if not self._waiting:
            self._nobody.set()

    async def done(self) -> None:
        """Wait until nobody is left."""
        await self._nobody.wait()

    def close(self) -> None:
        """Cut off all of them."""
        for leaver in tuple(self._waiting):
            self._cut(leaver)

    def _cut(self, leaver: Leaver) -> None:
        self.gone(leaver)
        leaver.close()
