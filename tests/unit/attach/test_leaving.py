"""Apps that read how their attachment ended: few, with little, and not for long."""

from __future__ import annotations

import asyncio

from irisd.attach.leaving import MAX_LEAVING, MAX_UNREAD, Leaving
from irisd.model import MiB


class App:
    def __init__(self, unread: int = 100) -> None:
        self.unread = unread
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.unread = 0


async def test_who_reads_in_time_is_not_cut_off():
    waiting = Leaving(60.0)
    app = App()
    waiting.add(app)
    done = asyncio.create_task(waiting.done())
    await asyncio.sleep(0)
    assert not done.done()
    waiting.gone(app)
    waiting.gone(app)  # again does nothing
    await done
    assert not app.closed
    assert len(waiting) == 0


async def test_who_does_not_is():
    waiting = Leaving(0.01)
    app = App()
    waiting.add(app)
    await asyncio.wait_for(waiting.done(), 5)
    assert app.closed


async def test_they_are_few():
    waiting = Leaving(60.0)
    apps = [App() for _ in range(MAX_LEAVING + 10)]
    for app in apps:
        waiting.add(app)
    assert len(waiting) == MAX_LEAVING
    assert [app.closed for app in apps] == [True] * 10 + [False] * MAX_LEAVING
    waiting.close()
    assert all(app.closed for app in apps)
    await waiting.done()


async def test_they_hold_little():
    waiting = Leaving(60.0)
    apps = [App(8 * MiB) for _ in range(10)]
    for app in apps:
        waiting.add(app)
    assert sum(app.unread for app in apps) == MAX_UNREAD
    assert not any(app.closed for app in apps[-4:])
    waiting.add(huge := App(MAX_UNREAD + 1))
    assert huge.closed
    assert len(waiting) == 0
    waiting.close()
