"""The local lane without the stream the app came by: what the socket has to tell then, and how each side is missed."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack

import pytest

from irisd.attach import Attachment, AttachServer, UnixSocket
from irisd.model import Frame, KiB, Kind, MiB
from tests.integration.attach_glue import (
    PATIENCE,
    App,
    Apps,
    Ground,
    Lane,
    Source,
    app_at,
    running,
    sp_message,
    with_limits,
)


def hello(lanes: int) -> Frame:
    return Frame(Kind.HELLO, address="shop", member="test", lanes=lanes, group=str(os.getuid()))


@pytest.mark.parametrize(("said", "told"), [(0, 0), (1, 1), (2, 0), (3, 3), (7, 3), (4, 0)])
async def test_welcome_says_which_of_it_holds(ground, said, told):
    async with app_at(ground.url) as app:
        await app.say(hello(said))
        welcome = await app.hear()
        assert welcome.lanes == told
        assert bool(welcome.lane) == bool(told)


async def test_the_stream_ends_and_the_attachment_goes_on(ground):
    async with app_at(ground.url, lane="alone") as app:
        await app.hello()
        await app.ping()
        assert (await app.call.code()).name == "OK"
        await app.ping()
        [attachment] = ground.apps.attachments.values()
        assert attachment.lane == "local"
        assert ground.server.attachments == 1
        assert ground.apps.said("detached") == []
    await ground.apps.until(lambda: ground.apps.said("detached"))
    await ground.empty()


async def test_an_app_may_break_the_stream_as_soon_as_it_has_moved(ground):
    """The daemon's MOVE goes nowhere then; what is said on the socket is not harmed."""
    for _ in range(30):
        async with app_at(ground.url) as app:
            await app.say(hello(3))
            welcome = await app.hear()
            lane = await Lane.connect(welcome.lane)
            assert await lane.enter(welcome.ticket)
            await app.say(Frame(Kind.MOVE))
            app.call.cancel()
            app.lane, app.wants, app._moved = lane, "alone", True
            ground.apps.calls.clear()
            await app.say(Frame(Kind.PUBLISH, id=1, address="t", body=b"word"))
            # Either it was read before it moved, and then it is gone, or it has moved and is not.
            await ground.apps.until(lambda: ground.apps.said("frames") or not ground.apps.attachments)
            if ground.apps.attachments:
                assert (await app.hear()).body == b"word"
        await ground.apps.until(lambda: not ground.apps.attachments)


async def test_end_says_that_the_daemon_stops(run_dir):
    server = AttachServer(Apps(), Source(), [UnixSocket(run_dir / "irisd.sock")])
    async with running(server) as urls, app_at(urls[0], lane="alone") as app, app_at(urls[0], lane="alone") as other:
        await app.hello()
        await app.ping()
        await other.hello()
        await other.ping()
        await server.stop(5.0)
        said = "the daemon is shutting down; attach again elsewhere or later"
        assert [await each.status() for each in (app, other)] == [("UNAVAILABLE", said)] * 2


async def test_who_breaks_off_is_told_nothing(ground):
    async with app_at(ground.url, lane="alone") as app:
        await app.hello()
        await app.ping()
        assert app.lane is not None
        app.lane.writer.write(sp_message(bytes(100))[:50])
        app.lane.writer.write_eof()
        assert await app.read() is None
    assert ground.apps.said("detached") == ["gone"]


@with_limits(silent=0.4)
async def test_who_says_nothing_for_long_is_detached(ground):
    async with (
        app_at(ground.url, lane="alone") as silent,
        app_at(ground.url, lane="alone") as alive,
        app_at(ground.url, lane="local") as watched,
        app_at(ground.url) as elsewhere,
    ):
        for app in (silent, alive, watched, elsewhere):
            await app.hello()
        ground.apps.echo = False

        async def speak() -> None:
            while True:
                await alive.say(Frame(Kind.PING))
                await asyncio.sleep(0.05)

        speaking = asyncio.create_task(speak())
        assert await silent.status() == ("UNAVAILABLE", "silent: the app has said nothing for 0.4 s")
        assert ground.apps.said("detached") == ["silent"]
        await asyncio.sleep(0.5)  # nothing happens to the others
        assert ground.apps.said("detached") == ["silent"]
        speaking.cancel()


@with_limits(silent=0.4)
async def test_a_daemon_that_stood_still_does_not_blame_its_apps(ground):
    async with app_at(ground.url, lane="alone") as app:
        await app.hello()
        await app.ping()
        time.sleep(1.0)  # noqa: ASYNC251 - that is the point
        await app.ping()
        assert ground.apps.said("detached") == []


async def stuck(ground: Ground, app: App) -> Attachment:
    """An app that reads nothing any more, with more than the kernel takes on its way to it."""
    ground.apps.echo = False
    await app.hello()
    [attachment] = ground.apps.attachments.values()
    assert app.lane is not None
    app.lane.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket, it can
    ground.apps.send(attachment.id, *(Frame(Kind.EVENT, id=1, body=bytes(64 * KiB)) for _ in range(64)))
    async with asyncio.timeout(PATIENCE):
        while attachment.lane != "local" or attachment.stalled < 0.1:
            await asyncio.sleep(0.01)
    return attachment


async def test_a_daemon_that_stops_waits_a_little_for_its_end_to_be_read(ground):
    async with app_at(ground.url, lane="alone") as app:
        attachment = await stuck(ground, app)
        attachment.end("UNAVAILABLE", "first")
        attachment.give_up()
        await ground.empty()
        stopping = asyncio.create_task(ground.server.stop(PATIENCE))
        await asyncio.sleep(0.1)  # nothing happens
        assert not stopping.done()
        assert app.lane is not None
        app.lane.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await app.status() == ("UNAVAILABLE", "first")
        await stopping


async def test_and_not_for_long(ground):
    async with app_at(ground.url, lane="alone") as app:
        attachment = await stuck(ground, app)
        began = time.monotonic()
        await ground.server.stop(0.3)
        assert time.monotonic() - began < 5
        assert attachment.local is not None
        assert attachment.local.unread == 0


async def test_many_that_do_not_read_their_end_hold_little(ground, monkeypatch):
    monkeypatch.setattr("irisd.attach.leaving.MAX_UNREAD", 3 * MiB)
    apps: list[App] = []
    async with AsyncExitStack() as stack:
        for _ in range(12):
            app = await stack.enter_async_context(app_at(ground.url, lane="alone"))
            attachment = await stuck(ground, app)
            ground.apps.send(attachment.id, Frame(Kind.EVENT, id=1, body=bytes(1 * MiB)))
            attachment.end("UNAVAILABLE", "later")
            attachment.give_up()
            await ground.empty()
            apps.append(app)
        leaving = ground.server._listeners[0].lane.leaving
        assert sum(each.unread for each in leaving._waiting) <= 3 * MiB
        assert 1 <= len(leaving) < 12
        app = apps[-1]
        assert app.lane is not None
        app.lane.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await app.status() == ("UNAVAILABLE", "later")


@with_limits(end_timeout=0.1, linger=0.2)
async def test_an_app_that_does_not_read_its_end_is_not_waited_for(ground):
    async with app_at(ground.url, lane="alone") as app:
        attachment = await stuck(ground, app)
        attachment.end("UNAVAILABLE", "later")
        await ground.apps.until(lambda: ground.apps.said("detached"))
        assert attachment.local is not None
        assert not attachment.local._ended
        async with asyncio.timeout(10):
            while not attachment.local._ended:  # its connection is gone, with what was not taken
                await asyncio.sleep(0.01)
