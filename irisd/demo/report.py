"""What the demo prints: one scene after the other, each with its findings and what they prove."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Untrue(Exception):
    """A finding is not what the demo says it is. The message says which."""


class Report:
    """Prints scenes and keeps count.

    Args:
        colour: Whether to use colour; default: on a terminal without ``NO_COLOR``.
    """

    def __init__(self, colour: bool | None = None) -> None:
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") if colour is None else colour
        self._number = 0
        self.failed = 0
        self._began = time.perf_counter()

    def title(self, text: str) -> None:
        """Head of the report."""
        print(self._paint("1", text))

    @contextmanager
    def scene(self, name: str, proves: str | Callable[[], str]) -> Iterator[None]:
        """One scene; what it proves may be known at its end only. What goes wrong is told, and the others go on."""
        self._number += 1
        print(f"\n{self._paint('1', f'{self._number}  {name}')}")
        began = time.perf_counter()
        try:
            yield
        except Untrue as untrue:
            self._verdict(False, str(untrue), began)
        except (Exception, TimeoutError) as error:
            self._verdict(False, f"{type(error).__name__}: {error}", began)
        else:
            self._verdict(True, proves if isinstance(proves, str) else proves(), began)

    def line(self, label: str, text: str) -> None:
        """One finding."""
        print(f"   {label:<22} {text}")

    def bar(self, label: str, share: float, text: str) -> None:
        """One finding that is a share, 0 to 1."""
        width = 24
        filled = round(share * width)
        print(f"   {label:<22} {self._paint('36', '█' * filled)}{'·' * (width - filled)}  {text}")

    def end(self) -> int:
        """Foot of the report; returns the exit code."""
        took = time.perf_counter() - self._began
        passed = self._number - self.failed
        word = "all of it is so" if not self.failed else f"{self.failed} of it is NOT so"
        colour = "31" if self.failed else "32"
        print(f"\n{self._paint(f'1;{colour}', f'{passed} of {self._number} scenes held, {word}')} ({took:.0f} s)")
        return 1 if self.failed else 0

    def _verdict(self, good: bool, text: str, began: float) -> None:
        mark = self._paint("32", "✓") if good else self._paint("31", "✗")
        self.failed += not good
        print(f" {mark} {text} {self._paint('2', f'({time.perf_counter() - began:.1f} s)')}")

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def check(truth: bool, otherwise: str) -> None:
    """Stop the scene when something is not so."""
    if not truth:
        raise Untrue(otherwise)
