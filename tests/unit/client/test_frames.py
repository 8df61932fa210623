"""Frames to bytes and back, against protobuf's own idea of them."""

from __future__ import annotations

import pytest

from iris_client._frames import (
    Code,
    Kind,
    ProtocolError,
    append_frame,
    append_joined,
    decode_batch,
    make,
    sizes_field,
    varint,
)
from iris_proto.v1 import frame_pb2 as pb


def test_numbers_are_those_of_the_proto():
    assert {f"KIND_{kind.name}": kind.value for kind in Kind} == {k: v for k, v in pb.Kind.items() if v}
    assert {f"CODE_{code.name}": code.value for code in Code} == {k: v for k, v in pb.Code.items() if v}


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02"), (2**32, b"\x80\x80\x80\x80\x10")],
)
def test_varint(value: int, encoded: bytes):
    assert varint(value) == encoded


@pytest.mark.parametrize("body", [b"", b"x", b"y" * 127, b"z" * 300, b"w" * 70_000])
def test_append_is_what_protobuf_would_write(body: bytes):
    header = make(kind=Kind.REQUEST, id=7, address="databases", headers={"a": "b"})
    chunks: list[bytes] = []
    size = append_frame(chunks, header.SerializeToString(), body)
    data = b"".join(chunks)
    assert size == len(data)
    decoded = pb.Batch.FromString(data)
    assert len(decoded.frames) == 1
    assert decoded.frames[0].header == header
    assert decoded.frames[0].body == body


def test_append_joined_with_sizes():
    header = make(kind=Kind.PUBLISH, id=3, address="t").SerializeToString()
    bodies = [b"a", b"", b"ccc"]
    chunks: list[bytes] = []
    field = sizes_field(bodies)
    size = append_joined(chunks, header + field, bodies, 4)
    data = b"".join(chunks)
    assert size == len(data)
    frame = pb.Batch.FromString(data).frames[0]
    assert list(frame.header.sizes) == [1, 0, 3]
    assert frame.body == b"accc"
    chunks = []
    append_joined(chunks, header + sizes_field([b"", b""]), [b"", b""], 0)
    frame = pb.Batch.FromString(b"".join(chunks)).frames[0]
    assert (list(frame.header.sizes), frame.body) == ([0, 0], b"")


def test_decode_several():
    frames = [pb.Frame(header=make(kind=11, id=n), body=b"b" * n) for n in range(1, 400, 57)]
    decoded = decode_batch(pb.Batch(frames=frames).SerializeToString())
    assert [(header.id, body) for header, body in decoded] == [(frame.header.id, frame.body) for frame in frames]
    assert decode_batch(b"") == []


def test_decode_an_unusual_order_and_unknown_fields():
    header = make(kind=12, id=9).SerializeToString()
    body_first = b"\x12\x02hi" + b"\x0a" + varint(len(header)) + header + b"\x18\x05"
    data = b"\x0a" + varint(len(body_first)) + body_first + b"\x10\x01"
    [(decoded, body)] = decode_batch(data)
    assert (decoded.kind, decoded.id, body) == (12, 9, b"hi")


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"\x0a", "middle of a length"),
        (b"\x0a\x80", "middle of a length"),
        (b"\x0a\x05\x0a\x01", "middle of a frame"),
        (b"\x0a\x03\x0a\x09\x08", "middle of its header"),
        (b"\x0a\x00", "no header"),
        (b"\x0a\x03\x12\x01x", "no header"),
        (b"\x0a\x04\x0a\x02\x08\xff", "cannot be decoded"),
        (b"\x0a" + b"\xff" * 10 + b"\x01", "longer than ten bytes"),
        (b"\xff\xff", "cannot be decoded"),
    ],
)
def test_garbage_has_a_name(data: bytes, rule: str):
    with pytest.raises(ProtocolError, match=rule):
        decode_batch(data)
