from __future__ import annotations

import pytest

from irisd.sp import FIRST_HOP, SpError, SpFault, split_pair1
from irisd.sp.pair1 import check_hop_limit


def test_an_endpoint_sends_hop_one() -> None:
    assert bytes.fromhex("00000001") == FIRST_HOP
    assert split_pair1(FIRST_HOP + b"hi") == b"hi"
    assert split_pair1(FIRST_HOP) == b""


@pytest.mark.parametrize(
    ("header", "hop_limit", "is_kept"),
    [
        ("00000000", 1, True),
        ("00000008", 8, True),
        ("00000009", 8, False),
        ("0000000f", 15, True),
        ("00000100", 15, False),  # more hops than SP allows to be counted
        ("ffffffff", 15, False),
    ],
)
def test_a_message_that_made_too_many_hops_is_dropped(header: str, hop_limit: int, is_kept: bool) -> None:
    assert split_pair1(bytes.fromhex(header) + b"hi", hop_limit) == (b"hi" if is_kept else None)


@pytest.mark.parametrize("message", [b"", b"\x00\x00\x01"])
def test_no_room_for_the_header_is_malformed(message: bytes) -> None:
    with pytest.raises(SpError) as refused:
        split_pair1(message)
    assert refused.value.fault is SpFault.MALFORMED


@pytest.mark.parametrize("hop_limit", [0, 16, -1])
def test_a_hop_limit_stays_inside_what_nng_allows(hop_limit: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 15"):
        check_hop_limit(hop_limit)
