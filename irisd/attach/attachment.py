"""An attached app: what the handler sees of it, what the handler owes it, and how its stream ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

import grpc
import grpc.aio

from irisd.attach.channel import Context
from irisd.attach.lane import LocalChannel
from irisd.errors import IrisdError
from irisd.model import AttachmentId, Frame, Kind, MiB

MAX_DETAIL = 1024
"""Characters of a status' details; they travel in a header, and apps cap those."""


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
    def is_writing(self) -> bool:
        """Whether the app has yet to take what is being written to it."""
        return self._write_began is not None

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
