"""The Noise Protocol Framework (pure), revision 34, as much of it as links need.

Suite ``25519_AESGCM_SHA256``; patterns NN, NNpsk0 and KK. Names of classes and
methods are those of the specification, so that the two can be read side by
side. Ephemeral keys are passed in: this module draws no randomness.

Noise itself leaves it open whether a Diffie-Hellman result of all zeros is an
error; here it is, always. A peer that sends a low-order point would otherwise
fix the result regardless of our key.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from irisd.errors import WireError

DH_BYTES: Final = 32
HASH_BYTES: Final = 32
TAG_BYTES: Final = 16
MAX_MESSAGE: Final = 65_535
"""Longest Noise message, handshake or transport, in bytes."""
MAX_NONCE: Final = 2**64 - 1
"""Reserved by the specification for ``rekey``."""

_NONCE_PREFIX: Final = b"\x00\x00\x00\x00"
_ZERO_DH: Final = bytes(DH_BYTES)

# Pattern: its pre-message (who has a static key the other knows) and its messages, initiator's first.
_PATTERNS: Final[dict[str, tuple[bool, tuple[tuple[str, ...], tuple[str, ...]]]]] = {
    "NN": (False, (("e",), ("e", "ee"))),
    "NNpsk0": (False, (("psk", "e"), ("e", "ee"))),
    "KK": (True, (("e", "es", "ss"), ("e", "ee", "se"))),
}


class NoiseError(WireError):
    """A Noise message does not open, is too short or too long, or would agree on a key of zeros.

    ``reason`` is ``noise-tag``, ``noise-size`` or ``noise-dh``.
    """


class CipherState:
    """A key and a counter: one direction of a conversation, or the running handshake."""

    __slots__ = ("_aead", "_key", "nonce")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._aead = AESGCM(key)
        self.nonce = 0
        """Counter of the next message; the caller keeps it below its bound."""

    def encrypt(self, plaintext: bytes | memoryview, associated: bytes | None = None) -> bytes:
        """Seal one message."""
        nonce = _NONCE_PREFIX + self.nonce.to_bytes(8)
        self.nonce += 1
        return self._aead.encrypt(nonce, plaintext, associated)

    def decrypt(self, ciphertext: bytes | memoryview, associated: bytes | None = None) -> bytes:
        """Open one message.

        Raises:
            NoiseError: It is not what the other side sealed at this place of the conversation.
        """
        nonce = _NONCE_PREFIX + self.nonce.to_bytes(8)
        try:
            plaintext = self._aead.decrypt(nonce, ciphertext, associated)
        except InvalidTag:
            raise NoiseError("noise-tag", "a message does not open") from None
        self.nonce += 1
        return plaintext

    def rekey(self) -> None:
        """Replace the key by one derived from it; the counter goes on."""
        fresh = self._aead.encrypt(_NONCE_PREFIX + MAX_NONCE.to_bytes(8), bytes(32), None)[:32]
        self._key = fresh
        self._aead = AESGCM(fresh)


class SymmetricState:
    """Chaining key and transcript hash of a running handshake."""

    __slots__ = ("_chaining_key", "_cipher", "_hash")

    def __init__(self, protocol_name: bytes) -> None:
        if len(protocol_name) <= HASH_BYTES:
            self._hash = protocol_name.ljust(HASH_BYTES, b"\x00")
        else:
            self._hash = hashlib.sha256(protocol_name).digest()
        self._chaining_key = self._hash
        self._cipher: CipherState | None = None

    @property
    def handshake_hash(self) -> bytes:
        return self._hash

    def mix_key(self, material: bytes) -> None:
        self._chaining_key, key = _hkdf(self._chaining_key, material, 2)
        self._cipher = CipherState(key)

    def mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def mix_key_and_hash(self, material: bytes) -> None:
        self._chaining_key, extra, key = _hkdf(self._chaining_key, material, 3)
        self.mix_hash(extra)
        self._cipher = CipherState(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = plaintext if self._cipher is None else self._cipher.encrypt(plaintext, self._hash)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        plaintext = ciphertext if self._cipher is None else self._cipher.decrypt(ciphertext, self._hash)
        self.mix_hash(ciphertext)
        return plaintext

    @property
    def has_key(self) -> bool:
        return self._cipher is not None

    def split(self) -> tuple[CipherState, CipherState]:
        """The two transport keys: initiator to responder, and back."""
        first, second = _hkdf(self._chaining_key, b"", 2)
        return CipherState(first), CipherState(second)


class HandshakeState:
    """One side of one handshake of two messages.

    Args:
        pattern: ``NN``, ``NNpsk0`` or ``KK``.
        initiator: Whether this side writes the first message.
        prologue: Bytes both sides must have seen alike.
        ephemeral: 32 fresh random bytes, used for this handshake only; a
            responder may give them later, with :meth:`set_ephemeral`.
        psk: 32 bytes, for NNpsk0.
        static_private: Our X25519 private key, for KK.
        remote_static: The other side's X25519 public key, for KK.

    Raises:
        ValueError: The keys given are not those the pattern needs.
    """

    __slots__ = (
        "_ephemeral",
        "_initiator",
        "_messages",
        "_psk",
        "_remote_ephemeral",
        "_remote_static",
        "_static",
        "_symmetric",
    )

    def __init__(
        self,
        pattern: str,
        *,
        initiator: bool,
        prologue: bytes,
        ephemeral: bytes = b"",
        psk: bytes | None = None,
        static_private: bytes | None = None,
        remote_static: bytes | None = None,
    ) -> None:
        uses_statics, messages = _PATTERNS[pattern]
        if uses_statics != (static_private is not None and remote_static is not None):
            raise ValueError(f"{pattern} {'needs' if uses_statics else 'has no'} static keys")
        if ("psk" in messages[0]) != (psk is not None):
            raise ValueError(f"{pattern} {'needs' if psk is None else 'has no'} pre-shared key")
        self._initiator = initiator
        self._messages = list(messages)
        self._symmetric = SymmetricState(f"Noise_{pattern}_25519_AESGCM_SHA256".encode())
        self._symmetric.mix_hash(prologue)
        self._psk = psk
        self._ephemeral: X25519PrivateKey | None = None
        if ephemeral:
            self.set_ephemeral(ephemeral)
        self._remote_ephemeral: bytes = b""
        self._static: X25519PrivateKey | None = None
        self._remote_static: bytes = b""
        if static_private is not None and remote_static is not None:
            self._static = X25519PrivateKey.from_private_bytes(static_private)
            self._remote_static = remote_static
            ours = self._static.public_key().public_bytes_raw()
            self._symmetric.mix_hash(ours if initiator else remote_static)
            self._symmetric.mix_hash(remote_static if initiator else ours)

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes that name this conversation, once both messages are done."""
        return self._symmetric.handshake_hash

    @property
    def finished(self) -> bool:
        return not self._messages

    def set_ephemeral(self, ephemeral: bytes) -> None:
        """Give the ephemeral key, at the latest before our message is written.

        A responder reads without it, so it can leave the cost of a key pair
        until it knows that it will answer.
        """
        self._ephemeral = X25519PrivateKey.from_private_bytes(ephemeral)

    def write_message(self, payload: bytes) -> bytes:
        """Write our message.

        Raises:
            NoiseError: The key agreed on would be zero (``noise-dh``).
        """
        message = b""
        for token in self._messages.pop(0):
            if token == "e":
                assert self._ephemeral is not None, "set_ephemeral comes before write_message"
                public = self._ephemeral.public_key().public_bytes_raw()
                message += public
                self._mix_ephemeral(public)
            else:
                self._mix(token)
        return message + self._symmetric.encrypt_and_hash(payload)

    def read_message(self, message: bytes) -> bytes:
        """Read the other side's message; return its payload.

        Raises:
            NoiseError: It is too short or too long, was made with other keys
                or another prologue, or would agree on a key of zeros.
        """
        if not DH_BYTES <= len(message) <= MAX_MESSAGE:
            raise NoiseError("noise-size", f"a handshake message of {len(message)} bytes")
        for token in self._messages.pop(0):
            if token == "e":
                self._remote_ephemeral = message[:DH_BYTES]
                self._mix_ephemeral(self._remote_ephemeral)
            else:
                self._mix(token)
        sealed = message[DH_BYTES:]
        if self._symmetric.has_key and len(sealed) < TAG_BYTES:
            raise NoiseError("noise-size", f"a handshake message of {len(message)} bytes")
        return self._symmetric.decrypt_and_hash(sealed)

    def split(self) -> tuple[CipherState, CipherState]:
        """The keys to send and to receive with."""
        first, second = self._symmetric.split()
        return (first, second) if self._initiator else (second, first)

    def _mix_ephemeral(self, public: bytes) -> None:
        self._symmetric.mix_hash(public)
        if self._psk is not None:
            # A pattern with a psk keys the cipher from ephemerals too, so that no two handshakes share a key.
            self._symmetric.mix_key(public)

    def _mix(self, token: str) -> None:
        if token == "psk":
            assert self._psk is not None  # checked when constructed
            self._symmetric.mix_key_and_hash(self._psk)
        elif token == "ee":
            self._symmetric.mix_key(_dh(self._ephemeral, self._remote_ephemeral))
        elif token == "ss":
            self._symmetric.mix_key(_dh(self._static, self._remote_static))
        elif (token == "es") == self._initiator:  # the ephemeral is ours, the static theirs
            self._symmetric.mix_key(_dh(self._ephemeral, self._remote_static))
        else:
            self._symmetric.mix_key(_dh(self._static, self._remote_ephemeral))


def _dh(private: X25519PrivateKey | None, public: bytes) -> bytes:
    assert private is not None  # statics are checked when constructed, ephemerals before our message
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        shared = _ZERO_DH  # how this library reports it
    if hmac.compare_digest(shared, _ZERO_DH):
        raise NoiseError("noise-dh", "the peer sent a point of low order")
    return shared


def _hkdf(chaining_key: bytes, material: bytes, outputs: int) -> tuple[bytes, ...]:
    extracted = hmac.digest(chaining_key, material, hashlib.sha256)
    blocks: list[bytes] = []
    block = b""
    for number in range(1, outputs + 1):
        block = hmac.digest(extracted, block + bytes((number,)), hashlib.sha256)
        blocks.append(block)
    return tuple(blocks)
