"""Tunnels through real nodes, as apps use them."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable

import pytest

import iris_client as iris
from iris_client import MiB
from iris_client.testing import LocalMesh


def serving(handler: Callable[[iris.Tunnel], Awaitable[None]]) -> iris.Cluster:
    cluster = iris.Cluster("storage")
    cluster.on_tunnel(handler)
    return cluster


async def echo(tunnel: iris.Tunnel) -> None:
    async for message in tunnel:
        await tunnel.send(message)


async def test_messages_both_ways_keep_their_boundaries(caller: iris.Mesh, server: iris.Mesh):
    messages = [b"", b"a", b"b" * 70_000, b"c" * (3 * MiB), b"", b"d"]
    async with server.join(serving(echo)), caller.tunnel("storage") as tunnel:

        async def send() -> None:
            for message in messages:
                await tunnel.send(message)
            await tunnel.finish()

        sending = asyncio.create_task(send())
        assert [message async for message in tunnel] == messages
        await sending
        assert await tunnel.receive() is None


async def test_a_large_file_arrives_whole(caller: iris.Mesh, server: iris.Mesh):
    sums: list[str] = []

    async def store(tunnel: iris.Tunnel) -> None:
        digest = hashlib.sha256()
        async for chunk in tunnel:
            digest.update(chunk)
        sums.append(digest.hexdigest())
        await tunnel.send(digest.hexdigest().encode())

    data = random.Random(1).randbytes(20 * MiB)
    async with server.join(serving(store)), caller.tunnel("storage") as tunnel:
        for at in range(0, len(data), 50_000):
            await tunnel.send(data[at : at + 50_000])
        await tunnel.finish()
        assert await tunnel.receive() == hashlib.sha256(data).hexdigest().encode()


async def test_what_the_handler_is_told(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("storage")

    @cluster.on_tunnel("read")
    async def read(tunnel: iris.Tunnel) -> None:
        await tunnel.send(f"{tunnel.method} {tunnel.body!r} {dict(tunnel.headers)}".encode())
        assert tunnel.peer.startswith("caller@")

    async with server.join(cluster):
        async with caller.tunnel("storage", b"/path", method="read", headers={"a": "b"}) as tunnel:
            assert await tunnel.receive() == b"read b'/path' {'a': 'b'}"
        with pytest.raises(iris.NotSupported, match="no tunnel method 'write'; it has: read"):
            async with caller.tunnel("storage", method="write"):
                pass


async def test_reject_before_the_first_use_refuses_cleanly(caller: iris.Mesh, server: iris.Mesh):
    async def refuse(tunnel: iris.Tunnel) -> None:
        raise iris.Reject("no such file", code="missing", body=tunnel.body)

    async with server.join(serving(refuse)):
        with pytest.raises(iris.Rejected, match="no such file") as caught:
            async with caller.tunnel("storage", b"/path"):
                pass
        assert (caught.value.code, caught.value.body) == ("missing", b"/path")


async def test_a_handler_that_fails_breaks_it(caller: iris.Mesh, server: iris.Mesh, caplog: pytest.LogCaptureFixture):
    async def fail(tunnel: iris.Tunnel) -> None:
        await tunnel.send(b"one")
        await tunnel.receive()
        raise KeyError("secret")

    async with server.join(serving(fail)):
        with pytest.raises(iris.TunnelBroken, match="fail raised KeyError"):
            async with caller.tunnel("storage") as tunnel:
                assert await tunnel.receive() == b"one"
                await tunnel.send(b"go on")
                await tunnel.receive()
    assert "secret" in caplog.text


async def test_an_opener_that_leaves_by_an_exception_breaks_it(caller: iris.Mesh, server: iris.Mesh):
    seen: asyncio.Queue[object] = asyncio.Queue()

    async def read(tunnel: iris.Tunnel) -> None:
        try:
            async for message in tunnel:
                seen.put_nowait(message)
            seen.put_nowait("clean")
        except iris.TunnelBroken as error:
            seen.put_nowait(error)
            raise

    async with server.join(serving(read)):
        with pytest.raises(ZeroDivisionError):
            async with caller.tunnel("storage") as tunnel:
                await tunnel.send(b"one")
                async with asyncio.timeout(2):
                    assert await seen.get() == b"one"
                raise ZeroDivisionError
        async with asyncio.timeout(2):
            broken = await seen.get()
        assert isinstance(broken, iris.TunnelBroken)
        assert "ZeroDivisionError" in str(broken)


async def test_leaving_normally_finishes_and_discards(caller: iris.Mesh, server: iris.Mesh):
    ended = asyncio.Event()
    got: list[bytes] = []

    async def chatter(tunnel: iris.Tunnel) -> None:
        async def talk() -> None:
            for _ in range(50):
                await tunnel.send(b"x" * 100_000)  # more than any window: somebody must go on taking it

        talking = asyncio.create_task(talk())
        async for message in tunnel:
            got.append(message)
        await talking
        ended.set()

    async with server.join(serving(chatter)):
        async with caller.tunnel("storage") as tunnel:
            await tunnel.send(b"only this")
        with pytest.raises(iris.TunnelBroken, match="can send no more"):
            await tunnel.send(b"more")
        async with asyncio.timeout(5):
            await ended.wait()
    assert got == [b"only this"]


async def test_a_handler_that_returns_early_lets_the_opener_finish(caller: iris.Mesh, server: iris.Mesh):
    async def ignore(tunnel: iris.Tunnel) -> None:
        """Return at once, reading nothing."""

    async with server.join(serving(ignore)), caller.tunnel("storage") as tunnel:
        for _ in range(50):
            await tunnel.send(b"x" * 100_000)
        assert await tunnel.receive() is None


async def test_a_member_that_vanishes_breaks_it(local: LocalMesh, caller: iris.Mesh):
    started = asyncio.Event()

    async def hang(tunnel: iris.Tunnel) -> None:
        await tunnel.accept()
        started.set()
        await tunnel.receive()

    async with local.connect(1) as server, server.join(serving(hang)):
        with pytest.raises(iris.TunnelBroken):
            async with caller.tunnel("storage") as tunnel:
                await started.wait()
                local.stop(1)
                await tunnel.receive()
        local.start(1)


async def test_cancelling_the_opening_gives_it_up(caller: iris.Mesh, server: iris.Mesh):
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def consider(tunnel: iris.Tunnel) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with server.join(serving(consider)):
        opening = asyncio.create_task(caller.tunnel("storage", timeout=30.0).__aenter__())
        await asked.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        async with asyncio.timeout(2):
            await cancelled.wait()
        with pytest.raises(iris.DeadlineExceeded):
            async with caller.tunnel("storage", timeout=0.05):
                pass


async def test_abort(caller: iris.Mesh, server: iris.Mesh):
    seen: asyncio.Queue[BaseException] = asyncio.Queue()

    async def read(tunnel: iris.Tunnel) -> None:
        try:
            await tunnel.receive()
        except iris.TunnelBroken as error:
            seen.put_nowait(error)

    async with server.join(serving(read)):
        with pytest.raises(iris.TunnelBroken):
            async with caller.tunnel("storage") as tunnel:
                tunnel.abort("enough")
                await tunnel.send(b"x")
        async with asyncio.timeout(2):
            assert "enough" in str(await seen.get())


async def test_misuse_says_what_to_do(caller: iris.Mesh, server: iris.Mesh):
    tunnel = caller.tunnel("storage")
    with pytest.raises(RuntimeError, match="async with"):
        await tunnel.send(b"x")
    with pytest.raises(iris.NoMember):
        await tunnel.__aenter__()

    async def enters(tunnel: iris.Tunnel) -> None:
        with pytest.raises(RuntimeError, match="open already"):
            await tunnel.__aenter__()
        with pytest.raises(iris.CodecError):
            await tunnel.send("text")
        with pytest.raises(iris.TooLarge, match="limit is 8388608"):
            await tunnel.send(b"x" * (8 * MiB + 1))

    async with server.join(serving(enters)), caller.tunnel("storage") as opened:
        assert await opened.receive() is None


async def test_closing_the_mesh_lets_a_tunnel_end(local: LocalMesh, server: iris.Mesh):
    got: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def store(tunnel: iris.Tunnel) -> None:
        while (message := await tunnel.receive()) is not None:
            got.put_nowait(message)
        got.put_nowait(None)

    async with server.join(serving(store)):
        async with local.connect() as mesh, mesh.tunnel("storage") as tunnel:
            await tunnel.send(b"x" * MiB)
        async with asyncio.timeout(5):
            assert await got.get() == b"x" * MiB
            assert await got.get() is None


async def test_plain_handlers_get_a_blocking_tunnel(caller: iris.Mesh, server: iris.Mesh):
    from iris_client import sync

    cluster = iris.Cluster("storage")

    @cluster.on_tunnel
    def upper(tunnel: sync.Tunnel) -> None:
        for message in tunnel:
            tunnel.send(message.upper())
        tunnel.finish()

    async with server.join(cluster), caller.tunnel("storage") as tunnel:
        await tunnel.send(b"a")
        await tunnel.send(b"b")
        await tunnel.finish()
        assert [message async for message in tunnel] == [b"A", b"B"]
