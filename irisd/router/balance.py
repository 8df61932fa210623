"""The choice among those that could serve (pure)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from random import Random
from typing import TypeVar

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)


def least_outstanding(candidates: Iterable[T], load: Callable[[T], float], rng: Random) -> T | None:
    """The candidate with the least load; among equals one by chance, so that callers do not move in step."""
    best: list[T] = []
    least = 0.0
    for candidate in candidates:
        weight = load(candidate)
        if not best or weight < least:
            best, least = [candidate], weight
        elif weight == least:
            best.append(candidate)
    return None if not best else best[0] if len(best) == 1 else rng.choice(best)


class Rotation:
    """Smooth weighted round robin: shares follow weights exactly, and interleave.

    Source: the scheme nginx introduced in 2012 ("smooth weighted round-robin").
    """

    def __init__(self) -> None:
        self._current: dict[Hashable, float] = {}

    def pick(self, weights: dict[H, int]) -> H:
        """The next of ``weights`` (not empty); those no longer in it are forgotten."""
        current = self._current
        if len(current) > len(weights):
            for gone in current.keys() - weights.keys():
                del current[gone]
        total = 0
        chosen: H | None = None
        for candidate, weight in weights.items():
            total += weight
            current[candidate] = current.get(candidate, 0) + weight
            if chosen is None or current[candidate] > current[chosen]:
                chosen = candidate
        assert chosen is not None, "pick from nobody"
        current[chosen] -= total
        return chosen
