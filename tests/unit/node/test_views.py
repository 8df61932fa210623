"""What nodes tell each other of others: one seed suffices, what was missed comes, what is wrong is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from irisd.effects import Cause, Fact
from irisd.model import FEATURES, LARGE, Claim, Frame, Kind, NodeRecord, State
from irisd.wire import (
    Belief,
    Held,
    Saying,
    decode_beliefs,
    decode_record,
    decode_view,
    decode_want,
    encode_beliefs,
    encode_record,
    encode_view,
    encode_want,
)
from tests.unit.node.house import (
    Place,
    address_of,
    carry,
    cut,
    join,
    kinds,
    link,
    meet,
    only,
    pair,
    publish,
    pump,
    request,
    subscribe,
    together,
)

PEER, OTHER = b"\xff" * 16, b"\xee" * 16
DB = Claim(1, cluster="db", patterns=31, slots=8)


def state(place: Place, of: Place | bytes) -> State | None:
    return place.node.membership.state(of.id if isinstance(of, Place) else of)


def clusters(place: Place) -> list[str]:
    return [name for name, _ in place.node.core.registry.clusters()]


def claims(place: Place, of: Place | bytes) -> list[Claim]:
    return list(place.node.core.registry.claims(of.id if isinstance(of, Place) else of))


def placed(number: int, **settings: Any) -> Place:
    """A place that says where it can be dialled."""
    place = Place(number, **settings)
    place.node.set_addresses((address_of(place.id),), place.now)
    return place


def hearsay(node: bytes, *made: Claim, version: int = 1, base: int = 0, incarnation: int = 1, full: bool = True):
    about = NodeRecord(node, incarnation, f"n{node[0]}", addresses=(address_of(node),)) if incarnation else None
    (body,) = encode_record(made, node=node, base=base, about=about)
    return Frame(Kind.HEARSAY, count=version, body=body, full=full)


def record(*made: Claim, version: int = 0, incarnation: int = 1) -> Frame:
    (body,) = encode_record(made, about=NodeRecord(b"", incarnation, "peer"))
    return Frame(Kind.RECORD, count=version, body=body, full=True)


def alone(**settings: Any) -> Place:
    """A node of this release with a link to a peer whose every frame the test writes."""
    place = Place(1, **settings)
    place.link_up(PEER, features=FEATURES, dialled=False)
    place.from_peer(PEER, record())
    assert kinds(place.hear(PEER)) == ["RECORD", "RECORD_ACK"]
    place.effects.clear()
    return place


def beliefs(*some: Belief) -> Frame:
    (body,) = encode_beliefs(some)
    return Frame(Kind.BELIEFS, body=body)


# -- one seed suffices


def test_one_seed_suffices():
    a, b, c = placed(1), placed(2), placed(3)
    meet(b, c)
    meet(a, b)
    together(2.5, a, b, c)
    assert a.found() == [c.id]
    assert c.found() == [b.id, a.id]  # it did not dial b: the record says where to, next time
    assert state(a, c) is state(c, a) is State.JOINING
    assert a.node.membership.view.present[c.id].record.addresses == (address_of(c.id),)
    meet(a, c)
    together(3.0, a, b, c)
    assert state(a, c) is state(c, a) is State.ALIVE
    assert len({place.node.membership.view.digest for place in (a, b, c)}) == 1


def test_claims_heard_of_are_routable_only_over_a_link():
    a, b, c = placed(1), placed(2), placed(3)
    meet(b, c)
    c.serving("db")
    meet(a, b)
    together(2.5, a, b, c)
    assert claims(a, c) == [replace(DB, patterns=31 | LARGE)]
    assert clusters(a) == []
    meet(a, c)
    assert clusters(a) == ["db"]


def test_it_is_settled_once_all_it_heard_of_have_been_linked():
    a, b, c = Place(1, settle=True), placed(2), placed(3)
    meet(b, c)
    a.node.attach(7, Frame(Kind.HELLO, member="early"), a.now)
    meet(a, b)
    assert a.hear(7) == []
    meet(a, c)
    together(0.9, a, b, c)
    assert kinds(a.hear(7)) == ["WELCOME"]


def test_it_is_not_settled_before_the_records_of_all_it_is_linked_with_are_here():
    a, b = Place(1, settle=True), placed(2)
    a.node.attach(7, Frame(Kind.HELLO, member="early"), a.now)
    a.link_up(OTHER, features=FEATURES, dialled=False)
    meet(a, b)
    together(0.9, a, b)
    assert a.hear(7) == []
    a.from_peer(OTHER, record(DB))
    assert kinds(a.hear(7)) == ["WELCOME"]
    assert clusters(a) == ["db"]


# -- anti-entropy


def test_a_lost_change_is_found_out_by_the_digest():
    a, b, c = placed(1), placed(2), placed(3)
    for one, other in ((a, b), (b, c), (a, c)):
        meet(one, other)
    app = c.app()
    c.say(app, join(1))
    carry(c, b)
    c.take(a.id, 1 << 20)  # never arrives
    assert claims(a, c) == []
    together(2.5, a, b, c)
    assert claims(a, c) == [DB]
    assert len({place.node.membership.view.digest for place in (a, b, c)}) == 1


def test_what_the_answering_side_lacks_comes_too():
    """Only the side that dialled opens an exchange; both end up with all."""
    a, b = Place(1), Place(2)
    meet(a, b)
    for place, node in ((a, PEER), (b, OTHER)):
        place.link_up(node, features=FEATURES, dialled=False)
        place.from_peer(node, record(DB))
        place.effects.clear()
    together(2.5, a, b)
    assert claims(a, OTHER) == claims(b, PEER) == [DB]


def test_in_step_nothing_is_exchanged():
    a, b = Place(1), Place(2)
    meet(a, b)
    together(1.0, a, b)
    said: list[str] = []
    for _ in range(50):
        together(0.2, a, b)
        said += kinds(a.hear(b.id)) + kinds(b.hear(a.id))
    assert said == []


def test_a_view_is_answered_with_what_is_lacking_and_asked_for_what_is_not_here():
    place = alone()
    place.from_peer(PEER, hearsay(OTHER, DB, version=3))
    place.hear(PEER)
    mine = place.id
    held = [Held(mine, 1, 0), Held(b"\x07" * 16, 1, 1), Held(OTHER, 1, 2)]
    (body,) = encode_view(held, [mine[0], 7, OTHER[0], PEER[0]])
    place.from_peer(PEER, Frame(Kind.VIEW, body=body))
    first, second, third = place.hear(PEER)
    assert (first.kind, first.full, first.count) == (Kind.HEARSAY, True, 3)
    assert decode_record(first.body).node == OTHER
    assert second.kind == Kind.SYNCED
    assert decode_want(third.body) == [b"\x07" * 16]


def test_only_buckets_that_are_named_are_looked_at():
    place = alone()
    place.from_peer(PEER, hearsay(OTHER, DB, version=3))
    (body,) = encode_view([], [7])
    place.from_peer(PEER, Frame(Kind.VIEW, body=body))
    assert kinds(place.hear(PEER)) == ["SYNCED"]


def test_a_view_that_holds_the_dead_is_told_so():
    place = alone()
    place.from_peer(PEER, hearsay(OTHER))
    place.from_peer(PEER, beliefs(Belief(OTHER, 1, Saying.DEAD)))
    place.hear(PEER)
    (body,) = encode_view([Held(OTHER, 1, 9)], [OTHER[0]])
    place.from_peer(PEER, Frame(Kind.VIEW, body=body))
    told, synced = place.hear(PEER)
    assert decode_beliefs(told.body) == [Belief(OTHER, 1, Saying.DEAD)]
    assert synced.kind == Kind.SYNCED
    (body,) = encode_view([Held(OTHER, 2, 0)], [OTHER[0]])
    place.from_peer(PEER, Frame(Kind.VIEW, body=body))
    assert decode_want(place.hear(PEER)[-1].body) == [OTHER]  # it is back


def test_wanted_records_are_sent_whole_and_strangers_left_out():
    place = alone()
    place.from_peer(PEER, hearsay(OTHER, DB, version=3))
    (body,) = encode_want([b"\x07" * 16, OTHER, place.id])
    place.from_peer(PEER, Frame(Kind.WANT, body=body))
    theirs, own, synced = place.hear(PEER)
    assert decode_record(theirs.body).claims == [DB]
    assert decode_record(own.body).node == place.id
    assert synced.kind == Kind.SYNCED


def test_a_node_that_is_wrongly_taken_for_gone_by_a_linked_peer_is_told_in_the_end():
    a, b = Place(1), Place(2)
    meet(a, b)
    together(2.0, a, b)
    a.link_up(PEER, features=FEATURES, dialled=False)
    a.from_peer(PEER, record(), beliefs(Belief(b.id, 1, Saying.LEFT)))
    together(5.0, a, b)
    assert state(a, b) is State.ALIVE
    assert a.node.membership.view.present[b.id].record.incarnation > 1


def test_the_same_if_the_other_side_dialled():
    a, b = Place(1), Place(2)
    meet(b, a)
    together(2.0, a, b)
    a.link_up(PEER, features=FEATURES, dialled=False)
    a.from_peer(PEER, record(), beliefs(Belief(b.id, 1, Saying.LEFT)))
    together(5.0, a, b)
    assert state(a, b) is State.ALIVE


# -- hearsay


def test_a_change_whose_base_is_not_held_leads_to_one_want_an_interval():
    place = alone()
    place.from_peer(PEER, hearsay(OTHER, DB, version=3))
    place.hear(PEER)
    web = Claim(1, cluster="web", patterns=31)
    for version in (6, 7, 8):
        place.from_peer(PEER, hearsay(OTHER, web, version=version, base=version - 1, incarnation=0, full=False))
    want = only(place.hear(PEER))
    assert (want.kind, decode_want(want.body)) == (Kind.WANT, [OTHER])
    assert claims(place, OTHER) == [DB]
    place.wait(1.1)
    place.from_peer(PEER, hearsay(OTHER, web, version=9, base=8, incarnation=0, full=False))
    assert kinds(place.hear(PEER)) == ["WANT"]
    place.from_peer(PEER, hearsay(OTHER, DB, web, version=9))
    assert claims(place, OTHER) == [DB, web]


def test_a_change_that_builds_on_what_is_held_is_taken_in():
    place = alone()
    place.from_peer(PEER, hearsay(OTHER, DB, version=3))
    gone = Claim(0, cluster="db")
    place.from_peer(PEER, hearsay(OTHER, gone, version=4, base=3, incarnation=0, full=False))
    assert claims(place, OTHER) == []
    assert place.node.membership.view.present[OTHER].version == 4
    assert place.hear(PEER) == []


def test_a_record_of_somebody_unknown_that_is_not_whole_is_wanted():
    place = alone()
    place.from_peer(PEER, hearsay(OTHER, DB, version=3, base=2, full=False))
    assert kinds(place.hear(PEER)) == ["WANT"]
    assert state(place, OTHER) is None


def test_hearsay_in_pieces_counts_as_a_whole():
    long = [Claim(1, topic=f"a-rather-long-topic.{n}") for n in range(3000)]
    pieces = encode_record(long, node=OTHER, about=NodeRecord(OTHER, 1, "other"))
    assert len(pieces) > 3
    place = alone()
    for at, piece in enumerate(pieces):
        assert state(place, OTHER) is None
        assert claims(place, OTHER) == []
        frame = Frame(Kind.HEARSAY, count=5, body=piece, full=at == 0, more=at < len(pieces) - 1)
        place.from_peer(PEER, frame)
    assert claims(place, OTHER) == long
    assert state(place, OTHER) is State.JOINING
    (body,) = encode_want([OTHER])
    place.from_peer(PEER, Frame(Kind.WANT, body=body))
    *sent, synced = place.hear(PEER)
    assert [frame.full for frame in sent] == [True] + [False] * (len(sent) - 1)
    assert [frame.more for frame in sent] == [True] * (len(sent) - 1) + [False]
    assert synced.kind == Kind.SYNCED


def test_pieces_of_the_peers_own_record_and_of_hearsay_may_alternate():
    own = encode_record([Claim(1, topic=f"a-rather-long-topic.{n}") for n in range(900)], base=0)
    other = encode_record(
        [Claim(1, topic=f"b-rather-long-topic.{n}") for n in range(900)], node=OTHER, about=NodeRecord(OTHER, 1, "o")
    )
    assert len(own) == len(other) == 2
    place = alone()
    for at in (0, 1):
        for kind, pieces, version in ((Kind.RECORD, own, 1), (Kind.HEARSAY, other, 5)):
            place.from_peer(PEER, Frame(kind, count=version, body=pieces[at], full=at == 0, more=at == 0))
    assert [len(claims(place, node)) for node in (PEER, OTHER)] == [900, 900]


def test_a_link_that_ends_between_two_pieces_leaves_nothing():
    pieces = encode_record(
        [Claim(1, topic=f"a-rather-long-topic.{n}") for n in range(900)], node=OTHER, about=NodeRecord(OTHER, 1, "o")
    )
    place = alone()
    place.from_peer(PEER, Frame(Kind.HEARSAY, count=5, body=pieces[0], full=True, more=True))
    place.link_down(PEER)
    place.link_up(PEER, features=FEATURES, dialled=False)
    place.from_peer(PEER, record(), Frame(Kind.HEARSAY, count=5, body=pieces[1]))
    assert "of whom" in only(place.unlinked()).reason
    assert claims(place, OTHER) == []


@pytest.mark.parametrize("incarnation", [1, 2])
def test_only_a_newer_incarnation_brings_back_who_is_gone(incarnation: int):
    place = alone()
    place.from_peer(PEER, hearsay(OTHER, DB, version=3), beliefs(Belief(OTHER, 1, Saying.LEFT)))
    assert (state(place, OTHER), claims(place, OTHER)) == (State.LEFT, [])
    place.hear(PEER)
    place.from_peer(PEER, hearsay(OTHER, DB, version=9, incarnation=incarnation))
    if incarnation == 1:
        told = only(place.hear(PEER))
        assert decode_beliefs(told.body) == [Belief(OTHER, 1, Saying.LEFT)]
        assert claims(place, OTHER) == []
    else:
        assert state(place, OTHER) is State.JOINING
        assert claims(place, OTHER) == [DB]


def test_a_record_from_the_future_is_dropped_by_name():
    place = alone()
    place.from_peer(PEER, hearsay(OTHER, version=3), hearsay(OTHER, DB, version=4, incarnation=1 << 40))
    assert place.counters["dropped.record-from-the-future"] == 1
    assert claims(place, OTHER) == []
    assert place.node.membership.view.present[OTHER].record.incarnation == 1


def test_nobody_else_writes_this_nodes_record():
    place = alone()
    place.say(place.app(), join(1))
    place.hear(PEER)
    place.from_peer(PEER, hearsay(place.id, Claim(1, cluster="evil", patterns=31), version=99))
    assert clusters(place) == ["db"]
    assert place.counters["dropped.record-of-ours"] == 1
    outbid = only(place.hear(PEER))
    about = decode_record(outbid.body).about
    assert outbid.kind == Kind.RECORD and about is not None
    assert about.incarnation == 2
    for _ in range(100):  # it does not let itself be driven
        place.from_peer(PEER, hearsay(place.id, version=99, incarnation=5))
    assert place.hear(PEER) == []


# -- beliefs


def test_a_node_that_is_taken_for_dead_says_that_it_is_not():
    a, b = Place(1), Place(2)
    meet(a, b)
    b.from_peer(a, beliefs(Belief(b.id, 1, Saying.DEAD)))
    pump(a, b)
    assert a.node.membership.view.present[b.id].record.incarnation == 2
    assert "node.refuted" in [fact.event for fact in b.effects_of(Fact)]


def test_a_refutation_comes_back_whole_from_the_dead():
    """It was dead at A and kept its link: its next incarnation comes as a change, which A cannot build on."""
    a, b = Place(1), Place(2)
    b.serving("db")
    meet(a, b)
    cut(a, b)
    a.wait(5.0)
    b.now = a.now
    assert (state(a, b), clusters(a)) == (State.DEAD, [])
    meet(a, b)
    together(3.0, a, b)
    assert (state(a, b), clusters(a)) == (State.ALIVE, ["db"])
    assert a.node.membership.view.digest == b.node.membership.view.digest


def test_a_silent_peer_is_unlinked_and_then_dead():
    a, b = Place(1), Place(2)
    meet(a, b)
    a.effects.clear()
    a.wait(5.0)
    assert state(a, b) is State.DEAD
    assert {unlink.cause for unlink in a.unlinked()} == {Cause.SILENT}


def test_a_dead_nodes_losses_are_counted_for_a_while_and_then_it_is_forgotten():
    a, b = Place(1, lost_peer_memory=20.0), Place(2)
    b.say(b.app(), subscribe(1, "t"))
    meet(a, b)
    cut(a, b)
    a.wait(10.0)
    assert state(a, b) is State.DEAD
    assert claims(a, b)
    a.wait(15.0)
    assert claims(a, b) == []
    assert b.id not in a.node.core.ledgers


# -- suspects


def serving_peers(place: Place, *nodes: bytes) -> int:
    for node in nodes:
        place.link_up(node, features=FEATURES, dialled=False)
        place.from_peer(node, record(DB, NEWS))
        place.hear(node)
    return place.app()


NEWS = Claim(1, topic="news", group="g")


def asked_of(place: Place, node: bytes) -> list[str]:
    return [name for name in kinds(place.hear(node)) if name in ("REQUEST", "PUBLISH")]


def suspect(place: Place, silent: bytes, *heard: bytes) -> None:
    """All but one are heard for a while."""
    for _ in range(16):
        place.wait(0.2)
        for node in heard:
            place.from_peer(node, Frame(Kind.SYNCED))
    assert state(place, silent) is State.SUSPECT
    place.hear(silent)


def test_a_suspect_is_chosen_only_when_nobody_else_remains():
    place = Place(1)
    app = serving_peers(place, PEER, OTHER)
    suspect(place, PEER, OTHER)
    for n in range(10):
        place.say(app, request(2 * n + 1), publish("news", b"x"))
    assert (asked_of(place, PEER), len(asked_of(place, OTHER))) == ([], 20)
    place.link_down(OTHER, left=True)
    place.hear(app)
    place.say(app, request(101), publish("news", b"x"))
    assert sorted(asked_of(place, PEER)) == ["PUBLISH", "REQUEST"]


def test_a_suspect_that_is_heard_is_as_good_as_any():
    place = Place(1)
    app = serving_peers(place, PEER, OTHER)
    suspect(place, PEER, OTHER)
    place.from_peer(PEER, Frame(Kind.SYNCED))
    for n in range(10):
        place.say(app, request(2 * n + 1))
    assert len(asked_of(place, PEER)) == 5
    assert place.node.core.suspects == set()


def test_whoever_dies_is_no_suspect_any_more():
    place = Place(1)
    serving_peers(place, PEER)
    place.link_down(PEER)
    assert place.node.core.suspects == {PEER}
    place.wait(5.0)
    assert place.node.core.suspects == set()


# -- first release


def test_a_first_release_peer_hears_nothing_it_would_not_understand():
    a, b = Place(1), Place(2)
    meet(a, b)
    a.link_up(PEER, features=0, dialled=True)
    (first,) = encode_record([DB])
    a.from_peer(PEER, Frame(Kind.RECORD, count=4, full=True, body=b"\x0a\x08\x08\x01\x18\x1f\x12\x02db"))
    assert first
    b.say(b.app(), join(1, "web"))
    pump(a, b)
    a.from_peer(b, beliefs(Belief(PEER, 1, Saying.DEAD)))
    a.link_down(b.id, left=True)
    together(2.0, a)
    assert set(kinds(a.hear(PEER))) <= {"RECORD", "RECORD_ACK"}


def test_changes_of_a_first_release_peer_count_on_the_order_alone():
    place = Place(1)
    place.link_up(PEER, features=0, dialled=True)
    place.from_peer(PEER, Frame(Kind.RECORD, count=4, full=True, body=b"\x0a\x08\x08\x01\x18\x1f\x12\x02db"))
    place.from_peer(PEER, Frame(Kind.RECORD, count=7, body=b"\x0a\x09\x08\x01\x18\x1f\x12\x03web"))
    assert clusters(place) == ["db", "web"]
    place.from_peer(PEER, Frame(Kind.RECORD, count=8, body=b"\x0a\x08\x08\x00\x18\x00\x12\x02db"))
    assert clusters(place) == ["web"]


def test_a_first_release_peer_is_passed_on_to_others():
    a, b = Place(1), Place(2)
    meet(a, b)
    a.link_up(PEER, features=0, dialled=False)
    a.from_peer(PEER, Frame(Kind.RECORD, count=4, full=True, body=b"\x0a\x08\x08\x01\x18\x1f\x12\x02db"))
    together(2.5, a, b)
    assert claims(b, PEER) == [replace(DB, slots=0)]
    assert state(b, PEER) is State.JOINING


# -- what is wrong


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.BELIEFS, b"\x01"),
        (Kind.BELIEFS, bytes(28)),
        (Kind.BELIEFS, bytes(29 * 513)),
        (Kind.VIEW, b""),
        (Kind.VIEW, bytes(33)),
        (Kind.VIEW, bytes(31)),
        (Kind.VIEW, bytes(32 + 32)),
        (Kind.WANT, bytes(15)),
        (Kind.WANT, bytes(16 * 513)),
        (Kind.HEARSAY, b""),
        (Kind.HEARSAY, b"\xff"),
        (Kind.HEARSAY, b"\x12\x0f" + bytes(15)),
        (Kind.HEARSAY, b"\x12\x10" + OTHER + b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (Kind.HEARSAY, b"\x12\x10" + OTHER + b"\x18\x01\x2a\x01\xff"),
        (Kind.HEARSAY, b"\x12\x10" + OTHER + b"\x18\x01\x2a\x80\x02" + b"x" * 256),
        (Kind.HEARSAY, b"\x12\x10" + OTHER + b"\x18\x01" + b"\x42\x01x" * 17),
        (Kind.HEARSAY, b"\x12\x10" + OTHER + b"\x0a\x02\x08\x01"),
        (Kind.RECORD, b"\x2a\x01\xff"),
    ],
)
def test_a_hostile_body_ends_the_link_and_nothing_else(kind: Kind, body: bytes):
    place = alone()
    place.from_peer(PEER, Frame(kind, count=1, body=body))
    unlink = only(place.unlinked())
    assert (unlink.peer, unlink.cause) == (PEER, Cause.VIOLATION)
    assert place.counters["dropped.protocol-error"] == 1
    assert state(place, OTHER) is None
    place.link_down(PEER)
    place.wait(1.0)


@pytest.mark.parametrize("count", [0, 2, 4, 2**64 - 1])
def test_an_idle_frame_is_a_question_or_a_no(count: int):
    place = alone()
    place.from_peer(PEER, Frame(Kind.IDLE, count=count))
    assert only(place.unlinked()).cause is Cause.VIOLATION


@pytest.mark.parametrize("kind", [Kind.BELIEFS, Kind.VIEW, Kind.WANT, Kind.SYNCED, Kind.HEARSAY, Kind.IDLE])
def test_apps_do_not_speak_of_nodes(kind: Kind):
    place = Place(1)
    place.say(place.app(), Frame(kind, id=1, count=1))
    assert only(place.detached()).status == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "message", [b"", b"\x00\x00\x00\x01", b"\x80\x00\x00\x01\x02", b"\x80\x00\x00\x01" + bytes(13)]
)
def test_what_is_no_heartbeat_ends_the_link(message: bytes):
    place = alone()
    place.control(PEER, message)
    assert only(place.unlinked()).cause is Cause.VIOLATION


def test_words_that_were_not_asked_for_are_ordinary():
    place = alone()
    place.from_peer(PEER, Frame(Kind.SYNCED), Frame(Kind.IDLE, count=3), Frame(Kind.WANT), Frame(Kind.BELIEFS))
    assert place.unlinked() == []
    place.control(b"\x55" * 16, b"")
    assert place.unlinked() == []


def test_a_view_larger_than_bodies_may_be_still_counts():
    """Bounds of apps' bodies are not those of what nodes tell each other."""
    place = alone(max_body=1000)
    place.from_peer(PEER, *[hearsay(bytes([n]) * 16, DB) for n in range(10, 60)])
    held = [Held(bytes([n]) * 16, 1, 1) for n in range(10, 59)]
    (body,) = encode_view(held, range(10, 60))
    assert len(body) > 1000
    place.hear(PEER)
    place.from_peer(PEER, Frame(Kind.VIEW, body=body))
    assert kinds(place.hear(PEER)) == ["HEARSAY", "SYNCED"]


def test_a_view_says_what_is_held_of_what_differs():
    a, b = Place(1), Place(2)
    meet(a, b)
    b.link_up(OTHER, features=FEATURES, dialled=False)
    b.from_peer(OTHER, record(DB))
    b.effects.clear()
    for place in (a, b):
        place.now += 0.999
    a._do(a.node.probe(b.id, a.now))
    pump_controls(a, b)
    frame = only(a.hear(b.id))
    assert frame.kind == Kind.VIEW
    assert decode_view(frame.body) == ([OTHER[0]], [])


def pump_controls(one: Place, other: Place) -> None:
    from irisd.effects import Control

    for source, target in ((one, other), (other, one)):
        for control in source.effects_of(Control):
            if control.peer == target.id:
                target.control(source, b"".join(control.parts))


def test_the_edges_watch_of_old_still_works():
    a, b = pair()
    assert a.node.next_deadline() is None
    c = Place(3)
    link(a, c)
    app = a.app()
    b.serving("db")
    a.say(app, request(1))
    pump(a, b)
    assert a.node.membership.next_deadline() is None
