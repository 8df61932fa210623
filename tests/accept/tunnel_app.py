"""The ends of a tunnel as processes of their own, for tests that measure and kill them.

``tunnel_app.py read URL``: serves ``sink``. The opener's headers say the pace: ``rate`` bytes a second for ``slow``
seconds, then as fast as it comes; ``report`` asks for a line for every so many bytes. Answers with count and digest.
``tunnel_app.py send URL BYTES SEED [KEY=VALUE ...]``: sends so many bytes to ``sink``, and waits for that answer.

Both say one line of JSON about each end: ``whole``, or ``error`` with the error's type.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator

import iris_client as iris

CHUNK = 48 * 1024


def say(**what: object) -> None:
    """One line, at once: the next moment this process may be gone."""
    os.write(1, json.dumps(what).encode() + b"\n")


def content(total: int, seed: int) -> Iterator[bytes]:
    """Bytes of which no two pieces are alike, made as fast as they are sent."""
    block = random.Random(seed).randbytes(CHUNK)
    for at in range(0, total, CHUNK):
        yield (at.to_bytes(8, "little") + block[8:])[: total - at]


async def read(url: str) -> None:
    cluster = iris.Cluster("sink")

    @cluster.on_tunnel
    async def sink(tunnel: iris.Tunnel) -> None:
        rate, slow = int(tunnel.headers.get("rate", "0")), float(tunnel.headers.get("slow", "0"))
        report = int(tunnel.headers.get("report", "0"))
        digest, have, told = hashlib.sha256(), 0, 0
        started = time.monotonic()
        try:
            async for chunk in tunnel:
                digest.update(chunk)
                have += len(chunk)
                if report and have - told >= report:
                    told = have
                    say(have=have)
                if rate and time.monotonic() - started < slow:
                    await asyncio.sleep(max(0.0, have / rate - (time.monotonic() - started)))
            say(end="member", whole=have, digest=digest.hexdigest())
            await tunnel.send(json.dumps([have, digest.hexdigest()]).encode())
        except iris.IrisError as error:
            say(end="member", error=type(error).__name__, have=have)
            raise

    async with iris.connect(url, timeout=30.0) as mesh, mesh.join(cluster):
        say(ready=True)
        await asyncio.Event().wait()


async def send(url: str, total: int, seed: int, headers: dict[str, str]) -> None:
    digest = hashlib.sha256()
    async with iris.connect(url, timeout=30.0) as mesh:
        try:
            async with mesh.tunnel("sink", headers=headers, timeout=30.0) as tunnel:
                say(ready=True)
                for piece in content(total, seed):
                    digest.update(piece)
                    await tunnel.send(piece)
                await tunnel.finish()
                answers = [message async for message in tunnel]
            have, heard = json.loads(answers[0]) if len(answers) == 1 else (0, "no answer")
            say(end="opener", whole=have, digest=heard, right=heard == digest.hexdigest() and have == total)
        except iris.IrisError as error:
            say(end="opener", error=type(error).__name__, text=str(error))


if __name__ == "__main__":
    if sys.argv[1] == "read":
        asyncio.run(read(sys.argv[2]))
    else:
        asyncio.run(
            send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), dict(word.split("=", 1) for word in sys.argv[5:]))
        )
