"""``irisd demo``: a real three-daemon mesh on this machine that does real work, and says what each line proves."""

from irisd.demo.demo import run

__all__ = ["run"]
