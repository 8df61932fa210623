"""The Unix socket's file: whose it is, who may open it, and that it goes away.

gRPC binds the socket itself and would silently replace one that is in use, so
the questions are settled before it is asked to:

    - the folder is there and writable, made (one level) when missing;
    - an exclusive ``flock`` on ``<socket>.lock`` names the one daemon that may
      use the path. It dies with its process, so it is never stale;
    - what lies at the path is a dead socket (nobody accepts there) and is
      removed, or is none of ours and is left alone.

The socket is bound closed (0600) and opened to its group afterwards, so nobody
else ever finds it with the wrong owner or mode.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from irisd.errors import AlreadyRunningError, ConfigError, ListenError, RuntimeFolderError

MAX_PATH_BYTES = 103 if sys.platform == "darwin" else 107
"""What ``sockaddr_un`` holds, less the closing zero."""


class SocketFile:
    """A claim on a path for a Unix socket.

    Args:
        path: Where the socket will be.
        mode: Its permissions; 0660 lets its group attach.
        group: The group's name or number; ``None`` leaves the process's own.
    """

    def __init__(self, path: Path, *, mode: int = 0o660, group: str | None = None) -> None:
        self.path = path
        self._mode = mode
        self._group = group
        self._gid = -1
        self._lock: int | None = None
        self._identity: tuple[int, int] | None = None

    @property
    def lock_path(self) -> Path:
        return self.path.with_name(self.path.name + ".lock")

    def claim(self) -> None:
        """Make the folder, take the lock, clear a dead socket.

        Raises:
            ConfigError: The path is too long or not absolute, or the group does not exist.
            RuntimeFolderError: The folder is missing and cannot be made, or cannot be written.
            AlreadyRunningError: Another daemon uses this path.
            ListenError: Something that is not a socket lies at the path.
        """
        if not self.path.is_absolute():
            raise ConfigError(f"the socket's path {str(self.path)!r} is not absolute")
        if len(os.fsencode(self.path)) > MAX_PATH_BYTES:
            raise ConfigError(
                f"the socket's path {str(self.path)!r} is longer than the {MAX_PATH_BYTES} bytes a system allows; "
                "choose a shorter one with --socket"
            )
        self._gid = _group_id(self._group)
        self._make_folder()
        self._take_lock()
        try:
            self._clear_path()
        except BaseException:
            self._drop_lock()
            raise

    def bind(self, bind: Callable[[str], object]) -> None:
        """Call ``bind("unix:/path")``, which must create the socket, and give it its owner and mode.

        Raises:
            ListenError: The socket could not be bound or handed to its group.
        """
        # The umask is the process's, for the moment of one synchronous call: whoever else creates a file in it
        # gets a stricter one than asked for.
        before = os.umask(0o177)
        try:
            bind(f"unix:{self.path}")
        except (RuntimeError, OSError) as error:
            raise ListenError(f"cannot listen on {self.path}: {_first_sentence(error)}") from error
        finally:
            os.umask(before)
        try:
            if self._gid != -1:
                os.chown(self.path, -1, self._gid)
            os.chmod(self.path, self._mode)
            found = os.stat(self.path)
        except OSError as error:
            who = f" to group {self._group!r}" if self._group is not None else ""
            raise ListenError(
                f"cannot give {self.path}{who} mode {self._mode:04o}: {error.strerror}; "
                "a process may only use groups it is a member of"
            ) from error
        self._identity = (found.st_dev, found.st_ino)

    def release(self) -> None:
        """Remove the socket, if it is still ours, and the lock. Never raises; calling again does nothing."""
        if self._lock is None:
            return
        if self._identity is not None:
            try:
                found = os.lstat(self.path)
                if (found.st_dev, found.st_ino) == self._identity:
                    os.unlink(self.path)
            except OSError:
                pass  # gone already (gRPC removes it too), or its folder is: either way not ours to keep
            self._identity = None
        self._drop_lock()

    # ------------------------------------------------------------------ steps

    def _make_folder(self) -> None:
        folder = self.path.parent
        # The folder is the first door: only a socket meant for others gets one that others can pass.
        mode = 0o755 if self._group is not None or os.geteuid() == 0 else 0o700
        try:
            folder.mkdir(mode=mode)
        except FileExistsError:
            pass
        except FileNotFoundError:
            raise RuntimeFolderError(
                f"the runtime folder {folder} cannot be made because {folder.parent} does not exist; "
                f"create it, or choose another socket path with --socket"
            ) from None
        except OSError as error:
            raise RuntimeFolderError(
                f"the runtime folder {folder} cannot be made: {error.strerror}; "
                f"create it for user {os.geteuid()}, or choose another socket path with --socket"
            ) from error
        if not folder.is_dir():
            raise RuntimeFolderError(f"{folder} is not a folder; choose another socket path with --socket")

    def _take_lock(self) -> None:
        # The holder unlinks the lock file when it goes, so a lock counts only if its file is still the one at the path.
        while True:
            try:
                lock = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise self._lock_unopened(error) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held, found = os.fstat(lock), self._lock_stat()
            except BlockingIOError:
                os.close(lock)
                raise self._in_use() from None
            except OSError as error:
                os.close(lock)
                raise RuntimeFolderError(f"cannot lock {self.lock_path}: {error.strerror}") from error
            if found is not None and (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino):
                self._lock = lock
                return
            os.close(lock)

    def _lock_stat(self) -> os.stat_result | None:
        try:
            return os.stat(self.lock_path, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _lock_unopened(self, error: OSError) -> Exception:
        if os.path.lexists(self.lock_path):
            # The folder is not to blame: the file belongs to another user, whose daemon it is, or was.
            return AlreadyRunningError(
                f"cannot open {self.lock_path}: {error.strerror}; if no daemon of another user is running there, "
                "remove it, else choose another socket path with --socket"
            )
        folder = self.path.parent
        return RuntimeFolderError(
            f"the runtime folder {folder} is not writable for user {os.geteuid()}: {error.strerror}; "
            "change its owner, or choose another socket path with --socket"
        )

    def _clear_path(self) -> None:
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise ListenError(
                f"{self.path} exists and is not a socket; move it away, or choose another socket path with --socket"
            )
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Not waiting: a daemon whose queue of connections is full (EAGAIN) is a daemon.
            probe.setblocking(False)
            status = probe.connect_ex(str(self.path))
        finally:
            probe.close()
        if status == errno.ECONNREFUSED:
            try:
                os.unlink(self.path)
            except OSError as error:
                raise RuntimeFolderError(f"cannot remove the dead socket {self.path}: {error.strerror}") from error
        elif status not in (errno.ENOENT,):
            raise self._in_use()

    def _in_use(self) -> AlreadyRunningError:
        return AlreadyRunningError(
            f"another daemon is listening on {self.path}; attach to that one, stop it, "
            "or give this one a socket path of its own with --socket"
        )

    def _drop_lock(self) -> None:
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            os.unlink(self.lock_path)
        except OSError:
            pass  # the folder went first, or is read-only now; an unlocked file left behind means nothing
        finally:
            os.close(lock)


def _group_id(group: str | None) -> int:
    if group is None:
        return -1
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"there is no group {group!r} on this host; create it, or name one that exists") from None


def _first_sentence(error: Exception) -> str:
    # gRPC's messages go on with advice about its own environment variables.
    return str(error).split(";", 1)[0]
