from __future__ import annotations

import pytest

from irisd.model import FEATURES, Claim, Frame, Kind, MiB, NodeRecord
from irisd.node.records import LONG
from irisd.registry import Match
from irisd.registry import registry as registry_module
from irisd.wire import decode_record, encode_claims
from tests.unit.node.house import Place, carry, cut, join, kinds, link, only, pair, publish, pump, request, subscribe


def record(*claims: Claim, version: int = 1, full: bool = False, more: bool = False) -> Frame:
    return Frame(Kind.RECORD, count=version, body=b"".join(encode_claims(claims)), full=full, more=more)


DB = Claim(1, cluster="db", patterns=31, slots=8)
PEER = b"\xff" * 16


def alone() -> Place:
    """A node with a link to a peer whose every frame the test writes."""
    place = Place(1)
    place.link_up(PEER)
    assert kinds(place.hear(PEER)) == ["RECORD"]
    return place


def test_a_new_link_tells_everything():
    place = Place(1)
    app = place.app()
    place.say(app, join(1), subscribe(3, "t"))
    place.link_up(PEER)
    frame = only(place.hear(PEER))
    assert (frame.kind, frame.full, frame.more, frame.count) == (Kind.RECORD, True, False, 2)
    said = decode_record(frame.body)
    assert said.claims == [Claim(1, cluster="db", patterns=31, slots=8), Claim(1, topic="t")]
    assert said.about == NodeRecord(b"", 1, "n1", "paris", "1.0")


def test_changes_are_told_at_once_and_acknowledged():
    near, far = pair()
    app = near.app()
    near.say(app, join(1))
    (change,) = carry(near, far)
    assert (change.kind, change.full, change.count) == (Kind.RECORD, False, 1)
    assert carry(far, near) == [Frame(Kind.RECORD_ACK, count=1)]
    assert near.node.core.peers[far.id].acknowledged == 1


def test_changes_that_wait_travel_together_ahead_of_data():
    near, far = pair()
    far.say(far.app(), subscribe(1, "t"))
    pump(near, far)
    app = near.app()
    near.say(app, *[publish("t", bytes(1000)) for _ in range(50)])
    near.say(app, join(1), join(3, "web"), subscribe(5, "u"))
    first = near.take(far.id, 1)
    assert kinds(first) == ["RECORD"]
    assert first[0].count == 3
    far.from_peer(near, *first)
    assert [name for name, _ in far.node.core.registry.clusters()] == ["db", "web"]
    near.say(app, Frame(Kind.LEAVE, id=1))
    pump(near, far)
    assert [name for name, _ in far.node.core.registry.clusters()] == ["web"]


def test_churn_behind_a_stalled_link_costs_little():
    near, far = pair()
    app = near.app()
    for n in range(5000):
        near.say(app, join(4 * n + 1), Frame(Kind.LEAVE, id=4 * n + 1))
        near.hear(app)
    assert near.node.core.peers[far.id].outbox.urgent_bytes < 200_000
    pump(near, far)
    assert far.node.core.registry.clusters() == []
    assert far.node.membership.view.present[near.id].version == near.node.core.record.version


def test_a_long_record_comes_in_pieces_and_counts_as_a_whole():
    near = Place(1)
    app = near.app()
    near.say(app, *[subscribe(2 * n + 1, f"a-rather-long-topic.{n}") for n in range(3000)])
    far = Place(2)
    near.link_up(far.id)
    far.link_up(near.id)
    pieces = near.hear(far.id)
    assert len(pieces) > 3
    assert [piece.full for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.more for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    for piece in pieces[:-1]:
        far.from_peer(near, piece)
        assert far.node.core.registry.topics() == {}  # not half of it: what would match the rest must not get lost
    far.from_peer(near, pieces[-1])
    assert len(far.node.core.registry.topics()) == 3000
    assert kinds(far.hear(near.id)) == ["RECORD", "RECORD_ACK"]


def test_what_is_published_while_a_record_comes_back_in_pieces_is_told():
    near, far = pair()
    there = far.app()
    far.say(there, *[subscribe(2 * n + 1, f"a-rather-long-topic.{n}") for n in range(3000)])
    pump(near, far)
    far.hear(there)
    app = near.app()
    near.link_down(far.id)
    far.link_down(near.id)
    near.link_up(far.id)
    far.link_up(near.id)
    pieces = far.hear(near.id)
    near.from_peer(far, *pieces[:2])
    near.say(app, publish("a-rather-long-topic.2999", b"x"))  # of a piece that has not come
    near.say(app, publish("a-rather-long-topic.0", b"x"))  # of one that has
    near.from_peer(far, *pieces[2:])
    pump(near, far)
    told = [(frame.id, frame.lost) for frame in far.hear(there)]
    assert sorted(told) == [(1, 1), (2 * 2999 + 1, 1)]


MANY = LONG + 1000


def long_records() -> tuple[Place, Place, int]:
    """Two places whose link is up, and the app of the first that has subscribed to very much; nothing was sent yet."""
    near, far = Place(1), Place(2)
    app = near.app()
    near.say(app, *[subscribe(2 * n + 1, f"t.{n}") for n in range(MANY)])
    near.hear(app)
    near.links[far.id], far.links[near.id] = far, near
    near.link_up(far.id, features=FEATURES, dialled=True)
    far.link_up(near.id, features=FEATURES, dialled=False)
    return near, far, app


def claimed(place: Place, by: Place) -> set[str]:
    return {claim.topic for claim in place.node.core.registry.claims(by.id)}


def test_a_long_record_is_encoded_as_it_leaves_and_what_changes_meanwhile_follows():
    near, far, app = long_records()
    outbox = near.node.core.peers[far.id].outbox
    assert outbox.urgent_bytes < 20_000
    carry(near, far, 1)
    near.say(app, Frame(Kind.UNSUBSCRIBE, id=1), Frame(Kind.UNSUBSCRIBE, id=2 * MANY - 1))
    near.say(app, subscribe(2 * MANY + 1, "new"), subscribe(2 * MANY + 3, "brief"))
    near.say(app, Frame(Kind.UNSUBSCRIBE, id=2 * MANY + 3))
    while carry(near, far, 1) and outbox:
        assert len(claimed(far, near)) in (0, MANY - 1)  # all at once; one that ended had not been told
    pump(near, far)
    assert claimed(far, near) == claimed(near, near) == {f"t.{n}" for n in range(1, MANY - 1)} | {"new"}
    version = far.node.membership.view.present[near.id].version
    assert version == near.node.core.record.version
    assert kinds(near.hear(app)) == ["DONE"] * 4  # the brief one ended before everybody knew


def test_a_long_record_replaces_the_one_before_at_once():
    near, far, app = long_records()
    pump(near, far)
    cut(near, far)
    near.say(app, *[Frame(Kind.UNSUBSCRIBE, id=2 * n + 1) for n in range(100)])
    near.links[far.id], far.links[near.id] = far, near
    near.link_up(far.id)
    far.link_up(near.id)
    publisher = far.app()
    carry(near, far, 1)
    assert far.node.core.registry.match("t.0").unreachable == ((near.id, ""),)  # what it says now is not known yet
    assert far.node.core.registry.match("t.200").unreachable == ((near.id, ""),)
    pump(near, far)
    assert far.node.core.registry.match("t.0") == Match((), {}, ())
    far.say(publisher, publish("t.200", b"x"))
    pump(near, far)
    assert [frame.id for frame in near.hear(app) if frame.kind == Kind.EVENT] == [401]
    far.wait(1.0)  # the old one is forgotten between other things
    assert not far.node.core.registry.retired
    assert len(far.node.core.registry._topics) == MANY - 100


def test_what_has_come_of_a_long_record_is_forgotten_with_its_link():
    near, far, _ = long_records()
    carry(near, far, 1)
    assert len(far.node.core.registry._topics) > 0
    cut(near, far, seconds=1.0)
    assert len(far.node.core.registry._topics) == 0
    assert not far.node.core.registry.retired


def test_a_long_record_begun_twice_counts_as_it_is_said_last():
    near, far, _ = long_records()
    pieces = near.hear(far.id)
    whole = [piece for piece in pieces if piece.kind == Kind.RECORD]
    far.from_peer(near, *whole[:2], *whole)
    assert len(claimed(far, near)) == MANY
    assert len(far.node.core.registry._topics) == MANY


def test_a_long_record_with_too_many_claims_ends_the_link(monkeypatch: pytest.MonkeyPatch):
    near, far, _ = long_records()
    monkeypatch.setattr(registry_module, "MAX_CLAIMS", MANY - 1)
    pump(near, far)
    assert "more than" in only(far.unlinked()).reason
    far.wait(1.0)
    assert len(far.node.core.registry._topics) == 0


def test_the_first_record_on_a_link_must_be_whole():
    place = alone()
    place.from_peer(PEER, record(DB))
    assert "whole" in only(place.unlinked()).reason
    assert place.node.core.peers == {}


def test_the_first_record_of_every_link_must_be_whole():
    """What was held of a node that could not be reached must not come back by a change."""
    place = alone()
    place.from_peer(PEER, record(DB, full=True))
    place.link_down(PEER)
    place.link_up(PEER)
    place.from_peer(PEER, record(Claim(1, cluster="web", patterns=31), version=2))
    assert only(place.unlinked())
    caller = place.app()
    for cluster in ("db", "web"):
        place.say(caller, request(1, cluster))
        assert only(place.hear(caller)).kind == Kind.ERROR


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x02\x08\x01", b"\x0a\xff"])
def test_a_record_that_cannot_be_read_ends_the_link(body: bytes):
    place = alone()
    place.from_peer(PEER, Frame(Kind.RECORD, full=True, count=1, body=body))
    assert only(place.unlinked()).peer == PEER


@pytest.mark.parametrize("more", [False, True])
def test_claims_of_one_node_are_bounded(monkeypatch: pytest.MonkeyPatch, more: bool):
    for module in (registry_module, __import__("irisd.node.records", fromlist=["x"])):
        monkeypatch.setattr(module, "MAX_CLAIMS", 10)
    place = alone()
    place.from_peer(PEER, record(*[Claim(1, cluster=f"c{n}") for n in range(11)], full=True, more=more))
    assert "more than 10 claims" in only(place.unlinked()).reason


def test_a_whole_record_in_the_middle_replaces():
    place = alone()
    place.from_peer(PEER, record(DB, full=True), record(Claim(1, cluster="web"), version=2, full=True))
    assert [name for name, _ in place.node.core.registry.clusters()] == ["web"]
    place.from_peer(PEER, record(DB, version=3), record(Claim(0, cluster="web"), version=4))
    assert [name for name, _ in place.node.core.registry.clusters()] == ["db"]
    assert kinds(place.hear(PEER)) == ["RECORD_ACK"] * 4


def test_a_peer_that_is_gone_serves_nothing_until_it_is_back():
    near, far = pair()
    far.serving()
    assert near.node.core.registry.clusters()
    near.link_down(far.id)
    assert near.node.core.registry.clusters() == []
    near.link_up(far.id)
    assert near.node.core.registry.clusters() == []  # routable once its record is here
    far.link_down(near.id)
    far.link_up(near.id)
    pump(near, far)
    assert near.node.core.registry.clusters()


def test_a_newer_link_replaces_the_older():
    near, far = pair()
    member, caller = far.serving(), near.app()
    near.say(caller, request(1))
    near.link_up(far.id)
    assert only(near.hear(caller)).kind == Kind.ERROR  # what was with the older link is lost
    far.link_up(near.id)
    pump(near, far)
    near.say(caller, request(3))
    pump(near, far)
    assert only(far.hear(member)).kind == Kind.REQUEST
    assert only(near.take(far.id, MiB) or [Frame(Kind.DONE)]).kind == Kind.DONE


def test_joins_wait_for_those_linked_and_acknowledgements_count_up_to_their_version():
    one, two, three = Place(1), Place(2), Place(3)
    link(one, two)
    link(one, three)
    app = one.app()
    one.say(app, join(1))
    pump(one, two)
    assert one.hear(app) == []
    one.take(three.id, MiB)
    one.say(app, join(3, "web"))
    one.from_peer(three, Frame(Kind.RECORD_ACK, count=1))
    assert [frame.id for frame in one.hear(app)] == [1]
    one.from_peer(two, Frame(Kind.RECORD_ACK, count=2))
    one.from_peer(three, Frame(Kind.RECORD_ACK, count=2))
    assert [frame.id for frame in one.hear(app)] == [3]
