from __future__ import annotations

import pytest

from irisd.wire.protobuf import WireError, read_length, read_varint, skip, varint

NUMBERS = [
    (0, b"\x00"),
    (1, b"\x01"),
    (127, b"\x7f"),
    (128, b"\x80\x01"),
    (300, b"\xac\x02"),
    (2**32, b"\x80\x80\x80\x80\x10"),
    (2**64 - 1, b"\xff" * 9 + b"\x01"),
]


@pytest.mark.parametrize(("number", "raw"), NUMBERS)
def test_varints(number: int, raw: bytes):
    assert varint(number) == raw
    assert read_varint(b"\xaa" + raw + b"\xaa", 1, 1 + len(raw)) == (number, 1 + len(raw))


def test_a_varint_may_be_longer_than_needed():
    assert read_varint(b"\x81\x80\x00", 0, 3) == (1, 3)


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\xff" * 9])
def test_a_number_cut_short(raw: bytes):
    with pytest.raises(WireError, match="truncated"):
        read_varint(raw, 0, len(raw))


@pytest.mark.parametrize("raw", [b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\x01", b"\xff" * 1000])
def test_a_number_above_64_bits(raw: bytes):
    with pytest.raises(WireError, match="64 bits"):
        read_varint(raw, 0, len(raw))


def test_a_number_stays_within_64_bits_when_written():
    assert varint(2**64) == varint(2**80) == varint(2**64 - 1)


def test_lengths():
    assert read_length(b"\x02ab", 0, 3) == (1, 3)
    with pytest.raises(WireError, match="points past the end"):
        read_length(b"\x03ab", 0, 3)
    with pytest.raises(WireError, match="points past the end"):
        read_length(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 0, 10)


@pytest.mark.parametrize(
    ("wire_type", "raw", "stop"), [(0, b"\x80\x01", 2), (1, bytes(8), 8), (2, b"\x02ab", 3), (5, bytes(4), 4)]
)
def test_skipping(wire_type: int, raw: bytes, stop: int):
    assert skip(raw, 0, len(raw), wire_type) == stop
    with pytest.raises(WireError, match="truncated"):
        skip(raw, 0, stop - 1, wire_type)


@pytest.mark.parametrize("wire_type", [3, 4, 6, 7])
def test_wire_types_that_do_not_exist(wire_type: int):
    with pytest.raises(WireError, match=f"wire type {wire_type}"):
        skip(b"12345678", 0, 8, wire_type)
