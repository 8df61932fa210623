"""The local lane's socket speaks PAIR1: others are understood, and turned away without a ticket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from irisd.attach import AttachServer, UnixSocket
from tests.integration.attach_glue import PATIENCE, Apps, Source, app_at, running
from tests.interop.sp_glue import StartTool

pytestmark = pytest.mark.interop


async def test_nngcat_is_understood_and_turned_away(run_dir: Path, start_tool: StartTool) -> None:
    server = AttachServer(Apps(), Source(), [UnixSocket(run_dir / "irisd.sock")])
    async with running(server) as urls, app_at(urls[0], lane="local") as app:
        await app.hello()
        lane = server._listeners[0].lane
        assert lane is not None
        await start_tool("nngcat", "--pair1", "--dial", f"ipc://{lane.path}", "-D", "let me in")
        async with asyncio.timeout(PATIENCE):
            while not lane.refused["no-ticket"]:
                await app.ping()
        await app.ping()
