"""``python -m bench``: what a mesh carries on this machine, for one node and for two.

Every figure comes from real processes: daemons, and one process for each app.
Rounds are interleaved and the median is shown, with the least and the most.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import click
import grpc
import psutil

from irisd import __version__
from irisd.demo.mesh import Mesh

SIZE = 1024
TIMEOUT = 180.0


class Worker:
    """A worker process and its two words: ready, and its figures."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, role: str, url: str, *numbers: int) -> Worker:
        """Start it and wait until it is in place."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.worker",
            role,
            url,
            *map(str, numbers),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        worker = cls(process)
        if await worker._line() != "ready":
            raise RuntimeError(f"the {role} did not start")
        return worker

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def figures(self) -> dict[str, float]:
        """Wait for its end and return what it measured."""
        found: dict[str, float] = json.loads(await self._line())
        await self._process.wait()
        return found

    async def end(self) -> None:
        """Close its standard input: the work is over."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), TIMEOUT)

    async def _line(self) -> str:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), TIMEOUT)
        if not line:
            raise RuntimeError("a worker ended without a word; its error is above")
        return line.decode().strip()


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[None]:
    """Have a member of the cluster at that daemon."""
    server = await Worker.start("server", url)
    try:
        yield
    finally:
        await server.end()


async def publish(mesh: Mesh, messages: int) -> dict[str, float]:
    """One publisher, one subscriber, lossless."""
    reader = await Worker.start("subscriber", mesh[-1].url, messages)
    writer = await Worker.start("publisher", mesh[0].url, messages, SIZE)
    writer.go()
    sent, received = await asyncio.gather(writer.figures(), reader.figures())
    return {
        "messages/s": received["received"] / received["seconds"],
        "lost": received["lost"],
        "sender messages/s": sent["sent"] / sent["seconds"],
    }


async def request(mesh: Mesh, in_flight: int, seconds: int) -> dict[str, float]:
    """Echo requests of 1 KiB."""
    async with serving(mesh[-1].url):
        asker = await Worker.start("requester", mesh[0].url, in_flight, seconds, SIZE)
        asker.go()
        found = await asker.figures()
    return {
        "requests/s": found["requests"] / found["seconds"],
        "p50 us": found["p50"] * 1e6,
        "p99 us": found["p99"] * 1e6,
        "p99.9 us": found["p999"] * 1e6,
    }


async def tunnel(mesh: Mesh, megabytes: int) -> dict[str, float]:
    """One tunnel, 64 KiB messages, until the other end has all of it."""
    async with serving(mesh[-1].url):
        sender = await Worker.start("source", mesh[0].url, megabytes)
        sender.go()
        found = await sender.figures()
    if not found["whole"]:
        raise RuntimeError("the tunnel lost bytes")
    return {"MB/s": found["bytes"] / found["seconds"] / 1e6}


async def idle(mesh: Mesh, seconds: float) -> dict[str, float]:
    """A daemon with nothing to do."""
    process = psutil.Process(mesh[0].pid)
    before = sum(process.cpu_times()[:2])
    await asyncio.sleep(seconds)
    used = sum(process.cpu_times()[:2]) - before
    return {"memory MB": process.memory_info().rss / 1e6, "% of a core": 100 * used / seconds}


def import_time() -> dict[str, float]:
    """How long ``import iris_client`` takes, beyond starting Python."""

    def run(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    pairs = [run("import iris_client") - run("pass") for _ in range(5)]
    return {"ms": 1000 * statistics.median(pairs)}


async def measure(messages: int, seconds: int, megabytes: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Run every scenario ``rounds`` times, interleaved."""
    results: dict[str, dict[str, list[float]]] = {}

    def keep(name: str, figures: dict[str, float]) -> None:
        for figure, value in figures.items():
            results.setdefault(name, {}).setdefault(figure, []).append(value)

    async with Mesh(1) as one, Mesh(2) as two:
        keep("idle daemon", await idle(one, 5.0))
        keep("import iris_client", import_time())
        for number in range(rounds):
            for nodes, mesh in (("one node", one), ("two nodes", two)):
                scenarios: list[tuple[str, Callable[[], Awaitable[dict[str, float]]]]] = [
                    ("publish/subscribe", partial(publish, mesh, messages)),
                    ("request, 1 in flight", partial(request, mesh, 1, seconds)),
                    ("request, 64 in flight", partial(request, mesh, 64, seconds)),
                    ("tunnel", partial(tunnel, mesh, megabytes)),
                ]
                for what, run in scenarios:
                    click.echo(f"\rround {number + 1}/{rounds}: {what}, {nodes:<24}", nl=False, err=True)
                    keep(f"{what}, {nodes}", await run())
        click.echo("\r" + " " * 60 + "\r", nl=False, err=True)
    return results


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """Medians, with the least and the most where there are several."""
    lines = [f"{'scenario':<36} {'figure':<20} {'median':>12}   {'min':>12} {'max':>12}"]
    for name, figures in results.items():
        for figure, values in figures.items():
            median, least, most = statistics.median(values), min(values), max(values)
            lines.append(f"{name:<36} {figure:<20} {median:>12,.1f}   {least:>12,.1f} {most:>12,.1f}")
            name = ""
    return "\n".join(lines)


@click.command()
@click.option("--messages", default=300_000, show_default=True, help="Messages of 1 KiB to publish.")
@click.option("--seconds", default=3, show_default=True, help="How long requests are made.")
@click.option("--megabytes", default=256, show_default=True, help="What goes through a tunnel (MiB).")
@click.option("--rounds", default=3, show_default=True, help="How often everything is measured.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
def main(messages: int, seconds: int, megabytes: int, rounds: int, json_file: Path | None) -> None:
    """Measure a mesh on this machine: messages, requests and bytes per second, for one node and for two."""
    machine = {
        "irisd": __version__,
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    results = asyncio.run(measure(messages, seconds, megabytes, rounds))
    click.echo(" · ".join(f"{name} {value}" for name, value in machine.items()))
    click.echo(f"bodies of {SIZE} bytes; all processes share {os.cpu_count()} cores; median of {rounds} rounds\n")
    click.echo(table(results))
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": machine, "results": results}, indent=1))


if __name__ == "__main__":
    main()
