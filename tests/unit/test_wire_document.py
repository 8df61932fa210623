"""docs/wire.md shows real bytes: what the code produces today is what stands there."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from irisd.keys import ServiceKey
from irisd.link.handshake import Greeting, Initiator, PskCredentials, Purpose, Responder
from irisd.membership import Known, View
from irisd.membership.rounds import Beat, encode_answer, encode_question
from irisd.model import FEATURES, MEMBERSHIP, TRACES, Claim, Frame, Kind, NodeRecord, Pattern, State
from irisd.sp import EndpointType, Framing, SpStream
from irisd.status import TraceCandidate, TraceHop
from irisd.wire import (
    Belief,
    Held,
    Saying,
    decode_hop,
    encode_beliefs,
    encode_claims,
    encode_frame,
    encode_parts,
    encode_record,
    encode_view,
)

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


NODES = {name: bytes.fromhex(name) * 16 for name in ("0a", "0b", "0c")}


def test_heartbeats():
    beat = Beat(3, 2, int.from_bytes(bytes(range(16))))
    assert is_shown(encode_question(1.0, 7, beat))
    assert is_shown(encode_answer(7, beat, None))


def test_records():
    claim = Claim(2, cluster="databases", patterns=Pattern.REQUEST)
    about = NodeRecord(NODES["0a"], 1, "a", release="1.0", addresses=("10.0.0.1:7511",))
    assert is_shown(b"".join(encode_record([claim], about=about)))
    gone = Claim(0, cluster="databases")
    assert is_shown(b"".join(encode_record([gone], base=6, node=NODES["0b"])))


def test_what_nodes_say_of_each_other():
    beliefs = [
        Belief(NODES["0a"], 1, Saying.HEARD, 0.25),
        Belief(NODES["0b"], 2, Saying.DEAD),
        Belief(NODES["0c"], 1, Saying.ASK, 1.5),
    ]
    assert is_shown(b"".join(encode_beliefs(beliefs)))
    assert is_shown(b"".join(encode_view([Held(NODES["0a"], 1, 7)], [0, 10])))


def test_digest():
    view = View(NodeRecord(NODES["0a"]), 7, 0.0)
    view.enter(Known(NodeRecord(NODES["0b"]), 0, State.ALIVE, 0.0, NODES["0a"]))
    assert is_shown(view.digest.to_bytes(16))


def test_what_a_node_says_of_a_choice():
    [shown] = re.findall(r"^```\n(\{.*?\})\n```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    name = "app@oak/0a0a.1"
    candidate = TraceCandidate(name, slots=8, busy=2.0, pace=0.005, chosen=True)
    assert decode_hop(shown.encode()) == TraceHop(
        "oak",
        "0a0a",
        "members",
        policy="p2c",
        because="nobody asks for another",
        candidates=(candidate,),
        count=1,
        chosen=name,
        why="there is no other choice",
        outcome="handed",
        detail=f"{name} would have it at once",
    )


def test_kinds_features_and_sayings_are_those_of_the_code():
    text = DOCUMENT.read_text()
    for kind in Kind:
        assert kind < 64 or f"| {kind.name} | {int(kind)} |" in text
    for saying in Saying:
        assert f"\n| {int(saying)} | " in text
    assert f"bits: {MEMBERSHIP} `MEMBERSHIP`, {TRACES} `TRACES`." in text
    assert FEATURES == MEMBERSHIP | TRACES
