"""Subscriptions that block: nothing is lost, and only those who publish to them wait."""

from __future__ import annotations

from irisd.flow.credit import charge
from irisd.model import Code, Frame, KiB, Kind, MiB, WhenFull
from tests.unit.node.house import (
    Place,
    bodies,
    cut,
    kinds,
    link,
    lost,
    only,
    pair,
    publish,
    pump,
    subscribe,
    subscriber,
)

QUEUE = 64 * KiB


def blocking(place: Place, filter: str = "t", *, group: str = "", max_bytes: int = QUEUE) -> int:
    return subscriber(place, filter, group=group, max_bytes=max_bytes, when_full=WhenFull.BLOCK)


def body(number: int, size: int = 1000) -> bytes:
    return str(number).encode().ljust(size, b".")


def fill(place: Place, app: int, topic: str, first: int = 0, last: int = 200, size: int = 1000) -> None:
    for number in range(first, last):
        place.say(app, publish(topic, body(number, size)))
        pump(place, *place.links.values())


def read(place: Place, app: int, *, id: int = 1) -> list[Frame]:
    """Everything there is for a subscription, given back as it is read."""
    out: list[Frame] = []
    while events := [frame for frame in place.hear(app) if frame.kind == Kind.EVENT]:
        assert all(event.cost == (charge(event) if event.address else 0) for event in events)
        out += events
        place.say(app, Frame(Kind.CREDIT, id=id, count=sum(event.cost for event in events)))
        pump(place, *place.links.values())
    return out


def numbers(frames: list[Frame]) -> list[int]:
    return [int(each.rstrip(b".")) for each in bodies(frames)]


def words(frames: list[Frame]) -> list[tuple[str, str]]:
    return [(Kind(frame.kind).name, frame.address) for frame in frames]


def settled(*places: Place) -> None:
    """Nothing is held, lent beyond what purses hold, or waits."""
    for place in places:
        core = place.node.core
        assert all(not app.held and not app.held_bytes and not app.held_messages for app in core.apps.values())
        assert core.counters["held.bytes"] == core.counters["held.topics"] == 0
        for book in place.node._events.lending.books:
            for node, loan in book.loans.items():
                far = place if node == place.id else place.links[node]
                purse = far.node._events.pacing.purses[place.id, book.filter, book.group]
                assert purse.credit == loan
            assert book.lent == sum(book.loans.values())


def test_a_full_subscription_makes_its_publisher_wait_here():
    place = Place()
    slow, app = blocking(place), place.app(heeds_pause=True)
    fill(place, app, "t")
    assert words(place.hear(app)) == [("PAUSE", "t")]
    held = place.node.core.apps[app].held["t"]
    assert place.counters["held.topics"] == 1
    assert 0 < len(held.items) < 200
    (queue,) = next(iter(place.node._events.lending.books)).queues
    assert queue.used <= QUEUE
    assert numbers(read(place, slow)) == list(range(200))
    assert words(place.hear(app)) == [("RESUME", "t")]
    settled(place)


def test_a_full_subscription_makes_its_publisher_wait_elsewhere():
    near, far = pair()
    slow, app = blocking(far), near.app(heeds_pause=True)
    fill(near, app, "t")
    assert words(near.hear(app))[-1] == ("PAUSE", "t")
    (queue,) = next(iter(far.node._events.lending.books)).queues
    assert queue.used <= QUEUE
    assert numbers(read(far, slow)) == list(range(200))
    assert words(near.hear(app)) == [("RESUME", "t")]
    settled(near, far)


def test_other_topics_and_subscribers_go_on():
    near, far = pair()
    slow, quick = blocking(far), subscriber(far, "u")
    app, other = near.app(heeds_pause=True), near.app()
    fill(near, app, "t")
    near.say(app, publish("u", b"x"))
    near.say(other, publish("u", b"y"))
    pump(near, far)
    assert bodies(far.hear(quick)) == [b"x", b"y"]
    assert numbers(read(far, slow)) == list(range(200))


def test_one_that_blocks_and_one_that_drops_on_the_same_topic():
    near, far = pair()
    slow = blocking(far)
    drops = subscriber(far, "t", max_bytes=16 * KiB)
    app = near.app(heeds_pause=True)
    fill(near, app, "t")
    assert numbers(read(far, slow)) == list(range(200))
    heard = far.hear(drops)
    assert len(numbers(heard)) + lost(heard) == 200
    assert lost(heard) > 0


def test_two_publishing_nodes_never_exceed_the_queue():
    one, two = pair()
    three = Place(3)
    link(one, three)
    link(two, three)
    slow = blocking(three)
    apps = [(one, one.app(heeds_pause=True)), (two, two.app(heeds_pause=True))]
    for number in range(300):
        for place, app in apps:
            place.say(app, publish("t", body(number)))
        pump(one, two, three)
        book = next(iter(three.node._events.lending.books))
        (queue,) = book.queues
        assert queue.used + book.lent <= QUEUE
    heard = numbers(read(three, slow))
    assert sorted(heard) == sorted([*range(300), *range(300)])
    settled(one, two, three)


def test_a_message_larger_than_the_queue_passes_alone():
    near, far = pair()
    slow, app = blocking(far, max_bytes=4 * KiB), near.app(heeds_pause=True)
    for number in range(5):
        near.say(app, publish("t", body(number, 20 * KiB)))
        pump(near, far)
    assert numbers(read(far, slow)) == [0, 1, 2, 3, 4]
    settled(near, far)


def test_a_batch_larger_than_the_queue_is_cut():
    near, far = pair()
    slow, app = blocking(far, max_bytes=8 * KiB), near.app(heeds_pause=True)
    near.say(app, publish("t", *[body(number, 100) for number in range(1000)]))
    pump(near, far)
    (queue,) = next(iter(far.node._events.lending.books)).queues
    assert 0 < queue.used <= 8 * KiB
    assert numbers(read(far, slow)) == list(range(1000))
    settled(near, far)


def test_a_group_shares_and_goes_around_its_slow_member():
    near, far = pair()
    slow = blocking(near, group="g")
    quick = blocking(far, group="g")
    app = near.app(heeds_pause=True)
    heard: list[int] = []
    for number in range(300):
        near.say(app, publish("t", body(number)))
        pump(near, far)
        heard += numbers(read(far, quick))
    left = numbers(read(near, slow))
    assert sorted(heard + left) == list(range(300))
    assert 0 < len(left) <= QUEUE // 1000
    settled(near, far)


def test_two_members_of_a_group_on_one_node():
    place = Place()
    slow, quick = blocking(place, group="g"), blocking(place, group="g")
    app = place.app(heeds_pause=True)
    heard: list[int] = []
    for number in range(300):
        place.say(app, publish("t", body(number)))
        heard += numbers(read(place, quick))
    assert place.hear(app) == []
    assert sorted(heard + numbers(read(place, slow))) == list(range(300))


def test_a_stall_is_told_and_names_the_member():
    near, far = pair(stall_timeout=5.0)
    slow, app = blocking(far), near.app(heeds_pause=True)
    fill(near, app, "t")
    near.say(app, Frame(Kind.FLUSH, id=1))
    near.hear(app)
    near.wait(4.9)
    assert near.hear(app) == []
    near.wait(0.2)
    name = far.node.core.apps[slow].member_name
    told, failed = near.hear(app)
    assert (told.kind, told.address, told.code, told.reason) == (Kind.STALLED, "t", Code.SLOW_SUBSCRIBER, name)
    assert (failed.kind, failed.id, failed.code, failed.reason) == (Kind.ERROR, 1, Code.SLOW_SUBSCRIBER, name)
    assert name in told.detail
    near.say(app, Frame(Kind.FLUSH, id=3))
    assert near.hear(app) == []
    near.wait(5.1)  # it is said again as long as that lasts
    assert kinds(near.hear(app)) == ["STALLED", "ERROR"]
    assert numbers(read(far, slow)) == list(range(200))
    assert words(near.hear(app)) == [("RESUME", "t")]
    near.say(app, Frame(Kind.FLUSH, id=5))
    assert kinds(near.hear(app)) == ["DONE"]


def test_a_stall_names_the_group():
    near, far = pair(stall_timeout=1.0)
    blocking(far, group="billing")
    app = near.app(heeds_pause=True)
    fill(near, app, "t")
    near.hear(app)
    near.wait(1.1)
    assert only(near.hear(app)).reason == "billing"


def test_progress_takes_a_stall_back():
    place = Place(stall_timeout=1.0)
    slow, app = blocking(place), place.app(heeds_pause=True)
    fill(place, app, "t", 0, 400)
    place.wait(1.1)
    assert words(place.hear(app)) == [("STALLED", "t")]  # takes the place of the PAUSE that nobody had heard
    events = place.hear(slow)
    place.say(slow, Frame(Kind.CREDIT, id=1, count=sum(event.cost for event in events)))
    assert words(place.hear(app)) == [("PAUSE", "t")]
    place.wait(1.1)
    assert words(place.hear(app)) == [("STALLED", "t")]


def test_a_flush_waits_for_what_is_held():
    place = Place()
    slow, app = blocking(place), place.app(heeds_pause=True)
    fill(place, app, "t")
    place.say(app, Frame(Kind.FLUSH, id=1), Frame(Kind.FLUSH, id=3, at_once=True))
    pause, done = place.hear(app)
    assert (pause.kind, done.kind, done.id) == (Kind.PAUSE, Kind.DONE, 3)
    assert done.count == place.node.core.apps[app].held_messages > 0
    read(place, slow)
    assert [(Kind(f.kind).name, f.id) for f in place.hear(app)] == [("DONE", 1), ("RESUME", 0)]


def test_an_app_that_publishes_to_itself_is_told():
    place = Place(stall_timeout=1.0)
    app = place.app("me", heeds_pause=True)
    place.say(app, subscribe(1, "t", max_bytes=QUEUE, when_full=WhenFull.BLOCK))
    place.hear(app)
    for number in range(200):
        place.say(app, publish("t", body(number)))
    place.wait(1.1)
    heard = place.hear(app)
    stalled = heard[0]
    assert (stalled.kind, stalled.reason) == (Kind.STALLED, place.node.core.apps[app].member_name)
    place.say(app, Frame(Kind.UNSUBSCRIBE, id=1))
    assert words(place.hear(app))[-1] == ("RESUME", "t") or place.node.core.apps[app].held == {}
    settled(place)


def test_a_subscriber_that_goes_frees_its_publishers():
    for how in ("unsubscribe", "detach", "cut", "left"):
        near, far = pair()
        slow, app = blocking(far), near.app(heeds_pause=True)
        other = subscriber(near, "t")
        fill(near, app, "t")
        if how == "unsubscribe":
            far.say(slow, Frame(Kind.UNSUBSCRIBE, id=1))
        elif how == "detach":
            far.gone(slow)
        elif how == "cut":
            cut(near, far)
        else:
            near.link_down(far.id, left=True)
        pump(near, *near.links.values())
        assert words(near.hear(app))[-1] == ("RESUME", "t"), how
        assert numbers(near.hear(other)) == list(range(200)), how
        if how in ("unsubscribe", "detach"):
            settled(near, far)


def test_losses_with_a_link_are_told_and_credit_is_new():
    near, far = pair()
    slow, app = blocking(far), near.app(heeds_pause=True)
    fill(near, app, "t", 0, 40)
    near.say(app, *[publish("t", body(number)) for number in range(40, 50)])  # paid for, and not yet under way
    cut(near, far)
    fill(near, app, "t", 50, 60)  # nobody can be reached
    link(near, far)
    fill(near, app, "t", 60, 200)
    heard = read(far, slow)
    assert numbers(heard) == [*range(40), *range(60, 200)]
    assert lost(heard) == 20
    settled(near, far)


def test_what_an_app_that_left_had_held_is_told_as_lost():
    near, far = pair()
    slow, app = blocking(far), near.app(heeds_pause=True)
    fill(near, app, "t")
    near.gone(app)
    pump(near, far)
    heard = read(far, slow)
    pump(near, far)
    heard += far.hear(slow)
    assert len(numbers(heard)) + lost(heard) == 200
    assert near.counters["dropped.publisher-gone"] == lost(heard) > 0
    settled(near, far)


def test_the_longest_messages_that_are_on_their_way_are_held():
    """A client writes 4 MiB and one message before it asks whether all was read, and as much before it waits."""
    place = Place()
    blocking(place)
    app = place.app(heeds_pause=True)
    settings = place.node.core.settings
    place.say(app, publish("t", b"begins to wait", bytes(QUEUE)))
    held = 0
    while held + MiB < settings.publish_hold:
        place.say(app, publish("t", bytes(MiB)))
        held += MiB
    for size in (4 * MiB, settings.max_body, 4 * MiB, settings.max_body):
        place.say(app, publish("t", bytes(size)))
    assert place.detached() == []
    for _ in range(2):
        place.say(app, publish("t", bytes(MiB)))
    assert place.detached() == []
    place.say(app, publish("t", bytes(settings.max_body)))
    assert "wait" in only(place.detached()).reason


def test_an_app_whose_many_topics_wait_gets_no_answer_until_less_does():
    """Each topic is told to wait when something of it does already: more and more of them would fill memory."""
    place = Place(publish_hold=100 * KiB)
    slow, app = blocking(place, "t.*"), place.app(heeds_pause=True)
    numbers_of_flush = iter(range(1, 1000, 2))
    asked = answered = 0
    topics = 0
    while asked == answered:
        place.say(app, publish(f"t.{topics}", body(topics)), Frame(Kind.FLUSH, id=next(numbers_of_flush), at_once=True))
        topics, asked = topics + 1, asked + 1
        answered += sum(frame.kind == Kind.DONE for frame in place.hear(app))
        assert topics < 300
    assert place.node.core.apps[app].held_bytes > 100 * KiB
    came = read(place, slow)
    assert [frame.kind for frame in place.hear(app)].count(Kind.DONE) == 1
    assert len(came) == topics
    place.say(app, Frame(Kind.FLUSH, id=next(numbers_of_flush), at_once=True))
    assert only(place.hear(app)).kind == Kind.DONE
    place.quiet()


def test_questions_without_an_answer_are_bounded():
    place = Place(publish_hold=KiB)
    blocking(place)
    app = place.app(heeds_pause=True)
    fill(place, app, "t", 0, 100)
    place.say(app, *[Frame(Kind.FLUSH, id=1 + 2 * at, at_once=True) for at in range(64)])
    assert place.detached() == []
    place.say(app, Frame(Kind.FLUSH, id=201, at_once=True))
    assert "wait for an answer" in only(place.detached()).reason


def test_an_app_that_does_not_heed_is_bounded():
    place = Place(publish_hold=100 * KiB, max_body=64 * KiB)
    blocking(place)
    app = place.app(heeds_pause=True)
    fill(place, app, "t", 0, 300, 40 * KiB)
    detach = only(place.detached())
    assert "wait" in detach.reason


def test_an_app_that_never_heard_of_pause_loses_and_is_told():
    place = Place(publish_hold=100 * KiB, max_body=64 * KiB)
    slow, app = blocking(place), place.app()
    fill(place, app, "t", 0, 300, 40 * KiB)
    assert place.detached() == []
    assert place.hear(app) == []
    heard = read(place, slow)
    place.say(app, Frame(Kind.FLUSH, id=1))
    done = only(place.hear(app))
    assert done.lost == lost(heard) == place.counters["dropped.publisher-did-not-wait"] > 0
    assert len(numbers(heard)) + lost(heard) == 300


def test_more_credit_than_was_sent_ends_the_stream():
    place = Place()
    slow = blocking(place)
    place.say(slow, Frame(Kind.CREDIT, id=1, count=1))
    assert only(place.detached()).status == "INVALID_ARGUMENT"


def test_subscriptions_of_one_app_share_what_it_may_hold():
    place = Place(app_backlog=2 * MiB)
    app = place.app()
    place.say(app, *[subscribe(2 * n + 1, "t", max_bytes=MiB, when_full=WhenFull.BLOCK) for n in range(100)])
    heard = kinds(place.hear(app))
    assert "ERROR" in heard
    assert heard[:10] == ["DONE"] * 10
    assert place.node.core.apps[app].reserved <= 2 * MiB
    place.say(app, Frame(Kind.UNSUBSCRIBE, id=1), subscribe(201, "t", max_bytes=MiB, when_full=WhenFull.BLOCK))
    assert kinds(place.hear(app)) == ["DONE", "DONE"]


def test_idle_credit_is_given_back_when_another_node_needs_it():
    one, two = pair()
    three = Place(3)
    link(one, three)
    link(two, three)
    slow = blocking(three, max_bytes=4 * KiB)
    first, second = one.app(heeds_pause=True), two.app(heeds_pause=True)
    one.say(first, publish("t", body(0, 10)))
    pump(one, two, three)
    two.say(second, *[publish("t", body(number, 1500)) for number in range(1, 20)])
    pump(one, two, three)
    heard = numbers(read(three, slow))
    assert heard == list(range(20))
    settled(one, two, three)


def test_a_flipping_subscription_leaves_nothing_behind():
    near, far = pair()
    app = near.app(heeds_pause=True)
    flips = far.app()
    for round in range(300):
        id = 2 * round + 1
        far.say(flips, subscribe(id, f"f.{round}", max_bytes=QUEUE, when_full=WhenFull.BLOCK))
        pump(near, far)
        near.say(app, *[publish(f"f.{round}", body(number)) for number in range(70)])
        pump(near, far)
        far.say(flips, Frame(Kind.UNSUBSCRIBE, id=id))
        pump(near, far)
        far.hear(flips)
        near.hear(app)
    settled(near, far)
    assert near.node._events.pacing.purses == {}
    assert len(far.node._events.lending) == 0
    assert near.node.core.apps[app].held == {}
    assert len(near.node.core.apps[app].told) <= 64


def test_a_subscription_that_comes_back_unnoticed_owes_nothing():
    """Its node forgets nothing it lent while the publishing node has not noticed that it was gone."""
    near, far = pair()
    slow, app = blocking(far), near.app(heeds_pause=True)
    fill(near, app, "t", 0, 10)
    far.say(slow, Frame(Kind.UNSUBSCRIBE, id=1), subscribe(3, "t", max_bytes=QUEUE, when_full=WhenFull.BLOCK))
    fill(near, app, "t", 10, 300)
    heard = [frame for frame in read(far, slow, id=3) if frame.id == 3]
    assert numbers(heard) == list(range(10, 300))
    assert lost(heard) == 0
    settled(near, far)


def test_ten_thousand_flips_wait_as_one_record():
    near, far = pair()
    app = far.app()
    for flip in range(10_000):
        far.say(app, subscribe(2 * flip + 1, "t", max_bytes=QUEUE, when_full=WhenFull.BLOCK))
        far.say(app, Frame(Kind.UNSUBSCRIBE, id=2 * flip + 1))
    outbox = far.node.core.peers[near.id].outbox
    assert outbox.urgent_bytes < 4 * KiB
    assert kinds(far.take(near.id, 1 << 20)) == ["RECORD"]
    assert len(far.node._events.lending) == 0


def test_many_topics_leave_nothing_behind():
    near, far = pair()
    slow, app = blocking(far, ">", max_bytes=MiB), near.app(heeds_pause=True)
    for number in range(100_000):
        near.say(app, publish(f"t.{number}", b""))
        if number % 1000 == 999:
            pump(near, far)
            read(far, slow)
            near.hear(app)
    assert numbers_of(near, app) == (0, 0)
    assert len(near.node._events.pacing.purses) == 1
    assert len(far.node._events.lending) == 1
    assert len(near.node.core.peers[far.id].outbox._flows) <= 1
    settled(near, far)


def numbers_of(place: Place, app: int) -> tuple[int, int]:
    held = place.node.core.apps[app]
    return len(held.held), held.held_bytes


def test_one_that_states_no_bound_is_refused_before_it_has_none():
    place = Place(app_backlog=32 * MiB)
    app, publisher = place.app(), place.app()
    place.say(app, *[subscribe(2 * n + 1, "t", group="g", max_bytes=0, when_full=WhenFull.BLOCK) for n in range(300)])
    heard = place.hear(app)
    assert {frame.kind for frame in heard} == {Kind.DONE, Kind.ERROR}
    assert min(each.queue.limit for each in place.node.core.apps[app].subscriptions.values() if each.queue) >= QUEUE
    place.say(publisher, *[publish("t", b"x") for _ in range(300)])
    assert len(bodies(place.hear(app))) == 300
