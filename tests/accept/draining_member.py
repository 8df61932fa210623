"""A member for the draining tests: a server as an operator would run it, ended with SIGTERM.

``draining_member.py URL NAME``; it exits 0 when it has drained.
"""

from __future__ import annotations

import asyncio
import random
import sys

import iris_client as iris

work = iris.Cluster("work", concurrency=32)


@work.on_request
async def answer(body: bytes) -> bytes:
    await asyncio.sleep(random.random() * 0.02)
    return body


@work.on_push
async def take(body: bytes) -> None:
    await asyncio.sleep(random.random() * 0.02)


iris.run(work, url=sys.argv[1], name=sys.argv[2], timeout=30.0)
