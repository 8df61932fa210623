"""Watches, as apps hold them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING

from iris_client._changes import ChangeQueue, Mark, WatchCall
from iris_client._errors import IrisError
from iris_client._frames import Kind, make
from iris_client._model import Change

if TYPE_CHECKING:
    from iris_client._mesh import Mesh


class Watch:
    """One watch; made by :meth:`Mesh.watch`. ``async for change in mesh.watch(...)``, or inside ``async with``.

    It outlives a daemon that restarts: the picture comes anew there, and its first change has ``lost=None``. A slow
    reader loses the oldest changes and is told how many, here as in the daemon.

    Attributes:
        cluster: What it watches; empty: everything.
    """

    def __init__(self, mesh: Mesh, cluster: str) -> None:
        self.cluster = cluster
        self._mesh = mesh
        self._queue = ChangeQueue()
        what = f"watch of {cluster!r}" if cluster else "watch"
        self._call = WatchCall(make(kind=Kind.WATCH, address=cluster), self._queue, what, self._call_changed)
        self._news = asyncio.Event()
        self._queue.on_change = self._news.set
        self._error: IrisError | None = None
        self._entered = False
        self._left = False
        self._pictured = False  # the reader is past the picture

    @property
    def lost(self) -> int:
        """Changes this watch has lost so far, as far as they could be counted."""
        return self._queue.lost

    async def __aenter__(self) -> Watch:
        """Begin; entered when the daemon has begun to tell.

        Raises:
            IrisError: The daemon refuses it.
        """
        if self._entered:
            raise RuntimeError("a watch is entered once; make another with mesh.watch(...)")
        self._entered = True
        self._mesh._stand(self._call)
        try:
            while not self._call.established:
                if self._error is not None:
                    raise self._error
                await self._change()
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def __aiter__(self) -> AsyncIterator[Change]:
        return self if self._entered else self._alone()

    async def __anext__(self) -> Change:
        """Return the next change. Cancelling loses nothing.

        Raises:
            IrisError: The daemon ended the watch, or the mesh was closed.
        """
        while (item := await self._next()) is not None:
            if isinstance(item, Change):
                return item
        raise StopAsyncIteration

    async def picture(self) -> list[Change]:
        """Return the picture, or what was not read of it: how things were when the watch began.

        What comes after it changes it: iterate on. Should the daemon be lost meanwhile, it is the next one's.
        Cancelling loses what was read.

        Raises:
            IrisError: The daemon ended the watch, or the mesh was closed.
        """
        if not self._entered:
            raise RuntimeError("not watching yet: use `async with mesh.watch(...) as changes`")
        found: list[Change] = []
        while not self._pictured and (item := await self._next()) is not None:
            if item is Mark.BEGIN:
                found.clear()
            elif isinstance(item, Change):
                if not item.present:  # the mark was among what a full queue has dropped
                    self._queue.put_back(item)
                    break
                found.append(item)
        return found

    async def _alone(self) -> AsyncIterator[Change]:
        """Iterate without ``async with``: leaving the loop closes this generator, and with it the watch."""
        async with self:
            while (item := await self._next()) is not None:
                if isinstance(item, Change):
                    yield item

    async def _batch(self) -> list[Change]:
        """Return the next change and all that wait behind it; an empty list when the watch was left."""
        changes: list[Change] = []
        while not changes or len(self._queue):
            item = await self._next()
            if item is None:
                break
            if isinstance(item, Change):
                changes.append(item)
        return changes

    async def _next(self) -> Change | Mark | None:
        """Return what comes next; None when the watch was left."""
        while not self._left:
            item = self._queue.pop()
            if item is not None:
                if isinstance(item, Mark):
                    self._pictured = item is Mark.END
                return item
            if self._error is not None:
                raise self._error
            await self._change()
        return None

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._queue.clear()
            self._mesh._unstand(self._call, Kind.UNSUBSCRIBE)
            self._news.set()

    def _call_changed(self, error: IrisError | None) -> None:
        if error is not None and self._error is None:
            self._error = error
        self._news.set()

    async def _change(self) -> None:
        self._news.clear()
        await self._news.wait()
