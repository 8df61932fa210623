"""A reload, compared: what is taken up, what wants a restart."""

from __future__ import annotations

import pytest

from irisd.config import OPTIONS, Address, Config
from irisd.daemon.reloading import compare, compare_keys, keyrings
from irisd.errors import KeyFileError
from irisd.keys import ServiceKey

ONE, TWO, THREE = (ServiceKey("shop", bytes([number]) * 32) for number in (1, 2, 3))
OTHER = ServiceKey("stock", b"\x09" * 32)


def test_nothing_has_changed():
    merged, found = compare(Config(), Config())
    assert merged == Config()
    assert (found.applied, found.restart) == ((), ())


def test_what_a_running_daemon_takes_up_and_what_it_does_not():
    new = Config(seeds=(Address("10.0.0.1", 7511),), log_level="debug", max_body=1 << 20, name="elm")
    merged, found = compare(Config(), new)
    assert found.applied == ("seeds", "log_level")
    assert found.restart == ("name", "max_body")
    assert merged == Config(seeds=new.seeds, log_level="debug")
    assert compare(merged, new)[1].restart == ("name", "max_body")  # named again until it is restarted


def test_those_that_reload():
    names = [name for name, option in OPTIONS.items() if option.reloads]
    assert names == ["keys", "advertise", "seeds", "max_attachments", "drain_timeout", "log_level"]


def test_the_files_of_keys_are_judged_by_what_is_in_them():
    _, found = compare(Config(keys=("a.key",)), Config(keys=("b.key",)))
    assert (found.applied, found.restart) == ((), ())


def test_a_key_is_added_and_made_the_active_one():
    old = keyrings([ONE, OTHER])
    found, restart = compare_keys(old, keyrings([TWO, ONE, OTHER]))
    assert restart == []
    assert list(found) == ["shop"]
    assert found["shop"].active is TWO
    assert found["shop"].find(ONE.key_id) is ONE
    assert compare_keys(found | {"stock": old["stock"]}, keyrings([TWO, ONE, OTHER])) == ({}, [])


def test_a_key_or_a_service_that_is_gone_or_new_wants_a_restart():
    found, restart = compare_keys(keyrings([ONE, TWO]), keyrings([ONE, THREE, OTHER]))
    assert found == {}
    assert restart == ["keys (service stock is new)", "keys (a key of service shop is gone)"]
    assert compare_keys(keyrings([ONE, OTHER]), keyrings([ONE]))[1] == ["keys (service stock is gone)"]


def test_the_same_key_twice_is_refused():
    with pytest.raises(KeyFileError, match="given twice"):
        keyrings([ONE, ONE])
