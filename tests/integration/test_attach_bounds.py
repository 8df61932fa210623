"""What is bounded: what an app does not read, how many there are, and how many say nothing."""

from __future__ import annotations

import asyncio

import grpc

from irisd.model import Frame, KiB, Kind, MiB
from tests.integration.attach_glue import LANES, App, Ground, app_at, channel_to, with_limits

# --------------------------------------------------------------------- apps that do not read


async def until_stalled(ground: Ground, attachment_id: int, seconds: float) -> None:
    """Nothing tells when a write has been in flight for so long: time is the state awaited."""
    attachment = ground.apps.attachments[attachment_id]
    async with asyncio.timeout(10):
        while (missing := seconds - attachment.stalled) > 0:
            await asyncio.sleep(missing)


@LANES
async def test_what_an_app_does_not_read_stays_in_its_outbox(ground, lane):
    ground.apps.echo = False
    async with app_at(ground.url, lane=lane) as slow, app_at(ground.url, lane=lane) as good:
        await slow.hello()
        [slow_id] = ground.apps.attachments
        frame = Frame(Kind.EVENT, id=1, body=b"x" * 64 * KiB)
        count = 1024  # 64 MiB
        ground.apps.send(slow_id, *(frame for _ in range(count)))
        await until_stalled(ground, slow_id, 0.3)
        pulled = ground.apps.pulled[slow_id]
        assert pulled < 16 * MiB  # one write, and what HTTP/2 and the kernel hold
        ground.apps.send(slow_id, frame)  # waking it again does not make it pull more
        ground.apps.echo = True
        await good.hello()
        await good.ping()
        assert ground.apps.pulled[slow_id] == pulled
        for _ in range(count + 1):  # it wakes up, and nothing was lost
            assert len((await slow.hear()).body) == 64 * KiB
        assert ground.apps.attachments[slow_id].stalled < 0.3


@with_limits(not_reading=0.2, end_timeout=0.2)
@LANES
async def test_an_app_that_does_not_read_is_detached_only_when_control_piles_up(ground, lane):
    async with app_at(ground.url, lane=lane) as slow:
        await slow.hello()
        [slow_id] = ground.apps.attachments
        ground.apps.send(slow_id, *(Frame(Kind.EVENT, id=1, body=b"x" * 64 * KiB) for _ in range(1024)))
        await until_stalled(ground, slow_id, 0.5)
        assert ground.apps.said("detached") == []  # events wait as their policy says; that is no reason
        ground.apps.full = True
        await ground.apps.until(lambda: ground.apps.said("detached"))
        assert ground.apps.said("detached") == ["not-reading"]
        await ground.empty()
        status, detail = await slow.status()
        assert status == "RESOURCE_EXHAUSTED"
        assert detail == "not-reading: the app has not read what it was sent for 0.2 s"


@with_limits(end_timeout=0.2)
@LANES
async def test_an_end_does_not_wait_for_an_app_that_does_not_read(ground, lane):
    async with app_at(ground.url, lane=lane) as slow:
        await slow.hello()
        [slow_id] = ground.apps.attachments
        ground.apps.send(slow_id, *(Frame(Kind.EVENT, id=1, body=b"x" * 64 * KiB) for _ in range(1024)))
        await until_stalled(ground, slow_id, 0.1)
        ground.apps.attachments[slow_id].end("UNAVAILABLE", "later")
        await ground.apps.until(lambda: ground.apps.said("detached"))
        assert (await slow.status())[0] == "UNAVAILABLE"


# --------------------------------------------------------------------------------- caps


@with_limits(attachments=2)
@LANES
async def test_attachments_are_capped(ground, lane):
    async with app_at(ground.url, lane=lane) as first, app_at(ground.url, lane=lane) as second:
        await first.hello()
        await second.hello()
        async with app_at(ground.url, lane=lane) as third:
            assert await third.status() == ("RESOURCE_EXHAUSTED", "too many attachments: this daemon takes 2")
        await first.done()
        await first.status()
        await ground.apps.until(lambda: ground.apps.said("detached"))
        async with app_at(ground.url, lane=lane) as fourth:
            await fourth.hello()
        await second.ping()


@with_limits(unready=4, hello_timeout=0.5)
async def test_streams_that_say_nothing_are_capped_and_pass(ground):
    async with channel_to(ground.url) as channel:
        statuses = await asyncio.gather(*(App(channel).status() for _ in range(20)))
    assert sorted(status for status, _ in statuses) == ["INVALID_ARGUMENT"] * 4 + ["RESOURCE_EXHAUSTED"] * 16
    async with app_at(ground.url) as app:
        await app.hello()
        await app.ping()


@with_limits(attachments=3, unready=100)
async def test_apps_that_say_hello_at_once_do_not_get_past_the_cap(ground):
    async with channel_to(ground.url) as channel:
        apps = [App(channel) for _ in range(10)]

        async def hello(app: App) -> bool:
            await app.say(Frame(Kind.HELLO, address="shop"))
            try:
                return (await app.hear()).kind == Kind.WELCOME
            except (AssertionError, grpc.aio.AioRpcError):
                return False

        welcomed = await asyncio.gather(*map(hello, apps))
        assert sum(welcomed) == 3
        assert ground.server.attachments == 3
