"""Service keys: what is derived, what their text says, and what they keep to themselves."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from irisd.errors import KeyFileError
from irisd.keys import ServiceKey

SEED = bytes(range(32))
TEXT = """irisd-service-key-v1
# whoever holds this file is trusted by all of the service: keep it secret
service: shop
comment: made for a test
seed: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
check: 030e0e00
"""


def test_derivations_are_hkdf_with_a_label_each() -> None:
    key = ServiceKey("shop", SEED)

    def hkdf(label: bytes, size: int) -> bytes:
        salt = b"irisd service key v1"
        return HKDF(hashes.SHA256(), size, salt, label + b"\x00shop").derive(SEED)

    assert key.link_psk == hkdf(b"link psk", 32)
    assert key.static_private == hkdf(b"federation static", 32)
    assert key.key_id == hkdf(b"key id", 8)
    assert key.discovery_tag == hkdf(b"discovery tag", 16)
    public = X25519PrivateKey.from_private_bytes(key.static_private).public_key().public_bytes_raw()
    assert key.static_public == public


def test_golden_derivations() -> None:
    key = ServiceKey("shop", SEED)
    assert key.key_id_hex == GOLDEN["key id"]
    assert key.discovery_tag.hex() == GOLDEN["discovery tag"]
    assert hashlib.sha256(key.link_psk).hexdigest() == GOLDEN["sha256 of the link psk"]
    assert key.static_public.hex() == GOLDEN["static public"]


GOLDEN = {
    "key id": "d9af8c027c8009ea",
    "discovery tag": "168a797fb3289057ecba5dfd99b8b7a8",
    "sha256 of the link psk": "692c4b50a8cc856cc164043c988d9527790bd1df9c288c8d0958143191b74cdd",
    "static public": "f7aa11fdc331f2c0db01d2110df69efdfd7f857d3b5b46c2cf9c6608ce6c407b",
}


def test_everything_depends_on_the_name_and_differs() -> None:
    one, other = ServiceKey("shop", SEED), ServiceKey("stock", SEED)
    secrets = {
        part[:8]
        for key in (one, other)
        for part in (key.link_psk, key.static_private, key.static_public, key.key_id, key.discovery_tag)
    }
    assert len(secrets) == 10
    assert one != other and one == ServiceKey("shop", SEED) and hash(one) == hash(ServiceKey("shop", SEED))


def test_the_text_is_golden_and_comes_back() -> None:
    key = ServiceKey.generate("shop", SEED)
    assert key.to_text("made for a test") == TEXT
    assert ServiceKey.parse(TEXT) == key
    assert ServiceKey.parse(TEXT.replace("\n", "\r\n")) == key
    assert ServiceKey.parse("\ufeff\n" + TEXT + "\n# more\n") == key
    assert ServiceKey.parse(key.to_text()) == key


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" \n\t\n", "empty"),
        ("# only a comment", "should begin with"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "should begin with 'irisd-service-key-v1'"),
        (TEXT.replace("-v1", "-v2"), "newer irisd"),
        (TEXT.replace("-v1", "-v11"), "newer irisd"),
        (TEXT[: TEXT.index("check")], "no 'check' line"),
        (TEXT[: TEXT.index("seed")], "no 'seed' line"),
        (TEXT.replace("service: shop\n", ""), "no 'service' line"),
        (TEXT.replace("1c1d1e1f", "1c1d1e"), "not 64 hexadecimal digits"),
        (TEXT.replace("1c1d1e1f", "1c1d1e1g"), "not 64 hexadecimal digits"),
        (TEXT.replace("1c1d1e1f", "1c1d1e11"), "check does not fit"),
        (TEXT.replace("030e0e00", "030e0e08"), "check does not fit"),
        (TEXT.replace("030e0e00", "030e"), "not 8 hexadecimal digits"),
        (TEXT.replace("service: shop", "service: stock"), "check does not fit"),
        (TEXT.replace("service: shop", "service: shop\nservice: shop"), "two 'service' lines"),
        (TEXT.replace("comment", "remark"), "none of"),
        (TEXT + "0011223344\n", "none of"),
        (TEXT.replace("service: shop", "service: sh op"), "letters, digits"),
    ],
)
def test_what_is_no_key(text: str, says: str) -> None:
    with pytest.raises(KeyFileError, match=says) as refused:
        ServiceKey.parse(text)
    assert "0001020304" not in str(refused.value), "an error quotes the seed"


@pytest.mark.parametrize("name", ["", "a b", "a..b", ".a", "a.", "a/b", "größe", "_iris", "_iris.x", "x" * 201, "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(KeyFileError):
        ServiceKey(name, SEED)


@pytest.mark.parametrize("name", ["a", "shop", "Shop-2", "a.b_c.D", "_irisx", "x" * 200])
def test_names(name: str) -> None:
    assert ServiceKey.parse(ServiceKey(name, SEED).to_text()).service == name


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_seed_is_32_bytes(size: int) -> None:
    with pytest.raises(KeyFileError, match="32 bytes"):
        ServiceKey.generate("shop", bytes(size))


@pytest.mark.parametrize("comment", ["two\nlines", "x" * 201, "bell\x07"])
def test_comments_that_would_break_the_file(comment: str) -> None:
    with pytest.raises(KeyFileError, match="one line"):
        ServiceKey("shop", SEED).to_text(comment)


def test_nothing_shows_a_secret() -> None:
    key = ServiceKey("shop", SEED)
    shown = f"{key!r} {key} {[key]} {key.__reduce__.__doc__}"
    assert shown.startswith(f"<ServiceKey shop {key.key_id_hex}>")
    for secret in (SEED, key.link_psk, key.static_private):
        assert secret.hex() not in shown and repr(secret) not in shown
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_is_not_copied_by_accident(way: object) -> None:
    with pytest.raises(TypeError, match="to_text"):
        way(ServiceKey("shop", SEED))  # type: ignore[operator]


def test_the_check_is_derived_like_the_rest() -> None:
    extracted = hmac.digest(b"irisd service key v1", SEED, hashlib.sha256)
    expected = hmac.digest(extracted, b"file check\x00shop\x01", hashlib.sha256)[:4]
    assert f"check: {expected.hex()}\n" in ServiceKey("shop", SEED).to_text()
