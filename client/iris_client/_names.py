"""What a name may look like (pure): checked here so that a mistake never costs the stream.

``[service/]cluster[@cloud]``; tokens ``[A-Za-z0-9_-]+`` joined by dots, 1 to 200 bytes in all; ``_iris.`` is
reserved; filters may use ``*`` for one token and a last ``>`` for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from iris_client._errors import InvalidName

MAX_NAME_BYTES: Final = 200
MAX_HEADERS: Final = 64
MAX_HEADER_BYTES: Final = 8 * 1024
_CACHE_ENTRIES: Final = 4096

_DOTTED = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
_TOPIC = re.compile(_DOTTED)
_ADDRESS = re.compile(rf"(?:({_DOTTED})/)?({_DOTTED})(?:@({_DOTTED}))?")
_FILTER = re.compile(r"(?:[A-Za-z0-9_-]+|\*)(?:\.(?:[A-Za-z0-9_-]+|\*))*(?:\.>)?|>")


def _shape(name: object, what: str) -> str:
    if not isinstance(name, str):
        raise InvalidName(f"a {what} is a str, not {type(name).__name__}")
    if not name:
        raise InvalidName(f"a {what} cannot be empty")
    if len(name) > MAX_NAME_BYTES:
        raise InvalidName(f"a {what} has at most {MAX_NAME_BYTES} bytes, this one has {len(name.encode())}")
    return name


def _reserved(name: str, what: str) -> None:
    if name.startswith("_iris.") or name == "_iris":
        raise InvalidName(f"{what} {name!r}: names under '_iris.' are reserved")


def _check_address(name: str) -> None:
    match = _ADDRESS.fullmatch(_shape(name, "cluster name"))
    if match is None:
        raise InvalidName(
            f"cluster name {name!r}: expected [service/]cluster[@cloud], each of letters, digits, '_' and '-', "
            "in tokens joined by single dots"
        )
    _reserved(match.group(2), "cluster name")


def _check_cluster(name: str) -> None:
    if _TOPIC.fullmatch(_shape(name, "cluster name")) is None:
        raise InvalidName(
            f"cluster name {name!r}: expected letters, digits, '_' and '-', in tokens joined by single dots"
        )
    _reserved(name, "cluster name")


def _check_topic(name: str) -> None:
    if _TOPIC.fullmatch(_shape(name, "topic")) is None:
        wild = " (wildcards belong in a subscription's filter)" if "*" in name or ">" in name else ""
        raise InvalidName(
            f"topic {name!r}: expected letters, digits, '_' and '-', in tokens joined by single dots{wild}"
        )
    _reserved(name, "topic")


def _check_filter(name: str) -> None:
    if _FILTER.fullmatch(_shape(name, "topic filter")) is None:
        raise InvalidName(
            f"topic filter {name!r}: expected tokens of letters, digits, '_' and '-' joined by single dots; "
            "'*' stands for one token, a last '>' for the rest"
        )
    _reserved(name, "topic filter")


def _check_method(name: str) -> None:
    if name != "" and _TOPIC.fullmatch(_shape(name, "method")) is None:
        raise InvalidName(f"method {name!r}: expected letters, digits, '_' and '-', in tokens joined by single dots")


class _Checked:
    """A check that remembers what passed, within a bound: names repeat, and a lookup is cheaper than a match."""

    __slots__ = ("_check", "_passed")

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check
        self._passed: set[str] = set()

    def __call__(self, name: str) -> str:
        """Return ``name`` if it passes.

        Raises:
            InvalidName: It does not; the message says what is expected.
        """
        try:
            if name in self._passed:
                return name
        except TypeError:
            pass  # unhashable: the check says what it should have been
        self._check(name)
        if len(self._passed) >= _CACHE_ENTRIES:
            self._passed.clear()
        self._passed.add(name)
        return name


address = _Checked(_check_address)
cluster = _Checked(_check_cluster)
topic = _Checked(_check_topic)
topic_filter = _Checked(_check_filter)
method = _Checked(_check_method)


def headers(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy of ``given`` that is safe to send.

    Raises:
        InvalidName: Not all keys and values are strings, a key is empty, or they are too many or too large.
    """
    if not given:
        return {}
    if len(given) > MAX_HEADERS:
        raise InvalidName(f"at most {MAX_HEADERS} headers, not {len(given)}")
    size = 0
    for key, value in given.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidName(f"headers are str to str; {key!r} is {type(key).__name__} to {type(value).__name__}")
        if not key:
            raise InvalidName("a header's key cannot be empty")
        try:
            size += len(key.encode()) + len(value.encode())
        except UnicodeEncodeError:
            raise InvalidName(f"header {key!r} cannot be encoded as UTF-8") from None
    if size > MAX_HEADER_BYTES:
        raise InvalidName(f"headers have at most {MAX_HEADER_BYTES} bytes of keys and values, these have {size}")
    return dict(given)
