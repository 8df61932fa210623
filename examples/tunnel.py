"""A tunnel: messages both ways with one member, flow-controlled, finished or broken but never in between.

    irisd                                  # a development daemon
    python examples/tunnel.py serve        # takes files and answers with their SHA-256
    python examples/tunnel.py FILE         # sends a file (default: this one)

Each command in a terminal of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

import iris_client as iris

storage = iris.Cluster("storage")
CHUNK = 64 * iris.KiB


@storage.on_tunnel
async def store(tunnel: iris.Tunnel) -> None:
    digest, size = hashlib.sha256(), 0
    async for chunk in tunnel:  # ends when the other end has finished; raises TunnelBroken if it broke
        digest.update(chunk)
        size += len(chunk)
    await tunnel.send(f"{digest.hexdigest()} {size}".encode())


async def send(path: Path) -> None:
    digest = hashlib.sha256()
    async with iris.connect() as mesh, mesh.tunnel("storage", path.name.encode(), timeout=2.0) as tunnel:
        with path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                digest.update(chunk)
                await tunnel.send(chunk)  # waits when the member is slower than we are
        await tunnel.finish()  # half-close: our part is done, the answer may still come
        answer = (await tunnel.receive() or b"").decode()
    same = answer.split()[0] == digest.hexdigest()
    print(f"{path.name}: {answer.split()[1]} bytes, {'the same' if same else 'NOT the same'} at both ends")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        iris.run(storage)
    else:
        asyncio.run(send(Path(sys.argv[1] if sys.argv[1:] else __file__)))
