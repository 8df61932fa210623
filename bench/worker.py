"""One side of a measurement, in a process of its own: ``python -m bench.worker ROLE URL [NUMBER ...]``.

Prints ``ready`` once it can take part, and one JSON object at its end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable

import iris_client as iris

TOPIC = "bench.data"
PROGRESS = "bench.progress"
WINDOW = 8_192
"""Messages the publisher may be ahead: lossless without a subscriber that blocks it."""
TOLD_EVERY = 1_024


def ready() -> None:
    """Tell the driver that this side is in place."""
    print("ready", flush=True)


def finish(**figures: object) -> None:
    """Tell the driver what was measured."""
    print(json.dumps(figures), flush=True)


async def subscriber(mesh: iris.Mesh, messages: int) -> None:
    """Count messages one by one, as an app would; tell the publisher how far."""
    received = lost = 0
    first = 0.0
    async with mesh.subscribe(TOPIC) as events:
        ready()
        async for event in events:
            if not received:
                first = time.perf_counter()
            received += 1
            lost += event.lost or 0
            if not received % TOLD_EVERY:
                await mesh.publish(PROGRESS, str(received + lost).encode())
            if received + lost >= messages:
                break
        seconds = time.perf_counter() - first
        await mesh.flush()
    finish(received=received, lost=lost, seconds=seconds)


async def publisher(mesh: iris.Mesh, messages: int, size: int) -> None:
    """Publish as fast as the window allows."""
    body = os.urandom(size)
    told = 0
    async with mesh.subscribe(PROGRESS) as progress:
        ready()
        sys.stdin.readline()
        began = time.perf_counter()
        sent = 0
        while sent < messages:
            if sent - told > WINDOW:
                told = int((await anext(progress)).body)
                continue
            for _ in range(min(1024, messages - sent)):
                await mesh.publish(TOPIC, body)
                sent += 1
        await mesh.flush()
        seconds = time.perf_counter() - began
    finish(sent=sent, seconds=seconds)


async def server(mesh: iris.Mesh) -> None:
    """Answer requests with their own body until standard input ends."""
    cluster = iris.Cluster("bench", concurrency=1024)

    @cluster.on_request
    async def echo(body: bytes) -> bytes:
        return body

    @cluster.on_tunnel
    async def swallow(tunnel: iris.Tunnel) -> None:
        received = 0
        async for chunk in tunnel:
            received += len(chunk)
        await tunnel.send(str(received).encode())
        await tunnel.finish()

    async with mesh.join(cluster):
        ready()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    finish()


async def requester(mesh: iris.Mesh, in_flight: int, seconds: int, size: int) -> None:
    """Keep that many requests in flight for that long."""
    body = os.urandom(size)
    trips: list[float] = []
    ready()
    sys.stdin.readline()
    began = time.perf_counter()
    end = began + seconds

    async def ask() -> None:
        while (start := time.perf_counter()) < end:
            await mesh.request("bench", body, timeout=30.0)
            trips.append(time.perf_counter() - start)

    await asyncio.gather(*(ask() for _ in range(in_flight)))
    took = time.perf_counter() - began
    trips.sort()
    at = [trips[min(len(trips) - 1, int(len(trips) * share))] for share in (0.5, 0.99, 0.999)]
    finish(requests=len(trips), seconds=took, p50=at[0], p99=at[1], p999=at[2])


async def source(mesh: iris.Mesh, megabytes: int) -> None:
    """Send that much through a tunnel, and wait until the other end says it has it."""
    chunk = os.urandom(64 * 1024)
    chunks = megabytes * 16
    ready()
    sys.stdin.readline()
    async with mesh.tunnel("bench", timeout=10.0) as tunnel:
        began = time.perf_counter()
        for _ in range(chunks):
            await tunnel.send(chunk)
        await tunnel.finish()
        answer = await anext(aiter(tunnel))
        seconds = time.perf_counter() - began
    finish(bytes=int(answer), seconds=seconds, whole=int(answer) == chunks * len(chunk))


ROLES: dict[str, Callable[..., Awaitable[None]]] = {
    "subscriber": subscriber,
    "publisher": publisher,
    "server": server,
    "requester": requester,
    "source": source,
}


async def main() -> None:
    """Attach and play the role."""
    role, url, *numbers = sys.argv[1:]
    async with iris.connect(url, name=role) as mesh:
        await ROLES[role](mesh, *map(int, numbers))


if __name__ == "__main__":
    asyncio.run(main())
