from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from irisd.registry import TopicIndex
from irisd.registry import topics as module
from irisd.registry.topics import MAX_REMEMBERED


def index(*filters: str) -> TopicIndex[str]:
    topics: TopicIndex[str] = TopicIndex()
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


def brute(filters: set[str], topic: str) -> set[str]:
    """The definition, token by token."""

    def fits(filter: list[str], tokens: list[str]) -> bool:
        if filter[:1] == [">"]:
            return bool(tokens)
        if not filter or not tokens:
            return not filter and not tokens
        return filter[0] in ("*", tokens[0]) and fits(filter[1:], tokens[1:])

    return {filter for filter in filters if fits(filter.split("."), topic.split("."))}


def test_against_the_definition_while_filters_come_and_go():
    random = Random(5)
    topics: TopicIndex[str] = TopicIndex()
    there: set[str] = set()
    for _ in range(3000):
        tokens = [random.choice(["a", "b", "c", "*"]) for _ in range(random.randint(1, 4))]
        filter = ".".join([*tokens, ">"] if random.random() < 0.3 else tokens)
        if filter in there and random.random() < 0.7:
            topics.remove(filter, filter)
            there.discard(filter)
        else:
            topics.add(filter, filter)
            there.add(filter)
        topic = ".".join(random.choice("abcd") for _ in range(random.randint(1, 5)))
        assert set(topics.match(topic)) == brute(there, topic)
        assert len(topics) == len(there)
    for filter in there:
        topics.remove(filter, filter)
    assert len(topics) == 0
    assert not topics._root.next
    assert not topics._root.rest


def test_each_entry_once():
    topics: TopicIndex[str] = TopicIndex()
    for filter in ("a.b", "a.*", "*.b", ">", "a.>"):
        topics.add(filter, "me")
    topics.add("a.b", "me")
    assert len(topics) == 5
    assert topics.match("a.b") == ("me",)
    topics.remove("a.b", "me")
    assert topics.match("a.b") == ("me",)


def test_unknown_removals_are_harmless():
    topics = index("a.b")
    for filter in ("x", "a", "a.b.c", "a.*", "a.>"):
        topics.remove(filter, filter)
    topics.remove("a.b", "somebody else")
    assert topics.match("a.b") == ("a.b",)


def test_an_answer_is_forgotten_when_a_filter_comes_or_goes():
    topics = index("a")
    assert topics.match("a") == ("a",)
    topics.add("*", "*")
    assert topics.match("a") == ("a", "*")
    topics.remove("a", "a")
    assert topics.match("a") == ("*",)


def test_remembered_answers_are_bounded():
    topics = index(">")
    for n in range(3 * MAX_REMEMBERED):
        topics.match(f"t{n}")
        assert len(topics._answers) <= MAX_REMEMBERED


class CountingBranch(module._Branch[str]):
    """Counts how often any branch is asked for the next one."""

    asked = 0

    @property
    def next(self) -> dict[str, module._Branch[str]]:
        CountingBranch.asked += 1
        return self.children

    @next.setter
    def next(self, children: dict[str, module._Branch[str]]) -> None:
        self.children = children


@pytest.fixture
def _counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_Branch", CountingBranch)
    yield
    CountingBranch.asked = 0


@pytest.mark.usefixtures("_counting")
def test_matching_does_not_grow_with_the_number_of_filters():
    """Branches looked at, not seconds: the same with ten filters as with fifty thousand."""

    def work(filters: int) -> int:
        topics: TopicIndex[str] = TopicIndex()
        for n in range(filters):
            topics.add(f"orders.{n}.created", str(n))
        topics.add("orders.*.created", "some")
        topics.add("orders.>", "all")
        before = CountingBranch.asked
        assert set(topics.match("orders.7.created")) == {"7", "some", "all"}
        return CountingBranch.asked - before

    assert work(10) == work(50_000) <= 2 * (1 + 1 + 2)
