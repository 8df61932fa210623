"""The SDK in processes of its own: servers that drain, forks that are refused, threads, and a quick import."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import iris_client as iris
from tests.integration.sdk_ground import PATIENCE, App, DaemonProcess


@pytest.fixture
def daemon(run_dir: Path) -> Iterator[DaemonProcess]:
    made = DaemonProcess(run_dir, "one").start()
    yield made
    made.kill()


SERVER = """
import asyncio, sys, threading
import iris_client as iris

servers = iris.Cluster("servers", concurrency=4)

@servers.on_request
async def slow(body: bytes) -> bytes:
    print("handling", flush=True)
    await asyncio.sleep(float(body))
    return b"done"

@servers.on_request("stuck")
def stuck(body: bytes) -> bytes:
    print("stuck", flush=True)
    threading.Event().wait()

@servers.on_request("ping")
async def ping(body: bytes) -> bytes:
    return b"pong"

iris.run(servers, url=sys.argv[1], timeout=20, drain_timeout=float(sys.argv[2]))
print("drained", flush=True)
"""


async def ready(mesh: iris.Mesh) -> None:
    """Wait until the server serves."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await mesh.request("servers", method="ping")
                return
            except iris.NoMember:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_drains_when_told_to_stop(daemon: DaemonProcess, number: int):
    app = await App.start(SERVER, daemon.url, "20")
    try:
        async with iris.connect(daemon.url, timeout=PATIENCE) as mesh:
            await ready(mesh)
            request = asyncio.create_task(mesh.request("servers", b"0.3", timeout=PATIENCE))
            assert await app.line() == "handling"
            app.signal(number)
            async with asyncio.timeout(PATIENCE):
                while True:  # nothing new comes in once it has left
                    try:
                        await mesh.request("servers", method="ping")
                    except iris.NoMember:
                        break
            assert (await request).body == b"done"
            assert await app.line() == "drained"
            assert await app.ended() == (0, "")
    finally:
        await app.kill()


async def test_a_second_signal_ends_at_once(daemon: DaemonProcess):
    app = await App.start(SERVER, daemon.url, "60")
    try:
        async with iris.connect(daemon.url, timeout=PATIENCE) as mesh:
            await ready(mesh)
            request = asyncio.create_task(mesh.request("servers", b"60", timeout=PATIENCE))
            assert await app.line() == "handling"
            app.signal(signal.SIGTERM)
            with pytest.raises(iris.NoMember):
                async with asyncio.timeout(PATIENCE):
                    while True:
                        await mesh.request("servers", method="ping")
            app.signal(signal.SIGTERM)
            code, errors = await app.ended()
            assert code != 0
            assert "KeyboardInterrupt" in errors
            with pytest.raises((iris.MemberLost, iris.CallCancelled)):
                await request
    finally:
        await app.kill()


async def test_a_handler_stuck_in_a_thread_does_not_hold_up_the_end(daemon: DaemonProcess):
    app = await App.start(SERVER, daemon.url, "0.2")
    try:
        async with iris.connect(daemon.url, timeout=PATIENCE) as mesh:
            await ready(mesh)
            request = asyncio.create_task(mesh.request("servers", method="stuck", timeout=PATIENCE))
            assert await app.line() == "stuck"
            app.signal(signal.SIGTERM)
            assert await app.line() == "drained"
            code, errors = await app.ended()
            assert code == 0
            assert "handlers were still running in threads" in errors
            with pytest.raises((iris.MemberLost, iris.CallCancelled)):
                await request
    finally:
        await app.kill()


async def test_a_server_may_be_stopped_before_it_found_its_daemon(run_dir: Path):
    app = await App.start("print('begun', flush=True)\n" + SERVER, f"unix://{run_dir}/absent.sock", "20")
    try:
        assert await app.line() == "begun"
        await asyncio.sleep(0.5)  # until its signal handlers are set: the program cannot tell
        app.signal(signal.SIGTERM)
        assert await app.line() == "drained"
        assert (await app.ended())[0] == 0
    finally:
        await app.kill()


FORK = """
import asyncio, os, sys
import iris_client as iris
from iris_client import sync

async def main():
    async with iris.connect(sys.argv[1], timeout=20) as mesh:
        await mesh.publish("t", b"before")
        blocking = await asyncio.to_thread(sync.connect, sys.argv[1])
        child = os.fork()
        if not child:
            said = []
            for call in (mesh.request("x"), mesh.publish("t", b"x"), mesh.flush()):
                try:
                    await call
                except iris.MeshClosed as error:
                    said.append(str(error))
            try:
                blocking.publish("t", b"x")
            except iris.MeshClosed as error:
                said.append(str(error))
            blocking.close()
            await mesh.close()
            try:
                with sync.connect(sys.argv[1], timeout=5):
                    said.append("connected")
            except iris.MeshClosed as error:
                said.append(str(error))
            print(len(said), said[0], said[-1], sep=" | ", flush=True)
            os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        await mesh.publish("t", b"after")
        await mesh.flush()
        print("parent goes on", flush=True)
        await asyncio.to_thread(blocking.close)

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
async def test_after_a_fork_the_child_is_refused_and_the_parent_goes_on(daemon: DaemonProcess):
    app = await App.start(FORK, daemon.url)
    try:
        said = await app.line()
        assert said.startswith("5 | this mesh was connected before fork")
        assert "| this process was forked from one that had a mesh already" in said
        assert await app.line() == "parent goes on"
        assert (await app.ended())[0] == 0
    finally:
        await app.kill()


SYNC = """
import sys, threading
from iris_client import sync as iris

squares = iris.Cluster("squares", codec=iris.JSON)

@squares.on_request
def square(n: int) -> int:
    return n * n

with iris.connect(sys.argv[1], timeout=20) as server, iris.connect(sys.argv[1], timeout=20, codec=iris.JSON) as caller:
    with server.join(squares), server.subscribe("t") as events:
        results = [None] * 8
        def ask(n):
            results[n] = caller.request("squares", n, returns=int)
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        for n in range(1000):
            caller.publish("t", n)
        caller.flush()
        print(results, sum(int(next(events).body) for _ in range(1000)), flush=True)
"""


async def test_threads(daemon: DaemonProcess):
    app = await App.start(SYNC, daemon.url)
    try:
        assert await app.line() == f"{[n * n for n in range(8)]} {sum(range(1000))}"
        assert await app.ended() == (0, "")
    finally:
        await app.kill()


IMPORT = """
import sys, time
began = time.perf_counter()
import iris_client
print(time.perf_counter() - began, "grpc" in sys.modules, "pydantic" in sys.modules)
"""


def test_importing_is_quick_and_brings_no_grpc():
    best = 10.0
    for _ in range(5):
        said = subprocess.run(
            [sys.executable, "-c", IMPORT], capture_output=True, text=True, timeout=PATIENCE, check=True
        ).stdout.split()
        assert said[1:] == ["False", "False"]
        best = min(best, float(said[0]))
    assert best < 0.3


def test_the_sdk_needs_grpc_and_protobuf_and_nothing_else():
    program = (
        "import sys, iris_client, iris_client.sync, iris_client._lane_grpc, grpc.aio\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)))"
    )
    said = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n{program}"],
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    ).stdout.split()  # fmt: skip
    said = [name for name in said if not name.endswith("__mypyc")]  # what a compiled build shares
    known = ("google", "grpc", "iris_client", "iris_proto", "typing_extensions", "_cython", "cython_runtime", "__m")
    assert [name for name in said if not name.startswith(known)] == []
