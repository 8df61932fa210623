"""The service key (pure): one seed, and everything derived from it.

A service is a name and a 32-byte seed. HKDF-SHA256, with a label per purpose
and the service's name in every label, turns the two into the secrets a node
works with; the seed itself is used for nothing else. So the same seed under
another name is another service, and one derived secret says nothing about
another.

The text form is made to be copied by people::

    irisd-service-key-v1
    # whoever holds this file is trusted by all of the service: keep it secret
    service: shop
    comment: made for the shop's production hosts
    seed: <64 hexadecimal digits>
    check: <8 hexadecimal digits>

``check`` comes last and is derived from seed and name: a file cut short, a
digit lost in copying, or a name edited by hand is noticed on reading.

Nothing here prints a secret: ``repr`` shows the name and the key id, errors
name lines and never quote them, and an instance refuses to be pickled.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from irisd.errors import KeyFileError

SEED_BYTES = 32
KEY_ID_BYTES = 8
MAX_TEXT_BYTES = 4096
MAX_SERVICE_BYTES = 200
MAX_COMMENT_BYTES = 200

_PREFIX = "irisd-service-key-v"
_VERSION = "1"
_WARNING = "# whoever holds this file is trusted by all of the service: keep it secret"
_FIELDS = ("service", "comment", "seed", "check")
_SERVICE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_RESERVED = "_iris"
_CHECK_BYTES = 4


class ServiceKey:
    """One key of one service. Immutable; compare with ``==``, which takes constant time.

    Args:
        service: The service's name.
        seed: 32 random bytes.

    Raises:
        KeyFileError: The name is not a name, or the seed is not 32 bytes.

    Attributes:
        service: The service's name.
        key_id: 8 bytes that name the key in the clear; they reveal nothing of it.
        link_psk: Pre-shared key of the links within the service.
        static_private: X25519 private key used between federated services.
        static_public: Its public half, which the other service pins.
        discovery_tag: 16 bytes announced on the network, by which nodes of one
            service find each other and nobody else learns the service's name.
    """

    __slots__ = (
        "_seed",
        "discovery_tag",
        "key_id",
        "link_psk",
        "service",
        "static_private",
        "static_public",
    )

    def __init__(self, service: str, seed: bytes) -> None:
        check_service_name(service)
        if len(seed) != SEED_BYTES:
            raise KeyFileError(f"a service key's seed is {SEED_BYTES} bytes, this one is {len(seed)}")
        self.service = service
        self._seed = bytes(seed)
        self.key_id = _derive(seed, service, b"key id", KEY_ID_BYTES)
        self.link_psk = _derive(seed, service, b"link psk", 32)
        self.static_private = _derive(seed, service, b"federation static", 32)
        self.static_public = X25519PrivateKey.from_private_bytes(self.static_private).public_key().public_bytes_raw()
        self.discovery_tag = _derive(seed, service, b"discovery tag", 16)

    @classmethod
    def generate(cls, service: str, seed: bytes) -> ServiceKey:
        """Make a new key of ``service`` from 32 fresh random bytes (``os.urandom(32)`` at the edge)."""
        return cls(service, seed)

    @classmethod
    def parse(cls, text: str) -> ServiceKey:
        """Read the text form.

        Raises:
            KeyFileError: Anything is missing, repeated, unknown or does not
                add up; the message says which line and what to do.
        """
        return cls(*_parse(text))

    def to_text(self, comment: str = "") -> str:
        """The text form. The only way the seed leaves this object.

        Args:
            comment: One line of at most 200 bytes for people.

        Raises:
            KeyFileError: The comment has line breaks or is too long.
        """
        comment = comment.strip()
        if len(comment.encode()) > MAX_COMMENT_BYTES or any(ord(c) < 32 or ord(c) == 127 for c in comment):
            raise KeyFileError(f"a key's comment is one line of at most {MAX_COMMENT_BYTES} bytes")
        lines = [
            f"{_PREFIX}{_VERSION}",
            _WARNING,
            f"service: {self.service}",
            f"comment: {comment}".rstrip(),
            f"seed: {self._seed.hex()}",
            f"check: {_check(self.service, self._seed)}",
        ]
        return "\n".join(lines) + "\n"

    @property
    def key_id_hex(self) -> str:
        """The key id as people see it."""
        return self.key_id.hex()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServiceKey):
            return NotImplemented
        return self.service == other.service and hmac.compare_digest(self._seed, other._seed)

    def __hash__(self) -> int:
        return hash((self.service, self.key_id))

    def __repr__(self) -> str:
        return f"<ServiceKey {self.service} {self.key_id_hex}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ServiceKey is not to be pickled or copied; write it with to_text()")


def check_service_name(service: str) -> None:
    """Refuse what is not a service's name.

    Raises:
        KeyFileError: Empty, too long, reserved, or with other characters.
    """
    if len(service.encode()) > MAX_SERVICE_BYTES:
        raise KeyFileError(f"a service's name is at most {MAX_SERVICE_BYTES} bytes")
    if not _SERVICE.fullmatch(service):
        raise KeyFileError("a service's name is letters, digits, '_' and '-', dots between parts: for example 'shop'")
    if service == _RESERVED or service.startswith(_RESERVED + "."):
        raise KeyFileError(f"names that begin with '{_RESERVED}.' are reserved; choose another service name")


def _parse(text: str) -> tuple[str, bytes]:
    if not text.strip():
        raise KeyFileError("the key file is empty; make one with: irisd keys new SERVICE > FILE")
    lines = [line.strip() for line in text.lstrip("\ufeff").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines or not lines[0].startswith(_PREFIX):
        raise KeyFileError(
            f"this is not a service key: it should begin with '{_PREFIX}{_VERSION}'; make one with: "
            "irisd keys new SERVICE > FILE"
        )
    if lines[0] != _PREFIX + _VERSION:
        raise KeyFileError(f"this service key's format is not '{_PREFIX}{_VERSION}'; a newer irisd may read it")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.strip()
        if not colon or name not in _FIELDS:
            raise KeyFileError(f"the service key has a line that is none of: {', '.join(_FIELDS)}; restore the file")
        if name in fields:
            raise KeyFileError(f"the service key has two '{name}' lines; one file holds one key")
        fields[name] = value.strip()
    for name in ("service", "seed", "check"):
        if not fields.get(name):
            raise KeyFileError(f"the service key has no '{name}' line: it is cut short or edited; copy the file again")
    check_service_name(fields["service"])
    seed = _unhex(fields["seed"], SEED_BYTES, "seed")
    check = _unhex(fields["check"], _CHECK_BYTES, "check")
    if not hmac.compare_digest(check.hex(), _check(fields["service"], seed)):
        raise KeyFileError(
            "the service key's check does not fit its service and seed: a character was lost or changed; "
            "copy the file again"
        )
    return fields["service"], seed


def _unhex(text: str, size: int, name: str) -> bytes:
    """``bytes.fromhex`` whose error does not quote the text."""
    if len(text) != 2 * size or not re.fullmatch(r"[0-9a-fA-F]+", text):
        raise KeyFileError(
            f"the service key's '{name}' is not {2 * size} hexadecimal digits: it is cut short or damaged; "
            "copy the file again"
        )
    return bytes.fromhex(text)


def _check(service: str, seed: bytes) -> str:
    return _derive(seed, service, b"file check", _CHECK_BYTES).hex()


def _derive(seed: bytes, service: str, label: bytes, size: int) -> bytes:
    """HKDF-SHA256 (RFC 5869) for at most 32 bytes: extract with a fixed salt, expand one block."""
    extracted = hmac.digest(b"irisd service key v1", seed, hashlib.sha256)
    info = label + b"\x00" + service.encode()
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)[:size]
