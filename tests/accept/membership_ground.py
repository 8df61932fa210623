"""What the tests of membership stand on: what every daemon tells of the others, with the time at which it did."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import grpc.aio

import iris_client as iris
from iris_proto.v1 import control_pb2 as pb
from iris_proto.v1 import control_pb2_grpc
from irisd.demo.mesh import DaemonProcess
from tests.integration.cli_iris_ground import environment

PATIENCE = 30.0
"""Seconds after which a state that should come is given up; the promise itself is judged by the time it took."""


def quantile(times: Iterable[float], share: float) -> float:
    """Of the times in order the one at this share; 1.0 is the slowest."""
    ordered = sorted(times)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def until(truth: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Look again until it is so.

    Raises:
        AssertionError: It does not come to be.
    """
    ends = time.monotonic() + patience
    while not truth():
        assert time.monotonic() < ends, f"not so within {patience:g} s: {what}"
        await asyncio.sleep(0.002)


class Ears:
    """All one daemon tells an app that watches, with the time at which it was heard.

    Attributes:
        name: The daemon's.
        node: Its id, in hexadecimal.
        app: The app.
        told: What was heard, oldest first; the picture is part of it.
    """

    def __init__(self, name: str, app: iris.Mesh) -> None:
        self.name = name
        self.node = app.node
        self.app = app
        self.told: list[tuple[float, iris.Change]] = []
        self.news = asyncio.Event()
        self._states: dict[str, str] = {}

    async def listen(self, ready: asyncio.Event) -> None:
        """Listen until cancelled."""
        async with self.app.watch() as changes:
            ready.set()
            async for change in changes:
                if change.lost is None:  # its daemon began anew, and so does the picture
                    self._states.clear()
                assert not change.lost, f"{self.name}: {change.lost} changes were lost, so nothing can be judged"
                self._states[change.node] = change.state
                self.told.append((time.monotonic(), change))
                self.news.set()

    def state(self, node: str) -> str:
        """What this daemon believes of a node, as far as it has told; empty: nothing."""
        return self._states.get(node, "")

    def since(self, began: float) -> list[tuple[float, iris.Change]]:
        """What was heard from an instant on."""
        return [(at, change) for at, change in self.told if at >= began]

    def first(self, began: float, matches: Callable[[iris.Change], bool]) -> float | None:
        """When something like that was first heard after an instant."""
        return next((at for at, change in self.told if at >= began and matches(change)), None)

    def verdicts(self, began: float, *states: str) -> list[str]:
        """Who was said to be in one of these states since then, in words."""
        return [
            f"{self.name} at {at - began:.2f} s: {change.name} is {change.state} ({change.reason})"
            for at, change in self.since(began)
            if not change.cluster and change.state in states
        ]


@asynccontextmanager
async def listening(daemons: Sequence[DaemonProcess]) -> AsyncIterator[list[Ears]]:
    """An app on every daemon that watches everything."""
    async with AsyncExitStack() as stack:
        apps = [
            await stack.enter_async_context(iris.connect(daemon.url, name=f"on-{daemon.name}", timeout=PATIENCE))
            for daemon in daemons
        ]
        ears = [Ears(daemon.name, app) for daemon, app in zip(daemons, apps, strict=True)]
        started = [asyncio.Event() for _ in ears]
        tasks = [asyncio.create_task(each.listen(event)) for each, event in zip(ears, started, strict=True)]
        try:
            async with asyncio.timeout(PATIENCE):
                for event in started:
                    await event.wait()
            yield ears
            for task in tasks:
                assert not task.done(), f"a watch ended: {task.exception()}"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


# ------------------------------------------------------------------- asking daemons


@asynccontextmanager
async def control(daemon: DaemonProcess) -> AsyncIterator[Any]:
    """The control service of a daemon."""
    async with grpc.aio.insecure_channel(daemon.url) as channel:
        yield control_pb2_grpc.ControlStub(channel)


async def rows(daemon: DaemonProcess) -> list[pb.Node]:
    """The nodes a daemon knows, itself first."""
    async with control(daemon) as stub:
        listed: pb.NodeList = await stub.ListNodes(pb.ListRequest(), timeout=PATIENCE)
    return list(listed.nodes)


async def sees(daemon: DaemonProcess, others: int, *, linked: bool = True) -> list[pb.Node]:
    """Wait until a daemon believes exactly that many others to be there, all of them alive and linked."""
    async with asyncio.timeout(PATIENCE), control(daemon) as stub:
        while True:
            listed: pb.NodeList = await stub.ListNodes(pb.ListRequest(), timeout=PATIENCE)
            there = [row for row in listed.nodes if row.state not in ("self", "dead", "left")]
            alive = [row for row in there if row.state == "alive" and (row.linked or not linked)]
            if len(there) == len(alive) == others:
                return alive
            await asyncio.sleep(0.02)


async def all_see_all(daemons: Sequence[DaemonProcess], *, linked: bool = True) -> None:
    """Wait until every daemon believes all others, and nobody else, to be alive."""
    await asyncio.gather(*(sees(daemon, len(daemons) - 1, linked=linked) for daemon in daemons))


async def serving(daemon: DaemonProcess, cluster: str) -> int:
    """How many nodes serve a cluster, as a daemon knows."""
    async with control(daemon) as stub:
        listed: pb.ClusterList = await stub.ListClusters(pb.ListRequest(), timeout=PATIENCE)
    return sum(len(row.nodes) for row in listed.clusters if row.name == cluster)


async def all_know(daemons: Sequence[DaemonProcess], cluster: str, nodes: int) -> None:
    """Wait until every daemon knows that many nodes that serve a cluster."""
    async with asyncio.timeout(PATIENCE):
        for daemon in daemons:
            while await serving(daemon, cluster) != nodes:
                await asyncio.sleep(0.02)


async def iris_status(daemon: DaemonProcess) -> str:
    """What ``iris status`` prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "iris_client.cli", "status", env=environment(IRIS_URL=daemon.url),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0
    return out.decode()


async def conditions(daemon: DaemonProcess) -> set[str]:
    """The names of a daemon's conditions."""
    return {condition.name for condition in (await daemon.status()).conditions}


# -------------------------------------------------------------------------- clusters


def echo(name: str, says: str) -> iris.Cluster:
    """A cluster that answers who it is."""
    cluster = iris.Cluster(name, concurrency=64)

    @cluster.on_request
    async def answer(body: bytes) -> bytes:
        return says.encode()

    return cluster


def free_ports(number: int) -> list[int]:
    """Ports nobody listens at."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(number)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]
