"""Five hosts on one network: found by multicast alone, cables cut and mended, a switch split, an ear plugged."""

from __future__ import annotations

import asyncio

import pytest

import iris_client as iris

from .ground import HOSTS, Host, Network, all_alive, all_see, hosts, network, until, watched

__all__ = ["hosts", "network"]  # fixtures

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

DEAD_BY = 5.0
SLACK = 0.4
"""What cutting a cable and being told take on a busy machine."""


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


async def cut_for(network: Network, hosts: list[Host], seconds: float) -> tuple[dict[str, float], float]:
    """Cut the fifth host off; give when which others said that it is dead, and how soon after all saw all again."""
    await all_alive(hosts, 25.0)
    async with watched(hosts, network.hosts) as seen:
        network.cable(5, "down")
        await asyncio.sleep(seconds)
        network.cable(5, "up")
        back = await all_alive(hosts, 10.0)
        others = seen.of(network.hosts[4], "dead")
        away = seen.of(network.hosts[0], "dead")
        assert network.hosts[4] in away or not away, "the four have never lost each other"
    return others, back


async def test_a_short_cut_kills_nobody(network: Network, hosts: list[Host]) -> None:
    dead, back = await cut_for(network, hosts, 2.5)
    assert dead == {}
    assert back <= 2.0
    print(f"five hosts: cut for 2.5 s, nobody dead, all alive {back:.2f} s after")


async def test_a_long_cut_is_known_everywhere_and_forgiven(network: Network, hosts: list[Host]) -> None:
    dead, back = await cut_for(network, hosts, 8.0)
    assert dead.keys() == set(network.hosts[:4])
    assert min(dead.values()) >= 3.0 and max(dead.values()) <= DEAD_BY + SLACK, dead
    assert back <= 2.0
    rows = [row for host in hosts[:4] for row in await host.nodes() if row.name == network.hosts[4]]
    assert len(rows) == 4 and all(row.incarnation > 1 for row in rows)
    print(f"five hosts: cut off, dead at all after {max(dead.values()):.2f} s; mended, all alive {back:.2f} s after")


async def deaf(network: Network, hosts: list[Host], seconds: float) -> None:
    """Nothing of the first host's reaches the second: they lose their link, and nobody is dead."""
    await all_alive(hosts, 25.0)
    async with watched(hosts, network.hosts) as seen:
        network.deafen(1, 2)
        await asyncio.sleep(seconds)
        assert "dead" not in seen.states(), seen.changes
        most = max(seen.count(who, whom) for who in network.hosts for whom in network.hosts)
        assert most <= 2, seen.changes
        assert seen.count(network.hosts[0], network.hosts[1]) == 2, "the two noticed"
        network.undeafen(1, 2)
        back = await all_alive(hosts, 12.0)
    print(f"five hosts: cut one way for {seconds:g} s, at most {most} changes of state; linked {back:.2f} s after")


async def test_a_cut_one_way_flaps_nowhere(network: Network, hosts: list[Host]) -> None:
    await deaf(network, hosts, 12.0)


@pytest.mark.accept
async def test_a_cut_one_way_flaps_nowhere_for_a_minute(network: Network, hosts: list[Host]) -> None:
    await deaf(network, hosts, 60.0)


@pytest.mark.accept
async def test_two_halves_serve_themselves_and_agree_again(network: Network, hosts: list[Host]) -> None:
    await all_alive(hosts, 25.0)
    meshes = [await iris.connect(host.url) for host in hosts]
    clusters = [iris.Cluster("db") for _ in range(2)]
    for half, cluster in enumerate(clusters):

        @cluster.on_request
        async def get(body: bytes, half: int = half) -> bytes:
            return b"%d" % half

    async def ask(at: int) -> bytes:
        return bytes((await meshes[at].request("db", b"", timeout=2.0)).body)

    try:
        async with meshes[1].join(clusters[0]), meshes[4].join(clusters[1]):
            network.split(1, 2)

            def apart() -> bool:
                return all(host.told == others for host, others in zip(tables, (1, 1, 2, 2, 2), strict=True))

            tables = [Told(host) for host in hosts]
            for table in tables:
                table.start()
            await until("each half sees itself alone", apart, 8.0)
            answers = [[await ask(at) for _ in range(20)] for at in range(HOSTS)]
            assert [set(some) for some in answers] == [{b"0"}] * 2 + [{b"1"}] * 3
            await asyncio.sleep(24.0)
            network.heal()
            back = await all_alive(hosts, 10.0)
            for table in tables:
                await table.stop()
            for at in range(HOSTS):
                assert {await ask(at) for _ in range(60)} == {b"0", b"1"}
            print(f"five hosts split 2|3 for half a minute: one view {back:.2f} s after they were one network again")
    finally:
        for mesh in meshes:
            await mesh.close()


class Told:
    """How many others a host believes alive, asked again and again."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.told = -1
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self.told = sum(row.state == "alive" for row in await self._host.nodes())
            await asyncio.sleep(0.1)
