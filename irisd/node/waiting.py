"""Calls that wait at this node for a free slot of one cluster, oldest first, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from irisd.flow.outbox import cost
from irisd.model import Frame, Kind, Pattern
from irisd.router import Call

PATTERN = {
    Kind.REQUEST: Pattern.REQUEST,
    Kind.PUSH: Pattern.PUSH,
    Kind.TUNNEL: Pattern.TUNNEL,
    Kind.BROADCAST: Pattern.BROADCAST,
    Kind.SURVEY: Pattern.SURVEY,
}


def kind_of(frame: Frame) -> Kind:
    """What a call asks for: a tunnel may carry a request."""
    return Kind(frame.carries or frame.kind)


class Waiting:
    """One queue for each pattern, so that a call no free member handles does not hold up another.

    And one for requests that a tunnel carries, which not every member takes.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._queues: dict[tuple[Pattern, bool], OrderedDict[Call, int]] = {}  # -> its place in order of arrival
        self._arrivals = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def fits(self, frame: Frame, limit: int) -> bool:
        """Whether one more call keeps what waits within ``limit`` bytes; one always fits."""
        return not self.bytes or self.bytes + cost(frame) <= limit

    def push(self, call: Call) -> None:
        self._arrivals += 1
        self._queues.setdefault(_queue_of(call), OrderedDict())[call] = self._arrivals
        self.bytes += cost(call.frame)

    def remove(self, call: Call) -> None:
        """Take a call out; one that is not here is ordinary."""
        queue = self._queues.get(_queue_of(call))
        if queue is not None and queue.pop(call, None) is not None:
            self.bytes -= cost(call.frame)

    def pop(self, patterns: int, *, large: bool) -> Call | None:
        """Take out the oldest call that a member can have who handles ``patterns``, ``large`` ones too or not."""
        heads = [
            next(iter(queue.items()))
            for (pattern, carried), queue in self._queues.items()
            if queue and pattern & patterns and (large or not carried)
        ]
        if not heads:
            return None
        call, _ = min(heads, key=lambda head: head[1])
        self.remove(call)
        return call

    def hopeless(self, patterns: int) -> Iterator[Call]:
        """Take out every call of a pattern that is not among ``patterns``."""
        for (pattern, _), queue in self._queues.items():
            while queue and not pattern & patterns:
                call = next(iter(queue))
                self.remove(call)
                yield call


def _queue_of(call: Call) -> tuple[Pattern, bool]:
    return PATTERN[kind_of(call.frame)], call.frame.carries != 0
