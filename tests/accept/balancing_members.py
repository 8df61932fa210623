"""Members for the balancing tests, several in one process: ``balancing_members.py URL SPEC... [URL SPEC...]``.

A spec is ``SECONDS`` (a member that takes that long), ``SECONDS!`` (one that fails after it) or ``SECONDS*FACTOR``
(one that becomes slower by that factor on SIGUSR1). Each answers with its own number and the time it took.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack

import iris_client as iris

slowed = asyncio.Event()


def member(number: int, spec: str) -> iris.Cluster:
    fails = spec.endswith("!")
    seconds, _, factor = spec.rstrip("!").partition("*")
    cluster = iris.Cluster("work", concurrency=64)

    @cluster.on_request
    async def work(body: bytes) -> bytes:
        await asyncio.sleep(float(seconds) * (float(factor) if factor and slowed.is_set() else 1))
        if fails:
            raise RuntimeError("it always fails")
        return b"%d" % number

    return cluster


async def main() -> None:
    url = ""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, slowed.set)
    async with AsyncExitStack() as stack:
        joins = []
        for number, spec in enumerate(sys.argv[1:]):
            if spec.startswith("unix:"):
                url = spec
                continue
            mesh = await stack.enter_async_context(iris.connect(url, name=f"member-{number}", timeout=30.0))
            joins.append(await stack.enter_async_context(mesh.join(member(number, spec))))
        print("ready", flush=True)
        await asyncio.gather(*(joined.wait_closed() for joined in joins))


if __name__ == "__main__":
    import logging

    logging.disable(logging.ERROR)  # those that fail would say so each time
    asyncio.run(main())
