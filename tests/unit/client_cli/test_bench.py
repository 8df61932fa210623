"""iris bench: what its figures count, both ends in this process."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

import iris_client as iris
from iris_client.cli import benchend
from iris_client.cli.bench import _share, moved, published, requested
from iris_client.cli.benchend import COUNT, OtherEnd


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_share_of_samples_does_not_exceed_its_percentile(share: float, value: float):
    assert _share([float(number) for number in range(1, 101)], share) == value


@asynccontextmanager
async def other_end(shell):
    other = OtherEnd("yard")
    async with shell.local.connect() as far, far.join(other.cluster), other.subscribe(far) as events:
        listening = asyncio.create_task(other.listen(events))
        async with shell.local.connect() as mesh:
            yield mesh
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_the_three_measurements(shell):
    async with other_end(shell) as mesh:
        found = await published(mesh, "yard", b"x" * 100, 0.05)
        assert (found.messages % 256, found.lost) == (0, 0)
        asked = await requested(mesh, "yard", b"x", 0.05, 3)
        assert 0 < asked.p50 <= asked.p99 <= asked.most
        assert (await moved(mesh, "yard", 0.05)).bytes > 0


async def count(mesh: iris.Mesh, topic: str, wanted: int) -> dict:
    return json.loads(
        (await mesh.request("yard", json.dumps({"topic": topic, "count": wanted}).encode(), method=COUNT)).body
    )


async def test_what_does_not_come_is_not_waited_for_while_another_topic_goes_on(shell, monkeypatch):
    monkeypatch.setattr(benchend, "QUIET", 0.05)
    async with other_end(shell) as mesh:

        async def chatter() -> None:
            while True:
                await mesh.publish("yard.other", b"x")
                await asyncio.sleep(0.005)

        talking = asyncio.create_task(chatter())
        for _ in range(3):
            await mesh.publish("yard.mine", b"x")
        async with asyncio.timeout(5):
            told = await count(mesh, "yard.mine", 5)
        talking.cancel()
        assert (told["received"], told["unknown"]) == (3, False)
        assert told["quiet"] >= 0.05, "the wait is not part of the rate"
        assert (await count(mesh, "yard.mine", 3))["quiet"] == 0.0


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"topic": "t", "count": "many"}', b'{"topic": "t", "count": null}']
)
async def test_a_question_that_is_none_is_refused(shell, body: bytes):
    async with other_end(shell) as mesh:
        with pytest.raises(iris.Rejected, match="not a question"):
            await mesh.request("yard", body, method=COUNT)
