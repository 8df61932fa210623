from __future__ import annotations

import pytest

from irisd.router import Address, BadName, parse_address, valid_cluster, valid_filter, valid_topic
from irisd.router.names import MAX_NAME

GOOD = ["a", "A-1_b", "a.b.c", "x" * MAX_NAME, "_iris", "_irish.x", "0", "-"]
BAD = ["", ".", "a.", ".a", "a..b", "a b", "a\n", "ä", "*", ">", "x" * (MAX_NAME + 1), "_iris.x", "a\0"]


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name: str):
    assert valid_topic(name) == valid_cluster(name) == valid_filter(name) == name
    assert parse_address(name) == Address("", name, "")


@pytest.mark.parametrize("name", BAD)
def test_bad_names_say_why_and_stay_short(name: str):
    for check in (valid_topic, valid_cluster, parse_address):
        with pytest.raises(BadName) as caught:
            check(name)
        assert len(str(caught.value)) < 300
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("filter", ["*", ">", "a.*", "a.>", "*.b", "a.*.c", "*.*.>"])
def test_good_filters(filter: str):
    assert valid_filter(filter) == filter


@pytest.mark.parametrize("filter", ["", "a>", ">.a", "a.>.b", "**", "a*", "*a", "a.*b", "a..>", "_iris.>", ">>"])
def test_bad_filters(filter: str):
    with pytest.raises(BadName, match="topic filter"):
        valid_filter(filter)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("db", ("", "db", "")),
        ("shop/db", ("shop", "db", "")),
        ("db@paris", ("", "db", "paris")),
        ("shop.eu/db.main@paris-1", ("shop.eu", "db.main", "paris-1")),
    ],
)
def test_addresses(text: str, address: tuple[str, str, str]):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["/db", "shop/", "shop//db", "a/b/c", "db@", "@paris", "db@a@b", "shop/_iris.x", "s p/db", "db@_iris.x"]
)
def test_bad_addresses(text: str):
    with pytest.raises(BadName):
        parse_address(text)


def test_the_whole_address_is_bounded():
    half = "x" * (MAX_NAME // 2)
    with pytest.raises(BadName, match=f"longer than {MAX_NAME} bytes"):
        parse_address(f"{half}/{half}")


def test_reserved_names_say_so():
    with pytest.raises(BadName, match="reserved"):
        valid_cluster("_iris.internal")
