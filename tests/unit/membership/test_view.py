from __future__ import annotations

import itertools
from dataclasses import replace
from hashlib import blake2b
from random import Random

import pytest

from irisd.membership import view as view_module
from irisd.membership.view import GONE_MEMORY, MAX_GONE, MAX_JUMP, UNRECORDED, Known, Verdict, View
from irisd.model import State
from irisd.wire.views import BUCKETS, Held
from tests.unit.membership.ground import id_of, record_of

OWN = id_of(1)


def view_with(*, incarnation: int = 3, version: int = 5, state: State = State.ALIVE) -> View:
    """A view that knows node 2."""
    view = View(record_of(1), 0, 0.0)
    view.enter(Known(record_of(2, incarnation), version, State.ALIVE, 0.0, OWN))
    if state >= State.DEAD:
        view.bury(id_of(2), state, 0.0)
    elif state is not State.ALIVE:
        view.present[id_of(2)].state = state
    return view


def recomputed(view: View) -> tuple[int, list[int]]:
    digest, buckets = 0, [0] * BUCKETS
    for node, known in view.present.items():
        if known.version != UNRECORDED:
            raw = node + known.record.incarnation.to_bytes(8) + known.version.to_bytes(8)
            mark = int.from_bytes(blake2b(raw, digest_size=16).digest())
            digest ^= mark
            buckets[node[0]] ^= mark & 0xFFFF_FFFF
    return digest, buckets


@pytest.mark.parametrize(
    ("incarnation", "base", "version", "full", "verdict"),
    [
        (3, 5, 6, False, Verdict.NEWS),
        (None, 5, 6, False, Verdict.NEWS),  # as before
        (3, 5, 5, False, Verdict.STALE),
        (3, 0, 5, True, Verdict.STALE),  # the same, whole
        (3, 0, 4, True, Verdict.STALE),
        (2, 0, 900, True, Verdict.STALE),  # the incarnation goes first
        (3, 4, 6, False, Verdict.LACKING),  # a change of what is not held
        (3, 6, 7, False, Verdict.LACKING),
        (3, 0, 900, True, Verdict.NEWS),
        (4, 5, 6, False, Verdict.NEWS),  # a refutation is a change as any other
        (4, 0, 0, True, Verdict.NEWS),
        (4, 4, 6, False, Verdict.LACKING),
        (3 + MAX_JUMP, 0, 1, True, Verdict.NEWS),
        (4 + MAX_JUMP, 0, 1, True, Verdict.FUTURE),
        (4 + MAX_JUMP, 5, 6, False, Verdict.FUTURE),
    ],
)
@pytest.mark.parametrize("state", [State.JOINING, State.ALIVE, State.SUSPECT])
def test_records_merge_by_incarnation_then_version(incarnation, base, version, full, verdict, state):
    about = None if incarnation is None else record_of(2, incarnation)
    assert view_with(state=state).judge(id_of(2), about, base, version, full=full) is verdict


@pytest.mark.parametrize(
    ("incarnation", "full", "verdict"),
    [
        (3, True, Verdict.BURIED),
        (2, True, Verdict.BURIED),
        (None, True, Verdict.BURIED),
        (3, False, Verdict.BURIED),
        (4, True, Verdict.NEWS),
        (4, False, Verdict.LACKING),  # its claims are not to be trusted any more
        (4 + MAX_JUMP, True, Verdict.FUTURE),
    ],
)
@pytest.mark.parametrize("state", [State.DEAD, State.LEFT])
def test_only_a_newer_incarnation_raises_the_dead(incarnation, full, verdict, state):
    about = None if incarnation is None else record_of(2, incarnation)
    assert view_with(state=state).judge(id_of(2), about, 5, 999, full=full) is verdict


def test_strangers_are_news_only_whole_and_with_a_name():
    view = View(record_of(1), 0, 0.0)
    assert view.judge(id_of(2), record_of(2), 0, 1, full=True) is Verdict.NEWS
    assert view.judge(id_of(2), record_of(2), 0, 1, full=False) is Verdict.LACKING
    assert view.judge(id_of(2), None, 0, 1, full=True) is Verdict.LACKING


def test_there_is_room_for_so_many_nodes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(view_module, "MAX_NODES", 2)
    view = view_with()
    assert view.judge(id_of(3), record_of(3), 0, 1, full=True) is Verdict.FULL
    assert view.judge(id_of(2), record_of(2, 4), 0, 1, full=True) is Verdict.NEWS  # it has its place


def test_nobody_else_writes_this_nodes_record():
    view = View(record_of(1), 0, 0.0)
    for incarnation in (1, 2, 1 << 40):
        assert view.judge(OWN, record_of(1, incarnation), 0, 9, full=True) is Verdict.OWN


def test_a_node_whose_record_has_not_come_takes_any_whole_one():
    view = view_with(version=UNRECORDED)
    assert view.judge(id_of(2), record_of(2, 3), 0, 0, full=True) is Verdict.NEWS
    assert view.judge(id_of(2), record_of(2, 3), 0, 1, full=False) is Verdict.LACKING


def test_nodes_without_a_record_are_not_in_the_digest():
    view = View(record_of(1), 0, 0.0)
    before = view.digest, list(view.buckets)
    view.enter(Known(record_of(2), UNRECORDED, State.ALIVE, 0.0, OWN))
    assert (view.digest, view.buckets) == before
    assert [held.node for held in view.held(range(BUCKETS))] == [OWN]
    view.bury(id_of(2), State.DEAD, 1.0)
    assert (view.digest, view.buckets) == before


def test_what_is_suspected_is_not_in_the_digest():
    assert view_with().digest == view_with(state=State.SUSPECT).digest != view_with(state=State.DEAD).digest


@pytest.mark.parametrize("seed", range(5))
def test_digest_and_buckets_are_those_computed_anew(seed: int):
    random, view, now = Random(seed), View(record_of(1), 0, 0.0), 0.0
    records = {n: replace(record_of(n), node_id=random.randbytes(16)) for n in range(2, 40)}
    for _ in range(400):
        now += 1
        record = records[random.randrange(2, 40)]
        known = view.present.get(record.node_id)
        version = random.choice([UNRECORDED, 0, 1, 1 << 63])
        if known is None:
            view.enter(Known(record, version, State.ALIVE, now, OWN))
        elif random.random() < 0.3:
            view.bury(record.node_id, random.choice([State.DEAD, State.LEFT]), now)
        else:
            view.update(known, replace(record, incarnation=random.randrange(1 << 62)), version)
        assert (view.digest, view.buckets) == recomputed(view)
        assert not view.present.keys() & view.gone.keys()


def test_the_order_of_news_does_not_matter():
    digests = set()
    for order in itertools.permutations((2, 3, 4)):
        view = View(record_of(1), 0, 0.0)
        for number in order:
            view.enter(Known(record_of(number), number, State.ALIVE, 0.0, OWN))
        digests.add((view.digest, *view.buckets))
    assert len(digests) == 1


def test_differing_buckets_lead_to_what_differs():
    one, other = view_with(version=5), view_with(version=6)
    assert one.differing(other.buckets) == [id_of(2)[0]]
    assert one.differing(one.buckets) == []
    assert list(one.held([0])) == [Held(OWN, 1, 0), Held(id_of(2), 3, 5)]
    assert list(one.held([1])) == []
    with pytest.raises(ValueError, match="zip"):
        one.differing([0])


def test_tombstones_are_kept_for_their_time():
    view = view_with(state=State.DEAD)
    view.expire(GONE_MEMORY - 0.01)
    assert view.known(id_of(2)) is view.gone[id_of(2)]
    view.expire(GONE_MEMORY)
    assert view.known(id_of(2)) is None


def test_tombstones_are_bounded_and_the_oldest_goes_first():
    view = View(record_of(1), 0, 0.0)
    for number in range(2, MAX_GONE + 4):
        view.enter(Known(record_of(number), 0, State.ALIVE, 0.0, OWN))
        view.bury(id_of(number), State.DEAD, number / 10)
    assert len(view.gone) == MAX_GONE
    assert next(iter(view.gone)) == id_of(4)


def test_whoever_is_back_has_no_tombstone_and_a_new_one_is_the_youngest():
    view = View(record_of(1), 0, 0.0)
    for number in (2, 3):
        view.enter(Known(record_of(number), 0, State.ALIVE, 0.0, OWN))
        view.bury(id_of(number), State.DEAD, float(number))
    view.enter(Known(record_of(2, 2), 0, State.ALIVE, 0.0, OWN))
    assert list(view.gone) == [id_of(3)]
    view.bury(id_of(2), State.DEAD, 9.0)
    assert list(view.gone) == [id_of(3), id_of(2)]
