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
from collections.abc import Iterable

import grpc
import structlog

from irisd.attach.attachment import GONE, AttachHandler, AttachLimits, Attachment, Over
from irisd.attach.channel import Channel, ChannelLost, Context, GrpcChannel
from irisd.attach.lane import LocalLane
from irisd.model import Frame, Kind, LaneKind
from irisd.wire import WireError, decode_batch, decode_slices

FIRST_SLICE, MAX_SLICE = 8, 32
"""How many frames are handed over in an app's first turn, and at most."""

_CLOSED = Over(grpc.StatusCode.OK, "", "closed")  # the app closed its side, or so it looks when it was killed

_log = structlog.get_logger("irisd.attach")


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
        self._enough = False  # the write in flight is the last
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
            if reader.done() and reader.result() is not GONE:  # the app has said its last
                if attachment.ending is not None and not writer.done():
                    await asyncio.wait((writer,))  # what is queued for it still goes out
                else:
                    await self._write_last(writer)
            # A writer that was cancelled ran out of time writing what was queued: the ending stands.
            return attachment.ending or (reader.result() if reader.done() else writer.result())
        except Exception:
            # A defect of ours, in one app's stream: that app is told, the others go on.
            _log.exception("attach.stream_failed", attachment=attachment.id)
            await self._write_last(writer)
            return Over(grpc.StatusCode.INTERNAL, "the daemon failed on this stream; its log says how", "failed")
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _write_last(self, writer: asyncio.Task[Over]) -> None:
        """Let the write end that is in flight: beside it gRPC takes no status, and the app would never hear of any."""
        self._enough = True
        if self._attachment.is_writing and not writer.done():
            await asyncio.wait((writer,), timeout=self._limits.end_timeout)

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
            while not self._enough:
                if self._out is not self._in:
                    await self._follow()
                    continue
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
            return _CLOSED
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
