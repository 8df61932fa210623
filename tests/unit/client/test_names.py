"""Names: refused before anything is sent."""

from __future__ import annotations

import pytest

from iris_client import InvalidName, IrisError
from iris_client import _names as names


@pytest.mark.parametrize("good", ["a", "databases", "a.b-c_d.E9", "x" * 200])
def test_good_everywhere(good: str):
    for check in (names.address, names.cluster, names.topic, names.topic_filter, names.method):
        assert check(good) == good


@pytest.mark.parametrize("good", ["shop/databases", "databases@eu", "shop.x/databases.y@eu-1"])
def test_addresses_have_parts(good: str):
    assert names.address(good) == good
    with pytest.raises(InvalidName):
        names.cluster(good)


@pytest.mark.parametrize("good", ["*", ">", "orders.*", "*.x.>", "orders.>"])
def test_filters_have_wildcards(good: str):
    assert names.topic_filter(good) == good
    with pytest.raises(InvalidName):
        names.topic(good)


@pytest.mark.parametrize(
    "bad", ["", ".", "a.", ".a", "a..b", "a b", "ä", "a/b/c", "a@", "/a", "x" * 201, "_iris.x", "a\n"]
)
def test_bad(bad: str):
    for check in (names.address, names.cluster, names.topic, names.topic_filter):
        with pytest.raises(InvalidName):
            check(bad)


@pytest.mark.parametrize("bad", [">.a", "a.>.b", "a>", "**", "a.*b", ">>"])
def test_bad_filters(bad: str):
    with pytest.raises(InvalidName, match="topic filter"):
        names.topic_filter(bad)


@pytest.mark.parametrize("bad", [None, 5, b"bytes", ["list"]])
def test_not_a_string(bad: object):
    for check in (names.address, names.cluster, names.topic, names.topic_filter, names.method):
        with pytest.raises(InvalidName, match="is a str, not"):
            check(bad)  # type: ignore[arg-type]


def test_reserved_is_said():
    with pytest.raises(InvalidName, match="reserved"):
        names.address("shop/_iris.nodes")


def test_length_is_said():
    with pytest.raises(InvalidName, match="at most 200 bytes, this one has 500"):
        names.topic("x" * 500)


def test_an_invalid_name_is_a_value_error():
    assert issubclass(InvalidName, ValueError)
    assert issubclass(InvalidName, IrisError)


def test_what_passed_is_remembered_within_a_bound():
    check = names._Checked(names._check_topic)
    for number in range(names._CACHE_ENTRIES + 10):
        check(f"t{number}")
    assert len(check._passed) <= names._CACHE_ENTRIES


def test_method_may_be_empty():
    assert names.method("") == ""


def test_headers():
    assert names.headers(None) == {}
    given = {"a": "b", "traceparent": "00-ff"}
    checked = names.headers(given)
    assert checked == given
    assert checked is not given


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({str(n): "" for n in range(65)}, "at most 64"),
        ({"a": "x" * 9000}, "8192 bytes"),
        ({"a": 5}, "str to int"),
        ({5: "a"}, "int to str"),
        ({"": "a"}, "empty"),
        ({"a": "\ud800"}, "UTF-8"),
    ],
)
def test_bad_headers(bad: dict, why: str):
    with pytest.raises(InvalidName, match=why):
        names.headers(bad)
