"""Links among enemies: everything that can be sent at a listener has a name, and no link notices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import pytest

from irisd.keys import ServiceKey
from irisd.link.handshake import Greeting, PskCredentials, Purpose, Responder
from irisd.link.node_links import LinkConfig
from irisd.link.outcome import LinkEnd, Outcome
from irisd.sp import EndpointType
from tests.integration.link_ground import QUICK, Ground, Node, eventually, ground, tight

LOW = b"\x00" * 15 + b"\x01"


@contextlib.asynccontextmanager
async def undisturbed(made: Ground, config: LinkConfig = QUICK) -> AsyncIterator[Node]:
    """A node with a link that has to work before, during and after."""
    target, neighbour = await made.node("target", config=config), await made.node("neighbour")
    neighbour.dial(target.address)
    link, back = await neighbour.linked(), await target.linked()
    yield target
    neighbour.seen.send(link, b"one way")
    await target.seen.until(lambda: b"one way" in target.seen.bodies)
    target.seen.send(back, b"the other")
    await neighbour.seen.until(lambda: b"the other" in neighbour.seen.bodies)
    assert neighbour.seen.downs == []
    assert [end for link, end in target.seen.downs if link is back] == []
    assert neighbour.seen.early == [] and target.seen.early == []


async def until_stranger(node: Node, outcome: Outcome) -> None:
    await eventually(lambda: node.service.counts[outcome])


async def read_all(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(OSError):
        async with asyncio.timeout(10):
            return await reader.read()
    return b""


# ------------------------------------------------------------------- keys


async def test_a_key_the_other_side_does_not_have() -> None:
    async with ground() as made, undisturbed(made) as target:
        stranger = await made.node("stranger", key=ServiceKey.generate("shop", os.urandom(32)))
        stranger.dial(target.address)
        await stranger.seen.until(lambda: len(stranger.seen.named(Outcome.WRONG_KEY)) >= 2)
        assert stranger.seen.facts[0].by_peer  # a hint, in the clear
        assert Outcome.WRONG_KEY in [fact.outcome for fact in target.strangers]
        assert stranger.seen.ups == []


async def test_the_right_key_id_without_the_key() -> None:
    async with ground() as made, undisturbed(made) as target:
        impostor = await made.dial(target.address, psk=os.urandom(32))
        assert (await read_all(impostor.reader))[:4] == b"iris"
        await until_stranger(target, Outcome.WRONG_KEY)


async def test_a_listener_without_the_key() -> None:
    """The key id is public, so anybody can pretend to be a listener of the service."""

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"iris\x01\x00\x00\x80" + os.urandom(128))

    async with ground() as made:
        one = await made.node("one")
        one.dial(await made.server(pretend))
        await one.seen.until(lambda: one.seen.named(Outcome.WRONG_KEY))
        assert not one.seen.facts[0].by_peer


# ---------------------------------------------------------------- versions


async def test_another_version_dials_us() -> None:
    async with ground() as made, undisturbed(made) as target:
        reader, writer = await made.open(target.address)
        writer.write(b"IRIS\x02\x01\x00\x00" + made.key.key_id + b"\x00" * 50)
        assert await read_all(reader) == b"iris\x01\x01\x00\x00"
        await until_stranger(target, Outcome.WRONG_VERSION)


async def test_we_dial_another_version() -> None:
    async def newer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"iris\x02\x01\x00\x00")

    async with ground() as made:
        one = await made.node("one")
        one.dial(await made.server(newer))
        await one.seen.until(lambda: one.seen.named(Outcome.WRONG_VERSION))
        fact = one.seen.facts[0]
        assert fact.by_peer and fact.detail == "the peer speaks version 2, this is version 1"


# ------------------------------------------------------ replays, mirrors


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_replayed_first_message(remembered: bool) -> None:
    async with ground() as made, undisturbed(made, tight()) as target:
        proxy = await made.proxy(target.address)
        victim = await made.node("victim")
        victim.dial(proxy.address)
        await victim.linked()
        await target.seen.until(lambda: len(target.seen.live) == 2)
        control, data = (first_flight(proxy.seen[number, True]) for number in (0, 1))
        if not remembered:
            target.service._gate._seen.clear()  # as after 4,096 others
        answers = []
        for first in (control, data):
            reader, writer = await made.open(target.address)
            writer.write(first)
            answers.append((await read_all(reader))[:4])
        assert answers == ([b"", b""] if remembered else [b"iris", b"iris"])
        # Not remembered, the control replay waits for a first record that never
        # comes, and the data replay names a binding that was used already.
        outcomes = [Outcome.UNCONFIRMED, Outcome.UNCONFIRMED if remembered else Outcome.UNBOUND]
        seen = [Outcome.UNCONFIRMED, Outcome.UNBOUND]
        await target.seen.until(lambda: [f.outcome for f in target.seen.facts if f.outcome in seen] == outcomes)
        assert len(target.seen.live) == 2 and target.seen.downs == []


def first_flight(sent: bytes) -> bytes:
    """The preamble and the first message, as a listener needs them."""
    return sent[: 18 + int.from_bytes(sent[16:18])]


async def test_a_message_reflected_to_its_senders_own_listener() -> None:
    async with ground() as made, undisturbed(made) as target:
        mirror = await made.proxy(target.address)
        target.dial(mirror.address)  # believes somebody else lives there
        await target.seen.until(lambda: len(target.seen.named(Outcome.SELF)) >= 2)
        assert {fact.dialled for fact in target.seen.named(Outcome.SELF)} == {True, False}


async def test_bytes_thrown_back_at_the_dialler() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(4096))

    async with ground() as made, undisturbed(made) as target:
        target.dial(await made.server(echo))
        await target.seen.until(lambda: target.seen.named(Outcome.BAD_PREAMBLE))


# ------------------------------------------------------- data connections


async def test_a_spliced_data_connection_reaches_another_node() -> None:
    async with ground() as made, undisturbed(made) as target:
        two = await made.node("two")
        proxy = await made.proxy(two.address)
        proxy.targets = [two.address, target.address]  # control here, data there
        one = await made.node("one")
        one.dial(proxy.address)
        await one.seen.until(lambda: one.seen.named(Outcome.MISROUTED))
        await target.seen.until(lambda: target.seen.named(Outcome.MISROUTED))
        assert one.seen.ups == []


async def test_a_data_connection_with_a_made_up_binding() -> None:
    async with ground() as made, undisturbed(made) as target:
        await made.dial(target.address, purpose=Purpose.DATA, binding=os.urandom(16))
        await target.seen.until(lambda: target.seen.named(Outcome.UNBOUND))


async def test_a_data_connection_of_another_node() -> None:
    async with ground() as made, undisturbed(made) as target:
        honest = await made.dial(target.address, node_id=LOW)
        await honest.shake()
        await honest.settle()
        await made.dial(target.address, purpose=Purpose.DATA, node_id=b"\x00" * 15 + b"\x02", binding=honest.binding)
        await target.seen.until(lambda: target.seen.named(Outcome.UNBOUND))


async def test_a_control_connection_without_a_data_connection() -> None:
    config = LinkConfig(heartbeat_interval=5.0, handshake_timeout=0.3)
    async with ground() as made, undisturbed(made, config) as target:
        half = await made.dial(target.address)
        await half.shake()
        await half.settle()
        end = await half.until_closed()
        assert end == LinkEnd(Outcome.TIMEOUT, "its data connection did not come up", by_peer=True)
        assert target.seen.named(Outcome.TIMEOUT)[0].peer is not None


# ---------------------------------------------------------------- records


@pytest.mark.parametrize("connection", [0, 1], ids=["control", "data"])
async def test_a_tampered_record(connection: int) -> None:
    async with ground() as made, undisturbed(made) as target:
        proxy = await made.proxy(target.address)
        victim = await made.node("victim")
        victim.dial(proxy.address)
        link = await victim.linked()
        await target.seen.until(lambda: len(target.seen.live) == 2)
        victim.links.forget(proxy.address)

        def flip(number: int, forth: bool, data: bytes) -> bytes:
            return data[:-1] + bytes([data[-1] ^ 1]) if forth and number == connection else data

        proxy.change = flip
        if connection == 1:
            victim.seen.send(link, b"changed on its way")
        await target.seen.until(lambda: target.seen.downs)
        await victim.seen.until(lambda: victim.seen.downs)
        assert target.seen.downs[0][1].outcome is Outcome.TAMPERED
        # The victim is told over whichever connection is still trusted.
        assert victim.seen.downs[0][1].outcome in (Outcome.TAMPERED, Outcome.BROKEN)
        assert b"changed on its way" not in target.seen.bodies


async def test_a_record_cut_short() -> None:
    async with ground() as made, undisturbed(made) as target:
        proxy = await made.proxy(target.address)
        victim = await made.node("victim")
        victim.dial(proxy.address)
        link = await victim.linked()
        await target.seen.until(lambda: len(target.seen.live) == 2)
        victim.links.forget(proxy.address)
        proxy.cut_short = 1
        victim.seen.send(link, b"cut on its way")
        await target.seen.until(lambda: target.seen.downs)
        assert target.seen.downs[0][1].outcome is Outcome.BROKEN
        assert target.seen.bodies == []


async def test_records_swapped_or_repeated() -> None:
    async with ground() as made, undisturbed(made) as target:
        peer = await made.dial(target.address)
        await peer.shake()
        await peer.settle()
        assert peer.session is not None
        first, second = peer.session.seal([b"\x00SP\x00"]), peer.session.seal([b"\x00\x62\x00\x00"])
        peer.say(second + first)
        end = await peer.until_closed()
        assert end is not None and end.outcome is Outcome.TAMPERED


async def test_a_holder_of_the_key_that_breaks_the_protocol() -> None:
    async with ground() as made, undisturbed(made) as target:
        for say in (b"GET / HTTP/1.1\r\n\r\n", b"\x00SP\x00\x00\x11\x00\x00"):  # not SP, and PAIR1 on control
            peer = await made.dial(target.address)
            await peer.shake()
            await peer.settle()
            assert peer.session is not None
            peer.say(peer.session.seal([say]))
            end = await peer.until_closed()
            assert end is not None and end.outcome is Outcome.VIOLATION


async def test_a_holder_of_the_key_whose_message_is_too_large() -> None:
    async with ground() as made, undisturbed(made) as target:
        control = await made.dial(target.address)
        await control.shake()
        await control.settle()
        data = await made.dial(target.address, purpose=Purpose.DATA, binding=control.binding)
        await data.shake()
        assert data.session is not None
        data.say(data.session.seal_settle(1))
        data.hello(EndpointType.PAIR1)
        await target.seen.until(lambda: len(target.seen.live) == 2)
        data.say(data.session.seal([(1 << 40).to_bytes(8) + b"\x00\x00\x00\x01"]))
        await target.seen.until(lambda: target.seen.downs)
        assert target.seen.downs[0][1].outcome is Outcome.VIOLATION
        assert "limit" in target.seen.downs[0][1].detail


async def test_data_before_the_link_is_settled() -> None:
    async with ground() as made, undisturbed(made) as target:
        eager = await made.dial(target.address)
        await eager.shake()
        assert eager.session is not None
        eager.say(eager.session.seal([b"\x00SP\x00\x00\x62\x00\x00"]))
        end = await eager.until_closed()
        assert end is not None and end.outcome is Outcome.VIOLATION


async def test_a_long_record_before_the_link_is_settled() -> None:
    async with ground() as made, undisturbed(made) as target:
        eager = await made.dial(target.address)
        await eager.shake()
        eager.writer.write(b"\xff\xff" + bytes(4096))  # does not have to open to be too long
        end = await eager.until_closed()
        assert end is not None and end.outcome is Outcome.VIOLATION


async def test_questions_whose_answers_are_not_read_are_not_answered_into_memory() -> None:
    async with ground() as made, undisturbed(made) as target:
        peer = await made.dial(target.address)
        await peer.shake()
        await peer.settle()
        peer.hello(EndpointType.SURVEYOR)
        data = await made.dial(target.address, purpose=Purpose.DATA, binding=peer.binding)
        await data.shake()
        assert peer.session is not None and data.session is not None
        question = b"\x80\x00\x00\x01?"
        message = len(question).to_bytes(8) + question
        peer.say(peer.session.seal([message * 500]))  # before there is a link: dropped
        data.say(data.session.seal_settle(1))
        data.hello(EndpointType.PAIR1)
        await target.seen.until(lambda: len(target.seen.live) == 2)
        peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        (link,) = [link for link in target.links._link_by_peer.values() if link.peer.name == "hand-made"]
        transport = link.control._tcp._transport
        assert transport is not None
        before = target.seen.asked
        for _ in range(100):  # 50,000 answers of 47 bytes on the wire: far above any buffer on the way
            peer.say(peer.session.seal([message * 500]))
            await peer.writer.drain()
        await eventually(lambda: target.seen.asked - before >= 50_000)
        assert transport.get_write_buffer_size() < 1_000_000


async def test_a_decider_that_does_not_decide() -> None:
    async with ground() as made, undisturbed(made) as target:
        peer = await made.dial(target.address, node_id=LOW)  # the lowest id: it has to
        await peer.shake()
        assert peer.session is not None
        peer.say(peer.session.seal_settle(0))
        end = await peer.until_closed()
        assert end is not None and end.outcome is Outcome.VIOLATION


# ----------------------------------------------------------- garbage, floods


@pytest.mark.parametrize(
    ("sent", "outcome"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Outcome.BAD_PREAMBLE),
        (b"\x00SP\x00\x00\x62\x00\x00", Outcome.BAD_PREAMBLE),
        (b"\x16\x03\x01\x02\x00\x01", Outcome.BAD_PREAMBLE),
        (b"IRIS\x01\x09\x00\x00KEYIDKEY", Outcome.BAD_PREAMBLE),  # purpose 9
        (b"IRIS\x01\x01\x00\x01KEYIDKEY", Outcome.BAD_PREAMBLE),  # reserved bytes
        (b"IRIS\x01\x01\x00\x00KEYIDKEY\xff\xff", Outcome.BAD_PREAMBLE),  # a first message of 65,535 bytes
        (b"IRIS\x01\x01\x00\x00KEYIDKEY\x00\x10", Outcome.BAD_PREAMBLE),  # of 16
        (b"IRIS\x01\x01\x00\x00KEYIDKEY\x00\x80" + b"x" * 128, Outcome.WRONG_KEY),
        (b"", Outcome.BROKEN),
    ],
)
async def test_garbage_at_the_listener(sent: bytes, outcome: Outcome) -> None:
    async with ground() as made, undisturbed(made) as target:
        reader, writer = await made.open(target.address)
        writer.write(sent)
        if not sent:
            writer.close()
        await until_stranger(target, outcome)
        await read_all(reader)


async def test_slowloris() -> None:
    async with ground() as made, undisturbed(made, tight()) as target:
        reader, writer = await made.open(target.address)
        began = asyncio.get_running_loop().time()
        with contextlib.suppress(OSError):
            for byte in b"IRIS\x01\x01\x00\x00KEYIDKEY\x00\x80" + b"x" * 128:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        assert await read_all(reader) == b""
        assert 0.4 < asyncio.get_running_loop().time() - began < 8  # 146 bytes would have taken 7.3 s
        assert target.service.counts[Outcome.TIMEOUT] == 1 and target.service.half_open == 0


async def test_more_half_open_connections_than_places() -> None:
    async with ground() as made, undisturbed(made, tight(half_open_per_host=8)) as target:
        silent = []
        for number in range(40):
            reader, writer = await made.open(target.address)
            silent.append((reader, writer))
            assert target.service.half_open <= 8
            if number == 30:  # in the midst of it, an honest node comes in
                honest = await made.node("honest")
                honest.dial(target.address)
                await honest.linked()
        assert target.service.counts[Outcome.OVERLOADED] >= 30
        first = await read_all(silent[0][0])
        assert first == b"iris\x01\x03\x00\x00"  # the oldest went first, and was told why
        await until_stranger(target, Outcome.TIMEOUT)


async def test_a_host_that_used_up_its_time_is_turned_away() -> None:
    async with ground() as made, undisturbed(made, tight(burst=0.06, share_per_host=0.01)) as target:
        for _ in range(2_000):
            peer = await made.dial(target.address, psk=os.urandom(32))
            await read_all(peer.reader)
            if target.service.counts[Outcome.OVERLOADED]:
                break
        late = await made.dial(target.address)
        assert await read_all(late.reader) == b""
        facts = [fact for fact in target.strangers if fact.outcome is Outcome.OVERLOADED]
        assert len(facts) <= 2  # a flood does not flood the log


async def test_a_flood_of_five_hundred() -> None:
    async with ground() as made, undisturbed(made) as target:
        writers = []
        for number in range(500):
            _, writer = await made.open(target.address)
            writer.write(os.urandom(8) if number % 2 else b"IRIS\x01\x01\x00\x00")
            writers.append(writer)
        assert target.service.half_open <= 64
        for writer in writers:
            writer.transport.abort()
        await eventually(lambda: not target.service.half_open)


async def test_a_responder_made_by_hand_that_never_stands_by() -> None:
    """The dialling side gives up too: its listener answered and then said nothing."""

    async def half_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        responder = Responder(lambda key_id: PskCredentials(key.link_psk))
        while responder.feed(await reader.read(4096)) is None:
            pass
        reply, _ = responder.answer(None, Greeting(b"\xff" * 16, 1, "half way"), os.urandom(32))
        writer.write(reply)

    async with ground() as made:
        key = made.key
        one = await made.node("one", config=tight())
        one.dial(await made.server(half_way))
        await one.seen.until(lambda: one.seen.named(Outcome.TIMEOUT))
        assert one.seen.ups == []
