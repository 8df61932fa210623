"""Five hosts on networks that are not as simple: IPv6 alone, no multicast, a chain of seeds, two services."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from irisd.keys import SEED_BYTES, ServiceKey
from irisd.keys.files import write_key_file

from .ground import HOSTS, Host, Network, address, all_alive, ip, network, running

__all__ = ["network"]  # a fixture

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]


async def test_hosts_with_ipv6_alone_find_each_other(network: Network, run_dir: Path) -> None:
    for number, name in enumerate(network.hosts, start=1):
        ip("-n", name, "addr", "del", f"{address(number)}/24", "dev", "eth0")
        ip("-n", name, "addr", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad")
    async with running(network, run_dir, lambda number: ["--listen", "[::]:7511"]) as hosts:
        took = await all_alive(hosts, 25.0)
        told = await hosts[0].discovery()
        assert told.multicast.state == "on"
        assert "[2001:db8::1]:7511" in told.services[0].advertised
        print(f"five hosts with IPv6 alone: all alive after {took:.2f} s")


async def test_a_chain_of_seeds_suffices_without_multicast(network: Network, run_dir: Path) -> None:
    def arguments(number: int) -> list[str]:
        seeds = ["--seed", f"{address(number - 1)}:7511"] if number > 1 else []
        return ["--multicast", "off", *seeds]

    async with running(network, run_dir, arguments) as hosts:
        took = await all_alive(hosts, 25.0)
        told = await hosts[4].discovery()
        sources = {row.source for row in told.services[0].candidates}
        assert "peer" in sources and "multicast" not in sources
        print(f"five hosts, each knows the one before: all alive after {took:.2f} s")


HOG = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 5353)); print(flush=True); input()"


@pytest.fixture
def hog(network: Network) -> Iterator[None]:
    """Somebody on the first host who keeps the port of multicast DNS to himself."""
    command = ["ip", "netns", "exec", network.hosts[0], sys.executable, "-c", HOG]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


async def test_a_host_without_multicast_is_found_by_what_peers_tell(hog: None, network: Network, run_dir: Path) -> None:
    """The port is taken: a condition and a seed, never a failed start; one seed leads to all."""

    def arguments(number: int) -> list[str]:
        return ["--multicast", "on", "--seed", f"{address(2)}:7511"] if number == 1 else []

    async with running(network, run_dir, arguments) as hosts:
        await all_alive(hosts, 25.0)
        told = await hosts[0].discovery()
        assert told.multicast.state == "unavailable"
        assert "multicast-unavailable" in {row.name for row in told.conditions}


async def test_two_services_on_one_network_never_meet(network: Network, run_dir: Path) -> None:
    other = run_dir / "bank.key"
    write_key_file(other, ServiceKey.generate("bank", os.urandom(SEED_BYTES)).to_text())

    def arguments(number: int) -> list[str]:
        return ["--key", str(other)] if number == HOSTS else []

    async with running(network, run_dir, arguments) as hosts:
        shop: list[Host] = hosts[:4]
        for host in hosts[:4]:  # the fifth holds both keys: it is a node of either
            rows = await host.nodes()
            assert {row.service for row in rows} <= {"shop"}
        await all_alive(shop + hosts[4:], 25.0)
        services = {row.service for row in await hosts[4].nodes()}
        assert services == {"shop"}, "nobody else holds the key of the bank"
