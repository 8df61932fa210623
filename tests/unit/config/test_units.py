"""Sizes, durations, addresses: what is read, what is refused, and that what is shown can be read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irisd.config.units import (
    Address,
    Listener,
    parse_address,
    parse_count,
    parse_duration,
    parse_flag,
    parse_listener,
    parse_mode,
    parse_name,
    parse_path,
    parse_size,
    parse_target,
    parse_text,
    show_duration,
    show_flag,
    show_size,
)

PARSERS = [
    parse_address,
    parse_count,
    parse_duration,
    parse_flag,
    parse_listener,
    parse_mode,
    parse_name,
    parse_path,
    parse_size,
    parse_target,
    parse_text,
]


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (65_536, 65_536),
        ("65536", 65_536),
        ("8MiB", 8_388_608),
        ("8 MiB", 8_388_608),
        ("8mib", 8_388_608),
        ("500kB", 500_000),
        ("1.5KiB", 1_536),
        ("2GiB", 2_147_483_648),
        ("7B", 7),
    ],
)
def test_sizes(written, size):
    assert parse_size(written) == size


@pytest.mark.parametrize(
    "written", ["", "MiB", "-1", "8MB!", "8 furlongs", "0.3B", True, None, -1, [], float("nan"), "9" * 40]
)
def test_no_sizes(written):
    with pytest.raises(ValueError, match=r"."):
        parse_size(written)


@pytest.mark.parametrize("written", [True, "true", "True", "on", "yes", "1"])
def test_flags(written):
    assert parse_flag(written) is True
    assert parse_flag(show_flag(True)) is True
    assert parse_flag(show_flag(False)) is False
    assert parse_flag("off") is False


@pytest.mark.parametrize("written", ["", "maybe", "2", 1, 0, None, []])
def test_no_flags(written):
    with pytest.raises(ValueError, match="true or false"):
        parse_flag(written)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(1, 1.0), (1.5, 1.5), ("1.5", 1.5), ("1.5s", 1.5), ("250ms", 0.25), ("2m", 120.0), ("1h", 3_600.0), (0, 0.0)],
)
def test_durations(written, seconds):
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["", "s", "-1s", "1S", "1 day", float("inf"), float("nan"), False, -0.5])
def test_no_durations(written):
    with pytest.raises(ValueError, match=r"."):
        parse_duration(written)


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_shown_size_reads_back(size):
    assert parse_size(show_size(size)) == size


@given(st.integers(min_value=0, max_value=10**7))
def test_a_shown_duration_reads_back(milliseconds):
    assert parse_duration(show_duration(milliseconds / 1_000)) == pytest.approx(milliseconds / 1_000, rel=1e-5)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1:7511", Address("127.0.0.1", 7511)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:7511", Address("::1", 7511)),
        ("db-1.example.net:65535", Address("db-1.example.net", 65_535)),
    ],
)
def test_addresses_read_and_show(written, address):
    assert parse_address(written) == address
    assert str(address) == written


@pytest.mark.parametrize(
    "written",
    ["", "7511", ":7511", "host", "host:", "host:http", "host:65536", "host:-1", "::1:7511", "[host]:1", "[::zz]:1"]
    + ["a b:1", "http://host:1", "host:１", "x" * 254 + ":1", 7511, None],
)
def test_no_addresses(written):
    with pytest.raises(ValueError, match=r"."):
        parse_address(written)


def test_a_target_wants_a_port():
    assert parse_target("host:1") == Address("host", 1)
    with pytest.raises(ValueError, match="cannot be dialled"):
        parse_target("host:0")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("db", False)],
)
def test_loopback(host, loopback):
    assert Address(host, 1).is_loopback is loopback


def test_listeners():
    plain = Listener(Address("0.0.0.0", 7511))
    named = Listener(Address("0.0.0.0", 7511), ("shop", "stock.eu"))
    assert parse_listener("0.0.0.0:7511") == parse_listener({"address": "0.0.0.0:7511"}) == plain
    assert parse_listener("0.0.0.0:7511=shop+stock.eu") == named
    assert parse_listener({"address": "0.0.0.0:7511", "services": ["shop", "stock.eu"]}) == named
    assert parse_listener(str(named)) == named


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ({"adress": "h:1"}, "did you mean 'address'"),
        ({"services": []}, "wants an address"),
        ({"address": "h:1", "services": "shop"}, "list of names"),
        ("h:1=", "is no name"),
        ("h:1=a b", "is no name"),
    ],
)
def test_no_listeners(written, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_listener(written)


@pytest.mark.parametrize(("written", "mode"), [("0660", 0o660), ("660", 0o660), ("0o600", 0o600), (0o660, 0o660)])
def test_modes(written, mode):
    assert parse_mode(written) == mode


@pytest.mark.parametrize("written", [660, "rw-rw----", "0999", "66", "", True])
def test_no_modes(written):
    with pytest.raises(ValueError, match="permissions"):
        parse_mode(written)


@pytest.mark.parametrize("written", ["shop", "shop.eu-1", "A_b", "x" * 200])
def test_names(written):
    assert parse_name(written) == written


@pytest.mark.parametrize("written", ["", ".", "a.", ".a", "a..b", "a b", "ä", "x" * 201, "a/b", "a\n", 5])
def test_no_names(written):
    with pytest.raises(ValueError, match=r"."):
        parse_name(written)


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@given(
    written=st.one_of(
        st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.dictionaries(st.text(), st.text())
    )
)
def test_nonsense_is_a_value_or_a_value_error(parse, written):
    try:
        parse(written)
    except ValueError as error:
        assert len(str(error)) < 400


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@pytest.mark.parametrize("written", ["ä" * 9_000, ["x"] * 9_000, {"x" * 9_000: 1}], ids=["text", "list", "table"])
def test_a_page_of_nonsense_is_quoted_in_part(parse, written):
    try:
        parse(written)
    except ValueError as error:
        assert len(str(error)) < 400
