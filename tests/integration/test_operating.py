"""A daemon operated: drained and reloaded by its owner, while apps use it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import iris_client as iris

from .cli_iris_ground import Background, Mesh, environment, until

PATIENCE = 20.0


@pytest.fixture
def mesh(run_dir: Path) -> Iterator[Mesh]:
    mesh = Mesh(run_dir)
    yield mesh
    mesh.end()


def url(mesh: Mesh, name: str) -> str:
    return f"unix://{mesh.socket(name)}"


def admin(mesh: Mesh, name: str) -> Path:
    return mesh.folder / f"{name}-admin.sock"


def start(program: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(program), *arguments], env=environment())


def reloaded(daemon: Background, times: int) -> Callable[[], bool]:
    return lambda: daemon.err.count("daemon.reloaded") == times


def echo() -> tuple[iris.Cluster, asyncio.Event, asyncio.Event]:
    """A cluster that answers, and whose "hold" waits; what says that it does, and what lets it end."""
    cluster, begun, let_go = iris.Cluster("echo"), asyncio.Event(), asyncio.Event()

    @cluster.on_request
    async def answer(body: bytes) -> bytes:
        return body

    @cluster.on_request("hold")
    async def hold(body: bytes) -> bytes:
        begun.set()
        await let_go.wait()
        return body

    @cluster.on_tunnel
    async def tunnel(tunnel: iris.Tunnel) -> None:
        async for chunk in tunnel:
            await tunnel.send(chunk)

    return cluster, begun, let_go


# ----------------------------------------------------------------------------- draining


async def test_iris_drain_shows_what_is_under_way_and_ends_with_the_daemon(mesh: Mesh) -> None:
    daemon = mesh.daemon("oak")
    assert stat.S_IMODE(admin(mesh, "oak").stat().st_mode) == 0o600
    assert not list(mesh.folder.glob("*admin*.lane*"))  # no app attaches there
    cluster, begun, let_go = echo()
    async with iris.connect(url(mesh, "oak")) as server, server.join(cluster), iris.connect(url(mesh, "oak")) as app:
        asking = asyncio.create_task(app.request("echo", b"x", method="hold", timeout=PATIENCE))
        await begun.wait()
        draining = mesh.background("drain", "--json")
        await asyncio.to_thread(until, "it is told of", lambda: b'"under_way":1' in draining.out.replace(b" ", b""))
        let_go.set()
        assert (await asking).body == b"x"
        assert await asyncio.to_thread(draining.ended) == 0
        assert daemon.process.poll() == 0 or await asyncio.to_thread(daemon.ended) == 0
    last = json.loads(draining.out.splitlines()[-1])
    assert (last["under_way"], last["drained"], last["cut_short"]) == (0, True, False)
    assert not admin(mesh, "oak").exists()
    assert not mesh.socket("oak").exists()


async def test_a_drain_that_takes_too_long_says_what_it_gave_up(mesh: Mesh) -> None:
    daemon = mesh.daemon("oak")
    cluster, begun, _ = echo()
    async with iris.connect(url(mesh, "oak")) as server, server.join(cluster), iris.connect(url(mesh, "oak")) as app:
        asking = asyncio.create_task(app.request("echo", b"x", method="hold", timeout=PATIENCE))
        await begun.wait()
        told = await asyncio.to_thread(lambda: mesh.iris("drain", "--timeout", "300ms", check=False))
        assert told.returncode == 1
        assert b"1 calls and tunnels were given up" in told.stderr
        with pytest.raises(iris.Detached):
            await asking
        assert await asyncio.to_thread(daemon.ended) == 0


async def test_a_tunnel_is_given_time_and_then_a_typed_error_at_both_ends(mesh: Mesh) -> None:
    mesh.daemon("oak")
    elm = mesh.daemon("elm", "--drain-timeout", "1s")
    mesh.await_peers(1)
    cluster, ends = iris.Cluster("store"), asyncio.Queue[BaseException | None]()

    @cluster.on_tunnel
    async def serve(tunnel: iris.Tunnel) -> None:
        try:
            async for chunk in tunnel:
                await tunnel.send(chunk)
        except iris.TunnelBroken as error:
            ends.put_nowait(error)
            raise
        ends.put_nowait(None)

    states: asyncio.Queue[iris.State] = asyncio.Queue()
    async with iris.connect(url(mesh, "elm")) as server, server.join(cluster), iris.connect(url(mesh, "oak")) as app:
        server.on_state(lambda change: states.put_nowait(change.state))
        with pytest.raises(iris.TunnelBroken):
            async with app.tunnel("store", timeout=PATIENCE) as tunnel:
                await tunnel.send(b"1")
                elm.process.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(states.get(), PATIENCE) is iris.State.DRAINING  # told
                await tunnel.send(b"2")  # and given time
                assert [await anext(tunnel), await anext(tunnel)] == [b"1", b"2"]
                await asyncio.wait_for(anext(tunnel), PATIENCE)
        assert isinstance(await asyncio.wait_for(ends.get(), PATIENCE), iris.TunnelBroken)
        assert await asyncio.to_thread(elm.ended) == 0


async def test_calls_wait_in_the_app_for_the_next_daemon_on_the_socket(mesh: Mesh) -> None:
    mesh.daemon("oak")
    mesh.daemon("elm")
    mesh.await_peers(1)
    cluster, _, _ = echo()
    async with iris.connect(url(mesh, "oak")) as server, server.join(cluster), iris.connect(url(mesh, "elm")) as app:
        for busy in (0.0, 1.5):
            mesh._daemons["elm"].process.send_signal(signal.SIGTERM)
            time.sleep(busy)  # noqa: ASYNC251 - an app that does not come to read its GOODBYE
            asking = [asyncio.create_task(app.request("echo", b"first", timeout=PATIENCE))]
            await asyncio.sleep(0)
            assert await asyncio.to_thread(mesh._daemons["elm"].ended) == 0
            asking += [asyncio.create_task(app.request("echo", b"%d" % n, timeout=PATIENCE)) for n in range(20)]
            await asyncio.sleep(0)
            await asyncio.to_thread(mesh.daemon, "elm")
            assert [(await each).body for each in asking] == [b"first", *(b"%d" % n for n in range(20))]


async def test_what_was_published_before_the_end_arrives(mesh: Mesh) -> None:
    """App and daemon are told to stop at once; every message that publish took is heard, and flush says so."""
    mesh.daemon("oak")
    mesh.daemon("elm")
    mesh.await_peers(1)
    async with iris.connect(url(mesh, "oak")) as reader, reader.subscribe("t") as events:
        publisher = await iris.connect(url(mesh, "elm"))
        for number in range(5_000):
            await publisher.publish("t", b"%d" % number)
        mesh._daemons["elm"].process.send_signal(signal.SIGTERM)
        await publisher.close()
        heard = []
        async with asyncio.timeout(PATIENCE):
            async for event in events:
                assert event.lost == 0
                heard.append(int(event.body))
                if len(heard) == 5_000:
                    break
        assert heard == list(range(5_000))
        assert await asyncio.to_thread(mesh._daemons["elm"].ended) == 0


@pytest.mark.parametrize("first", ["app", "daemon"])
async def test_an_app_and_its_daemon_ended_together_refuse_nobody(mesh: Mesh, tmp_path: Path, first: str) -> None:
    mesh.daemon("oak")
    mesh.daemon("elm")
    mesh.await_peers(1)
    program = tmp_path / "server.py"
    program.write_text(
        "import asyncio, sys, iris_client as iris\n"
        "cluster = iris.Cluster('echo')\n"
        "@cluster.on_request\n"
        "async def answer(body: bytes) -> bytes:\n"
        "    await asyncio.sleep(0.01)\n"
        "    return body\n"
        "iris.run(cluster, url=sys.argv[1])\n"
    )
    cluster, _, _ = echo()
    async with iris.connect(url(mesh, "oak")) as app, app.join(cluster):
        other = start(program, url(mesh, "elm"))
        try:
            await asyncio.to_thread(
                until, "both serve", lambda: [row["members"] for row in mesh.json("clusters")["clusters"]] == [2]
            )
            stop, failed = asyncio.Event(), []

            async def ask() -> None:
                while not stop.is_set():
                    try:
                        await app.request("echo", b"x", timeout=PATIENCE)
                    except iris.IrisError as error:
                        failed.append(error)

            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(ask())
                await asyncio.sleep(0.1)  # time itself: the load is on
                processes = [other, mesh._daemons["elm"].process]
                for process in processes if first == "app" else reversed(processes):
                    process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(other.wait, PATIENCE) == 0
                assert await asyncio.to_thread(mesh._daemons["elm"].ended) == 0
                stop.set()
            assert failed == []
        finally:
            with suppress(ProcessLookupError):
                other.kill()


def test_a_daemon_without_an_admin_socket_says_so(mesh: Mesh) -> None:
    mesh.daemon("oak", "--admin-socket", "off")
    told = mesh.iris("drain", check=False)
    assert told.returncode == 1
    assert b"no admin socket" in told.stderr
    assert b"SIGTERM" in told.stderr
    missing = mesh.iris("reload", "--admin", str(mesh.folder / "nowhere.sock"), check=False)
    assert missing.returncode == 1
    assert b"there is no admin socket at" in missing.stderr


def test_what_a_killed_daemon_left_at_the_admin_path_is_cleared(mesh: Mesh) -> None:
    mesh.daemon("oak").kill()
    assert admin(mesh, "oak").exists()
    mesh.daemon("oak")
    assert mesh.json("reload") == {"applied": [], "restart": []}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_the_admin_socket_is_the_owners_only(mesh: Mesh) -> None:
    mesh.daemon("oak")
    for folder in (mesh.folder, *mesh.folder.parents):
        if folder != Path("/tmp"):
            with suppress(PermissionError):
                folder.chmod(folder.stat().st_mode | 0o755)
        if folder == Path("/tmp"):
            break
    path = str(admin(mesh, "oak"))
    code = f"import os, socket; os.setuid(65534); socket.socket(socket.AF_UNIX).connect({path!r})"
    refused = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, env=environment(), timeout=PATIENCE
    )
    assert b"PermissionError" in refused.stderr


# ---------------------------------------------------------------------------- reloading


def configured(mesh: Mesh, text: str) -> Path:
    path = mesh.folder / "irisd.toml"
    path.write_text(text)
    return path


def test_a_reload_takes_up_what_it_can_and_names_the_rest(mesh: Mesh) -> None:
    elm = mesh.daemon("elm")
    [seed] = mesh.links()
    path = configured(mesh, 'log_level = "info"\n')
    lone = Mesh.daemon.__get__(mesh)
    oak = lone("oak", "--config", str(path))
    for number in range(3):
        path.write_text(
            f'log_level = "debug"\nmax_attachments = {100 + number}\n'
            f'drain_timeout = "7s"\nmax_body = "{1 + number}MiB"\n'
            f'advertise = ["127.0.0.1:{7000 + number}"]\n'
        )
        if number == 0:
            oak.process.send_signal(signal.SIGHUP)
            until("it is reloaded", lambda: "daemon.reloaded" in oak.err)
            until("what wants a restart is named", lambda: "max_body" in oak.err.rpartition("needs_a_restart")[2])
        else:
            told = mesh.json("reload")
            assert told["applied"] == ["advertise", "max_attachments"]
            assert told["restart"] == ["max_body"]
    assert mesh.iris("reload").stdout == b"reloaded: nothing has changed\nneeds a restart: max_body\n"
    assert seed
    assert elm.process.poll() is None


def test_a_reload_finds_a_new_seed_and_a_new_key(mesh: Mesh) -> None:
    path = configured(mesh, "")
    mesh.daemon("elm")
    [seed] = mesh.links()
    mesh._daemons, elm = {}, mesh._daemons["elm"]
    oak = mesh.daemon("oak", "--config", str(path))
    assert mesh.json("status")["services"][0]["peers"] == 0
    path.write_text(f'seeds = ["{seed}"]\n')
    assert mesh.json("reload")["applied"] == ["seeds"]
    mesh.await_peers(1)
    new = subprocess.run(
        [sys.executable, "-m", "irisd", "keys", "new", "shop"], capture_output=True, check=True, env=environment()
    )
    old = mesh.key.read_text()
    mesh.key.write_bytes(new.stdout)
    assert mesh.json("reload") == {"applied": [], "restart": ["keys (a key of service shop is gone)"]}
    mesh.key.write_text("no key at all")
    refused = mesh.iris("reload", check=False)
    assert refused.returncode == 1
    assert b"nothing was changed" in refused.stderr
    mesh.key.write_text(old)
    assert mesh.json("reload") == {"applied": [], "restart": []}
    assert oak.process.poll() is None
    elm.kill()


def test_a_broken_file_changes_nothing_and_says_what_is_wrong(mesh: Mesh) -> None:
    path = configured(mesh, "max_attachments = 3\n")
    oak = mesh.daemon("oak", "--config", str(path))
    path.write_text("max_attachments = 4\nmax_atachments = 5\n")
    told = mesh.iris("reload", check=False)
    assert told.returncode == 1
    assert b"max_atachments" in told.stderr
    assert b"irisd.toml:2" in told.stderr
    oak.process.send_signal(signal.SIGHUP)
    until("the log says so too", lambda: oak.err.count("daemon.reload_failed") == 2)
    path.write_text("max_attachments = 3\n")
    assert mesh.json("reload") == {"applied": [], "restart": []}


async def test_twenty_reloads_under_load_disturb_nobody(mesh: Mesh) -> None:
    path = configured(mesh, 'log_level = "info"\n')
    oak = mesh.daemon("oak", "--config", str(path))
    mesh.daemon("elm")
    mesh.await_peers(1)
    cluster, _, _ = echo()
    stop = asyncio.Event()
    done = {"requests": 0, "heard": 0}
    async with (
        iris.connect(url(mesh, "oak")) as server,
        server.join(cluster),
        server.subscribe("t") as events,
        iris.connect(url(mesh, "elm")) as app,
    ):

        async def ask() -> None:
            while not stop.is_set():
                assert (await app.request("echo", b"x", timeout=PATIENCE)).body == b"x"
                done["requests"] += 1

        async def publish() -> int:
            count = 0
            while not stop.is_set():
                await app.publish("t", b"%d" % count)
                count += 1
                if count % 256 == 0:
                    await asyncio.sleep(0)
                while count - done["heard"] > 20_000 and not stop.is_set():  # else the reader's bound would be the test
                    await asyncio.sleep(0.001)
            await app.flush()
            return count

        async def listen() -> None:
            async for event in events:
                assert (event.lost, int(event.body)) == (0, done["heard"])
                done["heard"] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(ask())
            publishing = group.create_task(publish())
            listening = group.create_task(listen())
            for number in range(20):
                path.write_text(f'log_level = "info"\nmax_attachments = {100 + number}\n')
                oak.process.send_signal(signal.SIGHUP)
                await asyncio.to_thread(until, "it is reloaded", reloaded(oak, number + 1))
            stop.set()
            count = await publishing
            async with asyncio.timeout(PATIENCE):
                while done["heard"] < count:
                    await asyncio.sleep(0.01)
            listening.cancel()
    assert done["requests"] > 20
