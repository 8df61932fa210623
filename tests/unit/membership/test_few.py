"""A few nodes that hear each other: who is believed what, and when, at all of them."""

from __future__ import annotations

import pytest

from irisd.model import State
from tests.unit.membership.ground import Few


def alive(few: Few, number: int) -> bool:
    return set(few.states_of(number).values()) <= {State.ALIVE}


def changes(few: Few, number: int) -> list[tuple[int, State]]:
    return [
        (at, state)
        for at, node in few.nodes.items()
        for who, _, state, _ in node.port.changes
        if int.from_bytes(who[:2]) == number
    ]


@pytest.mark.parametrize("count", [2, 3, 8])
def test_nothing_ever_happens(count: int):
    few = Few(count)
    for node in few.nodes.values():
        node.port.changes.clear()
    few.wait(120.0)
    assert [changes(few, number) for number in few.nodes] == [[]] * count
    assert all(node.m.health.score == 0 for node in few.nodes.values())
    assert len({node.m.view.digest for node in few.nodes.values()}) == 1


@pytest.mark.parametrize("count", [2, 3, 5, 8])
@pytest.mark.parametrize("who", [1, 2])
@pytest.mark.parametrize("phase", [0.0, 0.13, 0.5, 0.87])
def test_a_node_that_stops_is_dead_everywhere_in_time_and_not_before(count: int, who: int, phase: float):
    few = Few(count)
    few.wait(10.0 + phase)
    few.stopped.add(who)
    few.wait(2.99)
    assert not set(few.states_of(who).values()) & {State.DEAD, None}
    few.wait(4.75 - 2.99)
    assert set(few.states_of(who).values()) == {State.DEAD}
    for number in few.nodes:
        if number != who:
            assert alive(few, number)


@pytest.mark.parametrize("phase", [0.0, 0.25, 0.6])
def test_a_node_stopped_for_less_than_three_intervals_never_dies_and_accuses_nobody(phase: float):
    few = Few(5)
    few.wait(10.0 + phase)
    for node in few.nodes.values():
        node.port.changes.clear()
    few.stopped.add(3)
    few.wait(2.9)
    few.stopped.discard(3)
    few.wait(30.0)
    assert State.DEAD not in {state for number in few.nodes for _, state in changes(few, number)}
    assert [who for number in (1, 2, 4, 5) for who, _ in changes(few, number)] == []
    assert all(alive(few, number) for number in few.nodes)


@pytest.mark.parametrize("way", [(1, 2), (2, 1)])
def test_a_one_way_cut_kills_nobody_and_hardly_shows(way: tuple[int, int]):
    few = Few(4)
    few.wait(10.0)
    for node in few.nodes.values():
        node.port.changes.clear()
    few.deaf.add(way)
    few.wait(60.0)
    for number in few.nodes:
        for watcher in few.nodes:
            assert len([at for at, _ in changes(few, number) if at == watcher]) <= 2
        assert State.DEAD not in [state for _, state in changes(few, number)]
    assert all(alive(few, number) for number in few.nodes)


def test_a_link_that_is_cut_both_ways_kills_nobody():
    few = Few(4)
    few.wait(10.0)
    few.deaf |= {(1, 2), (2, 1)}
    few.wait(60.0)
    assert all(alive(few, number) for number in few.nodes)
    assert frozenset((1, 2)) not in few.links  # given up


def test_two_halves_bury_each_other_and_keep_their_own():
    few = Few(6)
    few.wait(5.0)
    few.deaf |= {(a, b) for a in few.nodes for b in few.nodes if (a <= 3) != (b <= 3)}
    few.wait(6.0)
    for at, node in few.nodes.items():
        for number in few.nodes:
            same = (at <= 3) == (number <= 3)
            assert node.state(number) is (State.ALIVE if same else State.DEAD)


def test_a_dead_node_that_was_only_cut_off_refutes_and_all_are_told():
    few = Few(4)
    few.wait(5.0)
    few.deaf |= {(4, n) for n in (1, 2, 3)}
    few.wait(6.0)
    assert set(few.states_of(4).values()) == {State.DEAD}
    few.deaf.clear()
    for n in (1, 2, 3):
        few.links.add(frozenset((4, n)))
        few.nodes[n].link(4)
        few.nodes[4].link(n, dialled=False)
    few.settle()
    assert few.nodes[4].port.refutals >= 1  # told by each
