"""Key files: what is read, and what is refused with a reason and a remedy."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from irisd.errors import KeyFileError
from irisd.keys import ServiceKey
from irisd.keys.files import decode_key_file, load_key_file, protect_output, write_key_file

KEY = ServiceKey("shop", bytes(range(32)))
TEXT = KEY.to_text("for tests")
REGULAR = stat.S_IFREG


def test_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "shop.key"
    write_key_file(path, TEXT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key_file(path) == KEY
    assert [entry.name for entry in tmp_path.iterdir()] == ["shop.key"]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "shop.key"
    path.write_text("precious")
    with pytest.raises(KeyFileError, match="never overwritten"):
        write_key_file(path, TEXT)
    assert path.read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["shop.key"]


def test_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be written"):
        write_key_file(tmp_path / "missing" / "shop.key", TEXT)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_modes_that_keep_a_secret(mode: int) -> None:
    assert decode_key_file(TEXT.encode(), REGULAR | mode) == TEXT


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o620, 0o602, 0o666, 0o777])
def test_modes_that_do_not(mode: int) -> None:
    with pytest.raises(KeyFileError, match="chmod 600") as refused:
        decode_key_file(TEXT.encode(), REGULAR | mode)
    assert f"{mode:04o}" in str(refused.value)


def test_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "shop.key"
    write_key_file(path, TEXT)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="others may read it") as refused:
        load_key_file(path)
    assert str(path) in str(refused.value)
    assert "0001020304" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (TEXT.encode()[:80], "no 'seed' line|no 'service' line|none of"),
        (TEXT.encode()[:-5], "cut short"),
        (b"\xff\xfe" + TEXT.encode("utf-16-le"), "not UTF-8"),
        (b"ssh-ed25519 AAAA", "not a service key"),
        (TEXT.encode() + b"#" * 4096, "larger than 4096 bytes"),
    ],
)
def test_files_that_are_no_keys(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "shop.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=says):
        load_key_file(path)


def test_no_file_and_no_regular_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="no such file"):
        load_key_file(tmp_path / "shop.key")
    with pytest.raises(KeyFileError, match="not a regular file"):
        load_key_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KeyFileError, match="not a regular file"):
        load_key_file(tmp_path / "pipe")
    with pytest.raises(KeyFileError, match="not a regular file"):
        load_key_file("/dev/zero")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "shop.key"
    write_key_file(path, TEXT)
    path.chmod(0)
    with pytest.raises(KeyFileError, match="may not read"):
        load_key_file(path)


def test_output_redirected_into_a_file_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "shop.key"
    with path.open("w") as file:
        path.chmod(0o644)  # as a shell with the usual umask makes it
        assert protect_output(file.fileno())
        file.write(TEXT)
    assert load_key_file(path) == KEY


def test_output_into_a_pipe_is_let_be() -> None:
    reading, writing = os.pipe()
    try:
        assert not protect_output(writing)
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(KeyFileError):
        protect_output(writing)
