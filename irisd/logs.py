"""Where log lines go and how they look: text for people, JSON for machines, always on standard error.

An event's name is ``room.fact``. Bodies and keys never come this far, and in
case one does, bytes are shown as their length only.

Whoever reads the lines may stop reading (a stopped terminal, a pager), leave
(``irisd 2>&1 | head``) or run out of disk. None of it may hold up or end a
daemon, so a thread writes, a bounded number of lines behind.
"""

from __future__ import annotations

import io
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

MAX_WAITING: Final = 10_000
"""Lines that may wait to be written; the next are dropped, and how many is told in their place."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that what waits at the end gets to be written."""

Event = MutableMapping[str, Any]

_NAMES: Final = {"warn": "warning", "exception": "error", "critical": "error"}


class _Threshold:
    """Which lines are not worth writing; it can be moved while the daemon runs."""

    def __init__(self) -> None:
        self.level = logging.INFO

    def __call__(self, _logger: object, method: str, event: Event) -> Event:
        if _LEVELS[_NAMES.get(method, method)] < self.level:
            raise structlog.DropEvent
        return event


_threshold = _Threshold()


class Lines:
    """Where lines go; writing one neither waits nor fails.

    Args:
        stream: Its descriptor is written to; a stream that only exists in memory is written to at once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        try:
            self._descriptor: int | None = stream.fileno()
        except (OSError, ValueError, io.UnsupportedOperation):
            self._descriptor = None
        self._waiting: deque[str] = deque()
        self._dropped = 0
        self._closing = False
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> None:
        """Have it written, in order with the rest."""
        if self._descriptor is None:
            self._stream.write(text)
            return
        with self._condition:
            if self._thread is None:
                # A daemon thread on a bare descriptor: a write that never returns keeps no process from ending.
                self._thread = threading.Thread(target=self._run, name="irisd-log", daemon=True)
                self._thread.start()
            if len(self._waiting) >= MAX_WAITING:
                self._dropped += 1
                return
            if self._dropped:
                self._tell_dropped()
            self._waiting.append(text)
            self._condition.notify()

    def flush(self) -> None:
        """Nothing: lines are written as soon as they can be."""

    def close(self) -> None:
        """Wait until what waits is written, but not for long."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        while True:
            with self._condition:
                if self._dropped and not self._waiting:
                    self._tell_dropped()
                while not self._waiting and not self._closing:
                    self._condition.wait()
                if not self._waiting:
                    return
                text = self._waiting.popleft()
            self._write(text.encode(errors="backslashreplace"))

    def _tell_dropped(self) -> None:
        self._waiting.append(f"irisd: {self._dropped} log lines were dropped here: nobody read them\n")
        self._dropped = 0

    def _write(self, data: bytes) -> None:
        assert self._descriptor is not None
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody who shares it made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError:
                return  # nobody reads it, or there is no room: this line is lost, the next may not be


def set_up(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> Lines:
    """Settle logging for the process. Calling again settles it anew.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        form: ``text``, ``json``, or ``auto``: text on a terminal, JSON elsewhere.
        stream: Where lines go; default: standard error.

    Returns:
        What lines go through: for words that belong between them, and to be closed at the end.
    """
    out = Lines(stream or sys.stderr)
    terminal = out.isatty()
    as_json = form == "json" or (form == "auto" and not terminal)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _lengths_for_bytes,
    ]
    rendered: list[structlog.typing.Processor]
    if as_json:
        rendered = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        colours = terminal and not os.environ.get("NO_COLOR")
        plain = structlog.dev.plain_traceback
        rendered = [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)]
    structlog.configure(
        processors=[_threshold, *shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(file=out),  # type: ignore[arg-type]  # write and flush are enough
        cache_logger_on_first_use=False,
    )
    _adopt_the_library_loggers(out, [*shared, *rendered])
    set_level(level)
    return out


def set_level(level: str) -> None:
    """Write what is at least so serious: ``debug``, ``info``, ``warning`` or ``error``."""
    _threshold.level = _LEVELS[level]
    logging.getLogger().setLevel(max(_LEVELS[level], logging.WARNING))


def _adopt_the_library_loggers(out: Lines, chain: list[structlog.typing.Processor]) -> None:
    """Let what asyncio, grpc and zeroconf log through ``logging`` look like the rest; only what went wrong."""
    *shared, renderer = chain
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[_name_the_library, structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]


def _name_the_library(_logger: object, _method: str, event: Event) -> Event:
    record = event["_record"]
    event["library"], event["detail"], event["event"] = record.name, event["event"], "library.message"
    return event


def _lengths_for_bytes(_logger: object, _method: str, event: Event) -> Event:
    for key, value in event.items():
        if isinstance(value, (bytes, bytearray, memoryview)):
            event[key] = f"<{len(value)} bytes>"
    return event
