"""Apps of their own process for the tests that kill: a script beside the tests, started, awaited, killed by pid."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

START_TIMEOUT = 60.0
"""Seconds an app may take to come up on a loaded machine."""


class AppProcess:
    """One app; says ``ready`` on its first line of output.

    Args:
        script: Its file in this folder.
        arguments: Its command line.
        log: Where its errors go.
    """

    def __init__(self, script: str, *arguments: str, log: Path | None = None) -> None:
        self._command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the last start."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it; :meth:`ready` waits for it."""
        errors = os.open(self._log or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=errors
            )
        finally:
            os.close(errors)

    async def ready(self) -> None:
        """Wait until it serves."""
        assert self._process is not None and self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START_TIMEOUT)
        assert line == b"ready\n", "an app did not come up"

    def signal(self, number: int) -> None:
        """Send it a signal; one that has ended is ordinary."""
        assert self._process is not None, "not started"
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            await self._process.wait()


def numbers_in(logs: Iterable[Path]) -> list[int]:
    """What members wrote down, a number a line."""
    return [int(line) for log in logs if log.exists() for line in log.read_text().split() if line.isdigit()]
