"""``python -m irisd``."""

from __future__ import annotations

from irisd.cli import main

if __name__ == "__main__":
    main()
