"""Hosts on one network, as far as one machine can have them: namespaces on a bridge, with cables that can be cut.

Every host has an interface and addresses of its own, multicast goes through the
bridge's own copy of it, and nobody is told an address.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio

import iris_client as iris
from iris_proto.v1 import control_pb2 as pb
from iris_proto.v1 import control_pb2_grpc
from irisd.keys import SEED_BYTES, ServiceKey
from irisd.keys.files import write_key_file

HOSTS = 5
PATIENCE = 25.0  # seconds for anything


def address(number: int) -> str:
    return f"192.0.2.{number}"


def ip(*words: str) -> None:
    """Run ip(8).

    Raises:
        PermissionError: It refused; the message is its own.
    """
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise PermissionError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """A bridge in a namespace of its own, and hosts with a cable each."""

    def __init__(self) -> None:
        self._tag = f"iris{os.getpid() % 100_000}"
        self.switch = f"{self._tag}-sw"
        self.hosts = [f"{self._tag}-{number}" for number in range(1, HOSTS + 1)]

    def build(self) -> None:
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
        ip("-n", self.switch, "link", "set", "br0", "up")
        for number, host in enumerate(self.hosts, start=1):
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}", "netns", self.switch)
            ip("-n", self.switch, "link", "set", f"port{number}", "master", "br0")
            ip("-n", self.switch, "link", "set", f"port{number}", "up")
            ip("-n", host, "addr", "add", f"{address(number)}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            # Who had no carrier asks anew for its neighbours' hardware addresses, by default once a second: a cut of
            # two seconds and a half would last three and a half.
            ip("-n", host, "ntable", "change", "name", "arp_cache", "dev", "eth0", "retrans", "100")

    def cable(self, number: int, state: str) -> None:
        """Cut (``down``) or mend (``up``) the cable of a host, at the switch: the host keeps its address."""
        ip("-n", self.switch, "link", "set", f"port{number}", state)

    def split(self, *numbers: int) -> None:
        """Put these hosts on a switch of their own."""
        ip("-n", self.switch, "link", "add", "br1", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
        ip("-n", self.switch, "link", "set", "br1", "up")
        for number in numbers:
            ip("-n", self.switch, "link", "set", f"port{number}", "master", "br1")

    def heal(self) -> None:
        """One switch again."""
        for number in range(1, HOSTS + 1):
            ip("-n", self.switch, "link", "set", f"port{number}", "master", "br0")
        ip("-n", self.switch, "link", "del", "br1")

    def deafen(self, number: int, other: int) -> None:
        """Let nothing that one host sends reach another; what comes back arrives."""
        neighbour = ("neigh", "replace", address(other), "lladdr", "02:00:00:00:00:99", "nud", "permanent")
        ip("-n", self.hosts[number - 1], *neighbour, "dev", "eth0")

    def undeafen(self, number: int, other: int) -> None:
        """Undo :meth:`deafen`."""
        ip("-n", self.hosts[number - 1], "neigh", "del", address(other), "dev", "eth0")

    def remove(self) -> None:
        for name in [*self.hosts, self.switch]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=10, check=False)


@pytest.fixture
def network() -> Iterator[Network]:
    if shutil.which("ip") is None:
        pytest.skip("no ip(8) on this machine (iproute2)")
    made = Network()
    try:
        try:
            made.build()
        except PermissionError as error:
            pytest.skip(f"network namespaces are not permitted here: {error}")
        yield made
    finally:
        made.remove()


class Host:
    """An irisd in a host's namespace; its socket is reached through the file system."""

    def __init__(self, namespace: str, folder: Path, key: Path, *arguments: str) -> None:
        self.socket = folder / f"{namespace}.sock"
        self.log = folder / f"{namespace}.log"
        command = [
            *("ip", "netns", "exec", namespace, sys.executable, "-m", "irisd", "run", "--name", namespace),
            *("--key", str(key), "--socket", str(self.socket), "--state-dir", str(folder / namespace)),
            *arguments,
        ]
        (folder / namespace).mkdir(mode=0o700)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    async def peers(self) -> int:
        """How many nodes it is linked with; -1 while it does not answer."""
        try:
            async with grpc.aio.insecure_channel(f"unix://{self.socket}") as channel:
                status = await control_pb2_grpc.ControlStub(channel).GetStatus(pb.GetStatusRequest(), timeout=2.0)
        except grpc.aio.AioRpcError:
            return -1
        return int(status.services[0].peers)

    async def discovery(self) -> pb.Discovery:
        async with grpc.aio.insecure_channel(f"unix://{self.socket}") as channel:
            found: pb.Discovery = await control_pb2_grpc.ControlStub(channel).GetDiscovery(
                pb.ListRequest(), timeout=5.0
            )
            return found

    async def nodes(self) -> list[pb.Node]:
        """All nodes as it knows them, itself aside."""
        async with grpc.aio.insecure_channel(f"unix://{self.socket}") as channel:
            control = control_pb2_grpc.ControlStub(channel)
            found = await control.ListNodes(pb.ListRequest(), timeout=20.0, wait_for_ready=True)
            return [row for row in found.nodes if row.state != "self"]

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def stop(self) -> None:
        """Ask it to end; kill it if it does not."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@asynccontextmanager
async def running(network: Network, folder: Path, arguments: Callable[[int], list[str]]) -> AsyncIterator[list[Host]]:
    """An irisd on every host; ``arguments`` gives those of each, by its number."""
    key = folder / "service.key"
    write_key_file(key, ServiceKey.generate("shop", os.urandom(SEED_BYTES)).to_text())
    made: list[Host] = []
    try:
        for number, name in enumerate(network.hosts, start=1):
            made.append(Host(name, folder, key, *arguments(number)))
        yield made
    finally:
        await asyncio.gather(*(asyncio.to_thread(host.stop) for host in made))


@pytest_asyncio.fixture
async def hosts(network: Network, run_dir: Path) -> AsyncIterator[list[Host]]:
    async with running(network, run_dir, lambda number: []) as made:
        yield made


async def all_see(hosts: list[Host], wanted: Callable[[list[int]], bool], what: str) -> float:
    """Wait until the numbers of peers are as wanted; give the seconds that took."""
    began = time.monotonic()
    while True:
        peers = await asyncio.gather(*(host.peers() for host in hosts))
        if wanted(peers):
            return time.monotonic() - began
        if time.monotonic() - began > PATIENCE:
            logs = "\n".join(f"--- {host.log.name}\n{host.log.read_text()[-1500:]}" for host in hosts)
            pytest.fail(f"not within {PATIENCE:g} s: {what}; peers {peers}\n{logs}")
        await asyncio.sleep(0.05)


class Seen:
    """What the hosts said of each other while they were watched.

    Attributes:
        changes: (seconds, who said it, of whom, which state now).
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.changes: list[tuple[float, str, str, str]] = []

    def of(self, name: str, state: str) -> dict[str, float]:
        """Who said first that a node was in a state, and when."""
        first: dict[str, float] = {}
        for at, who, whom, what in self.changes:
            if (whom, what) == (name, state):
                first.setdefault(who, at)
        return first

    def states(self) -> set[str]:
        return {what for _, _, _, what in self.changes}

    def count(self, who: str, whom: str) -> int:
        return sum((by, of) == (who, whom) for _, by, of, _ in self.changes)


@asynccontextmanager
async def watched(hosts: list[Host], names: list[str]) -> AsyncIterator[Seen]:
    """Listen to every host's changes of state; seconds count from when all are listened to."""
    seen = Seen()

    async def listen(mesh: iris.Mesh, name: str, ready: asyncio.Event) -> None:
        async with mesh.watch() as changes:
            await changes.picture()
            ready.set()
            async for change in changes:
                if not change.cluster:
                    seen.changes.append((time.monotonic() - seen.began, name, change.name, change.state))

    meshes = [await iris.connect(host.url) for host in hosts]
    readies = [asyncio.Event() for _ in hosts]
    tasks = [asyncio.create_task(listen(*each)) for each in zip(meshes, names, readies, strict=True)]
    try:
        await asyncio.gather(*(ready.wait() for ready in readies))
        seen.began = time.monotonic()
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(mesh.close() for mesh in meshes))


async def until(what: str, holds: Callable[[], bool], within: float) -> float:
    """Wait until something holds; give the seconds that took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > within:
            pytest.fail(f"not within {within:g} s: {what}")
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def all_alive(hosts: list[Host], within: float) -> float:
    """Wait until every host believes all others alive and is linked with them, each once."""
    began = time.monotonic()
    while True:
        tables = await asyncio.gather(*(host.nodes() for host in hosts))
        living = [[row for row in rows if row.state == "alive" and row.linked] for rows in tables]
        if all(len({row.node for row in rows}) == len({row.name for row in rows}) == len(hosts) - 1 for rows in living):
            return time.monotonic() - began
        if time.monotonic() - began > within:
            found = [sorted((row.name, row.state, row.linked) for row in rows) for rows in tables]
            pytest.fail(f"not all alive within {within:g} s: {found}")
        await asyncio.sleep(0.02)
