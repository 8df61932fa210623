"""One app's stream over real gRPC: HELLO, frames both ways, and every way it can end."""

from __future__ import annotations

import asyncio
import os
import sys

import grpc.aio
import pytest

from irisd.attach import AttachRefused
from irisd.model import Frame, KiB, Kind, MiB
from irisd.wire import WireError, decode_batch, encode_batch
from tests.integration.attach_glue import LANES, MAX_BODY, App, Apps, app_at, channel_to, cut_at_will, with_limits

# --------------------------------------------------------------------------- the good way


@LANES
async def test_hello_is_answered_and_frames_flow(ground, lane):
    async with app_at(ground.url, lane=lane) as app:
        welcome = await app.hello()
        assert welcome.max_bytes == 8 * MiB
        await app.ping()
        await app.ping(os.urandom(256 * KiB))
        [attachment] = ground.apps.attachments.values()
        assert (attachment.peer, attachment.listener) == ("unix", ground.url)
        assert ground.server.attachments == 1


@LANES
async def test_frames_that_come_with_hello_are_not_lost(ground, lane):
    async with app_at(ground.url, lane=lane) as app:
        await app.hello("shop", Frame(Kind.PUBLISH, id=1, address="t", body=b"with hello"))
        assert (await app.hear()).body == b"with hello"
    assert ground.apps.calls[0][0] == "attached"


@LANES
async def test_order_is_kept_and_batches_are_coalesced(ground, lane):
    async with app_at(ground.url, lane=lane) as app:
        await app.hello()
        [attachment_id] = ground.apps.attachments
        count = 20_000
        frames = [Frame(Kind.PUBLISH, id=1, count=n, body=b"x" * 100) for n in range(count)]
        await app.ping()
        ground.apps.send(attachment_id, *frames)
        batches = []
        heard: list[int] = []
        while len(heard) < count:
            data = await app.read()
            assert data is not None
            batches.append(len(data))
            heard.extend(frame.count for frame in decode_batch(data, MAX_BODY))
        assert heard == list(range(count))
        assert len(batches) < (10 if lane == "grpc" else 40)  # 2 MB in batches of about 1 MiB, or 256 KiB
        assert max(batches) < 4 * MiB


@LANES
async def test_an_app_that_closes_its_side_is_detached_with_ok(ground, lane):
    async with app_at(ground.url, lane=lane) as app:
        await app.hello()
        await app.done()
        assert await app.status() == ("OK", "")
    await ground.apps.until(lambda: ground.apps.said("detached"))
    assert ground.apps.said("detached") == ["closed"]
    await ground.empty()


@pytest.mark.parametrize(("last", "status"), [(b"", "OK"), (b"\x0a\xff\xff\xff\xff\x0f", "INVALID_ARGUMENT")])
async def test_who_ends_while_its_welcome_is_on_the_way_hears_its_status(ground, last, status):
    """gRPC takes no status beside a write that is in flight."""

    async def come_and_go(channel: grpc.aio.Channel) -> str:
        app = App(channel)
        await app.say(Frame(Kind.HELLO, address="shop", member="test"))
        await (app.write(last) if last else app.done())
        return (await app.status())[0]

    async with channel_to(ground.url) as channel:
        for _ in range(15):
            assert set(await asyncio.gather(*(come_and_go(channel) for _ in range(30)))) == {status}
    await ground.empty()


async def test_ids_are_never_used_twice(ground):
    for _ in range(3):
        async with app_at(ground.url) as app:
            await app.hello()
    ids = [number for what, number, _ in ground.apps.calls if what == "attached"]
    assert ids == [1, 2, 3]


# ------------------------------------------------------------------------- before HELLO


@with_limits(hello_timeout=0.05)
async def test_a_stream_without_hello_ends(ground):
    async with app_at(ground.url) as app:
        assert await app.status() == ("INVALID_ARGUMENT", "no HELLO within 0.05 s of opening the stream")
    assert ground.apps.calls == []


async def test_a_stream_closed_before_hello(ground):
    async with app_at(ground.url) as app:
        await app.call.done_writing()
        assert await app.status() == ("INVALID_ARGUMENT", "the stream ended before its HELLO")
    assert ground.apps.calls == []


@pytest.mark.parametrize("batch", [[], [Frame(Kind.REQUEST, id=1, address="a")], [Frame(0)]], ids=repr)
async def test_a_stream_that_does_not_begin_with_hello(ground, batch):
    async with app_at(ground.url) as app:
        await app.say(*batch)
        status, detail = await app.status()
        assert status == "INVALID_ARGUMENT"
        assert "HELLO" in detail or "kind" in detail
    assert ground.apps.calls == []


async def test_garbage_instead_of_hello(ground):
    async with app_at(ground.url) as app:
        await app.call.write(b"\xff" * 100)
        status, detail = await app.status()
        assert status == "INVALID_ARGUMENT"
        assert detail
    assert ground.apps.calls == []


@pytest.mark.parametrize("status", ["NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"])
async def test_a_refused_app_hears_why(ground, status):
    ground.apps.refuse["shoop"] = AttachRefused(status, "no service 'shoop' here; there is: bänk, shop")
    async with app_at(ground.url) as app:
        await app.say(Frame(Kind.HELLO, address="shoop"))
        assert await app.status() == (status, "no service 'shoop' here; there is: bänk, shop")
    assert ground.apps.said("detached") == []
    await ground.empty()


async def test_a_detail_that_is_too_long_is_cut(ground):
    ground.apps.refuse["shop"] = AttachRefused("NOT_FOUND", "no " * 10_000)
    async with app_at(ground.url) as app:
        await app.say(Frame(Kind.HELLO, address="shop"))
        status, detail = await app.status()
        assert status == "NOT_FOUND"
        assert detail.endswith("…")
        assert len(detail) <= 1024


def test_a_refusal_wants_a_status_grpc_knows():
    with pytest.raises(KeyError):
        AttachRefused("NO_SUCH_STATUS", "x")


# -------------------------------------------------------------------------- broken rules


@LANES
async def test_a_malformed_batch_ends_its_stream_and_no_other(ground, lane):
    async with app_at(ground.url, lane=lane) as good, app_at(ground.url, lane=lane) as bad:
        await good.hello()
        await bad.hello()
        await bad.write(b"\x0a\xff\xff\xff\xff\x0f")
        async with asyncio.timeout(3.0):  # an ending may take five seconds, but there is nothing to wait for
            status, detail = await bad.status()
        assert status == "INVALID_ARGUMENT"
        assert detail
        await good.ping()
        assert ground.apps.said("detached") == ["malformed"]


@LANES
async def test_a_frame_the_handler_calls_wrong_ends_the_stream(ground, lane):
    def refuse(attachment, frames):
        raise WireError("ids of an app are odd")

    ground.apps.on_frames = refuse
    async with app_at(ground.url, lane=lane) as app:
        await app.hello()
        await app.say(Frame(Kind.REQUEST, id=2))
        assert await app.status() == ("INVALID_ARGUMENT", "ids of an app are odd")
    assert ground.apps.said("detached") == ["malformed"]


@pytest.mark.parametrize("size", [4 * MiB, 32 * MiB])
async def test_a_message_above_the_limit_ends_its_stream_and_no_other(ground, size):
    async with app_at(ground.url) as good, app_at(ground.url) as bad:
        await good.hello()
        await bad.hello()
        await bad.call.write(encode_batch([Frame(Kind.PUBLISH, id=1, address="t", body=b"x" * size)]))
        status, detail = await bad.status()
        assert status == "RESOURCE_EXHAUSTED"
        assert "larger than max" in detail
        await good.ping()
        await ground.apps.until(lambda: ground.apps.said("detached"))
    assert len(ground.apps.said("frames")) == 1


@LANES
async def test_a_defect_of_ours_costs_one_stream(ground, lane):
    def fail(attachment, frames):
        raise ZeroDivisionError("a bug")

    async with app_at(ground.url, lane=lane) as good, app_at(ground.url, lane=lane) as bad:
        await good.hello()
        await bad.hello()
        ground.apps.on_frames = fail
        await bad.say(Frame(Kind.REQUEST, id=1))
        status, detail = await bad.status()
        assert status == "INTERNAL"
        assert "bug" not in detail
        ground.apps.on_frames = None
        await good.ping()
        assert ground.apps.said("detached") == ["failed"]


# ------------------------------------------------------------------------------- end()


@pytest.mark.parametrize(
    "status", ["OK", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"]
)
@LANES
async def test_end_gives_the_status_after_what_is_queued(ground, lane, status):
    async with app_at(ground.url, lane=lane) as app:
        await app.hello()
        [attachment] = ground.apps.attachments.values()
        for n in range(40):
            ground.apps.send(attachment.id, Frame(Kind.EVENT, id=1, count=n, body=b"x" * 100 * KiB))
        attachment.end(status, "because")
        attachment.end("INTERNAL", "a second end does not count")
        assert [(await app.hear()).count for _ in range(40)] == list(range(40))
        assert await app.status() == (status, "because" if status != "OK" else "")
    assert ground.apps.said("detached") == ["ended"]


async def test_end_within_attached(ground):
    def attached(attachment, hello):
        Apps.attached(ground.apps, attachment, hello)
        attachment.end("UNAVAILABLE", "not now")

    ground.apps.attached = attached
    async with app_at(ground.url) as app:
        await app.hello()  # what was queued is still written
        assert await app.status() == ("UNAVAILABLE", "not now")
    assert ground.apps.said("detached") == ["ended"]


@LANES
async def test_frames_after_an_end_are_not_delivered(ground, lane):
    waiting = [Frame(Kind.EVENT, id=1, body=bytes(64 * KiB)) for _ in range(512)]

    def end(attachment, frames):
        ground.apps.send(attachment.id, *waiting)  # more than is on the way: the end waits until the app reads
        attachment.end("INVALID_ARGUMENT", "once is enough")

    ground.apps.on_frames = end
    async with app_at(ground.url, lane=lane) as app:
        await app.hello()
        for n in (1, 3, 5):
            await app.say(Frame(Kind.REQUEST, id=n))
            await ground.apps.until(lambda: ground.apps.said("frames"))
        assert await app.status() == ("INVALID_ARGUMENT", "once is enough")
    [[frame]] = ground.apps.said("frames")
    assert frame.id == 1


@LANES
async def test_an_end_is_heard_although_the_app_closes_at_the_same_time(ground, lane):
    def end(attachment, frames):
        ground.apps.send(attachment.id, Frame(Kind.EVENT, id=1, body=b"last"))
        attachment.end("INVALID_ARGUMENT", "a rule")

    ground.apps.on_frames = end
    async with app_at(ground.url, lane=lane) as app:
        await app.hello()
        await app.say(Frame(Kind.REQUEST, id=1))
        await app.done()
        assert (await app.hear()).body == b"last"
        assert await app.status() == ("INVALID_ARGUMENT", "a rule")


@LANES
async def test_wake_and_end_after_the_stream_is_over_do_nothing(ground, lane):
    async with app_at(ground.url, lane=lane) as app:
        await app.hello()
        [attachment] = ground.apps.attachments.values()
        await app.done()
        await app.status()
    attachment.wake()
    attachment.end("INTERNAL", "too late")
    assert ground.apps.said("detached") == ["closed"]


# ---------------------------------------------------------------------- apps that vanish
#
# Whether it is `gone` or `closed` depends on what gRPC tells first: the end of the messages, or of the call.


@LANES
async def test_an_app_that_cancels_is_detached_once(ground, lane):
    async with app_at(ground.url, lane=lane) as app:
        await app.hello()
        app.cut()
        await ground.apps.until(lambda: ground.apps.said("detached"))
    assert len(ground.apps.said("detached")) == 1


async def test_a_connection_that_breaks_mid_stream_is_detached_once(ground, run_dir):
    async with cut_at_will(run_dir / "cut.sock", ground.url) as (url, cut), app_at(url) as app:
        await app.hello()
        for _ in range(20):
            await app.say(Frame(Kind.PUBLISH, id=1, address="t", body=b"x" * 64 * KiB))
        cut()
        await ground.apps.until(lambda: ground.apps.said("detached"))
        assert len(ground.apps.said("detached")) == 1
        await ground.empty()
        assert (await app.status())[0] == "UNAVAILABLE"


async def test_a_killed_process_is_detached_once(ground):
    script = (
        "import sys, grpc; from irisd.model import Frame; from irisd.wire import encode_batch as b\n"
        "def say():\n"
        "    yield b([Frame(1, address='shop')])\n"
        "    while True: yield b([Frame(16, id=1, address='t', body=bytes(65536))])\n"
        "with grpc.insecure_channel(sys.argv[1]) as channel:\n"
        "    for batch in channel.stream_stream('/iris.v1.Relay/Attach')(say()): pass\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, ground.url.replace("unix://", "unix:"), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await ground.apps.until(lambda: len(ground.apps.said("frames")) > 10)
    finally:
        process.kill()
        await process.wait()
    await ground.apps.until(lambda: ground.apps.said("detached"))
    assert len(ground.apps.said("detached")) == 1
    async with app_at(ground.url) as app:
        await app.hello()
        await app.ping()


@LANES
async def test_a_hundred_apps_come_and_go(ground, lane):
    async def one(number: int) -> None:
        async with app_at(ground.url, lane=lane) as app:
            await app.hello()
            await app.ping(b"%d" % number)
            if number % 2:
                await app.done()
                assert await app.status() == ("OK", "")

    await asyncio.gather(*(one(number) for number in range(100)))
    await ground.apps.until(lambda: len(ground.apps.said("detached")) == 100)
    ends = ground.apps.said("detached")
    assert set(ends) <= {"closed", "gone"}
    assert ends.count("closed") >= 50
    await ground.empty()
