"""A daemon that cannot start says why in one sentence, and what to do; one that can does, wherever it is put."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from irisd.errors import KeyFileError
from irisd.keys.files import load_key_file

from .bad_input_ground import connect, daemons, neighbour, status_of, url_of
from .cli_iris_ground import DEADLINE, until

ROOT = os.geteuid() == 0
IRISD = [sys.executable, "-m", "irisd"]


def irisd(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run to its end with nothing around it, as cron would; return status and all it said."""
    ran = subprocess.run(
        [*IRISD, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
        timeout=DEADLINE,
    )
    return ran.returncode, ran.stdout


def refused(status: int, said: str, *words: str) -> None:
    """One sentence, no traceback, no log around it."""
    assert status in (1, 2), said
    last = said.splitlines()[-1]
    assert last.lower().startswith(("irisd: error: ", "error: ")), said
    for word in words:
        assert word in last
    assert "Traceback" not in said
    assert "daemon.st" not in said  # neither started nor stopped: it never ran


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "shop.key"
    assert irisd("keys", "new", "shop", "-o", str(path))[0] == 0
    return path


@pytest.fixture
def run(key: Path, run_dir: Path) -> list[str]:
    """The words that start a daemon with a key, at a port of its own."""
    return ["run", "--key", str(key), "--listen", "127.0.0.1:0", "--socket", str(run_dir / "irisd.sock")]


# ------------------------------------------------------------------------------------ keys


def test_a_key_file_cut_anywhere(key: Path, run_dir: Path) -> None:
    """Also where it ends in the middle of a line: nothing but the whole is a key, and none of it is shown."""
    whole = key.read_bytes()
    seed = whole.split(b"seed: ")[1].split()[0].decode()
    cut = run_dir / "cut.key"
    cut.touch(0o600)
    for length in range(len(whole.rstrip())):
        cut.write_bytes(whole[:length])
        with pytest.raises(KeyFileError, match=r"key file .*cut\.key: ") as refusal:
            load_key_file(cut)
        assert seed[:8] not in str(refusal.value)


def test_a_cut_key_file_starts_nothing(key: Path, run: list[str], run_dir: Path) -> None:
    cut = run_dir / "cut.key"
    cut.touch(0o600)
    cut.write_bytes(key.read_bytes()[:60])
    refused(*irisd(*run, "--key", str(cut)), f"key file {cut}", "copy the file again")
    assert not (run_dir / "irisd.sock").exists()


@pytest.mark.parametrize(("mode", "words"), [(0o644, "others may read it"), (0o602, "others may change it")])
def test_a_key_file_that_is_open_to_others(key: Path, run: list[str], run_dir: Path, mode: int, words: str) -> None:
    loose = run_dir / "loose.key"
    loose.write_bytes(key.read_bytes())
    loose.chmod(mode)
    refused(*irisd(*run, "--key", str(loose)), words, f"(mode {mode:04o})", "chmod 600")


@pytest.mark.parametrize("what", ["missing", "folder", "fifo", "empty", "huge", "noise"])
def test_what_is_no_key_file(run: list[str], run_dir: Path, what: str) -> None:
    path = run_dir / "what"
    match what:
        case "folder":
            path.mkdir(0o700)
        case "fifo":
            os.mkfifo(path, 0o600)
        case "empty" | "huge" | "noise":
            path.touch(0o600)
            path.write_bytes({"empty": b"", "huge": b"#" * 5000, "noise": os.urandom(100) + b"\xff"}[what])
    refused(*irisd(*run, "--key", str(path)), f"key file {path}")


# ------------------------------------------------------------------------------- words and files

WORDS = {
    "run --lissten 127.0.0.1:0": "'--listen'",
    "rum": "Did you mean 'run'?",
    "run --listen 127.0.0.1": "is not host:port",
    "run --listen 127.0.0.1:99999": "a port between 0 and 65535",
    "run --listen 0.0.0.0:0": "without a key a daemon stays on loopback",
    "run --seed 127.0.0.1:7511": "a daemon without a key cannot join others",
    "run --key x --seed 127.0.0.1:0": "cannot be dialled",
    "run --max-body 1": "the least is 1KiB",
    "run --max-body 8potatoes": "'potatoes' is no unit of size",
    "run --max-body 64MiB --peer-outbox 64MiB": "peer_outbox must hold at least two bodies",
    "run --drain-timeout forever": "expected a duration such as 1.5s or 250ms",
    "run --socket-mode 999": 'expected permissions such as "0660"',
    "run --log-level loud": "is none of debug, info, warning, error",
    "run --name 'a b'": "is no name",
    "run --attach-tcp 127.0.0.1:0": "attach_tcp wants token_file",
    "run --token-file x": "token_file is for attach_tcp, which is not set",
    "run --key x --key x": "the same file is named twice",
    "run --config /no/such/file": "cannot be read: No such file",
    "keys new": "Missing argument 'SERVICE'",
    "keys new 'a b'": "letters, digits",
    "keys show /no/such/file": "there is no such file; make one with: irisd keys new SERVICE > FILE",
    "demo --file /no/such/file": "does not exist",
}


@pytest.mark.parametrize("line", WORDS)
def test_words_that_make_no_sense(line: str) -> None:
    refused(*irisd(*shlex.split(line)), WORDS[line])


FILES = {
    'lissten = "127.0.0.1:0"': ("irisd.toml:1:", "did you mean 'listen'?"),
    'name = "x"\nmax_bdoy = 5': ("irisd.toml:2:", "did you mean 'max_body'?"),
    'max_body = "8 potatoes"': ("irisd.toml:1:", "is no unit of size"),
    "max_body = -5": ("irisd.toml:1:", "expected a size"),
    '[links]\nlisten = "127.0.0.1:0"': ("irisd.toml:1:", "without sections"),
    'listen = "127.0.0.1:0': ("irisd.toml:", "not valid TOML"),
    "\udcff": ("irisd.toml:", "not UTF-8 text"),
}


@pytest.mark.parametrize("text", FILES, ids=[repr(text)[:24] for text in FILES])
def test_a_file_with_a_mistake(run_dir: Path, text: str) -> None:
    path = run_dir / "irisd.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    refused(*irisd("run", "--config", str(path)), str(run_dir), *FILES[text])


def test_a_variable_with_a_mistake() -> None:
    refused(*irisd(IRISD_LISTENN="x"), "IRISD_LISTENN", "did you mean 'IRISD_LISTEN'?")
    refused(*irisd("run", IRISD_MAX_BODY="much"), "IRISD_MAX_BODY: max_body:")


# ------------------------------------------------------------------------------- places and ports


@contextlib.contextmanager
def started(arguments: list[str], run_dir: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon beside the test, up; its words are in ``log``."""
    log = run_dir / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*IRISD, *arguments], stdin=subprocess.DEVNULL, stderr=out, env={"PATH": os.environ["PATH"], **environment}
        )
    try:
        until("it is up", lambda: "daemon.started" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(DEADLINE)


def test_two_daemons_with_one_link_port(run: list[str], run_dir: Path) -> None:
    with started(run, run_dir):
        url = f"unix://{run_dir / 'irisd.sock'}"
        [port] = [row.address.rpartition(":")[2] for row in status_of(url).listeners if row.purpose == "links"]
        second = [*run[:-1], str(run_dir / "second.sock"), "--listen", f"127.0.0.1:{port}"]
        second.remove("127.0.0.1:0")
        second.remove("--listen")
        refused(*irisd(*second), f"127.0.0.1:{port}", "the port is in use; stop what uses it, or choose another")
        assert status_of(url).services[0].service == "shop"  # the first is well
        assert not (run_dir / "second.sock").exists()


def test_two_daemons_on_one_socket(run: list[str], run_dir: Path) -> None:
    with started(run, run_dir) as first:
        refused(*irisd(*run), "another daemon is listening on", str(run_dir / "irisd.sock"), "--socket")
        assert status_of(f"unix://{run_dir / 'irisd.sock'}").pid == first.pid


def test_a_port_for_apps_that_is_taken(run: list[str], run_dir: Path) -> None:
    token = run_dir / "token"
    token.touch(0o600)
    token.write_text("a-token-of-enough-bytes\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(*irisd(*run, "--attach-tcp", address, "--token-file", str(token)), address, "choose another")
    token.chmod(0o644)
    refused(*irisd(*run, "--attach-tcp", "127.0.0.1:0", "--token-file", str(token)), "chmod 600")
    assert not (run_dir / "irisd.sock").exists()


def test_addresses_this_machine_does_not_have(run: list[str]) -> None:
    run[run.index("127.0.0.1:0")] = "192.0.2.1:0"
    refused(*irisd(*run), "192.0.2.1:0", "this machine has no such address")


def test_what_lies_where_the_socket_should_be(run: list[str], run_dir: Path) -> None:
    path = run_dir / "irisd.sock"
    path.write_text("precious")
    refused(*irisd(*run), "exists and is not a socket", "--socket")
    assert path.read_text() == "precious"
    path.unlink()
    path.mkdir()
    refused(*irisd(*run), "exists and is not a socket")


def test_a_socket_left_by_a_daemon_that_was_killed(run: list[str], run_dir: Path) -> None:
    with started(run, run_dir) as first:
        first.kill()
        first.wait(DEADLINE)
    assert (run_dir / "irisd.sock").is_socket()
    with started(run, run_dir) as second:
        assert status_of(f"unix://{run_dir / 'irisd.sock'}").pid == second.pid
        second.send_signal(signal.SIGTERM)
        assert second.wait(DEADLINE) == 0
    assert not (run_dir / "irisd.sock").exists()


def test_a_path_too_long_for_a_socket(run: list[str], run_dir: Path) -> None:
    run[-1] = str(run_dir / ("x" * 120))
    refused(*irisd(*run), "longer than the 107 bytes a system allows", "--socket")


@pytest.mark.parametrize("development", [True, False])
def test_runtime_folders_that_are_none(key: Path, run_dir: Path, development: bool) -> None:
    """As in containers and cron: what XDG_RUNTIME_DIR names is not there, or no folder."""
    words = [] if development else ["run", "--key", str(key), "--listen", "127.0.0.1:0"]
    file = run_dir / "file"
    file.touch()
    for runtime in (run_dir / "gone", file):
        refused(*irisd(*words, XDG_RUNTIME_DIR=str(runtime)), str(runtime), "--socket")


# ------------------------------------------------------------------------------ another user


@pytest.fixture
def as_nobody(run_dir: Path) -> Callable[..., tuple[int, str]]:
    """Run irisd as a user without rights; the modules are loaded before they are dropped."""
    if not ROOT:
        pytest.skip("only root can become another user")
    program = (
        "import sys, os, encodings.idna, irisd.cli, irisd.daemon, irisd.development, irisd.logs, uvloop\n"
        "os.chdir('/')\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "irisd.cli.main(sys.argv[1:])\n"
    )

    def run(*arguments: str, ready: str = "", **environment: str) -> tuple[int, str]:
        """To its end; or, with ``ready``, until it says that, and then SIGTERM."""
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        )
        assert process.stderr is not None
        said = ""
        with process.stderr:
            for line in process.stderr:
                said += line
                if ready and ready in line:
                    process.send_signal(signal.SIGTERM)
                    ready = ""
        return process.wait(DEADLINE), said

    return run


@pytest.fixture
def shared(run_dir: Path, key: Path) -> tuple[Path, Path]:
    """A folder that user may pass through, and a key of his."""
    run_dir.chmod(0o755)
    own = run_dir / "nobody.key"
    own.touch(0o600)
    own.write_bytes(key.read_bytes())
    os.chown(own, 65534, 65534)
    return run_dir, own


def test_a_user_who_may_not_write_there(as_nobody: Callable[..., tuple[int, str]], shared: tuple[Path, Path]) -> None:
    folder, own = shared
    listen = ("run", "--key", str(own), "--listen", "127.0.0.1:0")
    refused(*as_nobody(*listen, XDG_RUNTIME_DIR=str(folder)), str(folder / "irisd"), "Permission denied", "--socket")
    refused(*as_nobody(XDG_RUNTIME_DIR=str(folder)), str(folder / "irisd"), "Permission denied", "IRISD_SOCKET")
    (folder / "irisd").mkdir(0o755)  # made by root, as /run/irisd is
    refused(*as_nobody(*listen, XDG_RUNTIME_DIR=str(folder)), "is not writable for user 65534")
    refused(*as_nobody(XDG_RUNTIME_DIR=str(folder)), "is not writable for user 65534")
    own.chmod(0o400)
    os.chown(own, 0, 0)
    refused(*as_nobody(*listen, "--socket", str(folder / "x.sock")), "this user may not read it")


def test_a_port_only_root_may_use(as_nobody: Callable[..., tuple[int, str]], shared: tuple[Path, Path]) -> None:
    folder, own = shared
    words = ("run", "--key", str(own), "--listen", "127.0.0.1:80", "--socket", str(folder / "x.sock"))
    refused(*as_nobody(*words), "this user may not use the port; choose one above 1023")


def test_a_user_without_home_or_runtime_folder(
    as_nobody: Callable[..., tuple[int, str]], shared: tuple[Path, Path]
) -> None:
    """As cron starts things. Apps would not look there, so they are told where it is."""
    folder, _ = shared
    temporary = folder / "tmp"
    temporary.mkdir()
    os.chown(temporary, 65534, 65534)
    status, said = as_nobody(TMPDIR=str(temporary), IRISD_LISTEN="127.0.0.1:0", ready="for the second")
    assert status == 0, said
    assert f"Apps find the first with IRIS_URL=unix://{temporary}/irisd/irisd.sock" in said
    assert "Traceback" not in said


@pytest.mark.skipif(not ROOT, reason="only root may mount")
@pytest.mark.parametrize("made", [True, False])
def test_a_file_system_that_is_read_only(run_dir: Path, key: Path, made: bool) -> None:
    place = run_dir / "ro"
    (place / "irisd" if made else place).mkdir(parents=True)
    mount = f"mount --bind {place} {place} && mount -o remount,ro,bind {place}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounts are not permitted here")
    words = shlex.join([*IRISD, "run", "--key", str(key), "--listen", "127.0.0.1:0"])
    for command in (shlex.join(IRISD), words):
        ran = subprocess.run(
            ["unshare", "-m", "sh", "-c", f"{mount} && exec {command}"],
            env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(place)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
        )
        refused(ran.returncode, ran.stdout, str(place / "irisd"))


# ------------------------------------------------------------------------- streams and open files


@pytest.fixture
def shell(run_dir: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    begun: list[subprocess.Popen[bytes]] = []

    def begin(line: str) -> subprocess.Popen[bytes]:
        begun.append(subprocess.Popen(["sh", "-c", line], stdout=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]}))
        return begun[-1]

    yield begin
    for process in begun:
        if process.poll() is None:
            with contextlib.suppress(grpc.RpcError):
                os.kill(status_of(f"unix://{run_dir / 'irisd.sock'}").pid, signal.SIGKILL)
            process.kill()
        process.wait(DEADLINE)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", ">&- 2>&- <&-", "2>&1 | head -1"])
async def test_nobody_reads_the_log(
    shell: Callable[[str], subprocess.Popen[bytes]], run: list[str], run_dir: Path, redirection: str
) -> None:
    """A full disk, closed streams, a reader that leaves: the daemon serves, and ends well."""
    exited = run_dir / "exited"
    streams, _, pipe = redirection.partition(" | ")
    line = f"{{ {shlex.join([*IRISD, *run])} {streams}; echo $? > {exited}; }}" + (f" | {pipe}" if pipe else "")
    process = shell(line)
    path = run_dir / "irisd.sock"
    until("it listens", path.is_socket)
    async with neighbour(f"unix://{path}") as pair:
        await pair.more(20)
    os.kill(status_of(f"unix://{path}").pid, signal.SIGTERM)
    assert process.wait(DEADLINE) == 0
    assert exited.read_text() == "0\n"


def test_output_that_cannot_be_written(run_dir: Path) -> None:
    for words in ("keys new shop", "check"):
        line = f"{shlex.join([*IRISD, *words.split()])} > /dev/full"
        ran = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"]})
        refused(ran.returncode, ran.stderr, "the output cannot be written: No space left on device")


def test_too_few_open_files(run: list[str]) -> None:
    for limit in (10, 16, 24, 63):
        ran = subprocess.run(
            ["sh", "-c", f"ulimit -n {limit}; exec {shlex.join([*IRISD, *run])}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": os.environ["PATH"]},
            timeout=DEADLINE,
        )
        refused(ran.returncode, ran.stdout, f"may open {limit} files, a daemon needs 64", "ulimit -n")


async def test_no_open_files_left() -> None:
    """Connections take all there are: the apps that are here go on, the processor rests, and later all is well."""
    with daemons("oak") as mesh:
        url = url_of(mesh)
        status = status_of(url)
        resource.prlimit(status.pid, resource.RLIMIT_NOFILE, (96, 96))
        async with neighbour(url) as pair:
            for address in sorted({row.address for row in status.listeners}):
                held = []
                with contextlib.suppress(OSError):
                    held = [connect(address) for _ in range(150)]
                used = processor(status.pid)
                await pair.more(50)
                assert processor(status.pid) - used < 20 * 50  # ticks: not a busy loop over what it cannot accept
                for sock in held:
                    sock.close()
                await pair.more()
        assert status_of(url).pid == status.pid


def processor(pid: int) -> int:
    """Ticks of a hundredth of a second a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
