"""Topics that a daemon pauses: what is published to them waits aside, in order and bounded; other topics go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import iris_client as iris
from iris_client import testing
from iris_client._frames import Code, Kind
from iris_client._model import PART_BYTES
from iris_client._publishing import CONFIRM_BYTES, SHARE
from tests.unit.client.ground import Daemon, MiB, Promise
from tests.unit.client.test_publishing import messages, publish


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def stalled(daemon: Daemon, topic: str, who: str = "billing") -> None:
    daemon.say(
        kind=Kind.STALLED, address=topic, code=Code.SLOW_SUBSCRIBER, reason=who, detail=f"{who} does not read {topic}"
    )


def test_the_app_says_that_it_heeds_pause():
    daemon = Daemon(attached=False)
    daemon.session.lane_up()
    hello, _ = daemon.take_one()
    assert (hello.kind, hello.when_full) == (Kind.HELLO, 3)


def test_a_paused_topic_waits_aside_and_others_go_on(daemon: Daemon):
    publish(daemon, "t", b"1")
    publish(daemon, "u", b"a")
    daemon.say(kind=Kind.PAUSE, address="t")
    publish(daemon, "t", b"2")
    publish(daemon, "u", b"b")
    assert messages(daemon.take()) == [("u", b"a"), ("u", b"b")]
    assert daemon.session.publishing.messages == 2
    assert not daemon.session.quiet
    daemon.say(kind=Kind.RESUME, address="t")
    assert messages(daemon.take()) == [("t", b"1"), ("t", b"2")]
    assert daemon.session.quiet
    assert daemon.session.publishing.waiting == 0


def test_a_message_half_written_is_finished(daemon: Daemon):
    body = b"x" * (3 * PART_BYTES)
    publish(daemon, "t", body)
    publish(daemon, "t", b"next")
    first = daemon.take_batch(limit=1)
    daemon.say(kind=Kind.PAUSE, address="t")
    assert messages(first + daemon.take()) == [("t", body)]
    daemon.say(kind=Kind.RESUME, address="t")
    assert messages(daemon.take()) == [("t", b"next")]


def test_a_message_half_written_to_a_stream_that_broke_goes_out_whole_behind_what_waited_aside(daemon: Daemon):
    daemon.say(kind=Kind.PAUSE, address="t")
    publish(daemon, "t", b"small")
    body = b"x" * (3 * PART_BYTES)
    publish(daemon, "u", body)
    daemon.take_batch(limit=1)
    daemon.session.lane_down("gone")
    daemon.attach()
    assert messages(daemon.take()) == [("t", b"small"), ("u", body)]


def test_a_topic_resumed_while_a_message_is_half_written_waits_for_its_end(daemon: Daemon):
    daemon.say(kind=Kind.PAUSE, address="t")
    publish(daemon, "t", b"small")
    body = b"x" * (3 * PART_BYTES)
    publish(daemon, "u", body)
    first = daemon.take_batch(limit=1)
    daemon.say(kind=Kind.RESUME, address="t")
    assert messages(first + daemon.take()) == [("u", body), ("t", b"small")]


def test_a_paused_topic_may_fill_its_share_of_the_buffer(daemon: Daemon):
    rooms: list[str] = []
    publishing = daemon.session.publishing
    publishing.limit = 80_000
    daemon.say(kind=Kind.PAUSE, address="t")
    publishing.on_room = lambda: rooms.append("room")
    sent = 0
    while publish(daemon, "t", b"x" * 968):
        sent += 1
    assert sent == 80_000 // SHARE // 1000
    assert publishing.is_full("t")
    assert not publishing.is_full("u")
    assert publish(daemon, "u", b"y")
    daemon.say(kind=Kind.RESUME, address="t")
    assert rooms == ["room"]
    assert len(messages(daemon.take())) == sent + 1


def test_all_paused_topics_together_fill_one_buffer_at_most(daemon: Daemon):
    publishing = daemon.session.publishing
    publishing.limit = 80_000
    sent = 0
    for number in range(1000):
        daemon.say(kind=Kind.PAUSE, address=f"t{number}")
        sent += publish(daemon, f"t{number}", b"x" * 968)
    assert sent == 80
    assert publish(daemon, "u", b"y")


def test_a_flush_waits_for_what_waits_aside(daemon: Daemon):
    promises = [Promise() for _ in range(3)]
    daemon.session.flush(promises[0], daemon.now + 5)
    daemon.say(kind=Kind.PAUSE, address="t")
    daemon.say(kind=Kind.PAUSE, address="u")
    publish(daemon, "t", b"1")
    daemon.session.flush(promises[1], daemon.now + 5)
    publish(daemon, "u", b"2")
    daemon.session.flush(promises[2], daemon.now + 5)
    publish(daemon, "t", b"3")
    assert [h.kind for h, _ in daemon.take()] == [Kind.FLUSH]
    daemon.say(kind=Kind.RESUME, address="t")
    assert [(h.kind, b) for h, b in daemon.take()] == [
        (Kind.PUBLISH, b"13"),
        (Kind.FLUSH, b""),
    ]
    daemon.say(kind=Kind.RESUME, address="u")
    assert [h.kind for h, _ in daemon.take()] == [Kind.PUBLISH, Kind.FLUSH]


def test_a_stall_fails_the_flushes_that_wait_for_it(daemon: Daemon):
    daemon.say(kind=Kind.PAUSE, address="t")
    publish(daemon, "t", b"1")
    promise, later, other = Promise(), Promise(), Promise()
    daemon.session.flush(promise, daemon.now + 50)
    daemon.take()
    stalled(daemon, "t")
    assert isinstance(promise.error, iris.SlowSubscriber)
    assert (promise.error.topic, promise.error.waits_for) == ("t", "billing")
    daemon.session.flush(later, daemon.now + 50)
    assert daemon.take() == []
    assert not later.ended
    stalled(daemon, "t")
    assert isinstance(later.error, iris.SlowSubscriber)
    daemon.say(kind=Kind.PAUSE, address="t")  # it moves again
    daemon.session.flush(other, daemon.now + 50)
    daemon.say(kind=Kind.RESUME, address="t")
    frames = daemon.take()
    assert messages(frames) == [("t", b"1")]
    daemon.say(kind=Kind.DONE, id=frames[-1][0].id)
    assert (other.ended, other.error) == (True, None)


def test_a_flush_that_the_daemon_fails_names_whom_it_waits_for(daemon: Daemon):
    promise = Promise()
    daemon.session.flush(promise, daemon.now + 5)
    header, _ = daemon.take_one()
    daemon.say(kind=Kind.ERROR, id=header.id, code=Code.SLOW_SUBSCRIBER, executed=2, reason="b", detail="b is slow")
    assert isinstance(promise.error, iris.SlowSubscriber)
    assert promise.error.waits_for == "b"
    assert "b is slow" in str(promise.error)


def test_no_more_is_written_while_much_is_unconfirmed(daemon: Daemon):
    body = b"x" * (PART_BYTES - 1)
    publishing = daemon.session.publishing
    publishing.limit = 64 * MiB
    for _ in range(100):
        publish(daemon, "t", body)
    frames = daemon.take()
    flush = next(h for h, _ in frames if h.kind == Kind.FLUSH)
    assert flush.at_once
    written = sum(len(b) for _, b in frames)
    assert CONFIRM_BYTES < written <= 2 * CONFIRM_BYTES + 2 * len(body)
    daemon.say(kind=Kind.PAUSE, address="t")
    publish(daemon, "u", b"y")
    assert daemon.take() == []
    daemon.say(kind=Kind.DONE, id=flush.id, count=30)
    frames = daemon.take()
    assert messages(frames) == [("u", b"y")]
    assert daemon.session.lane_down("gone") > 30  # what the daemon holds may be lost too
    daemon.attach()
    assert messages(daemon.take())[0][0] == "t"


def test_a_new_stream_knows_no_pause(daemon: Daemon):
    daemon.say(kind=Kind.PAUSE, address="t")
    publish(daemon, "t", b"1")
    publish(daemon, "u", b"2")
    publish(daemon, "t", b"3")
    daemon.session.lane_down("gone")
    daemon.attach()
    assert messages(daemon.take()) == [("t", b"1"), ("t", b"3"), ("u", b"2")]


# -- what was read is given back


def subscribed(daemon: Daemon, **fields: Any) -> Any:
    from iris_client._eventqueue import EventQueue, SubscribeCall
    from iris_client._frames import make

    queue = EventQueue(8000, drop_oldest=False, block=True)
    call = SubscribeCall(make(kind=Kind.SUBSCRIBE, address="t", when_full=3), queue, "subscription", lambda error: None)
    daemon.session.stand(call)
    header, _ = daemon.take_one()
    daemon.say(kind=Kind.DONE, id=header.id, count=1)
    return call


def test_what_was_read_is_given_back(daemon: Daemon):
    call = subscribed(daemon)
    for number in range(4):
        daemon.say(b"%d" % number, kind=Kind.EVENT, id=call.id, address="t", cost=600)
    assert [event.body for event in call.queue.take()] == [b"0"]
    assert daemon.take() == []  # it is being read
    call.queue.take()
    assert daemon.take() == []  # a little: later
    call.queue.take()
    assert [(h.kind, h.id, h.count) for h, _ in daemon.take()] == [(Kind.CREDIT, call.id, 1200)]
    call.queue.take()
    assert call.queue.take() == []  # all there was
    assert [(h.kind, h.count) for h, _ in daemon.take()] == [(Kind.CREDIT, 1200)]


def test_nothing_is_dropped_that_blocks(daemon: Daemon):
    call = subscribed(daemon)
    for _ in range(100):
        daemon.say(bytes(1000), kind=Kind.EVENT, id=call.id, address="t", cost=1256)
    assert call.queue.lost == 0
    assert sum(len(call.queue.take()) for _ in range(100)) == 100


def test_credit_of_an_old_stream_is_not_given_back_on_a_new_one(daemon: Daemon):
    call = subscribed(daemon)
    for _ in range(3):
        daemon.say(bytes(1000), kind=Kind.EVENT, id=call.id, address="t", cost=1256)
    call.queue.take()
    daemon.session.lane_down("gone")
    daemon.attach()
    daemon.take()
    while call.queue.take():
        pass
    assert daemon.take() == []


# -- through a mesh


@pytest.fixture
async def local() -> AsyncIterator[testing.LocalMesh]:
    async with testing.mesh(nodes=2, stall_timeout=0.3) as mesh:
        yield mesh


async def drained(events: iris.Subscription, count: int) -> list[bytes]:
    return [(await anext(events)).body for _ in range(count)]


@pytest.mark.parametrize("node", [0, 1])
async def test_publishers_wait_and_nothing_is_lost(local: testing.LocalMesh, node: int):
    bodies = [b"%d" % number + bytes(2000) for number in range(2000)]
    async with (
        local.connect() as publisher,
        local.connect(node) as subscriber,
        subscriber.subscribe("t", when_full="block", max_bytes=200_000) as events,
    ):
        publishing = asyncio.create_task(publisher.publish_many("t", bodies))
        assert await drained(events, 2000) == bodies
        assert await publishing == 2000
        await publisher.flush()
        assert events.lost == 0


async def test_a_stall_is_raised_and_other_topics_go_on(local: testing.LocalMesh):
    async with (
        local.connect() as publisher,
        local.connect(1, name="sleepy") as subscriber,
        subscriber.subscribe("t", when_full="block", max_bytes=100_000) as slow,
        subscriber.subscribe("u") as quick,
    ):
        count = 0
        with pytest.raises(iris.SlowSubscriber, match="sleepy") as caught:
            while True:
                await publisher.publish("t", b"%d" % count + bytes(5000))
                count += 1
        assert caught.value.topic == "t"
        assert caught.value.waits_for.startswith("sleepy@")
        assert caught.value.executed == "no"
        with pytest.raises(iris.WouldBlock):
            await publisher.publish("t", b"", wait=False)
        with pytest.raises(iris.WouldBlock):
            await publisher.publish_many("t", [b""], wait=False)
        with pytest.raises(iris.SlowSubscriber, match="sleepy"):
            await publisher.flush()
        await publisher.publish_many("u", [b"x"] * 100)
        assert await drained(quick, 100) == [b"x"] * 100
        assert [int(body[:-5000]) for body in await drained(slow, count)] == list(range(count))
        await publisher.publish("t", b"last")
        await publisher.flush()
        assert await drained(slow, 1) == [b"last"]


async def test_publishing_to_oneself_without_reading(local: testing.LocalMesh):
    async with local.connect(name="narcissus") as mesh:
        async with mesh.subscribe("t", when_full="block", max_bytes=100_000):
            with pytest.raises(iris.SlowSubscriber, match="narcissus"):
                await mesh.publish_many("t", [bytes(10_000)] * 1000)
        async with asyncio.timeout(5):
            while mesh._publishing.is_paused("t"):  # it has left: nobody waits
                await asyncio.sleep(0)
        await mesh.flush()
