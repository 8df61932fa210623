"""What a mesh gives out, for threads: each lives on the mesh's loop and is called into from here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from iris_client._cluster import Cluster
from iris_client._joined import DRAIN_TIMEOUT
from iris_client._model import Answer, Change, Event
from iris_client._portal import call_from_thread


class _Entered:
    """A thing that lives on the loop, between ``with`` and its end."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop

    def __repr__(self) -> str:
        return f"<sync {self._inner!r}>"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        call_from_thread(self._inner.__aexit__(kind, error, trace), self._loop)

    def _enter(self) -> None:
        call_from_thread(self._inner.__aenter__(), self._loop)


class Joined(_Entered):
    """Membership of clusters, for threads; see :class:`iris_client.Joined`."""

    def __enter__(self) -> Joined:
        self._enter()
        return self

    @property
    def ready(self) -> bool:
        """Every living node knew of every cluster when it was joined."""
        return bool(self._inner.ready)

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        """What is served."""
        clusters: tuple[Cluster, ...] = self._inner.clusters
        return clusters

    def wait_closed(self) -> None:
        """Wait until the clusters were left or the mesh was closed, by another thread."""
        call_from_thread(self._inner.wait_closed(), self._loop)

    def leave(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Stop serving; see :meth:`iris_client.Joined.leave`."""
        call_from_thread(self._inner.leave(timeout), self._loop)


class Subscription(_Entered):
    """A subscription, for threads; see :class:`iris_client.Subscription`. One thread iterates."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(inner, loop)
        self._events: list[Event] = []

    def __enter__(self) -> Subscription:
        self._enter()
        return self

    @property
    def lost(self) -> int:
        """Events this subscription has lost so far, as far as they could be counted."""
        return int(self._inner.lost)

    @property
    def ready(self) -> bool:
        """Every living node knew of it when it was last established."""
        return bool(self._inner.ready)

    @property
    def topic_filter(self) -> str:
        """What it subscribes to."""
        return str(self._inner.topic_filter)

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Event:
        if not self._events:
            self._events = call_from_thread(self._inner._batch(), self._loop)
            self._events.reverse()
        if not self._events:
            raise StopIteration
        return self._events.pop()

    def batches(self) -> Iterator[list[Event]]:
        """Iterate over lists of events, each what came together."""
        while True:
            events, self._events = self._events[::-1], []
            events = events or call_from_thread(self._inner._batch(), self._loop)
            if not events:
                return
            yield events


class Watch(_Entered):
    """A watch, for threads; see :class:`iris_client.Watch`. One thread iterates."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(inner, loop)
        self._changes: list[Change] = []
        self._entered = False

    def __enter__(self) -> Watch:
        self._entered = True
        self._enter()
        return self

    @property
    def cluster(self) -> str:
        """What it watches; empty: everything."""
        return str(self._inner.cluster)

    @property
    def lost(self) -> int:
        """Changes this watch has lost so far, as far as they could be counted."""
        return int(self._inner.lost)

    def picture(self) -> list[Change]:
        """Return the rest of the picture; see :meth:`iris_client.Watch.picture`."""
        rest: list[Change] = call_from_thread(self._inner.picture(), self._loop)
        picture = [change for change in reversed(self._changes) if change.present]
        self._changes = [change for change in self._changes if not change.present]
        return picture + rest

    def __iter__(self) -> Iterator[Change]:
        return self if self._entered else self._alone()

    def __next__(self) -> Change:
        if not self._changes:
            self._changes = call_from_thread(self._inner._batch(), self._loop)
            self._changes.reverse()
        if not self._changes:
            raise StopIteration
        return self._changes.pop()

    def _alone(self) -> Iterator[Change]:
        with self:
            yield from self


class Survey(_Entered):
    """A survey, for threads; see :class:`iris_client.Survey`."""

    def __enter__(self) -> Survey:
        self._enter()
        return self

    @property
    def asked(self) -> tuple[str, ...]:
        """Everyone who was asked; complete once the iteration has ended."""
        return tuple(self._inner.asked)

    @property
    def answered(self) -> tuple[str, ...]:
        """Who answered."""
        return tuple(self._inner.answered)

    @property
    def silent(self) -> tuple[str, ...]:
        """Who was asked and did not answer."""
        return tuple(self._inner.silent)

    def __iter__(self) -> Survey:
        return self

    def __next__(self) -> Answer:
        answer: Answer = _following(self._inner, self._loop)
        return answer


class Tunnel(_Entered):
    """A tunnel, for threads; see :class:`iris_client.Tunnel`. One thread may send while another reads."""

    def __enter__(self) -> Tunnel:
        self._enter()
        return self

    @property
    def body(self) -> bytes:
        """At the member's end: what the opener sent along with opening."""
        return bytes(self._inner.body)

    @property
    def headers(self) -> Mapping[str, str]:
        """At the member's end: the opener's headers."""
        headers: Mapping[str, str] = self._inner.headers
        return headers

    @property
    def method(self) -> str:
        """Which handler was asked for."""
        return str(self._inner.method)

    @property
    def peer(self) -> str:
        """Who is at the other end."""
        return str(self._inner.peer)

    def accept(self) -> None:
        """Take the tunnel, at the member's end; the first use does it too."""
        call_from_thread(self._inner.accept(), self._loop)

    def send(self, body: Any) -> None:
        """Send one message; see :meth:`iris_client.Tunnel.send`."""
        call_from_thread(self._inner.send(body), self._loop)

    def finish(self) -> None:
        """Send no more (half-close)."""
        call_from_thread(self._inner.finish(), self._loop)

    def receive(self) -> bytes | None:
        """Return the next message, or None when the other end has finished."""
        message: bytes | None = call_from_thread(self._inner.receive(), self._loop)
        return message

    def abort(self, detail: str = "aborted by the app") -> None:
        """Break the tunnel at both ends, at once."""

        async def abort() -> None:
            self._inner.abort(detail)

        call_from_thread(abort(), self._loop)

    def __iter__(self) -> Tunnel:
        return self

    def __next__(self) -> bytes:
        message = self.receive()
        if message is None:
            raise StopIteration
        return message


def _following(inner: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """Return the next item of an asynchronous iterator.

    Raises:
        StopIteration: There is none.
    """

    async def following() -> tuple[bool, Any]:
        try:
            return True, await anext(inner)
        except StopAsyncIteration:
            return False, None

    found, item = call_from_thread(following(), loop)
    if not found:
        raise StopIteration
    return item
