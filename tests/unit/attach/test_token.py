"""The attach token: what a token file may hold, and what opens a guarded listener."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from irisd.attach.token import MAX_TOKEN_BYTES, Token, TokenGate, read_token
from irisd.errors import TokenFileError

SECRET = b"0123456789abcdef"


def write(run_dir: Path, content: bytes, mode: int = 0o600) -> Path:
    path = run_dir / "token"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [SECRET, SECRET + b"\n", b"  " + SECRET + b"\r\n"])
def test_a_token_is_one_line(run_dir, content):
    token = read_token(write(run_dir, content))
    assert token.opens_with(SECRET)
    assert not token.opens_with(SECRET + b"\n")
    assert not token.opens_with(b"")


def test_the_longest_token(run_dir):
    assert read_token(write(run_dir, b"x" * MAX_TOKEN_BYTES + b"\n")).opens_with(b"x" * MAX_TOKEN_BYTES)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "shorter than 16 bytes"),
        (SECRET[:-1], "shorter than 16 bytes"),
        (b" " * 40, "shorter than 16 bytes"),
        (b"x" * (MAX_TOKEN_BYTES + 1), "longer than 1024 bytes"),
        (b"x" * 1_000_000, "longer than 1024 bytes"),
        (SECRET + b"\n" + SECRET, "one line of printable ASCII"),
        (SECRET + b"\x00", "one line of printable ASCII"),
        ("pässwort-pässwort".encode(), "one line of printable ASCII"),
    ],
)
def test_what_is_no_token(run_dir, content, sentence):
    with pytest.raises(TokenFileError, match=sentence) as caught:
        read_token(write(run_dir, content))
    assert SECRET.decode() not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_others_may_read(run_dir, mode):
    with pytest.raises(TokenFileError, match=r"others may read the token file .*; run: chmod 600 .*/token"):
        read_token(write(run_dir, SECRET, mode))


def test_a_file_that_is_not_there(run_dir):
    with pytest.raises(TokenFileError, match=r"cannot read the token file .*/none: No such file"):
        read_token(run_dir / "none")


def test_a_token_shows_nothing_of_itself():
    assert repr(Token(SECRET)) == "Token(...)"
    assert all(SECRET not in getattr(Token(SECRET), name) for name in Token.__slots__)


class Call(grpc.HandlerCallDetails):
    """A call as an interceptor sees it."""

    def __init__(self, method: str, *metadata: tuple[str, str | bytes]) -> None:
        self.method = method
        self.invocation_metadata = metadata


async def passes(call: Call) -> bool:
    handler: Any = object()

    async def go_on(_details: grpc.HandlerCallDetails) -> Any:
        return handler

    found = await TokenGate(Token(SECRET)).intercept_service(go_on, call)
    assert found is handler or found.stream_stream is not None
    return found is handler


GOOD = ("authorization", "Bearer " + SECRET.decode())


@pytest.mark.parametrize("method", ["/iris.v1.Relay/Attach", "/iris.v1.Control/GetStatus", "/unheard.of/Method"])
async def test_everything_wants_the_token(method):
    assert await passes(Call(method, ("user-agent", "x"), GOOD))
    assert not await passes(Call(method, ("user-agent", "x")))


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Bearer wrong", "Basic " + SECRET.decode(), SECRET.decode(), GOOD[1] + "x", GOOD[1][:-1]],
)
async def test_what_does_not_open(value):
    assert not await passes(Call("/iris.v1.Relay/Attach", ("authorization", value)))


@pytest.mark.parametrize("value", ["bearer " + SECRET.decode(), GOOD[1].encode(), "Bearer  " + SECRET.decode()])
async def test_spellings_that_open(value):
    assert await passes(Call("/iris.v1.Relay/Attach", ("authorization", value)))


async def test_only_the_first_authorization_counts():
    assert not await passes(Call("/iris.v1.Relay/Attach", ("authorization", "Bearer wrong"), GOOD))


@pytest.mark.parametrize(
    ("method", "is_open"),
    [
        ("/grpc.health.v1.Health/Check", True),
        ("/grpc.health.v1.Health/Watch", True),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True),
        ("/grpc.health.v1.HealthX/Check", False),
        ("/grpc.health.v1.Health", False),
    ],
)
async def test_health_and_reflection_are_open(method, is_open):
    assert await passes(Call(method)) is is_open
