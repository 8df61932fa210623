from __future__ import annotations

from collections import Counter

import pytest

from irisd.model import Balance, Code, Frame, KiB, Kind, MiB
from tests.unit.node.house import (
    Place,
    bodies,
    carry,
    failure,
    link,
    lost,
    only,
    pair,
    publish,
    pump,
    subscribe,
    subscriber,
)

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


def test_a_member_of_a_group_that_is_behind_gets_less():
    place = Place()
    slow, quick = (subscriber(place, "t", group="g", max_bytes=100_000) for _ in range(2))
    app = place.app()
    quick_has = 0
    for n in range(60):
        place.say(app, publish("t", b"%05d" % n + bytes(2_000)))
        quick_has += len(bodies(place.hear(quick)))
    slow_has = len(bodies(place.hear(slow)))
    assert slow_has + quick_has == 60
    assert slow_has < 10 < 45 < quick_has


def test_a_group_is_balanced_as_the_cluster_it_is_named_after():
    near, far = pair()
    for place in (near, far):
        member = place.app()
        place.say(member, Frame(Kind.JOIN, id=1, address="g", patterns=1, concurrency=1, balance=Balance.LOCAL))
    pump(near, far)
    here, there = subscriber(near, "t", group="g"), subscriber(far, "t", group="g")
    app = near.app()
    for n in range(10):
        near.say(app, publish("t", b"%d" % n))
    pump(near, far)
    assert (len(bodies(near.hear(here))), len(bodies(far.hear(there)))) == (10, 0)


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


# -- bounds


def test_a_policy_nobody_knows_is_refused():
    place = Place()
    app = place.app()
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
    far.wait(1.0)  # it goes bit by bit
    pump(near, far)
    assert near.node.core.registry.topics() == {}
