"""Callers who mean harm: garbage and floods on every port; the apps that are attached go on."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from random import Random

import grpc
import pytest

from irisd.attach import AttachLimits, AttachServer, TcpPort, UnixSocket
from irisd.model import Frame, Kind
from tests.integration.attach_glue import BEARER, App, Apps, Source, app_at, channel_to, running, write_token


@pytest.fixture
def tcp(run_dir: Path) -> TcpPort:
    return TcpPort("127.0.0.1", 0, write_token(run_dir))


@pytest.fixture
def unix(run_dir: Path) -> UnixSocket:
    return UnixSocket(run_dir / "irisd.sock")


# ----------------------------------------------------------------- callers who mean harm


def connect(url: str) -> socket.socket:
    scheme, _, address = url.partition("://")
    if scheme == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(address)
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))


async def harmed(url: str, data: bytes) -> None:
    """Send bytes and read until the daemon hangs up, off the event loop."""

    def talk() -> None:
        with connect(url) as sock:
            sock.settimeout(10)
            try:
                sock.sendall(data)
                while sock.recv(65536):
                    pass
            except ConnectionError:
                pass  # hung up on with our bytes unread: as good

    await asyncio.to_thread(talk)


HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(65536),
        b"\x00" * 65536,
        HTTP2 + os.urandom(4096),
        HTTP2 + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(512),
    ],
    ids=["http1", "random", "zeros", "http2-random", "http2-huge-frame", "tls"],
)
async def test_garbage_on_every_port(unix, tcp, garbage):
    apps = Apps()
    async with running(AttachServer(apps, Source(), [unix, tcp])) as urls, app_at(urls[0]) as app:
        await app.hello()
        for url in urls:
            await harmed(url, garbage)
            await app.ping()
        async with app_at(urls[1], BEARER) as late:
            await late.hello()
    assert len(apps.said("attached")) == 2


async def test_a_flood_of_connections_is_bounded_and_the_apps_go_on(unix):
    apps = Apps()
    limits = AttachLimits(connections=64, hello_timeout=1.0)
    async with running(AttachServer(apps, Source(), [unix], limits)) as urls, app_at(urls[0]) as app:
        await app.hello()
        with ExitStack() as held:
            flood = [held.enter_context(connect(urls[0])) for _ in range(500)]
            await app.ping()

            def hung_up() -> int:
                count = 0
                for sock in flood:
                    sock.settimeout(5)
                    try:
                        first = sock.recv(4096)
                        while first and sock.recv(4096):  # its settings, and then: it hangs up on the silent
                            pass
                    except ConnectionError:
                        pass
                    count += 1
                return count

            assert await asyncio.to_thread(hung_up) == 500
            await app.ping()
        async with app_at(urls[0]) as late:  # and there is room again
            await late.hello()


async def test_a_flood_of_streams_is_bounded_and_the_apps_go_on(unix):
    apps = Apps()
    limits = AttachLimits(unready=32, hello_timeout=0.5)
    async with running(AttachServer(apps, Source(), [unix], limits)) as urls, app_at(urls[0]) as app:
        await app.hello()
        for _ in range(4):
            async with channel_to(urls[0]) as channel:
                streams = [App(channel) for _ in range(100)]
                await app.ping()
                statuses = [status for status, _ in await asyncio.gather(*(stream.status() for stream in streams))]
                assert set(statuses) == {"RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"}
                assert statuses.count("INVALID_ARGUMENT") <= 32 + 32  # waited for, at most twice the cap in this time
                await app.ping()
    assert len(apps.said("attached")) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_apps_that_end_in_every_way_at_once(unix, seed):
    """Cancelled, closed, ended by the daemon, malformed, or cut off, with frames in flight: detached once each."""
    rng = Random(seed)
    apps = Apps()

    async def one(end: str) -> None:
        async with app_at(urls[0]) as app:
            try:
                await app.hello()
                for _ in range(rng.randrange(4)):
                    await app.say(Frame(Kind.PUBLISH, id=1, address="t", body=bytes(rng.randrange(200_000))))
                if end == "malformed":
                    await app.call.write(b"\x0a\xff\xff\xff\xff\x0f")
                elif end == "closed":
                    await app.call.done_writing()
                elif end == "cancelled":
                    app.call.cancel()
                if end in ("malformed", "closed", "ended"):
                    await app.status()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, AssertionError):
                pass  # the daemon ended it in the middle of what it said

    server = AttachServer(apps, Source(), [unix], AttachLimits(end_timeout=0.5))
    async with running(server) as urls:
        ways = [rng.choice(("malformed", "closed", "cancelled", "ended", "cut off")) for _ in range(150)]
        everyone = asyncio.gather(*map(one, ways))
        while not everyone.done():
            await apps.until(lambda: apps.attachments or everyone.done())
            if apps.attachments:
                rng.choice(list(apps.attachments.values())).end("UNAVAILABLE", "at random")
            await asyncio.wait((everyone,), timeout=0.01)
        await everyone
        await apps.until(lambda: len(apps.said("detached")) == 150)
        assert server.attachments == 0
    by_app: dict[int, list[str]] = {}
    for what, number, _ in apps.calls:
        by_app.setdefault(number, []).append(what)
    for calls in by_app.values():
        assert (calls[0], calls[-1]) == ("attached", "detached")
        assert set(calls[1:-1]) <= {"frames"}
