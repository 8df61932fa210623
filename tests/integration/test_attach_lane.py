"""The local lane: who is let in, that nothing is lost or reordered on the way there, and who does no harm."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from irisd.attach import AttachServer, ListenerSpec, TcpPort, UnixSocket, tickets
from irisd.model import Frame, KiB, Kind, MiB
from irisd.wire import encode_batch
from tests.integration.attach_glue import (
    BEARER,
    SP_HELLO,
    Apps,
    Ground,
    Lane,
    Source,
    app_at,
    running,
    sp_message,
    with_limits,
    write_token,
)

HELLO = Frame(Kind.HELLO, address="shop", member="test", lanes=1, group=str(os.getuid()))


async def refused(path: str | Path, data: bytes) -> bool:
    """Say something on the lane; whether the daemon hangs up without letting us in."""
    lane = await Lane.connect(str(path))
    try:
        lane.writer.write(data)
        async with asyncio.timeout(5):
            heard = await lane.reader.read()
    except ConnectionError:
        return True
    finally:
        lane.writer.transport.abort()
    return heard in (b"", SP_HELLO)


async def lets_in(welcome: Frame) -> bool:
    """Whether a ticket is good, and no longer then."""
    lane = await Lane.connect(welcome.lane)
    try:
        return await lane.enter(welcome.ticket)
    finally:
        lane.writer.transport.abort()


def lane_of(ground: Ground):
    lane = ground.server._listeners[0].lane
    assert lane is not None
    return lane


# ------------------------------------------------------------------------------- the offer


async def test_an_app_that_can_move_is_offered_a_lane_and_others_are_not(ground, run_dir):
    async with app_at(ground.url) as app, app_at(ground.url) as mover:
        welcome = await app.hello()
        assert (welcome.lane, welcome.ticket) == ("", b"")
        await mover.say(HELLO)
        welcome = await mover.hear()
        assert welcome.lane == str(run_dir / "irisd.lane")
        assert len(welcome.ticket) == 16
        assert welcome.ticket.hex() not in repr(welcome)
        await mover.ping()  # it may stay where it is


@pytest.mark.parametrize("user", ["", "root", "-1", "1" * 11, "٣"])
async def test_an_app_that_does_not_say_who_it_is_stays(ground, user):
    async with app_at(ground.url) as app:
        await app.say(Frame(Kind.HELLO, address="shop", lanes=1, group=user))
        assert (await app.hear()).lane == ""


async def test_there_is_none_over_tcp_or_where_it_is_off(run_dir):
    specs: list[ListenerSpec] = [
        UnixSocket(run_dir / "irisd.sock", lane=False),
        TcpPort("127.0.0.1", 0, write_token(run_dir)),
    ]
    async with running(AttachServer(Apps(), Source(), specs)) as urls:
        for url in urls:
            async with app_at(url, BEARER) as app:
                await app.say(HELLO)
                assert (await app.hear()).lane == ""
        assert not (run_dir / "irisd.lane").exists()


async def test_its_socket_has_the_listeners_mode_and_goes_with_it(run_dir):
    server = AttachServer(Apps(), Source(), [UnixSocket(run_dir / "irisd.sock", mode=0o600)])
    async with running(server):
        found = os.stat(run_dir / "irisd.lane")
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
    assert os.listdir(run_dir) == []


async def test_apps_stay_on_grpc_where_its_socket_cannot_be(run_dir):
    (run_dir / "irisd.lane").write_text("not a socket")
    server = AttachServer(Apps(), Source(), [UnixSocket(run_dir / "irisd.sock")])
    async with running(server) as urls, app_at(urls[0]) as app:
        await app.say(HELLO)
        assert (await app.hear()).lane == ""
    assert (run_dir / "irisd.lane").read_text() == "not a socket"


# -------------------------------------------------------------------------------- the move


async def test_frames_around_a_move_come_once_and_in_order_both_ways(ground):
    """100,000 messages, half of them before MOVE, written without waiting for anything."""
    count, step = 100_000, 500
    async with app_at(ground.url) as app:
        await app.say(HELLO)
        welcome = await app.hear()
        lane = await Lane.connect(welcome.lane)
        assert await lane.enter(welcome.ticket)

        async def speak() -> None:
            for start in range(0, count, step):
                if start == count // 2:
                    await app.say(Frame(Kind.MOVE))
                    app.lane = lane
                await app.say(*(Frame(Kind.PUBLISH, id=1, address="t", count=n) for n in range(start, start + step)))

        speaking = asyncio.create_task(speak())
        assert [(await app.hear()).count for _ in range(count)] == list(range(count))
        await speaking
    heard = [frame.count for frames in ground.apps.said("frames") for frame in frames]
    assert heard == list(range(count))


async def test_what_the_daemon_says_around_a_move_comes_in_order(ground):
    count = 20_000
    async with app_at(ground.url) as app:
        await app.say(HELLO)
        welcome = await app.hear()
        [attachment] = ground.apps.attachments
        ground.apps.send(attachment, *(Frame(Kind.EVENT, id=1, count=n, body=bytes(500)) for n in range(count)))
        await app.move(welcome)
        ground.apps.send(attachment, *(Frame(Kind.EVENT, id=1, count=count + n) for n in range(count)))
        assert [(await app.hear()).count for _ in range(2 * count)] == list(range(2 * count))
        assert ground.apps.attachments[attachment].lane == "local"


async def test_bodies_of_every_size_there_and_back(ground):
    async with app_at(ground.url, lane="local") as app:
        await app.hello()
        for size in (0, 1, 100, 4 * KiB - 1, 4 * KiB, 64 * KiB, 256 * KiB, 3 * MiB):
            await app.ping(os.urandom(size))


async def test_short_and_long_batches_keep_their_order(ground):
    """Short ones are handed over at once when nobody is ahead of them, long ones wait for the reader."""
    sizes = [10, 10, 100 * KiB, 10, 3 * KiB, 10, 1 * KiB, 300 * KiB, 10] * 40
    async with app_at(ground.url, lane="local") as app:
        await app.hello()

        async def speak() -> None:
            for n, size in enumerate(sizes):
                await app.say(Frame(Kind.PUBLISH, id=1, address="t", count=n, body=bytes(size)))
                if n % 5 == 0:
                    await asyncio.sleep(0)

        speaking = asyncio.create_task(speak())
        heard = [await app.hear() for _ in sizes]
        await speaking
    assert [(frame.count, len(frame.body)) for frame in heard] == list(enumerate(sizes))


async def test_a_move_without_having_been_let_in(ground):
    async with app_at(ground.url) as app:
        await app.say(HELLO)
        await app.hear()
        await app.say(Frame(Kind.MOVE))
        assert await app.status() == ("INVALID_ARGUMENT", "MOVE: this app was not let in to a lane")
    assert ground.apps.said("detached") == ["malformed"]


async def test_a_second_move(ground):
    async with app_at(ground.url, lane="local") as app:
        await app.hello()
        await app.say(Frame(Kind.MOVE))
        assert await app.status() == ("INVALID_ARGUMENT", "MOVE: this app was not let in to a lane")


async def test_an_app_that_was_let_in_and_leaves_before_it_moves_stays_on_grpc(ground):
    async with app_at(ground.url) as app:
        await app.say(HELLO)
        welcome = await app.hear()
        lane = await Lane.connect(welcome.lane)
        assert await lane.enter(welcome.ticket)
        lane.writer.transport.abort()
        await app.ping()
        await app.ping()


async def test_an_app_that_was_let_in_is_read_only_from_its_move_on(ground):
    async with app_at(ground.url) as app:
        await app.say(HELLO)
        welcome = await app.hear()
        lane = await Lane.connect(welcome.lane)
        assert await lane.enter(welcome.ticket)
        await lane.write(encode_batch([Frame(Kind.PUBLISH, id=1, address="t", body=b"second")]))
        await app.say(Frame(Kind.PUBLISH, id=1, address="t", body=b"first"), Frame(Kind.MOVE))
        app.lane = lane
        assert [(await app.hear()).body for _ in range(2)] == [b"first", b"second"]


# --------------------------------------------------------------------------------- its end


async def test_the_end_of_the_socket_is_the_end_of_the_attachment(ground):
    async with app_at(ground.url, lane="local") as app:
        await app.hello()
        assert app.lane is not None
        app.lane.writer.transport.abort()
        await ground.apps.until(lambda: ground.apps.said("detached"))
        assert await app.status() == ("OK", "")
    await ground.empty()


async def test_the_end_of_the_stream_is_the_end_of_the_socket(ground):
    async with app_at(ground.url, lane="local") as app:
        await app.hello()
        await app.ping()
        app.call.cancel()
        await ground.apps.until(lambda: ground.apps.said("detached"))
        assert await app.read() is None
    assert ground.apps.said("detached") == ["gone"]


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"GET / HTTP/1.1\r\n", "type 71"),
        (b"\x01" + (4 * MiB + 5).to_bytes(8) + b"\0\0\0\x01", "the limit is"),
        (b"\x01" + (1 << 62).to_bytes(8) + b"\0\0\0\x01", "the limit is"),
        (b"\x01" + (7).to_bytes(8) + b"\0\0\0\x02abc", "2 hops"),
        (sp_message(b"\xff" * 20), "truncated"),
    ],
)
async def test_what_is_no_batch_ends_its_attachment_and_no_other(ground, data, rule):
    async with app_at(ground.url, lane="local") as good, app_at(ground.url, lane="local") as bad:
        await good.hello()
        await bad.hello()
        assert bad.lane is not None
        bad.lane.writer.write(data)
        status, detail = await bad.status()
        assert status == "INVALID_ARGUMENT"
        assert rule in detail or rule == "truncated"
        await good.ping()
    assert ground.apps.said("detached")[0] == "malformed"


async def test_half_a_message_and_then_the_end(ground):
    async with app_at(ground.url, lane="local") as app:
        await app.hello()
        assert app.lane is not None
        app.lane.writer.write(sp_message(bytes(100))[:50])
        app.lane.writer.write_eof()
        await ground.apps.until(lambda: ground.apps.said("detached"))
        assert await app.status() == ("UNAVAILABLE", "the local lane broke")
    assert ground.apps.said("detached") == ["gone"]


async def test_the_bound_on_frames_is_for_a_message_not_for_what_one_read_brings(ground):
    async with app_at(ground.url, lane="local") as app:
        await app.hello()
        assert app.lane is not None
        many = sp_message(encode_batch([Frame(Kind.UNSUBSCRIBE, id=1)] * 40_000))
        app.lane.writer.write(many + many)
        await ground.apps.until(lambda: sum(map(len, ground.apps.said("frames"))) >= 80_000)
        assert not ground.apps.said("detached")


# --------------------------------------------------------------------- who is not let in


async def test_a_ticket_is_good_once(ground):
    async with app_at(ground.url) as app:
        await app.say(HELLO)
        welcome = await app.hear()
        await app.move(welcome)
        assert not await lets_in(welcome)
        await app.ping()
        assert lane_of(ground).refused == {"unknown-ticket": 1}


async def test_a_ticket_is_good_for_a_while(ground, monkeypatch):
    monkeypatch.setattr(tickets, "LIFETIME", -1.0)
    async with app_at(ground.url) as app:
        await app.say(HELLO)
        welcome = await app.hear()
        assert not await lets_in(welcome)
        await app.ping()
        assert lane_of(ground).refused == {"late-ticket": 1}


async def test_a_ticket_is_its_users_only(ground):
    lane_of(ground).user_of = lambda channel: os.getuid() + 1
    async with app_at(ground.url) as app:
        await app.say(HELLO)
        welcome = await app.hear()
        assert not await lets_in(welcome)
        await app.ping()
        assert lane_of(ground).refused == {"other-user": 1}


async def test_a_ticket_of_an_app_that_is_gone(ground):
    async with app_at(ground.url) as app:
        await app.say(HELLO)
        welcome = await app.hear()
        await app.call.done_writing()
        await app.status()
    assert not await lets_in(welcome)
    assert lane_of(ground).refused == {"ended": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(64 * KiB),
        b"\x00SP\x00\x00\x10\x00\x00",  # PAIR0
        b"\x00SP\x00\x00\x11\x00\x00" + b"\x01" + (1 << 62).to_bytes(8) + b"\0\0\0\x01",
        SP_HELLO + sp_message(b""),
        SP_HELLO + sp_message(bytes(15)),
        SP_HELLO + sp_message(bytes(16)),
        SP_HELLO + sp_message(bytes(16)) + sp_message(b"more"),
        SP_HELLO + sp_message(bytes(17)),
        SP_HELLO + b"\x01" + (20).to_bytes(8) + b"\0\0\0\x09" + bytes(16),
    ],
    ids=["http", "zeros", "pair0", "huge", "empty", "short", "wrong", "more", "long", "hops"],
)
@with_limits(hello_timeout=0.5)
async def test_strangers_are_turned_away(ground, data):
    async with app_at(ground.url, lane="local") as app:
        await app.hello()
        path = lane_of(ground).path
        assert await refused(path, data)
        await app.ping()


@pytest.mark.parametrize("said", [b"", SP_HELLO[:5], SP_HELLO, (SP_HELLO + sp_message(bytes(16)))[:-1]])
@with_limits(hello_timeout=0.1)
async def test_a_stranger_who_takes_its_time(ground, said):
    assert await refused(lane_of(ground).path, said)
    assert lane_of(ground).refused == {"silent": 1}


@with_limits(unready=8)
async def test_strangers_are_few_and_the_oldest_goes(ground):
    async with app_at(ground.url, lane="local") as app:
        path = lane_of(ground).path
        strangers = [await Lane.connect(path) for _ in range(40)]
        for stranger in strangers[:32]:
            assert await stranger.reader.read() in (b"", SP_HELLO)
        await app.hello()  # there is room for those who know what they want
        await app.ping()
        assert lane_of(ground).refused["too-many"] == 33
        for stranger in strangers:
            stranger.writer.transport.abort()


@pytest.mark.parametrize("size", [10, 64 * KiB])
async def test_an_app_whose_answers_pile_up_is_not_read(ground, size):
    ground.apps.full = True
    async with app_at(ground.url, lane="local") as app:
        await app.hello()
        assert app.lane is not None
        batch = encode_batch([Frame(Kind.PUBLISH, id=1, address="t", body=bytes(size))])
        for _ in range(1024):
            app.lane.writer.write(sp_message(batch))
        await asyncio.sleep(0.2)  # nothing happens, for a while
        assert ground.apps.said("frames") == []
        [attachment] = ground.apps.attachments.values()
        assert attachment.local is not None
        assert attachment.local._held < 2 * MiB
        ground.apps.full = False
        attachment.relieved.set()
        for _ in range(1024):
            await app.hear()
