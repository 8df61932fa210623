from __future__ import annotations

import pytest

from irisd.errors import IrisdError
from irisd.model import MAX_SIZES, Frame, Kind, MiB
from irisd.wire import (
    WireError,
    decode_batch,
    decode_frame,
    decode_slices,
    encode_batch,
    encode_batch_parts,
    encode_frame,
    encode_parts,
)
from irisd.wire.frames import (
    LARGE_HEADER,
    MAX_HEADER,
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    MAX_LINK_HEADER,
    MAX_MEMBERS,
    SMALL_BODY,
)
from tests.vectors.wire.golden import golden

GOLDEN = golden()

FRAMES = {
    "frame.hello": Frame(Kind.HELLO, address="shop", member="cli"),
    "frame.request": Frame(
        Kind.REQUEST, id=1, address="db", remaining_ms=1500, method="get", headers=(b"\x0a\x01k\x12\x01v",), body=b"hi"
    ),
    "frame.publish": Frame(Kind.PUBLISH, address="o.a", sizes=b"\1\0\0\0\2\0\0\0", body=b"abb"),
    "frame.done": Frame(Kind.DONE, id=5, members=("a", "b"), count=300),
    "frame.error": Frame(Kind.ERROR, id=3, code=5, executed=1, detail="full"),
    "frame.part": Frame(Kind.REPLY, id=2, more=True, total=300_000, body=b"x"),
    "frame.record": Frame(Kind.RECORD, count=7, seq=9, full=True),
}


def test_a_batch_in_pieces_is_the_same_and_copies_no_large_body():
    small, large = b"s" * (SMALL_BODY - 1), b"l" * SMALL_BODY
    frames = [Frame(Kind.PUBLISH, id=n, body=body) for n, body in enumerate((small, b"", large, small, large, small))]
    parts = encode_batch_parts(frames)
    assert b"".join(parts) == encode_batch(frames)
    assert [part is large for part in parts] == [False, True, False, True, False]
    assert encode_batch_parts([]) == []
    assert len(encode_batch_parts(frames[2:3])) == 2


def test_a_ticket_travels_and_is_not_shown():
    frame = Frame(Kind.WELCOME, lane="/run/irisd/irisd.lane", ticket=b"0123456789abcdef")
    raw = encode_frame(frame)
    assert raw.endswith(bytes.fromhex("da0210") + b"0123456789abcdef")
    assert decode(raw) == frame
    assert "0123456789abcdef" not in repr(frame)


def decode(raw: bytes, max_body: int = MiB) -> Frame:
    return decode_frame(raw, 0, len(raw), max_body)


def field(number: int, value: bytes) -> bytes:
    """One length-delimited field."""
    size = len(value)
    out = bytearray([number << 3 | 2])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + value


def frame_of(header: bytes, body: bytes = b"") -> bytes:
    return field(1, header) + (field(2, body) if body else b"")


@pytest.mark.parametrize("name", FRAMES)
def test_golden_bytes_both_ways(name: str):
    assert encode_frame(FRAMES[name]) == GOLDEN[name]
    assert decode(GOLDEN[name]) == FRAMES[name]


def test_unpacked_sizes_mean_the_same():
    assert decode(GOLDEN["frame.publish.unpacked"]) == FRAMES["frame.publish"]


def test_fields_of_the_future_are_skipped():
    assert decode(GOLDEN["frame.future"]) == Frame(Kind.GOODBYE)


def test_batches():
    two = [Frame(Kind.FLUSH), Frame(Kind.DATA, body=b"abc")]
    assert encode_batch([]) == GOLDEN["batch.empty"] == b""
    assert decode_batch(b"", MiB) == []
    assert encode_batch(two) == GOLDEN["batch.two"]
    assert decode_batch(GOLDEN["batch.two"], MiB) == two
    assert decode_batch(b"\x50\x01" + GOLDEN["batch.two"], MiB) == two  # an unknown field before them


def test_header_and_untouched_body():
    body = b"payload"
    prefix, same = encode_parts(Frame(Kind.DATA, body=body))
    assert same is body
    assert prefix + body == encode_frame(Frame(Kind.DATA, body=body))
    assert encode_parts(Frame(Kind.DATA)) == (b"\x0a\x02\x08\x14", b"")


@pytest.mark.parametrize("name", golden("bad."))
def test_bad_bytes_are_refused(name: str):
    with pytest.raises(WireError) as caught:
        decode(GOLDEN[name])
    assert str(caught.value)
    assert isinstance(caught.value, IrisdError)
    assert isinstance(caught.value, ValueError)


def test_a_bad_frame_spoils_its_batch():
    bad = GOLDEN["bad.no-kind"]
    with pytest.raises(WireError, match="without a kind"):
        decode_batch(GOLDEN["batch.two"] + field(1, bad), MiB)


def test_the_body_is_bounded():
    raw = encode_frame(Frame(Kind.DATA, body=bytes(11)))
    assert len(decode(raw, max_body=11).body) == 11
    with pytest.raises(WireError, match="body of 11 bytes: the limit is 10"):
        decode(raw, max_body=10)


def test_a_slice_ends_after_a_large_header():
    """Such headers can be made to cost so much that a few of them would hold up everybody."""
    header = b"\x08\x0b" + b"\x1a\x00" * 40_000
    batch = field(1, frame_of(header)) * 5
    assert [len(frames) for frames in decode_slices(batch, 100, lambda: 256)] == [1] * 5


def test_headers_are_bounded():
    header = b"\x08\x0b" + field(8, b"")
    assert len(decode(frame_of(header + field(8, b"") * (MAX_HEADERS - 1))).headers) == MAX_HEADERS
    with pytest.raises(WireError, match="headers"):
        decode(frame_of(header + field(8, b"") * MAX_HEADERS))
    decode(frame_of(header + field(8, bytes(MAX_HEADERS_BYTES))))
    with pytest.raises(WireError, match="headers"):
        decode(frame_of(header + field(8, bytes(MAX_HEADERS_BYTES + 1))))


def test_members_are_bounded():
    many = b"\x5a\x00" * MAX_MEMBERS
    assert len(decode(frame_of(b"\x08\x08" + many)).members) == MAX_MEMBERS
    with pytest.raises(WireError, match="members"):
        decode(frame_of(b"\x08\x08" + many + b"\x5a\x00"))


@pytest.mark.parametrize("piece", [b"\x4d\0\0\0\0", b"\x4a\x04\0\0\0\0"], ids=["unpacked", "packed"])
def test_sizes_are_bounded_however_they_come(piece: bytes):
    header = b"\x08\x10" + piece * MAX_SIZES
    assert decode(frame_of(header)).messages == MAX_SIZES
    with pytest.raises(WireError, match="sizes"):
        decode(frame_of(header + piece))


def test_empty_pieces_of_sizes_cost_nothing():
    # 256 KiB of sizes and then 120,000 empty pieces: reading them must not copy the sizes each time
    header = b"\x08\x10" + field(9, bytes(4 * MAX_SIZES)) + b"\x4a\x00" * 120_000
    assert decode(frame_of(header)).messages == MAX_SIZES


def test_a_header_has_a_limit_in_whatever_pieces_it_comes():
    half = field(1, field(6, bytes(MAX_HEADER // 2 - 5)))
    whole = frame_of(b"\x08\x0b") + half + half
    [frame] = decode_batch(field(1, whole), MiB)
    assert frame.header_bytes == MAX_HEADER
    more = whole + field(1, b"\x50\x01")
    with pytest.raises(WireError, match=f"header of {MAX_HEADER + 2} bytes: the limit is {MAX_HEADER}"):
        decode_batch(field(1, more), MiB)
    assert decode(more).header_bytes == MAX_HEADER + 2  # a node may have added to it
    with pytest.raises(WireError, match=f"the limit is {MAX_LINK_HEADER}"):
        decode(whole + half)


def test_a_batch_is_decoded_a_slice_at_a_time():
    frames = [Frame(Kind.PUBLISH, id=1 + at) for at in range(20)]
    sizes = iter((3, 1, 10, 100))
    slices = list(decode_slices(encode_batch(frames), MiB, lambda: next(sizes)))
    assert [len(each) for each in slices] == [3, 1, 10, 6]
    assert [frame for each in slices for frame in each] == frames
    assert list(decode_slices(b"", MiB, lambda: 1)) == []


def test_slices_before_a_malformed_one_still_count():
    slices = decode_slices(encode_batch([Frame(Kind.PUBLISH)] * 5) + field(1, b"\x0a\x05"), MiB, lambda: 5)
    assert len(next(slices)) == 5
    with pytest.raises(WireError, match="truncated"):
        next(slices)


def test_a_first_part_states_the_sizes_of_all_parts():
    sizes = (300_000).to_bytes(4, "little") + (200_000).to_bytes(4, "little")
    first = Frame(Kind.PUBLISH, address="t", sizes=sizes, more=True, total=500_000, body=bytes(1000))
    assert decode(encode_frame(first)) == first


def test_32_bit_numbers_lose_their_upper_bits_like_everywhere():
    # remaining_ms and hops as 2**64 - 1: what a client makes of -1
    raw = frame_of(b"\x08\x0b" + b"\x20" + b"\xff" * 9 + b"\x01" + b"\x28" + b"\xff" * 9 + b"\x01")
    frame = decode(raw)
    assert frame.remaining_ms == frame.hops == 0xFFFF_FFFF


def test_a_sum_above_64_bits_can_still_be_read():
    frame = decode(encode_frame(Frame(Kind.EVENT, lost=2**64 + 5)))
    assert frame.lost == 2**64 - 1


def test_large_headers_are_noted_and_the_note_stays_here():
    frame = decode(encode_frame(Frame(Kind.REQUEST, detail="x" * 1000)))
    assert 1000 < frame.header_bytes < 1020
    assert decode(encode_frame(Frame(Kind.REQUEST, detail="x" * (LARGE_HEADER - 10)))).header_bytes == 0
    noted = Frame(Kind.REQUEST, sent=True, deadline=3.0, header_bytes=7, whole=Frame(Kind.DONE))
    assert encode_frame(noted) == encode_frame(Frame(Kind.REQUEST))


def test_absent_fields_have_defaults_and_present_ones_only_live_in_the_frame():
    frame = decode(GOLDEN["frame.hello"])
    assert (frame.id, frame.body, frame.headers, frame.more) == (0, b"", (), False)
    assert vars(frame).keys() == {"kind", "address", "member"}


def test_the_last_value_of_a_repeated_scalar_wins():
    assert decode(frame_of(b"\x08\x01\x08\x0b\x10\x01\x10\x07")) == Frame(Kind.REQUEST, id=7)
    assert decode(field(1, b"\x08\x0b") + field(1, b"\x10\x05")) == Frame(Kind.REQUEST, id=5)
