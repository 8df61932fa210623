"""Key files on disk: read with care, written for their owner only.

A key that others may read is not a secret, and one that others may write is
not ours; both are refused, with the command that repairs it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from irisd.errors import KeyFileError
from irisd.keys.service import MAX_TEXT_BYTES, ServiceKey

_FORBIDDEN = stat.S_IWGRP | stat.S_IRWXO
"""Group members may read (containers and service accounts need it), nobody else may do anything."""


def load_key_file(path: str | os.PathLike[str]) -> ServiceKey:
    """Read one service key.

    Raises:
        KeyFileError: Missing, unreadable, not a file, open to others, too
            large, not text, or not a key. The message names the path and says
            what to do; it never quotes the content.
    """
    try:
        text = decode_key_file(*_read(path))
        return ServiceKey.parse(text)
    except KeyFileError as error:
        raise KeyFileError(f"key file {os.fspath(path)}: {error}") from None


def decode_key_file(data: bytes, mode: int) -> str:
    """Check what a key file holds and who may touch it; return its text (pure).

    Args:
        data: The file's bytes, at least the first 4,097 of them.
        mode: Its mode as ``os.stat`` gives it.
    """
    if stat.S_IFMT(mode) and not stat.S_ISREG(mode):
        raise KeyFileError("this is not a regular file")
    if mode & _FORBIDDEN:
        wrong = "others may read it" if mode & stat.S_IROTH else "others may change it"
        raise KeyFileError(f"{wrong} (mode {stat.S_IMODE(mode):04o}); allow only yourself with: chmod 600 FILE")
    if len(data) > MAX_TEXT_BYTES:
        raise KeyFileError(f"it is larger than {MAX_TEXT_BYTES} bytes, which no service key is")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise KeyFileError("it is not UTF-8 text; copy the file again, as text") from None


def write_key_file(path: str | os.PathLike[str], text: str) -> None:
    """Write a new key file, readable by its owner only, whole or not at all.

    Raises:
        KeyFileError: The path exists (a key is never overwritten) or cannot be written.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, target)  # fails when the target exists, where rename would replace it
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
    except FileExistsError:
        raise KeyFileError(f"key file {target}: exists already, and a key is never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"key file {target}: cannot be written: {error.strerror}") from None


def protect_output(descriptor: int) -> bool:
    """Make what ``irisd keys new SERVICE > FILE`` writes to readable by its owner only.

    The shell creates the file, with the caller's umask, so it is the writer who
    has to close it to others, before the first byte of the key.

    Returns:
        Whether the output is a regular file (not a terminal or a pipe).

    Raises:
        KeyFileError: It is a file and its mode cannot be set.
    """
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise KeyFileError(f"the output file cannot be made private: {error.strerror}") from None
    return True


def _read(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    # Not blocking: opening a FIFO that nobody writes to must not hang the daemon.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(_why(error)) from None
    try:
        mode = os.fstat(descriptor).st_mode
        return (os.read(descriptor, MAX_TEXT_BYTES + 1) if stat.S_ISREG(mode) else b""), mode
    except OSError as error:
        raise KeyFileError(_why(error)) from None
    finally:
        os.close(descriptor)


def _why(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "there is no such file; make one with: irisd keys new SERVICE > FILE"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this user may not read it; change its owner or run as the right user"
    return f"it cannot be read: {error.strerror}"
