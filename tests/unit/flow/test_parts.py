from __future__ import annotations

import tracemalloc

import pytest

from irisd.flow import Assembler, PartsError
from irisd.flow.parts import MAX_OPEN
from irisd.model import Frame, Kind, MiB


def first(id: int, body: bytes, total: int, **fields: object) -> Frame:
    return Frame(Kind.REQUEST, id=id, body=body, more=True, total=total, **fields)


def part(id: int, body: bytes, *, more: bool = False, **fields: object) -> Frame:
    return Frame(Kind.PART, id=id, body=body, more=more, **fields)


def test_the_whole_is_the_first_frame_with_the_body_of_all():
    parts = Assembler(max_body=100)
    assert parts.feed(first(7, b"ab", 5, method="put")) is None
    assert parts.feed(part(7, b"c", more=True)) is None
    assert parts.feed(part(7, b"de")) == Frame(Kind.REQUEST, id=7, body=b"abcde", method="put")


def test_bodies_interleave():
    parts = Assembler(max_body=100)
    parts.feed(first(1, b"a", 2))
    parts.feed(first(3, b"x", 2))
    assert parts.feed(part(3, b"y")) == Frame(Kind.REQUEST, id=3, body=b"xy")
    assert parts.feed(part(1, b"b")) == Frame(Kind.REQUEST, id=1, body=b"ab")
    assert parts.feed(first(1, b"a", 2)) is None  # its id is free again


def test_the_last_part_brings_the_sequence_number():
    parts = Assembler(max_body=100)
    parts.feed(first(1, b"a", 2))
    whole = parts.feed(part(1, b"b", seq=9))
    assert whole is not None
    assert whole.seq == 9


def test_parts_of_a_cancelled_call_are_ignored():
    parts = Assembler(max_body=100)
    parts.feed(first(1, b"a", 3))
    parts.forget(1)
    parts.forget(1)
    assert parts.feed(part(1, b"b", more=True)) is None
    assert parts.feed(part(1, b"c")) is None
    assert parts.feed(part(99, b"c")) is None


@pytest.mark.parametrize(
    ("frames", "rule"),
    [
        ([first(1, b"a", 101)], "101 bytes, the limit is 100"),
        ([first(1, b"abc", 2)], "3 bytes came, 2 were announced"),
        ([first(1, b"abc", 3)], "3 bytes came, 3 were announced"),  # whole, and yet `more`
        ([first(1, b"", 0)], "0 bytes came"),
        ([first(1, b"a", 3), part(1, b"b")], "2 bytes came, 3 were announced"),
        ([first(1, b"a", 3), part(1, b"bcd")], "4 bytes came"),
        ([first(1, b"a", 3), part(1, b"bc", more=True)], "3 bytes came"),
        ([first(1, b"a", 3), first(1, b"a", 3)], "id 1 is already under way"),
        ([first(1, b"", 3)], "an empty one"),
        ([first(1, b"a", 3), part(1, b"", more=True)], "an empty one"),
    ],
)
def test_rules(frames: list[Frame], rule: str):
    parts = Assembler(max_body=100)
    for frame in frames[:-1]:
        assert parts.feed(frame) is None
    with pytest.raises(PartsError, match=rule):
        parts.feed(frames[-1])


def test_the_number_of_unfinished_bodies_is_bounded():
    parts = Assembler(max_body=100)
    for id in range(MAX_OPEN):
        parts.feed(first(id, b"a", 2))
    with pytest.raises(PartsError, match=f"more than {MAX_OPEN}"):
        parts.feed(first(MAX_OPEN, b"a", 2))


def test_the_bytes_of_unfinished_bodies_are_bounded():
    parts = Assembler(max_body=100, max_bytes=250)
    for id in range(3):
        parts.feed(first(id, bytes(80), 100))
    parts.forget(0)  # gives its share back
    parts.feed(first(4, bytes(80), 100))
    with pytest.raises(PartsError, match="more than 250 bytes"):
        parts.feed(part(1, bytes(19), more=True))


def test_a_finished_body_gives_its_share_back():
    parts = Assembler(max_body=100, max_bytes=100)
    for id in range(1000):
        parts.feed(first(id, bytes(60), 100))
        assert parts.feed(part(id, bytes(40))) is not None


def test_tiny_parts_do_not_cost_more_than_their_bytes():
    parts = Assembler(max_body=MiB)
    parts.feed(first(1, b"a", MiB))
    pieces = [part(1, bytes(2), more=True) for _ in range(1000)]
    tracemalloc.start()
    try:
        for piece in pieces:
            parts.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < 8_000
    finally:
        tracemalloc.stop()


def test_what_is_announced_is_not_allocated():
    parts = Assembler(max_body=1 << 40)
    tracemalloc.start()
    try:
        parts.feed(first(1, b"a", 1 << 40))
        assert tracemalloc.get_traced_memory()[1] < 8_000
    finally:
        tracemalloc.stop()
