"""Which of this host's interfaces discovery uses, and under which addresses (edge)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import ifaddr

MAX_INTERFACES: Final = 16
"""Most interfaces a group is joined on; Linux allows 20 memberships a socket."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of this host.

    Attributes:
        name: As the system calls it.
        index: Its number.
        ipv4: Its addresses.
        ipv6: Its addresses, without scope.
    """

    name: str
    index: int
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()

    @property
    def is_loopback(self) -> bool:
        """Whether it leads to this host only."""
        return any(ip_address(text).is_loopback for text in self.ipv4 + self.ipv6)

    @property
    def routable(self) -> tuple[str, ...]:
        """Its addresses that mean the same on other hosts of the network."""
        return self.ipv4 + tuple(text for text in self.ipv6 if not ip_address(text).is_link_local)

    @property
    def addresses(self) -> tuple[str, ...]:
        """What to announce: link-local IPv6 only where there is nothing else."""
        return self.routable or self.ipv6


def host_interfaces() -> list[Interface]:
    """All interfaces of this host that have an address.

    Raises:
        OSError: The system does not say.
    """
    found = []
    for adapter in ifaddr.get_adapters():
        ipv4 = tuple(str(entry.ip) for entry in adapter.ips if entry.is_IPv4)
        ipv6 = tuple(str(entry.ip[0]) for entry in adapter.ips if entry.is_IPv6)
        found.append(Interface(adapter.nice_name, adapter.index or 0, ipv4, ipv6))
    return found


def choose(interfaces: Iterable[Interface], wanted: Sequence[str], *, loopback: bool) -> tuple[list[Interface], str]:
    """Choose the interfaces to use.

    Args:
        interfaces: What there is.
        wanted: Names or addresses the operator pinned; an address pins its family too. Empty: all that lead out.
        loopback: Links are taken on loopback only: then only it is used, unless the operator pinned others.

    Returns:
        The interfaces, and what is wrong with the choice (empty: nothing).
    """
    there = list(interfaces)
    if not wanted:
        if loopback:
            found = [Interface(i.name, i.index, ("127.0.0.1",)) for i in there if "127.0.0.1" in i.ipv4]
            return found, "" if found else "the loopback interface has no address 127.0.0.1"
        found = [i for i in there if not i.is_loopback and i.routable] or [i for i in there if not i.is_loopback]
        found = found[:MAX_INTERFACES]
        return found, "" if found else "no interface but loopback has an address"
    chosen, missing = [], []
    for word in wanted:
        match = _pinned(there, word)
        if match is None:
            missing.append(word)
        else:
            chosen.append(match)
    problem = ""
    if missing:
        names = ", ".join(sorted({i.name for i in there})) or "none"
        problem = f"there is no interface {', '.join(missing)} here; there is: {names}"
    return chosen[:MAX_INTERFACES], problem


def _pinned(interfaces: list[Interface], word: str) -> Interface | None:
    for interface in interfaces:
        if word == interface.name:
            return interface
        if word in interface.ipv4:
            return Interface(interface.name, interface.index, (word,))
        if word.partition("%")[0] in interface.ipv6:
            return Interface(interface.name, interface.index, (), (word.partition("%")[0],))
    return None
