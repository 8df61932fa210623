from __future__ import annotations

import pytest

from irisd.sp import EndpointType
from irisd.sp.endpoint import OBSOLETE_ENDPOINTS

PAIRS = [
    (0x10, 0x10),
    (0x11, 0x11),
    (0x20, 0x21),
    (0x30, 0x31),
    (0x50, 0x51),
    (0x62, 0x63),
    (0x70, 0x70),
    (0x640, 0x640),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_each_endpoint_talks_to_its_counterpart_only(one: int, other: int) -> None:
    assert EndpointType(one).peer == other
    assert EndpointType(other).peer == one


def test_the_table_is_whole() -> None:
    assert {number for pair in PAIRS for number in pair} == set(EndpointType)


@pytest.mark.parametrize("number", sorted(OBSOLETE_ENDPOINTS))
def test_the_survey_without_backtrace_does_not_exist(number: int) -> None:
    assert number in (0x60, 0x61)
    with pytest.raises(ValueError):
        EndpointType(number)
