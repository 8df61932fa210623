"""Service keys (pure): the seed, what is derived from it, the file it lives in, the ring of keys of a service."""

from __future__ import annotations

from irisd.keys.keyring import Keyring
from irisd.keys.service import KEY_ID_BYTES, SEED_BYTES, ServiceKey

__all__ = ["KEY_ID_BYTES", "SEED_BYTES", "Keyring", "ServiceKey"]
