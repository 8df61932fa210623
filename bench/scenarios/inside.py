"""What only irisd has, or only its inside shows: tunnels, idle attachments, matching."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import psutil

from bench.limits import tunnel_limit
from bench.measure import Running, stream
from bench.process import JSON, Failed
from bench.scenarios.base import Alone, Scenario, Settings
from bench.systems.base import ATTACH, TUNNEL, System

CHUNK = 64 * 1024
PER_PROCESS = 500


class Tunnels(Scenario):
    """One stream of 64 KiB messages; the raw socket beside it has no flow control, names or messages."""

    name = "tunnel"
    title = "One tunnel, 64 KiB messages"
    needs = TUNNEL
    figure = "MB/s"

    async def measure(self, running: Running, point: int, settings: Settings) -> JSON:
        return await stream(running, CHUNK, 1_024 if settings.quick else 8_192)


class Limit(Alone):
    """The least that a byte of a tunnel between two nodes costs here."""

    name = "limit"
    title = "One sealing (AES-256-GCM) and two Unix-socket copies, 64 KiB"
    figure = "MB/s"
    more = ("AEAD MB/s", "socket MB/s")
    subjects = ("this machine",)

    async def measure_alone(self, subject: str, point: int, settings: Settings) -> JSON:
        return dict(await asyncio.to_thread(tunnel_limit))


class Attachments(Scenario):
    """Memory of one daemon per idle attachment: a fresh daemon, then so many apps that do nothing."""

    name = "attachments"
    title = "Daemon's memory per idle attachment"
    needs = ATTACH
    figure = "KB each"
    more = ("daemon MB",)
    less_is_better = True
    once = True
    axis = "attachments"

    def points(self, settings: Settings) -> Sequence[int]:
        """Ten thousand, or as many as two files each allow."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = 10_000 if files == resource.RLIM_INFINITY else max(100, (files - 1_000) // 2 // 100 * 100)
        return (500,) if settings.quick else (min(10_000, most),)

    def fits(self, system: System, point: int) -> bool:
        return super().fits(system, point) and getattr(system, "nodes", 1) == 1

    async def measure(self, running: Running, point: int, settings: Settings) -> JSON:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            async with running.system.serve(Path(folder)) as address:
                daemon = psutil.Process(address["pids"][0])
                fresh = Running(running.system, address)
                async with AsyncExitStack() as stack:
                    await self._attach(stack, fresh, 50)  # what the first ones cost belongs to the daemon
                    before = daemon.memory_info().rss
                    for start in range(0, point, PER_PROCESS):
                        await self._attach(stack, fresh, min(PER_PROCESS, point - start))
                    after = daemon.memory_info().rss
        return {"KB each": (after - before) / point / 1000, "daemon MB": after / 1e6}

    @staticmethod
    async def _attach(stack: AsyncExitStack, fresh: Running, attachments: int) -> None:
        worker = await stack.enter_async_context(fresh.role("idle", attachments=attachments))
        await worker.says("ready")


class Matching(Alone):
    """Where a topic's messages go, asked of the registry itself; every topic is a new one."""

    name = "matching"
    title = "Time to match one topic, by subscriptions"
    figure = "match us"
    more = ("bytes each",)
    less_is_better = True
    axis = "subscriptions"
    subjects = ("registry",)

    def points(self, settings: Settings) -> Sequence[int]:
        return (10, 1_000, 100_000) if settings.quick else (10, 1_000, 100_000, 1_000_000)

    async def measure_alone(self, subject: str, point: int, settings: Settings) -> JSON:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.matching", str(point), stdout=asyncio.subprocess.PIPE
        )
        try:
            out, _ = await process.communicate()
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            raise Failed(f"bench.matching ended with {process.returncode}")
        found: JSON = json.loads(out)
        return found
