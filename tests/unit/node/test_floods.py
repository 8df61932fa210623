"""A peer that says too much, or reads nothing of what it asked for: what it can cost is bounded."""

from __future__ import annotations

from importlib import import_module

import pytest

from irisd.model import FEATURES, Claim, Frame, Kind, NodeRecord
from irisd.wire import Belief, Held, Saying, decode_record, encode_beliefs, encode_record, encode_view, encode_want
from tests.unit.node.house import Place, kinds, only, request

PEER, OTHER = b"\xff" * 16, b"\xee" * 16
LIMIT = 100_000


def record(*claims: Claim, version: int = 0, incarnation: int = 1) -> Frame:
    (body,) = encode_record(claims, about=NodeRecord(b"", incarnation, "peer"))
    return Frame(Kind.RECORD, count=version, body=body, full=True)


def hearsay(node: bytes, *claims: Claim, version: int = 1) -> list[Frame]:
    pieces = encode_record(claims, node=node, about=NodeRecord(node, 1, f"n{node[0]}"))
    frames = [Frame(Kind.HEARSAY, count=version, body=piece, full=at == 0) for at, piece in enumerate(pieces)]
    for frame in frames[:-1]:
        frame.more = True
    return frames


def place() -> Place:
    """A node linked with a peer whose every frame the test writes, and which may leave little unread."""
    place = Place(1, peer_outbox=LIMIT)
    place.link_up(PEER, features=FEATURES, dialled=False)
    place.from_peer(PEER, record())
    place.hear(PEER)
    place.effects.clear()
    return place


def unread(place: Place) -> int:
    return place.node.core.peers[PEER].outbox.urgent_bytes


def large() -> list[Claim]:
    return [Claim(1, topic=f"{number}." + "x" * 100) for number in range(500)]


def test_what_is_wanted_again_and_again_and_not_read_is_not_sent_again_and_again():
    one = place()
    one.from_peer(PEER, *hearsay(OTHER, *large()))
    one.from_peer(PEER, *[Frame(Kind.WANT, body=body) for body in encode_want([OTHER] * 512)])
    assert LIMIT < unread(one) < 3 * LIMIT
    assert kinds(one.hear(PEER))[-1] == "SYNCED"
    one.from_peer(PEER, Frame(Kind.WANT, body=OTHER))  # whoever reads may ask again
    assert "HEARSAY" in kinds(one.hear(PEER))


def test_a_view_that_names_a_node_many_times_is_answered_once():
    one = place()
    one.from_peer(PEER, *hearsay(OTHER, *large(), version=3))
    held = [Held(OTHER, 1, 2)] * 10_000
    one.from_peer(PEER, *[Frame(Kind.VIEW, body=body) for body in encode_view(held, [OTHER[0]])])
    assert len([frame for frame in one.hear(PEER) if frame.full]) == 1


@pytest.mark.parametrize("kind", ["asks", "wants", "view", "records"])
def test_a_peer_that_only_talks_is_unlinked(kind: str):
    """It answers heartbeats, so nobody takes it for silent; and every answer to it lies here."""
    one = place()
    one.from_peer(PEER, *hearsay(OTHER))
    one.link_up(OTHER, features=FEATURES, dialled=False)
    (asks,) = encode_beliefs([Belief(OTHER, 1, Saying.ASK)] * 512)
    said = {
        "asks": Frame(Kind.BELIEFS, body=asks),
        "wants": Frame(Kind.WANT, body=OTHER),
        "view": Frame(Kind.VIEW, body=bytes(32)),
        "records": record(),
    }[kind]
    most = 0
    for _ in range(5_000):
        one.from_peer(PEER, said)
        if PEER not in one.node.core.peers:
            break
        most = max(most, unread(one))
    assert only([unlink for unlink in one.unlinked() if unlink.peer == PEER]).reason.startswith("not-reading")
    assert most < 10 * LIMIT


def test_a_record_of_somebody_with_too_many_claims_leaves_nothing(monkeypatch: pytest.MonkeyPatch):
    for module in ("irisd.registry.registry", "irisd.node.records"):
        monkeypatch.setattr(import_module(module), "MAX_CLAIMS", 10)
    one = place()
    claims = [Claim(1, topic=f"t{number}") for number in range(11)]
    one.from_peer(PEER, *hearsay(OTHER, *claims))
    assert "more than 10 claims" in only(one.unlinked()).reason
    assert not one.node.membership.is_present(OTHER)
    assert one.node.core.registry.topics() == {}


def test_a_change_that_makes_too_many_claims_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    for module in ("irisd.registry.registry", "irisd.node.records"):
        monkeypatch.setattr(import_module(module), "MAX_CLAIMS", 10)
    one = place()
    ten = [Claim(1, topic=f"t{number}") for number in range(10)]
    one.from_peer(PEER, *hearsay(OTHER, *ten))
    again = [*ten[1:], Claim(0, topic="t0"), Claim(1, topic="t10")]  # the same number, others
    one.from_peer(PEER, *hearsay(OTHER, *again, version=2))
    assert one.unlinked() == []
    before = one.node.core.registry.topics()
    (body,) = encode_record([Claim(2, topic="t1"), Claim(1, topic="t11")], node=OTHER, base=2)
    one.from_peer(PEER, Frame(Kind.HEARSAY, count=3, body=body))
    assert "more than 10 claims" in only(one.unlinked()).reason
    assert one.node.core.registry.topics() == before


def test_accusations_do_not_drive_the_incarnation():
    one = place()
    accusations = [Belief(one.id, number, Saying.DEAD) for number in range(1, 513)]
    (body,) = encode_beliefs(accusations)
    one.from_peer(PEER, Frame(Kind.BELIEFS, body=body))
    about = decode_record(only(one.hear(PEER)).body).about
    assert about is not None and about.incarnation == 2


def test_frames_of_a_peer_that_is_not_linked_are_not_taken():
    one = Place(1, full_mesh_limit=1)
    one.link_up(PEER, features=FEATURES, dialled=False)
    one.from_peer(PEER, record(Claim(1, cluster="db", patterns=31)))
    one.link_down(PEER, idle=True)
    one.say(one.app(), request(1))
    assert one.connecting() == [PEER]
    one.from_peer(PEER, record(version=1), Frame(Kind.REQUEST, id=2, address="db", remaining_ms=100))
    peer = one.node.core.peers[PEER]
    assert (peer.synced, peer.opened, one.unlinked()) == (False, {}, [])
    assert [claim.cluster for claim in one.node.core.registry.claims(PEER)] == ["db"]
