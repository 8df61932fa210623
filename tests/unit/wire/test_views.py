from __future__ import annotations

from random import Random

import pytest

from irisd.wire import (
    Belief,
    Held,
    Saying,
    WireError,
    decode_beliefs,
    decode_view,
    decode_want,
    encode_beliefs,
    encode_view,
    encode_want,
)
from irisd.wire.views import MAX_ENTRIES
from tests.vectors.wire.golden import golden

GOLDEN = golden("views.")
A, B, C = (bytes([n]) * 16 for n in (10, 11, 12))
BELIEFS = [Belief(A, 1, Saying.HEARD, 0.25), Belief(B, 2, Saying.DEAD), Belief(C, 1, Saying.ASK, 1.5)]


def test_golden_bytes_both_ways():
    assert encode_beliefs(BELIEFS) == [GOLDEN["views.beliefs"]]
    assert decode_beliefs(GOLDEN["views.beliefs"]) == BELIEFS
    assert encode_view([Held(A, 1, 7)], [0, 10]) == [GOLDEN["views.view"]]
    assert decode_view(GOLDEN["views.view"]) == ([0, 10], [Held(A, 1, 7)])
    assert encode_want([A, B]) == [GOLDEN["views.want"]]
    assert decode_want(GOLDEN["views.want"]) == [A, B]


def test_nothing_to_say_is_no_body_and_an_empty_body_says_nothing():
    assert (encode_beliefs([]), encode_want([]), encode_view([], [])) == ([], [], [])
    assert (decode_beliefs(b""), decode_want(b"")) == ([], [])
    assert decode_view(bytes(32)) == ([], [])


def test_an_empty_bucket_is_worth_a_word():
    (body,) = encode_view([], [255])
    assert decode_view(body) == ([255], [])


@pytest.mark.parametrize(("count", "bodies"), [(512, [512]), (513, [512, 1]), (1025, [512, 512, 1])])
def test_long_lists_come_in_several_bodies(count: int, bodies: list[int]):
    nodes = [Random(n).randbytes(16) for n in range(count)]
    wants = [decode_want(body) for body in encode_want(nodes)]
    assert [len(want) for want in wants] == bodies
    assert [node for want in wants for node in want] == nodes
    beliefs = [Belief(node, 1, Saying.DEAD) for node in nodes]
    told = [decode_beliefs(body) for body in encode_beliefs(beliefs)]
    assert [belief for some in told for belief in some] == beliefs
    assert [len(some) for some in told] == bodies


def test_a_long_view_is_whole_for_each_bucket_it_names():
    random = Random(1)
    held = [Held(random.randbytes(16), 1, n) for n in range(5000)]
    seen: list[int] = []
    for body in encode_view(held, range(256)):
        buckets, some = decode_view(body)
        assert set(some) == {each for each in held if each.node[0] in buckets}
        assert len(some) <= MAX_ENTRIES
        seen += buckets
    assert seen == list(range(256))


def test_a_bucket_that_is_too_full_for_one_body_still_is_one():
    held = [Held(b"\x07" + n.to_bytes(15), 1, n) for n in range(1000)]
    bodies = encode_view(held, [6, 7, 8])
    assert [each for body in bodies for each in decode_view(body)[1]] == held
    assert sum(7 in decode_view(body)[0] for body in bodies) == 1


@pytest.mark.parametrize("age", [0.0, 0.001, 8386.935, 4_294_967.295])
def test_ages_come_back_in_milliseconds(age: float):
    (body,) = encode_beliefs([Belief(A, 1, Saying.HEARD, age)])
    assert decode_beliefs(body)[0].age == age


def test_ages_beyond_all_reason_are_the_greatest():
    (body,) = encode_beliefs([Belief(A, 1, Saying.HEARD, 1e12)])
    assert decode_beliefs(body)[0].age == pytest.approx(4_294_967.295)


def test_sayings_of_later_releases_come_through():
    raw = A + (1).to_bytes(8) + b"\xfe" + bytes(4)
    assert decode_beliefs(raw) == [Belief(A, 1, 254)]


@pytest.mark.parametrize("name", GOLDEN)
def test_every_truncation_says_less_or_is_refused(name: str):
    raw = GOLDEN[name]
    decode = {"views.beliefs": decode_beliefs, "views.view": decode_view, "views.want": decode_want}[name]
    whole = {len(raw) - size for size in (0, 29, 58, 87, 32, 16)} if name != "views.view" else {64, 32}
    for size in range(len(raw)):
        try:
            decode(raw[:size])
        except WireError as error:
            assert str(error)
        else:
            assert size in whole


@pytest.mark.parametrize(
    ("decode", "raw"),
    [
        (decode_beliefs, bytes(29 * 513)),
        (decode_want, bytes(16 * 513)),
        (decode_view, bytes(31)),
        (decode_view, bytes(32) + A + bytes(16)),  # of a bucket it does not name
        (decode_view, (1 << 11).to_bytes(32) + A + bytes(16)),
    ],
)
def test_bad_bytes_are_refused(decode, raw: bytes):
    with pytest.raises(WireError):
        decode(raw)
