"""Real daemons and real app processes for the SDK's tests."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

PATIENCE = 20.0
"""Seconds for anything that should take milliseconds."""


class DaemonProcess:
    """An ``irisd`` with its socket in ``folder``; started, killed and started again at will."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.socket = folder / f"{name}.sock"
        self.url = f"unix://{self.socket}"
        self.log = folder / f"{name}.log"
        self._command = [
            sys.executable, "-m", "irisd", "run", "--name", name, "--socket", str(self.socket),
            "--listen", "127.0.0.1:0", "--preset", "local", "--multicast", "off", "--log-format", "json", *arguments,
        ]  # fmt: skip
        self._environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> DaemonProcess:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        return self

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """Tell it to stop, and do not wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(PATIENCE)

    def _end(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)

    async def told(self, pattern: str) -> str:
        """Wait until the log has ``pattern``; return its first group, or the match."""
        async with asyncio.timeout(PATIENCE):
            while True:
                assert self._process is not None
                text = self.log.read_text() if self.log.exists() else ""
                if found := re.search(pattern, text):
                    return found.group(found.lastindex or 0)
                assert self._process.poll() is None, f"the daemon ended: {text}"
                await asyncio.sleep(0.01)  # between two looks at the state that is awaited


def new_key(folder: Path, service: str = "shop") -> Path:
    """Make a service key."""
    path = folder / f"{service}.key"
    made = subprocess.run(
        [sys.executable, "-m", "irisd", "keys", "new", service, "--output", str(path)],
        check=True, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    assert made.returncode == 0
    return path


class App:
    """A Python program of an app, in a process of its own; it says things on standard output, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, program: str, *arguments: str, **environment: str) -> App:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-X", "dev", "-c", program, *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **environment},
        )  # fmt: skip
        return cls(process)

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self.process.stdout.readline()
        if not line:
            _, errors = await self.process.communicate()
            raise AssertionError(f"the app said nothing more:\n{errors.decode()}")
        return line.decode().strip()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and what it said on standard error."""
        async with asyncio.timeout(PATIENCE):
            _, errors = await self.process.communicate()
        assert self.process.returncode is not None
        # asyncio's debug mode tells of callbacks that a busy machine made slow; that is not the app's doing
        said = [line for line in errors.decode().splitlines(keepends=True) if not line.startswith("Executing <")]
        return self.process.returncode, "".join(said)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.ended()
