"""The drain of a daemon: all its nodes at once, within a time, and how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from irisd.attach import DrainInfo
from irisd.daemon.service import Service

_log = structlog.get_logger("irisd")


class Drain:
    """One drain, from the moment the daemon is told to stop.

    Args:
        timeout: Seconds it may take.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._until: float | None = None
        self._last: DrainInfo | None = None  # how it ended

    async def run(self, services: Sequence[Service], now: asyncio.Event, clock: Callable[[], float]) -> None:
        """Let what is under way end, for at most ``timeout`` or until ``now`` is set."""
        self._until = clock() + self.timeout
        for service in services:
            service.drain()
        quiet = asyncio.gather(*(service.quiet() for service in services))
        hurry = asyncio.ensure_future(now.wait())
        try:
            await asyncio.wait((quiet, hurry), timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
            last = self.info(services, clock())
            if not quiet.done():
                _log.warning("daemon.drain_cut_short", under_way=last.under_way, attachments=last.attachments)
            self._last = replace(last, drained=True, cut_short=not quiet.done())
        finally:
            for waiter in (quiet, hurry):
                waiter.cancel()
                with suppress(asyncio.CancelledError):
                    await waiter

    def info(self, services: Sequence[Service], now: float) -> DrainInfo:
        """How it goes, or how it ended."""
        if self._last is not None:
            return self._last
        ends = [end for service in services for end in service.node.core.apps.values()]
        ends_of_peers = [end for service in services for end in service.node.core.peers.values()]
        return DrainInfo(
            under_way=sum(service.node.under_way for service in services),
            attachments=len(ends),
            queued=sum(end.outbox.bytes + end.outbox.urgent_bytes for end in (*ends, *ends_of_peers)),
            left=self.timeout if self._until is None else max(0.0, self._until - now),
        )
