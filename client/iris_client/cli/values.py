"""What people type and what they are shown (pure): durations, headers, sizes, text that is safe on a terminal."""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterable

_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
MAX_DURATION = 7 * 24 * 3600.0


def duration(text: str) -> float:
    """Read a duration; return seconds, above 0 and at most a week.

    Raises:
        ValueError: It is none; the message shows the forms that are.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write 500ms, 5s, 1m or 1h")
    seconds = float(match.group(1)) * _UNITS[match.group(2)]
    if not 0 < seconds <= MAX_DURATION:
        raise ValueError(f"{text!r}: a duration is above 0 and at most 168h")
    return seconds


def header(text: str) -> tuple[str, str]:
    """Read ``key:value``; spaces around the value's start do not count.

    Raises:
        ValueError: There is no key, or no colon.
    """
    key, colon, value = text.partition(":")
    if not colon or not key.strip():
        raise ValueError(f"{text!r} is not a header; write key:value")
    return key.strip(), value.lstrip()


def headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Gather headers.

    Raises:
        ValueError: A key was given twice: it can carry one value only.
    """
    gathered: dict[str, str] = {}
    for key, value in pairs:
        if key in gathered:
            raise ValueError(f"header {key!r} was given twice")
        gathered[key] = value
    return gathered


def show_size(count: float) -> str:
    """Show bytes as people read them: ``512 B``, ``1.5 MiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1023.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def show_time(seconds: float) -> str:
    """Show a span as people read it: ``250 us``, ``1.5 ms``, ``12.0 s``, ``3h 12m``."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes}m {int(seconds) % 60}s"
    if minutes < 24 * 60:
        return f"{minutes // 60}h {minutes % 60}m"
    return f"{minutes // (24 * 60)}d {minutes // 60 % 24}h"


def count_of(number: int, noun: str) -> str:
    """``1 member``, ``3 members``, with thousands apart."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def printable(text: str) -> str:
    """Make text from elsewhere safe to show in one line: what steers a terminal is written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_body(body: bytes) -> dict[str, object]:
    """A body as JSON can carry it: ``body``, and ``base64: true`` when it is not UTF-8."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode(), "base64": True}


def line_body(body: bytes) -> str:
    """A body on one line of text, for people."""
    try:
        return printable(body.decode())
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(body).decode()


def width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(c) for c in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
