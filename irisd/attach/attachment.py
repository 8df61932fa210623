"""One app's stream: HELLO, then batches of frames both ways until it is over.

Three tasks share a stream. The one gRPC started waits for the first of the
other two to finish and then clears up; the *reader* hands every batch to the
handler before it reads the next, so nothing is read ahead but what the channel
holds; the *writer* pulls, encodes and has exactly one write in flight, so what
an app does not read stays in the brain's outbox, which is bounded. An app whose
control queue is full because it does not read is not read either.

An app of this host may move to the local lane. Its MOVE is the last the reader
takes from gRPC, and makes the writer send one back before it writes there. The
call ends then, and END tells on the lane how the attachment ended; or it stays
open, silent, and its status does, for an app that cannot do without.

Invariants:
    - ``attached`` comes first, ``detached`` last and exactly once; no other callback outside the two
    - nothing is pulled while a write is in flight
    - once :meth:`Attachment.end` was called, nothing more is delivered to the handler
    - no frame follows a MOVE on gRPC, in either direction
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn, Protocol

import grpc
import grpc.aio
import structlog

from irisd.attach.channel import Channel, ChannelLost, Context, GrpcChannel
from irisd.attach.lane import LocalChannel, LocalLane
from irisd.errors import IrisdError
from irisd.model import AttachmentId, Frame, Kind, LaneKind, MiB
from irisd.wire import WireError, decode_batch, decode_slices

MAX_DETAIL = 1024
"""Characters of a status' details; they travel in a header, and apps cap those."""

FIRST_SLICE, MAX_SLICE = 8, 32
"""How many frames are handed over in an app's first turn, and at most."""

_log = structlog.get_logger("irisd.attach")


@dataclass(frozen=True, slots=True)
class AttachLimits:
    """Bounds of the edge where apps come in. Seconds and bytes."""

    attachments: int = 10_000
    unready: int = 256  # streams that have not said HELLO
    connections: int = 16_384  # per listener; those beyond are closed at once
    hello_timeout: float = 5.0
    end_timeout: float = 5.0  # for what is queued to be written once an attachment is told to end
    not_reading: float = 60.0  # a write in flight for so long, with the control queue full: detached
    silent: float = 300.0  # not a word for so long from an app that is on the local lane alone: detached
    linger: float = 30.0  # for such an app to read how its attachment ended
    max_body: int = 8 * MiB
    message: int = 4 * MiB  # the largest gRPC message taken from an app


class AttachRefused(IrisdError):
    """The handler does not take this app. Becomes the stream's gRPC status.

    Args:
        status: A gRPC status name, such as ``NOT_FOUND``.
        detail: A sentence for the app's author.
    """

    def __init__(self, status: str, detail: str) -> None:
        self.status = grpc.StatusCode[status]
        self.detail = detail
        super().__init__(detail)


class AttachHandler(Protocol):
    """What the composition root does with apps. Every call is made from the event loop's thread."""

    def attached(self, attachment: Attachment, hello: Frame) -> None:
        """Take an app in. May raise :class:`AttachRefused`; then nothing else is called for it."""

    def frames_received(self, attachment: Attachment, frames: list[Frame]) -> None:
        """Take all frames of one read, in order; never an empty list, never a first HELLO.

        May raise :class:`~irisd.wire.WireError` for a frame that breaks the rules.
        """

    def pull(self, attachment: Attachment, limit: int) -> list[Frame]:
        """Give about ``limit`` bytes of what waits for the app; an empty list when nothing does."""

    def control_full(self, attachment: Attachment) -> bool:
        """Say whether the app's control queue is full: what it sends has to wait until it has read."""

    def detached(self, attachment: Attachment, reason: str) -> None:
        """Forget the app: its stream is over. ``reason`` is a stable word."""


@dataclass(frozen=True, slots=True)
class Over:
    """How a stream ended: its gRPC status, and the word for ``detached``."""

    status: grpc.StatusCode
    detail: str
    reason: str

    def told(self) -> Frame:
        """END, for an app that has no stream to be told by; like a status, OK needs no details."""
        detail = "" if self.status is grpc.StatusCode.OK else shortened(self.detail)
        return Frame(Kind.END, reason=self.status.name, detail=detail)


_CLOSED = Over(grpc.StatusCode.OK, "", "closed")  # the app closed its side, or so it looks when it was killed
GONE = Over(grpc.StatusCode.CANCELLED, "", "gone")  # the app or its connection broke: nobody is left to tell


class Attachment:
    """An attached app, as the handler sees it.

    Attributes:
        id: The daemon's number for it, never used twice.
        peer: Where it comes from, for people: ``unix`` or ``127.0.0.1:50312``.
        listener: The listener's URL.
        services: The services the listener offers; empty for all.
        ending: How it will end, once that is known.
        lane: What carries its frames now: ``grpc`` or ``local``.
        local: Its connection on the local lane, from when it was let in there.
        alone: It can do without its stream once it has moved.
        awake: Set when there is something to pull.
        relieved: Set when something was pulled.
    """

    def __init__(self, attachment_id: AttachmentId, peer: str, listener: str, services: frozenset[str]) -> None:
        self.id = attachment_id
        self.peer = peer
        self.listener = listener
        self.services = services
        self.ending: Over | None = None
        self.lane = "grpc"
        self.local: LocalChannel | None = None
        self.alone = False
        self.awake = asyncio.Event()
        self.relieved = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._give_up: Callable[[], object] | None = None
        self._end_timeout = 0.0  # seconds
        self._timer: asyncio.TimerHandle | None = None
        self._write_began: float | None = None

    def allows(self, service: str) -> bool:
        """Whether the listener offers this service."""
        return not self.services or service in self.services

    def admit(self, local: LocalChannel) -> bool:
        """Take note of the app's connection on the local lane; False when it comes too late."""
        if self.ending is not None:
            return False
        self.local = local
        return True

    def wake(self) -> None:
        """Say that the app's outbox turned non-empty. From the event loop's thread only."""
        self.awake.set()

    def end(self, status: str, detail: str, *, reason: str = "ended") -> None:
        """End the stream once what is queued was written, or could not be in time.

        The first call counts; a call after the stream is over does nothing. Frames that arrive after it are discarded.

        Args:
            status: A gRPC status name: ``OK``, ``INVALID_ARGUMENT`` ...
            detail: A sentence for the app's author.
            reason: What ``detached`` is told.
        """
        if self.ending is not None:
            return
        self.ending = Over(grpc.StatusCode[status], detail, reason)
        self.awake.set()
        self.relieved.set()
        self._start_timer()

    @property
    def stalled(self) -> float:
        """For how many seconds the app has not taken what is being written to it."""
        return 0.0 if self._write_began is None else self._loop.time() - self._write_began

    @property
    def silent_since(self) -> float | None:
        """When an app last said something that has to say something now and then; None for others."""
        local = self.local
        return local.silent_since if local is not None and self.alone and self.lane == local.name else None

    # --------------------------------------------------- the stream's own side

    def open(self, give_up: Callable[[], object], end_timeout: float) -> None:
        """Begin: ``give_up`` stops the writer when an ending takes longer than ``end_timeout`` seconds."""
        self._give_up, self._end_timeout = give_up, end_timeout
        self._start_timer()

    def give_up(self) -> None:
        """Do not wait any longer for what is queued to be written; for one that is ending."""
        if self._give_up is not None:
            self._give_up()

    def close(self, over: Over) -> None:
        """It is over: nothing can end it any more."""
        self.ending = over
        self._give_up = None
        if self._timer is not None:
            self._timer.cancel()

    def write_begins(self) -> None:
        self._write_began = self._loop.time()

    def write_ends(self) -> None:
        self._write_began = None

    def _start_timer(self) -> None:
        if self.ending is not None and self._give_up is not None:
            self._timer = self._loop.call_later(self._end_timeout, self._give_up)

    def __repr__(self) -> str:
        return f"<Attachment {self.id} from {self.peer}>"


class Stream:
    """Runs one attached app's stream; made once its HELLO is in.

    Args:
        attachment: Who it is.
        context: gRPC's end of it.
        handler: Where frames go and come from.
        limits: The edge's bounds.
        lane: Where the app may move to.

    Attributes:
        moving: The app does without its gRPC stream from now on, whatever becomes of that.
        moved: Done when nothing more is said there.
    """

    def __init__(
        self,
        attachment: Attachment,
        context: Context,
        handler: AttachHandler,
        limits: AttachLimits,
        lane: LocalLane | None = None,
    ) -> None:
        self._attachment = attachment
        self._in: Channel = GrpcChannel(context)
        self._out: Channel = self._in
        self._lane = lane
        self._hello: Frame | None = None  # until WELCOME leaves
        self._handler = handler
        self._limits = limits
        self._slice = FIRST_SLICE  # frames for the next turn: what they cost is known only afterwards
        self.moving = False
        self.moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, hello: Frame, rest: Iterable[list[Frame]]) -> Over:
        """Attach, serve and detach; return how it ended, which is still to be told to an app that has a stream.

        Cancelled when that stream breaks: then the app was detached as ``gone``.

        Raises:
            AttachRefused: The handler did not take the app.
        """
        attachment, handler = self._attachment, self._handler
        self._hello = hello
        handler.attached(attachment, hello)
        over = GONE
        try:
            over = await self._serve(rest)
        finally:
            attachment.close(over)
            if attachment.local is not None:
                if self.moving and self._lane is not None and over is not GONE:
                    # Of an app that has not seen MOVE the stream tells too.
                    attachment.local.finish(over.told(), self._lane.leaving)
                else:
                    attachment.local.close()
            handler.detached(attachment, over.reason)
        return over

    async def _serve(self, rest: Iterable[list[Frame]]) -> Over:
        attachment = self._attachment
        reader = asyncio.create_task(self._read(rest), name=f"attach-{attachment.id}-read")
        writer = asyncio.create_task(self._write(), name=f"attach-{attachment.id}-write")
        attachment.open(writer.cancel, self._limits.end_timeout)
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if attachment.ending is not None and not writer.done() and reader.result() is not GONE:
                await asyncio.wait((writer,))  # the app has said its last; what is queued for it still goes out
            # A writer that was cancelled ran out of time writing what was queued: the ending stands.
            return attachment.ending or (reader.result() if reader.done() else writer.result())
        except Exception:
            # A defect of ours, in one app's stream: that app is told, the others go on.
            _log.exception("attach.stream_failed", attachment=attachment.id)
            return Over(grpc.StatusCode.INTERNAL, "the daemon failed on this stream; its log says how", "failed")
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(self, slices: Iterable[list[Frame]]) -> Over:
        attachment = self._attachment
        max_body = self._limits.max_body
        try:
            await self._hand_over(slices)
            while True:
                data = await self._in.read()
                if data is None:
                    return _CLOSED
                # Once ending, what arrives is only taken off the wire: an app busy writing gets to read its end.
                if attachment.ending is None:
                    await self._hand_over(decode_slices(data, max_body, self.turn))
        except ChannelLost:
            return GONE
        except WireError as error:
            _log.warning("attach.malformed", attachment=attachment.id, rule=str(error))
            return Over(grpc.StatusCode.INVALID_ARGUMENT, str(error), "malformed")

    def turn(self) -> int:
        """How many frames to hand over next."""
        return self._slice

    async def _hand_over(self, slices: Iterable[list[Frame]]) -> None:
        """Hand over a batch, a slice at a time: a long one delays the other apps by a turn, not by all of it."""
        attachment, handler = self._attachment, self._handler
        first, here = True, self._in
        for frames in slices:
            if self._in is not here:
                raise WireError("MOVE: a frame follows it")
            if not first:
                await asyncio.sleep(0)
            first = False
            if frames[-1].kind == Kind.MOVE:
                self._move()
                del frames[-1]
                if not frames:
                    continue
            while attachment.ending is None and handler.control_full(attachment):
                attachment.relieved.clear()
                await attachment.relieved.wait()
            if attachment.ending is not None:
                return
            began = time.perf_counter()
            handler.frames_received(attachment, frames)
            took = time.perf_counter() - began
            turn = self._in.turn
            if took > turn:
                self._slice = max(1, len(frames) // 4)
            elif took < turn / 4 and len(frames) >= self._slice:
                self._slice = min(MAX_SLICE, self._slice * 2)

    def _move(self) -> None:
        """The app has said its last on gRPC: what follows is read on the local lane."""
        local = self._attachment.local
        if local is None or self._in is local:
            raise WireError("MOVE: this app was not let in to a lane")
        self._in, local.taker = local, self._take_short
        self._attachment.awake.set()

    def _take_short(self, batch: bytes) -> bool:
        """Hand over what a read brought, unless that has to wait."""
        attachment, handler = self._attachment, self._handler
        if attachment.ending is not None or handler.control_full(attachment):
            return False
        frames = decode_batch(batch, self._limits.max_body)
        if frames and frames[-1].kind == Kind.MOVE:
            self._move()
        if frames:
            handler.frames_received(attachment, frames)
        return True

    async def _write(self) -> Over:
        attachment, handler = self._attachment, self._handler
        awake = attachment.awake
        try:
            while True:
                if self._out is not self._in:
                    await self._follow()
                frames = handler.pull(attachment, self._out.batch)
                if frames:
                    attachment.relieved.set()
                    if self._hello is not None:
                        self._offer_lane(self._hello, frames[0])
                    attachment.write_begins()
                    await self._out.write(frames)
                    attachment.write_ends()
                elif attachment.ending is not None:
                    await self._out.flush()
                    return attachment.ending
                else:
                    awake.clear()
                    await awake.wait()
        except ChannelLost:
            return GONE

    async def _follow(self) -> None:
        """Say the last on gRPC; what follows is written where the app has moved to.

        Raises:
            ChannelLost: The stream broke, and the app needs it.
        """
        attachment = self._attachment
        self.moving = attachment.alone
        attachment.write_begins()
        try:
            await self._out.write([Frame(Kind.MOVE)])
        except ChannelLost:
            if not self.moving:
                raise
        attachment.write_ends()
        self._out = self._in
        attachment.lane = self._out.name
        if self.moving:
            self.moved.set_result(None)

    def _offer_lane(self, hello: Frame, welcome: Frame) -> None:
        self._hello = None
        if self._lane is not None and welcome.kind == Kind.WELCOME:
            self._lane.offer(self._attachment, hello, welcome)
            self._attachment.alone = bool(welcome.lanes & LaneKind.LOCAL_ALONE)


def shortened(detail: str) -> str:
    """Within :data:`MAX_DETAIL`."""
    return detail if len(detail) <= MAX_DETAIL else detail[: MAX_DETAIL - 1] + "…"


async def abort(context: Context, status: grpc.StatusCode, detail: str) -> NoReturn:
    """End the call with this status; does not return.

    An app that does not read is told when it does, or never when its connection breaks first.
    """
    try:
        await context.abort(status, shortened(detail))
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None  # nobody is left to tell, and gRPC would call that our failure
    raise AssertionError("gRPC's abort returned")
