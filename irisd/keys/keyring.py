"""The keys of one service (pure): one is active, others may be accepted.

A node dials with the active key only and answers to every key of the ring, so
a key is replaced without a moment in which two nodes cannot talk: accept the
new one everywhere, activate it everywhere, remove the old one. A ring never
changes; each step gives a new ring, which the caller persists and puts in
place of the old.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from irisd.errors import KeyFileError
from irisd.keys.service import ServiceKey

MAX_KEYS = 8


class Keyring:
    """All keys of one service that this daemon holds.

    Args:
        active: The key links are dialled with.
        accepted: Further keys that peers may dial with.

    Raises:
        KeyFileError: A key of another service, the same key twice, or more
            than 8 keys.
    """

    __slots__ = ("_keys", "active", "service")

    def __init__(self, active: ServiceKey, accepted: Iterable[ServiceKey] = ()) -> None:
        self.service = active.service
        self.active = active
        self._keys: dict[bytes, ServiceKey] = {active.key_id: active}
        for key in accepted:
            if key.service != self.service:
                raise KeyFileError(f"{key!r} is no key of service '{self.service}'; each service has its own keyring")
            if key.key_id in self._keys:
                raise KeyFileError(f"{key!r} is given twice")
            self._keys[key.key_id] = key
        if len(self._keys) > MAX_KEYS:
            raise KeyFileError(f"service '{self.service}' has more than {MAX_KEYS} keys; remove the unused ones")

    def find(self, key_id: bytes) -> ServiceKey | None:
        """The key with this id, if the ring has it."""
        return self._keys.get(bytes(key_id))

    def accept(self, key: ServiceKey) -> Keyring:
        """A ring that also answers to ``key``."""
        return Keyring(self.active, [*self._others(self.active), key])

    def activate(self, key_id: bytes) -> Keyring:
        """A ring that dials with the key of this id, which it already accepts.

        Raises:
            KeyFileError: The ring has no such key.
        """
        key = self._known(key_id)
        return Keyring(key, self._others(key))

    def remove(self, key_id: bytes) -> Keyring:
        """A ring without the key of this id.

        Raises:
            KeyFileError: The ring has no such key, or it is the active one.
        """
        key = self._known(key_id)
        if key is self.active:
            raise KeyFileError(f"{key!r} is the active key; activate another one before you remove it")
        return Keyring(self.active, [other for other in self._others(self.active) if other is not key])

    @property
    def discovery_tags(self) -> tuple[bytes, ...]:
        """What to announce and match on the network: the tags of all keys, the active one's first."""
        return tuple(key.discovery_tag for key in self)

    def _known(self, key_id: bytes) -> ServiceKey:
        key = self.find(key_id)
        if key is None:
            raise KeyFileError(f"service '{self.service}' has no key {bytes(key_id).hex()}; accept it first")
        return key

    def _others(self, key: ServiceKey) -> list[ServiceKey]:
        return [other for other in self if other is not key]

    def __iter__(self) -> Iterator[ServiceKey]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<Keyring {self.service} active={self.active.key_id_hex} keys={len(self)}>"
