"""Daemons that find each other, over the loopback interface and in this process."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from random import SystemRandom
from typing import Any

import pytest

from irisd.config import Address, Config, Listener
from irisd.daemon.discovering import DiscoveryLinks
from irisd.discovery import Discovery, Presence, multicast
from irisd.discovery.announcement import Announcement
from irisd.discovery.interfaces import Interface
from irisd.discovery.multicast import SERVICE_TYPE, instance_name
from irisd.keys import Keyring, ServiceKey
from irisd.link.service import LinkService
from irisd.model import PeerInfo
from tests.integration.link_ground import QUICK, Recorder

PATIENCE = 10.0


class Found(Recorder):
    """A recorder that tells discovery of its links, as the daemon does."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Callable[[bytes, bool, bool], None] = lambda node_id, up, left: None

    def link_up(self, link) -> None:
        super().link_up(link)
        self.told(link.peer.node_id, True, False)

    def link_down(self, link, end) -> None:
        super().link_down(link, end)
        self.told(link.peer.node_id, False, end.outcome.value in ("closed", "stopping"))


class Host:
    """The links and the discovery of one daemon with one service."""

    def __init__(self, key: ServiceKey, seen: Found, links: LinkService, discovery: Discovery, node_id: bytes) -> None:
        self.key = key
        self.seen = seen
        self.links = links
        self.discovery = discovery
        self.node_id = node_id
        self.address = Address("127.0.0.1", 0)
        self.facts: list[tuple[str, dict[str, Any]]] = []
        self.advertised: list[tuple[Address, ...]] = []

    @property
    def peers(self) -> set[bytes]:
        return {link.peer.node_id for link in self.seen.live}

    async def sees(self, *others: Host) -> None:
        await self.seen.until(lambda: self.peers >= {other.node_id for other in others})

    def service(self) -> Any:
        return self.discovery.info().services[0]

    def verdicts(self) -> dict[str, str]:
        return {row.node: row.verdict for row in self.discovery.info().heard}


Make = Callable[..., Any]


@asynccontextmanager
async def host(
    key: ServiceKey,
    *,
    listen: str = "127.0.0.1",
    port: int = 0,
    wants: Callable[[str, bytes], bool] = lambda service, node_id: True,
    **settings: Any,
) -> AsyncIterator[Host]:
    """A host over loopback multicast; ``settings`` are those of the daemon."""
    seen, node_id, keyring = Found(), os.urandom(16), Keyring(key)
    links = LinkService(QUICK)
    links.register(keyring, PeerInfo(node_id, "host"), seen)
    config = Config(listen=(Listener(Address(listen, port)),), **settings)
    facts: list[tuple[str, dict[str, Any]]] = []
    advertised: list[tuple[Address, ...]] = []
    discovery = Discovery(
        config,
        DiscoveryLinks(links, wants),
        clock=time.monotonic,
        random=SystemRandom(),
        tell=lambda event, *, warning=False, **fields: facts.append((event, fields)),
        advertised=lambda service, addresses: advertised.append(addresses),
    )
    made = Host(key, seen, links, discovery, node_id)
    made.facts, made.advertised = facts, advertised

    def told(peer: bytes, up: bool, left: bool) -> None:
        if up:
            discovery.link_up(key.service, peer)
        else:
            discovery.link_down(key.service, peer, left=left)

    seen.told = told
    try:
        bound = await links.start(config.listen)
        made.address = bound[0]
        await discovery.start([Presence(key.service, node_id, keyring.discovery_tags, tuple(bound))])
        await until(lambda: discovery.info().multicast.state != "starting")
        yield made
    finally:
        await discovery.stop()
        await links.stop()


@pytest.fixture
def key() -> ServiceKey:
    return ServiceKey.generate("shop", os.urandom(32))


async def until(state: Callable[[], Any]) -> None:
    """Wait for a state that nobody announces."""
    async with asyncio.timeout(PATIENCE):
        while not state():
            await asyncio.sleep(0.005)


@contextmanager
def voice() -> Iterator[Callable[[bytes], None]]:
    """Say something to everybody on the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 5353))

        def say(data: bytes) -> None:
            sock.sendto(data, ("224.0.0.251", 5353))

        yield say


def name_bytes(name: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in name.rstrip(".").split(".")) + b"\0"


def packet(name: str, text: bytes, ttl: int = 120) -> bytes:
    """A multicast DNS response with one TXT record, by hand (RFC 1035)."""
    head = b"\x00\x00\x84\x00" + (0).to_bytes(2, "big") + (1).to_bytes(2, "big") + bytes(4)
    fixed = (16).to_bytes(2, "big") + (0x8001).to_bytes(2, "big") + ttl.to_bytes(4, "big")
    return head + name_bytes(name) + fixed + len(text).to_bytes(2, "big") + text


def forged(tags: tuple[bytes, ...], port: int) -> bytes:
    node_id = random.randbytes(16)
    said = Announcement(node_id, tags, (Address("127.0.0.1", port),))
    return packet(instance_name(node_id), said.encode())


# ------------------------------------------------------------------- multicast


async def test_nodes_of_one_service_find_each_other_with_nothing_but_the_key(key):
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(host(key)) for _ in range(3)]
        for one in hosts:
            await one.sees(*(other for other in hosts if other is not one))
        shown = hosts[0].discovery.info()
        assert shown.multicast.state == "on"
        assert [row.name for row in shown.multicast.interfaces] == ["lo"]
        assert shown.multicast.groups == ("224.0.0.251:5353",)
        assert shown.services[0].advertised == (str(hosts[0].address),)
        assert shown.services[0].advertised_because == "it listens there"


async def test_two_services_on_one_network_never_meet(key):
    bank = ServiceKey.generate("bank", os.urandom(32))
    namesake = ServiceKey.generate("shop", os.urandom(32))
    async with host(key) as one, host(bank) as other, host(namesake) as third:
        await until(lambda: {other.node_id.hex(), third.node_id.hex()} <= set(one.verdicts()))
        assert one.verdicts()[other.node_id.hex()] == "other-service"
        assert one.verdicts()[third.node_id.hex()] == "other-service"
        assert one.service().known == 0
        assert not one.links.counts, "nobody was dialled, nobody called"


async def test_a_ring_of_two_keys_finds_nodes_of_either(key):
    async with host(key) as one:
        fresh = ServiceKey.generate("shop", os.urandom(32))
        said = Announcement(os.urandom(16), (fresh.discovery_tag, key.discovery_tag), (Address("127.0.0.1", 1),))
        with voice() as say:
            say(packet(instance_name(said.node_id), said.encode()))
        await until(lambda: one.verdicts().get(said.node_id.hex()) == "new")


async def test_a_node_that_stops_is_forgotten_and_one_that_starts_is_found(key):
    async with host(key) as one:
        async with host(key) as other:
            await one.sees(other)
            await other.sees(one)
        await until(lambda: not one.peers)
        await until(lambda: one.service().known == 0)
        async with host(key) as again:
            await one.sees(again)


async def test_a_link_that_breaks_is_made_again(key):
    async with host(key) as one, host(key) as other:
        await one.sees(other)
        await other.sees(one)
        one.seen.live[0].abort("cut")
        await one.seen.until(lambda: one.seen.downs)
        await one.sees(other)
        await other.sees(one)


async def test_goodbye_removes_a_candidate(key):
    async with host(key) as one:
        said = Announcement(os.urandom(16), (key.discovery_tag,), (Address("127.0.0.1", 1),))
        with voice() as say:
            say(packet(instance_name(said.node_id), said.encode()))
            await until(lambda: one.service().known == 1)
            say(packet(instance_name(said.node_id), said.encode(), ttl=0))
            await until(lambda: one.service().known == 0)
        assert one.verdicts()[said.node_id.hex()] == "goodbye"


async def test_nonsense_is_named_and_makes_no_candidate(key):
    tag = key.discovery_tag
    good = Announcement(b"\x11" * 16, (tag,), (Address("127.0.0.1", 1),))
    far = Announcement(b"\x22" * 16, (tag,), (Address("203.0.113.1", 1),))
    async with host(key) as one:
        await until(lambda: one.discovery.info().multicast.state == "on")
        with voice() as say:
            say(packet(f"{'11' * 16}.{SERVICE_TYPE}", good.encode()[:-3]))
            say(packet(f"{'33' * 16}.{SERVICE_TYPE}", good.encode()))
            say(packet(f"{'44' * 16}.{SERVICE_TYPE}", good.encode().replace(b"v=1", b"v=2")))
            say(packet(f"{'55' * 16}.{SERVICE_TYPE}", b""))
            say(packet(instance_name(far.node_id), far.encode()))
            await until(lambda: "22" * 16 in one.verdicts())
        assert one.verdicts() == {
            "11" * 16: "malformed",
            "33" * 16: "malformed",
            "44" * 16: "other-version",
            "55" * 16: "other-service",
            "22" * 16: "out-of-reach",
        }
        assert one.service().known == 0


@pytest.mark.timeout(60)
async def test_a_flood_of_forged_announcements_costs_little(key):
    """2,000 a second for 2 s, with our tags and random ids: bounded dials, and links that do not notice."""
    dialled = 0

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dialled
        dialled += 1
        writer.close()

    trap = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = trap.sockets[0].getsockname()[1]
    async with trap, host(key) as one, host(key) as other:
        await one.sees(other)
        await other.sees(one)
        began, cpu = time.monotonic(), time.process_time()
        packets = [forged((key.discovery_tag,), port) for _ in range(4_000)]
        cpu_forging = time.process_time() - cpu
        loop = asyncio.get_running_loop()
        began, cpu, slowest = loop.time(), time.process_time(), 0.0
        with voice() as say:
            for number, data in enumerate(packets):
                if number % 20 == 0:
                    due = began + number / 2_000
                    await asyncio.sleep(max(0.0, due - loop.time()))
                    slowest = max(slowest, loop.time() - due)
                say(data)
        took, spent = loop.time() - began, time.process_time() - cpu
        known = one.service().known
        assert 0 < known <= 4_096
        # Two nodes, each 40 at once and 20 a second, and as many as are under way at the end.
        assert dialled <= 2 * (40 + 20 * took + 16), f"{dialled} dials in {took:.1f} s"
        assert not one.seen.downs and not other.seen.downs, "heartbeats were disturbed"
        print(f"flood: {took:.2f} s, {spent:.2f} s of processor ({cpu_forging:.2f} to forge), {dialled} dials, {known}")
        assert slowest < 0.5, f"the loop stood still for {slowest:.2f} s"


async def test_without_multicast_there_is_a_warning_and_seeds_still_work(key, monkeypatch):
    async with host(key, multicast="off") as seed:
        assert seed.discovery.info().multicast.state == "off"

        def refuse(*arguments: Any, **named: Any) -> Any:
            raise OSError(98, "Address already in use")

        monkeypatch.setattr(multicast, "AsyncZeroconf", refuse)
        monkeypatch.setattr(multicast, "RETRY_FIRST", 0.01)
        async with host(key, seeds=(seed.address,)) as one:
            await one.sees(seed)
            await until(lambda: one.discovery.info().multicast.state == "unavailable")
            assert one.discovery.info().multicast.detail == "Address already in use"
            assert [c.name for c in one.discovery.conditions(linked=0)] == ["multicast-unavailable"]
            assert one.discovery.conditions(linked=1) == [], "auto: nobody misses it"
            assert [event for event, _ in one.facts].count("discovery.multicast_unavailable") == 1, "told once"
            monkeypatch.undo()
            await until(lambda: one.discovery.info().multicast.state == "on")
            assert one.discovery.conditions(linked=0) == []


async def test_an_interface_that_is_not_there_is_a_warning(key):
    async with host(key, interfaces=("nowhere0",), multicast="on") as one:
        await until(lambda: one.discovery.info().multicast.state == "unavailable")
        (condition,) = one.discovery.conditions(linked=3)
        assert condition.name == "multicast-unavailable"
        assert "no interface nowhere0 here; there is: " in condition.detail


# ------------------------------------------------------------------------ seeds


async def test_every_address_of_a_name_is_dialled(key, monkeypatch):
    """As with a headless service: one name, all pods."""
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(host(key, multicast="off")) for _ in range(3)]
        pods = {other.address for other in hosts}

        async def resolve(address: Address) -> set[Address]:
            assert address.host == "pods.example"
            return set(pods)

        monkeypatch.setattr("irisd.discovery.seeds.resolve", resolve)
        monkeypatch.setattr("irisd.discovery.seeds.RESOLVE_EVERY", 0.05)
        seeds = (Address("pods.example", 7511),)
        one = await stack.enter_async_context(host(key, multicast="off", seeds=seeds))
        await one.sees(*hosts)
        late = await stack.enter_async_context(host(key, multicast="off"))
        pods.add(late.address)
        await one.sees(late)
        pods.discard(hosts[0].address)
        await until(lambda: str(hosts[0].address) not in one.service().seeds[0].addresses)
        assert hosts[0].node_id in one.peers, "a link that is up stays"


async def test_a_name_that_does_not_resolve_is_told_and_asked_again(key, monkeypatch):
    answers: list[set[Address] | OSError] = [OSError(-2, "Name or service not known")]

    async def resolve(address: Address) -> set[Address]:
        answer = answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr("irisd.discovery.seeds.resolve", resolve)
    monkeypatch.setattr("irisd.discovery.seeds.RETRY_FIRST", 0.01)
    async with host(key, multicast="off") as seed, host(key, multicast="off", seeds=(Address("s.example", 1),)) as one:
        await until(lambda: one.service().seeds[0].problem)
        assert one.service().seeds[0].problem == "s.example does not resolve: Name or service not known"
        answers[0] = {seed.address}
        await one.sees(seed)
        assert one.service().seeds[0].problem == ""


async def test_our_own_address_among_the_seeds_is_left_alone(key):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    async with host(key, port=port, multicast="off", seeds=(Address("127.0.0.1", port),)) as one:
        await until(lambda: one.service().candidates[0].outcome == "self")
        assert one.service().candidates[0].next_dial > 10.0


# ------------------------------------------------------------- learned and kept


async def test_what_a_peer_tells_is_dialled_and_kept(key, tmp_path):
    state = tmp_path / "state"
    async with host(key, multicast="off") as other, host(key, multicast="off") as third:
        async with host(key, multicast="off", state_dir=str(state)) as one:
            one.discovery.learned("shop", [other.address])
            await one.sees(other)
            one.discovery.learned("shop", [Address("127.0.0.1", 9), third.address], third.node_id)
            await one.sees(third)
            await until(lambda: one.service().remembered[0] == str(third.address))
        assert stat.S_IMODE((state / "peers.json").stat().st_mode) == 0o600
        async with host(key, multicast="off", state_dir=str(state)) as again:
            await again.sees(other, third)
            assert {row.source for row in again.service().candidates} == {"state-file"}
            assert set(again.service().remembered) >= {str(other.address), str(third.address)}


async def test_a_corrupt_state_file_is_a_warning_and_written_anew(key, tmp_path):
    (tmp_path / "peers.json").write_text("{oops")
    async with host(key, multicast="off") as other:
        async with host(key, multicast="off", state_dir=str(tmp_path), seeds=(other.address,)) as one:
            assert [event for event, _ in one.facts] == ["discovery.state_file"]
            assert one.discovery.conditions(linked=1)[0].name == "state-file"
            await one.sees(other)
            await until(lambda: one.service().remembered)
        assert str(other.address) in (tmp_path / "peers.json").read_text()


async def test_what_is_told_before_the_start_is_not_lost(key):
    async with host(key, multicast="off") as other:
        links, node_id = LinkService(QUICK), os.urandom(16)
        seen = Found()
        links.register(Keyring(key), PeerInfo(node_id, "early"), seen)
        discovery = Discovery(
            Config(multicast="off"),
            DiscoveryLinks(links),
            clock=time.monotonic,
            random=SystemRandom(),
            tell=lambda event, *, warning=False, **fields: None,
        )
        discovery.learned("shop", [other.address], other.node_id)
        discovery.learned("another", [other.address], other.node_id)
        await discovery.start([Presence("shop", node_id, (key.discovery_tag,), ())])
        try:
            await seen.until(lambda: seen.live)
        finally:
            await discovery.stop()
            await links.stop()


async def test_a_node_that_is_not_wanted_is_not_dialled_until_it_is(key):
    wanted: set[bytes] = set()
    async with (
        host(key, multicast="off") as other,
        host(key, multicast="off", wants=lambda service, node_id: node_id in wanted) as one,
    ):
        one.discovery.learned("shop", [other.address], other.node_id)
        await until(lambda: one.service().candidates[0].outcome == "not-wanted")
        assert one.service().candidates[0].attempts == 0
        wanted.add(other.node_id)
        one.discovery.learned("shop", [other.address], other.node_id)
        await one.sees(other)


async def test_where_we_are_to_be_dialled_is_told_at_once_and_when_it_changes(key, monkeypatch):
    monkeypatch.setattr("irisd.discovery.discovery.LOOK_EVERY", 0.02)
    async with host(key) as one:
        assert one.advertised == [(one.address,)]
    here = [Interface("eth0", 2, ("192.0.2.1",), ("fe80::1", "2001:db8::1"))]
    monkeypatch.setattr("irisd.discovery.discovery.host_interfaces", lambda: list(here))
    async with host(key, listen="0.0.0.0", multicast="off") as one:
        port = one.address.port
        assert one.advertised == [(Address("192.0.2.1", port),)]
        here[:] = [Interface("eth1", 3, ("192.0.2.9",))]
        await until(lambda: len(one.advertised) == 2)
        assert one.advertised[1] == (Address("192.0.2.9", port),)
    async with host(key, multicast="off", advertise=(Address("oak.example", 7511),)) as one:
        assert one.advertised == [(Address("oak.example", 7511),)]


# ------------------------------------------------------------------ dead addresses


@contextmanager
def dead_ends(number: int) -> Iterator[list[Address]]:
    """Addresses that take a connection and never answer it: full backlogs on loopback."""
    socks: list[socket.socket] = []
    found = []
    try:
        for _ in range(number):
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            socks.append(listener)
            for _ in range(3):  # fill its backlog, so that the next dial gets no answer at all
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
                socks.append(filler)
            found.append(Address("127.0.0.1", listener.getsockname()[1]))
        yield found
    finally:
        for sock in socks:
            sock.close()


async def test_ten_dead_addresses_and_a_live_one_take_less_than_a_second(key):
    loop = asyncio.get_running_loop()
    with dead_ends(10) as dead:
        async with (
            host(key, multicast="off") as one,
            host(key, multicast="off") as other,
            host(key, multicast="off") as b,
        ):
            began = loop.time()
            one.discovery.learned("shop", [*dead, other.address], other.node_id)
            one.discovery.learned("shop", [*reversed(dead), b.address], b.node_id)
            await one.sees(other, b)
            assert loop.time() - began < 1.0


async def test_an_address_where_somebody_else_answers_does_not_win(key):
    async with host(key, multicast="off") as one, host(key, multicast="off") as b, host(key, multicast="off") as c:
        one.discovery.learned("shop", [one.address, b.address, c.address], c.node_id)
        await one.sees(c)
        assert one.peers == {c.node_id}
