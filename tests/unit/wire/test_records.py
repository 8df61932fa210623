from __future__ import annotations

import pytest

from irisd.model import Claim
from irisd.wire import PIECE_BYTES, WireError, decode_record, encode_claims
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
