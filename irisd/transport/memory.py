"""Memory that is freed and wanted again (edge): ask the C library to keep it.

A batch is a few hundred kilobytes that live for microseconds. The GNU C library
gives freed memory of that size back to the system each time and faults it in
again for the next batch, page by page, which costs ten times what encrypting it
does. Keeping a few megabytes at hand takes that away.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

KEPT: Final = 8 * 1024 * 1024
"""Bytes that may stay at hand."""
LARGEST: Final = 4 * 1024 * 1024
"""Blocks up to this many bytes come from what is kept."""

_TRIM_THRESHOLD: Final = -1  # names of <malloc.h>
_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> bool:
    """Ask for it, once per process, before the work begins; return whether the C library has the knob."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another C library
    return bool(mallopt(_TRIM_THRESHOLD, KEPT)) and bool(mallopt(_MMAP_THRESHOLD, LARGEST))
