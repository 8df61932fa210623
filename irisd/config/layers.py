"""Flag over variable over file over preset over default (pure).

Each value remembers where it came from, so that ``irisd check`` can show it
and an error can name the line to change. Unknown settings are errors: a typo
that is silently ignored is found in production.
"""

from __future__ import annotations

import os
import posixpath
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from irisd.config.options import OPTIONS, Config
from irisd.config.units import OFF, Address, Listener, parse_path, parse_path_or_off
from irisd.errors import ConfigError, nearest

LINK_PORT = 7511

PRESETS: Mapping[str, Mapping[str, object]] = {
    "lan": {},
    "local": {"heartbeat_interval": 0.1, "handshake_timeout": 2.0, "drain_timeout": 5.0},
}
"""What a preset changes; everything else keeps its default."""

MAX_SOCKET_PATH = 103
"""Bytes every system allows."""

MAX_FILE_CHARACTERS = 1 << 20

# A Kubernetes service called "irisd" puts these in every pod; they are not ours.
_NOT_OURS = re.compile(r"IRISD_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_.*)?)")
_ALSO_OURS = ("IRISD_CONFIG",)  # which file to read: settled before there is a configuration


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the process found around itself.

    Attributes:
        environment: Its variables; those that begin with ``IRISD_`` are settings.
        hostname: The host's name, the default for ``name``.
        root: Whether it runs as the superuser.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    hostname: str = "localhost"
    root: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and for each setting the place its value came from."""

    config: Config
    origins: Mapping[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """``(setting, value as it would be written, origin)``, in listing order."""
        return [(name, option.text(getattr(self.config, name)), self.origins[name]) for name, option in OPTIONS.items()]


def load(
    *,
    flags: Mapping[str, object] | None = None,
    surroundings: Surroundings | None = None,
    file_text: str | None = None,
    file_name: str = "irisd.toml",
) -> Loaded:
    """Build the configuration from its layers.

    Args:
        flags: By setting name, what flags gave (text, or a list of texts); absent or ``None``: not given.
        surroundings: Variables and host; default: an empty environment.
        file_text: What stands in the configuration file, or ``None`` without one.
        file_name: The file's name, for origins and errors.

    Raises:
        ConfigError: Something is unknown, malformed, out of range or contradictory.
    """
    around = surroundings or Surroundings()
    layers = [  # strongest first
        {name: (value, f"--{OPTIONS[name].flag}") for name, value in (flags or {}).items() if value is not None},
        _from_environment(around.environment),
        _from_file(file_text, file_name),
    ]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def settle(name: str) -> bool:
        for layer in layers:
            if name in layer:
                written, origin = layer[name]
                value = _parsed(name, written, origin)
                values[name] = _beside(file_name, name, value) if layer is layers[-1] else value
                origins[name] = origin
                return True
        return False

    settle("preset")
    preset = values.get("preset", OPTIONS_DEFAULT.preset)
    for name in OPTIONS:
        if name == "preset" or settle(name):
            continue
        if name in PRESETS[preset]:
            values[name], origins[name] = PRESETS[preset][name], f"preset {preset}"
    _fill_in(values, origins, around)
    for name in OPTIONS:
        origins.setdefault(name, "default")
    config = Config(**values, development=not values.get("keys"))
    _agree(config, origins)
    return Loaded(config, origins)


OPTIONS_DEFAULT = Config()


def default_socket(surroundings: Surroundings) -> str:
    """Where apps will look for the socket, given nothing else: the first of the SDK's own places that is ours."""
    environment = surroundings.environment
    for variable, path in (("XDG_RUNTIME_DIR", "irisd/irisd.sock"), ("RUNTIME_DIRECTORY", "irisd.sock")):
        folder = environment.get(variable, "").partition(":")[0]
        if folder.startswith("/"):
            return f"{folder.rstrip('/')}/{path}"
    if surroundings.root:
        return "/run/irisd/irisd.sock"
    folder = environment.get("TMPDIR", "")
    return f"{(folder if folder.startswith('/') else '/tmp').rstrip('/')}/irisd/irisd.sock"


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    by_variable = {option.variable: name for name, option in OPTIONS.items()}
    found: dict[str, tuple[object, str]] = {}
    for variable, text in environment.items():
        if not variable.startswith("IRISD_") or variable in _ALSO_OURS or _NOT_OURS.fullmatch(variable):
            continue
        if variable not in by_variable:
            suggestion = nearest(variable, by_variable) or "; `irisd check` lists the settings"
            raise ConfigError(f"no setting has the variable {variable}{suggestion}", key=variable, origin="environment")
        if text != "" or OPTIONS[by_variable[variable]].many:  # an empty variable is an unset one
            found[by_variable[variable]] = (text, variable)
    return found


def _from_file(text: str | None, file_name: str) -> dict[str, tuple[object, str]]:
    if text is None:
        return {}
    if len(text) > MAX_FILE_CHARACTERS:
        raise ConfigError("larger than 1 MiB; this is no configuration file", origin=file_name)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", origin=file_name) from None
    except RecursionError:
        raise ConfigError("not valid TOML: nested too deeply", origin=file_name) from None
    found: dict[str, tuple[object, str]] = {}
    for key, value in table.items():
        origin = f"{file_name}{_line_of(key, text)}"
        if key not in OPTIONS and isinstance(value, dict):
            raise ConfigError(f"[{key}]: settings stand by themselves, without sections", key=key, origin=origin)
        if key not in OPTIONS:
            suggestion = nearest(key, OPTIONS) or "; `irisd check` lists the settings"
            raise ConfigError(f"there is no setting {key!r}{suggestion}", key=key, origin=origin)
        found[key] = (value, origin)
    return found


def _line_of(key: str, text: str) -> str:
    """``":12"`` for a key that begins line 12, or nothing where that cannot be told for sure."""
    begins = re.compile(rf"""\s*(\[\[?\s*)?["']?{re.escape(key)}["']?\s*[]=.]""")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if begins.match(line)]
    return f":{lines[0]}" if len(lines) == 1 else ""


def _parsed(name: str, written: object, origin: str) -> Any:
    try:
        return OPTIONS[name].value(written)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}", key=name, origin=origin) from None


def _beside(file_name: str, name: str, value: Any) -> Any:
    """Read relative paths in a file as relative to that file: a service starts in another folder than a shell."""
    option = OPTIONS[name]
    if option.parse not in (parse_path, parse_path_or_off) or value == OFF:
        return value
    folder = posixpath.dirname(file_name)
    if option.many:
        return tuple(posixpath.join(folder, path) for path in value)
    return posixpath.join(folder, value)


def _fill_in(values: dict[str, Any], origins: dict[str, str], around: Surroundings) -> None:
    """Settle the defaults that depend on the host and on whether there is a key."""
    if "name" not in values:
        usable = re.sub(r"[^A-Za-z0-9_.-]+|\.(?=\.|$)|^\.+", "", around.hostname.split("\0")[0])[:200].strip(".")
        values["name"], origins["name"] = usable or "localhost", "the host's name"
    if not values.get("socket"):
        values["socket"], origins["socket"] = default_socket(around), "default for this user"
    if values.get("admin_socket") == OFF:
        values["admin_socket"] = ""
    elif not values.get("admin_socket"):
        stem, suffix = posixpath.splitext(values["socket"])
        fits = len(os.fsencode(values["socket"])) + len("-admin") <= MAX_SOCKET_PATH
        values["admin_socket"] = f"{stem}-admin{suffix}" if fits else ""
        origins["admin_socket"] = "default: beside socket" if fits else "default: none, its path would be too long"
    if not values.get("listen"):
        development = not values.get("keys")
        values["listen"] = (Listener(Address("127.0.0.1" if development else "0.0.0.0", LINK_PORT)),)
        origins["listen"] = "default without a key: loopback" if development else "default with a key"
    if not values.get("state_dir"):
        given = around.environment.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd's StateDirectory=
        if given.startswith("/"):
            values["state_dir"], origins["state_dir"] = given, "STATE_DIRECTORY"
        elif all(listener.address.is_loopback for listener in values["listen"]):
            origins["state_dir"] = "default: none while links stay on this host"
        else:
            values["state_dir"] = posixpath.splitext(values["socket"])[0] + ".state"
            origins["state_dir"] = "default: beside the socket"


def _agree(config: Config, origins: Mapping[str, str]) -> None:
    """Refuse settings that make no sense together.

    Raises:
        ConfigError: With both settings named, and what to change.
    """

    def refuse(key: str, message: str) -> ConfigError:
        origin = origins[key]
        return ConfigError(message, key=key, origin="" if origin.startswith("default") else origin)

    make_key = "make a key first (irisd keys new SERVICE > service.key) and name it in keys"
    if config.development:
        for listener in config.listen:
            if not listener.address.is_loopback:
                raise refuse("listen", f"listen: without a key a daemon stays on loopback, not {listener}; {make_key}")
        if config.seeds:
            raise refuse("seeds", f"seeds: a daemon without a key cannot join others; {make_key}")
    if bool(config.tls_cert) != bool(config.tls_key):
        given, missing = ("tls_cert", "tls_key") if config.tls_cert else ("tls_key", "tls_cert")
        raise refuse(given, f"{given} wants {missing} too")
    if config.attach_tcp is None:
        for name in ("token_file", "tls_cert", "attach_tcp_services"):
            if getattr(config, name):
                raise refuse(name, f"{name} is for attach_tcp, which is not set")
    else:
        if not config.token_file:
            raise refuse("attach_tcp", "attach_tcp wants token_file: apps that come over TCP show a token")
        if not config.attach_tcp.is_loopback and not config.tls_cert:
            raise refuse(
                "attach_tcp", "attach_tcp off loopback wants tls_cert and tls_key: the token must not travel in clear"
            )
    for name in ("peer_outbox", "attachment_outbox"):
        if getattr(config, name) < 2 * config.max_body:
            raise refuse(
                name, f"{name} must hold at least two bodies of max_body ({OPTIONS['max_body'].text(config.max_body)})"
            )
    for name in ("request_queue", "subscription_queue"):
        if getattr(config, name) < config.max_body:
            raise refuse(
                name, f"{name} must hold at least one body of max_body ({OPTIONS['max_body'].text(config.max_body)})"
            )
    if config.max_handshakes_per_address > config.max_handshakes:
        raise refuse("max_handshakes_per_address", "max_handshakes_per_address must not be above max_handshakes")
    if config.admin_socket == config.socket:
        raise refuse("admin_socket", "admin_socket: apps attach at that path; choose another, or off")
    if len(set(config.keys)) != len(config.keys):
        raise refuse("keys", "keys: the same file is named twice")
