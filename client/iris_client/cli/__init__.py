"""The ``iris`` command: everything an app or an operator does, from a shell."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command and exit with its code: 0 ok, 1 failed, 2 usage, 3 no member, 4 denied, 5 timeout."""
    try:
        import click  # noqa: F401 - only whether it is there
    except ModuleNotFoundError:
        print("iris: error: the command line needs click: pip install 'iris-client[cli]'", file=sys.stderr)
        sys.exit(1)
    from iris_client.cli.main import run

    sys.exit(run(sys.argv[1:]))
