"""The door: streams that were opened and have not said who they are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain

import grpc

from irisd.attach.attachment import AttachLimits, abort
from irisd.attach.channel import EOF, Context
from irisd.attach.stream import FIRST_SLICE
from irisd.model import Frame, Kind
from irisd.wire import WireError, decode_slices


class Unready:
    """Streams that have not said HELLO, the oldest first.

    When their places are taken the oldest goes, not the newest: a flood holds its places for as long as it can, an
    app needs one for milliseconds.
    """

    def __init__(self, limits: AttachLimits) -> None:
        self._limits = limits
        self._waiting: dict[asyncio.Timeout, None] = {}

    async def hello(self, context: Context) -> tuple[Frame, Iterator[list[Frame]]]:
        """Read a stream's first batch: its HELLO, and what came with it, decoded as it is taken.

        Aborts the call when it is late, malformed, does not begin with HELLO or has to go for another.
        """
        if len(self._waiting) >= self._limits.unready:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            if not oldest.expired():  # else it is on its way out already
                oldest.reschedule(asyncio.get_running_loop().time())
        patience = asyncio.timeout(self._limits.hello_timeout)
        try:
            async with patience:
                self._waiting[patience] = None
                data = await context.read()
        except TimeoutError:
            if patience not in self._waiting:
                many = (
                    f"too many streams that have not said HELLO: this daemon waits for {self._limits.unready} at once"
                )
                await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, many)
            late = f"no HELLO within {self._limits.hello_timeout:g} s of opening the stream"
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, late)
        finally:
            self._waiting.pop(patience, None)
        if data is EOF:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the stream ended before its HELLO")
        slices = decode_slices(data, self._limits.max_body, lambda: FIRST_SLICE)
        try:
            frames = next(slices, [])
        except WireError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if not frames or frames[0].kind != Kind.HELLO:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the first frame of a stream must be HELLO")
        return frames[0], chain([frames[1:]] if frames[1:] else [], slices)
