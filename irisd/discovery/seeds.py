"""Seeds: addresses the operator named, and the names among them asked about again and again (edge).

A name may stand for one host or for all nodes of a Kubernetes headless service,
so every address it has is a candidate, and it is resolved anew: pods come and
go under one name.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Final

from irisd.config import Address
from irisd.discovery.announcement import is_ip

RESOLVE_EVERY: Final = 30.0
"""Seconds, give or take a fifth."""
RETRY_FIRST: Final = 0.5
"""Seconds until a name that does not resolve is asked about again; doubles up to ``RESOLVE_EVERY``."""
RESOLVE_TIMEOUT: Final = 10.0
MAX_RESOLVED: Final = 1_024
"""Most addresses one name may stand for."""

Changed = Callable[[Address, set[Address], set[Address]], None]


class Seed:
    """One seed, kept resolved until it is stopped.

    Args:
        written: As the operator wrote it.
        changed: Told with this seed's address, what is new and what is gone, at each change.

    Attributes:
        addresses: What it stands for now.
        problem: Why it was not resolved the last time; empty: it was.
    """

    def __init__(self, written: Address, changed: Changed) -> None:
        self.written = written
        self.addresses: set[Address] = set()
        self.problem = ""
        self._changed = changed
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; an IP address is known at once."""
        if is_ip(self.written.host):
            self._now({self.written})
        else:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"seed {self.written}")

    def end(self) -> None:
        """Ask no more, and do not wait for what was asked."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Ask no more."""
        self.end()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = RETRY_FIRST
        while True:
            try:
                async with asyncio.timeout(RESOLVE_TIMEOUT):
                    found = await resolve(self.written)
            except TimeoutError:
                self.problem = f"{self.written.host} was not resolved within {RESOLVE_TIMEOUT:g} s"
            except OSError as error:
                self.problem = f"{self.written.host} does not resolve: {error.strerror or error}"
            else:
                self.problem = ""
                self._now(found)
            if self.problem:  # what it stood for stays: a name server that is down must not take a mesh apart
                wait, pause = pause, min(pause * 2, RESOLVE_EVERY)
            else:
                wait, pause = RESOLVE_EVERY, RETRY_FIRST
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))

    def _now(self, found: set[Address]) -> None:
        new, gone = found - self.addresses, self.addresses - found
        self.addresses = found
        if new or gone:
            self._changed(self.written, new, gone)


async def resolve(address: Address) -> set[Address]:
    """All addresses a name stands for, IPv4 and IPv6.

    Raises:
        OSError: It does not resolve.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return {Address(str(where[0]), address.port) for _, _, _, _, where in found[:MAX_RESOLVED]}
