"""Publishing: gathered while it waits, in order, bounded, and accounted for."""

from __future__ import annotations

import pytest

from iris_client import DeadlineExceeded, PublishLost
from iris_client._batches import MESSAGE_COST
from iris_client._frames import Kind
from iris_client._model import MAX_SIZES, PART_BYTES
from iris_client._publishing import CONFIRM_BYTES, CONFIRM_SECONDS
from tests.unit.client.ground import Daemon, MiB, Promise


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def publish(daemon: Daemon, topic: str, body: bytes, headers: dict[str, str] | None = None) -> bool:
    publishing = daemon.session.publishing
    return (headers is None and publishing.add(topic, body)) or publishing.add_checked(topic, body, headers)


def messages(frames: list) -> list[tuple[str, bytes]]:
    """What was published, message by message, with parts put together."""
    found: list[tuple[str, bytes]] = []
    for header, body in frames:
        if header.kind == Kind.PART:
            found[-1] = (found[-1][0], found[-1][1] + body)
            continue
        if header.kind != Kind.PUBLISH:
            continue
        at = 0
        for size in header.sizes or [len(body)]:
            found.append((header.address, body[at : at + size]))
            at += size
        assert at == len(body)
    return found


def test_what_waits_shares_a_frame(daemon: Daemon):
    for number in range(5):
        assert publish(daemon, "t", b"%d" % number * number)
    header, body = daemon.take_one()
    assert (header.kind, header.address, body) == (Kind.PUBLISH, "t", b"1223334444")
    assert list(header.sizes) == [0, 1, 2, 3, 4]
    assert daemon.session.publishing.waiting == 0
    publish(daemon, "t", b"alone")
    header, body = daemon.take_one()
    assert (list(header.sizes), body) == ([], b"alone")


def test_what_nobody_can_vouch_for_is_no_more_than_a_moments_messages(daemon: Daemon):
    for number in range(100):  # small and few: far from what is confirmed for its size
        publish(daemon, "t", b"%d" % number)
        for header, _ in daemon.take():
            if header.kind == Kind.FLUSH:
                daemon.say(kind=Kind.DONE, id=header.id)
        daemon.now += 0.1
    assert daemon.session.lane_down("gone") <= CONFIRM_SECONDS / 0.1 + 1


def test_nothing_waits_in_order_to_be_gathered(daemon: Daemon):
    woken = daemon.woken
    publish(daemon, "t", b"x")
    assert daemon.woken == woken + 1
    publish(daemon, "t", b"y")
    assert daemon.woken == woken + 1  # the sender is on its way already


def test_frames_split_where_topic_or_headers_change(daemon: Daemon):
    publish(daemon, "a", b"1")
    publish(daemon, "a", b"2", {"h": "1"})
    publish(daemon, "a", b"3", {"h": "1"})
    publish(daemon, "a", b"4", {"h": "2"})
    publish(daemon, "b", b"5")
    publish(daemon, "a", b"6")
    frames = daemon.take()
    assert [(h.address, dict(h.headers), b) for h, b in frames] == [
        ("a", {}, b"1"),
        ("a", {"h": "1"}, b"23"),
        ("a", {"h": "2"}, b"4"),
        ("b", {}, b"5"),
        ("a", {}, b"6"),
    ]
    ids = [h.id for h, _ in frames]
    assert all(id % 2 for id in ids)
    assert ids == sorted(set(ids))


def test_frames_are_bounded(daemon: Daemon):
    for _ in range(300):
        publish(daemon, "t", b"x" * 1024)
    for _ in range(70_000):
        publish(daemon, "u", b"")
    frames = daemon.take()
    assert all(len(b) <= PART_BYTES and len(h.sizes) <= MAX_SIZES for h, b in frames)
    assert len(messages(frames)) == 70_300


def test_large_messages_go_in_parts_and_in_order(daemon: Daemon):
    bodies = [b"a", b"b" * (PART_BYTES + 1), b"c" * PART_BYTES, b"d", b"e" * (3 * PART_BYTES)]
    for body in bodies:
        publish(daemon, "t", body)
    frames = daemon.take(limit=1)
    assert messages(frames) == [("t", body) for body in bodies]
    first = next(h for h, _ in frames if h.more)
    assert first.total == PART_BYTES + 1


def test_the_buffer_is_bounded_and_says_when_there_is_room(daemon: Daemon):
    rooms: list[int] = []
    publishing = daemon.session.publishing
    publishing.limit = 100_000
    publishing.on_room = lambda: rooms.append(publishing.waiting)
    sent = 0
    while publish(daemon, "t", b"x" * 1000):
        sent += 1
    assert sent == -(-100_000 // (1000 + MESSAGE_COST))
    assert not publish(daemon, "t", b"")
    assert rooms == []
    assert len(messages(daemon.take())) == sent
    assert rooms == [0]
    assert publish(daemon, "t", b"")


def test_empty_messages_count_too(daemon: Daemon):
    publishing = daemon.session.publishing
    publishing.limit = 1000
    sent = 0
    while publish(daemon, "t", b""):
        sent += 1
    assert sent == -(-1000 // MESSAGE_COST)


def test_flush_follows_what_was_published_before(daemon: Daemon):
    promise = Promise()
    publish(daemon, "t", b"1")
    daemon.session.flush(promise, daemon.now + 5)
    publish(daemon, "t", b"2")
    frames = daemon.take()
    assert [(h.kind, b) for h, b in frames] == [(Kind.PUBLISH, b"1"), (Kind.FLUSH, b""), (Kind.PUBLISH, b"2")]
    assert not promise.ended
    daemon.say(kind=Kind.DONE, id=frames[1][0].id)
    assert promise.ended
    assert promise.error is None


def test_flush_tells_what_the_daemon_dropped(daemon: Daemon):
    promise = Promise()
    daemon.session.flush(promise, daemon.now + 5)
    header, _ = daemon.take_one()
    daemon.say(kind=Kind.DONE, id=header.id, lost=7)
    assert isinstance(promise.error, PublishLost)
    assert (promise.error.lost, promise.error.unknown) == (7, 0)
    assert "dropped 7" in str(promise.error)


def test_losses_found_by_flushes_of_our_own_are_told_by_the_next_one(daemon: Daemon):
    body = b"x" * (PART_BYTES - 1)
    for _ in range(CONFIRM_BYTES // len(body) + 1):
        publish(daemon, "t", body)
    frames = daemon.take()
    flushes = [h for h, _ in frames if h.kind == Kind.FLUSH]
    assert len(flushes) == 1  # one of our own, once enough was written
    daemon.say(kind=Kind.DONE, id=flushes[0].id, lost=3)
    promise = Promise()
    daemon.session.flush(promise, daemon.now + 5)
    header, _ = daemon.take_one()
    daemon.say(kind=Kind.DONE, id=header.id, lost=2)
    assert isinstance(promise.error, PublishLost)
    assert promise.error.lost == 5


def test_a_flush_that_is_not_answered_ends_at_its_deadline(daemon: Daemon):
    promise = Promise()
    daemon.session.flush(promise, daemon.now + 5)
    header, _ = daemon.take_one()
    daemon.session.on_deadline(daemon.now + 5)
    assert isinstance(promise.error, DeadlineExceeded)
    assert [(h.kind, h.id) for h, _ in daemon.take()] == [(Kind.CANCEL, header.id)]
    daemon.say(kind=Kind.DONE, id=header.id)


def test_a_flush_that_was_never_sent_ends_at_its_deadline():
    daemon = Daemon(attached=False)
    promise = Promise()
    daemon.session.flush(promise, daemon.now + 5)
    daemon.session.on_deadline(daemon.now + 6)
    assert isinstance(promise.error, DeadlineExceeded)
    daemon.attach()
    assert daemon.take() == []


def test_what_was_written_and_not_confirmed_may_be_lost_with_the_stream(daemon: Daemon):
    for _ in range(4):
        publish(daemon, "t", b"confirmed")
    first = Promise()
    daemon.session.flush(first, daemon.now + 5)
    flush = daemon.take()[-1][0]
    daemon.say(kind=Kind.DONE, id=flush.id)
    for _ in range(3):
        publish(daemon, "t", b"written")
    daemon.take()
    publish(daemon, "t", b"waiting")
    assert daemon.session.lane_down("gone") == 3
    daemon.attach()
    assert messages(daemon.take()) == [("t", b"waiting")]
    promise = Promise()
    daemon.session.flush(promise, daemon.now + 5)
    daemon.say(kind=Kind.DONE, id=daemon.take_one()[0].id)
    assert isinstance(promise.error, PublishLost)
    assert (promise.error.lost, promise.error.unknown) == (0, 3)
    assert promise.error.executed == "maybe"
    again = Promise()
    daemon.session.flush(again, daemon.now + 5)
    daemon.say(kind=Kind.DONE, id=daemon.take_one()[0].id)
    assert again.error is None


def test_a_flush_outlives_the_stream_it_was_sent_on(daemon: Daemon):
    promise = Promise()
    publish(daemon, "t", b"x")
    daemon.session.flush(promise, daemon.now + 5)
    daemon.take()
    assert daemon.session.lane_down("gone") == 1
    assert not promise.ended
    daemon.attach()
    header, _ = daemon.take_one()
    assert header.kind == Kind.FLUSH
    daemon.say(kind=Kind.DONE, id=header.id)
    assert isinstance(promise.error, PublishLost)
    assert promise.error.unknown == 1


def test_a_half_written_message_goes_out_whole_on_the_next_stream(daemon: Daemon):
    body = b"x" * (2 * PART_BYTES)
    publish(daemon, "t", body)
    assert len(daemon.take_batch(limit=1)) == 1
    assert daemon.session.lane_down("gone") == 0
    daemon.attach()
    assert messages(daemon.take()) == [("t", body)]


def test_published_while_detached_leaves_later():
    daemon = Daemon(attached=False)
    for number in range(3):
        publish(daemon, "t", b"%d" % number)
    assert daemon.session.take(MiB, daemon.now) is None
    daemon.session.lane_up()
    daemon.session.lane_down("refused")
    publish(daemon, "t", b"3")
    daemon.attach()
    assert messages(daemon.take()) == [("t", b"%d" % n) for n in range(4)]


def test_a_daemon_that_leaves_gets_no_more(daemon: Daemon):
    daemon.say(kind=Kind.GOODBYE, reason="upgrade")
    publish(daemon, "t", b"x")
    assert daemon.take() == []
    daemon.session.lane_down("gone")
    daemon.attach()
    assert messages(daemon.take()) == [("t", b"x")]


def test_closed(daemon: Daemon):
    promise = Promise()
    publish(daemon, "t", b"x")
    daemon.session.flush(promise, daemon.now + 5)
    publishing = daemon.session.publishing
    assert publishing.messages == 1
    publishing.shut()
    assert not publishing.add("t", b"y")
    [call] = publishing.close()
    assert call.promise is promise
    assert daemon.take() == []
