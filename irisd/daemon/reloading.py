"""A reload: what may change while the daemon runs is taken up, the rest is named (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from irisd.config import OPTIONS, Config
from irisd.keys import Keyring, ServiceKey

Read = Callable[[], tuple[Config, Sequence[ServiceKey]]]
"""Reads settings and keys as they are now; raises IrisdError for what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of a reload, by names of settings.

    Attributes:
        applied: Have another value now.
        restart: Were changed, and want a restart.
    """

    applied: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


def keyrings(keys: Sequence[ServiceKey]) -> dict[str, Keyring]:
    """One keyring per service; its first key is the active one."""
    rings: dict[str, Keyring] = {}
    for key in keys:
        ring = rings.get(key.service)
        rings[key.service] = Keyring(key) if ring is None else ring.accept(key)
    return rings


def compare(old: Config, new: Config) -> tuple[Config, Reloaded]:
    """The configuration to go on with: the old one with those new values that a running daemon takes up."""
    changed = [name for name in OPTIONS if name != "keys" and getattr(old, name) != getattr(new, name)]
    applied = [name for name in changed if OPTIONS[name].reloads]
    merged = replace(old, **{name: getattr(new, name) for name in applied})
    return merged, Reloaded(tuple(applied), tuple(name for name in changed if name not in applied))


def compare_keys(old: Mapping[str, Keyring], new: Mapping[str, Keyring]) -> tuple[dict[str, Keyring], list[str]]:
    """The keyrings to go on with, those that are others only, and why the rest wants a restart.

    A key may be added and another one made the active one; a key that is taken away would close the links made with it.
    """
    found: dict[str, Keyring] = {}
    restart = [f"keys (service {name} is new)" for name in new if name not in old]
    for name, ring in old.items():
        wanted = new.get(name)
        if wanted is None:
            restart.append(f"keys (service {name} is gone)")
        elif any(wanted.find(key.key_id) is None for key in ring):
            restart.append(f"keys (a key of service {name} is gone)")
        elif [key.key_id for key in wanted] != [key.key_id for key in ring]:
            found[name] = wanted
    return found, restart
