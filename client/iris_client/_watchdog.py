"""Names the handler that blocks the event loop.

Handlers share the loop with everything else the app does; one that computes or sleeps for long without awaiting holds
all of it up, and nothing in the symptoms tells which. So every step of a handler is counted, and one thread per
process looks now and then whether the same step is still running.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import weakref
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, Final

_log = logging.getLogger("iris_client")

LOOK_INTERVAL: Final = 0.25
"""Seconds between two looks: a step seen by two of them in a row has blocked its loop for about that long."""


class Watch:
    """What one loop's handlers are doing. ``step`` rises with every step, ``running`` names the handler in one."""

    __slots__ = ("__weakref__", "running", "seen", "step", "thread", "warned")

    def __init__(self) -> None:
        self.running: str | None = None
        self.step = 0
        self.thread = threading.get_ident()
        self.seen = -1
        self.warned = -1

    @coroutine
    def follow(self, body: Coroutine[Any, Any, Any], name: str) -> Generator[Any, Any, Any]:
        """Run a handler's coroutine, step by step, as ``await`` would."""
        send, throw = body.send, body.throw
        value: Any = None
        error: BaseException | None = None
        try:
            while True:
                self.step += 1
                self.running = name
                try:
                    waiting = send(value) if error is None else throw(error)
                except StopIteration as stop:
                    return stop.value
                finally:
                    self.running = None
                value = error = None
                try:
                    value = yield waiting
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    error = thrown
        finally:
            body.close()

    def look(self) -> None:
        """Warn if the step of the last look is still running."""
        name, step = self.running, self.step
        if name is not None and step == self.seen and step != self.warned:
            self.warned = step
            where = ""
            frame = sys._current_frames().get(self.thread)
            if frame is not None:
                last = traceback.extract_stack(frame)[-1]
                where = f" at {last.filename}:{last.lineno}"
            _log.warning(
                "handler %s blocks the event loop%s: nothing else of this app runs meanwhile; "
                "await, use asyncio.to_thread, or make it a plain function, which runs in a thread",
                name,
                where,
            )
        self.seen = step if name is not None else -1


_watches: weakref.WeakSet[Watch] = weakref.WeakSet()
_lock = threading.Lock()
_looker: threading.Thread | None = None


def watch() -> Watch:
    """Return a new watch for the calling thread's loop; it is looked at for as long as it lives."""
    global _looker
    made = Watch()
    with _lock:
        _watches.add(made)
        if _looker is None or not _looker.is_alive():
            _looker = threading.Thread(target=_look, name="iris-watchdog", daemon=True)
            _looker.start()
    return made


def _look() -> None:
    global _looker
    pause = threading.Event()
    while True:
        pause.wait(LOOK_INTERVAL)
        with _lock:
            watches = list(_watches)
            if not watches:
                _looker = None
                return
        for each in watches:
            each.look()
        del watches, each  # held, they would live for ever
