"""The development daemon: loopback only, a fresh key, and a word on how to go on.

The key is written to the runtime folder, for this user only, so that a second
daemon can be started in the same service. It goes when the daemon ends; what
an earlier one left behind when it was killed is removed as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from irisd import __version__, daemon
from irisd.config import Config
from irisd.errors import RuntimeFolderError
from irisd.keys import SEED_BYTES, ServiceKey
from irisd.keys.files import write_key_file
from irisd.status import ListenerInfo

SERVICE = "dev"
_OURS = re.compile(r"development-(\d+)\.key", re.ASCII)


def run(config: Config, announce: Callable[[str], None], read: Callable[[], Config] | None = None) -> int:
    """Run a development daemon until it is told to stop; return the exit code.

    Args:
        config: Checked settings without a key.
        announce: Told, once everything is open, what runs and how to start a second daemon.
        read: Reads the settings again, for a reload.

    Raises:
        IrisdError: It cannot start; the message says what to do.
    """
    with fresh_key(Path(config.socket).parent) as (path, key):
        return daemon.run(
            config,
            [key],
            on_ready=lambda listeners: announce(welcome(config, path, listeners)),
            read=None if read is None else lambda: (read(), [key]),
        )


@contextlib.contextmanager
def fresh_key(folder: Path) -> Iterator[tuple[Path, ServiceKey]]:
    """Give a new key, and the file it stands in for as long as the context lasts.

    Raises:
        RuntimeFolderError: The folder cannot be made or written, or is not safe to put a key in.
        KeyFileError: The key cannot be written there.
    """
    _make(folder)
    _sweep(folder)
    path = folder / f"development-{os.getpid()}.key"
    key = ServiceKey.generate(SERVICE, os.urandom(SEED_BYTES))
    write_key_file(path, key.to_text("made by a development daemon, gone when it ends"))
    try:
        yield path, key
    finally:
        path.unlink(missing_ok=True)


def welcome(config: Config, key_file: Path, listeners: Sequence[ListenerInfo]) -> str:
    """Say what runs, where, and which command starts a second daemon in the same service."""
    lines = [f"irisd {__version__}: a development daemon, on loopback only, with a fresh key (service {SERVICE})"]
    lines += [f"  {info.purpose:<8}{info.address}" for info in listeners]
    links = [info.address.removeprefix("tcp://") for info in listeners if info.purpose == "links"]
    if links:
        lines += ["A second daemon in the same service:", f"  {second_daemon(config, key_file, links[0])}"]
    lines += [f"{_how_apps_find(Path(config.socket))}; for the second: IRIS_URL=unix://{_second_socket(config)}"]
    return "\n".join(lines)


def _how_apps_find(socket: Path) -> str:
    """Apps look where only this user, or the superuser, can have put a socket; elsewhere they must be told."""
    folders = ["/run", os.environ.get("XDG_RUNTIME_DIR", "")]
    if sys.platform == "darwin":  # where it is the user's own
        folders.append(os.environ.get("TMPDIR", ""))
    if any(socket == Path(folder, "irisd", "irisd.sock") for folder in folders):
        return "Apps here find the first by themselves"
    return f"Apps find the first with IRIS_URL=unix://{socket}"


def second_daemon(config: Config, key_file: Path, links: str) -> str:
    """Return the command that starts another daemon beside the one that takes links at ``links``."""
    words = ["irisd", "run", "--key", str(key_file), "--name", f"{config.name}-2", "--listen", "127.0.0.1:0"]
    return shlex.join([*words, "--seed", links, "--socket", str(_second_socket(config))])


def _second_socket(config: Config) -> Path:
    first = Path(config.socket)
    return first.with_name(f"{first.stem}-2{first.suffix}")


def _make(folder: Path) -> None:
    choose = "choose another place with --socket or IRISD_SOCKET"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
    except FileExistsError:
        raise RuntimeFolderError(f"{folder} is not a folder; {choose}") from None
    except FileNotFoundError:
        raise RuntimeFolderError(f"{folder} cannot be made: {folder.parent} does not exist; {choose}") from None
    except OSError as error:
        raise RuntimeFolderError(f"the runtime folder {folder} cannot be made: {error.strerror}; {choose}") from None
    if found.st_uid not in (os.geteuid(), 0) or (found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX):
        raise RuntimeFolderError(
            f"the runtime folder {folder} belongs to another user, or everybody may write to it: "
            f"no key is put there; {choose}"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RuntimeFolderError(f"the runtime folder {folder} is not writable for user {os.geteuid()}; {choose}")


def _sweep(folder: Path) -> None:
    for entry in folder.iterdir():
        match = _OURS.fullmatch(entry.name)
        if match and not _runs(int(match[1])):
            with contextlib.suppress(OSError):  # another user's, or gone already
                entry.unlink()


def _runs(pid: int) -> bool:
    if pid == os.getpid():
        return False  # a number used again: the file is from an earlier process
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
