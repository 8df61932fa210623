"""What operators see of a mesh at work: rates, members, traces, in a terminal and elsewhere."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from .cli_iris_ground import DEADLINE, Mesh, environment, until


@pytest.fixture
def mesh(run_dir):
    mesh = Mesh(run_dir)
    yield mesh
    mesh.end()


@contextmanager
def two_at_work(mesh: Mesh) -> Iterator[None]:
    mesh.daemon("oak")
    mesh.daemon("elm")
    mesh.await_peers(1)
    mesh.await_peers(1, on="elm")
    with mesh.serving("echo", "--echo", on="elm"):
        mesh.await_members("echo", 1, on="elm")
        mesh.background("request", "echo", "hello", "--repeat", "10000000", "--concurrency", "4")
        yield


def test_top(mesh):
    with two_at_work(mesh):
        told = mesh.background("top", "--json", "--interval", "200ms")
        until("three looks", lambda: told.out.count(b"\n") >= 3)
        assert told.told(signal.SIGINT) == 0
        assert told.err == ""
        looks = [json.loads(line) for line in told.out.splitlines()]
        assert all(0.1 < look["seconds"] < 5 for look in looks)
        [service] = looks[-1]["services"]
        assert (service["service"], service["nodes"], service["links"], service["attachments"]) == ("shop", 2, 1, 1)
        [cluster] = service["clusters"]
        assert (cluster["cluster"], cluster["members"], cluster["nodes"]) == ("echo", 1, 1)
        assert cluster["called"]["calls_per_second"] > 10
        assert 0 < cluster["called"]["p50"] <= cluster["called"]["p99"] < 5
        assert cluster["served"]["members"] == 0

        [far] = json.loads(mesh.iris("top", "--json", "--once", "--interval", "200ms", on="elm").stdout)["services"]
        [cluster] = far["clusters"]
        assert cluster["called"]["answered"] == 0
        assert cluster["served"]["calls_per_second"] > 10
        [member] = far["members"]
        assert member["member"].startswith("iris@elm/")

        shown = mesh.iris("top", "--once", "--interval", "200ms").stdout.decode()
        assert shown.startswith("oak: irisd ")
        assert re.search(r"^echo +1 +1 +0 ", shown, re.MULTILINE)
        assert "\x1b" not in shown


def test_top_in_a_terminal(mesh):
    with two_at_work(mesh):
        pid, terminal = pty.fork()
        if pid == 0:
            env = environment(IRIS_URL=f"unix://{mesh.socket('oak')}", TERM="xterm")
            os.execve(sys.executable, [sys.executable, "-m", "iris_client.cli", "top", "--interval", "100ms"], env)
        seen = bytearray()

        def read() -> bytes:
            if select.select([terminal], [], [], 0.05)[0]:
                with suppress(OSError):  # the other side has closed it
                    seen.extend(os.read(terminal, 65536))
            return bytes(seen)

        def size(lines: int, columns: int) -> None:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

        try:
            size(30, 100)
            until("rates are shown", lambda: re.search(rb"echo +1 +1 +0 +\d+ +[\d,]+ ", read()))
            assert seen.startswith(b"\x1b[?1049h\x1b[?25l")
            size(6, 20)
            os.kill(pid, signal.SIGWINCH)

            def fits() -> bool:
                drawn = re.sub(rb"\x1b\[[KJ]|\r", b"", read().split(b"\x1b[H")[-2]).split(b"\n")
                return len(drawn) <= 6 and max(map(len, drawn)) == 20

            until("it is drawn anew, and fits", fits)
            os.write(terminal, b"\x03")
            until("the terminal is as it was", lambda: b"\x1b[?25h\x1b[?1049l" in read())
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            pid = 0
        finally:
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            os.close(terminal)


def test_top_outlives_its_daemon(mesh):
    mesh.daemon("oak")
    told = mesh.background("top", "--json", "--interval", "100ms", "--timeout", "20s")
    until("it looks", lambda: told.out.count(b"\n") >= 1)
    mesh._daemons["oak"].told(signal.SIGTERM)
    mesh.daemon("oak")
    looks = told.out.count(b"\n")
    until("it looks again", lambda: told.out.count(b"\n") >= looks + 2)
    assert told.told(signal.SIGTERM) == 0


def test_trace(mesh):
    with two_at_work(mesh):
        told = mesh.json("trace", "echo")
        assert told["outcome"] in ("handed", "waits")
        nodes, members = told["hops"]
        assert (nodes["name"], nodes["chosen"], members["name"]) == ("oak", "elm", "elm")
        assert 0 < members["took"] < 2
        [candidate] = members["candidates"]
        assert candidate["name"].startswith("iris@elm/")
        near = mesh.json("trace", "echo", on="elm")
        assert [hop["name"] for hop in near["hops"]] == ["elm", "elm"]
        shown = mesh.iris("trace", "echo", "--method", "get", "--key", "k").stdout.decode()
        assert "1. oak chooses a node: hash, the call has a key" in shown
        assert "2. elm chooses a member" in shown
        assert "method get" in shown


def test_trace_says_why_nobody_takes_it(mesh):
    mesh.daemon("oak")
    result = mesh.iris("trace", "nobody", check=False)
    assert (result.returncode, result.stderr) == (3, b"")
    assert result.stdout.endswith(b"no-member: nobody serves 'nobody'\n")
    with mesh.serving("shout", "--", "cat"):
        result = mesh.iris("trace", "shout", "--pattern", "tunnel", "--json", check=False)
        assert result.returncode == 3
        assert json.loads(result.stdout)["detail"] == "members of 'shout' handle no tunnels"
    assert mesh.iris("trace", "no spaces", check=False).returncode == 2
    assert mesh.iris("trace", "x", "--service", "bank", check=False).returncode == 4


def test_completion_knows_them(mesh):
    mesh.daemon("oak")

    def completed(*words: str) -> str:
        env = environment(
            IRIS_URL=f"unix://{mesh.socket('oak')}",
            _IRIS_COMPLETE="bash_complete",
            COMP_WORDS=" ".join(("iris", *words)),
            COMP_CWORD=str(len(words)),
        )
        command = [sys.executable, "-m", "iris_client.cli"]
        return subprocess.run(command, env=env, capture_output=True, check=True, timeout=DEADLINE, text=True).stdout

    assert {"plain,top", "plain,trace"} <= set(completed("t").split())
    assert "plain,tunnel" in completed("trace", "--pattern", "t")
    assert "plain,--once" in completed("top", "--o")
    with mesh.serving("shout", "--", "cat"):
        ends = time.monotonic() + DEADLINE
        while "plain,shout" not in completed("trace", "sh"):
            assert time.monotonic() < ends
