"""The handshake under nonsense: any bytes, any cut, any change give progress or one named refusal."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from irisd.link.handshake import (
    MAX_MESSAGE_BYTES,
    PREAMBLE_BYTES,
    Greeting,
    Initiator,
    PskCredentials,
    Purpose,
    Refused,
    Responder,
)

PSK = PskCredentials(b"\x05" * 32)
ONE, TWO = Greeting(b"\x01" * 16, 1, "one"), Greeting(b"\x02" * 16, 1, "two")
FIRST = Initiator(Purpose.CONTROL, b"KEYIDKEY", PSK, ONE, b"\x11" * 32).first

node_ids = st.binary(min_size=16, max_size=16)
greetings = st.builds(
    Greeting,
    node_ids.filter(any),
    st.integers(1, 2**64 - 1),
    st.text(st.characters(categories=["L", "N", "P"]), max_size=80),
    st.integers(0, 2**32 - 1),
    node_ids,
    node_ids,
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces, cut somewhere."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:stop] for start, stop in itertools.pairwise(places)]


def answer_to_first() -> bytes:
    responder = Responder(lambda key_id: PSK)
    assert responder.feed(FIRST) == ONE
    return responder.answer(None, TWO, b"\x22" * 32)[0]


def initiator() -> Initiator:
    return Initiator(Purpose.CONTROL, b"KEYIDKEY", PSK, ONE, b"\x11" * 32)


@given(st.lists(st.binary(max_size=200), max_size=8), st.sampled_from([b"", b"IRIS", FIRST[:16], FIRST[:18]]))
def test_a_listener_fed_with_nonsense(chunks: list[bytes], start: bytes) -> None:
    responder = Responder(lambda key_id: PSK)
    try:
        for chunk in (start, *chunks):
            responder.feed(chunk)
            assert len(responder._buffer) <= PREAMBLE_BYTES + 2 + MAX_MESSAGE_BYTES
    except Refused as refused:
        assert refused.reply == b"" or refused.reply[:4] == b"iris"


@given(st.lists(st.binary(max_size=200), max_size=8), st.sampled_from([b"", b"iris", b"iris\x01\x00\x00\x80"]))
def test_a_dialler_fed_with_nonsense(chunks: list[bytes], start: bytes) -> None:
    dialler = initiator()
    try:
        for chunk in (start, *chunks):
            assert dialler.feed(chunk) is None  # nobody gets in without the key
    except Refused as refused:
        assert refused.outcome.value


@given(st.lists(st.integers(0), max_size=12))
def test_any_cut_of_the_first_flight(cuts: list[int]) -> None:
    responder = Responder(lambda key_id: PSK)
    *before, last = pieces(FIRST, cuts)
    assert all(responder.feed(piece) is None for piece in before)
    assert responder.feed(last) == ONE


@given(st.lists(st.integers(0), max_size=12))
def test_any_cut_of_the_answer(cuts: list[int]) -> None:
    dialler = initiator()
    *before, last = pieces(answer_to_first(), cuts)
    assert all(dialler.feed(piece) is None for piece in before)
    answer = dialler.feed(last)
    assert answer is not None and answer[0] == TWO


@given(st.integers(0, len(FIRST) - 1), st.integers(1, 255))
def test_any_changed_byte_of_the_first_flight(place: int, change: int) -> None:
    changed = bytearray(FIRST)
    changed[place] ^= change
    responder = Responder(lambda key_id: PSK)
    try:
        assert responder.feed(bytes(changed)) is None  # a size that promises more
    except Refused as refused:
        assert refused.outcome.value in {"bad-preamble", "wrong-version", "wrong-key", "violation"}


@given(st.integers(0), st.integers(1, 255))
def test_any_changed_byte_of_the_answer(place: int, change: int) -> None:
    changed = bytearray(answer_to_first())
    changed[place % len(changed)] ^= change
    try:
        assert initiator().feed(bytes(changed)) is None
    except Refused as refused:
        assert refused.outcome.value


@given(greetings, st.binary(max_size=50))
def test_greetings_come_back(greeting: Greeting, later: bytes) -> None:
    assert Greeting.decode(greeting.encode() + later) == greeting


@given(st.binary(max_size=400))
def test_any_bytes_as_a_greeting(data: bytes) -> None:
    try:
        greeting = Greeting.decode(data)
    except Refused:
        return
    assert greeting.name.isprintable() and greeting.incarnation and any(greeting.node_id)
