"""An outbox (pure): everything that waits to leave towards one destination.

Two classes of traffic. *Urgent* frames (registry changes, credit, cancels,
small replies) leave first, in order. The rest waits in *flows*, one per topic,
tunnel, subscription, and one for requests; flows take turns by deficit round
robin, so that a large or busy one delays the others by at most a quantum each.

Source: M. Shreedhar, G. Varghese, "Efficient Fair Queueing using Deficit Round
Robin", 1995; the deficit may go below zero here, so that a part larger than the
quantum still leaves at once and is paid for afterwards.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterator

from irisd.model import PART_BYTES, Frame, KiB, Kind, WhenFull

QUANTUM = 64 * KiB
FRAME_COST = 256
"""Bytes of memory a queued frame is taken to need besides its body."""

MAX_LOSSES = 4096
"""Losses on more topics than this are told as one, without a topic."""

REQUESTS: Hashable = "requests"
"""The flow of everything that opens a call."""

REPLIES: Hashable = "replies"
"""The flow of replies too large to be urgent."""


class Flow:
    """One queue within an outbox.

    Its key says what it is: (topic, group) towards a peer, a subscription's id
    towards an app, a tunnel, or one of the names above.

    Attributes:
        kept: The flow outlives its frames (a subscription); others go when empty.
        bytes: What waits, bodies and :data:`FRAME_COST` each.
        lost: Messages dropped since the last frame that left; told on the next.
    """

    __slots__ = ("bytes", "deficit", "frames", "kept", "key", "limit", "lost", "lost_unknown", "offset", "when_full")

    def __init__(self, key: Hashable, limit: float, when_full: int) -> None:
        self.key = key
        self.kept = isinstance(key, int)
        self.limit = limit
        self.when_full = when_full
        self.frames: deque[Frame] = deque()
        self.bytes = 0
        self.deficit = 0
        self.offset = 0  # of the head frame's body: what has left in parts
        self.lost = 0
        self.lost_unknown = False


class Outbox:
    """The ordered, bounded queues towards one destination.

    Args:
        limit: Bytes all flows may hold together before messages are dropped.
            Urgent frames are counted but not refused: whoever makes them bounds them.
    """

    def __init__(self, *, limit: float) -> None:
        self.limit = limit
        self.bytes = 0
        self.urgent_bytes = 0
        self.idle = True
        """The edge has seen it empty: the next frame needs a wake-up."""
        self._urgent: deque[Frame] = deque()
        self._flows: dict[Hashable, Flow] = {}
        self._active: deque[Flow] = deque()
        self._losses: dict[tuple[str, str], int] = {}

    def __bool__(self) -> bool:
        return bool(self._urgent or self._active or self._losses)

    def put_urgent(self, frame: Frame) -> None:
        """Queue ahead of all flows."""
        self._urgent.append(frame)
        self.urgent_bytes += len(frame.body) + FRAME_COST

    def fits(self, size: int, limit: int) -> bool:
        """Whether a body of ``size`` bytes keeps the calls that wait here within ``limit``; one always fits."""
        flow = self._flows.get(REQUESTS)
        return flow is None or flow.bytes + size + FRAME_COST <= limit

    def put(self, key: Hashable, frame: Frame) -> None:
        """Queue in the flow ``key``. The caller asked :meth:`fits` first, or bounds it otherwise."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self.open(key)
        self._append(flow, frame)

    def open(self, key: Hashable, *, limit: float = math.inf, when_full: int = WhenFull.DROP_NEWEST) -> Flow:
        """The flow ``key``; made with this bound and policy if it is not there."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = Flow(key, limit, when_full)
        return flow

    def offer(self, flow: Flow, frame: Frame) -> int:
        """Queue messages in a flow with a drop policy; return how many messages were dropped for it.

        What is dropped is counted in ``flow.lost`` and told on the next frame of
        the flow that leaves.
        """
        size = len(frame.body) + FRAME_COST
        dropped = 0
        if self._over(flow, size) and not flow.frames and self.bytes + size > self.limit and self.bytes:
            self._lose(flow, frame.messages)
            return frame.messages
        if flow.when_full == WhenFull.DROP_OLDEST:
            keep = 1 if flow.offset else 0  # a frame that has begun to leave is no longer ours to drop
            while len(flow.frames) > keep and self._over(flow, size):
                dropped += self._drop(flow, keep)
        if self._over(flow, size) and flow.frames:
            flow.lost += frame.messages
            return dropped + frame.messages
        self._append(flow, frame)
        return dropped

    def discard(self, key: Hashable) -> int:
        """Drop a flow and what waits in it; return the messages that went with it."""
        flow = self._flows.pop(key, None)
        if flow is None:
            return 0
        self.bytes -= flow.bytes
        gone = sum(frame.messages for frame in flow.frames)
        flow.frames.clear()
        flow.bytes = 0
        if flow in self._active:
            self._active.remove(flow)
        return gone

    def withdraw(self, key: Hashable, frame: Frame) -> None:
        """Take back a frame that has not begun to leave, if it is still here."""
        flow = self._flows.get(key)
        if flow is None or frame.sent:
            return
        for at, waiting in enumerate(flow.frames):
            if waiting is frame:
                del flow.frames[at]
                self._uncount(flow, frame)
                if not flow.frames and not flow.kept:
                    del self._flows[key]
                return

    def unsent(self) -> Iterator[Frame]:
        """Every frame in a flow of which no byte has left."""
        for flow in self._flows.values():
            for frame in flow.frames:
                if not frame.sent:
                    yield frame

    def flows(self) -> Iterator[Flow]:
        """Every flow there is."""
        return iter(self._flows.values())

    def take(self, limit: int, now: float) -> list[Frame]:
        """Take what leaves next, about ``limit`` bytes; an empty list means empty.

        Deadlines become remaining time here, so that the wait in the outbox is
        subtracted; a frame whose time is up is dropped (its call's own timer
        answers for it).
        """
        out: list[Frame] = []
        size = 0
        while self._urgent and size < limit:
            frame = self._urgent.popleft()
            cost = len(frame.body) + FRAME_COST
            self.urgent_bytes -= cost
            size += cost
            frame.sent = True
            out.append(frame)
        for (topic, group), messages in self._losses.items():
            out.append(Frame(Kind.LOST, address=topic, group=group, count=messages))
        self._losses.clear()
        active = self._active
        while active and size < limit:
            flow = active[0]
            flow.deficit = min(flow.deficit + QUANTUM, QUANTUM)
            while flow.frames and flow.deficit > 0 and size < limit:
                head = self._next(flow, now)
                if head is not None:
                    cost = len(head.body) + FRAME_COST
                    flow.deficit -= cost
                    size += cost
                    out.append(head)
            if not flow.frames:
                active.popleft()
                flow.deficit = 0
                if flow.lost or flow.lost_unknown:
                    self._tell_lost(flow, out)
                if not flow.kept:
                    del self._flows[flow.key]
            elif flow.deficit <= 0:
                active.rotate(-1)
        if not out:
            self.idle = True
        return out

    def _append(self, flow: Flow, frame: Frame) -> None:
        if not flow.frames:
            self._active.append(flow)
        flow.frames.append(frame)
        size = len(frame.body) + FRAME_COST
        flow.bytes += size
        self.bytes += size

    def _uncount(self, flow: Flow, frame: Frame) -> None:
        size = len(frame.body) + FRAME_COST
        flow.bytes -= size
        self.bytes -= size
        if not flow.frames:
            self._active.remove(flow)
            flow.deficit = 0

    def _over(self, flow: Flow, size: int) -> bool:
        return flow.bytes + size > flow.limit or self.bytes + size > self.limit

    def _drop(self, flow: Flow, at: int) -> int:
        frame = flow.frames[at]
        del flow.frames[at]
        self._uncount(flow, frame)
        flow.lost += frame.messages + frame.lost
        return frame.messages

    def _next(self, flow: Flow, now: float) -> Frame | None:
        """The next frame or part of a flow; None if its head's time was up."""
        frame = flow.frames[0]
        offset = flow.offset
        if not offset:
            if frame.deadline != math.inf:
                if frame.deadline <= now:
                    self._pop(flow)
                    return None
                frame.remaining_ms = max(1, math.ceil((frame.deadline - now) * 1000))
            frame.sent = True
            if flow.lost or flow.lost_unknown:
                frame.lost += flow.lost
                frame.lost_unknown = frame.lost_unknown or flow.lost_unknown
                flow.lost, flow.lost_unknown = 0, False
        if len(frame.body) <= PART_BYTES:
            self._pop(flow)
            return frame
        piece = frame.body[offset : offset + PART_BYTES]
        more = offset + PART_BYTES < len(frame.body)
        flow.offset = offset + PART_BYTES if more else 0
        if offset:
            part = Frame(Kind.PART, id=frame.id, body=piece)
            part.more = more
        else:
            part = frame.copy(body=piece, more=True, total=len(frame.body))
        if not more:
            self._pop(flow)
        return part

    def _pop(self, flow: Flow) -> None:
        frame = flow.frames.popleft()
        size = len(frame.body) + FRAME_COST
        flow.bytes -= size
        self.bytes -= size

    def _lose(self, flow: Flow, messages: int) -> None:
        """Dropped with nothing queued behind it: a flow that stays remembers it, others tell it at once."""
        if flow.kept:
            flow.lost += messages
            return
        self._flows.pop(flow.key, None)
        key = flow.key if isinstance(flow.key, tuple) else ("", "")
        if key not in self._losses and len(self._losses) >= MAX_LOSSES:
            key = ("", "")
        self._losses[key] = self._losses.get(key, 0) + messages

    def _tell_lost(self, flow: Flow, out: list[Frame]) -> None:
        """The queue ran empty with losses untold (the newest were dropped): a notice without a message tells them."""
        if isinstance(flow.key, tuple):
            topic, group = flow.key
            out.append(Frame(Kind.LOST, address=topic, group=group, count=flow.lost))
        else:
            out.append(Frame(Kind.EVENT, id=flow.key, lost=flow.lost, lost_unknown=flow.lost_unknown))
        flow.lost, flow.lost_unknown = 0, False
