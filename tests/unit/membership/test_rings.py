from __future__ import annotations

from random import Random

import pytest

from irisd.membership.rings import RINGS, Rings, positions, watchers
from irisd.model import NodeId


def ids(count: int, seed: int = 0) -> list[NodeId]:
    random = Random(seed)
    return [random.randbytes(16) for _ in range(count)]


def rings_of(own: NodeId, others: list[NodeId]) -> Rings:
    rings = Rings(own)
    for other in others:
        if other != own:
            rings.add(other)
    return rings


def neighbours_by_sorting(own: NodeId, nodes: list[NodeId]) -> set[NodeId]:
    """The rule in its plainest form: sort all by their place on each ring, take those on both sides."""
    near: set[NodeId] = set()
    for ring in range(RINGS):
        order = sorted(nodes, key=lambda node: positions(node)[ring])
        at = order.index(own)
        near |= {order[at - 1], order[(at + 1) % len(order)]}
    return near - {own}


def test_alone_and_in_company():
    a, b, c = ids(3)
    assert list(Rings(a).neighbours) == []
    assert set(rings_of(a, [b]).neighbours) == {b}
    assert set(rings_of(a, [b, c]).neighbours) == {b, c}


@pytest.mark.parametrize("count", [2, 3, 5, 13, 100, 400])
def test_both_sides_know_that_they_are_neighbours(count: int):
    nodes = ids(count, count)
    near = {node: set(rings_of(node, nodes).neighbours) for node in nodes}
    for node in nodes:
        assert node not in near[node]
        assert near[node] == neighbours_by_sorting(node, nodes)
        assert 1 <= len(near[node]) <= 2 * RINGS
        assert all(node in near[other] for other in near[node])


def test_nearly_all_have_the_whole_degree():
    nodes = ids(1000)
    degrees = [len(rings_of(node, nodes).neighbours) for node in nodes]
    assert sum(degrees) / len(degrees) > 11.8
    assert min(degrees) >= 2 * RINGS - 3


@pytest.mark.parametrize("seed", range(5))
def test_kept_up_to_date_it_is_as_from_scratch(seed: int):
    random = Random(seed)
    pool = ids(60, seed)
    own, rings, there = pool[0], Rings(pool[0]), dict[NodeId, None]()
    for _ in range(300):
        node = random.choice(pool[1:])
        before = set(rings.neighbours)
        if node in there:
            del there[node]
            assert rings.remove(node, there) == (node in before)
        else:
            expected = rings.would_be_near(node)
            there[node] = None
            near = rings.add(node)
            assert near == (node in rings.neighbours) == expected
        assert set(rings.neighbours) == (neighbours_by_sorting(own, [own, *there]) if there else set())


def test_removal_may_be_told_of_all_who_are_left_or_all_who_were_there():
    nodes = ids(30)
    rings = rings_of(nodes[0], nodes)
    gone = next(iter(rings.neighbours))
    rings.remove(gone, nodes)  # itself and the one that is gone among them
    assert set(rings.neighbours) == neighbours_by_sorting(nodes[0], [node for node in nodes if node != gone])


def test_the_order_of_arrival_does_not_matter():
    nodes = ids(40)
    shuffled = nodes[:]
    Random(1).shuffle(shuffled)
    assert set(rings_of(nodes[0], nodes).neighbours) == set(rings_of(nodes[0], shuffled).neighbours)


def test_watchers_of_another_are_its_neighbours():
    nodes = ids(50)
    for node in nodes[:10]:
        assert set(watchers(node, nodes)) == set(rings_of(node, nodes).neighbours)


def test_the_mesh_of_watchers_hangs_together():
    nodes = ids(500)
    near = {node: rings_of(node, nodes).neighbours for node in nodes}
    reached, edge = {nodes[0]}, [nodes[0]]
    steps = 0
    while edge:
        edge = [other for node in edge for other in near[node] if other not in reached]
        reached |= set(edge)
        steps += 1
    assert len(reached) == 500
    assert steps <= 6


def test_positions_are_fixed_for_all_times():
    assert positions(bytes(16)) == (
        18157431413907491868,
        10528712836146956972,
        15225275589121753200,
        5373840227759802153,
        4395578894633026639,
        15136098236346432862,
    )
