"""The error tree: one root, messages that stand alone, suggestions that help."""

from __future__ import annotations

import inspect

import pytest

from irisd import errors
from irisd.errors import ConfigError, IrisdError, WireError, nearest


def test_everything_descends_from_the_root():
    found = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)]
    assert len(found) > 5
    assert all(issubclass(error, IrisdError) for error in found)


def test_a_setting_is_usage_the_rest_is_failure():
    assert IrisdError("x").exit_code == 1
    assert ConfigError("x").exit_code == 2


def test_config_error_names_its_origin():
    error = ConfigError("no such thing", key="seeds", origin="irisd.toml:3")
    assert str(error) == "irisd.toml:3: no such thing"
    assert error.key == "seeds"
    assert str(ConfigError("bare")) == "bare"


def test_wire_error_keeps_a_stable_reason():
    error = WireError("too-large", "a record of 9 bytes")
    assert error.reason == "too-large"
    assert str(error) == "too-large: a record of 9 bytes"
    assert str(WireError("broken")) == "broken"


@pytest.mark.parametrize(
    ("word", "expected"),
    [("seds", "; did you mean 'seeds'?"), ("SEEDS", "; did you mean 'seeds'?"), ("qqqqqq", ""), ("", "")],
)
def test_nearest(word, expected):
    assert nearest(word, ["seeds", "listen", "socket"]) == expected
