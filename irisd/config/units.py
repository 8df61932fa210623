"""From words to values and back: sizes, durations, addresses (pure).

Every parser takes what a flag, a variable or TOML gave (text, or TOML's own
numbers and booleans) and returns the value, or raises ``ValueError`` with a
sentence that shows the right form. Who asked, and where it was written, is
added by the caller.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from ipaddress import ip_address

from irisd.errors import nearest

_SIZES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 1_000, "MB": 1_000_000, "GB": 10**9}
_DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII)
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?", re.ASCII)

MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A host (name or IP address) and a port. Port 0 means "choose and tell"."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can be meant."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listener:
    """Where links come in, and for which services (empty: all this daemon holds a key for)."""

    address: Address
    services: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.address}={'+'.join(self.services)}" if self.services else str(self.address)


def parse_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text in quotes, not {_shown(value)}")
    if "\0" in value:
        raise ValueError("text must not hold a zero byte")
    return value


def parse_name(value: object) -> str:
    """A service, cloud or node name: tokens of letters, digits, ``_`` and ``-``, joined by dots."""
    text = parse_text(value)
    if not _NAME.fullmatch(text) or len(text) > MAX_NAME_BYTES:
        raise ValueError(
            f"{_shown(text)} is no name; use letters, digits, '_' and '-', with dots between, "
            f"at most {MAX_NAME_BYTES} bytes"
        )
    return text


def parse_path(value: object) -> str:
    """A path as text; it is only looked at when it is opened."""
    text = parse_text(value)
    if not text:
        raise ValueError("a path must not be empty")
    return text


OFF = "off"


def parse_path_or_off(value: object) -> str:
    """A path as text, or :data:`OFF`, which an empty text is too."""
    return OFF if value == "" else parse_path(value)


_FLAGS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}


def parse_flag(value: object) -> bool:
    """``true`` or ``false``; ``on`` and ``off`` are the same."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    raise ValueError(f"expected true or false, not {_shown(value)}")


def show_flag(value: bool) -> str:
    return "true" if value else "false"


def parse_count(value: object) -> int:
    """A whole number, zero or more."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    raise ValueError(f"expected a whole number, not {_shown(value)}")


def parse_size(value: object) -> int:
    """Bytes: ``8388608``, ``"8MiB"``, ``"500kB"``."""
    number, unit = _number_and_unit(value, "a size such as 8MiB or 65536")
    by_case = {name.lower(): name for name in _SIZES}
    if unit.lower() not in by_case:
        raise ValueError(f"{_shown(unit)} is no unit of size; use B, KiB, MiB, GiB (or kB, MB, GB)")
    size = number * _SIZES[by_case[unit.lower()]]
    if not size.is_integer():
        raise ValueError(f"{_shown(value)} is not a whole number of bytes")
    return int(size)


def parse_duration(value: object) -> float:
    """Seconds: ``1.5``, ``"1.5s"``, ``"250ms"``, ``"2m"``."""
    number, unit = _number_and_unit(value, "a duration such as 1.5s or 250ms")
    if unit not in _DURATIONS:
        raise ValueError(f"{_shown(unit)} is no unit of time; use ms, s, m or h")
    return number * _DURATIONS[unit]


def parse_mode(value: object) -> int:
    """File permissions, octal as ``chmod`` takes them: ``"0660"``."""
    if isinstance(value, str) and re.fullmatch(r"(0o?)?[0-7]{3}", value, re.ASCII):
        return int(value.removeprefix("0o"), 8)
    if isinstance(value, int) and not isinstance(value, bool) and value in (0o600, 0o660, 0o666, 0o700, 0o770, 0o777):
        return value  # TOML's own 0o660
    raise ValueError(f'expected permissions such as "0660", not {_shown(value)}')


def parse_address(value: object) -> Address:
    """``host:port``, ``[v6]:port``; an IPv6 address wants its brackets."""
    text = parse_text(value)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"{_shown(text)}: only IPv6 addresses go in brackets")
    elif ":" in host:
        raise ValueError(f"{_shown(text)}: write an IPv6 address in brackets, as in [::1]:7511")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65_535:
        raise ValueError(f"{_shown(text)} is not host:port, with a port between 0 and 65535")
    if ":" in host:
        try:
            ip_address(host)
        except ValueError:
            raise ValueError(f"{_shown(text)}: {_shown(host)} is not an IPv6 address") from None
    elif len(host) > 253 or not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{_shown(text)}: {_shown(host)} is neither a host name nor an IP address")
    return Address(host, int(port))


def parse_target(value: object) -> Address:
    """An address somebody can dial: a port that is not 0."""
    address = parse_address(value)
    if address.port == 0:
        raise ValueError(f"{str(address)!r}: port 0 means 'choose one' and cannot be dialled")
    return address


def parse_interface(value: object) -> str:
    """A network interface: its name, or an IP address it has."""
    text = parse_text(value)
    if not re.fullmatch(r"[A-Za-z0-9_.:%@-]{1,64}", text, re.ASCII):
        raise ValueError(f"{_shown(text)} is no interface; write its name, as in eth0, or an IP address it has")
    return text


def parse_listener(value: object) -> Listener:
    """``host:port``, ``host:port=shop+stock``, or TOML's ``{address = ..., services = [...]}``."""
    if isinstance(value, dict):
        for key in value:
            if key not in ("address", "services"):
                raise ValueError(f"a listener has no {_shown(key)}{nearest(str(key), ('address', 'services'))}")
        services = value.get("services", [])
        if not isinstance(services, list):
            raise ValueError("a listener's services are a list of names")
        if "address" not in value:
            raise ValueError('a listener wants an address = "host:port"')
        return Listener(parse_address(value["address"]), tuple(parse_name(name) for name in services))
    address, equals, names = parse_text(value).partition("=")
    services = names.split("+") if equals else []
    return Listener(parse_address(address), tuple(parse_name(name) for name in services))


def show_size(size: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"


def show_duration(seconds: float) -> str:
    if 0 < seconds < 1:
        return f"{seconds * 1_000:g}ms"
    return f"{seconds:g}s"


def _number_and_unit(value: object, example: str) -> tuple[float, str]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"expected {example}, not {_shown(value)}")
        return float(value), ""
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= 32 else None
    if match is None:
        raise ValueError(f"expected {example}, not {_shown(value)}")
    return float(match[1]), match[2]


def _shown(value: object) -> str:
    """The value as an error quotes it: enough to be found again, and never a page of it."""
    return repr(value[:60] if isinstance(value, str) else value)[:80]
