"""The Iris daemon: one per host, a mesh between them, names instead of addresses."""

from __future__ import annotations

__version__ = "0.8.0"
