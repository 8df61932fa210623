"""The process itself: open files, memory, how it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from irisd.errors import TooFewFilesError

WANTED_FILES = 65_536
NEEDED_FILES = 64
"""What a daemon without apps and peers takes, and a little more; with fewer its libraries fail in ways of their own."""
FEW_FILES = 4_096
"""Fewer open files than this and the daemon says so."""


def raise_open_files() -> int:
    """Raise the limit on open files as far as allowed; return it.

    Raises:
        TooFewFilesError: It is too low to run a daemon.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft == resource.RLIM_INFINITY:
        return WANTED_FILES
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft < NEEDED_FILES:
        raise TooFewFilesError(
            f"this process may open {soft} files, a daemon needs {NEEDED_FILES} and more for its apps and peers; "
            "raise the limit (ulimit -n 65536, LimitNOFILE=65536 in a systemd unit)"
        )
    return soft


def spare_collector() -> None:
    """Keep the garbage collector from looking at what was loaded before the start, and is there until the end.

    A full collection took 6.5 ms for it, in which nothing else happens.
    """
    gc.collect()
    gc.freeze()


def resident_memory() -> int:
    """Bytes of memory this process holds now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


class Signals:
    """SIGTERM and SIGINT stop (a second one at once), SIGHUP reloads."""

    def __init__(self, reload: Callable[[], None]) -> None:
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        self._reload = reload

    def __enter__(self) -> Signals:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)

    def _told(self) -> None:
        (self.now if self.stop.is_set() else self.stop).set()
