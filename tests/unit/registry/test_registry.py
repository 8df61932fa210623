from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irisd.model import Claim
from irisd.registry import Match, OwnRecord, Record, Registry
from irisd.registry import record as record_module
from irisd.registry import registry as module
from irisd.registry.registry import SWEEP
from irisd.registry.topics import MAX_REMEMBERED

A, B, C = (bytes([n]) * 16 for n in (1, 2, 3))
DB = Claim(2, cluster="db", patterns=1)
ORDERS = Claim(1, topic="orders.*")
GROUP = Claim(3, topic="orders.>", group="billing")


def reachable() -> Registry:
    registry = Registry()
    for node in (A, B, C):
        registry.routable(node, True)
    return registry


def test_own_record_counts_changes():
    registry = Registry()
    own = OwnRecord(registry, A)
    assert own.set(DB)
    assert not own.set(DB)
    assert own.version == 1
    assert own.set(Claim(3, cluster="db", patterns=1))
    assert own.set(ORDERS)
    assert list(own.claims()) == [Claim(3, cluster="db", patterns=1), ORDERS]
    assert list(registry.claims(A)) == list(own.claims())
    assert own.get(ORDERS.key) == ORDERS
    assert (len(own), own.get(GROUP.key), own.get(("web", "", ""))) == (2, None, None)
    assert own.set(Claim(0, cluster="db"))
    assert not own.set(Claim(0, cluster="db"))
    assert not own.set(Claim(0, cluster="never"))
    assert (own.version, list(own.claims())) == (4, [ORDERS])


def test_who_serves():
    registry = reachable()
    assert registry.serving("db") == {}
    registry.learn(A, [DB])
    registry.learn(B, [Claim(1, cluster="db", patterns=2)])
    assert registry.serving("db") == {A: DB, B: Claim(1, cluster="db", patterns=2)}
    assert registry.clusters() == [("db", registry.serving("db"))]
    registry.learn(A, [Claim(0, cluster="db")])
    assert list(registry.serving("db")) == [B]
    registry.learn(B, [Claim(0, cluster="db"), Claim(0, cluster="unknown")])
    assert registry.clusters() == []


def test_a_changed_claim_replaces():
    registry = reachable()
    registry.learn(A, [DB])
    registry.learn(A, [Claim(5, cluster="db", patterns=31)])
    assert registry.serving("db")[A].members == 5


def test_a_whole_record_forgets_what_was_held():
    registry = reachable()
    registry.learn(A, [DB, ORDERS])
    assert registry.match("orders.x").everyone == (A,)
    registry.learn(A, [Claim(1, cluster="web")], full=True)
    assert registry.serving("db") == {}
    assert list(registry.serving("web")) == [A]
    assert registry.match("orders.x") == Match((), {}, ())


def test_where_a_topic_goes():
    registry = reachable()
    registry.learn(A, [ORDERS, GROUP])
    registry.learn(B, [GROUP, Claim(1, topic="orders.x", group="audit")])
    registry.learn(C, [Claim(1, topic=">"), Claim(1, topic="orders.x")])
    match = registry.match("orders.x")
    assert sorted(match.everyone) == [A, C]  # each node once, whatever the number of filters
    assert match.groups == {"billing": {A: 3, B: 3}, "audit": {B: 1}}
    assert match.unreachable == ()
    assert registry.match("other").everyone == (C,)
    assert registry.match("orders.x") is match  # remembered
    registry.learn(C, [Claim(0, topic=">")])
    assert registry.match("orders.x") is not match


def test_a_group_with_two_filters_is_weighed_once():
    registry = reachable()
    registry.learn(A, [Claim(2, topic="o.*", group="g"), Claim(3, topic="o.x", group="g")])
    assert registry.match("o.x").groups == {"g": {A: 3}}


def test_an_unreachable_node_serves_nothing_but_its_losses_count():
    registry = reachable()
    registry.learn(A, [DB, ORDERS, GROUP])
    registry.learn(B, [GROUP])
    registry.routable(A, False)
    registry.routable(A, False)
    registry.routable(C, False)
    assert registry.serving("db") == {}
    match = registry.match("orders.x")
    assert match.everyone == ()
    assert match.groups == {"billing": {B: 3}}  # the group has somebody else: nothing is lost for it
    assert match.unreachable == ((A, ""),)
    registry.routable(B, False)
    # one member of the group would have had it: it is lost once
    assert registry.match("orders.x").unreachable == ((A, ""), (A, "billing"))


def test_an_unreachable_node_comes_back_with_its_whole_record():
    registry = reachable()
    registry.learn(A, [DB, ORDERS])
    registry.routable(A, False)
    registry.learn(A, [DB], full=True)
    assert registry.serving("db") == {}
    registry.routable(A, True)
    assert list(registry.serving("db")) == [A]
    assert registry.match("orders.x") == Match((), {}, ())


@pytest.mark.parametrize("cut_first", [False, True])
def test_forgetting_a_node(cut_first: bool):
    registry = reachable()
    registry.learn(A, [DB, ORDERS])
    registry.learn(B, [DB])
    if cut_first:
        registry.routable(A, False)
    registry.forget(A)
    registry.forget(A)
    assert list(registry.serving("db")) == [B]
    assert registry.match("orders.x") == Match((), {}, ())
    assert registry.topics() == {}


def test_topics_are_listed_with_their_nodes():
    registry = reachable()
    registry.learn(A, [ORDERS, GROUP, DB])
    registry.learn(B, [ORDERS])
    assert registry.topics() == {("orders.*", ""): {A: 1, B: 1}, ("orders.>", "billing"): {A: 3}}


def test_topics_of_a_node_that_is_lost_are_not_listed():
    registry = reachable()
    registry.learn(A, [ORDERS, GROUP])
    registry.learn(B, [ORDERS])
    registry.routable(A, False)  # what it misses is counted still
    assert registry.topics() == {("orders.*", ""): {B: 1}}
    assert registry.match("orders.x").unreachable


def test_claims_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_CLAIMS", 10)
    registry = reachable()
    assert registry.learn(A, [Claim(1, cluster=f"c{n}") for n in range(10)]) is None
    assert registry.learn(A, [Claim(2, cluster="c0")]) is None
    broken = registry.learn(A, [Claim(1, cluster="c10")])
    assert broken is not None
    assert "more than 10" in broken
    registry.forget(A)
    assert registry.clusters() == []


def test_remembered_matches_are_bounded():
    registry = reachable()
    for n in range(2 * MAX_REMEMBERED):
        registry.match(f"t{n}")
        assert len(registry._topics._answers) <= MAX_REMEMBERED


def test_the_last_claims_there_is_room_for_are_counted_as_they_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_CLAIMS", 3)
    registry = reachable()
    one, two = Claim(1, topic="one"), Claim(1, topic="two")
    assert registry.learn(A, [DB, ORDERS, GROUP]) is None
    assert registry.learn(A, [Claim(0, cluster="db"), one]) is None
    assert registry.learn(A, [one, one, Claim(2, topic="one")]) is None
    assert registry.learn(A, [Claim(0, topic="one"), one, two]) is not None
    assert list(registry.claims(A)) == [ORDERS, Claim(2, topic="one"), GROUP]
    assert registry.learn(A, [one, two, DB, Claim(0, topic="two")], full=True) is None
    assert registry.learn(A, [one, two, DB, ORDERS], full=True) is not None
    assert list(registry.claims(A)) == [DB, one]


def test_a_claim_that_changes_changes_the_match():
    registry = reachable()
    registry.learn(A, [Claim(2, topic="o.x", group="g")])
    assert registry.match("o.x").groups == {"g": {A: 2}}
    registry.learn(A, [Claim(3, topic="o.x", group="g")])
    assert registry.match("o.x").groups == {"g": {A: 3}}
    assert registry.match("o.x").blocking is None
    registry.learn(A, [Claim(3, topic="o.x", group="g", blocks=True)])
    assert registry.match("o.x").blocking is not None
    assert registry.blocks((A, "o.x", "g"))
    registry.learn(A, [Claim(3, topic="o.x", group="g")])
    assert registry.match("o.x").blocking is None
    assert registry.freed == {(A, "o.x", "g"): None}


# -- long records


def test_a_draft_does_not_count_before_it_is_adopted():
    registry = reachable()
    registry.learn(A, [DB, ORDERS])
    draft = registry.draft(A)
    assert registry.write(draft, [Claim(1, topic="other"), Claim(1, topic="orders.x", blocks=True)]) is None
    assert registry.write(draft, [Claim(1, cluster="web")]) is None
    assert registry.match("orders.x") == Match((A,), {}, ())
    assert registry.match("other") == Match((), {}, ())
    assert (list(registry.serving("db")), list(registry.serving("web"))) == ([A], [])
    registry.adopt(draft)
    assert registry.match("orders.x").blocking is not None
    assert registry.match("orders.y") == Match((), {}, ())
    assert registry.match("other").everyone == (A,)
    assert (list(registry.serving("db")), list(registry.serving("web"))) == ([], [A])
    assert registry.topics() == {("other", ""): {A: 1}, ("orders.x", ""): {A: 1}}


def test_a_draft_that_comes_to_nothing():
    registry = reachable()
    registry.learn(A, [ORDERS])
    draft = registry.draft(A)
    registry.write(draft, [Claim(1, topic="orders.x", blocks=True), DB])
    registry.retire(draft)
    assert registry.match("orders.x") == Match((A,), {}, ())
    assert registry.freed == {}
    assert len(registry._topics) == 1


def test_a_long_record_is_forgotten_bit_by_bit():
    registry = reachable()
    count = 3 * SWEEP
    registry.learn(A, [Claim(1, topic=f"t.{n}", group=str(n % 3)) for n in range(count)])
    registry.learn(B, [Claim(1, topic="t.1")])
    registry.forget(A)
    assert registry.match("t.1") == Match((B,), {}, ())
    assert len(registry._topics) == 1 + count - SWEEP
    registry.sweep(10)
    assert len(registry._topics) == 1 + count - SWEEP - 10
    registry.learn(A, [Claim(1, topic="t.5")])  # it is back, meanwhile
    registry.routable(A, True)
    while registry.retired:
        registry.sweep()
    assert len(registry._topics) == 2
    assert registry.match("t.5").everyone == (A,)


def test_claims_may_change_while_they_are_told():
    registry = reachable()
    registry.learn(A, [Claim(1, topic=f"t.{n}") for n in range(4)] + [DB])
    told = registry.claims(A)
    assert next(told) == DB
    registry.learn(A, [Claim(0, topic="t.1"), Claim(2, topic="t.2"), Claim(1, topic="t.4")])
    assert list(told) == [Claim(1, topic="t.0"), Claim(2, topic="t.2"), Claim(1, topic="t.3")]


# -- against the definition

NODES = st.sampled_from([A, B])
CLAIMS = st.builds(
    lambda members, filter, group, blocks: Claim(members, topic=filter, group=group, blocks=blocks and members > 0),
    st.integers(0, 2),
    st.sampled_from(["a", "b", "a.a", "a.*", "*.a", "*", ">", "a.>", "*.>"]),
    st.sampled_from(["", "g", "h"]),
    st.booleans(),
)
STEPS: st.SearchStrategy[tuple[str, bytes, list[Claim]]] = st.one_of(
    st.tuples(st.just("learn"), NODES, st.lists(CLAIMS, max_size=3)),
    st.tuples(st.just("full"), NODES, st.lists(CLAIMS, max_size=3)),
    st.tuples(st.just("draft"), NODES, st.lists(CLAIMS, max_size=3)),
    st.tuples(st.just("adopt"), NODES, st.just([])),
    st.tuples(st.sampled_from(["routable", "cut", "forget"]), NODES, st.just([])),
)
TOPICS = ("a", "b", "a.a", "a.b", "b.a", "a.a.a")


def fits(filter: list[str], tokens: list[str]) -> bool:
    if filter[:1] == [">"]:
        return bool(tokens)
    if not filter or not tokens:
        return not filter and not tokens
    return filter[0] in ("*", tokens[0]) and fits(filter[1:], tokens[1:])


def by_definition(claims: dict[bytes, dict[tuple[str, str, str], Claim]], routable: set[bytes], topic: str) -> Any:
    found = [
        (node, claim)
        for node, held in claims.items()
        for claim in held.values()
        if fits(claim.topic.split("."), topic.split("."))
    ]
    groups: dict[str, dict[bytes, int]] = {}
    for node, claim in found:
        if claim.group and node in routable:
            nodes = groups.setdefault(claim.group, {})
            nodes[node] = max(nodes.get(node, 0), claim.members)
    lost = {claim.group for node, claim in found if claim.group and node not in routable} - groups.keys()
    return (
        {node for node, claim in found if not claim.group and node in routable},
        groups,
        {node for node, claim in found if not claim.group and node not in routable},
        lost,
        {(node, claim.topic, claim.group) for node, claim in found if claim.blocks and node in routable},
    )


def as_sets(match: Match) -> Any:
    blocking = match.blocking
    keys = set(blocking.everyone) if blocking else set()
    for nodes in blocking.groups.values() if blocking else ():
        keys.update(key for some in nodes.values() for key in some)
    return (
        set(match.everyone),
        match.groups,
        {node for node, group in match.unreachable if not group},
        {group for _, group in match.unreachable if group},
        keys,
    )


@pytest.mark.parametrize("part", [2, record_module.PART])
@given(steps=st.lists(STEPS, max_size=12))
def test_against_the_definition_while_everything_changes(part: int, steps: list[tuple[str, bytes, list[Claim]]]):
    with mock.patch.object(record_module, "PART", part):
        check_against_the_definition(steps)


def check_against_the_definition(steps: list[tuple[str, bytes, list[Claim]]]) -> None:
    registry = Registry()
    claims: dict[bytes, dict[tuple[str, str, str], Claim]] = {A: {}, B: {}}
    drafts: dict[bytes, tuple[Record, dict[tuple[str, str, str], Claim]]] = {}
    routable: set[bytes] = set()

    def write(held: dict[tuple[str, str, str], Claim], new: list[Claim]) -> None:
        held.update({claim.key: claim for claim in new})
        for key in [key for key, claim in held.items() if not claim.members]:
            del held[key]

    for what, node, new in steps:
        if what in ("learn", "full"):
            if what == "full":
                claims[node] = {}
            write(claims[node], new)
            registry.learn(node, new, full=what == "full")
        elif what == "draft":
            record, held = drafts.setdefault(node, (registry.draft(node), {}))
            write(held, new)
            registry.write(record, new)
        elif what == "adopt" and node in drafts:
            record, claims[node] = drafts.pop(node)
            registry.adopt(record)
        elif what == "routable":
            routable.add(node)
            registry.routable(node, True)
        elif what == "cut":
            routable.discard(node)
            registry.routable(node, False)
        elif what == "forget":
            claims[node] = {}
            routable.discard(node)
            registry.forget(node)
        for topic in TOPICS:  # and so remembered
            assert as_sets(registry.match(topic)) == by_definition(claims, routable, topic)
        for node, held in claims.items():
            assert {claim.key: claim for claim in registry.claims(node)} == held
            assert registry.size(node) == len(held)
            for key, claim in held.items():
                assert registry.claim(node, key) == claim
                assert registry.blocks((node, *key[1:])) == (claim.blocks and node in routable)


def test_the_dicts_are_no_more_than_it_takes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record_module, "PART", 10)
    registry = reachable()
    for start in range(0, 1000, 50):
        registry.learn(A, [Claim(1, topic=f"t.{n}") for n in range(start, start + 50)])
        registry.learn(A, [Claim(0, topic=f"t.{n}") for n in range(start, start + 50) if n % 50])
    record = registry.record(A)
    assert record is not None
    assert len(record) == 20
    assert len(record.audiences[""]._parts) <= (20 + 50) / 10 + 1
    assert set(record.audiences[""]) == {f"t.{n}" for n in range(0, 1000, 50)}
