from __future__ import annotations

import pytest

from irisd.sp import SpError, SpFault, encode_survey_id
from irisd.sp.backtrace import backtrace_size, survey_id_from
from tests.vectors.sp.golden import golden

GOLDEN = golden()


@pytest.mark.parametrize(
    ("name", "size"), [("question", 4), ("answer", 4), ("forwarded", 12), ("tags8", 32), ("tags9", None)]
)
def test_the_stack_ends_with_the_tag_that_has_its_top_bit_set(name: str, size: int | None) -> None:
    assert backtrace_size(GOLDEN[f"survey.{name}"], 8) == size


def test_the_limit_counts_the_survey_id_too() -> None:
    assert backtrace_size(GOLDEN["survey.forwarded"], 3) == 12
    assert backtrace_size(GOLDEN["survey.forwarded"], 2) is None


@pytest.mark.parametrize("name", ["endless", "cut"])
def test_a_stack_without_end_is_malformed(name: str) -> None:
    message = GOLDEN[f"survey.{name}"]
    for length in range(len(message) + 1):
        with pytest.raises(SpError) as refused:
            backtrace_size(message[:length], 8)
        assert refused.value.fault is SpFault.MALFORMED


def test_too_many_tags_are_dropped_before_the_end_is_looked_for() -> None:
    """As nng does: the limit comes first, so a message of tags alone costs eight looks."""
    assert backtrace_size(b"\x00\x00\x00\x01" * 1000, 8) is None


def test_survey_ids_carry_the_top_bit_and_wrap_within_31() -> None:
    assert survey_id_from(7) == 0x8000_0007
    assert survey_id_from(0x7FFF_FFFF) == 0xFFFF_FFFF
    assert survey_id_from(0x8000_0000) == 0x8000_0000
    assert encode_survey_id(0x8000_0007) == bytes.fromhex("80000007")
