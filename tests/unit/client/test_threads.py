"""Threads for plain handlers."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from iris_client._threads import Threads


def test_no_more_threads_than_needed_nor_than_allowed():
    threads = Threads(3, "test-few")
    names: set[str] = set()
    for _ in range(10):
        names.add(threads.submit(lambda: threading.current_thread().name).result(5))
    assert len(names) <= 2  # one, unless the next came before it was idle again
    barrier = threading.Barrier(4, timeout=0.2)
    waiting = [threads.submit(barrier.wait) for _ in range(4)]
    with pytest.raises(threading.BrokenBarrierError):
        waiting[0].result(5)
    threads.close()


def test_results_errors_and_what_was_cancelled_in_time():
    threads = Threads(1, "test-one")
    release = threading.Event()
    first = threads.submit(release.wait, 5)
    second, third = threads.submit(int, "x"), threads.submit(int, "7")
    assert second.cancel()
    release.set()
    assert first.result(5)
    with pytest.raises(CancelledError):
        second.result(5)
    assert third.result(5) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        threads.submit(int, "x").result(5)
    threads.close()


def test_threads_do_not_hold_up_the_process():
    threads = Threads(1, "test-daemon")
    assert threads.submit(lambda: threading.current_thread().daemon).result(5) is True
    threads.close()
