"""gRPC with the I/O engine that suits Python: the import of ``grpc``, when that is still to choose.

Since 1.80 gRPC's Python reads sockets in threads of its core's *event engine*,
which hand what came to the thread that waits on behalf of asyncio; before, that
thread read by itself. The hop costs an eighth of what a stream carries, and more
of the time of a request by itself (decision 15). The old way can still be chosen,
for the process, while ``grpc`` is imported.
"""

from __future__ import annotations

import os
import sys
from typing import Final

FIRST, LAST = (1, 80), (1, 85)
"""The releases in which there is a choice, the last as far as it is known."""
VARIABLE: Final = "GRPC_EXPERIMENTS"
CHOICE: Final = "-event_engine_client,-event_engine_listener"


def import_grpc() -> None:
    """Import ``grpc``. Who has imported it, or set ``GRPC_EXPERIMENTS``, has chosen already."""
    if "grpc" in sys.modules or VARIABLE in os.environ:
        return
    from importlib.metadata import version  # it takes longer than the rest of this

    if not has_choice(version("grpcio")):
        return
    os.environ[VARIABLE] = CHOICE
    try:
        import grpc  # noqa: F401 - that is when it is read
    finally:
        del os.environ[VARIABLE]  # not for the children of this process


def has_choice(release: str) -> bool:
    """Whether this release of grpcio knows what would be set."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0]
    return major.isdecimal() and minor.isdecimal() and FIRST <= (int(major), int(minor)) <= LAST
