"""Multicast DNS (edge): say who is here, hear who else is, survive networks that have none.

python-zeroconf carries the records. Of its services only the records are used:
one TXT record says all (see ``announcement``), so nothing is resolved, and what
is heard costs one look at each record. Records are announced at once (names are
random, there is nobody to ask first), asked for a few times at the start, and
repeated every half a minute, so that hosts whose cable was out find each other.

A network without multicast is no error: it is told, and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from zeroconf import (  # type: ignore[attr-defined]  # two are public since ever and missing in its list
    DNSOutgoing,
    DNSQuestion,
    Error,
    RecordUpdate,
    RecordUpdateListener,
    ServiceInfo,
    Zeroconf,
)
from zeroconf.asyncio import AsyncZeroconf

from irisd.discovery.announcement import Announcement, is_ip
from irisd.discovery.interfaces import Interface, choose, host_interfaces

SERVICE_TYPE: Final = "_irisd._tcp.local."
GROUP_IPV4: Final = "224.0.0.251:5353"
GROUP_IPV6: Final = "[ff02::fb]:5353"

ASK_AT: Final = (0.02, 0.25, 1.0, 3.0, 9.0)
"""Seconds after the start at which everybody is asked to say who they are."""
REPEAT_EVERY: Final = 30.0
"""Seconds between two announcements, give or take a fifth."""
LOOK_EVERY: Final = 5.0
"""Seconds between two looks at the interfaces and at whether we hear ourselves."""
RETRY_FIRST: Final = 1.0
RETRY_LAST: Final = 60.0
"""Seconds between two attempts to begin; doubling from the first to the last."""
MAX_CACHED_NAMES: Final = 40_000
"""The library remembers what it hears, some versions without end: beyond this many names it is begun anew."""

_PTR, _TXT, _IN = 12, 16, 1  # record types and class, RFC 1035
_QUERY = 0

Heard = Callable[[str, bytes, bool], None]
"""Told an instance's name, its TXT record, and whether it says goodbye."""
Announcements = Callable[[Sequence[Interface]], Mapping[str, Announcement]]
"""Gives what to announce on these interfaces, by service."""


class Multicast:
    """Our presence in multicast DNS.

    Args:
        wanted: Interfaces the operator pinned, by name or address.
        loopback: Stay on the loopback interface unless interfaces are pinned.
        announcements: What to announce.
        heard: Told every TXT record of our service type; must be quick.
        changed: Told when :attr:`problem` or :attr:`joined` has changed.

    Attributes:
        problem: Why it does not work now; empty: it does, or has only just begun.
        joined: The interfaces the group is joined on.
    """

    def __init__(
        self,
        wanted: Sequence[str],
        *,
        loopback: bool,
        announcements: Announcements,
        heard: Heard,
        changed: Callable[[], None],
    ) -> None:
        self.problem = ""
        self._said: tuple[str, tuple[Interface, ...]] | None = None
        self.joined: tuple[Interface, ...] = ()
        self._wanted = tuple(wanted)
        self._loopback = loopback
        self._announcements = announcements
        self._heard = heard
        self._changed = changed
        self._zeroconf: AsyncZeroconf | None = None
        self._announced: Mapping[str, Announcement] = {}
        self._infos: list[ServiceInfo] = []
        self._own: frozenset[str] = frozenset()
        self._hears_itself = False
        self._broadcasts: list[Awaitable[Any]] = []
        self._task: asyncio.Task[None] | None = None
        library = logging.getLogger("zeroconf")
        if library.level == logging.NOTSET:  # what matters of its warnings, `problem` says once
            library.setLevel(logging.CRITICAL)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that are joined."""
        ipv4 = any(interface.ipv4 for interface in self.joined)
        ipv6 = any(interface.ipv6 for interface in self.joined)
        return ((GROUP_IPV4,) if ipv4 else ()) + ((GROUP_IPV6,) if ipv6 else ())

    def start(self) -> None:
        """Begin, and try again until :meth:`stop`."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="multicast")

    async def stop(self) -> None:
        """Say goodbye and close."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close(goodbye=True)

    # -------------------------------------------------------------- inside

    async def _run(self) -> None:
        pause = RETRY_FIRST
        while True:
            try:
                await self._open()
            except (OSError, RuntimeError, Error) as error:
                await self._close(goodbye=False)
                self._say(_why(error))
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, RETRY_LAST)
                continue
            pause = RETRY_FIRST
            await self._serve()
            await self._close(goodbye=False)

    async def _open(self) -> None:
        """Join and announce.

        Raises:
            OSError: It cannot be done here and now; so say the library's own errors.
        """
        chosen, problem = choose(host_interfaces(), self._wanted, loopback=self._loopback)
        if not chosen:
            raise OSError(problem)
        ipv4 = [interface.ipv4[0] for interface in chosen if interface.ipv4]
        ipv6 = [interface.index for interface in chosen if interface.ipv6 and not interface.is_loopback]
        try:
            await self._join([*ipv4, *ipv6])
        except (OSError, RuntimeError, Error):
            if not (ipv4 and ipv6):
                raise
            await self._close(goodbye=False)
            await self._join(list(ipv4))  # IPv6 may be there in name only
            chosen = [Interface(i.name, i.index, i.ipv4) for i in chosen if i.ipv4]
        self.joined = tuple(chosen)
        zeroconf = self._started
        zeroconf.async_add_listener(_Listener(self._record), None)
        self._announced = self._announcements(self.joined)
        self._infos = [_service_info(announcement) for announcement in self._announced.values()]
        self._own = frozenset(info.name.lower() for info in self._infos)
        self._hears_itself = False
        for info in self._infos:
            self._broadcasts.append(
                await zeroconf.async_register_service(info, cooperating_responders=True)  # random names: no probing
            )
        self._say(problem)

    async def _join(self, interfaces: list[str | int]) -> None:
        if not interfaces:
            raise OSError("none of the interfaces has an address that multicast can use")
        self._zeroconf = AsyncZeroconf(interfaces=interfaces)
        await self._zeroconf.zeroconf.async_wait_for_start()

    @property
    def _started(self) -> Zeroconf:
        assert self._zeroconf is not None
        return self._zeroconf.zeroconf

    async def _serve(self) -> None:
        """Ask, repeat and look around until the interfaces are others."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        asks = [began + after for after in ASK_AT]
        repeat, look = began + REPEAT_EVERY * random.uniform(0.8, 1.2), began + LOOK_EVERY
        while True:
            await asyncio.sleep(max(0.0, min([repeat, look, *asks[:1]]) - loop.time()))
            now = loop.time()
            if asks and asks[0] <= now:
                asks.pop(0)
                self._ask()
            if repeat <= now:
                repeat = now + REPEAT_EVERY * random.uniform(0.8, 1.2)
                for info in self._infos:
                    self._started.async_send(self._started.generate_service_broadcast(info, None))
            if look <= now:
                look = now + LOOK_EVERY
                if self._must_begin_anew():
                    return

    def _ask(self) -> None:
        question = DNSOutgoing(_QUERY)
        question.add_question(
            DNSQuestion(SERVICE_TYPE, _PTR, _IN)
        )  # answered by multicast: several daemons share a port
        self._started.async_send(question)

    def _must_begin_anew(self) -> bool:
        with contextlib.suppress(OSError):
            chosen, problem = choose(host_interfaces(), self._wanted, loopback=self._loopback)
            if {i.name: i.ipv4 for i in chosen} != {i.name: i.ipv4 for i in self.joined}:
                return True
            if not problem and not self._hears_itself:
                problem = (
                    "joined, but not even our own announcement comes back: a firewall may keep UDP port 5353 closed"
                )
            self._say(problem)
        if self._announcements(self.joined) != self._announced:
            return True
        return len(self._started.cache.cache) > MAX_CACHED_NAMES

    def _record(self, name: str, text: bytes, goodbye: bool) -> None:
        if name in self._own:
            self._hears_itself = True
        self._heard(name, text, goodbye)

    async def _close(self, *, goodbye: bool) -> None:
        zeroconf, self._zeroconf = self._zeroconf, None
        broadcasts, self._broadcasts = self._broadcasts, []
        self.joined = ()
        if zeroconf is None:
            return
        for broadcast in broadcasts:
            if isinstance(broadcast, asyncio.Future):
                broadcast.cancel()
        await asyncio.gather(*broadcasts, return_exceptions=True)
        with contextlib.suppress(OSError, RuntimeError, Error):
            last_words = zeroconf.zeroconf.generate_unregister_all_services()
            if goodbye and last_words is not None:
                zeroconf.zeroconf.async_send(last_words)
            await zeroconf.async_close()

    def _say(self, problem: str) -> None:
        if (problem, self.joined) != self._said:
            self._said = (problem, self.joined)
            self.problem = problem
            self._changed()


class _Listener(RecordUpdateListener):
    """Picks the TXT records of our service type out of everything that is heard."""

    def __init__(self, record: Heard) -> None:
        self._record = record

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        for update in records:
            new = update.new
            if new.type == _TXT:
                name = new.name.lower()
                if name.endswith(SERVICE_TYPE) and (new.ttl == 0 or not new.is_expired(now)):
                    self._record(name, getattr(new, "text", b""), new.ttl == 0)

    def async_update_records_complete(self) -> None:
        """Nothing waits for the rest of a packet."""


def instance_name(node_id: bytes) -> str:
    """The name a node's records go by."""
    return f"{node_id.hex()}.{SERVICE_TYPE}"


def _service_info(announcement: Announcement) -> ServiceInfo:
    """The records of one node. Address records are for other people's tools; ours read the TXT record."""
    ips = [address.host for address in announcement.addresses if is_ip(address.host)]
    return ServiceInfo(
        SERVICE_TYPE,
        instance_name(announcement.node_id),
        port=announcement.addresses[0].port,
        properties=announcement.encode(),
        server=f"irisd-{announcement.node_id.hex()[:16]}.local.",
        parsed_addresses=ips,
    )


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__)[:200]
    return (str(error) or type(error).__name__)[:200]
