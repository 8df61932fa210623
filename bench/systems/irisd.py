"""irisd: one daemon, or two with an encrypted link between them; apps attach over gRPC or over the local lane."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.machinery import EXTENSION_SUFFIXES
from operator import attrgetter
from pathlib import Path

import iris_client as iris
from bench.process import JSON
from bench.systems.base import ATTACH, CLUSTER, PUBSUB, REQUEST, TOPIC, TUNNEL, Client, Found, System, packages

MAX_REQUEST_TIMEOUT = 60.0


def _differs(tree: Path, package: str) -> bool:
    """Whether a tree holds other sources than the one this runs from."""
    here = Path(__file__).parents[2]
    names = {path.relative_to(root) for root in (here, tree) for path in (root / package).rglob("*.py")}
    try:
        return any((here / name).read_bytes() != (tree / name).read_bytes() for name in names)
    except FileNotFoundError:
        return True


class Irisd(System):
    """The publisher and the requester attach to the first daemon, subscribers and responders to the last.

    Args:
        lane: How apps attach: ``grpc`` or ``local``; workers are told by ``IRIS_LANE``.
        nodes: How many daemons.
        tree: Where daemons and apps are imported from, as ``make compiled`` leaves them; None: from where this runs.
    """

    flow = "its own: the subscription blocks its publishers (when_full='block')"
    can = frozenset({PUBSUB, REQUEST, TUNNEL, ATTACH})

    def __init__(self, lane: str, nodes: int, tree: Path | None = None) -> None:
        self.lane = lane
        self.nodes = nodes
        self.tree = tree
        what = lane if tree is None else "compiled"
        self.name = f"irisd-{what}-{nodes}"
        self.label = f"irisd, {what}, {nodes} node{'s' * (nodes > 1)}"

    def installed(self) -> Found:
        if self.lane == "local" and importlib.util.find_spec("iris_client._lane_local") is None:
            return Found(None, "this release of iris_client attaches over gRPC only")
        found = packages("irisd", "grpcio")
        if self.tree is None or found.version is None:
            return found
        if not self.tree.joinpath(f"irisd/wire/frames{EXTENSION_SUFFIXES[0]}").exists():
            return Found(None, "make compiled")
        if any(_differs(self.tree, package) for package in ("irisd", "client/iris_client")):
            return Found(None, "make compiled: the sources have changed since")
        return Found(f"{found.version}, compiled")

    def environment(self) -> dict[str, str]:
        if self.tree is None:
            return {"IRIS_LANE": self.lane}
        path = os.pathsep.join((str(self.tree), str(self.tree / "client")))
        return {"IRIS_LANE": self.lane, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}

    @asynccontextmanager
    async def serve(self, folder: Path) -> AsyncIterator[JSON]:
        from irisd.demo.mesh import Mesh  # workers need none of it

        async with Mesh(self.nodes, "--max-attachments", "65536", environment=self.environment()) as mesh:
            yield {"first": mesh[0].url, "last": mesh[-1].url, "pids": [daemon.pid for daemon in mesh.daemons]}

    def client(self, address: JSON, endpoints: list[str]) -> Client:
        return IrisClient(address["first"], address["last"])


class IrisClient(Client):
    """``iris_client`` as its documentation shows it."""

    body = attrgetter("body")

    def __init__(self, first: str, last: str) -> None:
        self._first = first
        self._last = last

    async def _attach(self, url: str) -> iris.Mesh:
        self._mesh = await iris.connect(url, name=f"bench-{os.getpid()}", timeout=30.0)
        return self._mesh

    async def publisher(self, subscribers: int) -> None:
        await self._attach(self._first)

    async def publish(self, body: bytes) -> None:
        await self._mesh.publish(TOPIC, body)

    async def flush(self) -> None:
        await self._mesh.flush(timeout=120.0)

    async def subscriber(self, number: int) -> str:
        mesh = await self._attach(self._last)
        self._events = mesh.subscribe(TOPIC, when_full="block")
        await self._events.__aenter__()
        return ""

    def messages(self) -> iris.Subscription:
        return self._events

    async def responder(self) -> str:
        mesh = await self._attach(self._last)
        cluster = iris.Cluster(CLUSTER, concurrency=1024)

        @cluster.on_request
        async def echo(body: bytes) -> bytes:
            return body

        @cluster.on_tunnel
        async def swallow(tunnel: iris.Tunnel) -> None:
            received = 0
            async for chunk in tunnel:
                received += len(chunk)
            await tunnel.send(str(received).encode())
            await tunnel.finish()

        self._joined = mesh.join(cluster)
        await self._joined.__aenter__()
        return ""

    async def respond(self) -> None:
        await asyncio.Event().wait()

    async def requester(self, in_flight: int) -> None:
        await self._attach(self._first)

    async def request(self, body: bytes) -> bytes:
        return (await self._mesh.request(CLUSTER, body, timeout=MAX_REQUEST_TIMEOUT)).body

    async def tunnel(self, chunk: bytes, chunks: int) -> int:
        async with self._mesh.tunnel(CLUSTER, timeout=10.0) as tunnel:
            for _ in range(chunks):
                await tunnel.send(chunk)
            await tunnel.finish()
            return int(await anext(aiter(tunnel)))
