"""Options before and after a command, and where a body comes from."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from iris_client._urls import parse_url
from iris_client.cli import options
from iris_client.cli.options import Settings, body_of, global_options, headers_of, token_in_environment, with_settings
from iris_client.cli.output import Failure


@click.group()
@global_options
def root(**_: object) -> None:
    """Stand in for the command's root."""


seen: list[Settings] = []


@root.command()
@with_settings
async def look(settings: Settings) -> None:
    """Note what the options came to."""
    seen.append(settings)


def settings_from(*argv: str) -> Settings:
    seen.clear()
    result = CliRunner().invoke(root, argv)
    assert result.exit_code == 0, result.output
    return seen[0]


def test_defaults():
    assert settings_from("look") == Settings(None, None, None, False, 5.0)


def test_options_may_stand_before_the_command_and_after_it():
    wanted = Settings("unix:///x", "shop", Path("t"), True, 0.5)
    given = ("--url", "unix:///x", "--service", "shop", "--token-file", "t", "--json", "--timeout", "500ms")
    assert settings_from(*given, "look") == wanted
    assert settings_from("look", *given) == wanted


def test_the_nearer_one_wins():
    assert settings_from("--timeout", "1s", "--json", "look", "--timeout", "2s") == Settings(json=True, timeout=2.0)


@pytest.mark.parametrize("text", ["soon", "0", "-1s", ""])
def test_a_timeout_that_is_none(text):
    result = CliRunner().invoke(root, ["look", "--timeout", text])
    assert result.exit_code == 2
    assert "duration" in result.output


def stdin_of(monkeypatch, data: bytes, *, terminal: bool = False) -> None:
    stream = io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdin", stream)


def test_a_body_is_the_argument(monkeypatch):
    stdin_of(monkeypatch, b"from stdin")
    assert body_of("grün", None) == "grün".encode()
    assert body_of("", None) == b""
    assert body_of("\udcff", None) == b"\xff"  # bytes that are no text, as the shell passed them


def test_a_body_is_standard_input_when_absent_or_a_dash(monkeypatch):
    stdin_of(monkeypatch, b"\xff\x00bytes")
    assert body_of(None, None) == b"\xff\x00bytes"
    stdin_of(monkeypatch, b"typed", terminal=True)
    assert body_of("-", None) == b"typed"


def test_a_terminal_is_not_waited_for(monkeypatch):
    stdin_of(monkeypatch, b"", terminal=True)
    with pytest.raises(click.UsageError, match="no body: give one as an argument"):
        body_of(None, None)


def test_a_body_is_a_file(tmp_path):
    path = tmp_path / "body"
    path.write_bytes(b"\x00\x01")
    assert body_of(None, path) == b"\x00\x01"
    with pytest.raises(click.UsageError, match="give one of them"):
        body_of("x", path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Failure, match=r"nothing: No such file") as caught:
        body_of(None, tmp_path / "nothing")
    assert caught.value.code == 2
    with pytest.raises(Failure, match="Is a directory"):
        body_of(None, tmp_path)


def test_a_body_is_bounded_before_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(options, "MAX_INPUT", 1000)
    stdin_of(monkeypatch, b"x" * 1001)
    with pytest.raises(Failure, match="standard input: a body has at most 1000 B"):
        body_of(None, None)
    path = tmp_path / "body"
    path.write_bytes(b"x" * 1001)
    with pytest.raises(Failure, match="a body has at most 1000 B"):
        body_of(None, path)


def test_headers():
    assert headers_of(()) is None
    assert headers_of((("a", "1"), ("b", ""))) == {"a": "1", "b": ""}
    with pytest.raises(click.UsageError, match="twice"):
        headers_of((("a", "1"), ("a", "2")))


def test_a_token_is_read_from_its_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    assert Settings(token_file=path).token == "s3cret"
    assert Settings().token is None


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"two\nlines", b"\xff", b"x" * 5000])
def test_a_token_that_is_none_is_not_shown(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(Failure, match="expected one line of printable ASCII") as caught:
        _ = Settings(token_file=path).token
    assert caught.value.code == 2
    assert "words" not in str(caught.value)


def test_the_token_of_the_environment_is_for_those_who_want_one(tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.write_text("s3cret")
    tcp, unix = parse_url("tcp://127.0.0.1:1"), parse_url("unix:///x")
    assert token_in_environment([tcp]) is None
    monkeypatch.setenv("IRIS_TOKEN_FILE", str(path))
    assert token_in_environment([unix, tcp]) == "s3cret"
    monkeypatch.setenv("IRIS_TOKEN_FILE", str(tmp_path / "nothing"))
    assert token_in_environment([unix]) is None
    with pytest.raises(Failure, match="No such file"):
        token_in_environment([tcp])
