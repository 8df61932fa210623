"""This SDK's release, told to the daemon; the same number as in pyproject.toml, which a test compares."""

from typing import Final

VERSION: Final = "0.8.0"
