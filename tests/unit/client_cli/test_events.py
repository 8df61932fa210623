"""events: the picture, what changes, and how each is shown."""

from __future__ import annotations

import asyncio
import io
import json
import re

import click
import pytest

import iris_client as iris
from iris_client._frames import Kind
from iris_client.cli import events
from iris_client.cli.output import Failure

from .conftest import until


def echo(name: str = "echo") -> iris.Cluster:
    cluster = iris.Cluster(name)
    cluster.on_request(lambda body: body)
    return cluster


def lines_of(text: str) -> list[str]:
    """Lines without their time, which each of them has."""
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in text.splitlines())
    return [line[9:] for line in text.splitlines()]


async def test_how_things_are_now(shell, capfd):
    async with shell.local.connect() as mesh, mesh.join(echo(), echo("web")):
        await shell(events.events, "--now")
        name = shell.local._nodes[0].name
        assert lines_of(capfd.readouterr().out) == [
            f"node {name} self",
            f"echo: 1 member at {name}",
            f"web: 1 member at {name}",
        ]
        await shell(events.events, "echo", "--now", json=True)
        first, second = map(json.loads, capfd.readouterr().out.splitlines())
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", first.pop("time"))
        assert first == {
            "node": mesh.node,
            "name": name,
            "state": "self",
            "cluster": "",
            "members": 0,
            "reason": "",
            "present": True,
            "lost": 0,
        }
        assert (second["cluster"], second["members"], second["present"]) == ("echo", 1, True)
    await shell(events.events, "nobody", "--now")
    assert capfd.readouterr().out == ""


async def watched(shell) -> None:
    await until(lambda: any(app.watches for app in shell.local._nodes[0]._node.core.apps.values()))


async def test_what_changes_is_printed_as_it_comes(shell, capfd):
    task = asyncio.create_task(shell(events.events, "--no-picture", "--count", "2"))
    await watched(shell)
    async with shell.local.connect() as mesh:
        async with mesh.join(echo()):
            pass
        await task
    name = shell.local._nodes[0].name
    assert lines_of(capfd.readouterr().out) == [f"echo: 1 member at {name}", f"echo: no members at {name}"]


async def test_a_count_ends_it_in_the_picture_too(shell, capfd):
    async with shell.local.connect() as mesh, mesh.join(echo(), echo("web")):
        await shell(events.events, "--count", "2")
    assert len(capfd.readouterr().out.splitlines()) == 2


async def test_being_interrupted_is_no_failure(shell, capfd):
    task = asyncio.create_task(shell(events.events))
    await watched(shell)
    task.cancel()
    assert await task is None


def test_lines_say_what_and_why():
    def line(change: iris.Change) -> str:
        return lines_of(events._line(change, as_json=False).decode())[0]

    assert line(iris.Change("ab12cd34", "b", "alive", reason="link")) == "node b alive (link)"
    assert line(iris.Change("ab12cd34", "", "dead")) == "node ab12cd dead"
    assert line(iris.Change("ab12cd34", "b", "alive", "databases", 3)) == "databases: 3 members at b"
    assert line(iris.Change("ab12cd34", "b\x1b[2J", "left", "databases", 0, "bye\n")) == (
        "databases: no members at b\\x1b[2J (bye\\n)"
    )


def test_losses_are_told_on_standard_error(capsys):
    for lost in (0, 1, None):
        events._tell_loss(iris.Change("ab", "b", "alive", lost=lost), as_json=False)
    assert capsys.readouterr().err.splitlines() == [
        "iris: warning: 1 change lost here",
        "iris: warning: changes may have been missed here; how things are now begins anew",
    ]
    events._tell_loss(iris.Change("ab", "b", "alive", "db", lost=None), as_json=True)
    assert json.loads(capsys.readouterr().err) == {"warning": "Lost", "lost": None, "before": "db"}


async def test_mistakes(shell):
    with pytest.raises(click.UsageError, match="choose one"):
        await shell(events.events, "--now", "--no-picture")
    with pytest.raises(iris.InvalidName):
        await shell(events.events, "no such")


async def test_a_daemon_that_knows_no_watches_is_a_failure_that_says_so(shell, monkeypatch):
    monkeypatch.delitem(shell.local._nodes[0]._node._app_frames, Kind.WATCH)
    with pytest.raises(Failure, match=r"irisd 0\.2 and later") as caught:
        await shell(events.events)
    assert caught.value.code == 1


async def test_the_reader_of_a_pipe_that_leaves_ends_it(shell, monkeypatch):
    class Gone(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    stream = io.TextIOWrapper(io.BufferedWriter(Gone()))
    monkeypatch.setattr("sys.stdout", stream)
    with pytest.raises(BrokenPipeError):
        await shell(events.events, "--count", "1")
    monkeypatch.undo()
    with pytest.raises(BrokenPipeError):
        stream.close()
