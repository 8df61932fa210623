"""docs/wire.md shows real bytes: what the code produces today is what stands there."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from irisd.keys import ServiceKey
from irisd.link.handshake import Greeting, Initiator, PskCredentials, Purpose, Responder
from irisd.model import Claim, Frame, Kind, Pattern
from irisd.sp import EndpointType, Framing, SpStream
from irisd.wire import encode_claims, encode_frame, encode_parts

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "wire.md"

# Hexadecimal at the start of a line, in groups; a word that is not hexadecimal ends it.
_HEX = re.compile(r"^\s*((?:[0-9a-f]{2})+(?: (?:[0-9a-f]{2})+)*)", re.MULTILINE)


def shown() -> list[str]:
    """The hexadecimal of each fenced block, without spaces and remarks."""
    blocks = re.findall(r"^```\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return ["".join(_HEX.findall(block)).replace(" ", "") for block in blocks]


def is_shown(data: bytes) -> bool:
    return data.hex() in shown()


def conversation():
    key = ServiceKey("shop", bytes(range(32)))
    credentials = PskCredentials(key.link_psk)
    a, b = Greeting(b"\x0a" * 16, 1, "a"), Greeting(b"\x0b" * 16, 1, "b")
    initiator = Initiator(Purpose.CONTROL, key.key_id, credentials, a, b"\x11" * 32)
    responder = Responder(lambda key_id: credentials if key_id == key.key_id else None)
    responder.feed(initiator.first)
    answer, _ = responder.answer(None, b, b"\x22" * 32)
    found = initiator.feed(answer)
    assert found is not None
    return key, initiator.first, answer, found[1]


def test_handshake():
    key, first, answer, session = conversation()
    assert f"Key id `{key.key_id.hex()}`" in DOCUMENT.read_text()
    assert is_shown(first)
    assert is_shown(answer)
    assert is_shown(session.handshake_hash)


def test_first_records():
    session = conversation()[3]
    assert is_shown(b"".join(session.seal_settle(1)))


def test_request_as_an_sp_message():
    frame = Frame(
        Kind.REQUEST, id=1, address="databases", remaining_ms=5000, hops=1, member="app@a/0a0a0a.1", body=b"hi"
    )
    stream = SpStream(EndpointType.PAIR1, Framing.TCP, max_size=1 << 20)
    message = b"".join(map(bytes, stream.encoder.encode(*encode_parts(frame))))
    assert is_shown(stream.data_to_send() + message)


def test_claims():
    claims = [
        Claim(2, cluster="databases", patterns=Pattern.REQUEST),
        Claim(1, topic="orders.*", group="billing"),
    ]
    assert is_shown(b"".join(encode_claims(claims)))


def test_publish():
    sizes = struct.pack("<2I", 2, 3)
    assert is_shown(encode_frame(Frame(Kind.PUBLISH, address="orders.new", sizes=sizes, seq=7, body=b"hiyou")))
