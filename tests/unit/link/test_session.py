"""Sessions: records, notices, rekeying, and the ends a conversation can come to."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random

import pytest

from irisd.link.noise import CipherState
from irisd.link.outcome import LinkEnd, Outcome
from irisd.link.session import MAX_PLAINTEXT, Bytes, Received, Session, SessionError, Settled


def sessions(**bounds: int) -> tuple[Session, Session]:
    there, back = b"\x01" * 32, b"\x02" * 32
    return (
        Session(CipherState(there), CipherState(back), b"h" * 32, **bounds),
        Session(CipherState(back), CipherState(there), b"h" * 32, **bounds),
    )


def opened(session: Session, *buffers: bytes) -> list[Received]:
    received: list[Received] = []
    data = b"".join(buffers)
    assert session.open(memoryview(data), received) == len(data)
    return received


def test_a_record_is_golden() -> None:
    one, _ = sessions()
    size, ciphertext = one.seal([b"he", bytearray(b"ll"), memoryview(b"o")])
    assert size == b"\x00\x15"
    assert CipherState(b"\x01" * 32).decrypt(ciphertext) == b"hello"


def test_pieces_come_out_as_they_went_in() -> None:
    one, two = sessions()
    assert opened(two, *one.seal([b"first"]), *one.seal([b"second"])) == [b"first", b"second"]
    assert opened(one, *two.seal([b"back"])) == [b"back"]
    assert one.seal([]) == [] and one.seal([b"", b""]) == []


@pytest.mark.parametrize("size", [1, MAX_PLAINTEXT - 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 3 * MAX_PLAINTEXT + 7])
def test_long_pieces_take_several_records(size: int) -> None:
    one, two = sessions()
    data = os.urandom(size)
    sealed = one.seal([data])
    assert len(sealed) == 2 * -(-size // MAX_PLAINTEXT)
    assert all(len(record) <= 65_535 for record in sealed)
    assert b"".join(item for item in opened(two, *sealed) if isinstance(item, bytes)) == data


@pytest.mark.parametrize("seed", range(20))
def test_however_the_parts_lie_the_records_are_as_few_as_can_be(seed: int) -> None:
    random, (one, two) = Random(seed), sessions()
    sizes = random.choices([0, 1, 13, 5_000, MAX_PLAINTEXT - 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 200_000], k=12)
    parts = [random.randbytes(size) for size in sizes]
    kinds: list[Callable[[bytes], Bytes]] = [bytes, bytearray, memoryview]
    sealed = one.seal([random.choice(kinds)(part) for part in parts])
    assert len(sealed) == 2 * -(-sum(sizes) // MAX_PLAINTEXT)
    assert b"".join(item for item in opened(two, *sealed) if isinstance(item, bytes)) == b"".join(parts)


def test_any_cut_of_the_stream() -> None:
    one, two = sessions()
    stream = b"".join([*one.seal_settle(5), *one.seal([b"a" * 100]), *one.seal_close(LinkEnd(Outcome.CLOSED, "bye"))])
    received: list[Received] = []
    rest = b""
    for byte in stream:
        rest += bytes([byte])
        rest = rest[two.open(memoryview(rest), received) :]
    assert rest == b""
    assert received == [Settled(5), b"a" * 100, LinkEnd(Outcome.CLOSED, "bye", by_peer=True)]


def test_the_buffer_may_be_reused() -> None:
    one, two = sessions()
    buffer = bytearray(b"".join(one.seal([b"kept"])))
    received: list[Received] = []
    two.open(memoryview(buffer), received)
    buffer[:] = bytes(len(buffer))
    assert received == [b"kept"]


def test_after_the_close_nothing_is_read() -> None:
    one, two = sessions()
    stream = [*one.seal_close(LinkEnd(Outcome.STOPPING)), *one.seal([b"late"]), b"\x00\x00garbage"]
    assert opened(two, *stream) == [LinkEnd(Outcome.STOPPING, by_peer=True)]
    assert two.closed


@pytest.mark.parametrize("outcome", [Outcome.CLOSED, Outcome.SILENT, Outcome.TAMPERED, Outcome.EXHAUSTED])
def test_a_close_says_why(outcome: Outcome) -> None:
    one, two = sessions()
    (end,) = opened(two, *one.seal_close(LinkEnd(outcome, "ä" * 200)))
    assert isinstance(end, LinkEnd)
    assert (end.outcome, end.detail, end.by_peer) == (outcome, "ä" * 100, True)


def test_a_close_cannot_write_to_a_terminal() -> None:
    one, two = sessions()
    (end,) = opened(two, *one._record(b""), *one._record(b"\x02\x63\x1b[2J\xff\n"))
    assert end == LinkEnd(Outcome.CLOSED, "?[2J\ufffd?", by_peer=True)  # an unknown number is a plain close


def test_unknown_notices_are_skipped() -> None:
    one, two = sessions()
    later = one._record(b"") + one._record(b"\x63later")
    assert opened(two, *later, *one.seal([b"data"])) == [b"data"]


@pytest.mark.parametrize("notice", [b"", b"\x01", b"\x01\x00\x00\x00"])
def test_notices_that_cannot_be(notice: bytes) -> None:
    one, two = sessions()
    with pytest.raises(SessionError) as refused:
        opened(two, *one._record(b""), *one._record(notice))
    assert refused.value.outcome is Outcome.VIOLATION


@pytest.mark.parametrize("record", [b"\x00\x00", b"\x00\x0f", b"\x00\x10" + bytes(16), b"\xff\xff" + bytes(65_535)])
def test_records_that_do_not_open(record: bytes) -> None:
    _, two = sessions()
    with pytest.raises(SessionError) as refused:
        two.open(memoryview(record), [])
    assert refused.value.outcome is Outcome.TAMPERED


def test_what_came_before_a_bad_record_is_kept() -> None:
    one, two = sessions()
    received: list[Received] = []
    with pytest.raises(SessionError):
        two.open(memoryview(b"".join(one.seal([b"good"])) + b"\x00\x10" + bytes(16)), received)
    assert received == [b"good"]


def test_repeated_swapped_reflected_and_dropped_records() -> None:
    one, _ = sessions()
    first, second = b"".join(one.seal([b"1"])), b"".join(one.seal([b"2"]))
    for stream in (first + first, second + first, second):
        _, two = sessions()
        with pytest.raises(SessionError):
            two.open(memoryview(stream), [])
    with pytest.raises(SessionError):  # our own record, sent back
        one.open(memoryview(first), [])


def test_keys_are_replaced_on_the_way() -> None:
    one, two = sessions(rekey_every=4)
    plain = CipherState(b"\x01" * 32)
    for number in range(20):
        piece = b"%d" % number
        sealed = one.seal([piece])
        assert opened(two, *sealed) == [piece]
        if number < 4:
            assert plain.decrypt(sealed[1]) == piece
        if number == 3:
            plain.rekey()
        if number == 4:  # the second key, and the counter goes on
            assert plain.nonce == 4 and plain.decrypt(sealed[1]) == piece


def test_a_session_ends_before_its_keys_do() -> None:
    one, two = sessions(last_nonce=100)
    sent = 0
    while not one.exhausted:
        opened(two, *one.seal([b"x"]))
        sent += 1
    assert sent == 100 - 64
    assert two.exhausted  # the receiving side knows as well
    (end,) = opened(two, *one.seal_close(LinkEnd(Outcome.EXHAUSTED)))
    assert end == LinkEnd(Outcome.EXHAUSTED, by_peer=True)


def test_nothing_is_sealed_beyond_the_bound() -> None:
    one, two = sessions(last_nonce=20)
    for _ in range(20):
        one.seal([b"x"])
    with pytest.raises(SessionError) as refused:
        one.seal([b"x"])
    assert refused.value.outcome is Outcome.EXHAUSTED
    assert one.seal_close(LinkEnd(Outcome.CLOSED)) == []
    hostile, _ = sessions()  # does not keep the bound
    with pytest.raises(SessionError) as refused:
        for _ in range(21):
            two.open(memoryview(b"".join(hostile.seal([b"x"]))), [])
    assert refused.value.outcome is Outcome.EXHAUSTED


def test_the_published_bounds() -> None:
    one, _ = sessions()
    assert (one._rekey_every, one._last_nonce, MAX_PLAINTEXT) == (2**24, 2**48, 65_519)
