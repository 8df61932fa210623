"""One role of a measurement, in a process of its own: ``python -m bench.worker JSON``.

It says ``ready`` when it can take part, and ``figures`` at its end. Its standard input lets it begin (``go``), and
ends it: so nothing outlives a driver that was killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import threading

from bench import roles
from bench.process import JSON
from bench.systems import SYSTEMS
from bench.systems.base import Client


def tell(**said: object) -> None:
    print(json.dumps(said), flush=True)


def listen(go: threading.Event) -> None:
    """Hear the driver; runs in a thread, because some clients block theirs."""
    for _ in sys.stdin:
        go.set()
    os._exit(0)  # some packages leave threads that would wait for ever


async def play(spec: JSON, go: threading.Event) -> None:
    system = SYSTEMS[spec["system"]]

    def client() -> Client:
        return system.client(spec["address"], spec["endpoints"])

    match spec["role"]:
        case "publisher":
            await roles.publish(client(), spec, go, tell)
        case "subscriber":
            await roles.subscribe([client() for _ in spec["numbers"]], spec, tell)
        case "responder":
            await roles.respond(client(), spec, tell)
        case "requester":
            await roles.request(client(), spec, go, tell)
        case "source":
            await roles.stream(client(), spec, go, tell)
        case "idle":
            held = [client() for _ in range(spec["attachments"])]
            for start in range(0, len(held), 20):
                await asyncio.gather(*(roles.settled(one.requester(1)) for one in held[start : start + 20]))
            tell(ready=[])
    await asyncio.Event().wait()  # what a package's own threads still have to send; the driver ends it


def main() -> None:
    spec: JSON = json.loads(sys.argv[1])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    go = threading.Event()
    threading.Thread(target=listen, args=(go,), daemon=True).start()
    asyncio.run(play(spec, go))


if __name__ == "__main__":
    main()
