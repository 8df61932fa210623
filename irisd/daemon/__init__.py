"""The daemon: where brains and edges meet, and the only place they do."""

from irisd.daemon.daemon import Daemon, run

__all__ = ["Daemon", "run"]
