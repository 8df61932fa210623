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
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio

from iris_proto.v1 import control_pb2 as pb
from iris_proto.v1 import control_pb2_grpc
from irisd.keys import SEED_BYTES, ServiceKey
from irisd.keys.files import write_key_file

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

HOSTS = 5
PATIENCE = 25.0  # seconds for anything


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
            ip("-n", host, "addr", "add", f"192.0.2.{number}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")

    def cable(self, number: int, state: str) -> None:
        """Cut (``down``) or mend (``up``) the cable of a host, at the switch: the host keeps its address."""
        ip("-n", self.switch, "link", "set", f"port{number}", state)

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

    def __init__(self, namespace: str, folder: Path, key: Path) -> None:
        self.socket = folder / f"{namespace}.sock"
        self.log = folder / f"{namespace}.log"
        command = [
            *("ip", "netns", "exec", namespace, sys.executable, "-m", "irisd", "run", "--name", namespace),
            *("--key", str(key), "--socket", str(self.socket), "--state-dir", str(folder / namespace)),
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

    def stop(self) -> None:
        """Ask it to end; kill it if it does not."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest_asyncio.fixture
async def hosts(network: Network, run_dir: Path) -> AsyncIterator[list[Host]]:
    key = run_dir / "service.key"
    write_key_file(key, ServiceKey.generate("shop", os.urandom(SEED_BYTES)).to_text())
    made: list[Host] = []
    try:
        for name in network.hosts:
            made.append(Host(name, run_dir, key))
        yield made
    finally:
        await asyncio.gather(*(asyncio.to_thread(host.stop) for host in made))


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


async def test_a_cable_is_cut_and_mended(network: Network, hosts: list[Host]) -> None:
    found = await all_see(hosts, lambda peers: peers == [4] * HOSTS, "all five see each other")
    told = await hosts[0].discovery()
    assert told.multicast.state == "on"
    assert [row.name for row in told.multicast.interfaces] == ["eth0"]
    assert list(told.services[0].advertised) == ["192.0.2.1:7511"]
    assert {row.verdict for row in told.heard} <= {"new", "known"}
    assert {row.source for row in told.services[0].candidates} <= {"multicast", "peer"}

    network.cable(5, "down")
    cut = await all_see(hosts, lambda peers: peers == [3, 3, 3, 3, 0], "four see the cut, and the fifth is alone")
    network.cable(5, "up")
    mended = await all_see(hosts, lambda peers: peers == [4] * HOSTS, "all five see each other again")
    print(f"five hosts: start to full view {found:.2f} s, cable cut noticed {cut:.2f} s, mended to full {mended:.2f} s")


async def test_a_split_network_grows_together(network: Network, hosts: list[Host]) -> None:
    await all_see(hosts, lambda peers: peers == [4] * HOSTS, "all five see each other")
    for number in range(1, HOSTS + 1):
        network.cable(number, "down")
    await all_see(hosts, lambda peers: peers == [0] * HOSTS, "everybody is alone")
    for number in range(1, HOSTS + 1):
        network.cable(number, "up")
    took = await all_see(hosts, lambda peers: peers == [4] * HOSTS, "all five see each other again")
    print(f"five hosts, all cables: mended to full {took:.2f} s")
