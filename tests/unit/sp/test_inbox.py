"""The inbox: bodies come out whole however the stream was cut, and nothing is held but what came."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from irisd.sp import Framing, Inbox, MessageEncoder, Scratch, SpError, SpFault
from irisd.sp.pair1 import FIRST_HOP

KiB = 1024
MAX_SIZE = 64 * KiB


def message(body: bytes) -> bytes:
    return b"".join(MessageEncoder(Framing.IPC, max_size=1 << 30, header=FIRST_HOP).encode(body))


class Reader:
    """Reads a stream as an edge does."""

    def __init__(self, scratch: Scratch | None = None) -> None:
        self.scratch = scratch or Scratch(8 * KiB)
        self.inbox = Inbox(self.scratch, max_size=MAX_SIZE)

    def read(self, data: bytes) -> bytes:
        out = b""
        while data:
            space = self.inbox.space()
            count = min(len(space), len(data))
            space[:count] = data[:count]
            out += self.inbox.filled(count)
            data = data[count:]
        return out

    @property
    def held(self) -> int:
        return 0 if self.inbox.is_between_messages else len(self.inbox._own or b"")


def test_a_message_is_a_byte_two_numbers_and_a_body():
    data = bytes.fromhex("01 00000000 00000007 00000001") + b"abc"
    assert message(b"abc") == data
    assert Reader().read(data) == b"abc"


def test_messages_of_one_read_come_out_joined():
    reader = Reader()
    assert reader.read(message(b"one") + message(b"") + message(b"two")) == b"onetwo"
    assert reader.inbox.is_between_messages


@pytest.mark.parametrize("size", [0, 1, 100, 4 * KiB, 8 * KiB, 20 * KiB, MAX_SIZE - 4])
def test_every_split(size):
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    data = message(b"before") + message(body) + message(b"after")
    cuts = {*range(1, 60), *range(len(data) - 40, len(data)), len(data) // 2}
    for cut in sorted(cut for cut in cuts if 0 < cut < len(data)):
        reader = Reader()
        assert reader.read(data[:cut]) + reader.read(data[cut:]) == b"before" + body + b"after"
        assert reader.inbox.is_between_messages


def test_byte_by_byte():
    reader = Reader()
    out = b"".join(reader.read(bytes([byte])) for byte in message(b"x" * 1000) + message(b"y"))
    assert out == b"x" * 1000 + b"y"


def test_connections_that_share_a_scratch_do_not_mix():
    scratch, random = Scratch(4 * KiB), Random(1)
    bodies = [random.randbytes(random.randrange(30 * KiB)) for _ in range(8)]
    readers = [Reader(scratch) for _ in bodies]
    cuts = [sorted({0, len(body) + 13, *(random.randrange(len(body) + 13) for _ in range(9))}) for body in bodies]
    pieces = [(at, piece) for at, cut in enumerate(cuts) for piece in pairwise(cut)]
    out = [b"" for _ in bodies]
    order = [at for at, _ in pieces]
    random.shuffle(order)
    left = [[piece for at, piece in pieces if at == number] for number in range(len(bodies))]
    for at in order:
        start, stop = left[at].pop(0)
        out[at] += readers[at].read(message(bodies[at])[start:stop])
    assert out == bodies


def test_it_holds_what_came_and_not_what_was_announced():
    reader = Reader()
    reader.read(message(bytes(MAX_SIZE - 4))[:13])
    assert reader.held <= 16 * KiB
    reader.read(bytes(20 * KiB))
    assert reader.held <= 2 * 21 * KiB
    reader.read(bytes(MAX_SIZE - 4 - 20 * KiB))
    assert reader.held == 0


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\x02", SpFault.NOT_IN_BAND),
        (b"GET / HTTP/1.1", SpFault.NOT_IN_BAND),
        (b"\x01" + (MAX_SIZE + 1).to_bytes(8) + b"\0\0\0\x01", SpFault.TOO_LARGE),
        (b"\x01" + b"\xff" * 8 + b"\0\0\0\x01", SpFault.TOO_LARGE),
        (b"\x01" + (3).to_bytes(8) + b"\0\0\0\x01", SpFault.MALFORMED),
        (b"\x01" + (4).to_bytes(8) + b"\0\0\0\x02", SpFault.MALFORMED),
    ],
)
def test_what_is_no_message_is_refused_for_good(data, fault):
    reader = Reader()
    with pytest.raises(SpError) as caught:
        reader.read(data)
    assert caught.value.fault is fault
    assert reader.held == 0
    with pytest.raises(SpError):
        reader.read(message(b"fine"))
