"""A member for every pattern: ``chaos_app.py URL LOG [NAME]``.

It writes down what it begins, a letter and the message's number a line, before it answers: ``r`` a request, ``p`` a
push, ``e`` an event it got as one of its group, and ``b`` a broadcast, with its process id. One unbuffered write each,
so that what was begun is known even of a process that is killed the next moment. A tunnel is echoed.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

import iris_client as iris

CLUSTER = "chaos"


async def main() -> None:
    url, log_path = sys.argv[1:3]
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    cluster = iris.Cluster(CLUSTER, concurrency=64)

    def note(what: str, body: bytes) -> None:
        os.write(log, f"{what} {body.decode()}\n".encode())

    @cluster.on_request
    async def request(body: bytes) -> bytes:
        note("r", body)
        await asyncio.sleep(random.random() * 0.004)
        return body

    @cluster.on_request("fail")
    async def fail(body: bytes) -> bytes:
        note("r", body)
        raise iris.Reject("as asked", code="asked")

    @cluster.on_push
    async def push(body: bytes) -> None:
        note("p", body)

    @cluster.on_broadcast
    async def broadcast(body: bytes) -> None:
        note(f"b {os.getpid()}", body)

    @cluster.on_survey
    async def survey(body: bytes) -> bytes:
        return body

    @cluster.on_event(f"{CLUSTER}.group.*")
    async def event(body: bytes) -> None:
        note("e", body)

    @cluster.on_tunnel
    async def tunnel(tunnel: iris.Tunnel) -> None:
        async for chunk in tunnel:
            await tunnel.send(chunk)

    name = sys.argv[3] if len(sys.argv) > 3 else None
    async with iris.connect(url, name=name, timeout=60.0) as mesh, mesh.join(cluster) as joined:
        print("ready", flush=True)
        await joined.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
