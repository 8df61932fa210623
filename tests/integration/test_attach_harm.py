"""Callers who mean harm: garbage and floods on every port; the apps that are attached go on."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from irisd.attach import AttachLimits, AttachServer, TcpPort, UnixSocket
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
