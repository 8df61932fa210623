"""Frames to bytes and back (pure).

A batch is protobuf, but its outer layers are length-prefixed fields and bodies are most of it: the headers go
through protobuf, the layers around them are put together and taken apart here, so that a body is copied once each
way. Anything not laid out in the usual order is left to protobuf altogether.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable
from enum import IntEnum
from itertools import accumulate, pairwise
from struct import iter_unpack
from typing import Final

from google.protobuf.message import DecodeError

from iris_client._errors import IrisError
from iris_client._model import MAX_SIZES, Limits
from iris_proto.v1 import frame_pb2 as pb

Header = pb.Header
"""The small protobuf message in front of every body."""

make: Callable[..., Header] = pb.Header
"""Make a header. The stubs want their own enums; ours are the same numbers."""

Received = tuple[Header, bytes]
"""One frame that came in: its header and its body."""


class Kind(IntEnum):
    """What a frame is; ``frame.proto`` has the grammar."""

    HELLO = 1
    WELCOME = 2
    GOODBYE = 3
    JOIN = 4
    LEAVE = 5
    SUBSCRIBE = 6
    UNSUBSCRIBE = 7
    DONE = 8
    ERROR = 9
    CANCEL = 10
    REQUEST = 11
    REPLY = 12
    PUSH = 13
    BROADCAST = 14
    SURVEY = 15
    PUBLISH = 16
    EVENT = 17
    FLUSH = 18
    TUNNEL = 19
    DATA = 20
    FINISH = 21
    CREDIT = 22
    PART = 23
    WATCH = 24
    CHANGE = 25
    PAUSE = 26
    RESUME = 27
    STALLED = 28
    MOVE = 29
    PING = 30
    END = 31


class Code(IntEnum):
    """Why a call failed."""

    NO_MEMBER = 1
    NOT_SUPPORTED = 2
    DEADLINE_EXCEEDED = 3
    MEMBER_LOST = 4
    OVERLOADED = 5
    REJECTED = 6
    HANDLER_FAILED = 7
    TOO_LARGE = 8
    TUNNEL_BROKEN = 9
    CANCELLED = 10
    DENIED = 11
    INVALID = 12
    SLOW_SUBSCRIBER = 13


EXECUTED_NO: Final = 1
EXECUTED_MAYBE: Final = 2
EXECUTED_YES: Final = 3

LANE_LOCAL: Final = 1
"""Bit of ``lanes``: this app can move to a Unix socket."""
LANE_LOCAL_ALONE: Final = 2
"""Bit of ``lanes``: and does without the stream it came by then."""

MAX_REMAINING_MS: Final = 0xFFFF_FFFF

_SIZES_TAG: Final = b"\x4a"  # Header.sizes, packed


class ProtocolError(IrisError):
    """The other side broke the rules of ``frame.proto``; the message names the rule. Ends the stream."""


def varint(value: int) -> bytes:
    """Encode a non-negative integer as protobuf does."""
    if value < 0x80:
        return value.to_bytes(1, "little")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def sizes_field(bodies: Iterable[bytes]) -> bytes:
    """The bytes that, appended to an encoded header, are its ``sizes``: fixed32, little-endian."""
    sizes = array("I", map(len, bodies))
    if sys.byteorder == "big":
        sizes.byteswap()
    return b"%b%b%b" % (_SIZES_TAG, varint(4 * len(sizes)), sizes.tobytes())


def check_sizes(sizes: list[int], body: bytes) -> None:
    """See that a body can be cut into messages of these sizes.

    Raises:
        ProtocolError: They do not add up to it, or there are too many.
    """
    if len(sizes) > MAX_SIZES or sum(sizes) != len(body):
        raise ProtocolError(f"sizes: {len(sizes)} sizes add up to {sum(sizes)}, the body has {len(body)} bytes")


def cut(body: bytes, sizes: list[int]) -> list[bytes]:
    """Cut a body into messages, their sizes checked. Those of one size, as most are, cost less in one go."""
    size = sizes[0]
    if size and sizes.count(size) == len(sizes):
        return [each for (each,) in iter_unpack(f"{size}s", body)]
    return [body[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]


def append_frame(chunks: list[bytes], header: bytes, body: bytes) -> int:
    """Append one frame of a batch to ``chunks``; return how many bytes that added."""
    # Batch.frames { Frame.header { ... } Frame.body { ... } }
    head = b"\x0a%b%b" % (varint(len(header)), header)
    if body:
        head = b"%b\x12%b" % (head, varint(len(body)))
    lead = b"\x0a%b%b" % (varint(len(head) + len(body)), head)
    chunks.append(lead)
    if body:
        chunks.append(body)
    return len(lead) + len(body)


def append_joined(chunks: list[bytes], header: bytes, bodies: list[bytes], size: int) -> int:
    """As :func:`append_frame`, with a body that is ``size`` bytes of ``bodies`` one after another."""
    if not size:
        return append_frame(chunks, header, b"")
    head = b"\x0a%b%b\x12%b" % (varint(len(header)), header, varint(size))
    lead = b"\x0a%b%b" % (varint(len(head) + size), head)
    chunks.append(lead)
    chunks += bodies
    return len(lead) + size


def hello(service: str, name: str, version: str, user: str) -> list[bytes]:
    """The batch a stream begins with. ``user``: the user's number, from an app that can move to a local lane."""
    about = {"address": service, "member": name, "version": version}
    moves = {"lanes": LANE_LOCAL | LANE_LOCAL_ALONE, "group": user} if user else {}
    # PAUSE is heeded, GOODBYE answered
    header = make(kind=Kind.HELLO, when_full=pb.WHEN_FULL_BLOCK, count=1, **about, **moves)
    parts: list[bytes] = []
    append_frame(parts, header.SerializeToString(), b"")
    return parts


def limits(welcome: Header, before: Limits) -> Limits:
    """What a daemon allows, in place of what was allowed before."""
    return Limits(
        max_body=welcome.max_bytes or before.max_body,
        node=welcome.node,
        version=welcome.version,
        max_large=welcome.max_large,
        lane=welcome.lane,
        ticket=welcome.ticket,
        alone=bool(welcome.lanes & LANE_LOCAL_ALONE),
    )


def decode_batch(data: bytes | memoryview) -> list[Received]:
    """Take a batch apart; nothing refers to ``data`` afterwards.

    Raises:
        ProtocolError: The bytes are no batch of frames, or a frame has no header.
    """
    frames: list[Received] = []
    at, end = 0, len(data)
    parse = pb.Header.FromString
    try:
        while at < end:
            if data[at] != 0x0A:
                return _decode_slowly(data)
            size, at = _length(data, at + 1)
            stop = at + size
            if stop > end:
                raise ProtocolError("a batch ends in the middle of a frame")
            if at == stop or data[at] != 0x0A:
                return _decode_slowly(data)
            size, head = _length(data, at + 1)
            at = head + size
            if at > stop:
                raise ProtocolError("a frame ends in the middle of its header")
            header = parse(data[head:at])  # type: ignore[arg-type]  # a view will do
            if at == stop:
                frames.append((header, b""))
                continue
            if data[at] != 0x12:
                return _decode_slowly(data)
            size, at = _length(data, at + 1)
            if at + size != stop:
                return _decode_slowly(data)
            frames.append((header, bytes(data[at:stop])))
            at = stop
    except DecodeError:
        raise ProtocolError("a frame's header cannot be decoded") from None
    return frames


def _length(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Read a length at ``at``; return it and where it ended."""
    try:
        byte = data[at]
        if byte < 0x80:
            return byte, at + 1
        value, shift = byte & 0x7F, 7
        while True:
            at += 1
            byte = data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise ProtocolError("a length is longer than ten bytes")
    except IndexError:
        raise ProtocolError("a batch ends in the middle of a length") from None
    return value, at + 1


def _decode_slowly(data: bytes | memoryview) -> list[Received]:
    try:
        batch = pb.Batch.FromString(bytes(data))
    except DecodeError:
        raise ProtocolError("a batch cannot be decoded") from None
    frames: list[Received] = []
    for frame in batch.frames:
        if not frame.HasField("header"):
            raise ProtocolError("a frame has no header")
        frames.append((frame.header, frame.body))
    return frames
