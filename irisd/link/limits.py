"""What strangers may cost us (pure): half-open connections and processor time.

A connection is *half-open* until its initiator's first record has opened: up to
there it may be anybody's. Two bounds keep a flood of them from the links that
are up:

- **places**: so many half-open connections in all and per host. When they are
  taken, the *oldest* goes, not the newest: a flood holds its places for as
  long as it can, an honest peer needs one for milliseconds.
- **time**: a budget of processor seconds per second, in all and per host, as
  two token buckets. Every step of accepting and handshaking is charged with
  what it took; who has used up his share is turned away unread.

A *host* is an IPv4 address or an IPv6 /64, which is what one party commonly has.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MAX_HOSTS: Final = 4096
"""Hosts whose budgets are remembered; the longest unseen is forgotten first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much strangers may take."""

    half_open: int = 256
    half_open_per_host: int = 64
    share: float = 0.2
    """Processor seconds per second for all handshakes together."""
    share_per_host: float = 0.1
    burst: float = 0.6
    """Processor seconds that may be saved up, in all; a third of it per host."""


class HandshakeLimits:
    """Accounts of what strangers cost. Connections are numbers their owner gives them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits = limits or Limits()
        self._half_open: OrderedDict[int, str] = OrderedDict()
        self._half_open_by_host: dict[str, OrderedDict[int, None]] = {}
        self._budget = _Bucket(limits.share, limits.burst)
        self._budget_by_host: OrderedDict[str, _Bucket] = OrderedDict()

    @property
    def half_open(self) -> int:
        """Half-open connections at the moment."""
        return len(self._half_open)

    def admits(self, host: str, now: float) -> bool:
        """Whether this host's and everybody's budget leave room for one more handshake."""
        return self._budget.level(now) > 0 and self._host_budget(host, now).level(now) > 0

    def charge(self, host: str, seconds: float, now: float) -> None:
        """Book processor time spent on this host's handshakes."""
        self._budget.take(seconds, now)
        self._host_budget(host, now).take(seconds, now)

    def opened(self, connection: int, host: str) -> int | None:
        """A half-open connection begins; return the one that has to go for it, if any."""
        mates = self._half_open_by_host.setdefault(host, OrderedDict())
        evicted: int | None = None
        if len(mates) >= self.limits.half_open_per_host:
            evicted = next(iter(mates))
        elif len(self._half_open) >= self.limits.half_open:
            evicted = next(iter(self._half_open))
        if evicted is not None:
            self.closed(evicted)
            mates = self._half_open_by_host.setdefault(host, OrderedDict())
        self._half_open[connection] = host
        mates[connection] = None
        return evicted

    def closed(self, connection: int) -> None:
        """A connection is not half-open any more: proven, or gone."""
        host = self._half_open.pop(connection, None)
        if host is None:
            return
        mates = self._half_open_by_host[host]
        del mates[connection]
        if not mates:
            del self._half_open_by_host[host]

    def _host_budget(self, host: str, now: float) -> _Bucket:
        budget = self._budget_by_host.get(host)
        if budget is None:
            budget = _Bucket(self.limits.share_per_host, self.limits.burst / 3)
            self._budget_by_host[host] = budget
            if len(self._budget_by_host) > MAX_HOSTS:
                self._budget_by_host.popitem(last=False)
        else:
            self._budget_by_host.move_to_end(host)
        return budget


class _Bucket:
    """Fills with ``rate`` per second up to ``size``; may go below zero once, by the step that empties it."""

    __slots__ = ("_at", "_level", "_rate", "_size")

    def __init__(self, rate: float, size: float) -> None:
        self._rate, self._size = rate, size
        self._level = size
        self._at = -1.0  # seconds, monotonic; before the first use

    def level(self, now: float) -> float:
        if self._at >= 0:
            self._level = min(self._size, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._level

    def take(self, amount: float, now: float) -> None:
        # Not deeper than one burst: a host that overdrew once comes back in bounded time.
        self._level = max(-self._size, self.level(now) - amount)


def host_of(ip: str) -> str:
    """The host an IP address belongs to, for accounting."""
    if ":" not in ip:
        return ip
    try:
        address = ipaddress.IPv6Address(ip.partition("%")[0])
    except ValueError:
        return ip
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64)) + "/64"


class Repeats:
    """Tells how often something was said, once a second: facts about strangers must not flood a log.

    Args:
        interval: Seconds between two equal facts.
        capacity: Different facts remembered.
    """

    def __init__(self, interval: float = 1.0, capacity: int = 1024) -> None:
        self._interval = interval
        self._capacity = capacity
        self._said: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()

    def count(self, now: float, *key: str) -> int:
        """Note it once more; return how many times to report now: 0 to keep quiet, this one included."""
        at, unsaid = self._said.get(key, (-self._interval, 0))
        if now - at < self._interval:
            self._said[key] = (at, unsaid + 1)
            return 0
        self._said[key] = (now, 0)
        self._said.move_to_end(key)
        if len(self._said) > self._capacity:
            self._said.popitem(last=False)
        return unsaid + 1
