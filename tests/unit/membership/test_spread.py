"""A mesh too large for everybody to be linked with everybody: neighbours on rings, and the others by hearsay."""

from __future__ import annotations

import pytest

from irisd.membership.rings import watchers
from irisd.membership.suspicion import FAR_HELPERS
from irisd.model import State
from irisd.wire.views import Belief, Saying
from tests.unit.membership.ground import Watcher, id_of, record_of

LIMIT = 4
COUNT = 60


def spread(count: int = COUNT) -> Watcher:
    """A node that is linked with its neighbours and knows of all others."""
    one = Watcher(limit=LIMIT)
    ids = [id_of(number) for number in range(1, count + 1)]
    for node in watchers(one.m.own, ids):
        one.link(int.from_bytes(node[:2]))
    for number in range(2, count + 1):
        if not one.m.is_present(id_of(number)):
            one.learn(number, 2)
    one.breathe()
    one.wait(1.5)
    one.port.changes.clear()
    one.port.told.clear()
    one.port.found.clear()
    return one


def near(one: Watcher) -> list[int]:
    return [int.from_bytes(node[:2]) for node in one.m.rings.neighbours]


def far(one: Watcher) -> list[int]:
    return [number for number in range(2, COUNT + 1) if number not in near(one)]


def test_the_limit_counts_this_node_too():
    one = Watcher(limit=LIMIT)
    for number in (2, 3, 4):
        one.learn(number, 2)
    assert (one.m.spread, one.port.reaches) == (False, 0)
    one.learn(5, 2)
    assert (one.m.spread, one.port.reaches) == (True, 1)
    one.m.link_down(id_of(5), "test", one.now, left=True)
    assert (one.m.spread, one.port.reaches) == (False, 2)


def test_below_the_limit_everybody_is_wanted_and_watched():
    one = Watcher(limit=LIMIT)
    one.learn(2, 3)
    one.link(3)
    one.down(3, left=True)
    for number in (2, 3, 99):
        assert one.m.wants(id_of(number))
        assert one.m.watches(id_of(number))
        assert not one.m.spreads_to(id_of(number))


def test_above_it_neighbours_and_strangers_are():
    one = spread()
    for number in range(2, COUNT + 1):
        assert one.m.watches(id_of(number)) == one.m.wants(id_of(number)) == (number in near(one))
    assert one.m.wants(id_of(999))  # it may know others
    assert not one.m.watches(id_of(999))
    assert 2 <= sum(one.m.spreads_to(id_of(number)) for number in range(2, COUNT + 1)) <= 4
    assert all(one.m.watches(id_of(n)) for n in range(2, COUNT + 1) if one.m.spreads_to(id_of(n)))


def test_of_those_that_are_gone_only_would_be_neighbours_are_dialled_again():
    one = spread()
    neighbour, other = near(one)[0], far(one)[0]
    one.down(neighbour, left=True)
    one.believed(near(one)[0], Belief(id_of(other), 1, Saying.DEAD))
    assert one.m.wants(id_of(neighbour))
    assert not one.m.wants(id_of(other))


def test_others_are_alive_by_hearsay_and_not_watched():
    one = spread()
    one.wait(120.0)
    assert {one.state(number) for number in range(2, COUNT + 1)} == {State.ALIVE}
    assert (one.port.changes, one.port.told) == ([], [])


def test_those_heard_of_before_it_was_spread_are_not_left_joining():
    """Nobody will be linked with them any more: what holds for later hearsay must hold for them."""
    one = Watcher(limit=LIMIT)
    one.link(2)
    for number in range(3, COUNT):
        one.learn(number, 2)
    assert [number for number in range(2, COUNT) if one.state(number) is not State.ALIVE] == []


def test_a_neighbour_that_dies_is_told_to_all_that_are_linked_and_the_next_takes_its_place():
    one = spread()
    before = near(one)
    victim = before[0]
    one.down(victim)
    one.wait(5.0)
    assert one.state(victim) is State.DEAD
    told = {int.from_bytes(to[:2]) for to, saying in one.port.told_about(id_of(victim)) if saying is Saying.DEAD}
    assert told == set(before) - {victim}
    fresh = [number for number in near(one) if number not in before]
    assert fresh
    assert set(fresh) <= {int.from_bytes(node[:2]) for node in one.port.found}


def test_its_helpers_are_the_other_watchers_of_the_suspect():
    one = spread()
    victim = near(one)[0]
    others = set(watchers(id_of(victim), [id_of(number) for number in range(1, COUNT + 1)])) - {one.m.own}
    one.down(victim)
    one.wait(0.5)
    asked = {to for to, saying in one.port.told_about(id_of(victim)) if saying is Saying.ASK}
    assert len(asked) == FAR_HELPERS
    assert asked <= others


def test_gossip_is_passed_on_once_and_not_back():
    one = spread()
    teller, victim = near(one)[0], far(one)[0]
    for _ in range(3):
        one.believed(teller, Belief(id_of(victim), 1, Saying.DEAD))
    told = [int.from_bytes(to[:2]) for to, saying in one.port.told_about(id_of(victim)) if saying is Saying.DEAD]
    assert sorted(told) == sorted(set(near(one)) - {teller})


def test_a_neighbour_without_a_link_is_asked_for_and_then_asked_about():
    one = spread()
    neighbour = near(one)[0]
    one.down(neighbour, idle=True)
    one.wait(5.0)
    assert one.port.found.count(id_of(neighbour)) >= 1
    assert id_of(neighbour) in {belief.node for _, belief in one.port.told}
    one.wait(5.0)
    assert one.state(neighbour) is State.DEAD


def test_one_that_others_hear_stays_though_it_cannot_be_linked():
    one = spread()
    neighbour = near(one)[0]
    one.down(neighbour, idle=True)

    def vouch() -> None:
        for to, belief in one.port.told:
            if belief.saying == Saying.ASK:
                one.believed(int.from_bytes(to[:2]), Belief(belief.node, 1, Saying.HEARD, 0.5))
        one.port.told.clear()

    one.wait(60.0, vouch)
    assert one.state(neighbour) is State.ALIVE
    assert len(one.port.states(id_of(neighbour))) <= 2


def test_a_broken_link_to_one_it_need_not_watch_is_left_to_those_who_do():
    one = spread()
    other = far(one)[0]
    one.link(other)
    one.breathe()
    one.wait(3.0)
    one.down(other)
    assert one.state(other) is State.SUSPECT
    asked = 0

    def vouch() -> None:
        nonlocal asked
        for to, belief in one.port.told:
            if belief.saying == Saying.ASK:
                asked += 1
                one.believed(int.from_bytes(to[:2]), Belief(belief.node, 1, Saying.HEARD, 0.5))
        one.port.told.clear()

    one.wait(60.0, vouch)
    assert one.state(other) is State.ALIVE
    assert asked <= 10  # and not for ever


@pytest.mark.parametrize("number", [999])
def test_a_stranger_that_links_is_present_at_once(number: int):
    one = spread()
    one.m.link_up(id_of(number), record_of(number), False, speaks=True, now=one.now)
    assert one.state(number) is State.ALIVE
    assert one.m.view.present[id_of(number)].version == -1
