"""The mesh inside a test: does what a mesh does, and can be broken on purpose."""

from __future__ import annotations

import asyncio
import builtins
from typing import Any

import pytest

import iris_client as iris
from iris_client import testing
from iris_client._lane import LaneEnded


async def test_nodes_are_linked_and_can_be_cut():
    cluster = iris.Cluster("echo")
    cluster.on_request(lambda body: body)
    async with (
        testing.mesh(nodes=3) as local,
        local.connect(0) as caller,
        local.connect(2) as server,
        server.join(cluster),
    ):
        assert (await caller.request("echo", b"x")).body == b"x"
        local.cut(0, 2)
        with pytest.raises(iris.NoMember):
            await caller.request("echo", b"x")
        local.heal(0, 2)
        async with asyncio.timeout(2):
            while True:
                try:
                    await caller.request("echo", b"x")
                    break
                except iris.NoMember:
                    await asyncio.sleep(0)


async def test_two_meshes_do_not_see_each_other():
    cluster = iris.Cluster("echo")
    cluster.on_request(lambda body: body)
    async with (
        testing.mesh() as one,
        testing.mesh() as two,
        one.connect() as server,
        two.connect() as caller,
        server.join(cluster),
    ):
        with pytest.raises(iris.NoMember):
            await caller.request("echo")


async def test_a_node_that_was_stopped_is_no_longer_there():
    async with testing.mesh(nodes=2) as local:
        local.stop(0)
        local.stop(0)
        with pytest.raises(iris.DaemonUnavailable, match="no such node in this process is running"):
            await local.connect(0, timeout=0.05)
        local.start(0)
        async with local.connect(0):
            pass


async def test_garbage_ends_only_its_own_stream():
    async with testing.mesh() as local, local.connect() as mesh:
        lane = testing.open_lane(local.url().removeprefix("inproc://"))
        await lane.send([b"\xff", b"\xff\xff"])
        with pytest.raises(LaneEnded, match="INVALID_ARGUMENT"):
            await lane.receive()
        await lane.close()
        silent = testing.open_lane(local.url().removeprefix("inproc://"))
        await silent.send([])
        with pytest.raises(LaneEnded, match="must be HELLO"):
            await silent.receive()
        await silent.close()
        await mesh.flush()


@pytest.mark.parametrize("nodes", [0, 65, True, "2"])
def test_a_number_of_nodes(nodes: Any):
    with pytest.raises(iris.InvalidCall, match="1 to 64"):
        testing.mesh(nodes=nodes)


async def test_without_the_daemons_package(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("irisd"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(testing.TestingUnavailable, match=r"pip install 'iris-client\[testing\]'"):
        async with testing.mesh():
            pass
