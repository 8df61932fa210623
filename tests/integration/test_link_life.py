"""Links in peace: they come up once, carry messages, say goodbye and come back."""

from __future__ import annotations

import asyncio
import os

import pytest

from irisd.config import Address, Listener
from irisd.errors import ConfigError, ListenError
from irisd.keys import Keyring, ServiceKey
from irisd.link.connection import LINGER
from irisd.link.node_links import LinkConfig
from irisd.link.outcome import LinkEnd, Outcome
from irisd.link.service import LinkService
from irisd.model import PeerInfo
from tests.integration.link_ground import QUICK, Recorder, ground


async def test_messages_both_ways_in_order() -> None:
    async with ground() as made:
        one, two = await made.pair()
        there, back = await one.linked(), await two.linked()
        assert there.dialled and not back.dialled
        assert there.peer.node_id == two.node_id and there.peer.name == "two"
        one.seen.send(there, *(b"%d" % number for number in range(5_000)))
        two.seen.send(back, b"", b"x" * 300_000, b"last")
        await two.seen.until(lambda: len(two.seen.bodies) == 5_000)
        await one.seen.until(lambda: len(one.seen.bodies) == 3)
        assert two.seen.bodies == [b"%d" % number for number in range(5_000)]
        assert one.seen.bodies == [b"", b"x" * 300_000, b"last"]
        assert not one.seen.early and not two.seen.early


async def test_a_slow_reader_holds_the_sender_back() -> None:
    patient = LinkConfig(heartbeat_interval=30.0)
    async with ground() as made:
        two = await made.node("two", config=patient)
        proxy = await made.proxy(two.address)
        one = await made.node("one", config=patient)
        one.dial(proxy.address)
        link = await one.linked()
        await two.linked()
        proxy.freeze()
        one.seen.send(link, *([b"x" * 65_536] * 1_000))  # 64 MiB: more than all buffers on the way
        before = -1
        while one.seen.pulls != before:  # pulling stops by itself
            before = one.seen.pulls
            await asyncio.sleep(0.02)
        left = len(one.seen.outbox[two.node_id])
        assert left > 500, "it was pulled although nobody read"
        proxy.thaw()
        await two.seen.until(lambda: len(two.seen.bodies) == 1_000)
        assert one.seen.downs == [] and two.seen.downs == []


async def test_goodbye_is_said_and_the_address_is_dialled_again() -> None:
    async with ground() as made:
        one, two = await made.pair()
        await two.service.stop()
        await one.seen.until(lambda: one.seen.downs)
        end = one.seen.downs[0][1]
        assert end.outcome is Outcome.STOPPING and end.by_peer
        again = await made.node("two again", port=two.address.port)
        await one.seen.until(lambda: one.seen.live)
        assert one.seen.live[0].peer.node_id == again.node_id
        assert one.seen.early == []


async def test_closing_one_link_says_why() -> None:
    async with ground() as made:
        one, two = await made.pair()
        link = await one.linked()
        one.links.forget(two.address)
        await link.close("enough")
        await two.seen.until(lambda: two.seen.downs)
        assert str(two.seen.downs[0][1]) == "closed: enough (said by the peer)"
        assert str(one.seen.downs[0][1]) == "closed: enough"
        assert not link.is_up and one.service.links("shop") == []


async def test_a_peer_that_dies_is_noticed_at_once() -> None:
    async with ground() as made:
        two = await made.node("two")
        proxy = await made.proxy(two.address)
        one = await made.node("one")
        one.dial(proxy.address)
        await one.linked()
        await two.linked()
        proxy.cut(reset=True)
        await one.seen.until(lambda: one.seen.downs)
        await two.seen.until(lambda: two.seen.downs)
        assert one.seen.downs[0][1].outcome is Outcome.BROKEN
        assert two.seen.downs[0][1].outcome is Outcome.BROKEN
        await one.seen.until(lambda: len(one.seen.ups) == 2)  # and dialled again


@pytest.mark.parametrize("lost", [0, 1], ids=["control", "data"])
async def test_the_two_connections_die_together(lost: int) -> None:
    async with ground() as made:
        two = await made.node("two")
        proxy = await made.proxy(two.address)
        one = await made.node("one")
        one.dial(proxy.address)
        link, back = await one.linked(), await two.linked()
        one.links.forget(proxy.address)
        proxy.cut(lost)
        await one.seen.until(lambda: one.seen.downs)
        await two.seen.until(lambda: two.seen.downs)
        assert Outcome.BROKEN in (one.seen.downs[0][1].outcome, two.seen.downs[0][1].outcome)
        async with asyncio.timeout(5):
            await link.wait_closed()
            await back.wait_closed()


async def test_a_link_that_is_found_silent_is_gone_at_once() -> None:
    async with ground() as made:
        two = await made.node("two")
        proxy = await made.proxy(two.address)
        one = await made.node("one")
        one.dial(proxy.address)
        link = await one.linked()
        await two.linked()
        one.links.forget(proxy.address)
        proxy.freeze()
        one.seen.send(link, *([b"x" * 65_536] * 200))  # what cannot be sent is not waited for
        began = asyncio.get_running_loop().time()
        link.close_now(Outcome.SILENT, "nothing heard for 5 s")
        assert one.seen.downs == [(link, LinkEnd(Outcome.SILENT, "nothing heard for 5 s"))]
        await link.wait_closed()
        assert asyncio.get_running_loop().time() - began < 0.5 * LINGER
        proxy.thaw()
        await two.seen.until(lambda: two.seen.downs)
        assert two.seen.downs[0][1].outcome in (Outcome.SILENT, Outcome.BROKEN)


async def test_a_link_that_nobody_needs_says_so() -> None:
    async with ground() as made:
        one, two = await made.pair()
        link = await one.linked()
        one.links.forget(two.address)
        link.close_now(Outcome.IDLE, "not used for 30 s")
        await two.seen.until(lambda: two.seen.downs)
        assert str(one.seen.downs[0][1]) == "idle: not used for 30 s"
        assert str(two.seen.downs[0][1]) == "idle: not used for 30 s (said by the peer)"
        again, _ = await one.links.attempt(two.address, two.node_id)
        assert again.outcome is Outcome.LINKED


async def test_heartbeats_go_both_ways() -> None:
    async with ground() as made:
        config = LinkConfig(heartbeat_interval=0.02, handshake_timeout=2.0)
        one, two = await made.pair(config)
        await one.seen.until(lambda: one.seen.answers >= 30)
        assert two.seen.asked >= 30
        assert one.seen.downs == [] and two.seen.downs == []
        assert one.seen.early == [] and two.seen.early == []


async def test_a_heartbeat_without_a_link_goes_nowhere() -> None:
    async with ground() as made:
        one, two = await made.pair()
        link = await one.linked()
        one.links.forget(two.address)
        await link.close()
        link.send_control([b"\x80\x00\x00\x01", b"?"])
        assert not link.is_up


async def test_a_peer_that_stands_still_holds_nobody_up_for_long() -> None:
    """Its kernel takes connections all the same: a dial ends long before a slow handshake would."""
    config = LinkConfig(handshake_timeout=30.0, answer_timeout=0.2)

    async def stopped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with ground() as made:
        one = await made.node("one", config=config)
        address = await made.server(stopped)
        loop = asyncio.get_running_loop()
        began = loop.time()
        end, _ = await one.links.attempt(address, os.urandom(16))
        assert end == LinkEnd(Outcome.TIMEOUT, "it took the connection and does not answer")
        assert 0.19 <= loop.time() - began < 2.0  # loops count whole milliseconds


async def test_services_share_a_listener_and_nothing_else() -> None:
    shop, stock = (ServiceKey.generate(name, os.urandom(32)) for name in ("shop", "stock"))
    hub = LinkService(QUICK)
    seen = {key.service: Recorder() for key in (shop, stock)}
    for key in (shop, stock):
        hub.register(Keyring(key), PeerInfo(os.urandom(16), "hub"), seen[key.service])
    (address,) = await hub.start([Listener(Address("127.0.0.1", 0))])
    async with ground() as made:
        one = await made.node("one", key=shop)
        two = await made.node("two", key=stock)
        one.dial(address)
        two.dial(address)
        link, _ = await one.linked(), await two.linked()
        one.seen.send(link, b"for the shop")
        await seen["shop"].until(lambda: seen["shop"].bodies)
        assert [link.peer.name for link in hub.links("shop")] == ["one"]
        assert [link.peer.name for link in hub.links("stock")] == ["two"]
        assert seen["stock"].bodies == []
        await hub.stop()


async def test_a_listener_may_serve_some_services_only() -> None:
    async with ground() as made:
        two = await made.node("two", services=("another",))
        one = await made.node("one")
        one.dial(two.address)
        await one.seen.until(lambda: one.seen.named(Outcome.WRONG_KEY))
        assert Outcome.WRONG_KEY in two.outcomes()


async def test_an_address_nobody_listens_at() -> None:
    async with ground() as made:
        one, two = await made.node("one"), await made.node("two")
        await two.service.stop()
        one.dial(two.address)
        await one.seen.until(lambda: len(one.seen.named(Outcome.UNREACHABLE)) >= 3)
        assert one.seen.facts[0].address == str(two.address)


async def test_another_node_than_the_expected_one() -> None:
    async with ground() as made:
        one, two = await made.node("one"), await made.node("two")
        one.dial(two.address, expected=os.urandom(16))
        await one.seen.until(lambda: one.seen.named(Outcome.MISROUTED))
        await two.seen.until(lambda: two.seen.named(Outcome.MISROUTED))
        assert one.seen.facts[0].by_peer and not two.seen.facts[0].by_peer
        assert one.seen.ups == [] and two.seen.ups == []


async def test_our_own_address() -> None:
    async with ground() as made:
        one = await made.node("one")
        one.dial(one.address)
        await one.seen.until(lambda: len(one.seen.named(Outcome.SELF)) == 2)
        assert one.seen.ups == []


async def test_forgetting_an_address_ends_its_dialling() -> None:
    async with ground() as made:
        one, two = await made.node("one"), await made.node("two")
        await two.service.stop()
        one.dial(two.address)
        await one.seen.until(lambda: one.seen.facts)
        one.links.forget(two.address)
        one.links.forget(two.address)
        assert one.links.dialled_addresses == []


async def test_removing_a_key_closes_the_links_made_with_it() -> None:
    new = ServiceKey.generate("shop", os.urandom(32))
    async with ground() as made:
        one, two = await made.pair()
        for node in (one, two):
            node.links.use(node.links.keyring.accept(new))
        for node in (one, two):
            node.links.use(node.links.keyring.activate(new.key_id))
        assert one.seen.downs == [] and two.seen.downs == []  # the link made with the old key goes on
        two.links.use(two.links.keyring.remove(made.key.key_id))
        await one.seen.until(lambda: one.seen.downs)
        assert one.seen.downs[0][1].detail == two.seen.downs[0][1].detail == "its key was removed"
        await one.seen.until(lambda: len(one.seen.ups) == 2)  # dialled again with the new one
        assert one.seen.live[0].control.key_id == new.key_id


async def test_a_port_in_use_and_an_address_that_is_not_ours() -> None:
    async with ground() as made:
        one = await made.node("one")
        with pytest.raises(ListenError, match="in use"):
            await one.service.start([Listener(one.address)])
        with pytest.raises(ListenError, match="no such address"):
            await one.service.start([Listener(Address("192.0.2.1", 0))])


async def test_a_service_is_registered_once() -> None:
    async with ground() as made:
        one = await made.node("one")
        with pytest.raises(ConfigError, match="twice"):
            one.service.register(Keyring(made.key), PeerInfo(os.urandom(16), "one"), one.seen)
