"""All sources of candidates of a daemon, at once, each switchable (edge)."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Final

from irisd.config import Address, Config
from irisd.discovery.announcement import (
    MAX_ADDRESSES,
    Announcement,
    MalformedAnnouncement,
    OtherVersion,
    is_ip,
    may_match,
    parse_announcement,
)
from irisd.discovery.finder import Finder, Links, Teller
from irisd.discovery.interfaces import Interface, choose, host_interfaces
from irisd.discovery.multicast import SERVICE_TYPE, Multicast, instance_name
from irisd.discovery.statefile import FILE_NAME, BadStateFile, read_state, write_state
from irisd.discovery.table import NOBODY, Limits
from irisd.status import Condition, DiscoveryInfo, HeardRow, InterfaceRow, MulticastInfo, ServiceDiscovery

SAVE_AFTER: Final = 1.0
"""Seconds from a change to the state file being written: a mesh that comes up is one change."""
MAX_HEARD: Final = 128
"""Different announcers remembered, for people."""
MAX_EARLY: Final = 1_024
"""What peers told before discovery had begun."""
LOOK_EVERY: Final = 10.0
"""Seconds between two looks at our own addresses; multicast says at once when its interfaces change."""


@dataclass(frozen=True, slots=True)
class Presence:
    """One node of this daemon, to be found.

    Attributes:
        service: Its service.
        node_id: Its id.
        tags: Discovery tags of all keys of its keyring.
        listens: Where it takes links.
    """

    service: str
    node_id: bytes
    tags: tuple[bytes, ...]
    listens: tuple[Address, ...]


class Discovery:
    """Finds candidates for every node of a daemon, and dials them.

    Args:
        config: ``multicast``, ``interfaces``, ``seeds``, ``advertise``, ``state_dir``.
        links: Who dials.
        clock: Monotonic seconds.
        random: For delays.
        tell: Told facts worth a log line.
        limits: What candidates may cost, per service.
        advertised: Told a service and where its node is to be dialled, at the start and when that changes.
    """

    def __init__(
        self,
        config: Config,
        links: Links,
        *,
        clock: Callable[[], float],
        random: Random,
        tell: Teller,
        limits: Limits | None = None,
        advertised: Callable[[str, tuple[Address, ...]], None] = lambda service, addresses: None,
    ) -> None:
        self._config = config
        self._links = links
        self._clock = clock
        self._random = random
        self._tell = tell
        self._limits = limits
        self._advertised = advertised
        self._advertised_last: dict[str, tuple[Address, ...]] = {}
        self._look_timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._early: list[tuple[str, tuple[Address, ...], bytes]] = []
        self._loopback = all(listener.address.is_loopback for listener in config.listen)
        self._presences: dict[str, Presence] = {}
        self._finders: dict[str, Finder] = {}
        self._multicast: Multicast | None = None
        self._state_dir = Path(config.state_dir) if config.state_dir and not config.development else None
        self._state_problem = ""
        self._save_timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.Task[None] | None = None
        self._heard: OrderedDict[str, _Heard] = OrderedDict()
        self._counts: Counter[str] = Counter()

    # -------------------------------------------------------------- living

    async def start(self, presences: Iterable[Presence]) -> None:
        """Begin to look for the peers of these nodes. What does not work here is told, never raised."""
        kept: Mapping[str, tuple[Address, ...]] = {}
        if self._state_dir is not None:
            try:
                kept = await asyncio.to_thread(read_state, self._state_dir)
            except BadStateFile as error:
                self._state_wrong(str(error))
        for presence in presences:
            name = presence.service
            self._presences[name] = presence
            self._finders[name] = finder = Finder(
                name,
                presence.node_id,
                presence.tags,
                self._links,
                clock=self._clock,
                random=self._random,
                tell=self._tell,
                changed=self._changed,
                limits=self._limits,
            )
            finder.start(self._config.seeds, kept.get(name, ()))
        for service, addresses, node_id in self._early:
            if service in self._finders:
                self.learned(service, addresses, node_id)
        self._early.clear()
        if self._config.multicast != "off":
            self._multicast = Multicast(
                self._config.interfaces,
                loopback=self._loopback,
                announcements=self._announcements,
                heard=self._announced,
                changed=self._multicast_changed,
            )
            self._multicast.start()
        self._look()

    def use(self, config: Config, tags: Mapping[str, tuple[bytes, ...]]) -> None:
        """Go on with other ``seeds`` and ``advertise``, and other tags of the services; at once, announcements soon."""
        self._config = config
        for name, finder in self._finders.items():
            self._presences[name] = replace(self._presences[name], tags=tags[name])
            finder.use(config.seeds, tags[name])
        self._tell_addresses()

    async def stop(self) -> None:
        """Say goodbye, dial no more, write down what worked; what is told from here on is not taken."""
        self._stopped = True
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        if self._multicast is not None:
            await self._multicast.stop()
        for finder in self._finders.values():
            await finder.stop()
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None
            self._save()
        if self._saving is not None:
            await self._saving

    # ------------------------------------------------------- for the daemon

    def learned(self, service: str, addresses: Iterable[Address], node_id: bytes = NOBODY) -> None:
        """Take what a peer told: some node of the service, or the one named, is at these addresses."""
        if self._stopped:
            return
        if (finder := self._finders.get(service)) is not None:
            finder.learned(addresses, node_id)
        elif len(self._early) < MAX_EARLY:
            self._early.append((service, tuple(addresses)[:MAX_ADDRESSES], node_id))

    def link_up(self, service: str, node_id: bytes) -> None:
        """A link is up, no matter who dialled."""
        if (finder := self._finders.get(service)) is not None:
            finder.link_up(node_id)

    def link_down(self, service: str, node_id: bytes, *, left: bool) -> None:
        """A link has ended; ``left``: the node said goodbye."""
        if (finder := self._finders.get(service)) is not None:
            finder.link_down(node_id, left=left)

    def advertised(self, service: str) -> tuple[tuple[Address, ...], str]:
        """Where other nodes are told to dial this one, and why there."""
        return self._addresses(self._presences[service], self._multicast.joined if self._multicast else ())

    def _look(self) -> None:
        """Tell where we are to be dialled, if that is news; look again later."""
        self._tell_addresses()
        self._look_timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def _tell_addresses(self) -> None:
        for service in self._presences:
            addresses, _ = self.advertised(service)
            usable = tuple(address for address in addresses if not _is_link_local(address))
            if self._advertised_last.get(service) != usable:
                self._advertised_last[service] = usable
                self._advertised(service, usable)

    # ----------------------------------------------------------- multicast

    def _announcements(self, joined: Sequence[Interface]) -> Mapping[str, Announcement]:
        found = {}
        for name, presence in self._presences.items():
            addresses, _ = self._addresses(presence, joined)
            if addresses:
                found[name] = Announcement(presence.node_id, presence.tags, addresses)
        return found

    def _addresses(self, presence: Presence, joined: Sequence[Interface]) -> tuple[tuple[Address, ...], str]:
        if self._config.advertise:
            return self._config.advertise, "the setting `advertise` says so"
        interfaces = list(joined)
        if not interfaces:
            try:
                interfaces, _ = choose(host_interfaces(), self._config.interfaces, loopback=self._loopback)
            except OSError:
                interfaces = []
        found: list[Address] = []
        every = False
        for bound in presence.listens:
            if not is_ip(bound.host) or not ip_address(bound.host).is_unspecified:
                found.append(bound)
                continue
            every = True
            ipv6 = ip_address(bound.host).version == 6
            for interface in interfaces:
                found += [Address(ip, bound.port) for ip in interface.addresses if (":" in ip) == ipv6]
        why = (
            "it listens on every address; these are the ones of the interfaces in use" if every else "it listens there"
        )
        return tuple(dict.fromkeys(found))[:MAX_ADDRESSES], why

    def _announced(self, name: str, text: bytes, goodbye: bool) -> None:
        """A TXT record of our service type was heard: anybody's."""
        for finder in self._finders.values():
            if may_match(text, finder.needles):
                verdict, addresses = self._matched(finder, name, text, goodbye)
                break
        else:
            finder, verdict, addresses = None, "other-service", ()
        self._counts[verdict] += 1
        if verdict == "own":
            return
        heard = self._heard.get(name)
        if heard is None:
            if len(self._heard) >= MAX_HEARD:
                self._heard.popitem(last=False)
            heard = self._heard[name] = _Heard()
        else:
            self._heard.move_to_end(name)
        heard.count += 1
        heard.at = self._clock()
        heard.verdict = verdict
        heard.service = finder.service if finder is not None else ""
        heard.addresses = addresses

    def _matched(self, finder: Finder, name: str, text: bytes, goodbye: bool) -> tuple[str, tuple[Address, ...]]:
        try:
            announcement = parse_announcement(text)
        except OtherVersion:
            return "other-version", ()
        except MalformedAnnouncement:
            return "malformed", ()
        if name != instance_name(announcement.node_id) or not set(announcement.tags) & set(finder.tags):
            return "malformed", ()
        if goodbye:
            finder.goodbye(announcement.node_id)
            return "goodbye", announcement.addresses
        addresses = self._usable(announcement.addresses)
        if not addresses and announcement.node_id != finder.node_id:
            return "out-of-reach", announcement.addresses
        return finder.announced(announcement, addresses), announcement.addresses

    def _usable(self, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        """Leave out what the interfaces in use do not lead to; give link-local addresses their scope."""
        joined = self._multicast.joined if self._multicast is not None else ()
        loopback = any(interface.is_loopback for interface in joined)
        beyond = any(not interface.is_loopback for interface in joined)
        found: list[Address] = []
        for address in addresses:
            if not is_ip(address.host):
                found.append(address)
                continue
            ip = ip_address(address.host)
            if ip.version == 6 and ip.is_link_local:
                found += [Address(f"{address.host}%{i.name}", address.port) for i in joined if i.ipv6]
            elif loopback if ip.is_loopback else beyond:
                found.append(address)
        return tuple(found)[:MAX_ADDRESSES]

    def _multicast_changed(self) -> None:
        multicast = self._multicast
        if multicast is None:
            return
        if multicast.problem:
            self._tell("discovery.multicast_unavailable", warning=True, reason=multicast.problem)
        else:
            joined = [f"{i.name} {'+'.join((*i.ipv4[:1], *i.ipv6[:1]))}" for i in multicast.joined]
            self._tell("discovery.multicast", joined=joined)
        self._tell_addresses()

    # ----------------------------------------------------------- state file

    def _changed(self) -> None:
        if self._state_dir is not None and self._save_timer is None:
            self._save_timer = asyncio.get_running_loop().call_later(SAVE_AFTER, self._save)

    def _save(self) -> None:
        self._save_timer = None
        if self._saving is not None and not self._saving.done():
            self._changed()  # a slow disk: once more, later
            return
        known = {name: finder.kept for name, finder in self._finders.items() if finder.kept}
        self._saving = asyncio.get_running_loop().create_task(self._write(known), name="state file")

    async def _write(self, known: Mapping[str, tuple[Address, ...]]) -> None:
        assert self._state_dir is not None
        try:
            await asyncio.to_thread(write_state, self._state_dir, known)
        except BadStateFile as error:
            self._state_wrong(str(error))
        else:
            self._state_problem = ""

    def _state_wrong(self, problem: str) -> None:
        if problem != self._state_problem:
            self._state_problem = problem
            self._tell("discovery.state_file", warning=True, problem=problem)

    # ------------------------------------------------------------- showing

    def conditions(self, linked: int) -> list[Condition]:
        """What an operator should know.

        Args:
            linked: How many links the daemon has: with ``multicast = auto`` a network without multicast
                matters to those who are alone.
        """
        found = []
        multicast = self._multicast
        if multicast is not None and multicast.problem and (self._config.multicast == "on" or not linked):
            found.append(Condition("multicast-unavailable", multicast.problem))
        if self._state_problem:
            found.append(Condition("state-file", self._state_problem))
        return found

    def searching(self) -> str:
        """Where is looked for peers, in a few words."""
        ways = []
        if self._multicast is not None and not self._multicast.problem:
            names = ", ".join(interface.name for interface in self._multicast.joined)
            ways.append(f"multicast on {names}" if names else "multicast")
        if self._config.seeds:
            ways.append("seeds " + ", ".join(map(str, self._config.seeds[:8])))
        return " and ".join(ways) or "nowhere: multicast does not work and there are no seeds"

    def info(self) -> DiscoveryInfo:
        """Everything, for ``iris doctor``."""
        now = self._clock()
        multicast = self._multicast
        if multicast is None:
            shown = MulticastInfo("off", "the setting `multicast` is off")
        else:
            shown = MulticastInfo(
                state="unavailable" if multicast.problem else "on" if multicast.joined else "starting",
                detail=multicast.problem,
                service_type=SERVICE_TYPE,
                groups=multicast.groups,
                interfaces=tuple(InterfaceRow(i.name, (*i.ipv4, *i.ipv6)) for i in multicast.joined),
                counters=dict(self._counts),
            )
        return DiscoveryInfo(
            multicast=shown,
            state_file=str(self._state_dir / FILE_NAME) if self._state_dir is not None else "",
            state_problem=self._state_problem,
            heard=tuple(
                HeardRow(
                    node=name.partition(".")[0][:64],
                    service=heard.service,
                    verdict=heard.verdict,
                    addresses=tuple(map(str, heard.addresses)),
                    count=heard.count,
                    ago=now - heard.at,
                )
                for name, heard in reversed(self._heard.items())
            ),
            services=tuple(self._service(finder) for finder in self._finders.values()),
        )

    def _service(self, finder: Finder) -> ServiceDiscovery:
        addresses, why = self.advertised(finder.service)
        return ServiceDiscovery(
            service=finder.service,
            node=finder.node_id.hex(),
            advertised=tuple(map(str, addresses)),
            advertised_because=why,
            seeds=finder.seed_rows(),
            candidates=finder.rows(),
            known=len(finder.table),
            remembered=tuple(map(str, finder.kept)),
            counters=dict(finder.table.counts),
        )


def _is_link_local(address: Address) -> bool:
    """Whether it means something only to hosts on the same wire: a peer cannot pass it on."""
    return is_ip(address.host) and ":" in address.host and ip_address(address.host).is_link_local


class _Heard:
    """What is remembered of an announcer, for people."""

    __slots__ = ("addresses", "at", "count", "service", "verdict")

    def __init__(self) -> None:
        self.count = 0
        self.at = 0.0
        self.verdict = ""
        self.service = ""
        self.addresses: tuple[Address, ...] = ()
