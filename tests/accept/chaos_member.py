"""A member for the chaos test: writes down every request it begins before it answers.

``chaos_member.py URL LOG``. The log is opened for appending and written with one unbuffered write a request, so that
what was begun is known even of a process that is killed the next moment.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

import iris_client as iris


async def main() -> None:
    url, log_path = sys.argv[1:]
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    cluster = iris.Cluster("work", concurrency=32)

    @cluster.on_request
    async def work(body: bytes) -> bytes:
        os.write(log, body + b"\n")
        await asyncio.sleep(random.random() * 0.004)
        return body

    async with iris.connect(url, timeout=30.0) as mesh, mesh.join(cluster) as joined:
        print("ready", flush=True)
        await joined.wait_closed()


asyncio.run(main())
