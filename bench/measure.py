"""One measurement: workers in their roles around a running system."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psutil

from bench.process import JSON, Failed, Worker, worker
from bench.systems.base import System

WINDOW_MESSAGES = 8_192
WINDOW_BYTES = 32 * 2**20
REPORTS_PER_WINDOW = 8
MAX_PROCESSES = 10
USED = ("sender cpu s", "servers cpu s", "receivers cpu s")
SETTLE = 40.0
"""Seconds until all subscribers have seen a first message."""
GRACE = 20.0
"""Seconds a subscriber may need after its publisher has finished."""


@dataclass(frozen=True, slots=True)
class Running:
    """A system whose server, if it has one, is up."""

    system: System
    address: JSON

    def used(self, senders: list[Worker], receivers: list[Worker]) -> list[float]:
        """Seconds of processor time so far: of those that begin, of the servers that are known, of the other end."""
        groups = ([each.pid for each in senders], self.address.get("pids", []), [each.pid for each in receivers])
        return [sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in group) for group in groups]

    @asynccontextmanager
    async def role(self, role: str, endpoints: list[str] | None = None, **more: object) -> AsyncIterator[Worker]:
        spec = {
            "system": self.system.name,
            "role": role,
            "address": self.address,
            "endpoints": endpoints or [],
            **more,
        }
        async with worker(spec, self.system.environment()) as running:
            yield running


def window_for(system: System, size: int) -> int:
    """Messages a publisher may be ahead; 0: the system sees to that."""
    return max(8, min(WINDOW_MESSAGES, WINDOW_BYTES // size)) if system.window else 0


def shares(subscribers: int) -> list[list[int]]:
    """Which subscribers live in which process: one each up to ten, then shared equally among ten."""
    processes = min(subscribers, MAX_PROCESSES)
    return [list(range(number, subscribers, processes)) for number in range(processes)]


async def publish(
    running: Running, messages: int, size: int, subscribers: int = 1, rate: float = 0.0, stamped: bool = False
) -> JSON:
    """One publisher, some subscribers, each of which gets everything.

    Args:
        rate: Messages/s; 0: as fast as it goes.
        stamped: Subscribers look at the clock and the stamp of every message, which they always do at a rate.

    Returns:
        ``sent/s``: until the publisher had handed over everything. ``received/s``: of all subscribers together, from
        the beginning of the publishing to the last message received. ``lost``; and latencies when paced.
    """
    window = window_for(running.system, size)
    every = max(1, window // REPORTS_PER_WINDOW) if window else 0
    common: JSON = {"messages": messages, "size": size, "rate": rate, "window": window, "every": every}
    common["stamped"] = stamped or bool(rate)
    async with AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(running.role("subscriber", numbers=numbers, **common))
            for numbers in shares(subscribers)
        ]
        endpoints = [place for reader in readers for place in await reader.says("ready") if place]
        writer = await stack.enter_async_context(
            running.role("publisher", endpoints=endpoints, subscribers=subscribers, **common)
        )
        await writer.says("ready")
        for reader in readers:
            await reader.says("seen", SETTLE)
        used = running.used([writer], readers)
        writer.go()
        sent = await writer.says("figures")
        found = await asyncio.gather(*(reader.says("figures", GRACE) for reader in readers))
        used = [after - before for before, after in zip(used, running.used([writer], readers), strict=True)]
    received = sum(one["received"] for one in found)
    if received < 2:
        raise Failed("nothing arrived")
    seconds = max(one["last"] for one in found) - sent["began"]  # the clock is the machine's, not the process's
    figures = {
        "received/s": received / seconds,
        "sent/s": sent["sent/s"],
        "lost": sum(one["lost"] for one in found),
        "messages": messages,
        **dict(zip(USED, used, strict=True)),
    }
    if rate:
        figures |= {name: found[0][name] for name in ("mean us", "p50 us", "p99 us", "p99.9 us")}
    return figures


async def request(running: Running, size: int, in_flight: int, seconds: float, rate: float = 0.0) -> JSON:
    """One that asks, one that answers."""
    async with running.role("responder") as responder:
        endpoints = [place for place in await responder.says("ready") if place]
        asking = running.role(
            "requester", endpoints=endpoints, size=size, in_flight=in_flight, seconds=seconds, rate=rate
        )
        async with asking as requester:
            await requester.says("ready")
            used = running.used([requester], [responder])
            requester.go()
            figures: JSON = await requester.says("figures")
            after = running.used([requester], [responder])
            return figures | {name: now - then for name, then, now in zip(USED, used, after, strict=True)}


async def stream(running: Running, chunk: int, chunks: int) -> JSON:
    """One tunnel, until the other end has everything."""
    async with running.role("responder") as responder:
        endpoints = [place for place in await responder.says("ready") if place]
        async with running.role("source", endpoints=endpoints, chunk=chunk, chunks=chunks) as source:
            await source.says("ready")
            source.go()
            figures: JSON = await source.says("figures")
            return figures
