"""What people type and what they are shown."""

from __future__ import annotations

import pytest

from iris_client.cli import values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("5s", 5.0), ("5", 5.0), ("1m", 60.0), ("1.5h", 5400.0), (".5s", 0.5), (" 2 s ", 2.0)],
)
def test_durations(text, seconds):
    assert values.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "0", "0ms", "5 seconds", "1d", "nan", "inf", "1e3", "169h", "5s5s"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="duration"):
        values.duration(text)


def test_headers():
    assert values.header("trace:a:b") == ("trace", "a:b")
    assert values.header("key: value ") == ("key", "value ")
    assert values.header("empty:") == ("empty", "")
    assert values.headers([("a", "1"), ("b", "2")]) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("text", ["", "key", ":value", " : value"])
def test_what_is_no_header(text):
    with pytest.raises(ValueError, match="write key:value"):
        values.header(text)


def test_a_header_given_twice():
    with pytest.raises(ValueError, match="'a' was given twice"):
        values.headers([("a", "1"), ("a", "2")])


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (50_000_000, "47.7 MiB"),
        (3 * 1024**3, "3.0 GiB"),
        (5 * 1024**4, "5.0 TiB"),
    ],
)
def test_sizes(count, text):
    assert values.show_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 us"),
        (0.00025, "250 us"),
        (0.0015, "1.5 ms"),
        (0.25, "250 ms"),
        (12.04, "12.0 s"),
        (61, "1m 1s"),
        (3 * 3600 + 12 * 60, "3h 12m"),
        (50 * 3600, "2d 2h"),
    ],
)
def test_times(seconds, text):
    assert values.show_time(seconds) == text


def test_text_from_elsewhere_cannot_steer_the_terminal():
    assert values.printable("oak") == "oak"
    assert values.printable("\x1b[2Jgone\r\n\x07") == r"\x1b[2Jgone\r\n\x07"
    assert values.printable("grün 東") == "grün 東"
    assert "\u202e" not in values.printable("a\u202eb")  # right to left override


def test_bodies():
    assert values.json_body("grün".encode()) == {"body": "grün"}
    assert values.json_body(b"\xff\x00") == {"body": "/wA=", "base64": True}
    assert values.line_body(b"a\nb") == r"a\nb"
    assert values.line_body(b"\xff\x00") == "base64:/wA="


def test_width_counts_columns():
    assert values.width("abc") == 3
    assert values.width("東京") == 4
    assert values.width("e\u0301") == 1


def test_counting():
    assert values.count_of(1, "member") == "1 member"
    assert values.count_of(0, "member") == "0 members"
    assert values.count_of(12345, "message") == "12,345 messages"
