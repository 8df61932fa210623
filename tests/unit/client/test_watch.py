"""Watches through real nodes."""

from __future__ import annotations

import asyncio

import pytest

import iris_client as iris
from iris_client.testing import LocalMesh


def echo(name: str = "echo") -> iris.Cluster:
    cluster = iris.Cluster(name)
    cluster.on_request(lambda body: body)
    return cluster


async def take(changes: iris.Watch, count: int) -> list[iris.Change]:
    """Read ``count`` changes, within a time."""
    found: list[iris.Change] = []
    async with asyncio.timeout(5):
        async for change in changes:
            found.append(change)
            if len(found) == count:
                break
    return found


def watches(local: LocalMesh, node: int = 0) -> int:
    """How many watches a node has."""
    inner = local._nodes[node]._node
    assert inner is not None
    return sum(len(app.watches) for app in inner.core.apps.values())


async def until_watches(local: LocalMesh, wanted: int, node: int = 0) -> None:
    async with asyncio.timeout(5):
        while watches(local, node) != wanted:
            await asyncio.sleep(0)


async def test_members_come_and_go(local: LocalMesh, caller: iris.Mesh, server: iris.Mesh):
    async with caller.watch("echo") as changes:
        assert changes.cluster == "echo"
        assert await changes.picture() == []
        async with server.join(echo()), caller.join(echo("other")):
            [came] = await take(changes, 1)
            assert (came.cluster, came.members, came.state, came.present, came.lost) == ("echo", 1, "alive", False, 0)
            assert (came.node, came.name) == (server.node, local._nodes[1].name)
        [went] = await take(changes, 1)
        assert (went.cluster, went.members, went.node) == ("echo", 0, server.node)
        assert changes.lost == 0


async def test_the_picture_is_told_at_once_or_in_passing(local: LocalMesh, caller: iris.Mesh, server: iris.Mesh):
    async with server.join(echo()):
        async with caller.watch() as changes:
            picture = await changes.picture()
            assert [(c.state, c.cluster, c.members) for c in picture] == [
                ("self", "", 0),
                ("alive", "", 0),
                ("alive", "echo", 1),
            ]
            assert {change.node for change in picture} == {caller.node, server.node}
            assert all(change.present for change in picture)
            assert await changes.picture() == []
        async with caller.watch() as changes:
            assert await take(changes, 1) == picture[:1]
            assert await changes.picture() == picture[1:]
        seen = []
        async for change in caller.watch("echo"):
            seen.append(change)
            if change.cluster:
                break
        assert seen == picture[1:]


async def test_leaving_a_loop_ends_the_watch_at_the_daemon(local: LocalMesh, caller: iris.Mesh):
    async for _ in caller.watch():
        assert watches(local) == 1
        break
    await until_watches(local, 0)
    with pytest.raises(ZeroDivisionError):
        async for _ in caller.watch():
            1 / 0  # noqa: B018
    await until_watches(local, 0)
    async with caller.watch():
        await until_watches(local, 1)
    await until_watches(local, 0)


async def test_a_node_that_goes_takes_its_members_along(local: LocalMesh, caller: iris.Mesh, server: iris.Mesh):
    async with server.join(echo()), caller.watch() as changes:
        there = server.node
        await changes.picture()
        local.stop(1)
        node, members = await take(changes, 2)
        assert (node.node, node.cluster, node.present) == (there, "", False)
        assert node.state in ("suspect", "dead")
        assert node.reason
        assert (members.node, members.cluster, members.members) == (there, "echo", 0)
        local.start(1)
        async with asyncio.timeout(5):
            back = [await anext(changes) for _ in range(2)]
        assert (back[0].state, back[0].cluster) == ("alive", "")
        assert back[0].node != there
        assert (back[1].cluster, back[1].members) == ("echo", 1)


async def test_after_a_reconnect_the_picture_comes_anew(local: LocalMesh, caller: iris.Mesh, server: iris.Mesh):
    async with server.join(echo()), caller.watch("echo") as changes:
        await changes.picture()
        local.stop(0)
        local.start(0)
        found: list[iris.Change] = []
        async with asyncio.timeout(10):
            while not any(change.cluster and change.members for change in found):
                found.append(await anext(changes))
        assert [change.lost for change in found] == [None] + [0] * (len(found) - 1)
        assert found[-1].node == server.node


async def test_a_closed_mesh_ends_the_iteration(local: LocalMesh):
    async with local.connect() as mesh:
        changes = await mesh.watch().__aenter__()
    await changes.picture()
    with pytest.raises(iris.MeshClosed):
        await anext(changes)


async def test_leaving_ends_who_reads(caller: iris.Mesh):
    watch = caller.watch("echo")
    with pytest.raises(RuntimeError, match="not watching yet"):
        await watch.picture()
    async with watch as changes:
        reader = asyncio.create_task(take(changes, 1))
        await asyncio.sleep(0)
    assert await reader == []
    with pytest.raises(RuntimeError, match="entered once"):
        await watch.__aenter__()


async def test_cancelling_loses_nothing(caller: iris.Mesh, server: iris.Mesh):
    async with caller.watch("echo") as changes:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(changes)
        async with server.join(echo()):
            assert (await take(changes, 1))[0].members == 1


async def test_many_watches_of_one_app(local: LocalMesh, caller: iris.Mesh, server: iris.Mesh):
    async with caller.watch() as everything, caller.watch("echo") as some, caller.watch("other") as none:
        await everything.picture()
        async with server.join(echo()):
            assert (await take(everything, 1)) == (await take(some, 1))
        assert await none.picture() == []


@pytest.mark.parametrize("name", ["no such", "a..b", "_iris.x", "shop/db", "db@rome"])
async def test_bad_names(caller: iris.Mesh, name: str):
    with pytest.raises(iris.InvalidName):
        caller.watch(name)


async def test_a_mesh_that_is_closed_watches_nothing(local: LocalMesh):
    mesh = await local.connect()
    await mesh.close()
    with pytest.raises(iris.MeshClosed):
        mesh.watch()
