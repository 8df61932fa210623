"""Reads the golden bytes beside it."""

from __future__ import annotations

from pathlib import Path


def golden(prefix: str = "") -> dict[str, bytes]:
    """Return the vectors whose name starts with ``prefix``, by name."""
    vectors: dict[str, bytes] = {}
    for line in Path(__file__).with_name("wire.hex").read_text().splitlines():
        name, equals, digits = line.partition("#")[0].partition("=")
        if equals:
            assert name.strip() not in vectors, f"{name.strip()} stands twice"
            vectors[name.strip()] = bytes.fromhex(digits)
    return {name: raw for name, raw in vectors.items() if name.startswith(prefix)}
