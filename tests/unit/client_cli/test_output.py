"""Tables, colours, exit codes and errors."""

from __future__ import annotations

import io
import json

import click
import pytest

from iris_client import _errors as errors
from iris_client._model import Executed
from iris_client._urls import InvalidUrl
from iris_client.cli import output
from iris_client.cli.output import Cell, Failure


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tables_align_text_left_and_numbers_right():
    shown = output.table(("NAME", "MEMBERS", "ON"), [("databases", 12_345, "oak"), ("東", 7, "a-long-name")])
    assert shown.splitlines() == [
        "NAME       MEMBERS  ON",
        "databases   12,345  oak",
        "東               7  a-long-name",
    ]


def test_tables_escape_what_steers_the_terminal():
    shown = output.table(("NAME",), [("\x1b[31mred\n",)])
    assert shown == "NAME\n\\x1b[31mred\\n"


def test_a_table_without_rows_is_its_titles():
    assert output.table(("A", "B"), []) == "A  B"


def test_colours_belong_on_terminals_that_want_them(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert output.style("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert output.style("x", "", Terminal()) == "x"
    assert output.style("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.style("x", "red", Terminal()) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert output.style("x", "red", Terminal()) == "x"


def test_colour_does_not_count_as_width(monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = output.table(("STATE", "N"), [(Cell("dead", "red"), 1), ("suspect", 2)]).splitlines()
    assert shown[1] == "\x1b[31mdead\x1b[0m     1"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NoMember("x"), 3),
        (errors.NotSupported("x"), 3),
        (errors.Denied("x"), 4),
        (errors.DeadlineExceeded("x"), 5),
        (TimeoutError("x"), 5),
        (errors.DaemonUnavailable("x"), 1),
        (errors.Rejected("x", code="gone"), 1),
        (errors.HandlerFailed("x"), 1),
        (errors.TooLarge("x"), 1),
        (errors.InvalidName("x"), 2),
        (errors.InvalidCall("x"), 2),
        (InvalidUrl("x"), 2),
        (click.UsageError("x"), 2),
        (Failure("x"), 1),
        (Failure("x", code=2), 2),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_exit_codes(error, code):
    assert output.exit_code(error) == code


def test_an_error_is_a_sentence_and_what_to_do(capsys):
    code = output.report(errors.NoMember("request to 'x': nobody serves 'x'"), as_json=False)
    out, err = capsys.readouterr()
    assert (code, out) == (3, "")
    assert err.splitlines() == [
        "iris: error: request to 'x': nobody serves 'x' (executed: no)",
        "iris: hint: iris clusters lists the names somebody serves",
    ]


def test_a_long_error_keeps_its_lines_but_cannot_steer_the_terminal(capsys):
    output.report(errors.DaemonUnavailable("no daemon; tried:\n  unix:///x: \x1b[2J\nStart one"), as_json=False)
    assert capsys.readouterr().err.splitlines() == [
        "iris: error: no daemon; tried:",
        r"    unix:///x: \x1b[2J",
        "  Start one",
    ]


def test_an_error_for_programs(capsys):
    error = errors.Rejected("request to 'x': no [gone]", code="gone", body=b"\xff", executed=Executed.YES)
    assert output.report(error, as_json=True) == 1
    assert json.loads(capsys.readouterr().err) == {
        "error": "Rejected",
        "message": "request to 'x': no [gone] (executed: yes)",
        "exit": 1,
        "executed": "yes",
        "code": "gone",
        "body": "/w==",
        "base64": True,
    }


def test_usage_errors_for_programs(capsys):
    assert output.report(click.UsageError("no body"), as_json=True) == 2
    told = json.loads(capsys.readouterr().err)
    assert (told["error"], told["message"], told["exit"]) == ("Usage", "no body", 2)


def test_a_failed_file_is_named(capsys):
    output.report(FileNotFoundError(2, "No such file or directory", "x.txt"), as_json=False)
    assert capsys.readouterr().err == "iris: error: x.txt: No such file or directory\n"
