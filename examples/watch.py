"""Watch: who serves a name, and what becomes of them.

    irisd                                  # a development daemon
    python examples/watch.py serve         # as often as you like: members that come, and go with ctrl-C
    python examples/watch.py               # says who is there, then who comes and goes

Each command in a terminal of its own. `iris events lamps` shows the same.
"""

from __future__ import annotations

import asyncio
import sys

import iris_client as iris

lamps = iris.Cluster("lamps")


@lamps.on_request
async def switch(body: bytes) -> bytes:
    return b"on"


async def watch() -> None:
    async with iris.connect() as mesh, mesh.watch("lamps") as changes:
        members = {change.node: change.members for change in await changes.picture() if change.cluster}
        print(f"lamps: {sum(members.values())}", flush=True)
        async for change in changes:
            if change.lost is None:  # the daemon was lost and found: what it tells now is all there is
                members.clear()
            if not change.cluster:
                print(f"node {change.name} is {change.state}", flush=True)
                continue
            members[change.node] = change.members
            print(f"lamps: {sum(members.values())}", flush=True)
            if not sum(members.values()):
                break


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        iris.run(lamps)
    else:
        asyncio.run(watch())
