"""Names (pure): ``[service/]cluster[@cloud]``, topics and topic filters.

Tokens ``[A-Za-z0-9_-]+`` joined by dots, at most 200 bytes. ``_iris.`` is reserved.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

MAX_NAME = 200
RESERVED = "_iris."

_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_FILTER = re.compile(r"(?:(?:[A-Za-z0-9_-]+|\*)\.)*(?:[A-Za-z0-9_-]+|\*|>)")
_RULE = "tokens of letters, digits, _ and - joined by dots, 1 to 200 bytes"


class BadName(ValueError):
    """A name that breaks the rules; the message says which."""


class Address(NamedTuple):
    """What a caller wrote, taken apart. Empty parts were not given."""

    service: str
    cluster: str
    cloud: str


def _check(what: str, text: str, pattern: re.Pattern[str]) -> str:
    if not text:
        raise BadName(f"{what}: the name is empty")
    if len(text) > MAX_NAME or not pattern.fullmatch(text):
        raise BadName(f"{what} {text[:80]!r}: a name is {_RULE}")
    if text.startswith(RESERVED):
        raise BadName(f"{what} {text[:80]!r}: names that start with {RESERVED} are reserved")
    return text


@lru_cache(maxsize=4096)
def valid_topic(topic: str) -> str:
    """Return the topic, or raise :class:`BadName`."""
    return _check("topic", topic, _NAME)


@lru_cache(maxsize=4096)
def valid_filter(filter: str) -> str:
    """Return the topic filter, or raise :class:`BadName`."""
    return _check("topic filter", filter, _FILTER)


@lru_cache(maxsize=4096)
def valid_cluster(cluster: str) -> str:
    """Return the cluster's name, or raise :class:`BadName`."""
    return _check("cluster", cluster, _NAME)


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address:
    """Take ``[service/]cluster[@cloud]`` apart, or raise :class:`BadName`."""
    if len(text) > MAX_NAME:
        raise BadName(f"address {text[:80]!r}...: longer than {MAX_NAME} bytes")
    service, slash, rest = text.rpartition("/")
    cluster, at, cloud = rest.partition("@")
    if slash:
        _check("service", service, _NAME)
    if at:
        _check("cloud", cloud, _NAME)
    return Address(service, valid_cluster(cluster), cloud)
