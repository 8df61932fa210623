"""A terminal that is drawn upon again and again, and found afterwards as it was."""

from __future__ import annotations

import re
import shutil
from types import TracebackType
from typing import Final, TextIO

from iris_client.cli.values import width

ENTER: Final = "\x1b[?1049h\x1b[?25l"  # another screen, no cursor
LEAVE: Final = "\x1b[?25h\x1b[?1049l"
HOME: Final = "\x1b[H"
END_OF_LINE: Final = "\x1b[K"
REST: Final = "\x1b[J"

_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")


class Screen:
    """Takes the terminal while it is entered.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Screen:
        self._write(ENTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._write(LEAVE)

    @property
    def height(self) -> int:
        """Lines it has now."""
        return shutil.get_terminal_size().lines

    def draw(self, text: str) -> None:
        """Show this and nothing else; what does not fit is cut off."""
        columns, lines = shutil.get_terminal_size()
        shown = [clip(line, columns) + END_OF_LINE for line in text.split("\n")[:lines]]
        self._write(HOME + "\r\n".join(shown) + REST)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def clip(line: str, columns: int) -> str:
    """The part of a line that fits into so many columns; colours take none, and are ended."""
    left, out, styled = columns, [], False
    for part in _STYLE.split(line):
        if part.startswith("\x1b"):
            out.append(part)
            styled = part != "\x1b[0m"
            continue
        if width(part) > left:
            kept = part[:left]
            while width(kept) > left:
                kept = kept[:-1]
            out.append(kept)
            break
        out.append(part)
        left -= width(part)
    return "".join(out) + ("\x1b[0m" if styled else "")
