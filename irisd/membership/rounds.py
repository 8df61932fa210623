"""Heartbeats on the wire (pure): what a question and an answer of a survey say.

Over the control connection of a link the side that dialled is the SURVEYOR,
the other the RESPONDENT. Big-endian::

    question:  u8 1 | u32 interval in ms | u64 round  | u64 incarnation | u8 health | 16s digest
    answer:    u8 1 | u64 round                       | u64 incarnation | u8 health | 16s digest | 256 x u32 buckets

The first release says only what stands before the gap. The buckets come when
the digests differ, and only then. What follows belongs to later releases and
is ignored.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from irisd.errors import WireError
from irisd.wire.views import BUCKETS

MIN_INTERVAL: Final = 0.01
MAX_INTERVAL: Final = 3600.0

_VERSION: Final = 1
_QUESTION: Final = struct.Struct(">BIQ")
_ANSWER: Final = struct.Struct(">BQ")
_MORE: Final = struct.Struct(">QB16s")
_BUCKETS: Final = struct.Struct(f">{BUCKETS}I")


class Beat(NamedTuple):
    """What the sender says of itself and its view."""

    incarnation: int
    health: int
    digest: int


class Question(NamedTuple):
    """A question of a round."""

    interval: float
    round: int
    beat: Beat | None
    """None: the sender is of the first release."""


class Answer(NamedTuple):
    """An answer to one."""

    round: int
    beat: Beat | None
    buckets: tuple[int, ...] | None
    """The sender's, if its digest differs from the question's."""


def encode_question(interval: float, number: int, beat: Beat) -> bytes:
    """Encode a question."""
    return _QUESTION.pack(_VERSION, max(1, round(interval * 1000)), number) + _encode_beat(beat)


def decode_question(body: bytes) -> Question:
    """Decode a question.

    Raises:
        WireError: It is none.
    """
    if len(body) < _QUESTION.size or body[0] != _VERSION:
        raise WireError("survey", "a question that is not a heartbeat")
    _, interval_ms, number = _QUESTION.unpack_from(body)
    if not MIN_INTERVAL * 1000 <= interval_ms <= MAX_INTERVAL * 1000:
        raise WireError("survey", f"an interval of {interval_ms} ms")
    return Question(interval_ms / 1000, number, _decode_beat(body, _QUESTION.size))


def encode_answer(number: int, beat: Beat, buckets: list[int] | None) -> bytes:
    """Encode an answer; with the buckets if the digests differ."""
    answer = _ANSWER.pack(_VERSION, number) + _encode_beat(beat)
    return answer if buckets is None else answer + _BUCKETS.pack(*buckets)


def decode_answer(body: bytes) -> Answer:
    """Decode an answer.

    Raises:
        WireError: It is none.
    """
    if len(body) < _ANSWER.size or body[0] != _VERSION:
        raise WireError("survey", "an answer that is not a heartbeat's")
    _, number = _ANSWER.unpack_from(body)
    at = _ANSWER.size + _MORE.size
    buckets = _BUCKETS.unpack_from(body, at) if len(body) >= at + _BUCKETS.size else None
    return Answer(number, _decode_beat(body, _ANSWER.size), buckets)


def _encode_beat(beat: Beat) -> bytes:
    return _MORE.pack(beat.incarnation, beat.health, beat.digest.to_bytes(16))


def _decode_beat(body: bytes, at: int) -> Beat | None:
    if len(body) < at + _MORE.size:
        return None
    incarnation, health, digest = _MORE.unpack_from(body, at)
    return Beat(incarnation, health, int.from_bytes(digest))
