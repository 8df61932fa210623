"""Push: give a job to one member, without an answer.

    irisd                                  # a development daemon
    python examples/push.py serve          # as often as you like: workers
    python examples/push.py                # hands out jobs

Each command in a terminal of its own.
"""

from __future__ import annotations

import asyncio
import sys

import iris_client as iris

workers = iris.Cluster("thumbnailers", concurrency=2)


@workers.on_push
async def make_thumbnail(job: iris.Request) -> None:
    await asyncio.sleep(0.05)  # the work
    print(f"done: {job.body.decode()}", flush=True)


async def hand_out() -> None:
    async with iris.connect() as mesh:
        for number in range(10):
            # Returns when the member's node holds the job; refused loudly when nobody can take it.
            await mesh.push("thumbnailers", f"picture-{number}.jpg".encode(), timeout=5.0)
        print("10 jobs handed out")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        iris.run(workers)
    else:
        asyncio.run(hand_out())
