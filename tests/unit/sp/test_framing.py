from __future__ import annotations

import tracemalloc

import pytest

from irisd.sp import FIRST_HOP, Framing, MessageDecoder, MessageEncoder, SpError, SpFault, SpLimitError
from tests.vectors.sp.golden import golden

GOLDEN = golden()


def decoder_for(name: str, max_size: int = 1024) -> MessageDecoder:
    """Make the decoder that the name of a golden vector asks for."""
    return MessageDecoder(
        Framing(name.split(".")[0]), max_size=max_size, hop_limit=8 if name.split(".")[1] == "pair1" else None
    )


GOOD = [
    ("tcp.empty", [b""]),
    ("tcp.hi", [b"hi"]),
    ("ipc.empty", [b""]),
    ("ipc.hi", [b"hi"]),
    ("tcp.pair1.hi", [b"hi"]),
    ("ipc.pair1.hi", [b"hi"]),
    ("tcp.pair1.hop8", [b"hi"]),
    ("tcp.pair1.hop9", []),
    ("tcp.pair1.hop256", []),
]


@pytest.mark.parametrize(("name", "messages"), GOOD)
@pytest.mark.parametrize("step", [1, 3, 9, 1000])
def test_golden_bytes_decode_however_they_are_cut(name: str, messages: list[bytes], step: int) -> None:
    decoder = decoder_for(name)
    stream = GOLDEN[name] * 3
    got = [m for at in range(0, len(stream), step) for m in decoder.feed(stream[at : at + step])]
    assert got == messages * 3
    assert decoder.hop_drops == (0 if messages else 3)
    assert decoder.is_between_messages
    assert decoder.held == 0


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_may_be_fed_and_gives_bytes(kind: type) -> None:
    [message] = decoder_for("tcp.hi").feed(kind(GOLDEN["tcp.hi"]))
    assert (type(message), message) == (bytes, b"hi")


def test_a_buffer_may_be_reused_by_its_owner_at_once() -> None:
    decoder = decoder_for("tcp.hi", max_size=10_000)
    buffer = bytearray(MessageEncoder(Framing.TCP).encode(b"")[0])
    buffer[:] = (5000).to_bytes(8) + b"a" * 4500
    assert decoder.feed(memoryview(buffer)) == []
    buffer[:] = b"b" * len(buffer)
    assert decoder.feed(memoryview(buffer)[:500]) == [b"a" * 4500 + b"b" * 500]


@pytest.mark.parametrize("framing", Framing)
@pytest.mark.parametrize("hop_limit", [None, 8])
def test_what_is_encoded_is_decoded(framing: Framing, hop_limit: int | None) -> None:
    bodies = [b"x" * size for size in (0, 1, 7, 8, 9, 4095, 4096, 70_000)]
    encoder = MessageEncoder(framing, header=FIRST_HOP if hop_limit else b"")
    stream = b"".join(encoder.encode_many(bodies))
    for step in (1, 11, 4096, 65_519, len(stream)):
        decoder = MessageDecoder(framing, hop_limit=hop_limit)
        got = [m for at in range(0, len(stream), step) for m in decoder.feed(stream[at : at + step])]
        assert got == bodies


def test_encoding_is_golden() -> None:
    assert b"".join(MessageEncoder(Framing.TCP).encode()) == GOLDEN["tcp.empty"]
    assert b"".join(MessageEncoder(Framing.TCP).encode(b"hi")) == GOLDEN["tcp.hi"]
    assert b"".join(MessageEncoder(Framing.IPC).encode(b"h", b"i")) == GOLDEN["ipc.hi"]
    assert b"".join(MessageEncoder(Framing.TCP, header=FIRST_HOP).encode(b"hi")) == GOLDEN["tcp.pair1.hi"]
    assert b"".join(MessageEncoder(Framing.IPC, header=FIRST_HOP).encode(b"hi")) == GOLDEN["ipc.pair1.hi"]
    assert b"".join(MessageEncoder(Framing.TCP).encode_many([b"", b"hi"])) == GOLDEN["tcp.empty"] + GOLDEN["tcp.hi"]


def test_bodies_are_not_copied_by_the_encoder() -> None:
    body, view = b"x" * 100, memoryview(b"y" * 100)
    encoder = MessageEncoder(Framing.TCP)
    prefix, first, second = encoder.encode(body, view)
    assert first is body
    assert second is view
    assert bytes(prefix) == (200).to_bytes(8)
    assert encoder.encode_many([body])[1] is body


def test_a_view_of_wide_items_is_measured_in_bytes() -> None:
    wide = memoryview(b"12345678").cast("I")
    assert b"".join(MessageEncoder(Framing.TCP).encode(wide)) == (8).to_bytes(8) + b"12345678"


def test_the_encoder_refuses_what_the_peer_would() -> None:
    encoder = MessageEncoder(Framing.TCP, max_size=10, header=FIRST_HOP)
    assert len(b"".join(encoder.encode(b"123456"))) == 18
    for call in (lambda: encoder.encode(b"1234", b"567"), lambda: encoder.encode_many([b"ok", b"1234567"])):
        with pytest.raises(SpLimitError) as refused:
            call()
        assert (refused.value.wanted, refused.value.limit) == (11, 10)


@pytest.mark.parametrize(
    ("name", "prefix", "fault"),
    [
        ("tcp.plain", "00 00 00 00 00 00 04 01", SpFault.TOO_LARGE),
        ("tcp.plain", "7f ff ff ff ff ff ff ff", SpFault.TOO_LARGE),
        ("tcp.plain", "ff ff ff ff ff ff ff ff", SpFault.TOO_LARGE),
        ("tcp.pair1", "00 00 00 00 00 00 04 01", SpFault.TOO_LARGE),
        ("ipc.plain", "01 00 00 00 00 00 00 04 01", SpFault.TOO_LARGE),
        ("ipc.plain", "00", SpFault.NOT_IN_BAND),
        ("ipc.plain", "02", SpFault.NOT_IN_BAND),
        ("tcp.pair1", "00 00 00 00 00 00 00 03", SpFault.MALFORMED),
        ("tcp.pair1", "00 00 00 00 00 00 00 00", SpFault.MALFORMED),
    ],
)
@pytest.mark.parametrize("tail", [b"", b"x" * 20], ids=["alone", "followed"])
@pytest.mark.parametrize("before", [0, 1], ids=["first", "second"])
def test_a_bad_prefix_is_refused_as_soon_as_it_shows(
    name: str, prefix: str, fault: SpFault, tail: bytes, before: int
) -> None:
    good = MessageEncoder(Framing(name.split(".")[0])).encode(FIRST_HOP)
    stream = b"".join(good) * before + bytes.fromhex(prefix)

    whole = decoder_for(name)
    with pytest.raises(SpError) as refused:
        whole.feed(stream + tail)
    assert refused.value.fault is fault

    bytewise = decoder_for(name)
    for at in range(len(stream) - 1):
        bytewise.feed(stream[at : at + 1])
    with pytest.raises(SpError) as refused:
        bytewise.feed(stream[-1:] + tail)
    assert refused.value.fault is fault
    assert bytewise.held == 0
    with pytest.raises(SpError) as again:
        bytewise.feed(GOLDEN["tcp.hi"])
    assert again.value is refused.value


def test_too_large_names_size_and_limit() -> None:
    with pytest.raises(SpError, match="a message of 1025 bytes, the limit is 1024") as refused:
        decoder_for("tcp.plain").feed((1025).to_bytes(8))
    assert (refused.value.size, refused.value.limit) == (1025, 1024)
    assert decoder_for("tcp.plain").feed((1024).to_bytes(8) + b"x" * 1024) == [b"x" * 1024]


def test_the_limit_counts_the_protocol_header() -> None:
    stream = (1025).to_bytes(8) + FIRST_HOP
    with pytest.raises(SpError, match="1025"):
        decoder_for("tcp.pair1").feed(stream)


def test_an_announced_size_allocates_nothing() -> None:
    decoder = MessageDecoder(Framing.TCP, max_size=1 << 40)
    tracemalloc.start()
    try:
        decoder.feed((1 << 40).to_bytes(8) + b"x")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert decoder.held == 1
    assert not decoder.is_between_messages


def test_byte_by_byte_costs_no_object_per_byte() -> None:
    decoder = MessageDecoder(Framing.TCP)
    decoder.feed((100_000).to_bytes(8))
    tracemalloc.start()
    try:
        for _ in range(50_000):
            decoder.feed(b"ab"[:2])
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()
    assert decoder.held == 0  # 50,000 times two bytes were the whole message


def test_a_message_that_will_be_dropped_is_not_held() -> None:
    decoder = decoder_for("tcp.pair1", max_size=1 << 20)
    decoder.feed((1 << 20).to_bytes(8) + (9).to_bytes(4) + b"x" * 10)
    decoder.feed(b"x" * 1000)
    assert decoder.held == 0
    assert not decoder.is_between_messages
    rest = (1 << 20) - 4 - 1010
    assert decoder.feed(b"x" * rest + GOLDEN["tcp.pair1.hi"]) == [b"hi"]
    assert decoder.hop_drops == 1


def test_many_small_and_one_large_message_in_odd_chunks() -> None:
    """A large body over many chunks keeps its neighbours' order."""
    encoder = MessageEncoder(Framing.TCP, header=FIRST_HOP)
    bodies = [b"s" * 16] * 100 + [bytes(range(256)) * 1024] + [b"t" * 16] * 100
    stream = b"".join(encoder.encode_many(bodies))
    decoder = MessageDecoder(Framing.TCP, hop_limit=8)
    got: list[bytes] = []
    for at in range(0, len(stream), 65_519):
        got += decoder.feed(stream[at : at + 65_519])
    assert got == bodies


def test_a_negative_limit_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="max_size"):
        MessageDecoder(Framing.TCP, max_size=-1)
    with pytest.raises(ValueError, match="hop limit"):
        MessageDecoder(Framing.TCP, hop_limit=0)
