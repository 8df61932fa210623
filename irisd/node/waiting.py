"""Calls that wait at this node for a free slot of one cluster, oldest first, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from irisd.flow.outbox import cost
from irisd.model import Frame
from irisd.node.addressing import needed
from irisd.node.endpoints import Member
from irisd.router import Call

_Line = tuple[int, Member | None]
"""What a call waits for: a member that handles the pattern, or just this one."""


class Waiting:
    """One queue for each pattern, so that a call no free member handles does not hold up another.

    A call whose key belongs to a member waits for that one.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._queues: dict[_Line, OrderedDict[Call, int]] = {}  # -> its place in order of arrival
        self._lines: dict[Call, _Line] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._lines)

    def fits(self, frame: Frame, limit: int) -> bool:
        """Whether one more call keeps what waits within ``limit`` bytes; one always fits."""
        return not self.bytes or self.bytes + cost(frame) <= limit

    def push(self, call: Call, member: Member | None = None) -> None:
        """Let a call wait, for anybody or for one member."""
        self._arrivals += 1
        line = self._lines[call] = needed(call.frame), member
        self._queues.setdefault(line, OrderedDict())[call] = self._arrivals
        self.bytes += cost(call.frame)

    def remove(self, call: Call) -> None:
        """Take a call out; one that is not here is ordinary."""
        line = self._lines.pop(call, None)
        if line is None:
            return
        queue = self._queues[line]
        del queue[call]
        if not queue:
            del self._queues[line]
        self.bytes -= cost(call.frame)

    def pop(self, member: Member, is_first: Callable[[int], bool]) -> Call | None:
        """Take out the oldest call that a member can have.

        Args:
            member: Whose slot is free.
            is_first: Whether it may have what waits for anybody who handles a pattern, not only for it alone.
        """
        heads = [
            next(iter(queue.items()))
            for (pattern, pin), queue in self._queues.items()
            if pattern & member.patterns and (pin is member or (pin is None and is_first(pattern)))
        ]
        if not heads:
            return None
        call, _ = min(heads, key=lambda head: head[1])
        self.remove(call)
        return call

    def hopeless(self, patterns: int) -> Iterator[Call]:
        """Take out every call of a pattern that is not among ``patterns``."""
        for line in [line for line in self._queues if not line[0] & patterns]:
            yield from self._empty(line)

    def orphaned(self, member: Member) -> Iterator[Call]:
        """Take out every call that waits for a member that is gone."""
        for line in [line for line in self._queues if line[1] is member]:
            yield from self._empty(line)

    def _empty(self, line: _Line) -> Iterator[Call]:
        for call in list(self._queues[line]):
            self.remove(call)
            yield call
