from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irisd.registry import MAX_SHAPES, TopicIndex, entries
from irisd.registry.topics import MAX_REMEMBERED

Topics = TopicIndex[str, tuple[str, ...]]


def index(*filters: str) -> Topics:
    topics = Topics(entries)
    for filter in filters:
        topics.add(filter, filter)
    return topics


@pytest.mark.parametrize(
    ("filter", "topic", "matches"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a.b", False),
        ("a.b", "a.b", True),
        ("a.b", "a", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("*.b", "a.b", True),
        ("*.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.d", False),
        (">", "a", True),
        (">", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c.d", True),
        ("a.>", "b.c", False),
        ("*.>", "a", False),
        ("*.>", "a.b", True),
        ("a.*.>", "a.b", False),
        ("a.*.>", "a.b.c", True),
    ],
)
def test_wildcards(filter: str, topic: str, matches: bool):
    assert index(filter).match(topic) == ((filter,) if matches else ())


def fits(filter: list[str], tokens: list[str]) -> bool:
    """The definition, token by token."""
    if filter[:1] == [">"]:
        return bool(tokens)
    if not filter or not tokens:
        return not filter and not tokens
    return filter[0] in ("*", tokens[0]) and fits(filter[1:], tokens[1:])


TOKENS = st.sampled_from("ab")
TOPICS = st.lists(TOKENS, min_size=1, max_size=4).map(".".join)
FILTERS = st.one_of(
    TOPICS,
    st.builds(
        lambda tokens, tail: ".".join(tokens + tail) or ">",
        st.lists(st.sampled_from("ab*"), max_size=4),
        st.sampled_from([[], [">"]]),
    ),
)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove", "match"]), FILTERS, st.sampled_from("xyz"), TOPICS))


@given(STEPS)
def test_against_the_definition_while_filters_come_and_go(steps: list[tuple[str, str, str, str]]):
    topics = Topics(entries)
    there: set[tuple[str, str]] = set()
    asked: set[str] = set()
    for what, filter, entry, topic in steps:
        if what == "add":
            topics.add(filter, entry)
            there.add((filter, entry))
        elif what == "remove":
            topics.remove(filter, entry)
            there.discard((filter, entry))
        asked.add(topic)  # and so remembered
        assert len(topics) == len(there)
        for topic in asked:
            expected = Counter(each for each in there if fits(each[0].split("."), topic.split(".")))
            assert Counter(topics.find(topic)) == expected
            assert Counter(topics.match(topic)) == Counter(entry for _, entry in expected.elements())
    for filter, entry in there:
        topics.remove(filter, entry)
    assert len(topics) == topics.shapes == 0
    assert not any([*topics._plain, topics._starred, topics._tailed])


def test_an_entry_under_many_filters_is_found_under_each():
    topics = Topics(entries)
    for filter in ("a.b", "a.*", "*.b", ">", "a.>"):
        topics.add(filter, "me")
    topics.add("a.b", "me")
    assert len(topics) == 5
    assert topics.match("a.b") == ("me",) * 5
    topics.remove("a.b", "me")
    assert topics.match("a.b") == ("me",) * 4


def test_unknown_removals_are_harmless():
    topics = index("a.b", "a.c")
    topics.add("a.c", "another")
    for filter in ("x", "a", "a.b.c", "a.*", "a.>"):
        topics.remove(filter, filter)
    topics.remove("a.b", "somebody else")
    topics.remove("a.c", "somebody else")
    assert topics.match("a.b") == ("a.b",)
    assert topics.match("a.c") == ("a.c", "another")


@pytest.mark.parametrize("topic", ["a.*", "*.b", "a.>", ">", "*", "", ".", "a..b"])
def test_what_only_a_hostile_peer_calls_a_topic_is_looked_up_once(topic: str):
    topics = index("a.*", "*.b", "a.>", ">", "*")
    found = topics.match(topic)
    assert len(set(found)) == len(found)


def test_an_answer_is_forgotten_when_a_filter_comes_or_goes():
    topics = index("a")
    assert topics.match("a") == ("a",)
    topics.add("*", "*")
    assert topics.match("a") == ("a", "*")
    topics.remove("a", "a")
    assert topics.match("a") == ("*",)


class Counting:
    """Counts how often answers are worked out, and the look-ups that takes."""

    def __init__(self) -> None:
        self.answers = 0
        self.topics: TopicIndex[str, set[str]] = TopicIndex(self._add_up)

    def _add_up(self, found: list[tuple[str, str]]) -> set[str]:
        self.answers += 1
        return {entry for _, entry in found}

    def lookups(self, topic: str) -> int:
        return len(self.topics._lookups(topic))


def test_a_filter_without_wildcards_touches_the_answer_for_its_topic_only():
    counting = Counting()
    for n in range(100):
        counting.topics.match(f"t.{n}")
    for _ in range(1000):  # one that flips
        counting.topics.add("t.5", "me")
        counting.topics.remove("t.5", "me")
    for n in range(100):
        counting.topics.match(f"t.{n}")
    assert counting.answers == 101
    counting.topics.add("t.*", "me")
    assert counting.topics.match("t.7") == {"me"}
    assert counting.answers == 102


def test_remembered_answers_are_bounded():
    topics = index(">")
    for n in range(3 * MAX_REMEMBERED):
        topics.match(f"t{n}")
        assert len(topics._answers) <= MAX_REMEMBERED


def test_matching_does_not_grow_with_the_number_of_filters():
    """Look-ups, not seconds: the same with ten filters as with fifty thousand."""

    def work(filters: int) -> int:
        counting = Counting()
        for n in range(filters):
            counting.topics.add(f"orders.{n}.created", str(n))
            counting.topics.add(f"orders.{n}.*", str(n))
            counting.topics.add(f"orders.{n}.>", str(n))
        counting.topics.add("orders.*.created", "some")
        counting.topics.add("orders.>", "all")
        assert counting.topics.match("orders.7.created") == {"7", "some", "all"}
        return counting.lookups("orders.7.created")

    assert work(10) == work(50_000) == 1 + 4  # itself, and the shapes x.y.*, x.*.z, x.>, x.y.>


def test_the_worst_filters_cost_a_lookup_for_each_of_their_shapes():
    """``*`` or not in each of twelve places: as many shapes as an app may make of them, and no more."""
    counting = Counting()
    taken = 0
    for tokens in product("*a", repeat=12):
        filter = ".".join([*tokens, "z"])
        if counting.topics.fits(filter):
            counting.topics.add(filter, "me")
            taken += 1
        assert counting.topics.shapes <= MAX_SHAPES
    assert taken == MAX_SHAPES + 1  # the last is without wildcards
    topic = ".".join("a" * 12)
    assert counting.lookups(f"{topic}.y") == 1 + MAX_SHAPES
    assert counting.topics.match(f"{topic}.y") == set()
    assert counting.topics.match(f"{topic}.z") == {"me"}
    assert counting.lookups("a.b") == 1  # shapes of another length cost nothing
    assert counting.topics.fits("b" + ".*" * 12) is False
    assert counting.topics.fits("*." * 12 + "another")  # a shape there is


def test_shapes_are_told_apart_by_place_length_and_tail():
    topics = index("a.*", "b.*", "*.a", "a.b.*", "a.>", "*.>", ">", "a", "a.b")
    assert topics.shapes == 6
    for filter in ("a.*", "*.>"):
        topics.remove(filter, filter)
    assert topics.shapes == 5
