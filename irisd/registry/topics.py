"""Which filters match a topic (pure): one look-up for each shape of filter.

``*`` matches one token, a last ``>`` one or more. A filter's *shape* is where its
wildcards stand. Filters are keys of dicts, those of each shape by themselves; a topic
is looked up as it is, and once for each shape that its length allows, with the shape's
wildcards put in: so a match costs as many look-ups as there are shapes, whatever the
number of filters.

What the matches of a topic add up to is remembered. A filter without wildcards that
comes or goes touches its own topic only, one with wildcards all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

E = TypeVar("E")
A = TypeVar("A")

MAX_REMEMBERED = 4096
"""Most topics whose answer is kept."""

MAX_SHAPES = 256
"""Most shapes with wildcards that the subscriptions of one node may have: what bounds the work of a match."""

PARTS = 16
"""Dicts that hold the filters of a shape, by their hash: one of a million would take 30 ms to grow, at once."""

_Stars = tuple[int, ...]
"""The positions of a filter's ``*``."""


class _Several(dict[E, None]):
    """More than one entry under a filter; most have one, which stands there alone."""


_Filters = list[dict[str, E | _Several[E]]]
"""The filters of one shape, in :data:`PARTS`."""


class TopicIndex(Generic[E, A]):
    """Entries under topic filters. An entry may stand under many filters, under each at most once.

    Args:
        add_up: Makes the answer for a topic out of all (filter, entry) that match it, in no order.
    """

    def __init__(self, add_up: Callable[[list[tuple[str, E]]], A]) -> None:
        self._add_up = add_up
        self._plain: _Filters[E] = [{} for _ in range(PARTS)]
        # shapes by number of tokens, `>` not counted
        self._starred: dict[int, dict[_Stars, _Filters[E]]] = {}
        self._tailed: dict[int, dict[_Stars, _Filters[E]]] = {}
        self._answers: dict[str, A] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def shapes(self) -> int:
        """How many shapes with wildcards there are."""
        return sum(len(shapes) for by_length in (self._starred, self._tailed) for shapes in by_length.values())

    def fits(self, filter: str) -> bool:
        """Whether one more filter keeps the shapes within :data:`MAX_SHAPES`."""
        if not is_wild(filter) or self.shapes < MAX_SHAPES:
            return True
        by_length, length, stars = self._shape(filter)
        return stars in by_length.get(length, ())

    def add(self, filter: str, entry: E) -> None:
        """Put ``entry`` under ``filter``; again is harmless."""
        alike = self._plain
        if is_wild(filter):
            by_length, length, stars = self._shape(filter)
            shapes = by_length.setdefault(length, {})
            if stars not in shapes:
                shapes[stars] = [{} for _ in range(PARTS)]
            alike = shapes[stars]
        filters = alike[hash(filter) % PARTS]
        held = filters.get(filter)
        if held is None:
            filters[filter] = entry
        elif isinstance(held, _Several):
            if entry in held:
                return
            held[entry] = None
        elif held == entry:
            return
        else:
            filters[filter] = _Several({held: None, entry: None})
        self._size += 1
        self.touch(filter)

    def remove(self, filter: str, entry: E) -> None:
        """Take ``entry`` from under ``filter``; unknown is harmless. Nothing empty stays."""
        alike: _Filters[E] | None = self._plain
        if is_wild(filter):
            by_length, length, stars = self._shape(filter)
            alike = by_length.get(length, {}).get(stars)
        if alike is None:
            return
        filters = alike[hash(filter) % PARTS]
        held = filters.get(filter)
        if isinstance(held, _Several):
            if entry not in held:
                return
            del held[entry]
            if len(held) == 1:
                (filters[filter],) = held
        elif held is None or held != entry:
            return
        else:
            del filters[filter]
            if alike is not self._plain and not any(alike):
                del by_length[length][stars]
                if not by_length[length]:
                    del by_length[length]
        self._size -= 1
        self.touch(filter)

    def match(self, topic: str) -> A:
        """What all that matches a topic adds up to; remembered until something is added or removed that touches it."""
        answer = self._answers.get(topic)
        if answer is None:
            if len(self._answers) >= MAX_REMEMBERED:
                self._answers.clear()
            answer = self._answers[topic] = self._add_up(self.find(topic))
        return answer

    def touch(self, filter: str) -> None:
        """What stands under a filter has changed."""
        if is_wild(filter):
            self._answers.clear()
        else:
            self._answers.pop(filter, None)

    def forget_answers(self) -> None:
        """What stands under any filter may have changed."""
        self._answers.clear()

    def find(self, topic: str) -> list[tuple[str, E]]:
        """Every (filter, entry) that matches a topic, each once."""
        found: list[tuple[str, E]] = []
        for filters, filter in self._lookups(topic):
            held = filters[hash(filter) % PARTS].get(filter)
            if held is None:
                continue
            if isinstance(held, _Several):
                found += [(filter, entry) for entry in held]
            else:
                found.append((filter, held))
        return found

    def _lookups(self, topic: str) -> list[tuple[_Filters[E], str]]:
        """Where a filter that matches a topic may stand, of all shapes there are, and what it would be."""
        lookups = [(self._plain, topic)]
        if not (self._starred or self._tailed):
            return lookups
        tokens = topic.split(".")
        for stars, filters in self._starred.get(len(tokens), {}).items():
            lookups.append((filters, _masked(tokens, stars)))
        for length, shapes in self._tailed.items():
            if length < len(tokens):
                first = [*tokens[:length], ">"]
                for stars, filters in shapes.items():
                    lookups.append((filters, _masked(first, stars)))
        return lookups

    def _shape(self, filter: str) -> tuple[dict[int, dict[_Stars, _Filters[E]]], int, _Stars]:
        """Where shapes like that of ``filter`` stand, its number of tokens, and where its stars are."""
        tokens = filter.split(".")
        stars = tuple(at for at, token in enumerate(tokens) if token == "*")
        if tokens[-1] == ">":
            return self._tailed, len(tokens) - 1, stars
        return self._starred, len(tokens), stars


def entries(found: list[tuple[str, E]]) -> tuple[E, ...]:
    """The plainest sum: all of them. One that stands under several filters is there as often."""
    return tuple([entry for _, entry in found])


def is_wild(filter: str) -> bool:
    """Whether a filter may match other topics than the one it names."""
    return "*" in filter or filter[-1:] == ">"


def _masked(tokens: list[str], stars: _Stars) -> str:
    if stars:
        tokens = tokens.copy()
        for at in stars:
            tokens[at] = "*"
    return ".".join(tokens)
