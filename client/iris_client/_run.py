"""A server's main: connect, join, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from iris_client._cluster import Cluster
from iris_client._mesh import connect
from iris_client._model import State, StateChange

DRAIN_TIMEOUT: Final = 30.0

_log = logging.getLogger("iris_client")


def run(
    *clusters: Cluster,
    url: str | None = None,
    service: str | None = None,
    name: str | None = None,
    token: str | None = None,
    timeout: float = 5.0,
    drain_timeout: float = DRAIN_TIMEOUT,
) -> None:
    """Serve clusters until SIGTERM or SIGINT, then drain and return. A second signal ends at once.

    Args:
        clusters: What to serve.
        url: As for :func:`iris_client.connect`, like the next four.
        service: Which of the daemon's services.
        name: What this app is called, for people.
        token: For TCP.
        timeout: Seconds to wait for a daemon.
        drain_timeout: Seconds that handlers in flight get to finish.

    Raises:
        DaemonUnavailable, Denied, InvalidUrl: As for :func:`iris_client.connect`.
        InvalidCall: A cluster has no handlers, or unusable ones.
        KeyboardInterrupt: A second signal came while draining.
    """

    async def serve() -> None:
        asked = asyncio.Event()
        serving = asyncio.create_task(_serve(clusters, (url, service, name, token, timeout), asked, drain_timeout))
        signals = 0

        def signalled() -> None:
            nonlocal signals
            signals += 1
            asked.set()
            if signals > 1:
                serving.cancel()

        with _signals(signalled):
            try:
                await serving
            except asyncio.CancelledError:
                if signals > 1:
                    raise KeyboardInterrupt from None
                raise

    asyncio.run(serve())


async def _serve(
    clusters: tuple[Cluster, ...], where: tuple[Any, ...], asked: asyncio.Event, drain_timeout: float
) -> None:
    wanted = asyncio.create_task(asked.wait())
    try:
        mesh = await _first(asyncio.ensure_future(connect(*where).__aenter__()), wanted)
        if mesh is None:
            return
        try:
            mesh.on_state(_tell)
            joined = await _first(asyncio.ensure_future(mesh.join(*clusters).__aenter__()), wanted)
            if joined is not None:
                names = ", ".join(cluster.name for cluster in clusters)
                _log.info("serving %s at %s", names, mesh.url)
                await _first(asyncio.ensure_future(joined.wait_closed()), wanted)
                await joined.leave(drain_timeout)
        finally:
            await mesh.close(drain_timeout)
    finally:
        wanted.cancel()
        await asyncio.gather(wanted, return_exceptions=True)


def _tell(change: StateChange) -> None:
    """A server has no caller who would notice that its daemon went away."""
    if change.state is State.DETACHED:
        _log.warning("the daemon is gone (%s); looking for it", change.reason)
    elif change.state is State.ATTACHED:
        _log.warning("attached again: %s", change.reason)


async def _first(work: asyncio.Future[Any], wanted: asyncio.Future[Any]) -> Any:
    """Return what ``work`` returns; None, with ``work`` cancelled, when ``wanted`` comes first."""
    try:
        await asyncio.wait((work, wanted), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


@contextmanager
def _signals(signalled: Callable[[], None]) -> Iterator[None]:
    """Call ``signalled`` on the loop for every SIGTERM and SIGINT, and put back what was there before."""
    loop = asyncio.get_running_loop()
    wanted = [getattr(signal, each) for each in ("SIGTERM", "SIGINT") if hasattr(signal, each)]
    previous = {each: signal.getsignal(each) for each in wanted}
    for each in wanted:
        if sys.platform == "win32":  # its loops take no signal handlers
            signal.signal(each, lambda *_: loop.call_soon_threadsafe(signalled))
        else:
            loop.add_signal_handler(each, signalled)
    try:
        yield
    finally:
        for each in wanted:
            if sys.platform != "win32":
                loop.remove_signal_handler(each)
            signal.signal(each, previous[each])
