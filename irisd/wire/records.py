"""Claims of a registry record <-> bytes (pure): the body of a RECORD frame.

The body is a protobuf message with ``repeated Claim claims = 1`` and, in a
Claim: 1 members, 2 cluster, 3 patterns, 4 topic, 5 group. A claim with no
members withdraws the one with the same names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from irisd.model import Claim, KiB
from irisd.wire.protobuf import WireError, read_length, read_varint, skip, varint

PIECE_BYTES = 16 * KiB
"""A record travels in bodies of about this size, so that no piece holds up the link."""

_NUMBERS = {0x08: "members", 0x18: "patterns"}
_STRINGS = {0x12: "cluster", 0x22: "topic", 0x2A: "group"}


def encode_claims(claims: Iterable[Claim]) -> list[bytes]:
    """Encode claims as one or more bodies, each of about :data:`PIECE_BYTES` at most."""
    pieces: list[bytes] = []
    piece: list[bytes] = []
    size = 0
    for claim in claims:
        raw = b"\x08" + varint(claim.members) + b"\x18" + varint(claim.patterns)
        for tag, text in ((b"\x12", claim.cluster), (b"\x22", claim.topic), (b"\x2a", claim.group)):
            if text:
                encoded = text.encode()
                raw += tag + varint(len(encoded)) + encoded
        if size + len(raw) > PIECE_BYTES and piece:
            pieces.append(b"".join(piece))
            piece, size = [], 0
        piece.append(b"\x0a" + varint(len(raw)) + raw)
        size += len(raw)
    pieces.append(b"".join(piece))
    return pieces


def decode_claims(body: bytes) -> list[Claim]:
    """Decode the body of a RECORD frame.

    Raises:
        WireError: It is malformed.
    """
    claims = []
    at, end = 0, len(body)
    while at < end:
        tag, at = read_varint(body, at, end)
        if tag == 0x0A:
            start, at = read_length(body, at, end)
            claims.append(_decode_claim(body, start, at))
        else:
            at = skip(body, at, end, tag & 7)
    return claims


def _decode_claim(body: bytes, at: int, end: int) -> Claim:
    fields: dict[str, Any] = {"members": 0}
    while at < end:
        tag, at = read_varint(body, at, end)
        if tag in _NUMBERS:
            fields[_NUMBERS[tag]], at = read_varint(body, at, end)
        elif tag in _STRINGS:
            start, at = read_length(body, at, end)
            try:
                fields[_STRINGS[tag]] = str(body[start:at], "utf-8")
            except UnicodeDecodeError:
                raise WireError(f"claim: {_STRINGS[tag]} is not UTF-8") from None
        else:
            at = skip(body, at, end, tag & 7)
    claim = Claim(**fields)
    if bool(claim.cluster) == bool(claim.topic):
        raise WireError("claim: names either a cluster or a topic")
    return claim
