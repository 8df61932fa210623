"""The watchdog: sees a step that does not end, names it once, and follows a coroutine as ``await`` would."""

from __future__ import annotations

import asyncio
import gc
import logging
import time

import pytest

from iris_client import _watchdog
from iris_client._watchdog import Watch, watch


async def test_it_follows_values_errors_and_cancellation():
    followed = Watch()

    async def work() -> str:
        await asyncio.sleep(0)
        with pytest.raises(ZeroDivisionError):
            await fail()
        return "done"

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    assert await followed.follow(work(), "work") == "done"
    assert followed.running is None
    with pytest.raises(ZeroDivisionError):
        await followed.follow(fail(), "fail")

    async def cleans_up() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "cleaned up"
        return "never"

    task = asyncio.ensure_future(_as_coroutine(followed, cleans_up()))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "cleaned up"


async def _as_coroutine(followed: Watch, body):
    return await followed.follow(body, "name")


def test_a_step_seen_twice_is_warned_of_once(caplog: pytest.LogCaptureFixture):
    followed = Watch()
    with caplog.at_level(logging.WARNING, "iris_client"):
        followed.look()
        followed.running, followed.step = "databases.get", 5
        followed.look()
        assert not caplog.records
        for _ in range(3):
            followed.look()
        assert len(caplog.records) == 1
        assert "handler databases.get blocks the event loop at" in caplog.text
        followed.step = 6
        followed.look()
        followed.running = None
        followed.look()
        followed.running = "databases.get"
        followed.look()
        assert len(caplog.records) == 1


def test_the_thread_ends_with_the_last_watch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_watchdog, "LOOK_INTERVAL", 0.01)
    made = watch()
    looker = _watchdog._looker
    assert looker is not None
    assert looker.is_alive()
    assert made in _watchdog._watches
    del made
    gc.collect()
    if not _watchdog._watches:  # another test's mesh may still hold one
        end = time.monotonic() + 5
        while looker.is_alive() and time.monotonic() < end:
            looker.join(0.05)
        assert not looker.is_alive()
