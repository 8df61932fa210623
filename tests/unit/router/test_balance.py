from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from irisd.model import Balance
from irisd.router import Candidate, Chooser, Ended, Foresight, Pool, Rotation, rank


def pool(*weights: float) -> Pool[Candidate]:
    return Pool([Candidate(weight) for weight in weights])


def shares(policy: int, weights: list[float], *, calls: int, at_once: int, seed: int = 1) -> list[int]:
    """How many of ``calls`` that last equally long each candidate gets, ``at_once`` of them under way."""
    some, chooser, random = pool(*weights), Chooser(), Random(seed)
    counts = [0] * len(weights)
    under_way: list[tuple[Candidate, int]] = []
    for number in range(calls):
        now = number / 100
        if len(under_way) >= at_once:
            candidate, call = under_way.pop(0)
            candidate.end(call, now, Ended.WELL)
        chosen = chooser.choose(policy, some, random, now)
        chosen.begin(number, now)
        under_way.append((chosen, number))
        counts[some.candidates.index(chosen)] += 1
    return counts


@pytest.mark.parametrize("at_once", [1, 7, 60])
@pytest.mark.parametrize("policy", [0, Balance.P2C, Balance.ROUND_ROBIN, Balance.LOCAL])
def test_equal_ones_get_equal_shares(policy, at_once):
    for count in shares(policy, [10] * 15, calls=10_000, at_once=at_once):
        assert abs(count - 10_000 / 15) < 0.1 * 10_000 / 15


@pytest.mark.parametrize("at_once", [1, 7, 60])
@pytest.mark.parametrize("policy", [Balance.P2C, Balance.ROUND_ROBIN])
def test_shares_follow_slots(policy, at_once):
    counts = shares(policy, [60, 50, 40], calls=10_000, at_once=at_once)
    for count, wanted in zip(counts, [4000, 3333, 2667], strict=True):
        assert abs(count - wanted) < 0.1 * wanted


def test_random_shares_are_random_and_fair():
    counts = shares(Balance.RANDOM, [1, 1, 2], calls=10_000, at_once=1)
    assert [abs(count - wanted) < 300 for count, wanted in zip(counts, [2500, 2500, 5000], strict=True)] == [True] * 3


def test_the_same_seed_chooses_the_same():
    assert shares(0, [1, 2, 3], calls=100, at_once=2) == shares(0, [1, 2, 3], calls=100, at_once=2)


def test_a_full_one_is_left_out_while_others_are_free():
    some = pool(1, 1, 1)
    for candidate in some.candidates[:2]:
        candidate.begin("call", 0.0)
    assert {Chooser().choose(0, some, Random(seed), 0.0) for seed in range(20)} == {some.candidates[2]}


def test_a_slow_one_gets_next_to_nothing_and_is_tried_again():
    """Ten times slower than the other two: known after a few answers, forgotten after a while."""
    some, chooser, random = pool(64, 64, 64), Chooser(), Random(5)
    took = [0.02, 0.02, 0.2]
    ends: list[tuple[float, int, Candidate, int]] = []
    counts: list[Counter[int]] = [Counter() for _ in range(60)]
    for number in range(60 * 200):
        now = number / 200
        for end in sorted(end for end in ends if end[0] <= now):
            ends.remove(end)
            end[2].end(end[3], end[0], Ended.WELL)
        chosen = chooser.choose(0, some, random, now)
        which = some.candidates.index(chosen)
        chosen.begin(number, now)
        ends.append((now + took[which], number, chosen, number))
        counts[int(now)][which] += 1
    slow = [count[2] for count in counts]
    assert sum(slow[5:]) < 0.01 * 200 * 55, slow
    assert sum(slow[20:]) > 0, "it is never asked again"


def test_one_that_fails_fast_does_not_look_fast():
    good, bad = Candidate(10), Candidate(10)
    for call in range(40):
        good.begin(call, call)
        good.end(call, call + 0.1, Ended.WELL)
        bad.begin(call, call)
        bad.end(call, call + 0.001, Ended.BADLY)
    now = 41.0
    good.begin("a", now)
    assert bad.failing > 0.9
    assert bad.pace(now) == 0.0, "nothing is known of how fast it would answer"
    assert Chooser().choose(0, Pool([bad, good]), Random(1), now) is good


def test_noise_is_no_difference():
    quick, quicker = Candidate(10), Candidate(10)
    for candidate, took in ((quick, 0.019), (quicker, 0.011)):
        candidate.begin(1, 0.0)
        candidate.end(1, took, Ended.WELL)
    chosen = Counter(id(Chooser().choose(0, Pool([quick, quicker]), Random(seed), 1.0)) for seed in range(10))
    assert len(chosen) <= 2
    quick.turn, quicker.turn = 0.0, 1.0
    assert Chooser().choose(0, Pool([quick, quicker]), Random(1), 1.0) is quick


def test_one_that_hangs_is_noticed_before_it_answers():
    stuck, fine = Candidate(64), Candidate(64)
    fine.begin(1, 0.0)
    fine.end(1, 0.02, Ended.WELL)
    stuck.begin(2, 0.0)
    assert stuck.pace(0.01) < 2 * fine.pace(0.01)
    assert Chooser().choose(0, Pool([stuck, fine]), Random(1), 0.5) is fine


def test_one_that_was_away_does_not_get_everything():
    old, new = Candidate(10), Candidate(10)
    old.turn = 1000.0
    counts = Counter[int]()
    for number in range(1000):
        chosen = Chooser().choose(0, Pool([old, new]), Random(number), 0.0)
        chosen.begin(number, 0.0)
        chosen.end(number, 0.0, Ended.OTHERWISE)
        counts[id(chosen)] += 1
    assert abs(counts[id(new)] - 500) < 10


def test_what_a_node_told_of_others_counts_for_a_while():
    told = Candidate(10)
    told.begin("mine", 0.0)
    told.told(6, 0.0)
    assert told.busy(0.0) == 6
    assert told.busy(1.0) == 3.5
    assert told.busy(3.0) == 1


# -- keys


NODES = [bytes([number]) * 16 for number in range(5)]


def keeper(key: str, seats: dict[bytes, list[int]]) -> tuple[bytes, int]:
    """As a caller chooses the node and the node its member."""
    node = max(seats, key=lambda node: rank(key, node, seats[node]))
    return node, max(seats[node], key=lambda seat: rank(key, node, [seat]))


def test_a_key_stays_with_its_member_while_that_lives():
    seats = {node: [0, 1, 2] for node in NODES}
    before = {f"key-{n}": keeper(f"key-{n}", seats) for n in range(3000)}
    gone = (NODES[1], 1)
    seats[NODES[1]].remove(1)
    for key, place in before.items():
        assert (keeper(key, seats) == place) == (place != gone)
    del seats[NODES[4]]
    for key, place in before.items():
        if place != gone and place[0] != NODES[4]:
            assert keeper(key, seats) == place


def test_keys_are_spread_evenly():
    seats = {node: list(range(3)) for node in NODES}
    counts = Counter(keeper(f"customer/{n}", seats) for n in range(15_000))
    assert len(counts) == 15
    assert all(850 < count < 1150 for count in counts.values())


def test_nobody_has_no_rank():
    assert rank("key", NODES[0], []) == -1


# -- turns


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


@pytest.mark.parametrize("policy", list(Balance))
def test_foresight_says_what_comes_and_changes_nothing(policy):
    some, chooser, random = pool(1, 2, 3, 4), Chooser(), Random(7)
    for number in range(200):
        now = number / 100
        state = random.getstate()
        foresight = Foresight(chooser)
        turns = [candidate.turn for candidate in some.candidates]
        foreseen = foresight.choose(policy, some, random, now)
        assert [candidate.turn for candidate in some.candidates] == turns
        random.setstate(state)
        chosen = chooser.choose(policy, some, random, now)
        assert chosen is foreseen
        assert not foresight.drawn or chosen in foresight.drawn
        chosen.begin(number, now)
        if number >= 5:
            for candidate in some.candidates:
                candidate.end(number - 5, now, Ended.WELL)
