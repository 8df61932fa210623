"""Processes of a measurement: workers and servers. Whoever starts one ends it, whatever happens."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

TIMEOUT = 240.0
START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0
MAX_LINE = 2**24

JSON = dict[str, Any]

_PDEATHSIG = 1
_RAISED = re.compile(r"[\w.]+(Error|Exception|Unavailable|Group|Lost|Timeout)\w*: ")
"""How the last line of a traceback begins; what follows it may be advice."""
_libc = ctypes.CDLL(None)


class Failed(Exception):
    """A system could not do its part. The message is for people, one line."""


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_words(file: IO[bytes]) -> str:
    """The last line of a process's standard error."""
    file.seek(0)
    lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line)]
    return (raised or lines or ["no word"])[-1].strip()[:300]


class Worker:
    """One role in a process of its own. It says what it has to say in lines of JSON, and ends with its input."""

    def __init__(self, role: str, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self.role = role
        self._process = process
        self._errors = errors

    @property
    def pid(self) -> int:
        return self._process.pid

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.write(b"go\n")

    async def says(self, word: str, timeout: float = TIMEOUT) -> Any:
        """Wait for one line and return what it holds under ``word``.

        Raises:
            Failed: It said something else, nothing in time, or ended.
        """
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout)
        except TimeoutError:
            raise Failed(f"{self.role}: not {word} within {timeout:.0f} s ({last_words(self._errors)})") from None
        if not line:
            raise Failed(f"{self.role}: {last_words(self._errors)}")
        said: JSON = json.loads(line)
        if word not in said:
            raise Failed(f"{self.role}: {said}")
        return said[word]

    async def end(self) -> None:
        """Close its input and, should that not be enough, kill it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                self._process.kill()
            raise
        finally:
            self._errors.close()


@asynccontextmanager
async def worker(spec: JSON, environment: Mapping[str, str]) -> AsyncIterator[Worker]:
    """Run ``bench.worker`` with a role; it is gone when the context is left."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.worker",
        json.dumps(spec),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env={**os.environ, **environment},
        limit=MAX_LINE,
        start_new_session=True,  # Ctrl-C is the driver's to handle
    )
    running = Worker(str(spec["role"]), process, errors)
    try:
        yield running
    finally:
        await running.end()


def _end_with_driver() -> None:
    """Have the kernel end this process when the driver is killed and can end nothing any more."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PDEATHSIG, signal.SIGTERM)


@asynccontextmanager
async def server(
    command: Sequence[str | Path],
    port: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> AsyncIterator[int]:
    """Run a system's server until the context is left; entered when it takes connections. Yields its pid.

    Raises:
        Failed: It ended, or takes no connection in time.
    """
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_end_with_driver,
        )
    try:
        await _answers(process, port, log)
        yield process.pid
    finally:
        await _stop(process)


async def _answers(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    name = log.stem
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while process.returncode is None:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Failed(f"{name} takes no connection within {START_TIMEOUT:.0f} s") from None
    with log.open("rb") as words:
        raise Failed(f"{name} ended at its start: {last_words(words)}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask the process, then tell it; what it started is in its session and goes with it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
    except TimeoutError:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
