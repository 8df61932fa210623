"""The SDK's own framing of the local lane: literal bytes, any split, bounded."""

from __future__ import annotations

import pytest

from iris_client._frames import ProtocolError
from iris_client._sp import HELLO, READ_BYTES, Inbox, prefix

MAX_SIZE = 4 * READ_BYTES


def message(body: bytes) -> bytes:
    return prefix(len(body)) + body


class Reader:
    def __init__(self) -> None:
        self.inbox = Inbox(MAX_SIZE)

    def read(self, data: bytes) -> list[bytes]:
        found: list[bytes] = []
        while data:
            space = self.inbox.space()
            assert len(space) <= 2 * MAX_SIZE
            count = min(len(space), len(data))
            space[:count] = data[:count]
            self.inbox.filled(count)
            data = data[count:]
            while (body := self.inbox.next()) is not None:
                found.append(bytes(body))
        return found


def test_the_bytes():
    assert bytes.fromhex("00 53 50 00 00 11 00 00") == HELLO
    assert prefix(3) == bytes.fromhex("01 00000000 00000007 00000001")


def test_it_speaks_what_the_daemon_speaks():
    from irisd.sp import EndpointType, Framing, SpStream

    stream = SpStream(EndpointType.PAIR1, Framing.IPC)
    assert stream.data_to_send() == HELLO
    assert stream.receive(HELLO + message(b"x")) == [b"x"]
    assert Reader().read(b"".join(bytes(part) for part in stream.send(b"y"))) == [b"y"]


@pytest.mark.parametrize("size", [0, 1, 5000, READ_BYTES - 13, READ_BYTES, READ_BYTES + 1, MAX_SIZE])
def test_every_split(size):
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    data = message(b"before") + message(body) + message(b"after")
    for cut in sorted({*range(1, 50), len(data) - 30, len(data) - 1, len(data) // 2}):
        if cut < len(data):
            reader = Reader()
            assert reader.read(data[:cut]) + reader.read(data[cut:]) == [b"before", body, b"after"]


def test_byte_by_byte():
    reader = Reader()
    assert [body for byte in message(b"x" * 500) for body in reader.read(bytes([byte]))] == [b"x" * 500]


def test_room_is_given_back_after_a_large_message():
    reader = Reader()
    reader.read(message(bytes(MAX_SIZE)))
    assert len(reader.inbox.space()) == READ_BYTES


def test_a_large_message_is_not_made_room_for_before_it_comes():
    reader = Reader()
    reader.read(message(bytes(MAX_SIZE))[:100])
    assert len(reader.inbox.space()) <= READ_BYTES


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"\x00", "type 0"),
        (b"\x02" + bytes(12), "type 2"),
        (prefix(MAX_SIZE + 1), "limit"),
        (b"\x01" + b"\xff" * 8 + b"\0\0\0\x01", "limit"),
        (b"\x01" + (3).to_bytes(8, "big") + b"\0\0\0\x01", "3 bytes"),
        (b"\x01" + (4).to_bytes(8, "big") + b"\0\0\0\x02", "2 hops"),
    ],
)
def test_what_is_no_message_is_refused(data, rule):
    with pytest.raises(ProtocolError, match=rule):
        Reader().read(data)
