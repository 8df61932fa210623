"""Bad input that takes its time: patience that runs out, and everybody who means harm at once."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress

import grpc
import pytest
import pytest_asyncio

import iris_client as iris
from iris_proto.v1 import frame_pb2 as pb
from tests.integration.bad_input_ground import (
    MiB,
    Neighbour,
    call,
    connect,
    daemons,
    frame,
    join,
    memory_of,
    neighbour,
    nothing_left,
    raw_app,
    status_of,
    url_of,
)
from tests.integration.cli_iris_ground import Mesh

pytestmark = pytest.mark.accept

SOAK = 30.0  # seconds of everything at once
GROWTH = 256 * MiB  # what the daemon may have grown by once it is all over: what its allocator keeps
R, SUBSCRIBE, PUBLISH = pb.KIND_REQUEST, pb.KIND_SUBSCRIBE, pb.KIND_PUBLISH


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with daemons("oak", "elm") as mesh:
        yield mesh


@pytest_asyncio.fixture
async def url(mesh: Mesh) -> AsyncIterator[str]:
    url = url_of(mesh)
    pid = status_of(url).pid
    yield url
    status = await nothing_left(url)
    assert (status.pid, status.services[0].peers) == (pid, 1)


def quantile(times: list[float], share: float) -> float:
    return sorted(times)[int(share * (len(times) - 1))]


async def test_more_subscriptions_than_one_app_may_have(url: str) -> None:
    """A hundred thousand, and all of them go with their app; the neighbours wait for neither."""
    pid = status_of(url).pid
    before = memory_of(pid)
    async with neighbour(url) as pair:
        async with raw_app(url) as app:
            await app.hello()
            for batch in range(10):
                ids = range(1 + batch * 20_000, 1 + (batch + 1) * 20_000, 2)
                await app.say(*(frame(SUBSCRIBE, id, address=f"s.{id}", max_bytes=2**63) for id in ids))
            await app.say(frame(SUBSCRIBE, 300_001, address="one.more"))
            header = (await app.heard(pb.KIND_ERROR)).header
            assert (header.code, header.id) == (pb.CODE_OVERLOADED, 300_001)
            assert header.detail == "one app may join, subscribe and watch at most 100000 times"
            assert memory_of(pid) - before < 800 * MiB
            await pair.more()
        await pair.more()
        assert max(pair.times) < 5.0


async def test_an_app_that_does_not_read_is_shown_out_after_a_minute(url: str) -> None:
    pid = status_of(url).pid
    before = memory_of(pid)
    async with neighbour(url), raw_app(url) as app:
        await app.hello()
        asked = 0

        async def ask() -> None:
            nonlocal asked
            while True:
                await app.say(*(call(R, 1 + 2 * (asked + at), "nobody") for at in range(5000)), patience=120)
                asked += 5000

        began = time.monotonic()
        asking = asyncio.create_task(ask())
        assert await shown_out(url) == 2  # the neighbours are still here
        assert 55 < time.monotonic() - began < 110
        assert memory_of(pid) - before < 400 * MiB
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def shown_out(url: str) -> int:
    """Wait until one of three attachments has been ended; how many are left."""
    async with asyncio.timeout(120):
        while (left := (await asyncio.to_thread(status_of, url)).services[0].attachments) > 2:
            await asyncio.sleep(0.2)
        return left


async def test_those_who_creep_are_hung_up_on(url: str) -> None:
    """Slowloris: what they say is right, a byte now and then. No connection lasts longer than a handshake may."""
    said = {"attach": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "links": b"IRIS\x01\x01\x00\x00" + bytes(120)}
    async with neighbour(url):

        def creep(address: str, words: bytes) -> float:
            began = time.monotonic()
            with connect(address) as sock, suppress(ConnectionError):
                sock.settimeout(0.5)
                for at in range(len(words)):
                    sock.send(words[at : at + 1])
                    with suppress(TimeoutError):
                        while sock.recv(4096):  # the other side's own greeting may come at once
                            pass
                        break
            return time.monotonic() - began

        ports = {row.address: said[row.purpose] for row in status_of(url).listeners}
        lasted = await asyncio.gather(
            *(asyncio.to_thread(creep, port, words) for port, words in ports.items() for _ in range(4))
        )
        assert min(lasted) > 1
        assert max(lasted) < 10


# --------------------------------------------------------------------------- everybody at once


class Crowd:
    """Those who mean harm. Each method is one of them once; what happens to it is of no interest."""

    def __init__(self, mesh: Mesh, seed: int) -> None:
        self._url = url_of(mesh)
        self._ports = sorted({row.address for row in status_of(self._url).listeners})
        self._random = random.Random(seed)
        self.ways: list[Callable[[], Awaitable[None]]] = [
            self.garbage,
            self.half_open,
            self.rule_breaker,
            self.flood_of_calls,
            self.silent_member,
            self.subscriber_that_never_reads,
            self.unfinished_bodies,
            self.joins_and_leaves,
            self.vanishing_app,
        ]

    async def garbage(self) -> None:
        port, data = self._random.choice(self._ports), os.urandom(self._random.randrange(1, 100_000))

        def throw() -> None:
            with suppress(OSError), connect(port) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65_536):
                    pass

        await asyncio.to_thread(throw)

    async def half_open(self) -> None:
        port = self._random.choice(self._ports)
        held = await asyncio.to_thread(lambda: [connect(port) for _ in range(100)])
        await asyncio.sleep(0.2)
        for sock in held:
            sock.close()

    async def rule_breaker(self) -> None:
        frames = [frame(self._random.randrange(100), self._random.randrange(2**64), b"x") for _ in range(10)]
        async with raw_app(self._url) as app:
            await app.hello()
            await app.say(*frames)
            await app.say(frame(PUBLISH, 0, b"abc", address="t", sizes=[1]))
            await app.ended()

    async def flood_of_calls(self) -> None:
        async with raw_app(self._url) as app:
            await app.hello()
            await app.say(*(call(R, 1 + 2 * at, "nobody") for at in range(20_000)))

    async def silent_member(self) -> None:
        name = f"silent-{self._random.randrange(2**32)}"
        async with raw_app(self._url) as member, raw_app(self._url) as app:
            await member.hello(join(1, name, concurrency=10))
            await app.hello(*(call(R, 1 + 2 * at, name, bytes(10_000), remaining_ms=200) for at in range(100)))
            await app.well()

    async def subscriber_that_never_reads(self) -> None:
        async with raw_app(self._url) as slow, raw_app(self._url) as app:
            await slow.hello(frame(SUBSCRIBE, 1, address="crowd.>", max_bytes=2**63))
            await app.hello()
            for _ in range(100):
                await app.say(frame(PUBLISH, 0, bytes(MiB), address="crowd.x", sizes=[1024] * 1024))
            await app.well()

    async def unfinished_bodies(self) -> None:
        async with raw_app(self._url) as app:
            await app.hello()
            for at in range(40):
                await app.say(call(R, 1 + 2 * at, "x", bytes(MiB), more=True, total=2 * MiB))

    async def joins_and_leaves(self) -> None:
        async with raw_app(self._url) as app:
            await app.hello()
            for at in range(0, 2000, 2):
                await app.say(join(1 + at, f"brief-{at}"), frame(pb.KIND_LEAVE, 1 + at))
            await app.well()

    async def vanishing_app(self) -> None:
        async with raw_app(self._url) as app:
            await app.hello(*(join(1 + 2 * at, f"vanishing-{at}") for at in range(50)))
            app.cancel()

    async def run(self, until: float) -> None:
        while time.monotonic() < until:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, AssertionError, TimeoutError, OSError):
                await self._random.choice(self.ways)()


async def test_everybody_who_means_harm_at_once(mesh: Mesh, url: str) -> None:
    """For half a minute: no request of the neighbours fails, here or to the other node; then all of it is gone."""
    pid = status_of(url).pid
    far = iris.Cluster("far")
    far.on_request(lambda body: body)
    async with (
        iris.connect(url_of(mesh, "elm")) as other,
        other.join(far),
        iris.connect(url) as asking,
        neighbour(url) as pair,
    ):
        await pair.more(500)
        calm, before = quantile(pair.times, 0.99), memory_of(pid)
        pair.times.clear()
        until = time.monotonic() + SOAK
        crowd = [asyncio.create_task(Crowd(mesh, seed).run(until)) for seed in range(6)]
        while time.monotonic() < until:
            assert (await asking.request("far", b"x", timeout=10.0)).body == b"x"
        await asyncio.gather(*crowd)
        stormy = quantile(pair.times, 0.99)
        print(f"neighbours: p99 {calm * 1e3:.1f} ms before, {stormy * 1e3:.1f} ms within; {len(pair.times)} requests")
        assert len(pair.times) > 100
        await settled(pair)
    await nothing_left(url)
    grown = memory_of(pid) - before
    print(f"the daemon: {before >> 20} MiB before, {grown >> 20} MiB more after")
    assert grown < GROWTH


async def settled(pair: Neighbour) -> None:
    await pair.more(200)
    assert quantile(pair.times[-200:], 0.5) < 0.5
