"""A command that answers: what it gets, what comes back, and that nothing of it stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress

import pytest

from iris_client.cli.command import TAIL_BYTES, Child, answer, end_all, environment

from .conftest import until

ENV = {"PATH": os.environ["PATH"]}
LIMIT = 1 << 20


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_environment():
    found = environment(
        {"PATH": "/bin", "IRIS_URL": "unix:///x", "IRIS_HEADER_OLD": "outer", "IRIS_METHOD": "outer"},
        cluster="shop",
        pattern="request",
        sender="cli@oak",
        timeout=1.23456,
        headers={"trace-id": "7", "größe": "8", "PATH": "/evil"},
    )
    assert found == {
        "PATH": "/bin",
        "IRIS_URL": "unix:///x",
        "IRIS_CLUSTER": "shop",
        "IRIS_PATTERN": "request",
        "IRIS_METHOD": "",
        "IRIS_SENDER": "cli@oak",
        "IRIS_CONTENT_TYPE": "",
        "IRIS_TIMEOUT": "1.235",
        "IRIS_HEADER_TRACE_ID": "7",
        "IRIS_HEADER_GR_SSE": "8",
        "IRIS_HEADER_PATH": "/evil",
    }


def test_nobody_waits_for_a_push():
    assert environment({}, cluster="c", pattern="push")["IRIS_TIMEOUT"] == ""


def test_a_zero_byte_has_no_place_in_an_environment():
    with pytest.raises(ValueError, match="IRIS_HEADER_A holds a zero byte"):
        environment({}, cluster="c", pattern="request", headers={"a": "x\0y"})


async def test_input_and_output_are_bytes():
    body = bytes(range(256)) * 2000
    outcome = await answer(["cat"], body, ENV, LIMIT)
    assert (outcome.status, outcome.output, outcome.tail) == (0, body, "")
    assert outcome.code == "exit-0"


async def test_the_environment_arrives():
    outcome = await answer(sh("printf %s $IRIS_METHOD"), b"", ENV | {"IRIS_METHOD": "get"}, LIMIT)
    assert outcome.output == b"get"


async def test_failure_tells_the_status_and_the_last_words(capfd):
    outcome = await answer(sh("echo some; echo oops >&2; exit 3"), b"", ENV, LIMIT)
    assert (outcome.status, outcome.code, outcome.output, outcome.tail) == (3, "exit-3", b"some\n", "oops")
    assert capfd.readouterr().err == "oops\n"


async def test_a_signal_is_told():
    outcome = await answer(sh("kill -KILL $$"), b"", ENV, LIMIT)
    assert (outcome.status, outcome.code) == (-9, "signal-9")


async def test_the_last_words_are_bounded(capfd):
    outcome = await answer(sh("yes | head -c 100000 >&2; echo end >&2"), b"", ENV, LIMIT)
    assert outcome.tail.endswith("end")
    assert len(outcome.tail) <= TAIL_BYTES
    assert len(capfd.readouterr().err) == 100_004


async def test_a_command_need_not_read_its_input():
    outcome = await answer(["true"], b"x" * 1_000_000, ENV, LIMIT)
    assert outcome.status == 0


async def test_too_much_output_ends_the_command():
    async with asyncio.timeout(10):
        outcome = await answer(["yes"], b"", ENV, 1000)
    assert outcome.truncated


async def test_a_command_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        await answer(["/nonexistent/command"], b"", ENV, LIMIT)


def gone(pid: int) -> bool:
    """Whether the process has ended (an orphan that nobody reaps yet has ended too)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"
    return False


async def until_gone(*pids: int) -> None:
    await until(lambda: all(gone(pid) for pid in pids))


async def pids_from(path) -> list[int]:
    await until(lambda: path.exists() and path.read_text().endswith("\n"))
    return [int(word) for word in path.read_text().split()]


async def test_cancelling_ends_the_command_and_what_it_started(tmp_path):
    notes = tmp_path / "pids"
    running = asyncio.create_task(answer(sh(f"sleep 100 & echo $$ $! > {notes}; wait"), b"", ENV, LIMIT))
    pids = await pids_from(notes)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until_gone(*pids)


async def test_a_command_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("iris_client.cli.command.KILL_GRACE", 0.1)
    notes = tmp_path / "pids"
    script = f"trap '' TERM; echo $$ > {notes}; while true; do sleep 1; done"
    running = asyncio.create_task(answer(sh(script), b"", ENV, LIMIT))
    pids = await pids_from(notes)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until_gone(*pids)


async def test_a_command_may_clean_up_after_sigterm(tmp_path):
    notes, cleaned = tmp_path / "pids", tmp_path / "cleaned"
    script = f"trap 'touch {cleaned}; exit 0' TERM; echo $$ > {notes}; while true; do sleep 0.05; done"
    running = asyncio.create_task(answer(sh(script), b"", ENV, LIMIT))
    await pids_from(notes)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cleaned.exists()


async def test_what_a_command_left_running_holds_its_output_until_cancelled(tmp_path):
    notes = tmp_path / "pids"
    running = asyncio.create_task(answer(sh(f"sleep 100 & echo $! > {notes}"), b"", ENV, LIMIT))
    [left] = await pids_from(notes)
    started = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - started < 5
    await until_gone(left)


async def test_many_at_once_leave_nothing_open():
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    outcomes = await asyncio.gather(*(answer(["cat"], b"%d" % i, ENV, LIMIT) for i in range(20)))
    assert [outcome.output for outcome in outcomes] == [b"%d" % i for i in range(20)]
    if sys.platform == "linux":
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_all_can_be_ended_at_once(tmp_path):
    notes = tmp_path / "pids"
    child = await Child.start(sh(f"echo $$ > {notes}; sleep 100"), ENV)
    pids = await pids_from(notes)
    end_all()
    assert await child.wait() == -signal.SIGKILL
    await until_gone(*pids)
    await child.end()


async def test_cancelling_at_any_step_leaves_nothing(tmp_path):
    """A process takes a few steps of the loop to be made; being cancelled between them must not leave half of one."""
    for steps in range(40):
        running = asyncio.create_task(answer(["sleep", "100"], b"x", ENV, LIMIT))
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await running
    assert not Child._running
