"""A mesh in this process, and the commands' own functions run on its event loop."""

from __future__ import annotations

import asyncio
import inspect
import io
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import click
import pytest
import pytest_asyncio

from iris_client import testing
from iris_client.cli.options import Settings


class Shell:
    """Runs commands against a mesh, as ``iris`` would: the same functions, without a process around them."""

    def __init__(self, local: testing.LocalMesh, monkeypatch: pytest.MonkeyPatch) -> None:
        self.local = local
        self._monkeypatch = monkeypatch

    def stdin(self, data: bytes) -> None:
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    async def __call__(self, command: click.Command, *argv: str, json: bool = False, timeout: float = 5.0):
        """Parse ``argv`` as the command's own arguments and run it; return what it returned."""
        assert command.callback is not None
        with command.make_context(command.name, list(argv)) as ctx:
            arguments = dict(ctx.params)
        for name in ("url", "service", "token_file", "as_json", "timeout"):
            arguments.pop(name)
        function: Callable[..., Awaitable[Any]] = inspect.unwrap(command.callback)
        return await function(Settings(url=self.local.url(), json=json, timeout=timeout), **arguments)


@pytest_asyncio.fixture
async def shell(monkeypatch) -> AsyncIterator[Shell]:
    monkeypatch.setenv("NO_COLOR", "1")
    async with testing.mesh() as local:
        yield Shell(local, monkeypatch)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a state others bring about on this loop."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)
