"""The socket's file: folder, lock, what lies at the path, owner, mode, and that it goes away."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from irisd.attach.socketfile import MAX_PATH_BYTES, SocketFile
from irisd.errors import AlreadyRunningError, ConfigError, ListenError, RuntimeFolderError

NOBODY = 65534


class Binder:
    """Stands for gRPC: binds what it is told to and keeps the socket open."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.mode_when_bound = 0

    def __call__(self, target: str) -> None:
        path = target.removeprefix("unix:")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sockets.append(sock)
        sock.bind(path)
        sock.listen()
        self.mode_when_bound = stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def binder() -> Iterator[Binder]:
    binder = Binder()
    yield binder
    for sock in binder.sockets:
        sock.close()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write anywhere, so for a moment we are not root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def opened(path: Path, bind: Callable[[str], object], **settings: object) -> SocketFile:
    file = SocketFile(path, **settings)  # type: ignore[arg-type]
    file.claim()
    file.bind(bind)
    return file


# ------------------------------------------------------------------- the good way


def test_the_socket_is_bound_closed_then_opened_to_its_group(run_dir, binder):
    path = run_dir / "irisd.sock"
    file = opened(path, binder)
    assert binder.mode_when_bound == 0o600
    assert mode_of(path) == 0o660
    assert mode_of(file.lock_path) == 0o600
    file.release()
    assert list(run_dir.iterdir()) == []


def test_the_umask_is_given_back_even_when_binding_fails(run_dir):
    before = os.umask(0o022)
    try:

        def fail(target: str) -> None:
            raise RuntimeError("no; set some variable")

        file = SocketFile(run_dir / "s")
        file.claim()
        with pytest.raises(ListenError, match=r"cannot listen on .*/s: no$"):
            file.bind(fail)
        file.release()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_the_folder_is_made_one_level_deep(run_dir, binder):
    path = run_dir / "irisd" / "irisd.sock"
    file = opened(path, binder)
    assert mode_of(path.parent) == (0o755 if os.geteuid() == 0 else 0o700)
    file.release()


def test_a_folder_for_a_group_can_be_passed_by_it(run_dir, binder):
    path = run_dir / "irisd" / "irisd.sock"
    file = opened(path, binder, group=str(os.getgid()))
    assert mode_of(path.parent) == 0o755
    assert path.stat().st_gid == os.getgid()
    file.release()


def test_a_mode_of_ones_own(run_dir, binder):
    file = opened(run_dir / "s", binder, mode=0o600)
    assert mode_of(run_dir / "s") == 0o600
    file.release()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a socket to a group it is not in")
def test_the_socket_goes_to_another_group(run_dir, binder):
    file = opened(run_dir / "s", binder, group="12345")
    assert (run_dir / "s").stat().st_gid == 12345
    file.release()


def test_releasing_twice_and_unclaimed_does_nothing(run_dir, binder):
    file = SocketFile(run_dir / "s")
    file.release()
    file = opened(run_dir / "s", binder)
    file.release()
    file.release()


def test_release_leaves_what_somebody_else_put_there(run_dir, binder):
    path = run_dir / "s"
    file = opened(path, binder)
    path.unlink()
    path.write_text("mine")
    file.release()
    assert path.read_text() == "mine"


def test_release_survives_a_folder_that_is_gone(run_dir, binder):
    path = run_dir / "irisd" / "s"
    file = opened(path, binder)
    path.unlink()
    file.lock_path.unlink()
    path.parent.rmdir()
    file.release()


# ------------------------------------------------------------- what lies there already


def test_a_dead_socket_is_removed(run_dir, binder):
    path = run_dir / "s"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dead.bind(str(path))
    dead.listen()
    dead.close()
    assert path.exists()
    opened(path, binder).release()


def test_a_live_socket_is_left_alone(run_dir, binder):
    path = run_dir / "s"
    binder(f"unix:{path}")
    with pytest.raises(AlreadyRunningError, match=r"another daemon is listening on .*/s; attach to that one, stop it"):
        SocketFile(path).claim()
    assert path.exists()
    assert not (run_dir / "s.lock").exists()


def test_a_live_socket_too_busy_to_answer_is_live(run_dir):
    path = run_dir / "s"
    busy = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    busy.bind(str(path))
    busy.listen(0)
    waiting = []
    try:
        while True:  # until its queue is full; a handful
            caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            waiting.append(caller)
            caller.setblocking(False)
            if caller.connect_ex(str(path)) != 0 or len(waiting) > 100:
                break
        with pytest.raises(AlreadyRunningError):
            SocketFile(path).claim()
    finally:
        for sock in (*waiting, busy):
            sock.close()


def test_a_file_that_is_no_socket_is_left_alone(run_dir):
    path = run_dir / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="is not a socket; move it away"):
        SocketFile(path).claim()
    assert path.read_text() == "precious"


def test_a_symlink_is_not_followed(run_dir, binder):
    target = run_dir / "target"
    binder(f"unix:{target}")
    (run_dir / "s").symlink_to(target)
    with pytest.raises(ListenError, match="is not a socket"):
        SocketFile(run_dir / "s").claim()
    assert target.exists()


# ---------------------------------------------------------------------- two daemons


def test_the_second_claim_is_refused_and_the_first_not_disturbed(run_dir, binder):
    path = run_dir / "s"
    first = SocketFile(path)
    first.claim()
    with pytest.raises(AlreadyRunningError):
        SocketFile(path).claim()  # although nothing is bound yet
    first.bind(binder)
    first.release()
    opened(path, binder).release()


def test_a_lock_dies_with_its_process(run_dir, binder):
    path = run_dir / "s"
    script = (
        "import sys, socket; from pathlib import Path; from irisd.attach.socketfile import SocketFile\n"
        "file = SocketFile(Path(sys.argv[1])); file.claim(); sock = socket.socket(socket.AF_UNIX)\n"
        "file.bind(lambda target: (sock.bind(target[5:]), sock.listen())); print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        with pytest.raises(AlreadyRunningError):
            SocketFile(path).claim()
        holder.kill()
        holder.wait()
    assert path.exists()
    assert (run_dir / "s.lock").exists()
    opened(path, binder).release()
    assert not path.exists()


def test_a_lock_on_a_file_that_was_removed_meanwhile_does_not_count(run_dir, monkeypatch):
    """The holder goes between our open and our flock: the file we locked is no longer at the path."""
    path = run_dir / "s"
    real = fcntl.flock
    removed: list[int] = []

    def flock(fd: int, operation: int) -> None:
        if not removed:
            removed.append(fd)
            os.unlink(run_dir / "s.lock")
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    file = SocketFile(path)
    file.claim()
    assert (run_dir / "s.lock").exists()
    with pytest.raises(AlreadyRunningError):
        SocketFile(path).claim()
    file.release()


def test_of_many_at_once_one_wins(run_dir):
    path = run_dir / "s"
    won: list[SocketFile] = []
    lost: list[AlreadyRunningError] = []
    start = threading.Barrier(16)

    def claim() -> None:
        file = SocketFile(path)
        start.wait()
        try:
            file.claim()
            won.append(file)
        except AlreadyRunningError as error:
            lost.append(error)

    threads = [threading.Thread(target=claim) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 15)
    won[0].release()


# ----------------------------------------------------------------------- bad settings


def test_a_missing_parent_of_the_folder(run_dir):
    with pytest.raises(RuntimeFolderError, match=r"runtime folder .*/a/b cannot be made because .*/a does not exist"):
        SocketFile(run_dir / "a" / "b" / "s").claim()


def test_a_folder_that_is_a_file(run_dir):
    (run_dir / "a").write_text("")
    with pytest.raises(RuntimeFolderError, match=r"/a is not a folder"):
        SocketFile(run_dir / "a" / "s").claim()


def test_a_folder_that_may_not_be_written(run_dir):
    folder = run_dir / "theirs"
    folder.mkdir(mode=0o555)
    run_dir.chmod(0o755)
    with unprivileged(), pytest.raises(RuntimeFolderError, match=r"is not writable for user .*: Permission denied"):
        SocketFile(folder / "s").claim()


def test_a_folder_that_may_not_be_made(run_dir):
    run_dir.chmod(0o555)
    try:
        with unprivileged(), pytest.raises(RuntimeFolderError, match="cannot be made: Permission denied; create it"):
            SocketFile(run_dir / "irisd" / "s").claim()
    finally:
        run_dir.chmod(0o755)


def test_a_lock_that_may_not_be_opened(run_dir):
    run_dir.chmod(0o777)
    (run_dir / "s.lock").touch(mode=0o000)
    with unprivileged(), pytest.raises(AlreadyRunningError, match=r"cannot open .*/s.lock: Permission denied"):
        SocketFile(run_dir / "s").claim()


def test_a_path_too_long_for_a_socket(run_dir):
    with pytest.raises(ConfigError, match=f"longer than the {MAX_PATH_BYTES} bytes"):
        SocketFile(run_dir / ("x" * MAX_PATH_BYTES)).claim()


def test_a_relative_path():
    with pytest.raises(ConfigError, match="is not absolute"):
        SocketFile(Path("irisd.sock")).claim()


def test_an_unknown_group(run_dir):
    with pytest.raises(ConfigError, match="there is no group 'no-such-group-here' on this host"):
        SocketFile(run_dir / "s", group="no-such-group-here").claim()
    assert list(run_dir.iterdir()) == []


def test_a_group_one_is_not_in(run_dir, binder):
    run_dir.chmod(0o777)
    with unprivileged():
        file = SocketFile(run_dir / "s", group="12345")
        file.claim()
        with pytest.raises(ListenError, match=r"to group '12345' mode 0660: .* only use groups it is a member of"):
            file.bind(binder)
        assert mode_of(run_dir / "s") == 0o600  # never opened to the wrong group
        file.release()
