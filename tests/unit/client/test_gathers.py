"""Broadcasts and surveys through real nodes."""

from __future__ import annotations

import asyncio
import time

import pytest

import iris_client as iris
from iris_client.testing import LocalMesh


def responding(answer: bytes | None = None, *, delay: float = 0.0, fails: bool = False) -> iris.Cluster:
    cluster = iris.Cluster("caches")

    @cluster.on_survey
    async def respond(body: bytes) -> bytes:
        await asyncio.sleep(delay)
        if fails:
            raise RuntimeError("broken cache")
        return answer if answer is not None else body

    return cluster


async def test_a_survey_ends_when_everyone_has_answered(local: LocalMesh, caller: iris.Mesh):
    async with (
        local.connect(0, name="a") as a,
        local.connect(1, name="b") as b,
        a.join(responding(b"from a")),
        b.join(responding(b"from b")),
    ):
        before = time.monotonic()
        answers = {}
        async with caller.survey("caches", b"?", timeout=5.0) as survey:
            async for answer in survey:
                assert answer.error is None
                answers[answer.member.partition("@")[0]] = answer.body
        assert time.monotonic() - before < 2.0
        assert answers == {"a": b"from a", "b": b"from b"}
        assert {member.partition("@")[0] for member in survey.asked} == {"a", "b"}
        assert set(survey.answered) == set(survey.asked)
        assert survey.silent == ()


async def test_a_survey_says_who_was_silent_and_who_failed(local: LocalMesh, caller: iris.Mesh):
    async with (
        local.connect(0, name="slow") as slow,
        local.connect(1, name="bad") as bad,
        slow.join(responding(delay=30)) as joined,
        bad.join(responding(fails=True)),
    ):
        async with caller.survey("caches", timeout=0.2) as survey:
            [answer] = [answer async for answer in survey]
        assert answer.member.startswith("bad@")
        assert isinstance(answer.error, iris.HandlerFailed)
        assert "broken cache" not in str(answer.error)
        assert [member.partition("@")[0] for member in survey.silent] == ["slow"]
        assert [member.partition("@")[0] for member in survey.answered] == ["bad"]
        await joined.leave(timeout=0)
        assert "error=HandlerFailed" in repr(answer)


async def test_leaving_a_survey_early_cancels_it(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("caches")
    started, ended = asyncio.Event(), asyncio.Event()

    @cluster.on_survey
    async def respond(body: bytes) -> bytes:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    async with server.join(cluster):
        async with caller.survey("caches", timeout=30.0):
            await started.wait()
        async with asyncio.timeout(2):
            await ended.wait()


async def test_a_survey_of_nobody(caller: iris.Mesh):
    with pytest.raises(iris.NoMember):
        async with caller.survey("nobody") as survey:
            async for _ in survey:
                pass
    survey = caller.survey("nobody")
    with pytest.raises(RuntimeError, match="not asked yet"):
        await anext(survey)
    async with survey:
        pass
    with pytest.raises(RuntimeError, match="entered once"):
        await survey.__aenter__()


async def test_broadcast_reaches_every_member(local: LocalMesh, caller: iris.Mesh):
    seen: asyncio.Queue[str] = asyncio.Queue()

    def cluster(name: str, *, fails: bool = False) -> iris.Cluster:
        made = iris.Cluster("caches", codec=iris.JSON)

        @made.on_broadcast
        async def forget(key: str) -> None:
            seen.put_nowait(f"{name} {key}")
            if fails:
                raise iris.Reject("nobody hears this")

        return made

    async with local.connect(0) as a, local.connect(1) as b, a.join(cluster("a")), b.join(cluster("b", fails=True)):
        assert await caller.broadcast("caches", b'"k"') == 2
        async with asyncio.timeout(2):
            assert {await seen.get(), await seen.get()} == {"a k", "b k"}
        assert await caller.broadcast("caches", b"not json") == 2
    with pytest.raises(iris.NoMember):
        await caller.broadcast("caches", b'"k"')


async def test_broadcasts_are_handled_within_concurrency_and_none_is_lost(caller: iris.Mesh, server: iris.Mesh):
    cluster = iris.Cluster("caches", concurrency=2)
    running = most = handled = 0
    done = asyncio.Event()

    @cluster.on_broadcast
    async def work(body: bytes) -> None:
        nonlocal running, most, handled
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        handled += 1
        if handled == 50:
            done.set()

    async with server.join(cluster):
        for _ in range(50):
            await caller.broadcast("caches", b"")
        async with asyncio.timeout(5):
            await done.wait()
    assert most == 2


async def test_broadcasts_beyond_the_buffer_are_dropped_and_that_is_logged(
    caller: iris.Mesh, server: iris.Mesh, caplog: pytest.LogCaptureFixture
):
    cluster = iris.Cluster("caches", concurrency=1)
    release = asyncio.Event()

    @cluster.on_broadcast
    async def work(body: bytes) -> None:
        await release.wait()

    async with server.join(cluster):
        for _ in range(12):
            await caller.broadcast("caches", b"x" * 1_000_000)
        async with asyncio.timeout(5):
            while "broadcasts dropped so far" not in caplog.text:
                await asyncio.sleep(0.01)
        release.set()
