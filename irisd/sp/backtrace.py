"""The backtrace: how an answer finds its way home.

A question carries a stack of u32 tags, big-endian, before its body::

    channel id   bit 31 clear   zero or more, one per forwarder, the last one first
    survey id    bit 31 set     ends the stack

Whoever answers sends the whole stack back, unread, before its answer. Each
forwarder takes its own tag off again, so the asker finds exactly its survey id.
"""

from __future__ import annotations

from typing import Final

from irisd.sp.errors import SpError, SpFault

TAG_SIZE: Final = 4
SURVEY_BIT: Final = 0x8000_0000
"""Marks the tag that ends a stack."""


def survey_id_from(number: int) -> int:
    """Return the survey id for any number: its low 31 bits, with the top bit set."""
    return SURVEY_BIT | (number & (SURVEY_BIT - 1))


def encode_survey_id(survey_id: int) -> bytes:
    """Return the header of a question as its asker sends it."""
    return survey_id.to_bytes(TAG_SIZE)


def backtrace_size(message: bytes, hop_limit: int) -> int | None:
    """Measure the stack in front of a message, in bytes.

    Looks at no more than ``hop_limit`` tags, so a message made of tags alone
    costs nothing.

    Returns:
        ``None`` if the stack holds more than ``hop_limit`` tags, the survey id
        included: the message goes round in circles and is to be dropped.

    Raises:
        SpError: ``MALFORMED``, the message ends before its stack does.
    """
    for end in range(TAG_SIZE, (hop_limit + 1) * TAG_SIZE, TAG_SIZE):
        if len(message) < end:
            raise SpError(SpFault.MALFORMED, "the message ends before its backtrace does", size=len(message))
        if message[end - TAG_SIZE] & 0x80:  # the tag's top bit
            return end
    return None
