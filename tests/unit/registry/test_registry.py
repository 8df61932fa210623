from __future__ import annotations

import pytest

from irisd.model import Claim
from irisd.registry import Match, OwnRecord, Registry
from irisd.registry import registry as module
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
    own = OwnRecord()
    assert own.set(DB)
    assert not own.set(DB)
    assert own.version == 1
    assert own.set(Claim(3, cluster="db", patterns=1))
    assert own.set(ORDERS)
    assert own.claims() == [Claim(3, cluster="db", patterns=1), ORDERS]
    assert own.set(Claim(0, cluster="db"))
    assert not own.set(Claim(0, cluster="db"))
    assert not own.set(Claim(0, cluster="never"))
    assert (own.version, own.claims()) == (4, [ORDERS])


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
        assert len(registry._matches) <= MAX_REMEMBERED
