"""What the operator asked for, checked and with the origin of every value (pure).

Nothing here reads a file, a variable or the host's name: all of it comes in as
text, so the same text always gives the same configuration or the same error.
"""

from __future__ import annotations

from irisd.config.layers import PRESETS, Loaded, Surroundings, load
from irisd.config.options import OPTIONS, Config, Option
from irisd.config.units import (
    Address,
    Listener,
    parse_address,
    parse_duration,
    parse_mode,
    parse_size,
    show_duration,
    show_size,
)

__all__ = [
    "OPTIONS",
    "PRESETS",
    "Address",
    "Config",
    "Listener",
    "Loaded",
    "Option",
    "Surroundings",
    "load",
    "parse_address",
    "parse_duration",
    "parse_mode",
    "parse_size",
    "show_duration",
    "show_size",
]
