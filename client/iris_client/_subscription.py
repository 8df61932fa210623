"""Subscriptions, as apps hold them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING

from iris_client._errors import InvalidCall, IrisError
from iris_client._eventqueue import BLOCK, EventQueue, SubscribeCall
from iris_client._frames import Kind, make
from iris_client._model import Event, KiB

if TYPE_CHECKING:
    from iris_client._mesh import Mesh

_POLICIES = {"drop_oldest": 1, "drop_newest": 2, "block": BLOCK}


class Subscription:
    """One subscription; made by :meth:`Mesh.subscribe`. ``async for event in events``, or :meth:`batches`.

    It outlives a daemon that restarts: it is made anew there, and the first event after that has ``lost=None``.

    Attributes:
        topic_filter: What it subscribes to.
        ready: Whether every living node knew of it when it was last established.
    """

    def __init__(self, mesh: Mesh, topic_filter: str, when_full: str, max_bytes: int, group: str = "") -> None:
        if when_full not in _POLICIES:
            raise InvalidCall(f"when_full={when_full!r}: one of {', '.join(map(repr, _POLICIES))}")
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < KiB:
            raise InvalidCall(f"max_bytes={max_bytes!r}: a whole number of bytes, at least {KiB}")
        self.topic_filter = topic_filter
        self._mesh = mesh
        self._queue = EventQueue(max_bytes, drop_oldest=when_full == "drop_oldest", block=when_full == "block")
        header = make(
            kind=Kind.SUBSCRIBE,
            address=topic_filter,
            group=group,
            when_full=_POLICIES[when_full],
            max_bytes=max_bytes,
        )
        what = f"subscription to {topic_filter!r}"
        self._call = SubscribeCall(header, self._queue, what, self._call_changed)
        self._changed = asyncio.Event()
        self._queue.on_change = self._changed.set
        self._events: list[Event] = []  # of the frame being read, last first
        self._error: IrisError | None = None
        self._left = False
        self._entered = False

    @property
    def lost(self) -> int:
        """Events this subscription has lost so far, as far as they could be counted."""
        return self._queue.lost

    @property
    def ready(self) -> bool:
        return self._call.ready

    async def __aenter__(self) -> Subscription:
        """Subscribe; entered when the daemon has taken it.

        Raises:
            IrisError: The daemon refuses it.
        """
        if self._entered:
            raise RuntimeError("a subscription is entered once; make another with mesh.subscribe(...)")
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

    def __aiter__(self) -> Subscription:
        if not self._entered:
            raise RuntimeError("not subscribed yet: use `async with mesh.subscribe(...) as events`")
        return self

    async def __anext__(self) -> Event:
        """Return the next event. Cancelling loses nothing.

        Raises:
            IrisError: The daemon ended the subscription, or the mesh was closed.
        """
        events = self._events
        if events:
            return events.pop()
        await self._fill()
        return self._events.pop()

    async def batches(self) -> AsyncIterator[list[Event]]:
        """Iterate over lists of events, each what came together: less overhead per event.

        Raises:
            IrisError: The daemon ended the subscription, or the mesh was closed.
        """
        while events := await self._batch():
            yield events

    async def _batch(self) -> list[Event]:
        """Return the next events that came together; an empty list when the subscription was left."""
        if not self._events:
            try:
                await self._fill()
            except StopAsyncIteration:
                return []
        events, self._events = self._events, []
        events.reverse()
        return events

    async def _fill(self) -> None:
        while True:
            if self._left:
                raise StopAsyncIteration
            if self._events:
                return  # another reader of this subscription filled it meanwhile
            if events := self._queue.take():
                events.reverse()
                self._events = events
                return
            if self._error is not None:
                raise self._error
            await self._change()

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._events = []
            self._mesh._unstand(self._call, Kind.UNSUBSCRIBE)
            self._changed.set()

    def _call_changed(self, error: IrisError | None) -> None:
        if error is not None and self._error is None:
            self._error = error
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
