"""Watches: the picture, what changes, whom it concerns, and what a slow watcher loses."""

from __future__ import annotations

import pytest

from irisd.model import Change, Claim, Code, Frame, KiB, Kind
from irisd.node.watches import MAX_RECENT, QUEUE_BYTES
from irisd.wire import encode_claims
from tests.unit.node.house import NO, Place, cut, failure, join, kinds, link, meet, only, pair, pump, subscribe


def watch(id: int = 1, cluster: str = "") -> Frame:
    return Frame(Kind.WATCH, id=id, address=cluster)


def watcher(place: Place, cluster: str = "") -> int:
    """An app that watches, under id 1, and has seen the picture."""
    app = place.app("watcher")
    place.say(app, watch(cluster=cluster))
    assert kinds(place.hear(app))[-1] == "DONE"
    return app


def told(frames: list[Frame]) -> list[tuple[str, str, int]]:
    """What CHANGE frames say: (node, cluster or state, members)."""
    assert {frame.kind for frame in frames} <= {Kind.CHANGE}
    return [(frame.member, frame.address or frame.reason, frame.count) for frame in frames]


def leave(id: int = 1) -> Frame:
    return Frame(Kind.LEAVE, id=id)


# -- the picture


def test_the_picture_comes_first_and_is_counted():
    near, far = pair()
    near.serving("db"), near.serving("db"), far.serving("db"), far.serving("web")
    pump(near, far)
    app = near.app()
    near.say(app, watch(7))
    *picture, done = near.hear(app)
    assert told(picture) == [
        ("n1", "self", 0),
        ("n2", "alive", 0),
        ("n1", "db", 2),
        ("n2", "db", 1),
        ("n2", "web", 1),
    ]
    assert all(frame.more and frame.id == 7 and not frame.lost for frame in picture)
    assert [frame.node for frame in picture[:2]] == [near.id.hex(), far.id.hex()]
    assert [frame.reason for frame in picture[2:]] == ["self", "alive", "alive"]
    assert (done.kind, done.id, done.count) == (Kind.DONE, 7, 5)


def test_the_picture_of_a_cluster_holds_the_nodes_that_serve_it():
    near, far = pair()
    far.serving("web")
    pump(near, far)
    app = near.app()
    near.say(app, watch(1, "web"), watch(3, "nobody"))
    frames = near.hear(app)
    assert told(frames[:2]) == [("n2", "alive", 0), ("n2", "web", 1)]
    assert [(frame.kind, frame.id, frame.count) for frame in frames[2:]] == [(Kind.DONE, 1, 2), (Kind.DONE, 3, 0)]


def test_a_picture_larger_than_the_queue_is_whole():
    near, third = Place(1), b"\x03" * 16
    near.link_up(third)
    claims = [Claim(1, cluster=f"c{n}", patterns=1) for n in range(6000)]
    for at, piece in enumerate(pieces := encode_claims(claims)):
        near.from_peer(third, Frame(Kind.RECORD, count=1, full=at == 0, more=at < len(pieces) - 1, body=piece))
    app = near.app()
    near.say(app, watch())
    server = near.app()
    for id in range(1, 40, 2):  # changes, while nothing of the picture has left
        near.say(server, join(id), leave(id))
    heard = near.hear(app)
    at = kinds(heard).index("DONE")
    assert at == heard[at].count == 6002
    assert all(frame.more for frame in heard[:at])
    assert len(heard) - at - 1 == 40
    assert QUEUE_BYTES < 6002 * 256


# -- changes


def test_members_come_and_go_on_both_nodes():
    near, far = pair()
    app = watcher(near)
    here = near.serving("db")
    assert told(near.hear(app)) == [("n1", "db", 1)]
    there = far.serving("db")
    frame = only(near.hear(app))
    assert (frame.member, frame.node, frame.reason, frame.address, frame.count) == (
        "n2",
        far.id.hex(),
        "alive",
        "db",
        1,
    )
    assert not frame.more
    near.serving("db")
    near.say(here, leave())
    far.gone(there)
    pump(near, far)
    assert told(near.hear(app)) == [("n1", "db", 2), ("n1", "db", 1), ("n2", "db", 0)]


def test_what_others_claim_besides_is_no_change():
    near, far = pair()
    app = watcher(near)
    far.serving("db", patterns=1)
    near.hear(app)
    one = far.app()
    far.say(one, subscribe(1, "orders.*"), join(3, "web", patterns=1))
    pump(near, far)
    assert told(near.hear(app)) == [("n2", "web", 1)]
    near.from_peer(far, Frame(Kind.RECORD, count=9, body=encode_claims([Claim(1, cluster="web", patterns=3)])[0]))
    assert near.hear(app) == []


def test_a_link_that_breaks_takes_the_members_along_after_the_node():
    near, far = pair()
    far.serving("db"), far.serving("web")
    app = watcher(near)
    cut(near, far)
    heard = near.hear(app)
    assert told(heard) == [("n2", "suspect", 0), ("n2", "db", 0), ("n2", "web", 0)]
    assert [frame.detail for frame in heard] == ["test"] * 3
    link(near, far)
    assert told(near.hear(app)) == [("n2", "alive", 0), ("n2", "db", 1), ("n2", "web", 1)]
    near.link_down(far.id, left=True)
    assert told(near.hear(app)) == [("n2", "left", 0), ("n2", "db", 0), ("n2", "web", 0)]


def test_a_node_whose_link_stays_away_is_dead():
    near, far = pair()
    app = watcher(near)
    cut(near, far)
    near.hear(app)
    near.wait(100)
    assert told(near.hear(app)) == [("n2", "dead", 0)]


def test_a_whole_record_tells_what_is_no_longer_in_it():
    near = Place(1)
    app, third = watcher(near), b"\x03" * 16

    def record(*claims: Claim, version: int = 1) -> Frame:
        return Frame(Kind.RECORD, count=version, full=True, body=b"".join(encode_claims(list(claims))))

    near.link_up(third)
    near.from_peer(third, record(Claim(2, cluster="db", patterns=1), Claim(1, cluster="web", patterns=1)))
    near.from_peer(third, record(Claim(2, cluster="web", patterns=1), version=2))
    assert told(near.hear(app)) == [
        ("n3", "alive", 0),
        ("n3", "db", 2),
        ("n3", "web", 1),
        ("n3", "web", 2),
        ("n3", "db", 0),
    ]


def test_a_watch_of_a_cluster_hears_of_no_other():
    near, far = pair()
    app = watcher(near, "db")
    near.serving("web"), far.serving("web")
    assert near.hear(app) == []
    server = far.serving("db")
    assert told(near.hear(app)) == [("n2", "db", 1)]
    far.gone(server)
    pump(near, far)
    cut(near, far)  # it served a moment ago
    assert told(near.hear(app)) == [("n2", "db", 0), ("n2", "suspect", 0)]
    third = Place(3)
    link(near, third)
    cut(near, third)  # never served it
    assert near.hear(app) == []


def test_states_come_from_whoever_decides_them():
    near, far = pair()
    far.serving("db")
    app, everything = watcher(near, "db"), watcher(near)
    change = near.node.core.changed
    change(Change(far.id, "n2", "suspect", reason="no heartbeat for 3 s"))
    assert told(near.hear(app)) == [("n2", "suspect", 0)]  # still reachable: its members stay
    change(Change(far.id, "n2", "dead", reason="x" * 1000))
    heard = near.hear(app)
    assert told(heard) == [("n2", "dead", 0), ("n2", "db", 0)]  # whatever the registry still holds
    assert {len(frame.detail) for frame in heard} == {200}
    change(Change(b"\x09" * 16, "n9", "joining"))
    assert near.hear(app) == []
    assert told(near.hear(everything))[-1] == ("n9", "joining", 0)
    late = near.app()
    near.say(late, watch())  # the registry still holds the dead node's claim: nothing breaks
    assert kinds(near.hear(late))[-1] == "DONE"


def test_claims_of_a_node_nobody_has_told_of():
    near = Place(1)
    app, stranger = watcher(near), b"\x09" * 16
    core = near.node.core
    claim = Claim(1, cluster="db", patterns=1)
    core.registry.learn(stranger, [claim])
    core.registry.routable(stranger, True)
    core.claimed(stranger, [claim], True)
    assert told(near.hear(app)) == [(stranger.hex()[:6], "db", 1)]


def test_what_was_served_a_moment_ago_is_bounded():
    near = Place(1)
    watcher(near)
    app = near.app()
    for n in range(MAX_RECENT * 3):
        near.say(app, join(2 * n + 1, f"c{n}"), leave(2 * n + 1))
    assert len(near.node._watches._nodes[near.id].recent) == MAX_RECENT


def test_nothing_is_remembered_while_nobody_watches():
    near, far = pair()
    far.serving("db")
    one, other = watcher(near), watcher(near, "db")
    assert near.node._watches._nodes
    near.gone(one)
    near.say(other, Frame(Kind.UNSUBSCRIBE, id=1))
    far.serving("db")
    assert not near.node._watches._nodes
    assert not near.node._watches._watching
    assert only(near.hear(other)).kind == Kind.DONE


# -- ends and mistakes


def test_unsubscribe_ends_it():
    place = Place()
    app = place.app()
    place.say(app, watch(5))
    place.say(app, Frame(Kind.UNSUBSCRIBE, id=5))
    done = only(place.hear(app))  # what waited is dropped
    assert (done.kind, done.id, done.count) == (Kind.DONE, 5, 0)
    assert place.counters["dropped.unsubscribed"] == 2
    place.serving("db")
    assert place.hear(app) == []
    place.say(app, Frame(Kind.UNSUBSCRIBE, id=5))  # again is ordinary
    assert place.hear(app) == []
    assert place.quiet()


def test_an_app_that_goes_takes_its_watches_along():
    place = Place()
    app = watcher(place)
    place.say(app, watch(3, "db"), join(5, "db"))
    place.gone(app)
    assert not place.node._watches._watching


@pytest.mark.parametrize("name", ["bad name", "_iris.x", "a..b", "*", "shop/db", "db@rome", "x" * 201])
def test_bad_names_are_refused(name: str):
    place = Place()
    app = place.app()
    place.say(app, watch(1, name))
    assert failure(place.hear(app)) == (Code.INVALID, NO)


def test_watches_count_like_joins_and_subscriptions():
    place = Place(max_claims=3)
    app = place.app()
    place.say(app, watch(1), join(3, "db"), subscribe(5, "t"))
    place.hear(app)
    place.say(app, watch(7))
    assert failure(place.hear(app)) == (Code.OVERLOADED, NO)
    place.say(app, subscribe(9, "u"))
    assert failure(place.hear(app)) == (Code.OVERLOADED, NO)
    place.say(app, Frame(Kind.UNSUBSCRIBE, id=1), watch(11, "db"))
    assert kinds(place.hear(app)) == ["DONE", "CHANGE", "CHANGE", "DONE"]


@pytest.mark.parametrize("frame", [watch(1), watch(2), watch(0), join(1), subscribe(1, "t")])
def test_ids_are_new_and_odd(frame: Frame):
    place = Place()
    app = watcher(place)
    place.say(app, frame)
    assert only(place.detached()).status == "INVALID_ARGUMENT"


def test_a_daemon_or_app_that_leaves_takes_no_new_watch():
    place = Place()
    app, leaving = watcher(place), place.app()
    place.say(leaving, Frame(Kind.GOODBYE), watch(1))
    assert failure(place.hear(leaving)) == (Code.MEMBER_LOST, NO)
    place.drain()
    assert kinds(place.hear(app)) == ["GOODBYE"]
    place.say(app, watch(3))
    assert failure(place.hear(app)) == (Code.MEMBER_LOST, NO)


# -- slow watchers


def churn(place: Place, app: int, times: int, start: int = 1) -> None:
    for id in range(start, start + 2 * times, 2):
        place.say(app, join(id), leave(id))
        place.hear(app)


def test_a_slow_watcher_loses_the_oldest_and_is_told():
    place = Place()
    slow, quick, server = watcher(place), watcher(place), place.app()
    count = 0
    for start in range(1, 6001, 2000):
        churn(place, server, 1000, start)
        count += len(place.hear(quick))
    assert count == 6000
    assert place.node.core.apps[slow].outbox.bytes <= QUEUE_BYTES + 3 * KiB
    heard = place.hear(slow)
    assert len(heard) + sum(frame.lost for frame in heard) == 6000
    assert heard[0].lost > 0
    assert not any(frame.lost for frame in heard[1:])
    assert told(heard)[-1] == ("n1", "db", 0)
    assert place.counters["dropped.watch-full"] == heard[0].lost


def test_losses_nothing_follows_are_told_by_a_change_without_a_node():
    place = Place(app_backlog=20_000)
    app = watcher(place)
    place.say(app, subscribe(3, "t"))
    place.hear(app)
    other = place.app()
    place.say(other, Frame(Kind.PUBLISH, address="t", body=bytes(19_900)))  # fills what may wait for the app
    server = place.app()
    churn(place, server, 2)
    heard = [frame for frame in place.hear(app) if frame.kind != Kind.EVENT]
    notice = only(heard)
    assert (notice.kind, notice.id, notice.lost, notice.node, notice.more) == (Kind.CHANGE, 1, 4, "", False)


def test_a_picture_that_does_not_fit_is_refused():
    place = Place(app_backlog=20_000)
    app, other = place.app(), place.app()
    place.say(app, subscribe(1, "t"))
    place.say(other, Frame(Kind.PUBLISH, address="t", body=bytes(19_600)))
    place.hear(app, 1)
    place.say(other, Frame(Kind.PUBLISH, address="t", body=bytes(19_600)))
    place.say(app, watch(3))
    assert Code.OVERLOADED in [frame.code for frame in place.hear(app)]
    assert not place.node._watches._nodes


def test_a_node_that_dies_with_its_link_is_not_remembered():
    one, other = Place(1), Place(2)
    meet(one, other)
    other.serving("db")
    app = watcher(one)
    one.wait(5.0)
    assert ("n2", "dead", 0) in told(one.hear(app))
    one.link_down(other.id)
    one.wait(120.0)
    assert list(one.node._watches._nodes) == [one.id]
