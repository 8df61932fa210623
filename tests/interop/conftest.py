"""What the conversations with other implementations share."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from irisd.sp import Framing
from tests.interop.sp_glue import StartTool, Tool, free_url


@pytest.fixture(params=Framing, ids=lambda framing: framing.value)
def framing(request: pytest.FixtureRequest) -> Framing:
    return Framing(request.param)


@pytest.fixture
def url(framing: Framing, run_dir: Path) -> str:
    return free_url(framing, run_dir)


@pytest_asyncio.fixture
async def start_tool() -> AsyncIterator[StartTool]:
    """Start command-line peers by name; skip where they are not installed; end them by themselves at the end."""
    started: list[asyncio.subprocess.Process] = []

    async def start(name: str, *arguments: str) -> Tool:
        path = shutil.which(name)
        if path is None:
            package = {"nngcat": "nng-utils", "nanocat": "nanomsg-utils"}[name]
            pytest.skip(f"{name} is not installed (package {package})")
        process = await asyncio.create_subprocess_exec(
            path,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return Tool(process)

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()
