"""Addresses kept over a restart."""

from __future__ import annotations

import json
import os
import stat

import pytest

from irisd.config import Address
from irisd.discovery.statefile import (
    FILE_NAME,
    MAX_ADDRESSES,
    BadStateFile,
    decode_state,
    encode_state,
    read_state,
    write_state,
)

ONE, SIX = Address("192.0.2.1", 7511), Address("2001:db8::1", 7511)


def test_what_is_written_is_read(tmp_path):
    folder = tmp_path / "new" / "state"
    write_state(folder, {"shop": (ONE, SIX), "bank": ()})
    assert read_state(folder) == {"shop": (ONE, SIX), "bank": ()}
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    write_state(folder, {"shop": (SIX,)})
    assert read_state(folder) == {"shop": (SIX,)}
    assert os.listdir(folder) == [FILE_NAME], "no draft is left behind"


def test_without_a_file_there_is_nothing(tmp_path):
    assert read_state(tmp_path) == {}
    assert read_state(tmp_path / "nowhere") == {}


def test_the_file_is_bounded():
    many = tuple(Address("192.0.2.1", 1 + number) for number in range(1_000))
    assert decode_state(encode_state({"shop": many})) == {"shop": many[:MAX_ADDRESSES]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b'{"format": 2, "services": {}}',
        b'{"format": 1}',
        b'{"format": 1, "services": []}',
        b"[" * 100_000,
        b" " * (2 * 1024 * 1024 + 1),
    ],
    ids=lambda data: data[:20].decode(errors="replace"),
)
def test_a_corrupt_file_is_one_error(data, tmp_path):
    (tmp_path / FILE_NAME).write_bytes(data)
    with pytest.raises(BadStateFile, match="will be written anew"):
        read_state(tmp_path)


def test_addresses_that_make_no_sense_are_passed_over():
    written = {"shop": ["192.0.2.1:7511", 7, None, "nonsense", "192.0.2.1:0", "192.0.2.1:7511"], "bank": 3}
    data = json.dumps({"format": 1, "services": written}).encode()
    assert decode_state(data) == {"shop": (ONE,)}


def test_a_folder_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadStateFile, match="cannot be written"):
        write_state(tmp_path / "file" / "state", {"shop": (ONE,)})
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(BadStateFile, match="cannot be read"):
        read_state(tmp_path)
