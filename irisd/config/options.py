"""Every setting of the daemon: its name, meaning, unit, bounds and default (pure).

:class:`Config` is the one list. The flags of ``irisd run``, the ``IRISD_*``
variables, the keys of ``irisd.toml`` and the table of ``irisd check`` are all
read off its fields, so a setting cannot exist in one and be missing in another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from irisd.config.units import (
    Address,
    Listener,
    parse_address,
    parse_count,
    parse_duration,
    parse_flag,
    parse_interface,
    parse_listener,
    parse_mode,
    parse_name,
    parse_path,
    parse_path_or_off,
    parse_size,
    parse_target,
    parse_text,
    show_duration,
    show_flag,
    show_size,
)

T = TypeVar("T")
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Option:
    """One setting, as text meets it.

    Attributes:
        name: Its key in ``irisd.toml``; ``IRISD_`` and the upper-case name is its variable.
        parse: From one written value to one value; raises ``ValueError``.
        show: From one value to the text an operator would write.
        many: Whether it is a list (comma separated in a variable, repeated as a flag).
        flag: Its flag, without the dashes.
        room: The heading it is listed under.
        help: What it does, in one line.
        reloads: Whether a new value is taken up by a reload (SIGHUP), without a restart.
        low: Smallest allowed value, for numbers.
        high: Largest allowed value, for numbers.
    """

    name: str
    parse: Callable[[object], Any]
    show: Callable[[Any], str]
    many: bool
    flag: str
    room: str
    help: str
    reloads: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def variable(self) -> str:
        return "IRISD_" + self.name.upper()

    def value(self, written: object) -> Any:
        """Turn what was written for this setting into its value.

        Raises:
            ValueError: It is malformed or out of range; the message shows the right form.
        """
        if not self.many:
            return self._one(written)
        if isinstance(written, str):
            written = [part.strip() for part in written.split(",") if part.strip()]
        if not isinstance(written, (list, tuple)):
            written = [written]
        return tuple(self._one(part) for part in written)

    def text(self, value: Any) -> str:
        """Show a value as it would be written in a flag or a variable."""
        if value is None:
            return ""
        return ",".join(self.show(part) for part in value) if self.many else self.show(value)

    def _one(self, written: object) -> Any:
        value = self.parse(written)
        if self.low is not None and value < self.low:
            raise ValueError(f"{self.show(value)} is too small; the least is {self.show(self.low)}")
        if self.high is not None and value > self.high:
            raise ValueError(f"{self.show(value)} is too large; the most is {self.show(self.high)}")
        return value


def _option(
    default: T,
    parse: Callable[[object], Any],
    help: str,
    *,
    room: str,
    show: Callable[[Any], str] = str,
    many: bool = False,
    flag: str = "",
    reloads: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> T:
    kept = {"parse": parse, "help": help, "room": room, "show": show, "many": many, "flag": flag, "reloads": reloads}
    return field(default=default, metadata={**kept, "low": low, "high": high})


def _one_of(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        text = parse_text(value)
        if text not in words:
            raise ValueError(f"{text[:40]!r} is none of {', '.join(words)}")
        return text

    return parse


def _size(default: int, help: str, *, room: str, low: int, high: int) -> int:
    return _option(default, parse_size, help, room=room, show=show_size, low=low, high=high)


def _seconds(default: float, help: str, *, room: str, low: float, high: float, reloads: bool = False) -> float:
    return _option(default, parse_duration, help, room=room, show=show_duration, reloads=reloads, low=low, high=high)


def _count(default: int, help: str, *, room: str, low: int, high: int, reloads: bool = False) -> int:
    return _option(default, parse_count, help, room=room, reloads=reloads, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A checked configuration. Durations are float seconds, sizes bytes.

    Build one with :func:`irisd.config.load`, which also fills in what depends
    on the surroundings (``name``, ``listen``, ``socket``), or directly in tests.
    """

    # who we are
    preset: str = _option(
        "lan", _one_of("lan", "local"), "Timing for a network (lan) or for one machine (local)", room="node"
    )
    name: str = _option("", parse_name, "This node's name for people; default: the host's name", room="node")
    cloud: str = _option("default", parse_name, "The site this node belongs to", room="node")
    keys: tuple[str, ...] = _option(
        (), parse_path, "Service key file; none: a development daemon", room="node", many=True, flag="key", reloads=True
    )

    # links
    listen: tuple[Listener, ...] = _option(
        (), parse_listener, "Where links come in: host:port, or host:port=service+service", room="links", many=True
    )
    advertise: tuple[Address, ...] = _option(
        (),
        parse_target,
        "Address other nodes should dial instead (NAT, containers)",
        room="links",
        many=True,
        reloads=True,
    )
    seeds: tuple[Address, ...] = _option(
        (),
        parse_target,
        "A node to begin with, host:port; one that answers is enough",
        room="links",
        many=True,
        flag="seed",
        reloads=True,
    )
    multicast: str = _option(
        "auto",
        _one_of("auto", "on", "off"),
        "Find nodes by multicast DNS; auto: a network without it is worth a word only while nobody is found",
        room="links",
    )
    interfaces: tuple[str, ...] = _option(
        (),
        parse_interface,
        "Interface (name or address) for multicast; default: all that lead out, loopback if links stay there",
        room="links",
        many=True,
        flag="interface",
    )
    state_dir: str = _option(
        "", parse_path, "Folder for addresses that worked; default: $STATE_DIRECTORY or beside the socket", room="links"
    )
    heartbeat_interval: float = _seconds(
        1.0, "How often a peer is asked whether it is there", room="links", low=0.02, high=60.0
    )
    full_mesh_limit: int = _count(
        64, "Up to so many nodes everybody links with everybody; beyond, with some", room="links", low=2, high=1_024
    )
    idle_link: float = _seconds(
        30.0,
        "Beyond full_mesh_limit: how long a link made for traffic stays without it",
        room="links",
        low=0.02,
        high=3_600.0,
    )
    handshake_timeout: float = _seconds(5.0, "How long a handshake may take", room="links", low=0.1, high=60.0)
    max_handshakes: int = _count(256, "Handshakes under way at once, in total", room="links", low=1, high=65_536)
    max_handshakes_per_address: int = _count(
        64, "Handshakes under way at once, per address", room="links", low=1, high=65_536
    )

    # attach
    socket: str = _option("", parse_path, "The Unix socket apps attach to", room="attach")
    socket_mode: int = _option(
        0o660, parse_mode, "The socket's permissions", room="attach", show=lambda mode: f"{mode:04o}"
    )
    socket_group: str = _option(
        "", parse_text, "The group that owns the socket; default: the process's own", room="attach"
    )
    socket_services: tuple[str, ...] = _option(
        (), parse_name, "Services offered on the socket; none: all", room="attach", many=True, flag="socket-service"
    )
    local_lane: bool = _option(
        True,
        parse_flag,
        "Let apps on this host move from gRPC to a faster socket beside the other",
        room="attach",
        show=show_flag,
    )
    attach_tcp: Address | None = _option(
        None, parse_address, "Let apps attach over TCP too, host:port; wants token_file", room="attach"
    )
    attach_tcp_services: tuple[str, ...] = _option(
        (), parse_name, "Services offered over TCP; none: all", room="attach", many=True, flag="attach-tcp-service"
    )
    token_file: str = _option("", parse_path, "File with the token that opens attach_tcp", room="attach")
    tls_cert: str = _option("", parse_path, "Certificate chain (PEM) for attach_tcp off loopback", room="attach")
    tls_key: str = _option("", parse_path, "Private key (PEM) of tls_cert", room="attach")
    max_attachments: int = _count(1_024, "Apps attached at once", room="attach", low=1, high=65_536, reloads=True)
    admin_socket: str = _option(
        "",
        parse_path_or_off,
        "The Unix socket for `iris drain` and `iris reload`, this user's only, or off; default: beside the other",
        room="attach",
    )

    # limits
    max_body: int = _size(8 * MiB, "Largest body of one message", room="limits", low=KiB, high=GiB)
    max_large_body: int = _size(
        256 * MiB, "Largest body of a request or reply that rides a tunnel; 0: none", room="limits", low=0, high=GiB
    )
    peer_outbox: int = _size(64 * MiB, "What may wait towards one peer", room="limits", low=MiB, high=16 * GiB)
    attachment_outbox: int = _size(64 * MiB, "What may wait towards one app", room="limits", low=MiB, high=16 * GiB)
    request_queue: int = _size(
        16 * MiB, "Requests that may wait for one member", room="limits", low=64 * KiB, high=16 * GiB
    )
    subscription_queue: int = _size(
        64 * MiB,
        "What one subscription may hold back, unless it says otherwise",
        room="limits",
        low=64 * KiB,
        high=16 * GiB,
    )

    stall_timeout: float = _seconds(
        5.0,
        "How long a publisher waits for a subscriber that must lose nothing before it is told for whom",
        room="limits",
        low=0.05,
        high=3_600.0,
    )

    # the process
    drain_timeout: float = _seconds(
        10.0, "How long SIGTERM lets work in flight finish", room="process", low=0.0, high=3_600.0, reloads=True
    )
    log_level: str = _option(
        "info",
        _one_of("debug", "info", "warning", "error"),
        "Least serious fact that is logged",
        room="process",
        reloads=True,
    )
    log_format: str = _option(
        "auto", _one_of("auto", "text", "json"), "auto: text on a terminal, else JSON", room="process"
    )

    development: bool = False
    """No key was named: this daemon gets a fresh one and stays on loopback. Follows from the rest, cannot be set."""


def _options() -> dict[str, Option]:
    found = {}
    for entry in fields(Config):
        if not entry.metadata:
            continue  # not a setting: it follows from others
        kept = dict(entry.metadata)
        flag = kept.pop("flag") or entry.name.replace("_", "-")
        found[entry.name] = Option(name=entry.name, flag=flag, **kept)
    return found


OPTIONS: dict[str, Option] = _options()
"""By name, in the order in which they are listed."""
