"""How calls are shared out among the members of a cluster, as apps name it."""

from __future__ import annotations

from typing import Final

from iris_client._errors import InvalidCall
from iris_client._frames import Header

BALANCES: Final = {"p2c": 1, "round_robin": 2, "random": 3, "hash": 4, "local": 5}
"""The names, and their numbers in ``frame.proto``."""

MAX_KEY: Final = 1024
MAX_PRIORITY: Final = 255
MAX_HEDGE: Final = 3600.0


def number(balance: str | None) -> int:
    """The number of a way to share out; 0 for None.

    Raises:
        InvalidCall: There is no such way.
    """
    if balance is None:
        return 0
    known = BALANCES.get(balance) if isinstance(balance, str) else None
    if known is None:
        raise InvalidCall(f"balance={str(balance)[:60]!r}: one of {', '.join(BALANCES)} is needed")
    return known


def priority(level: int) -> int:
    """A member's level, checked.

    Raises:
        InvalidCall: It is out of range.
    """
    if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level <= MAX_PRIORITY:
        raise InvalidCall(f"priority={str(level)[:60]}: a whole number from 0 (first) to {MAX_PRIORITY} is needed")
    return level


def balanced(header: Header, balance: str | None, key: str | None) -> None:
    """Say in a call's header how it is to be balanced.

    Raises:
        InvalidCall: There is no such way, or the key is too long, or ``hash`` has none.
    """
    if balance is not None:
        header.balance = number(balance)  # type: ignore[assignment]
    if key is not None:
        if not isinstance(key, str) or not key:
            raise InvalidCall(f"key={str(key)[:60]!r}: text that is not empty is needed")
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise InvalidCall(f"key={key[:60]!r} cannot be encoded as UTF-8") from None
        if size > MAX_KEY:
            raise InvalidCall(f"key: at most {MAX_KEY} bytes, this one has {size}; a digest of it will do as well")
        if balance not in (None, "hash"):
            raise InvalidCall(f"balance={balance!r} with a key: a key means hash")
        header.key = key
    elif balance == "hash":
        raise InvalidCall("balance='hash' needs a key")


def hedged(header: Header, hedge_after: float | None) -> None:
    """Say in a request's header when a second member is asked.

    Raises:
        InvalidCall: The time is out of range, or the request is not idempotent.
    """
    if hedge_after is None:
        return
    if isinstance(hedge_after, bool) or not isinstance(hedge_after, int | float) or not 0 < hedge_after <= MAX_HEDGE:
        raise InvalidCall(f"hedge_after={str(hedge_after)[:60]}: seconds above 0, at most {MAX_HEDGE:.0f}, are needed")
    if not header.idempotent:
        raise InvalidCall("hedge_after asks a second member: say idempotent=True if running it twice does no harm")
    header.hedge_ms = max(1, round(hedge_after * 1000))
