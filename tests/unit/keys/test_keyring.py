"""Keyrings: one active key, others accepted, steps that cannot cut a service in two."""

from __future__ import annotations

import pytest

from irisd.errors import KeyFileError
from irisd.keys import Keyring, ServiceKey

OLD, NEW, THIRD = (ServiceKey("shop", bytes([number]) * 32) for number in (1, 2, 3))


def test_a_rotation() -> None:
    ring = Keyring(OLD)
    assert list(ring) == [OLD] and len(ring) == 1
    accepting = ring.accept(NEW)
    assert accepting.active is OLD and accepting.find(NEW.key_id) is NEW
    activated = accepting.activate(NEW.key_id)
    assert activated.active is NEW and activated.find(OLD.key_id) is OLD
    removed = activated.remove(OLD.key_id)
    assert list(removed) == [NEW] and removed.find(OLD.key_id) is None
    assert list(ring) == [OLD]  # a step never changes the ring it starts from


def test_tags_of_all_keys_are_announced_the_active_first() -> None:
    ring = Keyring(OLD, [NEW, THIRD]).activate(THIRD.key_id)
    assert ring.discovery_tags == (THIRD.discovery_tag, OLD.discovery_tag, NEW.discovery_tag)


def test_steps_that_are_refused() -> None:
    ring = Keyring(OLD, [NEW])
    with pytest.raises(KeyFileError, match="active key"):
        ring.remove(OLD.key_id)
    with pytest.raises(KeyFileError, match="accept it first"):
        ring.activate(THIRD.key_id)
    with pytest.raises(KeyFileError, match="accept it first"):
        ring.remove(THIRD.key_id)
    with pytest.raises(KeyFileError, match="twice"):
        ring.accept(NEW)
    with pytest.raises(KeyFileError, match="is no key of service 'shop'"):
        ring.accept(ServiceKey("stock", bytes(32)))


def test_a_ring_is_small() -> None:
    keys = [ServiceKey("shop", bytes([number]) * 32) for number in range(9)]
    with pytest.raises(KeyFileError, match="more than 8"):
        Keyring(keys[0], keys[1:])


def test_repr_names_and_nothing_else() -> None:
    assert repr(Keyring(OLD, [NEW])) == f"<Keyring shop active={OLD.key_id_hex} keys=2>"


def test_find_takes_any_bytes() -> None:
    assert Keyring(OLD).find(memoryview(OLD.key_id)) is OLD  # type: ignore[arg-type]
    assert Keyring(OLD).find(b"") is None
