from __future__ import annotations

from collections import Counter

import pytest

from irisd.flow.ledger import ACK_EVERY
from irisd.model import Code, Frame, KiB, Kind, MiB, WhenFull
from tests.unit.node.house import Place, carry, crossed, cut, failure, kinds, link, only, pair, publish, pump, subscribe


def subscriber(place: Place, *filters: str, group: str = "", max_bytes: int = 64 * MiB, when_full: int = 0) -> int:
    """An app with subscriptions 1, 3, 5 ... that every linked node knows."""
    app = place.app()
    for at, filter in enumerate(filters):
        place.say(app, subscribe(2 * at + 1, filter, group=group, max_bytes=max_bytes, when_full=when_full))
    pump(place, *place.links.values())
    assert kinds(place.hear(app)) == ["DONE"] * len(filters)
    return app


def bodies(frames: list[Frame]) -> list[bytes]:
    """The messages of EVENT frames."""
    out = []
    for frame in frames:
        assert frame.kind == Kind.EVENT
        if not frame.address:
            continue
        at = 0
        for size in memoryview(frame.sizes).cast("I") if frame.sizes else [len(frame.body)]:
            out.append(frame.body[at : at + size])
            at += size
    return out


def lost(frames: list[Frame]) -> int:
    return sum(frame.lost for frame in frames)


# -- the plain way


def test_every_subscriber_of_a_matching_filter_gets_every_message():
    near, far = pair()
    here, there = subscriber(near, "o.*"), subscriber(far, ">", "o.a", "x")
    app = near.app()
    near.say(app, Frame(Kind.PUBLISH, address="o.a", body=b"abb", sizes=b"\1\0\0\0\2\0\0\0", content_type="t"))
    pump(near, far)
    (event,) = near.hear(here)
    assert (event.kind, event.id, event.address, event.content_type, event.lost) == (Kind.EVENT, 1, "o.a", "t", 0)
    assert bodies([event]) == [b"a", b"bb"]
    events = far.hear(there)
    assert sorted(event.id for event in events) == [1, 3]  # once for each subscription that matches
    assert bodies(events) == [b"a", b"bb"] * 2
    assert near.hear(app) == []


def test_app_headers_pass_through():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    near.say(app, Frame(Kind.PUBLISH, address="t", headers=(b"\x0a\x01k\x12\x01v",), body=b"x"))
    pump(near, far)
    assert only(far.hear(there)).headers == (b"\x0a\x01k\x12\x01v",)


def test_nobody_subscribed():
    near, _ = pair()
    app = near.app()
    near.say(app, publish("t", b"x"), Frame(Kind.FLUSH, id=1))
    assert only(near.hear(app)) == Frame(Kind.DONE, id=1)
    assert near.woken() == [app] or near.quiet()


def test_an_app_cannot_write_between_the_lines():
    """What only nodes say to each other in a PUBLISH is not an app's to say."""
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    sly = Frame(Kind.PUBLISH, id=9, address="t", body=b"x", group="g", seq=99, lost=2**64 - 1, hops=2**32 - 1)
    sly.lost_unknown, sly.member = True, "somebody else"
    near.say(app, sly, publish("t", b"y"))
    (first, second) = near.take(far.id, MiB)
    assert [first.seq, second.seq] == [1, 2]
    assert (first.group, first.lost, first.lost_unknown, first.id, first.member) == ("", 0, False, 0, "")
    far.from_peer(near, first, second)
    assert bodies(far.hear(there)) == [b"x", b"y"]
    assert far.unlinked() == []


@pytest.mark.parametrize("topic", ["", "a b", "*", "a.>", "_iris.x", "x" * 201])
def test_a_bad_topic_ends_the_stream(topic: str):
    place = Place()
    app = place.app()
    place.say(app, publish(topic, b"x"))
    detach = only(place.detached())
    assert detach.status == "INVALID_ARGUMENT"
    assert "PUBLISH" in detach.reason


def test_unsubscribed_means_no_more():
    near, far = pair()
    there, app = subscriber(far, "t", "t"), near.app()
    far.say(there, Frame(Kind.UNSUBSCRIBE, id=1))
    near.say(app, publish("t", b"x"))
    pump(near, far)
    assert [(frame.kind, frame.id) for frame in far.hear(there)] == [(Kind.DONE, 1), (Kind.EVENT, 3)]
    far.say(there, Frame(Kind.UNSUBSCRIBE, id=3))
    pump(near, far)
    near.say(app, publish("t", b"x"))
    assert carry(near, far) == []


def test_order_holds_across_large_and_small_messages():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    large = bytes(200 * KiB)
    for n in range(10):
        near.say(app, publish("t", b"%d" % n))
        near.say(app, Frame(Kind.PUBLISH, address="t", body=large, more=True, total=2 * len(large)))
        near.say(app, Frame(Kind.PART, body=large))
    while carry(near, far, 1):
        pass
    heard = far.hear(there)
    assert [frame.body for frame in heard if len(frame.body) < 10] == [b"%d" % n for n in range(10)]
    assert sum(len(frame.body) for frame in heard) == 10 * (1 + 2 * len(large))
    assert lost(heard) == 0


def test_a_large_message_between_others_is_not_taken_for_a_duplicate():
    """Its parts leave between whole messages of another topic; numbers rise in the order of completion."""
    near, far = pair()
    there, app = subscriber(far, ">"), near.app()
    near.say(
        app,
        Frame(Kind.PUBLISH, address="large", body=bytes(200 * KiB), more=True, total=600 * KiB),
        Frame(Kind.PART, body=bytes(200 * KiB), more=True),
        Frame(Kind.PART, body=bytes(200 * KiB)),
        *[publish("small", bytes(40 * KiB)) for _ in range(20)],
    )
    writes = []
    while frames := carry(near, far, 1):
        writes += frames
    assert writes[0].address == "large"
    assert writes.index(writes[-1]) > 3
    numbers = [frame.seq for frame in writes if frame.seq]
    assert numbers == list(range(1, 22))
    heard = far.hear(there)
    assert Counter(frame.address for frame in heard if frame.kind == Kind.EVENT) == {"large": 1, "small": 20}
    assert far.counters.get("dropped.duplicate", 0) == 0


def test_a_large_batch_keeps_its_sizes():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    frame = publish("t", *[bytes([n]) * 3000 for n in range(200)])
    whole, frame.body = frame.body, frame.body[: 256 * KiB]
    frame.more, frame.total = True, len(whole)
    rest = [whole[at : at + 256 * KiB] for at in range(256 * KiB, len(whole), 256 * KiB)]
    near.say(app, frame, *[Frame(Kind.PART, body=part, more=part is not rest[-1]) for part in rest])
    pump(near, far)
    first, *others = far.hear(there)
    assert len(first.sizes) == 800
    assert first.body + b"".join(other.body for other in others) == whole


# -- groups


def test_exactly_one_member_of_a_group_gets_each_message_in_equal_shares():
    one, two, three = Place(1), Place(2), Place(3)
    link(one, two)
    link(one, three)
    link(two, three)
    members = [(one, subscriber(one, "t", group="g")), (two, subscriber(two, "t", group="g"))]
    members += [(two, subscriber(two, "t", group="g")), (three, subscriber(three, "t", group="g"))]
    other, app = subscriber(three, "t", group="h"), one.app()
    for n in range(100):
        one.say(app, publish("t", b"%d" % n))
    pump(one, two, three)
    shares = [bodies(place.hear(member)) for place, member in members]
    assert [len(share) for share in shares] == [25, 25, 25, 25]
    assert sorted(int(body) for share in shares for body in share) == list(range(100))
    assert all([int(body) for body in share] == sorted(int(body) for body in share) for share in shares)
    assert len(bodies(three.hear(other))) == 100  # a group of its own


def test_a_batch_is_shared_out_among_a_group():
    near, far = pair()
    members = [(near, subscriber(near, "t", group="g")), (far, subscriber(far, "t", group="g"))]
    app = near.app()
    near.say(app, publish("t", *[b"%d" % n for n in range(10)]))
    pump(near, far)
    shares = [bodies(place.hear(member)) for place, member in members]
    assert [len(share) for share in shares] == [5, 5]
    assert sorted(int(body) for share in shares for body in share) == list(range(10))


def test_a_member_that_says_goodbye_leaves_the_group_and_keeps_what_it_has():
    near, far = pair()
    first, second, app = subscriber(far, "t", group="g"), subscriber(far, "t", group="g"), near.app()
    near.say(app, publish("t", b"1"), publish("t", b"2"))
    pump(near, far)
    far.say(first, Frame(Kind.GOODBYE))
    near.say(app, publish("t", b"3"), publish("t", b"4"))
    pump(near, far)
    assert len(bodies(far.hear(first))) == 1
    assert len(bodies(far.hear(second))) == 3
    far.say(second, Frame(Kind.GOODBYE))
    pump(near, far)
    near.say(app, publish("t", b"5"))
    assert carry(near, far) == []
    far.gone(first)
    far.gone(second)
    pump(near, far)
    assert near.node.core.registry.topics() == {}


def test_a_group_message_that_finds_nobody_is_counted():
    near, far = pair()
    member, app = subscriber(far, "t", group="g"), near.app()
    near.say(app, publish("t", b"x", b"y"))
    far.gone(member)
    carry(near, far)
    assert far.counters["dropped.group-gone"] == 2


# -- losses


def test_a_full_queue_towards_a_peer_drops_the_oldest_and_says_so():
    near, far = pair(topic_queue=10_000)
    there, app = subscriber(far, ">"), near.app()
    near.say(app, *[publish("t", b"%02d" % n + bytes(998)) for n in range(20)], publish("u", b"x"))
    near.say(app, Frame(Kind.FLUSH, id=1))
    dropped = 20 - 10_000 // (1000 + 256)
    assert only(near.hear(app)).lost == dropped
    assert near.counters["dropped.topic-queue-full"] == dropped
    pump(near, far)
    heard = far.hear(there)
    first = next(frame for frame in heard if frame.address == "t")
    assert (first.lost, first.body[:2]) == (dropped, b"%02d" % dropped)
    assert lost(heard) + len(bodies(heard)) == 21
    near.say(app, Frame(Kind.FLUSH, id=3))
    assert only(near.hear(app)).lost == 0  # told once


@pytest.mark.parametrize(("when_full", "kept"), [(WhenFull.DROP_OLDEST, [7, 8, 9]), (WhenFull.DROP_NEWEST, [0, 1, 2])])
def test_a_slow_subscriber_loses_by_its_own_policy(when_full: WhenFull, kept: list[int]):
    place = Place()
    slow = subscriber(place, "t", max_bytes=3 * (1000 + 256), when_full=when_full)
    quick, app = subscriber(place, "t"), place.app()
    for n in range(10):
        place.say(app, publish("t", b"%d" % n + bytes(999)))
        assert len(place.hear(quick)) == 1
    heard = place.hear(slow)
    assert [int(body[:1]) for body in bodies(heard)] == kept
    assert lost(heard) == 7
    assert (heard[-1].address == "") == (when_full == WhenFull.DROP_NEWEST)  # told behind what it follows
    assert place.counters["dropped.subscription-full"] == 7
    place.say(app, Frame(Kind.FLUSH, id=1))
    assert only(place.hear(app)).lost == 0  # the publisher has nothing to do with it


def test_messages_for_a_peer_without_a_link_are_told_when_it_is_back():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    near.say(app, publish("t", b"1"))
    pump(near, far)
    cut(near, far)
    near.say(app, publish("t", b"2", b"3"), publish("other", b"x"))
    assert near.counters["dropped.no-link"] == 2
    link(near, far)
    near.say(app, publish("t", b"4"))
    pump(near, far)
    heard = far.hear(there)
    assert bodies(heard) == [b"1", b"4"]
    assert [frame.lost for frame in heard] == [0, 2, 0] or [frame.lost for frame in heard] == [0, 2]


def test_what_was_queued_and_what_was_in_flight_is_told_exactly():
    near, far = pair()
    there, app = subscriber(far, ">"), near.app()
    for n in range(200):
        near.say(app, publish("t", b"%d" % n))
        pump(near, far)  # all arrive, and are acknowledged up to a point
    assert ACK_EVERY > near.node.core.ledgers[far.id].unacknowledged > 0
    near.say(app, publish("t", b"flight"), publish("u", b"flight", b"flight"))
    near.take(far.id, MiB)  # written, never arrives
    near.say(app, publish("t", b"queue"))
    cut(near, far)
    link(near, far)
    heard = far.hear(there)
    assert len(bodies(heard)) == 200
    assert lost(heard) == 4
    assert near.counters["dropped.link-lost"] == 1


def test_a_topic_named_like_our_own_queues_is_a_topic_like_any_other():
    near, far = pair()
    there, app = subscriber(far, ">"), near.app()
    near.say(app, publish("tunnel", b"x"), publish("requests", b"x"))
    cut(near, far)
    link(near, far)
    assert lost(far.hear(there)) == 2


def test_a_message_cut_between_two_parts_is_lost_once():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    near.say(app, Frame(Kind.PUBLISH, address="t", body=bytes(200 * KiB), more=True, total=400 * KiB))
    near.say(app, Frame(Kind.PART, body=bytes(200 * KiB)))
    assert only(carry(near, far, 1)).more
    cut(near, far)
    link(near, far)
    heard = far.hear(there)
    assert (bodies(heard), lost(heard)) == ([], 1)


def test_the_news_of_a_loss_can_itself_be_lost_and_is_told_again():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    cut(near, far)
    near.say(app, publish("t", b"x"))
    link_quietly(near, far)
    assert Kind.LOST in [frame.kind for frame in near.take(far.id, MiB)]  # written, never arrives
    cut(near, far)
    link(near, far)
    assert lost(far.hear(there)) == 1


def test_a_loss_that_was_told_is_not_told_again():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    for _ in range(3):
        cut(near, far)
        near.say(app, publish("t", b"x"))
        link(near, far)
    assert lost(far.hear(there)) == 3


def link_quietly(near: Place, far: Place) -> None:
    """A link on which only the far record has come."""
    near.links[far.id], far.links[near.id] = far, near
    near.link_up(far.id)
    far.link_up(near.id)
    carry(far, near)


def test_a_duplicate_is_dropped_and_counted():
    near, far = pair()
    there = subscriber(far, "t")
    frame = Frame(Kind.PUBLISH, address="t", body=b"x", seq=1)
    far.from_peer(near, frame, crossed(frame))
    assert bodies(far.hear(there)) == [b"x"]
    assert far.counters["dropped.duplicate"] == 1


def test_a_loss_of_a_group_is_told_to_one_of_it():
    near, far = pair()
    members = [subscriber(far, "t", group="g"), subscriber(far, "t", group="g")]
    app = near.app()
    near.say(app, publish("t", b"x"))
    cut(near, far)
    link(near, far)
    assert sum(lost(far.hear(member)) for member in members) == 1


def test_both_ends_forget_each_other_and_go_on():
    near, far = pair(lost_peer_memory=10.0)
    there, app = subscriber(far, "t"), near.app()
    near.say(app, *[publish("t", b"%d" % n) for n in range(10)])
    pump(near, far)
    far.hear(there)
    cut(near, far, seconds=11)
    assert near.node.core.ledgers == far.node.core.ledgers == {}
    assert only(far.hear(there)).lost_unknown
    link(near, far)
    near.say(app, publish("t", b"again"))
    pump(near, far)
    assert bodies(far.hear(there)) == [b"again"]


def test_one_end_forgets_the_other_and_is_heard_all_the_same():
    """Its numbers begin anew; to the end that remembers they must not look like duplicates."""
    near, far = pair(lost_peer_memory=10.0)
    there, app = subscriber(far, "t"), near.app()
    near.say(app, *[publish("t", b"%d" % n) for n in range(10)])
    pump(near, far)
    far.hear(there)
    del near.links[far.id], far.links[near.id]
    near.link_down(far.id)
    near.wait(8)
    far.link_down(near.id)
    near.say(app, publish("t", b"lost"))
    near.wait(3)
    assert near.node.core.ledgers == {}
    link(near, far)
    near.say(app, publish("t", b"again"))
    pump(near, far)
    heard = far.hear(there)
    assert bodies(heard) == [b"again"]
    assert any(frame.lost_unknown for frame in heard)


def test_a_publisher_that_dies_leaves_an_unknown_number_lost():
    near, far = pair(lost_peer_memory=10.0)
    there, quiet, app = subscriber(far, "t"), subscriber(far, "u"), near.app()
    near.say(app, publish("t", b"x"))
    pump(near, far)
    far.link_down(near.id)
    far.wait(9.9)
    assert len(bodies(far.hear(there))) == 1
    far.wait(0.2)
    notice = only(far.hear(there))
    assert (notice.address, notice.lost, notice.lost_unknown) == ("", 0, True)
    assert far.hear(quiet) == []  # it never heard of that node
    assert near.id not in far.node.core.ledgers
    assert far.node.next_deadline() is None


def test_a_publisher_that_leaves_leaves_nothing():
    near, far = pair()
    there, app = subscriber(far, "t"), near.app()
    near.say(app, publish("t", b"x"))
    pump(near, far)
    far.link_down(near.id, left=True)
    far.wait(1000)
    assert [frame.lost_unknown for frame in far.hear(there)] == [False]
    subscription = far.node.core.apps[there].subscriptions[1]
    assert subscription.sources == set()


# -- bounds


def test_blocking_subscriptions_are_refused_not_faked():
    place = Place()
    app = place.app()
    place.say(app, subscribe(1, "t", when_full=WhenFull.BLOCK))
    assert failure(place.hear(app))[0] == Code.NOT_SUPPORTED
    place.say(app, subscribe(3, "t", when_full=9))
    assert failure(place.hear(app))[0] == Code.INVALID


def test_a_subscription_may_not_ask_for_more_than_the_limit():
    place = Place(max_subscription=10_000)
    slow, app = subscriber(place, "t", max_bytes=1 << 40), place.app()
    place.say(app, *[publish("t", bytes(1000)) for _ in range(100)])
    assert place.node.core.apps[slow].outbox.bytes <= 10_000


def test_a_stalled_link_holds_a_bounded_number_of_bytes_whatever_the_topics():
    near, far = pair(peer_outbox=100_000)
    there, app = subscriber(far, ">"), near.app()
    for n in range(3000):
        near.say(app, publish(f"t{n % 500}", bytes(200)))
        assert near.node.core.peers[far.id].outbox.bytes <= 100_000
    pump(near, far)
    heard = far.hear(there)
    assert len(bodies(heard)) + lost(heard) == 3000


def test_a_hundred_thousand_topics():
    place = Place()
    there, app = place.app(), place.app()
    count = 100_000
    place.node.frames_from_app(there, [subscribe(2 * n + 1, f"t.{n}") for n in range(count)], place.now)
    assert len(place.hear(there)) == count
    place.say(there, subscribe(2 * count + 1, "one.more"))
    assert failure(place.hear(there)) == (Code.OVERLOADED, 1)
    place.say(app, *[publish(f"t.{n}", b"x") for n in range(0, count, 1000)])
    assert len(bodies(place.hear(there))) == 100


def test_ten_thousand_topics_across_a_link_and_back():
    near, far = pair()
    there, app = far.app(), near.app()
    count = 10_000
    far.say(there, *[subscribe(2 * n + 1, f"t.{n}") for n in range(count)])
    records = carry(far, near)
    assert max(len(frame.body) for frame in records) < 20 * KiB
    assert len(records) < count * 30 / (16 * KiB)  # changes that wait travel together
    pump(near, far)
    assert len(far.hear(there)) == count
    near.say(app, *[publish(f"t.{n}", b"x") for n in range(0, count, 100)])
    pump(near, far)
    assert len(bodies(far.hear(there))) == 100
    far.gone(there)
    pump(near, far)
    assert near.node.core.registry.topics() == {}
