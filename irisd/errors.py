"""The daemon's error tree: what can go wrong around the mesh, and what to do about it.

Every error an operator may meet descends from :class:`IrisdError`, and its
message is written for that operator: what was found, where, and the next step.
The command line prints the message and nothing else, so a message must stand
on its own and must never contain a key, a token or a body.

What becomes of a *message* between apps (no member, overloaded, rejected ...)
is not here: those are outcomes, values of the model, not exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class IrisdError(Exception):
    """Root of everything the daemon raises on purpose.

    Attributes:
        exit_code: What the process exits with when this reaches the command
            line: 1 when something failed, 2 when the request made no sense.
    """

    exit_code: int = 1


class ConfigError(IrisdError):
    """A setting is unknown, malformed, out of range or contradicts another.

    Args:
        message: What is wrong and what would be right.
        key: The setting's name as written in ``irisd.toml``, if one is to blame.
        origin: Where the value came from (a flag, a variable, a file), if known.
    """

    exit_code = 2

    def __init__(self, message: str, *, key: str = "", origin: str = "") -> None:
        self.key = key
        self.origin = origin
        where = f"{origin}: " if origin else ""
        super().__init__(f"{where}{message}")


class KeyFileError(IrisdError):
    """A service key could not be read, is malformed, or others may read it."""


class TokenFileError(IrisdError):
    """An attach token could not be read, is too short, or others may read it."""


class ListenError(IrisdError):
    """A listener could not be opened: the port is taken, or the address is not ours."""


class RuntimeFolderError(IrisdError):
    """The folder for the socket and the development key is missing or not writable."""


class TooFewFilesError(IrisdError):
    """The process may not open as many files and sockets as a daemon needs."""


class AlreadyRunningError(IrisdError):
    """Another daemon answers on this socket."""


class WireError(IrisdError):
    """Bytes from outside break the rules. Ends one conversation, never the daemon.

    Args:
        reason: A short stable word, usable as a metric label.
        detail: One sentence for people.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}" if detail else reason)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, or an empty string."""
    lowered = {name.lower(): name for name in known}
    match = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f"; did you mean '{lowered[match[0]]}'?" if match else ""
