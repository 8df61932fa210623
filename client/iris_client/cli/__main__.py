"""``python -m iris_client.cli`` is ``iris``."""

from __future__ import annotations

from iris_client.cli import main

if __name__ == "__main__":
    main()
