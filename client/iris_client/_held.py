"""Calls made while no stream takes them (pure): they wait for the next one, within their deadlines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from iris_client._calls import Call


class Held:
    """What waits for the next stream, in the order it was made.

    Args:
        wake: Called when the first of them begins to wait.

    Attributes:
        bytes: Of their bodies.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.bytes = 0
        self._wake = wake
        self._calls: dict[Call, None] = {}

    def add(self, call: Call) -> None:
        """Let a call wait. The caller has seen to the bound."""
        self._calls[call] = None
        self.bytes += len(call.body)
        if len(self._calls) == 1:
            self._wake()

    def discard(self, call: Call) -> None:
        """It waits no longer; one that did not is ordinary."""
        if call in self._calls:
            del self._calls[call]
            self.bytes -= len(call.body)

    def take(self) -> list[Call]:
        """Take all of them out."""
        calls, self._calls, self.bytes = list(self._calls), {}, 0
        return calls

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls)
