"""Where attachments are tested: a server on a Unix socket, with the limits a test asks for by ``with_limits``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from irisd.attach import AttachLimits
from tests.integration.attach_glue import LIMITS, Ground, ground_in


@pytest.fixture
def limits() -> AttachLimits:
    return LIMITS


@pytest_asyncio.fixture
async def ground(run_dir: Path, limits: AttachLimits) -> AsyncIterator[Ground]:
    async with ground_in(run_dir, limits) as ground:
        yield ground
