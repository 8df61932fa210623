from __future__ import annotations

import pytest

from irisd.errors import IrisdError
from irisd.sp import EndpointType, HelloDecoder, SpError, SpFault, encode_hello
from tests.vectors.sp.golden import golden

GOLDEN = golden()


@pytest.mark.parametrize("endpoint", EndpointType)
def test_hello_is_golden_both_ways(endpoint: EndpointType) -> None:
    hello = GOLDEN[f"hello.{endpoint.name}"]
    assert encode_hello(endpoint) == hello
    assert HelloDecoder([endpoint]).feed(hello) == (endpoint, b"")


def test_what_follows_the_hello_is_handed_on() -> None:
    decoder = HelloDecoder([EndpointType.SURVEYOR])
    assert decoder.feed(GOLDEN["hello.SURVEYOR"] + GOLDEN["tcp.hi"]) == (EndpointType.SURVEYOR, GOLDEN["tcp.hi"])


def test_one_byte_at_a_time_is_enough() -> None:
    decoder = HelloDecoder([EndpointType.SURVEYOR, EndpointType.PAIR1])
    hello = GOLDEN["hello.PAIR1"]
    assert [decoder.feed(hello[i : i + 1]) for i in range(7)] == [None] * 7
    assert decoder.feed(b"") is None
    assert decoder.feed(hello[7:] + b"rest") == (EndpointType.PAIR1, b"rest")


@pytest.mark.parametrize(
    ("arrived", "fault", "endpoint"),
    [
        ("47", SpFault.NOT_SP, None),  # G, of GET
        ("00 53 51", SpFault.NOT_SP, None),
        ("00 53 50 01", SpFault.VERSION, None),
        ("00 53 50 00 06", SpFault.WRONG_PEER, None),
        ("00 53 50 00 00 63", SpFault.WRONG_PEER, 0x63),
        ("00 53 50 00 00 ff", SpFault.WRONG_PEER, 0xFF),
        ("00 53 50 00 00 60", SpFault.OBSOLETE, 0x60),
        ("00 53 50 00 00 61", SpFault.OBSOLETE, 0x61),
        ("00 53 50 00 00 62 01", SpFault.RESERVED, 0x62),
        ("00 53 50 00 00 62 00 01", SpFault.RESERVED, 0x62),
    ],
)
def test_a_wrong_hello_is_refused_at_its_first_wrong_byte(arrived: str, fault: SpFault, endpoint: int | None) -> None:
    data = bytes.fromhex(arrived)
    decoder = HelloDecoder([EndpointType.SURVEYOR])
    assert decoder.feed(data[:-1]) is None
    with pytest.raises(SpError) as refused:
        decoder.feed(data[-1:])
    assert (refused.value.fault, refused.value.endpoint) == (fault, endpoint)
    assert isinstance(refused.value, IrisdError)
    assert refused.value.reason == fault.value
    with pytest.raises(SpError):  # and it stays refused
        decoder.feed(b"\x00")


def test_the_refusal_says_who_would_be_welcome() -> None:
    decoder = HelloDecoder([EndpointType.SURVEYOR, EndpointType.PAIR1])
    with pytest.raises(SpError, match="endpoint 0x30, none of PAIR1, SURVEYOR"):
        decoder.feed(GOLDEN["hello.REQ"])


def test_accepting_nobody_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="accepts nobody"):
        HelloDecoder([])
