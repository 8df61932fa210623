"""Log lines: JSON for machines, text for people, the length of bytes and never the bytes."""

from __future__ import annotations

import io
import json
import logging
import os
import time

import pytest
import structlog

from irisd import logs


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_where_there_is_no_terminal():
    out = io.StringIO()
    logs.set_up(stream=out)
    structlog.get_logger("irisd.link").info("link.opened", peer="beef", port=7511)
    line = json.loads(out.getvalue())
    assert line["event"] == "link.opened"
    assert (line["level"], line["peer"], line["port"]) == ("info", "beef", 7511)
    assert line["timestamp"].endswith("Z")


def test_text_on_a_terminal_and_no_colour_when_asked(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    logs.set_up(stream=out)
    structlog.get_logger().info("link.opened", peer="beef")
    assert "link.opened" in out.getvalue()
    assert "peer=beef" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_bytes_are_shown_as_their_length():
    out = io.StringIO()
    logs.set_up(form="json", stream=out)
    structlog.get_logger().warning("room.fact", body=b"secret", view=memoryview(b"secret"))
    assert "secret" not in out.getvalue()
    assert json.loads(out.getvalue())["body"] == "<6 bytes>"


def test_the_level_holds_for_us_and_for_libraries():
    out = io.StringIO()
    logs.set_up("error", "json", out)
    structlog.get_logger().warning("room.fact")
    logging.getLogger("asyncio").warning("slow")
    assert out.getvalue() == ""
    logging.getLogger("asyncio").error("task %s was destroyed", "x")
    line = json.loads(out.getvalue())
    assert (line["event"], line["library"], line["detail"]) == ("library.message", "asyncio", "task x was destroyed")


def test_a_traceback_stays_on_its_line():
    out = io.StringIO()
    logs.set_up(form="json", stream=out)
    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger().exception("attach.stream_failed")
    assert out.getvalue().count("\n") == 1
    assert "ValueError: boom" in json.loads(out.getvalue())["exception"]


# ------------------------------------------------------------------- readers of lines


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        yield os.fdopen(reading), stream


def test_a_reader_that_stops_holds_nobody_up(pipe):
    source, stream = pipe
    lines = logs.Lines(stream)
    count = logs.MAX_WAITING * 2
    began = time.monotonic()
    for number in range(count):
        lines.write(f"{number}\n")  # far more than a pipe holds
    assert time.monotonic() - began < 5
    with source:  # it reads on
        expected = 0
        while expected < count:  # every line, or that it was dropped
            line = source.readline()
            expected += int(line.split()[1]) if "dropped here" in line else 1
            assert "dropped here" in line or int(line) == expected - 1
        lines.write("more\n")
        lines.close()
        assert source.readline() == "more\n"


def test_a_reader_that_left_is_no_error(pipe):
    source, stream = pipe
    source.close()
    first = logs.set_up(stream=stream)
    log = structlog.get_logger("irisd")
    for _ in range(10):
        log.info("room.fact")
    first.close()  # what it still writes would go to whoever has the descriptor next
    lines = logs.Lines(stream)
    lines.write("x\n")
    lines.close()


def test_what_waits_is_written_before_the_end(pipe):
    source, stream = pipe
    lines = logs.set_up("info", "json", stream)
    structlog.get_logger("irisd").info("daemon.stopped")
    lines.write("a word between\n")
    lines.close()
    stream.close()
    with source:
        fact, word = source.read().splitlines()
    assert json.loads(fact)["event"] == "daemon.stopped"
    assert word == "a word between"


def test_the_level_can_be_moved_under_loggers_that_are_bound_already():
    out = io.StringIO()
    logs.set_up("warning", "json", out)
    bound = structlog.get_logger().bind(service="shop")
    bound.info("room.fact")
    logs.set_level("debug")
    bound.debug("room.detail")
    bound.exception("room.failed")
    logs.set_level("error")
    bound.warning("room.fact")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["room.detail", "room.failed"]
