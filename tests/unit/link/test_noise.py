"""Noise against the public vectors and against a second implementation."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from irisd.link.noise import CipherState, HandshakeState, NoiseError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/noise/cacophony.json").read_text())["vectors"]
LOW_ORDER_POINTS = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def from_vector(vector: dict[str, Any], side: str) -> HandshakeState:
    keys: dict[str, bytes] = {}
    if f"{side}_psks" in vector:
        keys["psk"] = bytes.fromhex(vector[f"{side}_psks"][0])
    if f"{side}_static" in vector:
        keys["static_private"] = bytes.fromhex(vector[f"{side}_static"])
        keys["remote_static"] = bytes.fromhex(vector[f"{side}_remote_static"])
    return HandshakeState(
        vector["protocol_name"].split("_")[1],
        initiator=side == "init",
        prologue=bytes.fromhex(vector[f"{side}_prologue"]),
        ephemeral=bytes.fromhex(vector[f"{side}_ephemeral"]),
        **keys,
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["protocol_name"]))
def test_public_vectors(vector: dict[str, Any]) -> None:
    initiator, responder = from_vector(vector, "init"), from_vector(vector, "resp")
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    for (payload, ciphertext), writer, reader in (
        (messages[0], initiator, responder),
        (messages[1], responder, initiator),
    ):
        before = reader.handshake_hash
        assert writer.write_message(payload) == ciphertext
        assert reader.read_message(ciphertext) == payload
    assert before == bytes.fromhex(vector["handshake_hash"])  # of the transcript before the last message
    assert initiator.finished and responder.finished
    assert initiator.handshake_hash == responder.handshake_hash
    ours, theirs = initiator.split(), responder.split()
    for number, (payload, ciphertext) in enumerate(messages[2:]):
        sender, receiver = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        assert sender[0].encrypt(payload) == ciphertext
        assert receiver[1].decrypt(ciphertext) == payload


def second_implementation(pattern: str, initiator: bool, prologue: bytes, keys: dict[str, bytes]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from noise.connection import Keypair, NoiseConnection

        other = NoiseConnection.from_name(f"Noise_{pattern}_25519_AESGCM_SHA256".encode())
    if initiator:
        other.set_as_initiator()
    else:
        other.set_as_responder()
    other.set_prologue(prologue)
    if "psk" in keys:
        other.set_psks(keys["psk"])
    if "static_private" in keys:
        other.set_keypair_from_private_bytes(Keypair.STATIC, keys["static_private"])
        other.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, keys["remote_static"])
    other.start_handshake()
    return other


@pytest.mark.parametrize("pattern", ["NN", "NNpsk0", "KK"])
@pytest.mark.parametrize("initiator", [True, False])
def test_talks_to_a_second_implementation(pattern: str, initiator: bool) -> None:
    ours: dict[str, bytes] = {}
    theirs: dict[str, bytes] = {}
    if pattern == "NNpsk0":
        ours = theirs = {"psk": bytes(range(32))}
    if pattern == "KK":
        one, two = (X25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
        ours = {"static_private": bytes([1]) * 32, "remote_static": two.public_key().public_bytes_raw()}
        theirs = {"static_private": bytes([2]) * 32, "remote_static": one.public_key().public_bytes_raw()}
    state = HandshakeState(pattern, initiator=initiator, prologue=b"irisd", ephemeral=bytes([9]) * 32, **ours)
    other = second_implementation(pattern, not initiator, b"irisd", theirs)
    if initiator:
        assert other.read_message(state.write_message(b"first")) == b"first"
        assert state.read_message(bytes(other.write_message(b"second"))) == b"second"
    else:
        assert state.read_message(bytes(other.write_message(b"first"))) == b"first"
        assert other.read_message(state.write_message(b"second")) == b"second"
    assert state.handshake_hash == other.get_handshake_hash()
    send, receive = state.split()
    assert other.decrypt(send.encrypt(b"ping")) == b"ping"
    assert receive.decrypt(bytes(other.encrypt(b"pong"))) == b"pong"
    # REKEY too: ours for one direction is theirs for the other.
    send.rekey()
    other.rekey_inbound_cipher()
    assert other.decrypt(send.encrypt(b"after the rekey")) == b"after the rekey"
    receive.rekey()
    other.rekey_outbound_cipher()
    assert receive.decrypt(bytes(other.encrypt(b"and back"))) == b"and back"


def pair(psk: bytes = b"\x05" * 32, prologue: bytes = b"p") -> tuple[HandshakeState, HandshakeState]:
    return (
        HandshakeState("NNpsk0", initiator=True, prologue=b"p", ephemeral=b"\x01" * 32, psk=b"\x05" * 32),
        HandshakeState("NNpsk0", initiator=False, prologue=prologue, ephemeral=b"\x02" * 32, psk=psk),
    )


def test_another_psk_or_prologue_does_not_open() -> None:
    for initiator, responder in (pair(psk=b"\x06" * 32), pair(prologue=b"q")):
        with pytest.raises(NoiseError) as refused:
            responder.read_message(initiator.write_message(b"payload"))
        assert refused.value.reason == "noise-tag"


@pytest.mark.parametrize("point", LOW_ORDER_POINTS, ids=lambda point: bytes(point).hex()[:8])
def test_a_point_of_low_order_fails(point: bytes) -> None:
    # NN has no psk in the way: whoever sends the point needs no secret.
    responder = HandshakeState("NN", initiator=False, prologue=b"", ephemeral=b"\x02" * 32)
    responder.read_message(point)
    with pytest.raises(NoiseError) as refused:
        responder.write_message(b"")
    assert refused.value.reason == "noise-dh"
    static = HandshakeState(
        "KK", initiator=True, prologue=b"", ephemeral=b"\x03" * 32, static_private=b"\x04" * 32, remote_static=point
    )
    with pytest.raises(NoiseError):
        static.write_message(b"")


@pytest.mark.parametrize("size", [0, 1, 31, 32, 47, 65_536])
def test_sizes_that_cannot_be(size: int) -> None:
    _, responder = pair()
    with pytest.raises(NoiseError) as refused:
        responder.read_message(bytes(size))
    assert refused.value.reason == "noise-size"


def test_every_flipped_bit_is_noticed() -> None:
    first = pair()[0].write_message(b"payload")
    for index in range(len(first)):
        broken = bytearray(first)
        broken[index] ^= 1
        with pytest.raises(NoiseError):
            pair()[1].read_message(bytes(broken))


def test_a_failed_message_does_not_move_the_counter() -> None:
    sender, receiver = CipherState(b"\x01" * 32), CipherState(b"\x01" * 32)
    sealed = sender.encrypt(b"data")
    with pytest.raises(NoiseError):
        receiver.decrypt(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    assert receiver.nonce == 0
    assert receiver.decrypt(sealed) == b"data"


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("NN", {"psk": bytes(32)}),
        ("NNpsk0", {}),
        ("KK", {}),
        ("NN", {"static_private": bytes(32), "remote_static": bytes(32)}),
    ],
)
def test_keys_that_do_not_fit_the_pattern(pattern: str, keys: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match=pattern):
        HandshakeState(pattern, initiator=True, prologue=b"", ephemeral=bytes([1]) * 32, **keys)
