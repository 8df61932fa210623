"""A command that answers: its input is the message, its output the answer, its life no longer than the caller waits."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final

from iris_client._model import KiB

TAIL_BYTES: Final = 2 * KiB
"""How much of a command's standard error its caller is told."""
KILL_GRACE: Final = 2.0
"""Seconds between SIGTERM and SIGKILL."""

_OWN = re.compile(r"IRIS_(HEADER_.*|METHOD|SENDER|CLUSTER|PATTERN|CONTENT_TYPE|TIMEOUT)")
_NOT_IN_A_NAME = re.compile(r"[^A-Z0-9_]")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: Its exit status; the negated signal that ended it.
        output: What it wrote to standard output.
        tail: The last it wrote to standard error.
        truncated: It wrote more than it may; it was ended for it.
    """

    status: int
    output: bytes
    tail: str
    truncated: bool = False

    @property
    def code(self) -> str:
        """A word for programs: ``exit-3``, ``signal-9``."""
        return f"exit-{self.status}" if self.status >= 0 else f"signal-{-self.status}"


def environment(
    base: Mapping[str, str],
    *,
    cluster: str,
    pattern: str,
    method: str = "",
    sender: str = "",
    content_type: str = "",
    timeout: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """What a command finds in its environment about the message it answers.

    Args:
        base: What it inherits. What an outer message left in it is taken out.
        cluster: Whose member answers.
        pattern: ``request``, ``push``, ``broadcast``, ``survey`` or ``tunnel``.
        method: As the sender asked.
        sender: Who asks.
        content_type: What the body is, if its sender said.
        timeout: Seconds the caller still waits; None when nobody waits.
        headers: Each becomes ``IRIS_HEADER_<KEY>``, in capitals, all else but letters and digits as ``_``.

    Raises:
        ValueError: A value holds a zero byte, which no environment can carry.
    """
    found = {key: value for key, value in base.items() if not _OWN.fullmatch(key)}
    own = {
        "IRIS_CLUSTER": cluster,
        "IRIS_PATTERN": pattern,
        "IRIS_METHOD": method,
        "IRIS_SENDER": sender,
        "IRIS_CONTENT_TYPE": content_type,
        "IRIS_TIMEOUT": "" if timeout is None else f"{timeout:.3f}",
    }
    for key, value in (headers or {}).items():
        own["IRIS_HEADER_" + _NOT_IN_A_NAME.sub("_", key.upper())] = value
    for key, value in own.items():
        if "\0" in value:
            raise ValueError(f"{key} holds a zero byte")
    return found | own


class Child:
    """A command that was started, in a process group of its own so that what it starts can be ended with it.

    Attributes:
        process: The process; its standard input and output are pipes.
    """

    _running: ClassVar[set[Child]] = set()

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._running.add(self)
        self._tail = bytearray()
        self._errors = asyncio.create_task(self._read_errors(), name="iris-command-stderr")

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str]) -> Child:
        """Start a command. Cancelled, it leaves nothing running.

        Raises:
            OSError: It cannot be started.
        """
        starting = asyncio.create_task(
            asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=env,
                start_new_session=True,
            ),
            name="iris-command-start",
        )
        try:
            return cls(await asyncio.shield(starting))
        except asyncio.CancelledError:
            # asyncio cannot undo a process that is half made: it would wait for ever. Made whole, it can be ended.
            await asyncio.wait((starting,))
            if starting.exception() is None:
                await cls(starting.result()).end()
            raise

    @property
    def stdin(self) -> asyncio.StreamWriter:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader:
        assert self.process.stdout is not None
        return self.process.stdout

    async def feed(self, body: bytes) -> None:
        """Write the whole input and close it. A command that does not read it is no error: it may not need it."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.stdin.write(body)
            await self.stdin.drain()
        self.stdin.close()
        with suppress(BrokenPipeError, ConnectionResetError):
            await self.stdin.wait_closed()

    async def wait(self) -> int:
        """Wait until the command has ended and everything it said was read; return its status."""
        status = await self.process.wait()
        await self._errors
        self._running.discard(self)
        return status

    async def end(self) -> None:
        """End the command and what it started: SIGTERM, and SIGKILL for what does not heed it in time."""
        discarding = asyncio.create_task(self._discard(), name="iris-command-discard")
        try:
            self._signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(KILL_GRACE):
                    # Whoever still holds the pipes open is still there.
                    await asyncio.gather(discarding, self._errors, self.process.wait())
            self.kill()
        finally:
            self._running.discard(self)
            discarding.cancel()
            self._errors.cancel()
            # Pipes may be held open by what left the process group: without closing them, wait would not return.
            self.process._transport.close()  # type: ignore[attr-defined]
        await self.process.wait()

    @property
    def tail(self) -> str:
        """The last lines of standard error, decoded as well as can be."""
        return bytes(self._tail).decode(errors="replace").strip()

    def kill(self) -> None:
        """End the command and what it started, now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    async def _discard(self) -> None:
        while await self.stdout.read(64 * KiB):
            pass

    async def _read_errors(self) -> None:
        """Pass standard error on to ours, and keep its end for the caller."""
        assert self.process.stderr is not None
        while chunk := await self.process.stderr.read(64 * KiB):
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
            self._tail += chunk
            del self._tail[:-TAIL_BYTES]


def end_all() -> None:
    """End every command that is still running: this process is about to be gone."""
    for child in Child._running:
        child.kill()


async def answer(argv: Sequence[str], body: bytes, env: Mapping[str, str], max_output: int) -> Outcome:
    """Run a command over one message. Cancelled, it ends the command and all it started.

    Args:
        argv: The command and its arguments; no shell.
        body: Its standard input.
        env: Its environment.
        max_output: Most bytes of output to take.

    Raises:
        OSError: The command cannot be started.
    """
    child = await Child.start(argv, env)
    feeding = asyncio.create_task(child.feed(body), name="iris-command-stdin")
    ended = False
    try:
        output = bytearray()
        while chunk := await child.stdout.read(64 * KiB):
            output += chunk
            if len(output) > max_output:
                return Outcome(child.process.returncode or 0, b"", child.tail, truncated=True)
        status = await child.wait()
        ended = True
        return Outcome(status, bytes(output), child.tail)
    finally:
        if not ended:
            await child.end()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
