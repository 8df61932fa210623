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
from collections import OrderedDict, deque
from collections.abc import Container, Hashable, Iterator

from irisd.model import PART_BYTES, Frame, KiB, Kind, WhenFull

QUANTUM = 64 * KiB
FRAME_COST = 256
"""Bytes of memory a queued frame is taken to need besides its body."""

MAX_KEPT = 256
"""Flows of subscriptions that stay when they are empty, to be there when more comes; with more they come and go."""

MAX_LOSSES = 4096
"""With more topics than this, losses where nothing else waits are told as one, without a topic."""

WITHDRAWN = -math.inf
"""The deadline of a frame that will not leave: taken back, or too late already."""

REQUESTS: Hashable = "requests"
"""The flow of everything that opens a call."""

REPLIES: Hashable = "replies"
"""The flow of replies too large to be urgent."""


class Flow:
    """One queue within an outbox.

    Its key says what it is: (topic, group) towards a peer, a subscription's id
    towards an app, a tunnel, or one of the names above.

    Attributes:
        kept: The flow outlives its frames; others go when empty.
        bytes: What waits, by :func:`cost`.
        notice: The kind of frame that tells an app of losses when nothing follows them.
        promised: Frames at the head that no later one may push out.
        lost: Messages lost behind everything that waits; told on the next frame, or by a notice when none comes.
        lost_unknown: The same, but nobody can say how many.
    """

    __slots__ = (
        "bytes",
        "deficit",
        "frames",
        "kept",
        "key",
        "limit",
        "lost",
        "lost_unknown",
        "notice",
        "offset",
        "promised",
        "when_full",
        "withdrawn",
    )

    def __init__(self, key: Hashable, limit: float, when_full: int, notice: Kind, *, kept: bool) -> None:
        self.key = key
        self.notice = notice
        self.kept = kept
        self.limit = limit
        self.when_full = when_full
        self.frames: deque[Frame] = deque()
        self.bytes = 0
        self.deficit = 0
        self.offset = 0  # of the head frame's body: what has left in parts
        self.withdrawn = 0  # frames that only hold their place
        self.promised = 0
        self.lost = 0
        self.lost_unknown = False

    @property
    def topic(self) -> tuple[str, str] | None:
        """(topic, group), if that is what it carries to a peer."""
        match self.key:
            case (str(topic), str(group)):
                return topic, group
        return None

    def __bool__(self) -> bool:
        return bool(self.frames or self.lost or self.lost_unknown)


class _Stream:
    """Urgent frames that are made as they leave; all of them before what was queued behind."""

    __slots__ = ("bytes", "frames", "kind")

    def __init__(self, kind: Kind, frames: Iterator[Frame], bytes: int) -> None:
        self.kind = kind
        self.frames = frames
        self.bytes = bytes


def cost(frame: Frame) -> int:
    """Bytes of memory a waiting frame is charged for."""
    return len(frame.body) + frame.header_bytes + FRAME_COST


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
        self.late = 0
        """Frames whose time was up before they could leave; whoever owns the outbox counts them."""
        self.idle = True
        """The edge has seen it empty: the next frame needs a wake-up."""
        self._urgent: deque[Frame | _Stream] = deque()
        self._flows: dict[Hashable, Flow] = {}
        self._active: OrderedDict[Flow, None] = OrderedDict()  # those with something to send, in their turns

    def __bool__(self) -> bool:
        return bool(self._urgent or self._active)

    @property
    def frames(self) -> int:
        """How many frames wait, counted anew each time."""
        return len(self._urgent) + sum(len(flow.frames) for flow in self._active)

    def put_urgent(self, frame: Frame) -> None:
        """Queue ahead of all flows."""
        self._urgent.append(frame)
        self.urgent_bytes += cost(frame)

    def put_stream(self, kind: Kind, frames: Iterator[Frame], bytes: int) -> None:
        """Queue frames ahead of all flows that are made one by one, as they leave; until then it holds ``bytes``."""
        self._urgent.append(_Stream(kind, frames, bytes))
        self.urgent_bytes += bytes

    def extend_urgent(self, frame: Frame, more: bytes) -> None:
        """Lengthen an urgent frame that still waits here."""
        frame.body += more
        self.urgent_bytes += len(more)

    def replace_urgent(self, frame: Frame, body: bytes) -> None:
        """Give an urgent frame that still waits here another body."""
        self.urgent_bytes += len(body) - len(frame.body)
        frame.body = body

    def forget_urgent(self, kinds: Container[int]) -> None:
        """Drop urgent frames of these kinds, which mean nothing any more."""
        self._urgent = deque(each for each in self._urgent if each.kind not in kinds)
        self.urgent_bytes = sum(each.bytes if isinstance(each, _Stream) else cost(each) for each in self._urgent)

    def urgent(self) -> Iterator[Frame]:
        """Urgent frames that have not left, those of streams aside."""
        return (each for each in self._urgent if not isinstance(each, _Stream))

    def fits(self, frame: Frame, limit: int) -> bool:
        """Whether it keeps the calls that wait here within ``limit`` bytes; one always fits."""
        flow = self._flows.get(REQUESTS)
        return flow is None or flow.bytes + cost(frame) <= limit

    def queued(self, key: Hashable) -> tuple[int, int]:
        """Frames that wait in the flow ``key``, and their :func:`cost`."""
        flow = self._flows.get(key)
        return (len(flow.frames), flow.bytes) if flow else (0, 0)

    def waiting(self, key: Hashable, kind: int) -> int:
        """Frames of a kind that wait in the flow ``key``."""
        flow = self._flows.get(key)
        return sum(frame.kind == kind and frame.deadline != WITHDRAWN for frame in flow.frames) if flow else 0

    def put(self, key: Hashable, frame: Frame) -> None:
        """Queue in the flow ``key``. The caller asked :meth:`fits` first, or bounds it otherwise."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self.open(key)
        self._append(flow, frame)

    def open(
        self,
        key: Hashable,
        *,
        limit: float = math.inf,
        when_full: int = WhenFull.DROP_NEWEST,
        notice: Kind = Kind.EVENT,
        kept: bool = False,
    ) -> Flow:
        """The flow ``key``; made with this bound, policy and kind of notice if it is not there.

        It is gone once it is empty again, unless it is to be ``kept``.
        """
        flow = self._flows.get(key)
        if flow is None:
            kept = kept or (isinstance(key, int) and len(self._flows) < MAX_KEPT)
            flow = self._flows[key] = Flow(key, limit, when_full, notice, kept=kept)
        return flow

    def promise(self, flow: Flow, frame: Frame) -> None:
        """Queue in a new flow, at the beginning: nothing that is offered later pushes it out. The caller bounds it."""
        self._append(flow, frame)
        flow.promised += 1

    def commit(self, flow: Flow, frame: Frame) -> None:
        """Queue messages that must not be dropped. The credit they were paid for with bounds them."""
        self._append(flow, frame)

    def offer(self, flow: Flow, frame: Frame) -> int:
        """Queue messages in a flow with a drop policy; return how many messages were dropped for it.

        What is dropped is told on the frame of the flow that follows it.
        """
        size = cost(frame)
        dropped = 0
        if flow.when_full == WhenFull.DROP_OLDEST:
            keep = flow.promised or (1 if flow.offset else 0)  # what has begun to leave is no longer ours to drop
            while len(flow.frames) > keep and self._over(flow, size):
                dropped += self._drop(flow, keep)
        if self._over(flow, size):
            self.lose(flow, frame.messages + frame.lost, unknown=frame.lost_unknown)
            return dropped + frame.messages
        self._append(flow, frame)
        return dropped

    def lose(self, flow: Flow, messages: int, *, unknown: bool = False) -> None:
        """Messages that will not come, behind everything that waits in the flow."""
        if not flow:
            if flow.topic is not None and len(self._flows) > MAX_LOSSES:
                del self._flows[flow.key]
                flow = self.open(("", ""))
            if not flow:
                self._active[flow] = None
        flow.lost += messages
        flow.lost_unknown = flow.lost_unknown or unknown

    def discard(self, key: Hashable) -> int:
        """Drop a flow and what waits in it; return the messages that went with it."""
        flow = self._flows.pop(key, None)
        if flow is None:
            return 0
        self.bytes -= flow.bytes
        self._active.pop(flow, None)
        return sum(frame.messages for frame in flow.frames)

    def withdraw(self, key: Hashable, frame: Frame) -> bool:
        """Take back a frame that has not left, or not in full: False if it has."""
        flow = self._flows.get(key)
        if frame.deadline == WITHDRAWN:
            return True
        if flow is None or (frame.sent and not (flow.offset and flow.frames[0] is frame)):
            return False
        if frame.sent:
            flow.offset = 0
            self._pop(flow)
            frame.deadline = WITHDRAWN
        else:  # an empty frame holds its place until its turn comes, or until half of those that wait are such
            flow.bytes -= cost(frame)
            self.bytes -= cost(frame)
            kind = frame.kind
            vars(frame).clear()
            frame.kind, frame.deadline = kind, WITHDRAWN
            flow.withdrawn += 1
            if flow.withdrawn * 2 > len(flow.frames):
                flow.frames = deque(waiting for waiting in flow.frames if waiting.deadline != WITHDRAWN)
                flow.withdrawn = 0
        if not flow:
            del self._active[flow]
            if not flow.kept:
                del self._flows[key]
        return True

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
            frame = self._urgent[0]
            if isinstance(frame, _Stream):
                made = next(frame.frames, None)
                if made is None:
                    self._urgent.popleft()
                    self.urgent_bytes -= frame.bytes
                    continue
                frame = made
            else:
                self._urgent.popleft()
                self.urgent_bytes -= cost(frame)
            size += cost(frame)
            frame.sent = True
            out.append(frame)
        active = self._active
        while active and size < limit:
            flow = next(iter(active))
            if flow.deficit <= 0:
                flow.deficit += QUANTUM  # once a turn, however many takes the turn lasts
            while flow.frames and flow.deficit > 0 and size < limit:
                head = self._next(flow, now)
                if head is not None:
                    charged = cost(head)
                    flow.deficit -= charged
                    size += charged
                    out.append(head)
            if not flow.frames:
                del active[flow]
                flow.deficit = 0
                if flow:
                    out.append(self._notice(flow))
                if not flow.kept:
                    del self._flows[flow.key]
            elif flow.deficit <= 0:
                active.move_to_end(flow)
        if not out:
            self.idle = True
        return out

    def _append(self, flow: Flow, frame: Frame) -> None:
        if not flow:
            self._active[flow] = None
        elif flow.lost or flow.lost_unknown:
            frame.lost += flow.lost
            frame.lost_unknown = frame.lost_unknown or flow.lost_unknown
            flow.lost, flow.lost_unknown = 0, False
        flow.frames.append(frame)
        charged = cost(frame)
        flow.bytes += charged
        self.bytes += charged

    def _over(self, flow: Flow, size: int) -> bool:
        """Whether ``size`` more bytes are too many; one frame always fits into an empty flow of an empty outbox."""
        return bool((flow.frames and flow.bytes + size > flow.limit) or (self.bytes and self.bytes + size > self.limit))

    def _drop(self, flow: Flow, at: int) -> int:
        frame = flow.frames[at]
        del flow.frames[at]
        flow.bytes -= cost(frame)
        self.bytes -= cost(frame)
        heir = flow.frames[at] if at < len(flow.frames) else flow
        heir.lost += frame.messages + frame.lost
        heir.lost_unknown = heir.lost_unknown or frame.lost_unknown
        return frame.messages

    def _next(self, flow: Flow, now: float) -> Frame | None:
        """The next frame or part of a flow; None if its head's time was up."""
        frame = flow.frames[0]
        offset = flow.offset
        if not offset:
            if frame.deadline == WITHDRAWN:
                flow.frames.popleft()
                flow.withdrawn -= 1
                return None
            if frame.deadline != math.inf:
                if frame.deadline <= now:
                    self._pop(flow)
                    frame.deadline = WITHDRAWN
                    self.late += 1
                    return None
                frame.remaining_ms = max(1, math.ceil((frame.deadline - now) * 1000))
            frame.sent = True
        if len(frame.body) <= PART_BYTES:
            self._pop(flow)
            return frame
        piece = frame.body[offset : offset + PART_BYTES]
        more = offset + PART_BYTES < len(frame.body)
        flow.offset = offset + PART_BYTES if more else 0
        if offset:
            part = Frame(Kind.PART, id=frame.id, body=piece)
            part.more = more
            part.whole = None if more else frame
        else:
            part = frame.copy(body=piece, more=True, total=len(frame.body))
        if not more:
            self._pop(flow)
        return part

    def _pop(self, flow: Flow) -> None:
        charged = cost(flow.frames.popleft())
        flow.bytes -= charged
        self.bytes -= charged
        if flow.promised:
            flow.promised -= 1

    @staticmethod
    def _notice(flow: Flow) -> Frame:
        """The flow ran empty with losses untold: a frame without a message tells them."""
        topic = flow.topic
        if topic is None:
            notice = Frame(flow.notice, id=flow.key, lost=flow.lost, lost_unknown=flow.lost_unknown)
        else:
            notice = Frame(Kind.LOST, address=topic[0], group=topic[1], count=flow.lost)
        flow.lost, flow.lost_unknown = 0, False
        return notice
