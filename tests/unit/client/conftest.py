"""Meshes inside tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

import iris_client as iris
from iris_client import testing
from iris_client.testing import LocalMesh


@pytest_asyncio.fixture
async def local() -> AsyncIterator[LocalMesh]:
    """Two linked nodes."""
    async with testing.mesh(nodes=2) as mesh:
        yield mesh


@pytest_asyncio.fixture
async def caller(local: LocalMesh) -> AsyncIterator[iris.Mesh]:
    """An app on the first node."""
    async with local.connect(0, name="caller") as mesh:
        yield mesh


@pytest_asyncio.fixture
async def server(local: LocalMesh) -> AsyncIterator[iris.Mesh]:
    """An app on the second node."""
    async with local.connect(1, name="server") as mesh:
        yield mesh
