from __future__ import annotations

from dataclasses import replace

import pytest

from irisd.model import Claim, NodeRecord
from irisd.wire import PIECE_BYTES, WireError, decode_record, encode_claims, encode_record
from irisd.wire.records import MAX_ADDRESSES, MAX_INCARNATION, MAX_TEXT, RecordPiece
from tests.vectors.wire.golden import golden

GOLDEN = golden("claims.")

CLAIMS = {
    "claims.cluster": Claim(2, cluster="db", patterns=31),
    "claims.group": Claim(1, topic="o.>", group="db"),
    "claims.withdrawn": Claim(0, cluster="db"),
}


def claims_of(raw: bytes) -> list[Claim]:
    return decode_record(raw).claims


@pytest.mark.parametrize("name", CLAIMS)
def test_golden_bytes_both_ways(name: str):
    assert encode_claims([CLAIMS[name]]) == [GOLDEN[name]]
    assert claims_of(GOLDEN[name]) == [CLAIMS[name]]


def test_no_claims_are_one_empty_piece():
    assert encode_claims([]) == [b""]
    assert claims_of(b"") == []


def test_pieces_stay_small_and_join_to_the_whole():
    claims = [Claim(n + 1, cluster=f"cluster-{n}", patterns=31) for n in range(5_000)]
    pieces = encode_claims(claims)
    assert len(pieces) > 5
    assert all(0 < len(piece) < PIECE_BYTES + 8 * len(claims) for piece in pieces)
    assert max(map(len, pieces)) < PIECE_BYTES * 1.25
    assert [claim for piece in pieces for claim in claims_of(piece)] == claims
    assert claims_of(b"".join(pieces)) == claims


def test_one_claim_longer_than_a_piece_travels_alone():
    long = Claim(1, topic="x" * (PIECE_BYTES + 1))
    assert [len(claims_of(piece)) for piece in encode_claims([long, CLAIMS["claims.group"]])] == [1, 1]


def test_fields_of_the_future_are_skipped():
    assert claims_of(b"\x10\x01" + b"\x0a\x0b\x08\x02\x18\x1f\x12\x02db\x98\x06\x01") == [CLAIMS["claims.cluster"]]


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"\x0a\x02\x08\x01", "either a cluster or a topic"),
        (b"\x0a\x06\x12\x01a\x22\x01b", "either a cluster or a topic"),
        (b"\x0a\x03\x12\x01\xff", "cluster is not UTF-8"),
        (b"\x0a\x05\x12\x02d", "past the end"),
        (b"\x0a\x02\x08\x80", "truncated"),
        (b"\x0b", "wire type 3"),
    ],
)
def test_bad_bytes_are_refused(raw: bytes, rule: str):
    with pytest.raises(WireError, match=rule):
        claims_of(raw)


NODE = b"\x0b" * 16
RECORDS = {
    "record.own": (
        RecordPiece(
            [CLAIMS["claims.cluster"]], b"", 0, NodeRecord(b"", 1, "a", "default", "1.0", ("10.0.0.1:7511",), False)
        )
    ),
    "record.passed-on": RecordPiece([CLAIMS["claims.withdrawn"]], NODE, 6, None),
    "record.draining": RecordPiece([], b"", 7, NodeRecord(b"", 2, "", "", "", (), True)),
}


@pytest.mark.parametrize("name", RECORDS)
def test_golden_records_both_ways(name: str):
    raw, piece = golden("record.")[name], RECORDS[name]
    assert decode_record(raw) == piece
    assert encode_record(piece.claims, base=piece.base, node=piece.node, about=piece.about) == [raw]


def test_what_the_first_release_says_is_a_record_without_a_head():
    assert decode_record(GOLDEN["claims.cluster"]) == RecordPiece([CLAIMS["claims.cluster"]], b"", 0, None)


def test_claims_appended_to_a_change_belong_to_it():
    (change,) = encode_record([CLAIMS["claims.cluster"]], base=4)
    piece = decode_record(change + GOLDEN["claims.group"])
    assert (piece.base, piece.claims) == (4, [CLAIMS["claims.cluster"], CLAIMS["claims.group"]])


def test_only_the_first_piece_says_whose_it_is():
    claims = [Claim(1, topic=f"a-rather-long-topic.{n}") for n in range(3_000)]
    about = NodeRecord(NODE, 3, "b")
    first, *others = encode_record(claims, base=9, node=NODE, about=about)
    assert decode_record(first)[1:] == (NODE, 9, about)
    assert {decode_record(piece)[1:] for piece in others} == {(b"", 0, None)}
    assert [claim for piece in (first, *others) for claim in decode_record(piece).claims] == claims


@pytest.mark.parametrize("text", ["x" * 1000, "é" * 200, "a" + "é" * 200, "a" * 254 + "\N{WINKING FACE}"])
def test_texts_that_are_too_long_are_cut_between_characters(text: str):
    (raw,) = encode_record([], about=NodeRecord(b"", 1, text, text, text, (text,)))
    about = decode_record(raw).about
    assert about is not None
    for cut in (about.name, about.cloud, about.release, *about.addresses):
        assert text.startswith(cut)
        assert MAX_TEXT - 4 < len(cut.encode()) <= MAX_TEXT


def test_only_so_many_addresses_travel():
    (raw,) = encode_record([], about=NodeRecord(b"", 1, addresses=tuple(f"h:{n}" for n in range(99))))
    about = decode_record(raw).about
    assert about is not None and about.addresses == tuple(f"h:{n}" for n in range(MAX_ADDRESSES))


def test_the_greatest_incarnation_comes_back():
    (raw,) = encode_record([], base=2**64 - 1, about=NodeRecord(b"", MAX_INCARNATION))
    piece = decode_record(raw)
    assert piece.base == 2**64 - 1
    assert piece.about is not None and piece.about.incarnation == MAX_INCARNATION


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"\x12\x00\x12\x0f" + bytes(15), "15 bytes"),
        (b"\x12\x11" + bytes(17), "17 bytes"),
        (b"\x12\xff\xff\xff\xff\x0f", "past the end"),
        (b"\x18" + b"\x81" + b"\x80" * 7 + b"\x40", "incarnation"),  # 2**62 + 1
        (b"\x18\x01\x2a\x80\x02" + b"x" * 256, "256 bytes"),
        (b"\x42\x80\x02" + b"x" * 256, "256 bytes"),
        (b"\x18\x01\x32\x01\xff", "UTF-8"),
        (b"\x42\x01x" * 17, "17 addresses"),
    ],
)
def test_bad_heads_are_refused(raw: bytes, rule: str):
    with pytest.raises(WireError, match=rule):
        decode_record(raw)


@pytest.mark.parametrize("number", ["members", "ejected", "patterns", "level", "balance", "slots"])
def test_a_number_nobody_could_show_is_refused(number: str):
    claim = Claim(1, cluster="db")
    assert claims_of(encode_claims([replace(claim, **{number: 1 << 24})])[0])  # type: ignore[arg-type]
    with pytest.raises(WireError, match=f"claim: 18446744073709551615 {number}"):
        claims_of(encode_claims([replace(claim, **{number: (1 << 64) - 1})])[0])  # type: ignore[arg-type]
