"""publish and subscribe: messages, lines of them, and losses that are told."""

from __future__ import annotations

import asyncio
import io
import json

import click
import pytest

import iris_client as iris
from iris_client.cli import topics
from iris_client.cli.output import Failure
from iris_client.cli.streams import Input

from .conftest import until


def run(shell, *argv, **settings):
    return asyncio.create_task(shell(*argv, **settings))


async def subscribed(mesh: iris.Mesh, topic: str, task: asyncio.Task) -> None:
    """Publish until somebody listens: a subscription's start is nobody else's to see."""
    async with asyncio.timeout(10):
        while not task.done():
            await mesh.publish(topic, b"last")
            await mesh.flush()
            await asyncio.sleep(0.005)


async def test_a_message_is_published_and_routed(shell, capsys):
    async with shell.local.connect() as mesh, mesh.subscribe("orders.*") as events:
        await shell(topics.publish, "orders.new", "7", "-H", "a:b")
        event = await anext(events)
        assert (event.topic, event.body, event.headers) == ("orders.new", b"7", {"a": "b"})
        await shell(topics.publish, "orders.new", "8", json=True)
        assert json.loads(capsys.readouterr().out) == {"published": 1}
        assert (await anext(events)).body == b"8"


async def test_lines_are_messages(shell, capsys):
    async with shell.local.connect() as mesh, mesh.subscribe("logs.>") as events:
        shell.stdin(b"one\n\ntwo\r\nlast")
        await shell(topics.publish, "logs.web", "--lines", json=True)
        assert [(await anext(events)).body for _ in range(4)] == [b"one", b"", b"two\r", b"last"]
        assert json.loads(capsys.readouterr().out) == {"published": 4}
        shell.stdin(b"x\ny\n")
        await shell(topics.publish, "logs.web", "--lines", "-H", "a:b")
        event = await anext(events)
        assert (event.body, event.headers) == (b"x", {"a": "b"})


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 1000])
async def test_lines_whatever_the_chunks(chunk_bytes):
    data = b"a\n\nbb\nccc\n\n\nend"
    source = Input(io.TextIOWrapper(io.BytesIO(data)), chunk_bytes=chunk_bytes)
    lines = [line async for batch in topics._lines(source) for line in batch]
    assert lines == data.split(b"\n")


async def test_a_last_line_feed_ends_a_line_and_begins_none():
    assert [b async for b in topics._lines(Input(io.TextIOWrapper(io.BytesIO(b"a\n"))))] == [[b"a"]]
    assert [b async for b in topics._lines(Input(io.TextIOWrapper(io.BytesIO(b""))))] == []


async def test_a_line_is_bounded(monkeypatch):
    monkeypatch.setattr(topics, "MAX_LINE", 10)
    source = Input(io.TextIOWrapper(io.BytesIO(b"x" * 12)), chunk_bytes=4)
    with pytest.raises(Failure, match="longer than 10 bytes"):
        _ = [batch async for batch in topics._lines(source)]


async def test_lines_and_a_body_are_one_too_many(shell):
    with pytest.raises(click.UsageError, match="leave out the body"):
        await shell(topics.publish, "logs.web", "body", "--lines")


async def test_events_are_printed_a_line_each(shell, capfdbinary):
    async with shell.local.connect() as mesh:
        task = run(shell, topics.subscribe, "orders.*", "--count", "1")
        await subscribed(mesh, "orders.new", task)
        await task
    assert capfdbinary.readouterr().out == b"orders.new last\n"


async def test_events_for_programs(shell, capfd):
    async with shell.local.connect() as mesh:
        task = run(shell, topics.subscribe, "orders.*", "--count", "1", json=True)
        await subscribed(mesh, "orders.new", task)
        await task
    assert json.loads(capfd.readouterr().out) == {"topic": "orders.new", "body": "last", "headers": {}, "lost": 0}


async def test_raw_events_are_their_bodies(shell, capfdbinary):
    async with shell.local.connect() as mesh:
        task = run(shell, topics.subscribe, "orders.*", "--count", "2", "--raw")
        await subscribed(mesh, "orders.new", task)
        await task
    assert capfdbinary.readouterr().out == b"last\nlast\n"


async def test_a_group_shares_what_is_published(shell, capfd):
    async with shell.local.connect() as mesh, mesh.subscribe("jobs.>") as events:
        both = [
            run(shell, topics.subscribe, "jobs.*", "--group", "workers", "--count", "5", json=True) for _ in range(2)
        ]
        published = 0
        async with asyncio.timeout(10):
            while not all(task.done() for task in both):
                await mesh.publish("jobs.new", b"%d" % published)
                await mesh.flush()
                published += 1
                await asyncio.sleep(0.001)
        for _ in range(published):
            await anext(events)
    told = [json.loads(line)["body"] for line in capfd.readouterr().out.splitlines()]
    assert len(told) == len(set(told)) == 10


async def test_losses_are_told_on_standard_error(capsys):
    events = [iris.Event("a", b"1"), iris.Event("a", b"2", lost=3), iris.Event("a", b"3", lost=None)]
    topics._tell_losses(events, as_json=False)
    assert capsys.readouterr().err.splitlines() == [
        "iris: warning: 3 messages lost here",
        "iris: warning: messages may have been lost here, how many cannot be known",
    ]
    topics._tell_losses(events, as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["lost"] for line in lines] == [3, None]


def test_bodies_stay_on_their_line():
    event = iris.Event("a.b", b"two\nlines\x1b[2J")
    assert b"".join(topics._shown([event], raw=False, as_json=False)) == b"a.b two\\nlines\\x1b[2J\n"
    assert b"".join(topics._shown([event], raw=True, as_json=False)) == event.body + b"\n"


async def test_raw_and_json_are_one_too_many(shell):
    with pytest.raises(click.UsageError, match="choose one"):
        await shell(topics.subscribe, "a", "--raw", json=True)


async def test_bad_names_are_refused_before_anything_is_asked(shell):
    with pytest.raises(iris.InvalidName):
        await shell(topics.subscribe, "a..b")
    with pytest.raises(iris.InvalidName):
        await shell(topics.subscribe, "a.b", "--group", "no such")
    with pytest.raises(iris.InvalidName, match="wildcards"):
        await shell(topics.publish, "a.*", "x")


async def test_the_reader_of_a_pipe_that_leaves_ends_it(shell, monkeypatch):
    class Gone(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    stream = io.TextIOWrapper(io.BufferedWriter(Gone()))
    monkeypatch.setattr("sys.stdout", stream)
    async with shell.local.connect() as mesh:
        task = run(shell, topics.subscribe, "orders.*")
        await subscribed(mesh, "orders.new", task)
        with pytest.raises(BrokenPipeError):
            await task
    monkeypatch.undo()
    await until(task.done)
    with pytest.raises(BrokenPipeError):
        stream.close()
