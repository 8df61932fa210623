"""An app to be killed: a member whose handlers say on standard output that they run, and then hold still."""

from __future__ import annotations

import asyncio
import sys

import iris_client as iris

victims = iris.Cluster("victims", concurrency=4)


@victims.on_request
async def hold(body: bytes) -> bytes:
    print("request", flush=True)
    await asyncio.sleep(60)
    return body


@victims.on_request("block")
def block(body: bytes) -> bytes:
    print("block", flush=True)
    threading_event.wait(60)
    return body


@victims.on_survey
async def survey(body: bytes) -> bytes:
    print("survey", flush=True)
    await asyncio.sleep(60)
    return body


@victims.on_push
async def push(body: bytes) -> None:
    print("push", flush=True)
    await asyncio.sleep(60)


@victims.on_tunnel
async def tunnel(tunnel: iris.Tunnel) -> None:
    async for _ in tunnel:
        print("tunnel", flush=True)
        await asyncio.sleep(60)


async def main() -> None:
    async with iris.connect(sys.argv[1]) as mesh, mesh.join(victims) as joined:
        print("ready", flush=True)
        await joined.wait_closed()


if __name__ == "__main__":
    import threading

    threading_event = threading.Event()
    asyncio.run(main())
