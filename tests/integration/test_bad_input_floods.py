"""Floods and garbage on every port, and apps that ask for too much or read nothing: the neighbours go on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

import iris_client as iris
from iris_proto.v1 import frame_pb2 as pb

from .bad_input_ground import (
    MiB,
    Neighbour,
    RawApp,
    call,
    connect,
    daemons,
    eventually,
    frame,
    join,
    memory_of,
    neighbour,
    nothing_left,
    raw_app,
    status_of,
    url_of,
)
from .cli_iris_ground import Mesh

R, PUBLISH, SUBSCRIBE = pb.KIND_REQUEST, pb.KIND_PUBLISH, pb.KIND_SUBSCRIBE
TOKEN = "a-token-of-enough-bytes"


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("token") / "token"
    path.touch(mode=0o600)
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture(scope="module")
def mesh(token_file: Path) -> Iterator[Mesh]:
    with daemons("oak", flags=("--attach-tcp", "127.0.0.1:0", "--token-file", str(token_file))) as mesh:
        yield mesh


@pytest_asyncio.fixture
async def url(mesh: Mesh) -> AsyncIterator[str]:
    """The daemon: the same before and after every test, with nothing left in it."""
    url = url_of(mesh)
    pid = status_of(url).pid
    yield url
    assert (await nothing_left(url)).pid == pid


@pytest_asyncio.fixture
async def pair(url: str) -> AsyncIterator[Neighbour]:
    async with neighbour(url) as pair:
        yield pair


def ports(url: str) -> list[str]:
    """Every port of the daemon: the sockets for apps and for its owner, the TCP port for apps, the port for links."""
    return sorted({row.address for row in status_of(url).listeners})


def test_all_ports_are_under_attack_here(mesh: Mesh) -> None:
    schemes = [address.partition("://")[0] for address in ports(url_of(mesh))]
    assert schemes == ["tcp", "tcp", "unix", "unix"]


# ------------------------------------------------------------------------------- strangers

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PREAMBLE = b"IRIS\x01\x01\x00\x00" + bytes(8)
GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": os.urandom(65_536),
    "zeros": bytes(65_536),
    "http2 and noise": HTTP2 + os.urandom(8192),
    "a huge http2 frame": HTTP2 + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(65_536),
    "a preamble and noise": PREAMBLE + os.urandom(8192),
    "nothing": b"",
    "a byte": b"\x00",
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_on_every_port(url: str, pair: Neighbour, what: str) -> None:
    def throw(address: str) -> None:
        for _ in range(20):
            with connect(address) as sock, suppress(OSError):  # hung up on, before or after its bytes were read
                sock.sendall(GARBAGE[what])
                if len(GARBAGE[what]) > 1:
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(65_536):
                        pass

    await asyncio.gather(*(asyncio.to_thread(throw, address) for address in ports(url)))
    await pair.more()


async def test_a_thousand_connections_to_every_port(url: str, pair: Neighbour) -> None:
    """All held open at once, each a byte further now and then; meanwhile a new app comes in and is served."""
    with ExitStack() as held:

        def flood(address: str) -> list[socket.socket]:
            return [held.enter_context(connect(address)) for _ in range(1000)]

        floods = await asyncio.gather(*(asyncio.to_thread(flood, address) for address in ports(url)))
        for at in range(8):
            for sock in (sock for flooded in floods for sock in flooded):
                with suppress(OSError):
                    sock.send(HTTP2[at : at + 1])
            await pair.more(3)
        async with iris.connect(url) as late:
            assert (await late.request("neighbours", b"x")).body == b"x"
    async with iris.connect(url) as late:
        assert (await late.request("neighbours", b"x")).body == b"x"


async def test_streams_that_say_nothing_do_not_keep_an_app_out(url: str, pair: Neighbour) -> None:
    """Ten times as many as there are places: the oldest go, and an app gets in among them."""
    async with AsyncExitStack() as stack:
        silent: list[RawApp] = []
        for _ in range(10):
            for _ in range(4):
                options = [("grpc.use_local_subchannel_pool", 1)]
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(url, options))
                silent += [RawApp(channel) for _ in range(64)]
            async with iris.connect(url, timeout=3.0) as late:
                assert (await late.request("neighbours", b"x")).body == b"x"
        status, detail = await silent[0].ended()
        assert status == "RESOURCE_EXHAUSTED"
        assert "have not said HELLO: this daemon waits for 256 at once" in detail
        await pair.more()


async def test_apps_beyond_the_limit_are_told(token_file: Path) -> None:
    with daemons("ash", flags=("--max-attachments", "3")) as own:
        url = url_of(own, "ash")
        async with neighbour(url), iris.connect(url):
            with pytest.raises(iris.DaemonUnavailable, match="too many attachments: this daemon takes 3"):
                async with iris.connect(url, timeout=0.3):
                    pass
        async with iris.connect(url):  # there is room again
            pass


# ------------------------------------------------------------------------- apps that ask much


async def test_a_hundred_thousand_requests_of_one_app(url: str, pair: Neighbour) -> None:
    """To a member that never answers: 65,536 are let in, the rest is told at once, and all of it goes with the app."""
    async with raw_app(url) as member, raw_app(url) as app:
        await member.hello(join(1, "silent", concurrency=65_536))
        await app.hello()
        for batch in range(10):
            at = batch * 10_000
            await app.say(*(call(R, 1 + 2 * (at + n), "silent", remaining_ms=2**32 - 1) for n in range(10_000)))
        told: Counter[tuple[int, str]] = Counter()
        for _ in range(100_000 - 65_536):
            header = (await app.heard(pb.KIND_ERROR)).header
            told[header.code, header.detail] += 1
        assert told == {(pb.CODE_OVERLOADED, "one app may have 65536 calls under way"): 100_000 - 65_536}
        await pair.more()
        assert (await asyncio.to_thread(status_of, url)).services[0].pending >= 65_536


async def test_a_member_that_never_answers(url: str, pair: Neighbour) -> None:
    """Its queue is bounded in bytes; those who wait are told at their deadline, those who do not fit at once."""
    async with raw_app(url) as member, iris.connect(url) as asking:
        await member.hello(join(1, "silent", concurrency=1))
        outcomes: Counter[str] = Counter()

        async def ask() -> None:
            try:
                await asking.request("silent", bytes(MiB), timeout=0.5)
            except (iris.DeadlineExceeded, iris.Overloaded) as error:
                outcomes[type(error).__name__] += 1
                assert error.executed != iris.Executed.YES

        await asyncio.gather(*(ask() for _ in range(30)))
        assert 10 < outcomes["DeadlineExceeded"] <= 17  # the one it has, and 16 MiB may wait
        assert outcomes["Overloaded"] == 30 - outcomes["DeadlineExceeded"]


async def test_a_member_that_never_answers_beside_one_that_does(url: str, pair: Neighbour) -> None:
    cluster = iris.Cluster("half", concurrency=4)
    cluster.on_request(lambda body: body)
    async with raw_app(url) as silent, iris.connect(url) as good, good.join(cluster), iris.connect(url) as asking:
        await silent.hello(join(1, "half", concurrency=4))
        answered = 0
        for _ in range(40):
            with suppress(iris.DeadlineExceeded):
                await asking.request("half", b"x", timeout=0.15)
                answered += 1
        assert answered >= 36  # its four slots are taken, and stay so: the other one has the rest


async def test_a_hundred_thousand_topics(url: str, pair: Neighbour) -> None:
    async with raw_app(url) as app, raw_app(url) as reader:
        await reader.hello(frame(SUBSCRIBE, 1, address=">"))
        await app.hello()
        for batch in range(10):
            await app.say(*(frame(PUBLISH, 0, b"x", address=f"t.{batch}.{at}.x") for at in range(10_000)))
        got = 0
        while got < 100_000:
            event = await reader.heard(pb.KIND_EVENT)
            got += 1 + event.header.lost
        await app.well()


# ---------------------------------------------------------------------- apps that do not read


async def test_a_subscriber_that_never_reads(url: str, pair: Neighbour) -> None:
    """400 MiB are published; the good subscriber has all of it, the daemon holds at most the slow one's bound."""
    pid = status_of(url).pid
    async with raw_app(url) as slow, raw_app(url) as good, raw_app(url) as app:
        for reader in (slow, good):
            await reader.hello(frame(SUBSCRIBE, 1, address="t", max_bytes=2**63))
            await reader.heard(pb.KIND_DONE, 1)
        await app.hello()
        before = memory_of(pid)
        count, got, most = 400, 0, 0
        for at in range(count):
            await app.say(frame(PUBLISH, 0, bytes(MiB), address="t", sizes=[1024] * 1024))
            while got < at - 20:  # the good one keeps up
                event = await good.heard(pb.KIND_EVENT)
                assert not event.header.lost
                got += 1
            most = max(most, memory_of(pid))
        while got < count:
            assert not (await good.heard(pb.KIND_EVENT)).header.lost
            got += 1
        assert most - before < 160 * MiB, f"{(most - before) >> 20} MiB for a subscription of 64 MiB"
        lost = seen = 0
        while lost + seen < count * 1024:  # it wakes up: every message is there or counted
            event = await slow.heard(pb.KIND_EVENT)
            lost += event.header.lost
            seen += len(event.header.sizes)
        assert lost >= (count - 100) * 1024


async def test_an_app_that_asks_and_never_reads_is_not_read() -> None:
    """Its answers are bounded: at 2 MiB of them nothing more is taken from it, until it reads."""
    with daemons("ash", flags=("--max-body", "1MiB", "--attachment-outbox", "2MiB")) as own:
        url = url_of(own, "ash")
        async with neighbour(url) as pair, raw_app(url) as app:
            await app.hello()
            asked = 0

            async def ask() -> None:
                nonlocal asked
                while True:
                    await app.say(*(call(R, 1 + 2 * (asked + at), "nobody") for at in range(1000)))
                    asked += 1000

            asking = asyncio.create_task(ask())
            held = -1
            while held != asked:  # until it gets no further
                held = asked
                await pair.more(25)
            queued = status_of(url).services[0].queued
            assert queued < 3 * MiB
            answered = 0
            while answered < held:  # it reads, and is read again
                assert (await app.heard(pb.KIND_ERROR)).header.code == pb.CODE_NO_MEMBER
                answered += 1
            await eventually(lambda: asked > held, "it is read again")
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def test_answers_too_many_for_a_caller_that_does_not_read(url: str, pair: Neighbour) -> None:
    """Large ones: beyond its bound they become errors that say the handler ran."""
    async with raw_app(url) as member, raw_app(url) as app:
        await member.hello(join(1, "large", concurrency=1000))
        await app.hello()
        await app.say(*(call(R, 1 + 2 * at, "large", remaining_ms=60_000) for at in range(100)))
        for _ in range(100):
            await member.say(frame(pb.KIND_REPLY, (await member.heard(R)).header.id, bytes(MiB)))
        await member.well()
        outcomes: Counter[tuple[int, int]] = Counter()
        while outcomes.total() < 100:
            header = (await app.hear()).header
            if header.kind in (pb.KIND_REPLY, pb.KIND_ERROR):
                outcomes[header.code, header.executed] += 1
        assert outcomes[0, 0] >= 60
        assert outcomes[pb.CODE_OVERLOADED, pb.EXECUTED_YES] == 100 - outcomes[0, 0] > 0
