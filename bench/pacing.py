"""Waiting for an instant, closely: asyncio's own timers are a millisecond coarse, which is longer than a round trip."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import time

SPIN = 150e-6
"""Seconds before the instant from which on it is awaited in a loop: waking takes about that long."""

_MONOTONIC = 1
_NONBLOCK = 0o4000
_libc = ctypes.CDLL(None, use_errno=True)


class Pacer:
    """Waits for instants of ``time.perf_counter``; for one task, and not at the same time for threads.

    Args:
        spin: How long before the instant to begin looking at the clock all the time, in seconds.
    """

    def __init__(self, spin: float = SPIN) -> None:
        self._spin = spin
        self._timer = _libc.timerfd_create(_MONOTONIC, _NONBLOCK) if hasattr(_libc, "timerfd_create") else -1

    async def until(self, due: float) -> None:
        """Let the loop work until then. It gets a turn even when the instant has passed."""
        wait = due - self._spin - time.perf_counter()
        if wait <= 0:
            await asyncio.sleep(0)
        elif self._timer < 0:
            await asyncio.sleep(wait)
        else:
            await self._tick(wait)
        while time.perf_counter() < due - 1e-6 and self._spin:
            pass

    def block_until(self, due: float) -> None:
        """The same for code without a loop."""
        wait = due - self._spin - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        while time.perf_counter() < due - 1e-6 and self._spin:
            pass

    def close(self) -> None:
        if self._timer >= 0:
            os.close(self._timer)
            self._timer = -1

    async def _tick(self, wait: float) -> None:
        seconds, rest = divmod(max(1, int(wait * 1e9)), 10**9)
        _libc.timerfd_settime(self._timer, 0, struct.pack("qqqq", 0, 0, seconds, rest), None)
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._timer, _wake, woken)
        try:
            await woken
        finally:
            loop.remove_reader(self._timer)
            os.read(self._timer, 8)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
