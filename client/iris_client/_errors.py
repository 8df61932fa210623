"""Everything the SDK raises on purpose: one root, and on every delivery error whether the handler ran.

Where an error *is* a timeout, a lost connection or a bad value, it also descends from the built-in class of that
name, so code that knows nothing of Iris handles it properly.
"""

from __future__ import annotations

from iris_client._model import Executed


class IrisError(Exception):
    """Root of everything raised on purpose by this package."""


class DaemonUnavailable(IrisError, ConnectionError):
    """No daemon could be reached; the message names every address tried and the command that starts one."""


class Denied(IrisError, PermissionError):
    """The daemon refuses: a missing or wrong token, or a service it does not hold or offer."""


class MeshClosed(IrisError, RuntimeError):
    """The mesh was closed, or belongs to the process this one was forked from."""


class CodecError(IrisError, ValueError):
    """A value cannot be encoded, or a body is not what the codec expects."""


class InvalidName(IrisError, ValueError):
    """A cluster, topic, filter or method name, or a header, breaks the rules. Refused before anything was sent."""


class InvalidCall(IrisError, ValueError):
    """The call makes no sense to the daemon: a second JOIN of one cluster, a service it does not know."""


class DeliveryError(IrisError):
    """A message was not answered, or not delivered.

    Attributes:
        executed: Whether the handler ran: ``Executed.NO`` (safe to try again), ``MAYBE`` or ``YES``.
    """

    executed: Executed = Executed.MAYBE

    def __init__(self, message: str = "", *, executed: Executed | None = None) -> None:
        super().__init__(message)
        if executed is not None:
            self.executed = executed

    def __str__(self) -> str:
        return f"{super().__str__()} (executed: {self.executed.value})"


class NoMember(DeliveryError):
    """Nobody serves that name."""

    executed = Executed.NO


class NotSupported(DeliveryError):
    """Members exist, but none handles this pattern or method."""

    executed = Executed.NO


class DeadlineExceeded(DeliveryError, TimeoutError):
    """The timeout passed first."""


class MemberLost(DeliveryError, ConnectionError):
    """The member, its node or the link to it went away."""


class Overloaded(DeliveryError):
    """A bounded queue was full."""

    executed = Executed.NO


class PublishLost(Overloaded):
    """Found by ``flush``: published messages that reached nobody, or that may not have.

    Attributes:
        lost: Messages the daemon had to drop.
        unknown: Messages that were on a stream when it broke: routed or not, nobody can tell.
    """

    def __init__(self, message: str = "", *, lost: int = 0, unknown: int = 0) -> None:
        super().__init__(message, executed=Executed.NO if not unknown else Executed.MAYBE)
        self.lost = lost
        self.unknown = unknown


class Rejected(DeliveryError):
    """The handler said no on purpose; this is an answer, and is never retried.

    Also raised when a body could not be decoded, at either end: a request its handler cannot read, or a reply that
    is not what ``returns`` asked for.

    Attributes:
        code: The handler's own word for it (``bad_body`` when the body could not be decoded).
        body: What it sent along.
    """

    executed = Executed.YES

    def __init__(
        self, message: str = "", *, code: str = "", body: bytes = b"", executed: Executed | None = None
    ) -> None:
        super().__init__(message, executed=executed)
        self.code = code
        self.body = body


class HandlerFailed(DeliveryError):
    """The handler raised something it did not mean to, or answered with the wrong type. Its traceback stays there."""

    executed = Executed.YES


class CallCancelled(DeliveryError):
    """The member or a daemon gave the call up, and not because this app asked for it."""


class TooLarge(DeliveryError, ValueError):
    """A body is above the limit, which the message names."""

    executed = Executed.NO


class WouldBlock(DeliveryError):
    """The local buffer is full and the caller did not want to wait."""

    executed = Executed.NO


class SlowSubscriber(DeliveryError):
    """A subscription that must not lose messages stalled the publisher; what was accepted before stays queued.

    Attributes:
        topic: Which topic waits; empty when ``flush`` waited for several.
        waits_for: The group that does not read, else the member.
    """

    def __init__(
        self, message: str = "", *, executed: Executed | None = None, topic: str = "", waits_for: str = ""
    ) -> None:
        super().__init__(message, executed=executed)
        self.topic = topic
        self.waits_for = waits_for


class TunnelBroken(DeliveryError, ConnectionError):
    """A tunnel ended without both ends having finished."""


class Detached(DeliveryError, ConnectionError):
    """The stream to the daemon broke while the call was under way."""


class Reject(Exception):
    """Raise this in a handler to answer with an error, on purpose.

    Args:
        message: A sentence for people; the caller sees it.
        code: A short stable word for programs.
        body: Bytes for the caller.
    """

    def __init__(self, message: str = "", *, code: str = "", body: bytes = b"") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.body = body


_BY_CODE: dict[int, type[DeliveryError]] = {
    1: NoMember,
    2: NotSupported,
    3: DeadlineExceeded,
    4: MemberLost,
    5: Overloaded,
    7: HandlerFailed,
    8: TooLarge,
    9: TunnelBroken,
    10: CallCancelled,
}
_BY_EXECUTED = {1: Executed.NO, 2: Executed.MAYBE, 3: Executed.YES}


def from_frame(code: int, executed: int, reason: str, detail: str, body: bytes, what: str) -> IrisError:
    """Make the typed error an ERROR frame stands for.

    Args:
        code: The frame's ``code``; one this release does not know becomes a plain :class:`DeliveryError`.
        executed: The frame's ``executed``; unspecified leaves the error's own default.
        reason: The frame's ``reason``.
        detail: The frame's ``detail``, a sentence for people.
        body: The frame's body.
        what: What was tried, for the message: ``request to 'databases'``.
    """
    said = _BY_EXECUTED.get(executed)
    if code == 6:
        message = f"{what}: {detail or 'rejected'}" + (f" [{reason}]" if reason else "")
        return Rejected(message, code=reason, body=body, executed=said)
    if code == 13:
        return SlowSubscriber(f"{what}: {detail or reason}", executed=said, waits_for=reason)
    if code == 11:
        return Denied(f"{what}: {detail or 'denied'}")
    if code == 12:
        return InvalidCall(f"{what}: {detail or 'the daemon finds this call invalid'}")
    kind = _BY_CODE.get(code, DeliveryError)
    message = detail or (kind.__doc__ or "").partition("\n")[0].rstrip(".") or "failed"
    if reason and reason not in message:
        message = f"{message} [{reason}]"
    return kind(f"{what}: {message}", executed=said)
