"""Requests and replies above max_body over two real daemons: whole, within a window of memory, and never half."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import iris_client as iris
from iris_client import Executed, MiB
from irisd.demo.mesh import Mesh, eventually
from tests.integration.sdk_ground import PATIENCE, App

MEMORY = 24 * MiB
"""What a daemon's peak may rise by while bodies pass it: windows, a few batches each way and buffers, no body."""


@pytest_asyncio.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with Mesh(2, "--preset", "local", "--max-large-body", "64MiB") as made:
        yield made


@pytest_asyncio.fixture
async def caller(mesh: Mesh) -> AsyncIterator[iris.Mesh]:
    async with iris.connect(mesh[0].url, name="caller", timeout=PATIENCE) as made:
        yield made


@pytest_asyncio.fixture
async def server(mesh: Mesh) -> AsyncIterator[iris.Mesh]:
    async with iris.connect(mesh[1].url, name="server", timeout=PATIENCE) as made:
        yield made


def peak(pid: int) -> int:
    """The most bytes a process ever had in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def database() -> iris.Cluster:
    cluster = iris.Cluster("db", concurrency=2)

    @cluster.on_request
    async def echo(body: bytes) -> bytes:
        return body

    @cluster.on_request("hash")
    async def digest(body: bytes) -> bytes:
        return hashlib.sha256(body).digest()

    @cluster.on_request("make")
    async def make(body: bytes) -> iris.Reply:
        return iris.Reply(bytes(int(body)), {"made": body.decode()}, content_type="zeros")

    return cluster


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_9_and_40_mib_both_ways_within_a_window_of_memory(mesh: Mesh, caller: iris.Mesh, server: iris.Mesh):
    assert (caller.max_body, caller.max_request) == (8 * MiB, 64 * MiB)
    async with server.join(database()):
        warm = os.urandom(MiB)
        assert (await caller.request("db", warm)).body == warm
        before = [peak(daemon.pid) for daemon in mesh.daemons]
        for size in (9 * MiB, 40 * MiB):
            body = os.urandom(size)
            assert (await caller.request("db", body, method="hash", timeout=30)).body == hashlib.sha256(body).digest()
            reply = await caller.request("db", str(size).encode(), method="make", timeout=30)
            assert (len(reply.body), reply.headers["made"], reply.content_type) == (size, str(size), "zeros")
            assert (await caller.request("db", body, timeout=30)).body == body
        rose = [peak(daemon.pid) - at for daemon, at in zip(mesh.daemons, before, strict=True)]
        print("peaks rose by", [f"{each / MiB:.1f} MiB" for each in rose])
        assert max(rose) < MEMORY, [f"{each / MiB:.1f} MiB" for each in rose]
        with pytest.raises(iris.TooLarge, match=f"limit is {64 * MiB} bytes"):
            await caller.request("db", bytes(64 * MiB + 1))
        with pytest.raises(iris.TooLarge, match=f"limit is {64 * MiB} bytes") as caught:
            await caller.request("db", str(64 * MiB + 1).encode(), method="make", timeout=30)
        assert caught.value.executed is Executed.YES
    await nothing_is_left(mesh)


async def nothing_is_left(mesh: Mesh) -> None:
    for daemon in mesh.daemons:
        async with asyncio.timeout(PATIENCE):
            while (status := await daemon.status()).services[0].pending or status.services[0].queued:
                await asyncio.sleep(0.01)  # between two looks at the state that is awaited


async def test_cancelling_stops_the_handler_and_frees_its_slot_at_once(
    mesh: Mesh, caller: iris.Mesh, server: iris.Mesh
):
    cluster = iris.Cluster("db", concurrency=1)
    began, stopped = asyncio.Event(), asyncio.Event()

    @cluster.on_request
    async def wait(request: iris.Request) -> bytes:
        if len(request.body) < MiB:
            return b"free"
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return b""

    async with server.join(cluster):
        asking = asyncio.create_task(caller.request("db", bytes(12 * MiB), timeout=60))
        await began.wait()
        started = time.monotonic()
        asking.cancel()
        await stopped.wait()
        assert (await caller.request("db", b"next")).body == b"free"
        assert time.monotonic() - started < 0.1
    await nothing_is_left(mesh)


LOSES = """
import asyncio, os, sys, iris_client as iris

async def main():
    cluster = iris.Cluster("db")

    @cluster.on_request
    async def get(body: bytes) -> bytes:
        print("began", flush=True)
        await asyncio.sleep(60)
        return b""

    @cluster.on_request("half")
    async def half(body: bytes) -> bytes:
        return bytes(int(body))

    async with iris.connect(sys.argv[1], timeout=20) as mesh, mesh.join(cluster):
        print("ready", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["", "half"])
async def test_a_member_that_dies_is_lost(mesh: Mesh, caller: iris.Mesh, method: str):
    member = await App.start(LOSES, mesh[1].url)
    try:
        assert await member.line() == "ready"
        body = bytes(12 * MiB) if not method else str(60 * MiB).encode()
        asking = asyncio.create_task(caller.request("db", body, method=method, timeout=30))
        if not method:
            assert await member.line() == "began"
        else:
            await eventually(
                lambda: any(len(flow._messages) or flow._granted for flow in caller._session._flows._owners)
            )
        await member.kill()
        with pytest.raises(iris.MemberLost) as caught:
            await asking
        assert caught.value.executed is (Executed.YES if method else Executed.MAYBE)
    finally:
        await member.kill()
    await nothing_is_left(mesh)


async def test_a_link_that_breaks_while_a_body_is_under_way(mesh: Mesh, caller: iris.Mesh, server: iris.Mesh):
    """The caller's daemon loses the other: not all had left, so the handler has not run."""
    async with server.join(database()):
        asking = asyncio.create_task(caller.request("db", bytes(60 * MiB), timeout=30))
        await eventually(lambda: bool(server._session._flows._owners))  # the member has begun to take it
        await mesh[1].kill()
        with pytest.raises(iris.DeliveryError) as caught:
            await asking
        assert caught.value.executed is Executed.NO
        await mesh[1].start()


async def test_the_command_line_takes_and_gives_large_bodies(mesh: Mesh):
    iris_command = [sys.executable, "-m", "iris_client.cli"]
    serving = await asyncio.create_subprocess_exec(
        *iris_command, "--url", mesh[1].url, "serve", "shout", "--", "tr", "a-z", "A-Z",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert serving.stderr is not None
        async with asyncio.timeout(PATIENCE):
            assert b"serving" in await serving.stderr.readline()
        body = b"large body, " * (MiB + 5)
        asking = await asyncio.create_subprocess_exec(
            *iris_command, "--url", mesh[0].url, "request", "shout", "--timeout", "30s",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await asking.communicate(body)
        assert (asking.returncode, errors) == (0, b"")
        assert out == body.upper()
    finally:
        serving.terminate()
        await serving.communicate()
