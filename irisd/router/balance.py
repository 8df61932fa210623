"""The choice among those that could serve (pure). One set of rules, for nodes and for members.

Sources: power of two choices: M. Mitzenmacher, "The Power of Two Choices in
Randomized Load Balancing", 2001. Rendezvous hashing: D. Thaler, C. Ravishankar,
1998. Smooth weighted round robin: the scheme nginx introduced in 2012.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Generic, TypeVar

from irisd.model import Balance, NodeId
from irisd.router.candidate import Contender

H = TypeVar("H", bound=Hashable)
C = TypeVar("C", bound=Contender)

MAX_KEY = 1024
"""Bytes of the key a call may be hashed by."""

ALIKE = 2.0
"""Latencies that differ by less than this factor are taken to be the same."""

ALIKE_LOAD = 0.05
"""Loads that differ by less than this share of the slots are too: whoever is farther away has some more under way."""

FAILURES_COST = 10.0
"""A candidate that always fails is taken to be this many times busier and slower."""

FEW = 32
"""Up to this many candidates the full ones are left out before two are drawn."""

_MASK = (1 << 64) - 1


class Rotation:
    """Smooth weighted round robin: shares follow weights exactly, and interleave."""

    def __init__(self) -> None:
        self._current: dict[Hashable, float] = {}

    def copy(self) -> Rotation:
        """One whose turn is now at the same candidate."""
        other = Rotation()
        other._current = dict(self._current)
        return other

    def pick(self, weights: dict[H, float] | dict[H, int]) -> H:
        """The next of ``weights`` (not empty); those no longer in it are forgotten."""
        current = self._current
        if len(current) > len(weights):
            for gone in current.keys() - weights.keys():
                del current[gone]
        total = 0.0
        chosen: H | None = None
        for candidate, weight in weights.items():
            total += weight
            current[candidate] = current.get(candidate, 0) + weight
            if chosen is None or current[candidate] > current[chosen]:
                chosen = candidate
        assert chosen is not None, "pick from nobody"
        current[chosen] -= total
        return chosen


class Pool(Generic[C]):
    """Candidates to draw from. What is worked out once about them is worked out here."""

    __slots__ = ("candidates", "heaviest")

    def __init__(self, candidates: list[C]) -> None:
        self.candidates = candidates
        self.heaviest = max((candidate.weight for candidate in candidates), default=0.0)

    def draw(self, rng: Random) -> C:
        """One by chance, the more slots the likelier."""
        candidates, count = self.candidates, len(self.candidates)
        chosen = candidates[int(rng.random() * count)]
        for _ in range(16):
            if chosen.weight >= rng.random() * self.heaviest:
                break
            chosen = candidates[int(rng.random() * count)]
        return chosen


class Chooser:
    """Chooses for one cluster. It remembers whose turn it is, nothing else."""

    def __init__(self) -> None:
        self._rotation = Rotation()

    def choose(self, policy: int, pool: Pool[C], rng: Random, now: float) -> C:
        """One of the pool, which is not empty. What has a key is :func:`rank`'s matter."""
        candidates = pool.candidates
        if len(candidates) == 1:
            return candidates[0]
        if policy == Balance.ROUND_ROBIN:
            return self._rotation.pick({candidate: candidate.weight or 1 for candidate in candidates})
        if policy == Balance.RANDOM:
            return pool.draw(rng)
        if len(candidates) <= FEW:
            free = [candidate for candidate in candidates if candidate.load(now) < 1]
            if free and len(free) < len(candidates):
                if len(free) == 1:
                    return free[0]
                pool = Pool(free)
        return self.prefer(*_two(pool, rng), now)

    def prefer(self, first: C, second: C, now: float) -> C:
        """One of two that were drawn."""
        return prefer(first, second, now)


class Foresight(Chooser):
    """Says what a chooser would choose now, and leaves everything as it is.

    Attributes:
        drawn: The two that were compared; empty if there was nothing to compare.
    """

    def __init__(self, chooser: Chooser) -> None:
        self._rotation = chooser._rotation.copy()
        self.drawn: tuple[Contender, ...] = ()

    def prefer(self, first: C, second: C, now: float) -> C:
        self.drawn = first, second
        turns = first.turn, second.turn
        chosen = prefer(first, second, now)
        first.turn, second.turn = turns
        return chosen


def prefer(first: C, second: C, now: float) -> C:
    """Of two candidates the one that will probably answer sooner; of equals the one that had less so far."""
    one, other = cost(first, second, now), cost(second, first, now)
    if abs(one - other) >= ALIKE_LOAD:
        return first if one < other else second
    if first.turn > second.turn:
        first, second = second, first
    # one that was away does not catch up: it would have everything to itself
    first.turn = max(first.turn, second.turn - 2 / (first.weight or 1))
    return first


def cost(candidate: Contender, other: Contender, now: float) -> float:
    """What giving it one more call costs, beside another: its load, its pace and its failures, 1 at rest."""
    cost = 1 + candidate.load(now)
    mine, theirs = candidate.pace(now), other.pace(now)
    if mine and theirs and mine > ALIKE * theirs:
        cost *= mine / theirs
    fails = candidate.fails(now)
    if fails > 0.05:
        cost *= 1 + FAILURES_COST * fails
    return cost


def _two(pool: Pool[C], rng: Random) -> tuple[C, C]:
    """Two distinct ones by chance, the more slots the likelier."""
    candidates = pool.candidates
    if len(candidates) == 2:
        return candidates[0], candidates[1]
    first = pool.draw(rng)
    for _ in range(8):
        second = pool.draw(rng)
        if second is not first:
            return first, second
    return first, rng.choice([candidate for candidate in candidates if candidate is not first])


def rank(key: str, node: NodeId, seats: Iterable[int]) -> int:
    """How high a node's seats stand for a key, by their best one: the highest of all has it (rendezvous hashing)."""
    start = _hashed(key.encode()) ^ _hashed(node)
    return max((_mixed(start ^ (seat * 0x9E3779B97F4A7C15 & _MASK)) for seat in seats), default=-1)


@lru_cache(maxsize=8192)
def _hashed(text: bytes) -> int:
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def _mixed(value: int) -> int:
    """Every bit of the result depends on every bit of ``value`` (the finalizer of SplitMix64)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31
