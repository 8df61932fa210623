"""The SDK's end of the local lane against a daemon written by hand: the way in, the order, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path
from typing import Any

import pytest

from iris_client import _lane_local
from iris_client._frames import Kind, ProtocolError, decode_batch
from iris_client._lane import LaneEnded
from iris_client._lane_local import CannotMove, move
from iris_client._sp import HELLO, prefix
from tests.unit.client.lane_ground import LET_IN, TICKET, FakeStream, daemon_at, moved, until


async def test_the_way_in(run_dir: Path):
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path):
        assert daemon.heard == HELLO + prefix(16) + TICKET
        [batch] = daemon.stream.sent
        assert [int(header.kind) for header, _ in decode_batch(batch)] == [Kind.MOVE]


@pytest.mark.parametrize("answer", [b"", HELLO, b"HTTP/1.1 400", HELLO + prefix(1), LET_IN[:-1]])
async def test_not_let_in_means_nothing_was_said(run_dir: Path, answer: bytes):
    async with daemon_at(run_dir / "lane", answer) as daemon:
        with pytest.raises(CannotMove, match="did not let this app in"):
            await move(daemon.stream, str(run_dir / "lane"), TICKET)
        assert daemon.stream.sent == []


async def test_nobody_there(run_dir: Path):
    with pytest.raises(CannotMove, match="No such file"):
        await move(FakeStream(), str(run_dir / "lane"), TICKET)


async def test_a_daemon_that_takes_too_long(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_lane_local, "MOVE_TIMEOUT", 0.05)
    held: list[asyncio.StreamWriter] = []
    async with await asyncio.start_unix_server(lambda reader, writer: held.append(writer), run_dir / "lane"):
        with pytest.raises(CannotMove, match=r"no answer within 0\.05 s"):
            await move(FakeStream(), str(run_dir / "lane"), TICKET)
    for writer in held:
        writer.close()


async def test_the_socket_is_read_only_after_the_daemons_move(run_dir: Path):
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (_, came, _pumping):
        assert daemon.writer is not None
        daemon.writer.write(prefix(6) + b"second" + prefix(5) + b"third")
        daemon.stream.said.put_nowait(b"first")
        await until(came, 1)
        await asyncio.sleep(0.02)  # for the wrong order to show
        daemon.stream.said.put_nowait(b"MOVE")
        await until(came, 4)
        assert came == [b"first", b"MOVE", b"second", b"third"]


async def test_batches_leave_whole_and_in_order_however_little_is_taken_at_a_time(run_dir: Path):
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (lane, _, _pumping):
        batches = [[b"a", b"b" * 300_000, b"c"], [b"x" * 20_000] * 700, [bytes([n]) * 7 for n in range(200)], [b"end"]]

        async def send() -> None:
            for parts in batches:
                await lane.send(parts)

        sending = asyncio.create_task(send())
        for parts in batches:
            assert await daemon.message() == b"".join(parts)
        await sending
        await lane.finish()
        assert daemon.reader is not None
        assert await daemon.reader.read() == b""


async def test_a_finish_does_not_cut_off_what_is_being_sent(run_dir: Path):
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (lane, _, _pumping):
        body = bytes(range(256)) * 40_000
        sending = asyncio.create_task(lane.send([body]))
        await asyncio.sleep(0)
        assert not sending.done()
        finishing = asyncio.create_task(lane.finish())
        assert await daemon.message() == body
        await asyncio.gather(sending, finishing)
        assert daemon.reader is not None
        assert await daemon.reader.read() == b""


async def test_closing_ends_a_send_that_nobody_takes(run_dir: Path):
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (lane, _, _pumping):
        sending = asyncio.create_task(lane.send([bytes(10_000_000)]))
        await asyncio.sleep(0)
        await lane.close()
        with pytest.raises(LaneEnded):
            await sending
        with pytest.raises(LaneEnded):
            await lane.send([b"x"])


async def test_nothing_new_is_sent_once_it_is_finishing(run_dir: Path):
    """The next batch would be cut short by the end of the one before it."""
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (lane, _, _pumping):
        await lane.finish()
        with pytest.raises(LaneEnded):
            await lane.send([b"late"])


async def test_a_socket_that_fails_to_send_and_does_not_end_is_ended(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("iris_client._lane_local.LINGER", 0.01)
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (lane, came, pumping):
        daemon.stream.said.put_nowait(b"MOVE")
        await until(came, 1)

        class Full:
            def __getattr__(self, name: str) -> Any:
                return getattr(sock, name)

            def sendmsg(self, buffers: Any) -> int:
                raise OSError(errno.ENOBUFS, "no buffer space available")

        sock, lane._sock = lane._sock, Full()  # type: ignore[assignment]
        with pytest.raises(LaneEnded):
            await lane.send([b"x"])
        lane._sock = sock
        async with asyncio.timeout(5):
            with pytest.raises(LaneEnded):
                await pumping


async def test_a_full_backlog_is_waited_for(run_dir: Path):
    path = run_dir / "lane"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        moving = asyncio.create_task(move(FakeStream(), str(path), TICKET))
        await asyncio.sleep(0.02)
        listener.accept()[0].close()
        with pytest.raises(CannotMove):  # by whoever accepts it, and not by a socket that is not connected
            loop = asyncio.get_running_loop()
            listener.setblocking(False)
            accepted, _ = await loop.sock_accept(listener)
            accepted.send(b"no")
            accepted.close()
            await moving


async def test_its_end_is_told_by_the_stream(run_dir: Path):
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (lane, came, pumping):
        daemon.stream.said.put_nowait(b"MOVE")
        await until(came, 1)
        assert daemon.writer is not None
        daemon.writer.write(prefix(4) + b"last")
        daemon.writer.close()
        daemon.stream.said.put_nowait(LaneEnded("RESOURCE_EXHAUSTED", "not-reading"))
        with pytest.raises(LaneEnded, match="not-reading"):
            await pumping
        assert came == [b"MOVE", b"last"]
        with pytest.raises(LaneEnded):
            for _ in range(3):
                await lane.send([b"x" * 100_000])


async def test_a_socket_that_ends_alone_is_a_daemon_that_is_gone(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_lane_local, "LINGER", 0.02)
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (_, _came, pumping):
        daemon.stream.said.put_nowait(b"MOVE")
        assert daemon.writer is not None
        daemon.writer.close()
        with pytest.raises(LaneEnded, match="UNAVAILABLE: the daemon closed the connection"):
            await pumping


async def test_a_stream_that_ends_alone_ends_the_lane(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_lane_local, "LINGER", 0.02)
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (_, _came, pumping):
        daemon.stream.said.put_nowait(b"MOVE")
        daemon.stream.said.put_nowait(LaneEnded("UNAVAILABLE", "shutting down"))
        with pytest.raises(LaneEnded, match="shutting down"):
            await pumping


@pytest.mark.parametrize("said", [b"\x02", prefix(1 << 40), prefix(3) + b"bad"])
async def test_what_breaks_the_rules_is_raised(run_dir: Path, said: bytes):
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (_, _came, pumping):
        daemon.stream.said.put_nowait(b"MOVE")
        assert daemon.writer is not None
        daemon.writer.write(said)
        with pytest.raises(ProtocolError):
            await pumping


async def test_batches_that_came_together_are_handed_on_a_step_of_the_loop_apart(run_dir: Path):
    """What one sets off is sent before the next is looked at; empty ones are nothing."""
    path = run_dir / "lane"
    async with daemon_at(path) as daemon, moved(daemon, path) as (_, came, _pumping):
        daemon.stream.said.put_nowait(b"MOVE")
        await until(came, 1)
        seen: list[int] = []
        loop = asyncio.get_running_loop()

        def look() -> None:
            seen.append(len(came))
            if len(came) < 6:
                loop.call_soon(look)

        assert daemon.writer is not None
        daemon.writer.write(b"".join(prefix(len(body)) + body for body in (b"1", b"2", b"", b"3", b"4")))
        look()
        await until(came, 6)
        assert came == [b"MOVE", b"1", b"2", b"", b"3", b"4"]
        assert {1, 2, 3, 4, 5} <= set(seen)
        daemon.writer.write(prefix(0))
        await until(came, 7)
        daemon.writer.write(prefix(3) + b"end")
        await until(came, 8)
