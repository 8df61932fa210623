"""The key file parser under nonsense: a key or one error, and never a word of the seed in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irisd.errors import KeyFileError
from irisd.keys import ServiceKey
from irisd.keys.files import decode_key_file

KEY = ServiceKey("shop", bytes(range(32)))
TEXT = KEY.to_text("a comment")
SEED_TEXT = bytes(range(32)).hex()

names = st.from_regex(r"[A-Za-z0-9_-]{1,20}(\.[A-Za-z0-9_-]{1,20}){0,3}", fullmatch=True)
comments = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40)


@given(names, st.binary(min_size=32, max_size=32), comments)
def test_every_key_comes_back(name: str, seed: bytes, comment: str) -> None:
    if name == "_iris" or name.startswith("_iris."):
        return
    key = ServiceKey.generate(name, seed)
    assert ServiceKey.parse(key.to_text(comment)) == key


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    with pytest.raises(KeyFileError):
        ServiceKey.parse(text)


@given(st.lists(st.sampled_from([*TEXT.splitlines(), "", "#", "seed:", "check: 00", "x"]), max_size=10))
def test_any_lines(lines: list[str]) -> None:
    try:
        assert ServiceKey.parse("\n".join(lines)) == KEY
    except KeyFileError as error:
        assert SEED_TEXT[:16] not in str(error)


@given(st.integers(0, len(TEXT) - 2))
def test_any_truncation(place: int) -> None:
    with pytest.raises(KeyFileError) as refused:
        ServiceKey.parse(TEXT[:place])
    assert SEED_TEXT[:16] not in str(refused.value)


@given(st.integers(0, len(TEXT) - 1), st.characters(codec="ascii"))
def test_any_changed_character(place: int, character: str) -> None:
    changed = TEXT[:place] + character + TEXT[place + 1 :]
    try:
        assert ServiceKey.parse(changed) == KEY  # a change in a comment, or of case
    except KeyFileError as error:
        assert SEED_TEXT[:16] not in str(error)


@given(st.binary(max_size=5_000), st.integers(0, 0o177777))
def test_any_file(data: bytes, mode: int) -> None:
    try:
        text = decode_key_file(data, mode)
    except KeyFileError:
        return
    assert text.encode() == data and not mode & 0o027
