"""The part of protobuf's encoding that frames use (pure): varints, tags, length-delimited fields.

Source: the protocol buffers encoding reference. Wire types used: 0 (varint),
2 (length-delimited), 5 (32 bits); 1 (64 bits) is skipped.
"""

from __future__ import annotations

from irisd.errors import IrisdError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_VARINT = (1 << 64) - 1


class WireError(IrisdError, ValueError):
    """Bytes that are not what they should be; the message names the rule they broke."""


def varint(value: int) -> bytes:
    """Encode a number; one that outgrew 64 bits (a sum of what others said) stays at the largest."""
    if value < 0x80:
        return bytes((value,))
    value = min(value, MAX_VARINT)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Decode the number at ``at``; return it and where it ends.

    Raises:
        WireError: It runs past ``end`` or is longer than 64 bits.
    """
    shift = value = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
        shift += 7
        if shift > 63:
            break
    else:
        raise WireError("truncated: a number runs past the end")
    raise WireError("a number is longer than 64 bits")


def read_length(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Decode a length at ``at``; return where its bytes start and where they end.

    Raises:
        WireError: They would run past ``end``.
    """
    length, at = read_varint(data, at, end)
    if length > end - at:
        raise WireError("truncated: a length points past the end")
    return at, at + length


def skip(data: bytes, at: int, end: int, wire_type: int) -> int:
    """Step over a field nobody here knows; a newer peer may send some.

    Raises:
        WireError: It runs past ``end``, or the wire type does not exist.
    """
    if wire_type == VARINT:
        return read_varint(data, at, end)[1]
    if wire_type == LENGTH:
        return read_length(data, at, end)[1]
    width = 8 if wire_type == FIXED64 else 4 if wire_type == FIXED32 else 0
    if not width:
        raise WireError(f"wire type {wire_type} does not exist")
    if width > end - at:
        raise WireError("truncated: a fixed field runs past the end")
    return at + width
