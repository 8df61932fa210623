"""What a node says of a choice it would make <-> bytes (pure): the body of a TRACED frame.

JSON, because it is read by people, asked for by hand, and grows with every
release: unknown names are ignored, missing ones are the defaults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, Final, TypeVar

from irisd.model import KiB
from irisd.status import TraceCandidate, TraceHop
from irisd.wire.protobuf import WireError

MAX_HOP: Final = 64 * KiB
"""Bytes of a body."""

MAX_CANDIDATES: Final = 64
"""Candidates one hop may show."""

MAX_TEXT: Final = 1000
"""Characters of one text."""

_MOST: Final = (1 << 32) - 1

_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
"""JSON can say halves of characters, which no other text may hold."""

_GOOD: Final[dict[str, Callable[[Any], bool]]] = {
    "str": lambda value: isinstance(value, str) and len(value) <= MAX_TEXT and not _SURROGATE.search(value),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) is int and 0 <= value <= _MOST,
    "float": lambda value: type(value) in (int, float) and 0 <= value <= _MOST,
}
"""By a field's type: whether a value that another node sent may stand there."""

T = TypeVar("T", TraceHop, TraceCandidate)


def encode_hop(hop: TraceHop) -> bytes:
    """Encode a hop; it has :data:`MAX_CANDIDATES` candidates at most. What is as it is by default is left out."""
    said = _said(hop)
    said["candidates"] = [_said(candidate) for candidate in hop.candidates]
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def decode_hop(body: bytes) -> TraceHop:
    """Decode a TRACED body.

    Raises:
        WireError: It is malformed.
    """
    if len(body) > MAX_HOP:
        raise WireError(f"TRACED: {len(body)} bytes, the limit is {MAX_HOP}")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise WireError("TRACED: its body is not JSON") from None
    if not isinstance(said, dict):
        raise WireError("TRACED: its body is no object")
    some = said.pop("candidates", [])
    if not isinstance(some, list) or len(some) > MAX_CANDIDATES or not all(isinstance(each, dict) for each in some):
        raise WireError(f"TRACED: candidates must be a list of at most {MAX_CANDIDATES} objects")
    candidates = tuple(TraceCandidate(**_checked(TraceCandidate, each)) for each in some)
    return TraceHop(**_checked(TraceHop, said), candidates=candidates)


def _said(row: TraceHop | TraceCandidate) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(row)}
    return {name: value for name, value in asdict(row).items() if value != defaults[name]}


def _checked(kind: type[T], said: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``kind`` that are in ``said``, each of its type and within its bounds."""
    found: dict[str, Any] = {"name": ""}
    for field in fields(kind):
        is_good = _GOOD.get(str(field.type))
        if is_good is None or field.name not in said:
            continue
        value = said[field.name]
        if not is_good(value):
            raise WireError(f"TRACED: {field.name} is not what it should be")
        found[field.name] = value
    return found
