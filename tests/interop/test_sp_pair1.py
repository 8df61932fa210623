"""PAIR1 both ways, both mappings, either side listening, against nngcat and pynng (nanomsg has no PAIR1)."""

from __future__ import annotations

import pytest

from irisd.sp import EndpointType, Framing, SpFault
from tests.interop.sp_glue import PATIENCE, SpSocket, StartTool

pytestmark = pytest.mark.interop

SIZES = [0, 1, 8, 4095, 65_519, 65_520, 300_000, 1024 * 1024 - 4]  # the last is all that fits in the default limit


@pytest.mark.parametrize("verb", ["dial", "listen"])
async def test_nngcat_and_we_exchange_messages(verb: str, framing: Framing, url: str, start_tool: StartTool) -> None:
    async with SpSocket(EndpointType.PAIR1, framing) as ours:
        if verb == "dial":
            await ours.listen(url)
        # Not -A: nngcat ends no lines with it.
        tool = await start_tool("nngcat", "--pair1", f"--{verb}", url, "-d", "1", "-D", "from nng", "-Q")
        if verb == "listen":
            await ours.dial(url)
        pipe = await ours.wait_up()
        assert await ours.receive() == (pipe, b"from nng")
        pipe.send(b"from ", b"irisd")
        pipe.send(b"again")
        assert [await tool.line(), await tool.line()] == ['"from irisd"', '"again"']


@pytest.mark.parametrize("verb", ["dial", "listen"])
async def test_pynng_and_we_exchange_messages_of_every_size(verb: str, framing: Framing, url: str) -> None:
    pynng = pytest.importorskip("pynng")
    async with SpSocket(EndpointType.PAIR1, framing) as ours:
        with pynng.Pair1(recv_timeout=int(PATIENCE * 1000), send_timeout=int(PATIENCE * 1000)) as theirs:
            if verb == "dial":
                await ours.listen(url)
                theirs.dial(url, block=False)
            else:
                theirs.listen(url)
                await ours.dial(url)
            pipe = await ours.wait_up()
            for size in SIZES:
                body = bytes(at & 0xFF for at in range(size))
                await theirs.asend(body)
                assert await ours.receive() == (pipe, body)
                pipe.send(body)
                assert await theirs.arecv() == body


async def test_a_burst_keeps_its_order_and_loses_nothing(framing: Framing, url: str) -> None:
    pynng = pytest.importorskip("pynng")
    numbers = [b"%d" % number for number in range(2000)]
    async with SpSocket(EndpointType.PAIR1, framing) as ours:
        await ours.listen(url)
        with pynng.Pair1(recv_timeout=int(PATIENCE * 1000), send_timeout=int(PATIENCE * 1000)) as theirs:
            theirs.dial(url, block=False)
            pipe = await ours.wait_up()
            for number in numbers:
                pipe.send(number)
            assert [await theirs.arecv() for _ in numbers] == numbers
            for number in numbers:
                await theirs.asend(number)
            assert [(await ours.receive())[1] for _ in numbers] == numbers


async def test_a_message_above_our_limit_ends_that_connection_only(framing: Framing, url: str) -> None:
    pynng = pytest.importorskip("pynng")
    async with SpSocket(EndpointType.PAIR1, framing, max_size=1000) as ours:
        await ours.listen(url)
        with pynng.Pair1(reconnect_time_min=10, send_timeout=int(PATIENCE * 1000)) as theirs:
            theirs.dial(url, block=False)
            first = await ours.wait_up()
            await theirs.asend(b"x" * 997)
            assert await ours.wait_down() is first
            assert first.error is not None
            assert (first.error.fault, first.error.size, first.error.limit) == (SpFault.TOO_LARGE, 1001, 1000)
            second = await ours.wait_up()
            await theirs.asend(b"x" * 996)
            assert await ours.receive() == (second, b"x" * 996)


@pytest.mark.parametrize(
    ("name", "protocol", "endpoint"),
    [("nngcat", "--req0", 0x30), ("nngcat", "--pair0", 0x10), ("nanocat", "--pair", 0x10)],
)
async def test_another_protocol_is_refused_by_name(
    name: str, protocol: str, endpoint: int, framing: Framing, url: str, start_tool: StartTool
) -> None:
    async with SpSocket(EndpointType.PAIR1, framing) as ours:
        await ours.listen(url)
        await start_tool(name, protocol, "--connect", url, "-D", "hello")
        refused = await ours.wait_down()
        assert refused.error is not None
        assert (refused.error.fault, refused.error.endpoint) == (SpFault.WRONG_PEER, endpoint)
        assert ours.inbox.empty()
