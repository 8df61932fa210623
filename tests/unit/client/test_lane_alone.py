"""The SDK on the local lane without the stream it came by: END, and signs of life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from iris_client import _lane_local
from iris_client._frames import ProtocolError
from iris_client._lane import LaneEnded
from iris_client._lane_local import LocalLane
from iris_client._sp import prefix
from tests.unit.client.lane_ground import FakeDaemon, FakeStream, daemon_at, moved


def nothing() -> None:
    """A ping that nobody asks for."""


async def closed(stream: FakeStream) -> None:
    async with asyncio.timeout(5):
        while not stream.closed:
            await asyncio.sleep(0.001)


async def test_it_lets_go_of_the_stream_and_end_tells_how_it_ended(run_dir: Path):
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path, nothing) as (lane, came, pumping):
        daemon.stream.said.put_nowait(b"MOVE")
        daemon.stream.said.put_nowait(LaneEnded("OK", ""))
        await closed(daemon.stream)
        assert not pumping.done()
        await lane.send([b"word"])
        assert await daemon.message() == b"word"
        assert daemon.writer is not None
        daemon.writer.write(prefix(4) + b"last" + prefix(3) + b"END")
        with pytest.raises(LaneEnded, match="RESOURCE_EXHAUSTED: not-reading"):
            await pumping
        assert came == [b"MOVE", b"last", b"END"]


async def test_a_socket_that_ends_without_end_is_a_daemon_that_is_gone(run_dir: Path):
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path, nothing) as (_, _came, pumping):
        daemon.stream.said.put_nowait(b"MOVE")
        daemon.stream.said.put_nowait(LaneEnded("OK", ""))
        await closed(daemon.stream)
        assert daemon.writer is not None
        daemon.writer.close()
        with pytest.raises(LaneEnded, match="UNAVAILABLE: the daemon closed the connection"):
            await pumping


async def test_a_stream_that_ended_badly_tells_what_end_does_not(run_dir: Path):
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path, nothing) as (_, _came, pumping):
        daemon.stream.said.put_nowait(b"MOVE")
        daemon.stream.said.put_nowait(LaneEnded("UNAVAILABLE", "shutting down"))
        await closed(daemon.stream)
        assert not pumping.done()  # the socket's end decides
        assert daemon.writer is not None
        daemon.writer.close()
        with pytest.raises(LaneEnded, match="shutting down"):
            await pumping


@pytest.mark.parametrize("said", [b"END", b"PING"])
async def test_with_a_stream_there_is_neither_end_nor_ping(run_dir: Path, said: bytes):
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (_, _came, pumping):
        daemon.stream.said.put_nowait(b"MOVE")
        assert daemon.writer is not None
        daemon.writer.write(prefix(len(said)) + said)
        with pytest.raises(ProtocolError, match="unexpected frame kind"):
            await pumping


def in_a_hurry(monkeypatch: pytest.MonkeyPatch, timeout: float) -> None:
    monkeypatch.setattr(_lane_local, "PING_INTERVAL", 0.01)
    monkeypatch.setattr(_lane_local, "PING_TIMEOUT", timeout)


@asynccontextmanager
async def asking(daemon: FakeDaemon, path: Path) -> AsyncIterator[tuple[LocalLane, list[float], asyncio.Task[None]]]:
    """A lane that has moved, and when it asked for a sign of life."""
    loop = asyncio.get_running_loop()
    asked: list[float] = []
    async with moved(daemon, path, lambda: asked.append(loop.time())) as (lane, _, pumping):
        daemon.stream.said.put_nowait(b"MOVE")
        daemon.stream.said.put_nowait(LaneEnded("OK", ""))
        yield lane, asked, pumping


async def pings(asked: list[float], count: int) -> None:
    async with asyncio.timeout(5):
        while len(asked) < count:
            await asyncio.sleep(0.001)


async def test_a_daemon_that_answers_is_asked_again_and_again(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    in_a_hurry(monkeypatch, 0.02)
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, asking(daemon, path) as (_, asked, pumping):
        assert daemon.writer is not None
        for count in range(1, 6):
            await pings(asked, count)
            daemon.writer.write(prefix(4) + b"PING")
        assert not pumping.done()


async def test_a_daemon_that_does_not_answer_is_given_up(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    in_a_hurry(monkeypatch, 0.2)
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, asking(daemon, path) as (_, asked, pumping):
        with pytest.raises(LaneEnded, match=r"UNAVAILABLE: the daemon has not answered for 0\.2 s"):
            await pumping
        assert asyncio.get_running_loop().time() - asked[0] >= 0.2
        assert len(asked) == 1


async def test_an_app_that_only_hears_says_something_too(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    in_a_hurry(monkeypatch, 5.0)
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, asking(daemon, path) as (_, asked, _pumping):
        assert daemon.writer is not None
        async with asyncio.timeout(5):
            while not asked:
                daemon.writer.write(prefix(4) + b"word")
                await asyncio.sleep(0.001)


async def test_who_talks_and_is_answered_asks_nothing(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_lane_local, "PING_INTERVAL", 0.2)
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, asking(daemon, path) as (lane, asked, _pumping):
        assert daemon.writer is not None
        loop = asyncio.get_running_loop()
        until = loop.time() + 1.0
        while loop.time() < until:
            await lane.send([b"word"])
            daemon.writer.write(prefix(4) + b"word")
            await asyncio.sleep(0.01)
        assert not asked


async def test_the_time_to_answer_counts_from_when_it_was_asked(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Something else in the same turn of the loop held the question up for all of that time."""
    in_a_hurry(monkeypatch, 0.2)
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, asking(daemon, path) as (lane, asked, pumping):
        loop = asyncio.get_running_loop()
        ask = lane._ping
        assert ask is not None

        def held_up() -> None:
            ask()
            loop.call_soon(time.sleep, 0.21)

        lane._ping = held_up
        await pings(asked, 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        assert not pumping.done()
        assert daemon.writer is not None
        daemon.writer.write(prefix(4) + b"PING")
        await pings(asked, 2)


async def test_a_word_is_said_as_often_as_it_must(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """However the last one fell: never much later than an interval after it."""
    monkeypatch.setattr(_lane_local, "PING_INTERVAL", 0.2)
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, asking(daemon, path) as (lane, asked, _pumping):
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.15)
        await lane.send([b"word"])
        said = loop.time()
        assert daemon.writer is not None
        daemon.writer.write(prefix(4) + b"word")
        await pings(asked, 1)
        assert 0.19 <= asked[0] - said < 0.35


@pytest.mark.parametrize("answered", [False, True], ids=["silent", "answered"])
async def test_a_loop_that_was_held_up_does_not_blame_the_daemon(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, answered: bool
):
    """An answer that lies unread counts; and where there is none yet, the daemon may have been held up as well."""
    in_a_hurry(monkeypatch, 0.1)
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, asking(daemon, path) as (_, asked, pumping):
        await pings(asked, 1)
        assert daemon.writer is not None
        if answered:
            daemon.writer.write(prefix(4) + b"PING")
        time.sleep(0.3)  # noqa: ASYNC251 - that is the point
        await asyncio.sleep(0.01)
        assert not pumping.done()
        if not answered:
            with pytest.raises(LaneEnded, match="has not answered"):  # but not for ever
                await pumping
