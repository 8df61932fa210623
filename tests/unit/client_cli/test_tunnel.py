"""iris tunnel: bytes both ways, ends that are ends, and breaks that are told."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys

import pytest

import iris_client as iris
from iris_client.cli import tunnel
from iris_client.cli.output import Failure, exit_code

BODY = bytes(range(256)) * 4096  # 1 MiB


class Storage(iris.Cluster):
    """A cluster, and what its tunnels brought."""

    def __init__(self) -> None:
        super().__init__("storage")
        self.stored: list[bytes] = []


@pytest.fixture
def storage():
    cluster = Storage()

    @cluster.on_tunnel
    async def store(tunnel: iris.Tunnel) -> None:
        cluster.stored.append(b"".join([chunk async for chunk in tunnel]))
        await tunnel.send(b"stored ")
        await tunnel.send(b"%d" % len(cluster.stored[-1]))

    @cluster.on_tunnel("echo")
    async def echo(tunnel: iris.Tunnel) -> None:
        async for chunk in tunnel:
            await tunnel.send(chunk)

    @cluster.on_tunnel("break")
    async def fail(tunnel: iris.Tunnel) -> None:
        await tunnel.receive()
        tunnel.abort("the disk is full")

    @cluster.on_tunnel("refuse")
    async def refuse(tunnel: iris.Tunnel) -> None:
        raise iris.Reject("not for you", code="no")

    return cluster


async def test_standard_input_goes_in_and_what_comes_back_comes_out(shell, storage, capfdbinary):
    shell.stdin(BODY)
    async with shell.local.connect() as mesh, mesh.join(storage):
        await shell(tunnel.tunnel, "storage")
    assert storage.stored == [BODY]
    out, err = capfdbinary.readouterr()
    assert out == b"stored 1048576"
    assert err.startswith(b"iris: sent 1.0 MiB, received 14 B in ")


async def test_much_both_ways(shell, storage, capfdbinary):
    shell.stdin(BODY * 4)
    async with shell.local.connect() as mesh, mesh.join(storage):
        await shell(tunnel.tunnel, "storage", "--method", "echo", "--quiet")
    out, err = capfdbinary.readouterr()
    assert (len(out), out == BODY * 4, err) == (4 * len(BODY), True, b"")


async def test_a_summary_for_programs(shell, storage, capfd):
    shell.stdin(b"abc")
    async with shell.local.connect() as mesh, mesh.join(storage):
        await shell(tunnel.tunnel, "storage", json=True)
    out, err = capfd.readouterr()
    told = json.loads(err)
    assert (out, told["sent"], told["received"]) == ("stored 3", 3, 8)


async def test_a_break_is_no_end_and_says_how_far_it_came(shell, storage):
    shell.stdin(BODY)
    async with shell.local.connect() as mesh, mesh.join(storage):
        with pytest.raises(
            Failure, match=r"the disk is full.*broke after \d+ bytes were sent and 0 received"
        ) as caught:
            await shell(tunnel.tunnel, "storage", "--method", "break")
    assert (exit_code(caught.value), caught.value.kind) == (1, "TunnelBroken")


async def test_nobody_there_and_nobody_willing(shell, storage):
    with pytest.raises(iris.NoMember):
        await shell(tunnel.tunnel, "storage")
    async with shell.local.connect() as mesh, mesh.join(storage):
        with pytest.raises(iris.Rejected, match="not for you"):
            await shell(tunnel.tunnel, "storage", "--method", "refuse")


class Typing(io.TextIOWrapper):
    """A terminal at which nobody types anything more."""

    def isatty(self) -> bool:
        return True


async def test_whoever_types_is_not_waited_for_when_the_other_end_has_finished(shell, capfdbinary, monkeypatch):
    clock = iris.Cluster("clock")

    @clock.on_tunnel
    async def tell(tunnel: iris.Tunnel) -> None:
        await tunnel.send(b"noon")

    read, write = os.pipe()
    with Typing(io.FileIO(read)) as terminal:  # type: ignore[arg-type]
        monkeypatch.setattr(sys, "stdin", terminal)
        async with shell.local.connect() as mesh, mesh.join(clock), asyncio.timeout(5):
            await shell(tunnel.tunnel, "clock", "--quiet")
        os.close(write)
        assert capfdbinary.readouterr().out == b"noon"


async def test_progress_on_a_terminal(shell, storage, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(tunnel, "PROGRESS_INTERVAL", 0.001)
    shell.stdin(BODY)
    async with shell.local.connect() as mesh, mesh.join(storage):
        await shell(tunnel.tunnel, "storage")
    shown = err.getvalue().split(tunnel.CLEAR_LINE)
    assert len(shown) >= 3
    assert shown[1].startswith("sent ")
    assert shown[-1].startswith("iris: sent 1.0 MiB, received 14 B in ")


def test_the_bar_shows_how_far_it_is():
    progress = tunnel.Progress(1000)
    assert progress.bar() == "[                    ]   0% "
    progress.sent = 500
    assert progress.bar() == "[##########          ]  50% "
    progress.sent = 1001  # the file grew
    assert progress.bar() == "[####################] 100% "
    assert tunnel.Progress().bar() == tunnel.Progress(0).bar() == ""


def test_the_length_of_standard_input_is_known_for_files(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert tunnel._length_of_input() == 100
        os.lseek(file.fileno(), 30, os.SEEK_SET)
        assert tunnel._length_of_input() == 70
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x")))
    assert tunnel._length_of_input() is None
