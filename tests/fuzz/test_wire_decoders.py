"""Any bytes, cut anywhere, give frames or one documented error, and never more memory than came in."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irisd.model import Claim, Frame, Kind, NodeRecord
from irisd.status import TraceCandidate, TraceHop
from irisd.wire import (
    Belief,
    Held,
    WireError,
    decode_batch,
    decode_beliefs,
    decode_frame,
    decode_hop,
    decode_record,
    decode_view,
    decode_want,
    encode_batch,
    encode_beliefs,
    encode_claims,
    encode_frame,
    encode_hop,
    encode_record,
    encode_view,
    encode_want,
)
from irisd.wire.protobuf import varint
from tests.vectors.wire.golden import golden

MAX_BODY = 200
GOLDEN = list(golden().values())
NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))


@st.composite
def nearly_messages(draw: st.DrawFn, depth: int = 2) -> bytes:
    """Protobuf that is right often enough to reach every branch: any field, any type, lengths that may lie."""
    out = b""
    for _ in range(draw(st.integers(0, 5))):
        number = draw(st.one_of(st.integers(1, 45), st.integers(1, 2**29 - 1)))
        wire_type = draw(st.sampled_from([0, 0, 1, 2, 2, 2, 5, 3, 7]))
        out += varint(number << 3 | wire_type)
        if wire_type == 0:
            out += varint(draw(NUMBERS))
        elif wire_type == 2:
            inner = draw(nearly_messages(depth - 1)) if depth and draw(st.booleans()) else draw(st.binary(max_size=12))
            out += varint(draw(st.one_of(st.just(len(inner)), NUMBERS))) + inner
        else:
            out += draw(st.binary(min_size=0, max_size=8))
    return out


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Good bytes with a bad moment."""
    raw = bytearray(b"".join(draw(st.lists(st.sampled_from(GOLDEN), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 3))):
        if raw:
            raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw[: draw(st.integers(0, len(raw)))])


BYTES = st.one_of(st.binary(max_size=300), nearly_messages(), mutated())

MEMBERS = st.integers(0, 1 << 24)
CLAIMS = st.one_of(
    st.builds(Claim, MEMBERS, cluster=st.text(min_size=1, max_size=9), patterns=st.integers(0, 2**32 - 1)),
    st.builds(Claim, MEMBERS, topic=st.text(min_size=1, max_size=9), group=st.text(max_size=5)),
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    fields: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "id": NUMBERS,
                "address": st.text(max_size=9),
                "members": st.lists(st.text(max_size=5), max_size=3).map(tuple),
                "count": NUMBERS,
                "seq": NUMBERS,
                "full": st.booleans(),
            },
        )
    )
    return Frame(draw(st.sampled_from([int(kind) for kind in Kind])), body=draw(st.binary(max_size=40)), **fields)


def said(frame: Frame) -> dict[str, Any]:
    return {name: value for name, value in vars(frame).items() if value}


@given(BYTES)
def test_a_batch_or_the_documented_error(raw: bytes):
    try:
        decoded = decode_batch(raw, MAX_BODY)
    except WireError as error:
        assert str(error)
    else:
        for frame in decoded:
            assert frame.kind
            assert len(frame.body) <= MAX_BODY
            assert len(frame.sizes) % 4 == 0
            frame.header_bytes = 0
        again = decode_batch(encode_batch(decoded), MAX_BODY)
        for one in again:
            one.header_bytes = 0
        assert [said(one) for one in again] == [said(one) for one in decoded]


@given(BYTES)
def test_claims_or_the_documented_error(raw: bytes):
    try:
        claims = decode_record(raw).claims
    except WireError as error:
        assert str(error)
    else:
        assert decode_record(b"".join(encode_claims(claims))).claims == claims


@given(BYTES)
def test_a_record_or_the_documented_error(raw: bytes):
    try:
        piece = decode_record(raw)
    except WireError as error:
        assert str(error)
    else:
        again = encode_record(piece.claims, base=piece.base, node=piece.node, about=piece.about)
        assert decode_record(b"".join(again)) == piece


TEXTS = st.text(max_size=300)


@given(
    st.lists(CLAIMS, max_size=5),
    NUMBERS,
    st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
    st.builds(
        NodeRecord,
        st.just(b""),
        st.integers(1, 2**62),
        TEXTS,
        TEXTS,
        TEXTS,
        st.lists(TEXTS, max_size=20).map(tuple),
        st.booleans(),
    ),
    st.data(),
)
def test_records_come_back_as_far_as_they_may_be_long(
    claims: list[Claim], base: int, node: bytes, about: NodeRecord, data: st.DataObject
):
    raw = b"".join(encode_record(claims, base=base, node=node, about=about))
    piece = decode_record(raw)
    assert (piece.claims, piece.base, piece.node) == (claims, base, node)
    said = piece.about
    assert said is not None
    assert (said.incarnation, said.draining) == (about.incarnation, about.draining)
    assert about.name.startswith(said.name) and len(said.addresses) == min(16, len(about.addresses))
    cut = data.draw(st.integers(0, len(raw) - 1))
    try:
        shorter = decode_record(raw[:cut])
    except WireError:
        return
    assert shorter.claims == claims[: len(shorter.claims)]


@given(
    st.one_of(
        st.binary(max_size=300),
        mutated(),
        st.binary(min_size=64, max_size=64).map(lambda raw: bytes(31) + b"\x01" + raw),
    )
)
def test_views_or_the_documented_error(raw: bytes):
    try:
        beliefs = decode_beliefs(raw)
    except WireError as error:
        assert str(error)
    else:
        assert decode_beliefs(b"".join(encode_beliefs(beliefs))) == beliefs
    try:
        nodes = decode_want(raw)
    except WireError as error:
        assert str(error)
    else:
        assert b"".join(encode_want(nodes)) == raw
    try:
        buckets, held = decode_view(raw)
    except WireError as error:
        assert str(error)
    else:
        assert sorted(each for body in encode_view(held, buckets) for each in decode_view(body)[1]) == sorted(held)


IDS = st.binary(min_size=16, max_size=16)
U64 = st.integers(0, 2**64 - 1)


@given(
    st.lists(st.builds(Belief, IDS, U64, st.integers(0, 255), st.integers(0, 2**32 - 1).map(lambda ms: ms / 1000))),
    st.lists(st.builds(Held, IDS, U64, U64)),
)
def test_views_come_back(beliefs: list[Belief], held: list[Held]):
    back = [belief for body in encode_beliefs(beliefs) for belief in decode_beliefs(body)]
    assert back == beliefs
    again = [each for body in encode_view(held, range(256)) for each in decode_view(body)[1]]
    assert sorted(again) == sorted(held)


@given(BYTES, BYTES, BYTES)
def test_nothing_beyond_the_window_is_read(before: bytes, raw: bytes, after: bytes):
    """A frame is decoded in place: its neighbours in the same buffer must not change what it is."""

    def outcome(data: bytes, at: int, end: int) -> object:
        try:
            return said(decode_frame(data, at, end, MAX_BODY))
        except WireError as error:
            return str(error)

    inside = outcome(before + raw + after, len(before), len(before) + len(raw))
    assert inside == outcome(raw, 0, len(raw))


@given(st.lists(frames(), min_size=1, max_size=3), st.data())
def test_every_truncation_is_shorter_or_refused(batch: list[Frame], data: st.DataObject):
    raw = encode_batch(batch)
    assert [said(frame) for frame in decode_batch(raw, MAX_BODY)] == [said(frame) for frame in batch]
    cut = data.draw(st.integers(0, len(raw) - 1))
    try:
        some = decode_batch(raw[:cut], MAX_BODY)
    except WireError:
        return
    assert [said(frame) for frame in some] == [said(frame) for frame in batch[: len(some)]]
    assert len(some) < len(batch)


@given(st.lists(CLAIMS, max_size=20))
def test_claims_come_back(claims: list[Claim]):
    assert [claim for piece in encode_claims(claims) for claim in decode_record(piece).claims] == claims


@pytest.mark.parametrize(
    "raw",
    [
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0a\x07\x08\x10\x4a\xff\xff\xff\x7f",
        b"\x12\xff\xff\xff\xff\x0f",
        encode_frame(Frame(Kind.PUBLISH, more=True, total=2**63, body=b"x")),
    ],
)
def test_announced_lengths_allocate_nothing(raw: bytes):
    tracemalloc.start()
    try:
        for whole in (raw, b"\x0a" + varint(len(raw)) + raw):
            try:
                decode_batch(whole, 2**62)
            except WireError as error:
                assert str(error)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


HOP = encode_hop(TraceHop("oak", "aa", "members", candidates=(TraceCandidate("app", slots=8, busy=2.5),), count=1))


@given(st.binary(max_size=100) | st.integers(0, len(HOP)).map(lambda end: HOP[:end]), st.binary(max_size=3))
def test_what_a_node_says_of_a_choice_or_the_documented_error(raw: bytes, more: bytes):
    for some in (raw, raw + more, HOP.replace(b"8", more)):
        try:
            hop = decode_hop(some)
        except WireError as error:
            assert str(error).startswith("TRACED: ")
        else:
            assert decode_hop(encode_hop(hop)) == hop
