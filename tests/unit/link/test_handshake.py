"""The handshake: literal bytes, verdicts, and everything that is refused."""

from __future__ import annotations

import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from irisd.link.handshake import (
    NOBODY,
    Credentials,
    Greeting,
    Initiator,
    PinnedCredentials,
    PskCredentials,
    Purpose,
    Refused,
    Responder,
    refusal,
)
from irisd.link.noise import HandshakeState
from irisd.link.outcome import CODES, Outcome
from irisd.link.session import Received, Session

KEY_ID = b"KEYIDKEY"
PSK = PskCredentials(b"\x05" * 32)
ONE = Greeting(b"\x01" * 16, 1, "one")
TWO = Greeting(b"\x02" * 16, 7, "zwei", features=3)


def initiator(
    credentials: Credentials = PSK, greeting: Greeting = ONE, purpose: Purpose = Purpose.CONTROL
) -> Initiator:
    return Initiator(purpose, KEY_ID, credentials, greeting, b"\x11" * 32)


def responder(credentials: Credentials | None = PSK) -> Responder:
    return Responder(lambda key_id: credentials if key_id == KEY_ID else None)


def shake(one: Initiator, two: Responder, verdict: Outcome | None = None) -> tuple[Session, Session]:
    greeting = two.feed(one.first)
    assert greeting is not None
    reply, theirs = two.answer(verdict, TWO, b"\x22" * 32)
    answer = one.feed(reply)
    assert answer is not None and theirs is not None
    return answer[1], theirs


def test_the_first_flight_is_golden() -> None:
    first = initiator().first
    assert first[:18] == b"IRIS\x01\x01\x00\x00KEYIDKEY" + struct.pack(">H", len(first) - 18)
    # The message opens with nothing but the key and the preamble as prologue.
    state = HandshakeState("NNpsk0", initiator=False, prologue=first[:16], psk=b"\x05" * 32)
    assert state.read_message(first[18:]) == bytes.fromhex(
        "01" * 16 + "00" * 16 + "0000000000000001" + "00000000" + "00" * 16 + "03" + "6f6e65"
    )


def test_both_sides_learn_who_the_other_is() -> None:
    one, two = initiator(), responder()
    assert two.feed(one.first) == ONE
    assert two.purpose is Purpose.CONTROL and two.key_id == KEY_ID
    reply, theirs = two.answer(None, TWO, b"\x22" * 32)
    assert reply[:6] == b"iris\x01\x00"
    answer = one.feed(reply)
    assert answer is not None and theirs is not None
    peer, ours = answer
    assert peer == TWO
    assert ours.handshake_hash == theirs.handshake_hash and len(ours.handshake_hash) == 32
    received: list[Received] = []
    theirs.open(memoryview(b"".join(ours.seal([b"hello"]))), received)
    assert received == [b"hello"]


def test_byte_by_byte() -> None:
    one, two = initiator(purpose=Purpose.DATA), responder()
    for byte in one.first[:-1]:
        assert two.feed(bytes([byte])) is None
    assert two.feed(one.first[-1:]) == ONE
    reply, _ = two.answer(None, TWO, b"\x22" * 32)
    for byte in reply[:-1]:
        assert one.feed(bytes([byte])) is None
    assert one.feed(reply[-1:]) is not None
    assert two.purpose is Purpose.DATA


@pytest.mark.parametrize("verdict", [Outcome.SELF, Outcome.MISROUTED, Outcome.UNBOUND, Outcome.STOPPING])
def test_a_sealed_verdict(verdict: Outcome) -> None:
    one, two = initiator(), responder()
    two.feed(one.first)
    reply, session = two.answer(verdict, TWO, b"\x22" * 32)
    assert session is None
    with pytest.raises(Refused) as refused:
        one.feed(reply)
    assert refused.value.outcome is verdict and refused.value.by_peer
    assert "zwei" in refused.value.detail


def test_an_unexpected_answer() -> None:
    expecting = Greeting(b"\x01" * 16, 1, "one", expected=b"\x09" * 16)
    for greeting, outcome in ((expecting, Outcome.MISROUTED), (Greeting(TWO.node_id, 1, "me"), Outcome.SELF)):
        one, two = initiator(greeting=greeting), responder()
        two.feed(one.first)
        reply, _ = two.answer(None, TWO, b"\x22" * 32)
        with pytest.raises(Refused) as refused:
            one.feed(reply)
        assert refused.value.outcome is outcome and not refused.value.by_peer


@pytest.mark.parametrize(
    ("sent", "outcome", "reply"),
    [
        (b"G", Outcome.BAD_PREAMBLE, b""),
        (b"IRIs", Outcome.BAD_PREAMBLE, b""),
        (b"IRIS\x00", Outcome.WRONG_VERSION, b"iris\x01\x01\x00\x00"),
        (b"IRIS\x02", Outcome.WRONG_VERSION, b"iris\x01\x01\x00\x00"),
        (b"IRIS\x01\x00\x00\x00KEYIDKEY", Outcome.BAD_PREAMBLE, b""),
        (b"IRIS\x01\x03\x00\x00KEYIDKEY", Outcome.BAD_PREAMBLE, b""),
        (b"IRIS\x01\x01\x01\x00KEYIDKEY", Outcome.BAD_PREAMBLE, b""),
        (b"IRIS\x01\x01\x00\x00KEYIDKEY\x04\x01", Outcome.BAD_PREAMBLE, b""),
        (b"IRIS\x01\x01\x00\x00KEYIDKEY\x00\x20", Outcome.BAD_PREAMBLE, b""),
        (b"IRIS\x01\x01\x00\x00KEYIDKEY\x00\x80" + bytes(128), Outcome.WRONG_KEY, b"iris\x01\x02\x00\x00"),
        (b"IRIS\x01\x01\x00\x00another!\x00\x80" + bytes(128), Outcome.WRONG_KEY, b"iris\x01\x02\x00\x00"),
    ],
)
def test_what_a_listener_refuses(sent: bytes, outcome: Outcome, reply: bytes) -> None:
    with pytest.raises(Refused) as refused:
        assert responder().feed(sent) is None
    assert (refused.value.outcome, refused.value.reply) == (outcome, reply)


@pytest.mark.parametrize(
    ("answer", "outcome", "by_peer"),
    [
        (b"H", Outcome.BAD_PREAMBLE, False),
        (b"IRIS", Outcome.BAD_PREAMBLE, False),
        (b"iris\x02\x00\x00\x80", Outcome.WRONG_VERSION, False),
        (refusal(Outcome.WRONG_VERSION), Outcome.WRONG_VERSION, True),
        (refusal(Outcome.WRONG_KEY), Outcome.WRONG_KEY, True),
        (refusal(Outcome.OVERLOADED), Outcome.OVERLOADED, True),
        (b"iris\x01\xff\x00\x00", Outcome.VIOLATION, True),
        (b"iris\x01\x00\x00\x20", Outcome.BAD_PREAMBLE, False),
        (b"iris\x01\x00\x04\x01", Outcome.BAD_PREAMBLE, False),
        (b"iris\x01\x00\x00\x80" + bytes(range(128)), Outcome.WRONG_KEY, False),
    ],
)
def test_what_a_dialler_refuses(answer: bytes, outcome: Outcome, by_peer: bool) -> None:
    with pytest.raises(Refused) as refused:
        assert initiator().feed(answer) is None
    assert (refused.value.outcome, refused.value.by_peer) == (outcome, by_peer)
    assert refused.value.reply == b""


def test_bytes_that_come_too_early() -> None:
    one, two = initiator(), responder()
    with pytest.raises(Refused, match="before the handshake is done"):
        responder().feed(one.first + b"x")
    two.feed(one.first)
    reply, _ = two.answer(None, TWO, b"\x22" * 32)
    with pytest.raises(Refused, match="did not ask for"):
        one.feed(reply + b"x")


def test_the_preamble_is_part_of_what_is_sealed() -> None:
    first = bytearray(initiator().first)
    first[5] = Purpose.DATA  # an attacker makes a control connection of it
    with pytest.raises(Refused) as refused:
        responder().feed(bytes(first))
    assert refused.value.outcome is Outcome.WRONG_KEY


def test_a_point_of_low_order_from_a_holder_of_the_key() -> None:
    state = HandshakeState("NNpsk0", initiator=True, prologue=b"", ephemeral=b"\x11" * 32, psk=b"\x05" * 32)
    preamble = initiator().first[:16]
    state = HandshakeState("NNpsk0", initiator=True, prologue=preamble, ephemeral=b"\x11" * 32, psk=b"\x05" * 32)
    # Written as the specification says, but for the point.
    symmetric = state._symmetric
    symmetric.mix_key_and_hash(b"\x05" * 32)
    point = bytes(32)
    symmetric.mix_hash(point)
    symmetric.mix_key(point)
    message = point + symmetric.encrypt_and_hash(ONE.encode())
    two = responder()
    assert two.feed(preamble + struct.pack(">H", len(message)) + message) == ONE
    with pytest.raises(Refused) as refused:
        two.answer(None, TWO, b"\x22" * 32)
    assert refused.value.outcome is Outcome.TAMPERED


def test_federated_services_pin_each_other() -> None:
    privates = [b"\x31" * 32, b"\x32" * 32]
    publics = [X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw() for key in privates]
    ours = PinnedCredentials(privates[0], publics[0], publics[1])
    theirs = PinnedCredentials(privates[1], publics[1], publics[0])
    assert len({session.handshake_hash for session in shake(initiator(ours), responder(theirs))}) == 1
    with pytest.raises(Refused) as refused:  # somebody else's key
        responder(PinnedCredentials(privates[1], publics[1], publics[1][::-1])).feed(initiator(ours).first)
    assert refused.value.outcome is Outcome.WRONG_KEY
    with pytest.raises(ValueError, match="must differ"):
        PinnedCredentials(privates[0], publics[0], publics[0])


def test_credentials_show_no_secret() -> None:
    public = bytes(range(64, 96))[::-1]
    shown = repr(PSK) + repr(PinnedCredentials(b"\x44" * 32, public, public[::-1]))
    assert "\\x05" not in shown and "DD" not in shown


def test_a_greeting_of_a_later_version_is_understood() -> None:
    longer = TWO.encode() + b"what version 2 adds"
    assert Greeting.decode(longer) == TWO


def test_names_are_cut_at_255_bytes_between_letters() -> None:
    long = Greeting(b"\x01" * 16, 1, "ä" * 200)
    assert Greeting.decode(long.encode()).name == "ä" * 127


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ONE.encode()[:-4],
        ONE.encode()[:-1],
        Greeting(NOBODY, 1, "nobody").encode(),
        Greeting(b"\x01" * 16, 0, "no incarnation").encode(),
        ONE.encode()[:-3] + b"\xff\xfe\xfd",
        Greeting(b"\x01" * 16, 1, "a\x1b[31m").encode(),
        Greeting(b"\x01" * 16, 1, "a\nb").encode(),
    ],
)
def test_greetings_that_cannot_be(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        Greeting.decode(data)
    assert refused.value.outcome is Outcome.VIOLATION


def test_codes_on_the_wire_never_change() -> None:
    assert {outcome.value: code for outcome, code in CODES.items()} == {
        "closed": 0,
        "wrong-version": 1,
        "wrong-key": 2,
        "overloaded": 3,
        "timeout": 4,
        "self": 5,
        "misrouted": 6,
        "unbound": 7,
        "duplicate": 8,
        "replaced": 9,
        "tampered": 10,
        "broken": 11,
        "silent": 12,
        "violation": 13,
        "exhausted": 14,
        "stopping": 15,
        "idle": 16,
    }
