"""What the command prints: tables, JSON, colours where they belong, and errors that say what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import click

from iris_client import _errors as errors
from iris_client._urls import InvalidUrl
from iris_client.cli.values import json_body, printable, width

OK, FAILED, USAGE, NO_MEMBER, DENIED, TIMEOUT = range(6)
INTERRUPTED = 130
BROKEN_PIPE = 141  # as if the signal had ended us, which is what other commands do

_STYLES = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


class Failure(Exception):
    """The command cannot go on.

    Args:
        message: What is wrong, in a sentence.
        hint: What to do about it.
        code: What the process exits with.
        kind: A stable word for programs.
    """

    def __init__(self, message: str, *, hint: str = "", code: int = FAILED, kind: str = "Failed") -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
        self.kind = kind


def exit_code(error: BaseException) -> int:
    """What the process exits with because of ``error``."""
    if isinstance(error, Failure):
        return error.code
    if isinstance(error, click.ClickException):
        return USAGE if isinstance(error, click.UsageError) else FAILED
    if isinstance(error, (errors.NoMember, errors.NotSupported)):
        return NO_MEMBER
    if isinstance(error, errors.Denied):
        return DENIED
    if isinstance(error, (errors.InvalidName, errors.InvalidCall, InvalidUrl)):
        return USAGE
    if isinstance(error, TimeoutError):
        return TIMEOUT
    return FAILED


def hint_for(error: BaseException) -> str:
    """What whoever typed the command can do about it; empty when the message says so already."""
    if isinstance(error, Failure):
        return error.hint
    if isinstance(error, click.UsageError):
        return f"{error.ctx.command_path} --help tells more" if error.ctx is not None else "iris --help tells more"
    if isinstance(error, errors.NoMember):
        return "iris clusters lists the names somebody serves"
    if isinstance(error, errors.NotSupported):
        return "iris clusters lists the patterns each cluster handles; --method chooses a handler"
    if isinstance(error, errors.Denied):
        return (
            "a TCP listener wants the daemon's token: --token-file PATH or IRIS_TOKEN_FILE; --service picks a service"
        )
    if isinstance(error, errors.DeadlineExceeded):
        return "--timeout gives it longer"
    if isinstance(error, errors.TooLarge):
        return "iris tunnel moves bytes of any length"
    return ""


def describe(error: BaseException) -> dict[str, Any]:
    """An error for programs."""
    if isinstance(error, Failure):
        kind = error.kind
    elif isinstance(error, click.UsageError):
        kind = "Usage"
    else:
        kind = type(error).__name__
    told: dict[str, Any] = {"error": kind, "message": _message(error), "exit": exit_code(error)}
    if isinstance(error, errors.DeliveryError):
        told["executed"] = error.executed.value
    if isinstance(error, errors.Rejected):
        told["code"] = error.code
        told |= json_body(error.body)
    if hint := hint_for(error):
        told["hint"] = hint
    return told


def report(error: BaseException, *, as_json: bool) -> int:
    """Print an error to standard error; return what to exit with."""
    if as_json:
        note_json(describe(error))
    else:
        first, *more = _message(error).splitlines() or [""]
        note(f"{style('iris: error:', 'red', sys.stderr)} {printable(first)}")
        for line in more:
            note(f"  {printable(line)}")
        if hint := hint_for(error):
            note(f"iris: hint: {printable(hint)}")
    return exit_code(error)


def note(line: str) -> None:
    """Say something to whoever watches, never to whoever reads the output."""
    print(line, file=sys.stderr, flush=True)


def note_json(value: Mapping[str, Any]) -> None:
    """As :func:`note`, for programs."""
    note(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on one line, out at once: whoever reads a stream wants it now."""
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), flush=True)


def colours(stream: TextIO) -> bool:
    """Whether colours belong on ``stream``: a terminal that can, and a user who did not say no."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, name: str, stream: TextIO | None = None) -> str:
    """Colour ``text`` where colours belong."""
    if not name or not colours(stream or sys.stdout):
        return text
    return f"\x1b[{_STYLES[name]}m{text}\x1b[0m"


class Cell:
    """A table's cell: what it shows, in which colour, at which side.

    Args:
        value: Shown as text; what would steer the terminal is written out.
        colour: One of the names :func:`style` takes, or empty.
    """

    __slots__ = ("colour", "right", "text")

    def __init__(self, value: object, colour: str = "") -> None:
        self.right = isinstance(value, (int, float))
        self.text = f"{value:,}" if isinstance(value, int) else printable(str(value))
        self.colour = colour


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows in aligned columns; numbers stand at the right of theirs. Cells are values or :class:`Cell`."""
    cells = [[value if isinstance(value, Cell) else Cell(value) for value in row] for row in rows]
    right = [bool(cells) and all(row[i].right for row in cells) for i in range(len(titles))]
    wide = [max([width(title), *(width(row[i].text) for row in cells)]) for i, title in enumerate(titles)]
    heads = [Cell(title, "bold") for title in titles]
    return "\n".join(_line(row, wide, right) for row in [heads, *cells])


def _line(row: Sequence[Cell], wide: Sequence[int], right: Sequence[bool]) -> str:
    parts = []
    for at, cell in enumerate(row):
        space = " " * (wide[at] - width(cell.text))
        shown = style(cell.text, cell.colour)
        if right[at]:
            parts.append(space + shown)
        else:
            parts.append(shown + (space if at < len(row) - 1 else ""))
    return "  ".join(parts).rstrip(" ")


def _message(error: BaseException) -> str:
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and not isinstance(error, errors.IrisError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
