"""Registry records <-> bytes (pure): the bodies of RECORD and HEARSAY frames.

The body is a protobuf message: ``repeated Claim claims = 1``, then what the
claims belong to: 2 the node's id (HEARSAY only), 4 the version they build on,
and, when they have changed or the record is whole, what the node says of
itself: 3 incarnation, 5 name, 6 cloud, 7 release, 8 addresses, 9 draining. In a
Claim: 1 members, 2 cluster, 3 patterns, 4 topic, 5 group, and of a cluster's
members, if it is not 0: 7 slots, 8 ejected, 9 level, 10 balance, 11 seats (bytes,
little-endian); 15 whether some of its subscribers block. A claim with no members
withdraws the one with the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from irisd.model import MAX_SEATS, Claim, KiB, NodeId, NodeRecord
from irisd.wire.protobuf import WireError, read_length, read_varint, skip, varint

PIECE_BYTES = 16 * KiB
"""A record travels in bodies of about this size, so that no piece holds up the link."""

MAX_ADDRESSES = 16
MAX_TEXT = 255
"""Bytes of a name, a cloud, a release, an address."""
MAX_INCARNATION = 1 << 62
MAX_NUMBER = (1 << 32) - 1

_NUMBERS = {0x08: "members", 0x18: "patterns", 0x38: "slots", 0x40: "ejected", 0x48: "level", 0x50: "balance"}
_LIMITS = {"members": 1 << 24, "ejected": 1 << 24, "slots": 1 << 48}
"""What they may be, :data:`MAX_NUMBER` if not said: claims are added up, and shown to people as 32-bit numbers."""
_STRINGS = {0x12: "cluster", 0x22: "topic", 0x2A: "group"}
_ABOUT = {0x2A: "name", 0x32: "cloud", 0x3A: "release"}


class RecordPiece(NamedTuple):
    """What one body says."""

    claims: list[Claim]
    node: NodeId
    """Whose record; empty: the sender's own."""
    base: int
    """The version these claims build on."""
    about: NodeRecord | None
    """What the node says of itself, with an empty id where ``node`` is; None: as before."""


def encode_record(
    claims: Iterable[Claim], *, base: int = 0, node: NodeId = b"", about: NodeRecord | None = None
) -> list[bytes]:
    """Encode a record, or a change of one, as one or more bodies; the first says what it is."""
    return list(record_pieces(claims, base=base, node=node, about=about))


def record_pieces(
    claims: Iterable[Claim], *, base: int = 0, node: NodeId = b"", about: NodeRecord | None = None
) -> Iterator[bytes]:
    """The same, each body made when it is asked for."""
    head = b"\x12\x10" + node if node else b""
    head += b"\x20" + varint(base)
    if about is not None:
        head += b"\x18" + varint(about.incarnation)
        texts = [(b"\x2a", about.name), (b"\x32", about.cloud), (b"\x3a", about.release)]
        for tag, text in (*texts, *((b"\x42", address) for address in about.addresses[:MAX_ADDRESSES])):
            raw = text.encode()[:MAX_TEXT].decode(errors="ignore").encode()  # no half characters
            head += tag + varint(len(raw)) + raw
        if about.draining:
            head += b"\x48\x01"
    pieces = _pieces(claims)
    yield head + next(pieces)
    yield from pieces


def decode_record(body: bytes) -> RecordPiece:
    """Decode the body of a RECORD or HEARSAY frame.

    Raises:
        WireError: It is malformed, or something is longer than it may be.
    """
    claims: list[Claim] = []
    node, base, incarnation = b"", 0, 0
    about: dict[str, Any] = {}
    addresses: list[str] = []
    at, end = 0, len(body)
    while at < end:
        tag, at = read_varint(body, at, end)
        if tag == 0x0A:
            start, at = read_length(body, at, end)
            claims.append(_decode_claim(body, start, at))
        elif tag == 0x20:
            base, at = read_varint(body, at, end)
        elif tag == 0x18:
            incarnation, at = read_varint(body, at, end)
        elif tag == 0x48:
            draining, at = read_varint(body, at, end)
            about["draining"] = bool(draining)
        elif tag == 0x12:
            start, at = read_length(body, at, end)
            node = bytes(body[start:at])
        elif tag in _ABOUT or tag == 0x42:
            start, at = read_length(body, at, end)
            text = _text(body, start, at)
            if tag == 0x42:
                addresses.append(text)
            else:
                about[_ABOUT[tag]] = text
        else:
            at = skip(body, at, end, tag & 7)
    if node and len(node) != 16:
        raise WireError(f"record: a node id of {len(node)} bytes")
    if incarnation > MAX_INCARNATION or len(addresses) > MAX_ADDRESSES:
        raise WireError(f"record: incarnation {incarnation}, {len(addresses)} addresses")
    said = NodeRecord(node, incarnation, addresses=tuple(addresses), **about) if incarnation else None
    return RecordPiece(claims, node, base, said)


def _text(body: bytes, start: int, end: int) -> str:
    if end - start > MAX_TEXT:
        raise WireError(f"record: a text of {end - start} bytes, at most {MAX_TEXT}")
    try:
        return str(body[start:end], "utf-8")
    except UnicodeDecodeError:
        raise WireError("record: a text is not UTF-8") from None


def encode_claims(claims: Iterable[Claim]) -> list[bytes]:
    """Encode claims as one or more bodies, each of about :data:`PIECE_BYTES` at most."""
    return list(_pieces(claims))


def _pieces(claims: Iterable[Claim]) -> Iterator[bytes]:
    piece: list[bytes] = []
    size = 0
    for claim in claims:
        raw = b"\x08" + varint(claim.members) + b"\x18" + varint(claim.patterns)
        for tag, text in ((b"\x12", claim.cluster), (b"\x22", claim.topic), (b"\x2a", claim.group)):
            if text:
                encoded = text.encode()
                raw += tag + varint(len(encoded)) + encoded
        for tag, number in (
            (b"\x38", claim.slots),
            (b"\x40", claim.ejected),
            (b"\x48", claim.level),
            (b"\x50", claim.balance),
        ):
            if number:
                raw += tag + varint(number)
        if claim.seats:
            seats = claim.seats.to_bytes((claim.seats.bit_length() + 7) // 8, "little")
            raw += b"\x5a" + varint(len(seats)) + seats
        if claim.blocks:
            raw += b"\x78\x01"
        if size + len(raw) > PIECE_BYTES and piece:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(b"\x0a" + varint(len(raw)) + raw)
        size += len(raw)
    yield b"".join(piece)


def _decode_claim(body: bytes, at: int, end: int) -> Claim:
    fields: dict[str, Any] = {"members": 0}
    while at < end:
        tag, at = read_varint(body, at, end)
        if tag in _NUMBERS:
            name = _NUMBERS[tag]
            fields[name], at = read_varint(body, at, end)
            if fields[name] > _LIMITS.get(name, MAX_NUMBER):
                raise WireError(f"claim: {fields[name]} {name}")
        elif tag == 0x78:
            blocks, at = read_varint(body, at, end)
            fields["blocks"] = bool(blocks)
        elif tag in _STRINGS:
            start, at = read_length(body, at, end)
            try:
                fields[_STRINGS[tag]] = str(body[start:at], "utf-8")
            except UnicodeDecodeError:
                raise WireError(f"claim: {_STRINGS[tag]} is not UTF-8") from None
        elif tag == 0x5A:
            start, at = read_length(body, at, end)
            if at - start > MAX_SEATS // 8:
                raise WireError(f"claim: {at - start} bytes of seats, at most {MAX_SEATS // 8}")
            fields["seats"] = int.from_bytes(body[start:at], "little")
        else:
            at = skip(body, at, end, tag & 7)
    claim = Claim(**fields)
    if bool(claim.cluster) == bool(claim.topic):
        raise WireError("claim: names either a cluster or a topic")
    return claim
