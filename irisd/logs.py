"""Where log lines go and how they look: text for people, JSON for machines, always on standard error.

An event's name is ``room.fact``. Bodies and keys never come this far, and in
case one does, bytes are shown as their length only.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

Event = MutableMapping[str, Any]


def set_up(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Settle logging for the process. Calling again settles it anew.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        form: ``text``, ``json``, or ``auto``: text on a terminal, JSON elsewhere.
        stream: Where lines go; default: standard error.
    """
    out = stream or sys.stderr
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
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    _adopt_the_library_loggers(out, _LEVELS[level], [*shared, *rendered])


def _adopt_the_library_loggers(out: TextIO, level: int, chain: list[structlog.typing.Processor]) -> None:
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
    root.setLevel(max(level, logging.WARNING))


def _name_the_library(_logger: object, _method: str, event: Event) -> Event:
    record = event["_record"]
    event["library"], event["detail"], event["event"] = record.name, event["event"], "library.message"
    return event


def _lengths_for_bytes(_logger: object, _method: str, event: Event) -> Event:
    for key, value in event.items():
        if isinstance(value, (bytes, bytearray, memoryview)):
            event[key] = f"<{len(value)} bytes>"
    return event
