"""FLUSH (pure): the question whether what was published before it has been routed."""

from __future__ import annotations

from typing import Protocol

from iris_client._calls import Call, Promise
from iris_client._errors import DeadlineExceeded, IrisError
from iris_client._frames import Header, Kind, make


class Flushed(Protocol):
    """Whose question it is."""

    def confirmed(self, call: FlushCall, lost: int, held: int) -> None: ...
    def failed(self, call: FlushCall) -> None: ...


class FlushCall(Call):
    """A FLUSH. Ours when ``promise`` is None; the app's otherwise, and then it outlives the stream it was sent on.

    Attributes:
        number: Batches with a lower one come before it.
        covers: How many messages had ever been written before it.
    """

    __slots__ = ("_publishing", "covers", "number", "promise")

    def __init__(self, publishing: Flushed, promise: Promise | None, deadline: float, number: int = 0) -> None:
        super().__init__(make(kind=Kind.FLUSH, at_once=promise is None), b"", deadline, "flush")
        self._publishing = publishing
        self.promise = promise
        self.number = number
        self.covers = 0

    def on_frame(self, kind: int, header: Header, body: bytes) -> None:
        if kind == Kind.ERROR:
            self.fail(self.error(header, body))
        elif kind == Kind.DONE:
            self.over = True
            self._publishing.confirmed(self, header.lost, header.count)
        else:
            super().on_frame(kind, header, body)

    def fail(self, error: IrisError) -> None:
        self.over = True
        self._publishing.failed(self)
        if self.promise is not None and not self.promise.done():
            self.promise.set_exception(error)

    def expired(self, now: float) -> None:
        self.fail(DeadlineExceeded("flush: the daemon did not answer in time", executed=None))

    def detached(self, reason: str) -> None:
        self.id = 0  # asked again on the next stream
