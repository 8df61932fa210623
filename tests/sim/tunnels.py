"""Both ends of a simulated tunnel, and what each must see of the other."""

from __future__ import annotations

from collections import deque
from itertools import accumulate, count, pairwise
from typing import TYPE_CHECKING
from zlib import crc32

from irisd.model import Code, Executed, Frame, KiB, Kind

if TYPE_CHECKING:
    from tests.sim.apps import App
    from tests.sim.world import World

COST = 64


class Line:
    """One tunnel as a whole: what each side is to say, and what each side heard."""

    def __init__(
        self, world: World, cluster: str, opener: App, sizes: tuple[list[int], list[int]], *, abort: bool
    ) -> None:
        self.world = world
        self.cluster = cluster
        self.opener = opener
        self.label = f"t{len(world.oracle.lines)}"
        self.sizes = sizes
        self.abort = abort
        self.window = world.random.choice([64 * KiB, 256 * KiB, 1024 * KiB])
        self.takes_several = world.random.choice([(True, True), (True, False), (False, False)])  # by side
        self.pace = world.random.choice([0.0, 0.005, 0.3])  # seconds to digest a message
        self.sent: tuple[list[int], list[int]] = ([], [])  # checksums of what each side has sent
        self.finished = [False, False]
        self.ends: list[TunnelEnd | None] = [None, None]
        self.refused = False
        self.broken = False
        world.oracle.lines[self.label] = self

    @property
    def completed(self) -> bool:
        return all(end is not None and end.heard_finish and end.said_finish for end in self.ends)


class TunnelEnd:
    """One side: sends within its credit, grants as it consumes, finishes when it has said all."""

    def __init__(self, app: App, id: int, line: Line, side: int) -> None:
        self.app = app
        self.id = id
        self.line = line
        self.side = side
        self.credit = 0
        self.longest = 0  # of a DATA with several messages
        self.granted = 0
        self.heard = 0
        self.heard_finish = False
        self.said_finish = False
        self.open = False
        self.over = False
        self._to_say = deque(line.sizes[side])
        self._numbers = count()
        if line.ends[side] is not None:
            line.world.fail(f"tunnel {line.label} reached two members")
        line.ends[side] = self

    def accept(self) -> None:
        if not self.over and not self.app.gone:
            self.open = True
            self._grant(self.line.window)
            self._speak()

    def refuse(self) -> None:
        if not self.over:
            self.over = self.line.refused = True
            self._send(Frame(Kind.ERROR, code=Code.REJECTED, executed=Executed.YES, reason="no"))

    def frame(self, frame: Frame) -> None:
        world, kind = self.line.world, frame.kind
        if self.over:
            return
        if kind == Kind.CREDIT:
            if not self.open:
                self.open = True
                self._grant(self.line.window)
            self.credit += frame.count
            self.longest = frame.max_bytes
            self._speak()
        elif kind == Kind.DATA:
            world.require(self.open and not self.heard_finish, f"{self}: DATA out of place")
            messages = _cut(frame)
            cost = len(frame.body) + COST * len(messages)
            world.require(cost <= self.granted, f"{self}: {cost} bytes came, {self.granted} were granted")
            world.require(len(messages) == 1 or self.line.takes_several[self.side], f"{self}: several messages came")
            self.granted -= cost
            said = self.line.sent[1 - self.side]
            for message in messages:
                world.require(self.heard < len(said), f"{self}: more came than was sent")
                world.require(said[self.heard] == crc32(message), f"{self}: message {self.heard} is not what was sent")
                self.heard += 1
            world.at(self.line.pace, lambda: self._grant(cost))
        elif kind == Kind.FINISH:
            said = self.line.sent[1 - self.side]
            world.require(self.line.finished[1 - self.side], f"{self}: finished, and the other end has not")
            world.require(self.heard == len(said), f"{self}: finished after {self.heard} of {len(said)} messages")
            self.heard_finish = True
            self._maybe_over()
        elif kind in (Kind.ERROR, Kind.CANCEL):
            self.over = self.line.broken = True
            if kind == Kind.ERROR and self.side == 0 and not self.open and frame.executed == Executed.NO:
                world.require(self.line.ends[1] is None, f"{self}: not executed, and yet the member had it")
            if kind == Kind.CANCEL:
                self._send(Frame(Kind.ERROR, code=Code.CANCELLED, executed=Executed.YES))

    def cancel(self) -> None:
        if not self.over:
            self.line.broken = True
            self._send(Frame(Kind.CANCEL))

    def _grant(self, size: int) -> None:
        if not self.over and not self.heard_finish:
            self.granted += size
            longest = self.line.window // 2 if self.line.takes_several[self.side] else 0
            self._send(Frame(Kind.CREDIT, count=size, max_bytes=longest))

    def _speak(self) -> None:
        """Say what credit allows; then finish."""
        frames: list[Frame] = []
        several: list[bytes] = []
        while self._to_say and self._to_say[0] + COST <= self.credit:
            size = self._to_say.popleft()
            self.credit -= size + COST
            body = f"{self.line.label}.{self.side}.{next(self._numbers)}|".encode().ljust(size, b"t")[:size]
            self.line.sent[self.side].append(crc32(body))
            if several and sum(map(len, several)) + size > self.longest:
                frames.append(_data(self.id, several))
                several = []
            several.append(body)
        if several:
            frames.append(_data(self.id, several))
        self.app.send(*frames)
        if self._to_say or self.said_finish:
            return
        if self.line.abort and self.side == 0:
            self.over = self.line.broken = True
            self._send(Frame(Kind.ERROR, code=Code.TUNNEL_BROKEN, executed=Executed.YES, detail="changed my mind"))
            return
        self.said_finish = self.line.finished[self.side] = True
        self._send(Frame(Kind.FINISH))
        self._maybe_over()

    def _maybe_over(self) -> None:
        self.over = self.heard_finish and self.said_finish

    def _send(self, frame: Frame) -> None:
        frame.id = self.id
        self.app.send(frame)

    def __str__(self) -> str:
        return f"tunnel {self.line.label}.{self.side} of {self.app}"


def _data(id: int, messages: list[bytes]) -> Frame:
    data = Frame(Kind.DATA, id=id, body=b"".join(messages))
    if len(messages) > 1:
        data.sizes = b"".join(len(each).to_bytes(4, "little") for each in messages)
    return data


def _cut(data: Frame) -> list[bytes]:
    if not data.sizes:
        return [data.body]
    ends = list(accumulate(memoryview(data.sizes).cast("I"), initial=0))
    return [data.body[start:end] for start, end in pairwise(ends)]
