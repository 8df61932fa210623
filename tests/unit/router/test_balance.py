from __future__ import annotations

from collections import Counter
from random import Random

from irisd.router import Rotation, least_outstanding


def test_the_least_loaded():
    loads = {"a": 0.5, "b": 0.25, "c": 0.75}
    assert least_outstanding(loads, lambda name: loads[name], Random(1)) == "b"


def test_nobody():
    assert least_outstanding([], lambda _: 0.0, Random(1)) is None


def test_among_equals_by_chance_and_evenly():
    random = Random(1)
    loads = {"a": 0.0, "b": 0.0, "c": 0.0, "d": 1.0}
    chosen = Counter(least_outstanding(loads, lambda name: loads[name], random) for _ in range(3000))
    assert chosen.keys() == {"a", "b", "c"}
    assert all(900 < count < 1100 for count in chosen.values())


def test_the_same_seed_chooses_the_same():
    def run() -> list[int | None]:
        random = Random(42)
        return [least_outstanding(range(5), lambda _: 0.0, random) for _ in range(20)]

    assert run() == run()


def test_outstanding_calls_settle_into_shares_by_slots():
    """Calls that last equally long: each node carries its share of the slots."""
    random = Random(3)
    slots = {"small": 1, "large": 3}
    under_way: list[str] = []
    chosen: Counter[str] = Counter()
    for _ in range(4000):
        if len(under_way) == 8:
            under_way.pop(0)
        node = least_outstanding(slots, lambda name: under_way.count(name) / slots[name], random)
        assert node is not None
        under_way.append(node)
        chosen[node] += 1
    assert 0.22 < chosen["small"] / 4000 < 0.28


def test_rotation_gives_exact_shares_and_interleaves():
    rotation = Rotation()
    weights = {"a": 5, "b": 1, "c": 1}
    assert "".join(rotation.pick(weights) for _ in range(7)) == "aabacaa"
    assert Counter(rotation.pick(weights) for _ in range(700)) == {"a": 500, "b": 100, "c": 100}


def test_rotation_follows_those_that_come_and_go():
    rotation = Rotation()
    assert [rotation.pick({"a": 1}) for _ in range(3)] == ["a"] * 3
    assert Counter(rotation.pick({"a": 1, "b": 1}) for _ in range(100)) == {"a": 50, "b": 50}
    assert {rotation.pick({"b": 1}) for _ in range(3)} == {"b"}
    assert Counter(rotation.pick({"b": 1, "c": 2}) for _ in range(300)) == {"b": 100, "c": 200}


def test_rotation_forgets_those_gone():
    rotation = Rotation()
    for n in range(1000):
        rotation.pick({n: 1, n + 1: 1})
        assert len(rotation._current) <= 4
