"""One frame, and batches of them (pure): ``iris.v1.Frame`` and ``iris.v1.Batch``.

Decoding checks what every later room relies upon: strings are UTF-8, sizes add
up, headers stay within their bounds. Numbers out of range, unknown fields and
unknown kinds are left to whoever understands them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from irisd.model import MAX_SIZES, Frame, KiB
from irisd.wire.protobuf import (
    FIXED32,
    LENGTH,
    MAX_VARINT,
    VARINT,
    WireError,
    read_length,
    read_varint,
    skip,
    varint,
)

MAX_HEADERS = 64
MAX_HEADERS_BYTES = 8 * KiB
MAX_MEMBERS = 65_536
MAX_FRAMES = 65_536
"""Most frames one batch may hold: decoding them must not hold up the others."""

MAX_HEADER = 512 * KiB
"""Most bytes the header of an app's frame may have: with a part of a body it must fit into one message of a link."""

MAX_LINK_HEADER = MAX_HEADER + 4 * KiB
"""The same between nodes, who add names and ids."""

SMALL_BODY = 4 * KiB
"""A body below this many bytes is cheaper to copy than to keep apart."""

LARGE_HEADER = 256
"""A header above this many bytes is noted in the frame, so that a queue knows what it holds."""

SLICE_HEADERS = 64 * KiB
"""Bytes of large headers after which a slice ends, however few its frames: they can be made to cost that much."""

_NUMBERS = {
    1: "kind",
    2: "id",
    12: "count",
    13: "code",
    14: "executed",
    17: "lost",
    21: "total",
    25: "when_full",
    26: "max_bytes",
    29: "balance",
    36: "carries",
    37: "max_large",
    34: "cost",
    40: "seq",
}
_NUMBERS_32 = {
    4: "remaining_ms",
    5: "hops",
    22: "patterns",
    23: "concurrency",
    31: "priority",
    32: "hedge_ms",
    44: "lanes",
}
_FLAGS = {18: "lost_unknown", 19: "idempotent", 20: "more", 35: "at_once", 41: "full"}
_STRINGS = {
    3: "address",
    6: "method",
    7: "content_type",
    10: "member",
    15: "reason",
    16: "detail",
    24: "group",
    27: "version",
    28: "node",
    30: "key",
    42: "lane",
}
_BYTES = {43: "ticket"}


def _number_decoder(name: str) -> Callable[[dict[str, Any], bytes, int, int], int]:
    def decode(fields: dict[str, Any], data: bytes, at: int, end: int) -> int:
        if at < end and data[at] < 0x80:
            fields[name] = data[at]
            return at + 1
        fields[name], at = read_varint(data, at, end)
        return at

    return decode


def _number_32_decoder(name: str) -> Callable[[dict[str, Any], bytes, int, int], int]:
    def decode(fields: dict[str, Any], data: bytes, at: int, end: int) -> int:
        value, at = read_varint(data, at, end)
        fields[name] = value & 0xFFFF_FFFF
        return at

    return decode


def _flag_decoder(name: str) -> Callable[[dict[str, Any], bytes, int, int], int]:
    def decode(fields: dict[str, Any], data: bytes, at: int, end: int) -> int:
        value, at = read_varint(data, at, end)
        fields[name] = bool(value)
        return at

    return decode


def _string_decoder(name: str) -> Callable[[dict[str, Any], bytes, int, int], int]:
    def decode(fields: dict[str, Any], data: bytes, at: int, end: int) -> int:
        start, stop = read_length(data, at, end)
        try:
            fields[name] = str(data[start:stop], "utf-8")
        except UnicodeDecodeError:
            raise WireError(f"{name} is not UTF-8") from None
        return stop

    return decode


def _bytes_decoder(name: str) -> Callable[[dict[str, Any], bytes, int, int], int]:
    def decode(fields: dict[str, Any], data: bytes, at: int, end: int) -> int:
        start, stop = read_length(data, at, end)
        fields[name] = bytes(data[start:stop])
        return stop

    return decode


def _decode_headers(fields: dict[str, Any], data: bytes, at: int, end: int) -> int:
    start, stop = read_length(data, at, end)
    entries = (*fields.get("headers", ()), bytes(data[start:stop]))
    if len(entries) > MAX_HEADERS or sum(map(len, entries)) > MAX_HEADERS_BYTES:
        raise WireError(f"headers: more than {MAX_HEADERS} entries or {MAX_HEADERS_BYTES} bytes")
    fields["headers"] = entries
    return stop


def _decode_members(fields: dict[str, Any], data: bytes, at: int, end: int) -> int:
    start, stop = read_length(data, at, end)
    members: list[str] = fields.setdefault("members", [])
    if len(members) >= MAX_MEMBERS:
        raise WireError(f"members: more than {MAX_MEMBERS}")
    try:
        members.append(str(data[start:stop], "utf-8"))
    except UnicodeDecodeError:
        raise WireError("members: not UTF-8") from None
    return stop


def _decode_sizes(fields: dict[str, Any], data: bytes, at: int, end: int) -> int:
    start, stop = read_length(data, at, end)
    return _add_sizes(fields, data, start, stop)


def _decode_size(fields: dict[str, Any], data: bytes, at: int, end: int) -> int:
    """One number by itself: legal protobuf too, and what some clients write."""
    if end - at < 4:
        raise WireError("truncated: sizes")
    return _add_sizes(fields, data, at, at + 4)


def _add_sizes(fields: dict[str, Any], data: bytes, start: int, stop: int) -> int:
    sizes: bytearray = fields.setdefault("sizes", bytearray())  # grows in place, whatever the number of pieces
    if (stop - start) & 3 or len(sizes) + stop - start > 4 * MAX_SIZES:
        raise WireError(f"sizes: must be whole 32-bit numbers, at most {MAX_SIZES}")
    sizes += data[start:stop]
    return stop


_DECODERS: dict[int, Callable[[dict[str, Any], bytes, int, int], int]] = {
    **{number << 3 | VARINT: _number_decoder(name) for number, name in _NUMBERS.items()},
    **{number << 3 | VARINT: _number_32_decoder(name) for number, name in _NUMBERS_32.items()},
    **{number << 3 | VARINT: _flag_decoder(name) for number, name in _FLAGS.items()},
    **{number << 3 | LENGTH: _string_decoder(name) for number, name in _STRINGS.items()},
    **{number << 3 | LENGTH: _bytes_decoder(name) for number, name in _BYTES.items()},
    8 << 3 | LENGTH: _decode_headers,
    9 << 3 | LENGTH: _decode_sizes,
    9 << 3 | FIXED32: _decode_size,
    11 << 3 | LENGTH: _decode_members,
}


# What nearly every header consists of: fields whose tag is one byte. Decoded in place, without a call for each.
_PLAIN_NUMBERS = {n << 3 | VARINT: name for n, name in (_NUMBERS | _NUMBERS_32).items() if n < 16}
_WIDTHS = {n << 3 | VARINT: 0xFFFF_FFFF for n in _NUMBERS_32}
_PLAIN_STRINGS = {n << 3 | LENGTH: name for n, name in _STRINGS.items() if n < 16}


def sum_sizes(sizes: bytes) -> int:
    """The bytes a batch's messages have together."""
    return sum(memoryview(sizes).cast("I")) if sizes else 0


def _decode_header(fields: dict[str, Any], data: bytes, at: int, end: int) -> None:
    numbers, widths, strings, decoders = _PLAIN_NUMBERS, _WIDTHS, _PLAIN_STRINGS, _DECODERS
    while at < end:
        tag = data[at]
        at += 1
        name = numbers.get(tag)
        if name is not None and (at + 2 < end or (at < end and data[at] < 0x80)):  # short numbers: read in place
            value = data[at]
            at += 1
            if value > 0x7F:
                byte = data[at]
                at += 1
                value += (byte - 1) << 7
                if byte > 0x7F:
                    byte = data[at]
                    at += 1
                    value += (byte - 1) << 14
                    if byte > 0x7F:
                        value, at = read_varint(data, at - 3, end)
                        value &= widths.get(tag, MAX_VARINT)
            fields[name] = value
            continue
        name = strings.get(tag)
        if name is not None and at < end and (stop := at + 1 + data[at]) <= end and data[at] < 0x80:
            try:
                fields[name] = str(data[at + 1 : stop], "utf-8")
            except UnicodeDecodeError:
                raise WireError(f"{name} is not UTF-8") from None
            at = stop
            continue
        if tag > 0x7F:
            tag, at = read_varint(data, at - 1, end)
        decoder = decoders.get(tag)
        at = decoder(fields, data, at, end) if decoder is not None else skip(data, at, end, tag & 7)


def decode_frame(data: bytes, at: int, end: int, max_body: int, max_header: int = MAX_LINK_HEADER) -> Frame:
    """Decode the ``iris.v1.Frame`` that lies in ``data[at:end]``.

    Raises:
        WireError: It is malformed, its sizes do not add up, its header is above ``max_header`` bytes or its body
            above ``max_body``.
    """
    frame = Frame(0)
    fields = frame.__dict__
    header = 0
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x0A:
            if at < end and data[at] < 0x80 and (stop := at + 1 + data[at]) <= end:
                start, at = at + 1, stop
            else:
                start, at = read_length(data, at, end)
            header += at - start  # protobuf lets it come in pieces
            if header > max_header:
                raise WireError(f"header of {header} bytes: the limit is {max_header}")
            _decode_header(fields, data, start, at)
            if header > LARGE_HEADER:
                frame.header_bytes = header
        elif tag == 0x12:
            start, at = read_length(data, at, end)
            if at - start > max_body:
                raise WireError(f"body of {at - start} bytes: the limit is {max_body}")
            fields["body"] = bytes(data[start:at])
        else:
            if tag > 0x7F:
                tag, at = read_varint(data, at - 1, end)
            at = skip(data, at, end, tag & 7)
    if fields["kind"] == 0:
        raise WireError("a frame without a kind")
    if "members" in fields:
        fields["members"] = tuple(fields["members"])
    if "sizes" in fields:
        sizes = bytes(fields["sizes"])  # it grew as a bytearray
        fields["sizes"] = sizes
        whole = frame.total if frame.more else len(frame.body)  # a first part states the sizes of all parts
        if sum_sizes(sizes) != whole:
            raise WireError(f"sizes: they add up to {sum_sizes(sizes)}, the body has {whole} bytes")
    return frame


def decode_batch(data: bytes, max_body: int) -> list[Frame]:
    """Decode an ``iris.v1.Batch``.

    Args:
        data: The whole message.
        max_body: Most bytes one frame's body may have.

    Raises:
        WireError: It is malformed.
    """
    return [frame for frames in decode_slices(data, max_body, lambda: MAX_FRAMES) for frame in frames]


def decode_slices(data: bytes, max_body: int, size: Callable[[], int]) -> Iterator[list[Frame]]:
    """As :func:`decode_batch`, ``size()`` frames at a time: a long batch is work for a while.

    Raises:
        WireError: What comes next is malformed; what came before it was not.
    """
    frames: list[Frame] = []
    count, at, end, wanted, headers = 0, 0, len(data), size(), 0
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x0A:
            if count >= MAX_FRAMES:
                raise WireError(f"batch: more than {MAX_FRAMES} frames")
            count += 1
            start, at = read_length(data, at, end)
            frames.append(frame := decode_frame(data, start, at, max_body, MAX_HEADER))
            headers += frame.header_bytes
            if len(frames) >= wanted or headers >= SLICE_HEADERS:
                yield frames
                frames, wanted, headers = [], size(), 0
        else:
            if tag > 0x7F:
                tag, at = read_varint(data, at - 1, end)
            at = skip(data, at, end, tag & 7)
    if frames:
        yield frames


_TAGS = {name: varint(n << 3 | VARINT) for n, name in (_NUMBERS | _NUMBERS_32 | _FLAGS).items()}
_STRING_TAGS = {name: varint(n << 3 | LENGTH) for n, name in _STRINGS.items()}
_TWO_BYTES = [varint(value) for value in range(1 << 14)]
"""Numbers as they are encoded, those that take up to two bytes."""

MAX_KEPT = 1024
"""Strings whose encoding is kept: names come again and again."""

MAX_KEPT_LENGTH = 64
"""Characters of the longest one that is."""


def _number_encoder(tag: bytes) -> Callable[[int], bytes]:
    known = [tag + number for number in _TWO_BYTES[:128]]

    def encode(value: int) -> bytes:
        if value < 128:
            return known[value]
        return tag + (_TWO_BYTES[value] if value < 1 << 14 else varint(value))

    return encode


def _string_encoder(tag: bytes) -> Callable[[str], bytes]:
    kept: dict[str, bytes] = {}

    def encode(value: str) -> bytes:
        known = kept.get(value)
        if known is not None:
            return known
        raw = value.encode()
        encoded = tag + varint(len(raw)) + raw
        if len(value) <= MAX_KEPT_LENGTH:
            if len(kept) >= MAX_KEPT:
                kept.clear()
            kept[value] = encoded
        return encoded

    return encode


def _octets_encoder(tag: bytes) -> Callable[[bytes], bytes]:
    return lambda value: tag + varint(len(value)) + value


def _repeated_encoder(tag: bytes) -> Callable[[tuple[str | bytes, ...]], bytes]:
    def encode(value: tuple[str | bytes, ...]) -> bytes:
        raws = [item.encode() if isinstance(item, str) else item for item in value]
        return b"".join([tag + varint(len(raw)) + raw for raw in raws])

    return encode


_ENCODERS: dict[str, Callable[[Any], bytes]] = {
    **{name: _number_encoder(tag) for name, tag in _TAGS.items()},
    **{name: _string_encoder(tag) for name, tag in _STRING_TAGS.items()},
    **{name: _octets_encoder(varint(n << 3 | LENGTH)) for n, name in _BYTES.items()},
    "headers": _repeated_encoder(b"\x42"),
    "members": _repeated_encoder(b"\x5a"),
    "sizes": _octets_encoder(b"\x4a"),
}


def encode_parts(frame: Frame) -> tuple[bytes, bytes]:
    """Encode a frame as its header bytes and its untouched body; joined they are an ``iris.v1.Frame``."""
    find = _ENCODERS.get
    fields = frame.__dict__
    header = b"".join([encode(value) for name, value in fields.items() if value and (encode := find(name))])
    body: bytes = fields.get("body", b"")
    size, length = len(header), len(body)
    prefix = b"\x0a" + (_TWO_BYTES[size] if size < 1 << 14 else varint(size)) + header
    if length:
        prefix += b"\x12" + (_TWO_BYTES[length] if length < 1 << 14 else varint(length))
    return prefix, body


def encode_frame(frame: Frame) -> bytes:
    """Encode a frame as an ``iris.v1.Frame``."""
    return b"".join(encode_parts(frame))


def encode_batch(frames: list[Frame]) -> bytes:
    """Encode frames as an ``iris.v1.Batch``; every body is copied once."""
    out: list[bytes] = []
    for frame in frames:
        prefix, body = encode_parts(frame)
        out.append(b"\x0a" + varint(len(prefix) + len(body)) + prefix)
        if body:
            out.append(body)
    return b"".join(out)


def encode_batch_parts(frames: list[Frame]) -> list[bytes]:
    """Encode frames as an ``iris.v1.Batch`` in pieces, to be written one after another.

    Bodies that are worth it are pieces themselves, not copied; what lies between two of them is one piece.
    """
    parts: list[bytes] = []
    run: list[bytes] = []
    for frame in frames:
        prefix, body = encode_parts(frame)
        run.append(b"\x0a" + varint(len(prefix) + len(body)) + prefix)
        if len(body) >= SMALL_BODY:
            parts += (b"".join(run), body)
            run = []
        elif body:
            run.append(body)
    if run:
        parts.append(b"".join(run))
    return parts
