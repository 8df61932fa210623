"""A loop in a thread of its own, and calls into it from other threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, ClassVar, TypeVar

from iris_client._errors import InvalidCall

T = TypeVar("T")


def call_from_thread(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Run a coroutine on another thread's loop, in this thread's context, and return what it returns.

    An interrupt (Ctrl-C) of the waiting thread cancels the coroutine.

    Raises:
        InvalidCall: This thread runs that loop: waiting for it here would be waiting for ever.
    """
    if asyncio._get_running_loop() is loop:
        coroutine.close()
        raise InvalidCall("a blocking call on the mesh's own loop; async handlers use the async API (await)")
    # The callback is scheduled with a copy of this thread's context, and the task inherits that one.
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class Portal:
    """A thread that runs an event loop until it is closed, or released by the last who shares it."""

    _shared: ClassVar[Portal | None] = None
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._users = 1
        self._process = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="iris-mesh", daemon=True)
        self._thread.start()

    @classmethod
    def shared(cls) -> Portal:
        """Return this process's portal, started if need be: meshes for threads share one loop. Release it after use."""
        with cls._lock:
            portal = cls._shared
            if portal is None or portal._process != os.getpid():
                cls._shared = portal = Portal()
            else:
                portal._users += 1
            return portal

    def release(self) -> None:
        """Need it no more; the last one closes it."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            if Portal._shared is self:
                Portal._shared = None
        self.close()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` on the loop and return what it returns."""
        return call_from_thread(coroutine, self.loop)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run ``coroutine`` on the loop without waiting for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def close(self) -> None:
        """Stop the loop, cancel what still runs on it, and wait for the thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


def _after_fork() -> None:
    Portal._shared = None
    Portal._lock = threading.Lock()  # a thread of the parent may have held the old one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
