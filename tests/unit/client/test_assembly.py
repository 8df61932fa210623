"""Bodies in parts, put together again within bounds."""

from __future__ import annotations

import pytest

from iris_client import _assembly
from iris_client._assembly import Assembly
from iris_client._frames import Kind, ProtocolError, make

LIMIT = 1000


def part(id: int, more: bool):
    return make(kind=Kind.PART, id=id, more=more)


def first(id: int, total: int):
    return make(kind=Kind.REPLY, id=id, more=True, total=total)


def test_parts_of_different_bodies_interleave():
    assembly = Assembly()
    assembly.begin(first(1, 6), b"ab", LIMIT)
    assembly.begin(first(2, 3), b"", LIMIT)
    assert assembly.part(part(1, True), b"cd") is None
    whole = assembly.part(part(2, False), b"xyz")
    assert whole is not None
    assert (whole[0].id, whole[1]) == (2, b"xyz")
    whole = assembly.part(part(1, False), b"ef")
    assert whole is not None
    assert (int(whole[0].kind), whole[1]) == (Kind.REPLY, b"abcdef")
    assert assembly._held == 0


def test_parts_of_a_call_that_is_over_are_ignored():
    assembly = Assembly()
    assembly.begin(first(1, 6), b"ab", LIMIT)
    assembly.forget(1)
    assembly.forget(1)
    assert assembly.part(part(1, False), b"cdef") is None
    assert assembly._held == 0


def test_too_large_is_refused_before_anything_is_held():
    with pytest.raises(ProtocolError, match="the limit is 1000"):
        Assembly().begin(first(1, 1001), b"", LIMIT)


@pytest.mark.parametrize(
    ("total", "pieces"),
    [(3, [b"ab", b"cd"]), (3, [b"abc"]), (5, [b"ab", b"c"]), (0, [b""])],
    ids=["too much", "more after all", "too little", "nothing, in parts"],
)
def test_lengths_must_add_up(total: int, pieces: list[bytes]):
    assembly = Assembly()
    with pytest.raises(ProtocolError, match="were announced"):
        assembly.begin(first(1, total), pieces[0], LIMIT)
        for piece in pieces[1:]:
            assembly.part(part(1, False), piece)


def test_an_id_is_used_once_at_a_time():
    assembly = Assembly()
    assembly.begin(first(1, 6), b"ab", LIMIT)
    with pytest.raises(ProtocolError, match="already under way"):
        assembly.begin(first(1, 6), b"ab", LIMIT)


@pytest.mark.source
def test_how_many_and_how_much_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_assembly, "MAX_UNFINISHED_BYTES", 100)
    assembly = Assembly()
    assembly.begin(first(1, 900), b"x" * 100, LIMIT)
    with pytest.raises(ProtocolError, match="100 bytes of unfinished"):
        assembly.begin(first(2, 900), b"x", LIMIT)
    monkeypatch.setattr(_assembly, "MAX_UNFINISHED", 2)
    with pytest.raises(ProtocolError, match="more than 2 bodies"):
        assembly.begin(first(3, 900), b"", LIMIT)
