"""What a handler runs inside: how long its caller still waits. Calls made meanwhile wait no longer than that."""

from __future__ import annotations

import math
from contextvars import ContextVar

from iris_client._errors import InvalidCall

handler_deadline: ContextVar[float | None] = ContextVar("iris_handler_deadline", default=None)
"""In a handler: the instant (``time.monotonic``) its caller stops waiting, infinite if nobody waits. Elsewhere None."""


def deadline_in(timeout: float, now: float) -> float:
    """Return when a call made now with ``timeout`` seconds must end.

    Raises:
        InvalidCall: ``timeout`` is None, not positive, or not finite.
    """
    if timeout is None:
        raise InvalidCall("timeout=None is refused: every call ends; say how many seconds it may take")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise InvalidCall(f"timeout is a number of seconds, not {type(timeout).__name__}")
    if not 0 < timeout < math.inf:
        raise InvalidCall(f"timeout={timeout!r}: a positive, finite number of seconds is needed")
    outer = handler_deadline.get()
    return now + timeout if outer is None else min(now + timeout, outer)
