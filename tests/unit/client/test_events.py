"""Publish and subscribe through real nodes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import iris_client as iris
from iris_client import KiB, MiB, testing
from iris_client.testing import LocalMesh


async def take(events: iris.Subscription, count: int) -> list[iris.Event]:
    """Read ``count`` events, within a time."""
    found: list[iris.Event] = []
    async with asyncio.timeout(5):
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_in_order_and_whole(caller: iris.Mesh, server: iris.Mesh):
    async with server.subscribe("orders.*") as events:
        assert events.ready
        assert events.topic_filter == "orders.*"
        await caller.publish("orders.new", b"first", headers={"a": "b"})
        await caller.publish("orders.new", b"x" * MiB)
        await caller.publish("elsewhere", b"not this")
        for number in range(1000):
            await caller.publish("orders.many", b"%d" % number)
        await caller.publish("orders.many", b"")
        await caller.flush()
        found = await take(events, 1003)
        assert (found[0].topic, found[0].body, dict(found[0].headers)) == ("orders.new", b"first", {"a": "b"})
        assert (found[1].body, dict(found[1].headers)) == (b"x" * MiB, {})
        assert [event.body for event in found[2:]] == [b"%d" % number for number in range(1000)] + [b""]
        assert {event.lost for event in found} == {0}
        assert events.lost == 0
        assert "body=<5 bytes>" in repr(found[0])


async def test_publish_many_and_codecs(local: LocalMesh, server: iris.Mesh):
    async with local.connect(codec=iris.JSON) as mesh, server.subscribe(">") as events:
        assert await mesh.publish_many("t", (b"%d" % n for n in range(5))) == 5
        assert await mesh.publish_many("t", [{"n": 1}, b"raw"]) == 2
        await mesh.publish("t", [1, 2])
        found = await take(events, 8)
        assert [event.body for event in found] == [b"0", b"1", b"2", b"3", b"4", b'{"n":1}', b"raw", b"[1,2]"]


async def test_batches(caller: iris.Mesh, server: iris.Mesh):
    async with server.subscribe("t") as events:
        for number in range(100):
            await caller.publish("t", b"%d" % number)
        found: list[bytes] = []
        batches = 0
        async with asyncio.timeout(5):
            async for batch in events.batches():
                found += [event.body for event in batch]
                batches += 1
                if len(found) == 100:
                    break
        assert found == [b"%d" % number for number in range(100)]
        assert batches < 100


async def test_a_reader_may_mix_both_ways_and_be_cancelled(caller: iris.Mesh, server: iris.Mesh):
    async with server.subscribe("t") as events:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(events)
        for number in range(4):
            await caller.publish("t", b"%d" % number)
        assert [event.body for event in await take(events, 2)] == [b"0", b"1"]
        rest: list[bytes] = []
        async for batch in events.batches():
            rest += [event.body for event in batch]
            if len(rest) == 2:
                break
        assert rest == [b"2", b"3"]


async def test_two_readers_share_a_subscription(caller: iris.Mesh, server: iris.Mesh):
    async with server.subscribe("t") as events:

        async def read() -> bytes:
            return (await anext(events)).body

        readers = [asyncio.create_task(read()) for _ in range(3)]
        await asyncio.sleep(0)
        readers[0].cancel()
        await caller.publish_many("t", [b"a", b"b"])
        async with asyncio.timeout(5):
            assert sorted(await asyncio.gather(*readers[1:])) == [b"a", b"b"]


async def test_a_slow_reader_loses_and_is_told_how_much(caller: iris.Mesh, server: iris.Mesh):
    async with server.subscribe("t", max_bytes=64 * KiB) as events:
        for _ in range(20):
            await caller.publish_many("t", [b"x" * 1000] * 100)
            await caller.flush()
        await caller.publish("t", b"last")
        await caller.flush()
        read = lost = 0
        async with asyncio.timeout(5):
            async for event in events:
                read += 1
                assert event.lost is not None
                lost += event.lost
                if event.body == b"last":
                    break
        assert lost > 0
        assert read + lost == 2001
        assert events.lost == lost


async def test_drop_newest_keeps_the_oldest(caller: iris.Mesh, server: iris.Mesh):
    async with server.subscribe("t", when_full="drop_newest", max_bytes=64 * KiB) as events:
        for number in range(200):
            await caller.publish("t", b"%06d" % number * 200)
            await caller.flush()
        first = await anext(events)
        assert first.body[:6] == b"000000"


async def test_leaving_ends_the_iteration(caller: iris.Mesh, server: iris.Mesh):
    subscription = server.subscribe("t")
    async with subscription as events:
        reader = asyncio.create_task(take(events, 10))
        await caller.publish("t", b"x")
        await caller.flush()
    assert len(await reader) <= 1
    assert [batch async for batch in subscription.batches()] == []
    with pytest.raises(RuntimeError, match="entered once"):
        await subscription.__aenter__()


async def test_closing_the_mesh_ends_the_iteration_with_an_error(local: LocalMesh):
    mesh = await local.connect()
    subscription = await mesh.subscribe("t").__aenter__()
    reader = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    await mesh.close()
    with pytest.raises(iris.MeshClosed):
        await reader


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"topic_filter": ""}, iris.InvalidName),
        ({"topic_filter": "a..b"}, iris.InvalidName),
        ({"topic_filter": "a.>.b"}, iris.InvalidName),
        ({"topic_filter": "t", "when_full": "panic"}, iris.InvalidCall),
        ({"topic_filter": "t", "max_bytes": 0}, iris.InvalidCall),
        ({"topic_filter": "t", "max_bytes": 1.5}, iris.InvalidCall),
    ],
)
async def test_bad_subscriptions(caller: iris.Mesh, arguments: dict[str, Any], error: type):
    with pytest.raises(error):
        caller.subscribe(**arguments)


@pytest.mark.parametrize(
    ("topic", "body", "error"),
    [
        ("", b"", iris.InvalidName),
        ("a.*", b"", iris.InvalidName),
        ("x" * 201, b"", iris.InvalidName),
        ("t", "text", iris.CodecError),
        ("t", b"x" * (8 * MiB + 1), iris.TooLarge),
    ],
)
async def test_bad_publishes(caller: iris.Mesh, topic: str, body: Any, error: type):
    with pytest.raises(error):
        await caller.publish(topic, body)
    with pytest.raises(error):
        await caller.publish_many(topic, [body])
    await caller.flush()


async def test_publish_waits_when_the_buffer_is_full_and_can_be_cancelled(local: LocalMesh, server: iris.Mesh):
    async with server.subscribe("t") as events, local.connect() as mesh:
        mesh._publishing.limit = 100_000

        async def publish() -> int:
            for number in range(1000):
                await mesh.publish("t", b"%d" % number + b"x" * 1000)
            return 1000

        # Nothing can leave while this task does not yield: the buffer fills, and publish must wait.
        assert await asyncio.wait_for(publish(), 5) == 1000
        found = await take(events, 1000)
        assert [int(event.body.partition(b"x")[0]) for event in found] == list(range(1000))

        local.stop(0)
        async with asyncio.timeout(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(publish(), 0.05)
        local.start(0)
        with pytest.raises(iris.PublishLost):
            await mesh.flush()
        await mesh.publish("t", b"after")
        async with asyncio.timeout(5):
            again = 0
            async for event in events:
                if event.body == b"after":
                    break
                again += 1
        # What the buffer held when the daemon went away came once it was back, and not what was cancelled.
        assert 90 < again < 100


async def test_subscribe_before_entering_says_so(caller: iris.Mesh):
    with pytest.raises(RuntimeError, match="not subscribed yet"):
        async for _ in caller.subscribe("t"):
            pass


# -------------------------------------------------------------------- groups


async def test_a_group_gets_each_event_once(local: LocalMesh, caller: iris.Mesh):
    seen: list[bytes] = []
    all_seen = asyncio.Event()
    loners: list[bytes] = []

    def cluster() -> iris.Cluster:
        made = iris.Cluster("shippers")

        @made.on_event("orders.*")
        async def ship(event: iris.Event) -> None:
            seen.append(event.body)
            if len(seen) == 100:
                all_seen.set()

        return made

    async with (
        local.connect(0) as first,
        local.connect(1) as second,
        local.connect(1) as alone,
        first.join(cluster()) as joined,
        second.join(cluster()),
        alone.subscribe("orders.*") as events,
    ):
        assert joined.ready
        for number in range(100):
            await caller.publish("orders.new", b"%d" % number)
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await all_seen.wait()
        loners = [event.body for event in await take(events, 100)]
    assert sorted(seen) == sorted(loners) == sorted(b"%d" % number for number in range(100))


async def test_event_handlers_keep_order_within_a_topic_and_run_side_by_side_across(
    caller: iris.Mesh, server: iris.Mesh
):
    cluster = iris.Cluster("workers", concurrency=8, codec=iris.JSON)
    seen: dict[str, list[int]] = {"a": [], "b": []}
    running = most = 0
    done = asyncio.Event()

    @cluster.on_event("t.*")
    async def work(event: iris.Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        seen[event.topic[-1]].append(int(event.body))
        if sum(map(len, seen.values())) == 40:
            done.set()

    async with server.join(cluster):
        for number in range(20):
            await caller.publish("t.a", b"%d" % number)
            await caller.publish("t.b", b"%d" % number)
        async with asyncio.timeout(5):
            await done.wait()
    assert seen == {"a": list(range(20)), "b": list(range(20))}
    assert most == 2


async def test_event_handlers_that_fail_do_not_stop_the_next(
    caller: iris.Mesh, server: iris.Mesh, caplog: pytest.LogCaptureFixture
):
    cluster = iris.Cluster("workers", codec=iris.JSON)
    seen: asyncio.Queue[int] = asyncio.Queue()

    @cluster.on_event("t")
    async def work(value: int) -> None:
        if value < 0:
            raise RuntimeError("no")
        seen.put_nowait(value)

    async with server.join(cluster):
        for body in (b"-1", b"not json", b'"text"', b"7"):
            await caller.publish("t", body)
        async with asyncio.timeout(5):
            assert await seen.get() == 7
    assert "handler workers[t] failed for an event of t" in caplog.text
    assert caplog.text.count("was not run for an event of t") == 2


async def test_leaving_handles_what_has_come(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("workers", concurrency=1)
    seen: list[bytes] = []
    first = asyncio.Event()

    @cluster.on_event("t")
    def work(body: bytes) -> None:
        seen.append(body)

    @cluster.on_event("u")
    async def slow(body: bytes) -> None:
        first.set()
        await asyncio.sleep(0.001)
        seen.append(body)

    async with server.join(cluster):
        await caller.publish_many("u", [b"%d" % n for n in range(20)])
        async with asyncio.timeout(5):
            await first.wait()
    assert len(seen) == 20


async def test_a_group_shares_what_one_subscriber_would_get():
    async with (
        testing.mesh(nodes=2) as local,
        local.connect(0) as one,
        local.connect(1) as two,
        one.subscribe("jobs.>", group="workers") as left,
        two.subscribe("jobs.>", group="workers") as right,
    ):
        for number in range(10):
            await one.publish("jobs.new", b"%d" % number)
            await one.flush()
        found = await take(left, 5) + await take(right, 5)
        assert sorted(int(event.body) for event in found) == list(range(10))


async def test_a_group_must_be_a_clusters_name(caller: iris.Mesh):
    with pytest.raises(iris.InvalidName):
        caller.subscribe("jobs.>", group="")
