"""Which filters match a topic (pure): a tree of tokens.

``*`` matches one token, a last ``>`` one or more. Matching walks at most two
branches a token, whatever the number of filters, and the answer for a topic is
kept until a filter comes or goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

E = TypeVar("E")

MAX_REMEMBERED = 4096
"""Most topics whose answer is kept."""


@dataclass(slots=True)
class _Branch(Generic[E]):
    entries: dict[E, None] = field(default_factory=dict)
    rest: dict[E, None] = field(default_factory=dict)  # filters that end here with `>`
    next: dict[str, _Branch[E]] = field(default_factory=dict)


class TopicIndex(Generic[E]):
    """Entries under topic filters. An entry may stand under many filters, under each at most once."""

    def __init__(self) -> None:
        self._root: _Branch[E] = _Branch()
        self._answers: dict[str, tuple[E, ...]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, filter: str, entry: E) -> None:
        """Put ``entry`` under ``filter``; again is harmless."""
        branch, entries = self._root, None
        for token in filter.split("."):
            if token == ">":
                entries = branch.rest
                break
            branch = branch.next.setdefault(token, _Branch())
        if entries is None:
            entries = branch.entries
        if entry not in entries:
            entries[entry] = None
            self._size += 1
            self._answers.clear()

    def remove(self, filter: str, entry: E) -> None:
        """Take ``entry`` from under ``filter``; unknown is harmless. Empty branches go."""
        path: list[tuple[_Branch[E], str]] = []
        branch, entries = self._root, None
        for token in filter.split("."):
            if token == ">":
                entries = branch.rest
                break
            following = branch.next.get(token)
            if following is None:
                return
            path.append((branch, token))
            branch = following
        if entries is None:
            entries = branch.entries
        if entry not in entries:
            return
        del entries[entry]
        self._size -= 1
        self._answers.clear()
        for parent, token in reversed(path):
            child = parent.next[token]
            if child.entries or child.rest or child.next:
                break
            del parent.next[token]

    def match(self, topic: str) -> tuple[E, ...]:
        """Every entry under a filter that matches, each once."""
        answer = self._answers.get(topic)
        if answer is None:
            if len(self._answers) >= MAX_REMEMBERED:
                self._answers.clear()
            answer = self._answers[topic] = tuple(dict.fromkeys(self._walk(topic.split("."))))
        return answer

    def _walk(self, tokens: list[str]) -> Iterator[E]:
        branches = [self._root]
        for token in tokens:
            following = []
            for branch in branches:
                yield from branch.rest
                for name in (token, "*"):
                    child = branch.next.get(name)
                    if child is not None:
                        following.append(child)
            branches = following
        for branch in branches:
            yield from branch.entries
