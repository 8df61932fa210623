"""The TXT record, byte by byte."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irisd.config import Address
from irisd.discovery.announcement import (
    MAX_ADDRESSES,
    MAX_TEXT_BYTES,
    Announcement,
    MalformedAnnouncement,
    OtherVersion,
    may_match,
    needles_of,
    parse_announcement,
)

ID = bytes(range(16))
TAG, OTHER = b"\x11" * 16, b"\x22" * 16
HOST = Address("192.0.2.7", 7511)
BYTES = (
    b"\x03v=1"
    b"\x23id=000102030405060708090a0b0c0d0e0f"
    b"\x23k0=11111111111111111111111111111111"
    b"\x23k1=22222222222222222222222222222222"
    b"\x11a0=192.0.2.7:7511"
    b"\x0fa1=[2001:db8::7]:7511"
).replace(b"\x0fa1", b"\x15a1")


def strings(*texts: str) -> bytes:
    return b"".join(bytes((len(text.encode()),)) + text.encode() for text in texts)


def test_bytes_are_golden():
    said = Announcement(ID, (TAG, OTHER), (HOST, Address("2001:db8::7", 7511)))
    assert said.encode() == BYTES
    assert parse_announcement(BYTES) == said


def test_what_is_unknown_is_passed_over_and_the_first_of_two_counts():
    data = BYTES + strings("z=9", "flag", "", "a0=203.0.113.1:1", "V=2")
    assert parse_announcement(data) == parse_announcement(BYTES)


def test_addresses_that_do_not_fit_are_left_out():
    names = tuple(Address("h" * 200 + f".example{n}", 7511) for n in range(20))
    data = Announcement(ID, (TAG,) * 8, names).encode()
    assert len(data) <= MAX_TEXT_BYTES
    assert parse_announcement(data).addresses == names[: len(parse_announcement(data).addresses)]
    many = tuple(Address(f"192.0.2.{n}", 7511) for n in range(40))
    assert parse_announcement(Announcement(ID, (TAG,), many).encode()).addresses == many[:MAX_ADDRESSES]


def good(**changes: str) -> bytes:
    fields = {"v": "1", "id": ID.hex(), "k0": TAG.hex(), "a0": "192.0.2.7:7511"} | changes
    return strings(*(f"{key}={value}" for key, value in fields.items() if value != "-"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no version"),
        (b"\x00", "no version"),
        (good(v="-"), "no version"),
        (good(v="x"), "no version"),
        (good(v="99999"), "no version"),
        (good(id="-"), "node id is 16"),
        (good(id="00" * 15), "node id is 16"),
        (good(id="zz" * 16), "hexadecimal"),
        (good(id="é" * 8 + "00" * 8), "hexadecimal"),
        (good(id="00" * 16), "zero"),
        (good(k0="-"), "no tag"),
        (good(k0="11"), "tag is 16"),
        (good(a0="-"), "no address"),
        (good(a0="192.0.2.7"), "host:port"),
        (good(a0="192.0.2.7:0"), "port 0"),
        (good(a0="192.0.2.7:70000"), "host:port"),
        (good(a0="224.0.0.251:5353"), "of a host"),
        (good(a0="0.0.0.0:7511"), "of a host"),
        (good(a0="255.255.255.255:7"), "of a host"),
        (good(a0="[fe80::1%eth0]:7511"), "of a host"),
        (good(a0="[ff02::1]:7511"), "of a host"),
        (good(a0="bad host:1"), "host:port"),
        (BYTES[:-1], "cut short"),
        (BYTES + b"\xff", "cut short"),
        (strings(*["x=" + "y" * 200] * 8), "longer"),
    ],
)
def test_malformed_ones_say_why(data, why):
    with pytest.raises(MalformedAnnouncement, match=why):
        parse_announcement(data)


def test_another_version_is_told_apart():
    with pytest.raises(OtherVersion, match="version 2, this one is 1"):
        parse_announcement(good(v="2"))


def test_every_truncation_is_a_value_or_malformed():
    for end in range(len(BYTES)):
        try:
            parse_announcement(BYTES[:end])
        except MalformedAnnouncement:
            continue


@given(st.binary(max_size=400))
def test_nonsense_is_malformed(data):
    with contextlib.suppress(MalformedAnnouncement):
        parse_announcement(data)


def test_a_look_tells_whether_it_may_be_ours():
    assert may_match(BYTES, needles_of((OTHER,)))
    assert not may_match(BYTES, needles_of((b"\x33" * 16,)))
    assert not may_match(b"", needles_of((TAG,)))
