"""Broadcast: tell every member of a cluster.

    irisd                                  # a development daemon
    python examples/broadcast.py serve     # as often as you like: caches
    python examples/broadcast.py           # tells them all to forget

Each command in a terminal of its own.
"""

from __future__ import annotations

import asyncio
import sys

import iris_client as iris

caches = iris.Cluster("caches")
entries = {"user-7": b"...", "user-8": b"..."}


@caches.on_broadcast("forget")
async def forget(key: bytes) -> None:
    found = entries.pop(key.decode(), None) is not None
    print(f"forget {key.decode()}: {'done' if found else 'was not there'}", flush=True)


async def invalidate() -> None:
    async with iris.connect() as mesh:
        told = await mesh.broadcast("caches", b"user-7", method="forget", timeout=2.0)
        print(f"queued to {told} members")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        iris.run(caches)
    else:
        asyncio.run(invalidate())
