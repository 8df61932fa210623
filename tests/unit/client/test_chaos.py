"""Requests while nodes crash and come back and apps vanish: one outcome each, in time, and nothing left behind."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from random import Random

import pytest

import iris_client as iris
from iris_client import Executed, testing
from iris_client._large import PROCESS
from iris_client.testing import LocalMesh

NODES = 3
CALLERS = 16
REQUESTS = 60
TIMEOUT = 1.0


async def serve(local: LocalMesh, node: int, runs: Counter[bytes], random: Random) -> None:
    """A member whose app comes and goes."""
    cluster = iris.Cluster("work", concurrency=8)

    @cluster.on_request
    async def work(body: bytes) -> bytes:
        runs[body.rstrip()] += 1
        await asyncio.sleep(random.random() * 0.004)
        if random.random() < 0.1:
            raise iris.Reject("not today")
        return body

    while True:
        mesh = local.connect(node, timeout=10.0)
        async with mesh:
            joining = mesh.join(cluster)
            await joining.__aenter__()
            await asyncio.sleep(0.02 + random.random() * 0.1)
            await joining.leave(timeout=0.0)
            await mesh.close(timeout=0.0)


async def crash(local: LocalMesh, random: Random) -> None:
    """Nodes die, one at a time, and come back; links break and heal."""
    while True:
        await asyncio.sleep(0.01 + random.random() * 0.04)
        node, other = random.sample(range(NODES), 2)
        if random.random() < 0.5:
            local.stop(node)
            await asyncio.sleep(random.random() * 0.02)
            local.start(node)
        else:
            local.cut(node, other)
            await asyncio.sleep(random.random() * 0.02)
            local.heal(node, other)


async def ask(mesh: iris.Mesh, caller: int, outcomes: dict[bytes, object], sizes: list[int], random: Random) -> None:
    for number in range(REQUESTS // len(sizes)):
        body = b"%d.%d" % (caller, number)
        sent = body.ljust(random.choice(sizes))
        began = time.monotonic()
        try:
            reply = (await mesh.request("work", sent, timeout=TIMEOUT)).body
            outcome: object = reply.rstrip() if len(reply) == len(sent) else b"short"
        except iris.DeliveryError as error:
            outcome = error
            if isinstance(error, iris.NoMember):
                await asyncio.sleep(0.002)
        assert time.monotonic() - began < TIMEOUT + 0.5
        assert body not in outcomes
        outcomes[body] = outcome


@pytest.mark.parametrize("sizes", [[0], [0, 21_000, 60_000, 150_000]], ids=["small", "large"])
@pytest.mark.parametrize("seed", range(3))
async def test_every_request_has_one_outcome(seed: int, sizes: list[int], caplog: pytest.LogCaptureFixture):
    random = Random(seed)
    runs: Counter[bytes] = Counter()
    outcomes: dict[bytes, object] = {}
    async with testing.mesh(nodes=NODES, seed=seed, max_body=20_000) as local:
        meshes = [await local.connect(node) for node in range(NODES)]
        disturbing = [asyncio.create_task(serve(local, node, runs, Random(seed * 10 + node))) for node in range(NODES)]
        disturbing.append(asyncio.create_task(crash(local, random)))
        await asyncio.gather(
            *(ask(meshes[caller % NODES], caller, outcomes, sizes, Random(caller)) for caller in range(CALLERS))
        )
        for task in disturbing:
            task.cancel()
        ended = await asyncio.gather(*disturbing, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended
        for mesh in meshes:
            assert not mesh._session._calls
            assert not mesh._session._held
            assert not mesh._session._deliveries
            assert not len(mesh._session._flows)
            await mesh.close(timeout=0.2)
    assert PROCESS.held == 0
    assert len(outcomes) == CALLERS * (REQUESTS // len(sizes))
    assert max(runs.values()) == 1, "a handler ran twice for a request that did not allow it"
    for body, outcome in outcomes.items():
        if isinstance(outcome, iris.DeliveryError):
            if outcome.executed is Executed.NO:
                assert runs[body] == 0, f"{body!r} ran, though {outcome!r} said it did not"
            elif outcome.executed is Executed.YES:
                assert runs[body] == 1
        else:
            assert outcome == body
            assert runs[body] == 1
    answered = sum(not isinstance(outcome, iris.DeliveryError) for outcome in outcomes.values())
    assert answered > len(outcomes) / (3 if sizes == [0] else 10)
    assert not [record for record in caplog.records if "defect" in record.getMessage()]
