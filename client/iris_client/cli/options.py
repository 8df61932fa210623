"""Options every command takes, and how a body is found: an argument, standard input, a file."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import click

import iris_client as iris
from iris_client._model import MiB
from iris_client._urls import Target
from iris_client.cli import values
from iris_client.cli.output import USAGE, Failure, note, note_json
from iris_client.cli.values import show_size

DEFAULT_TIMEOUT: Final = 5.0
MAX_INPUT: Final = 1024 * MiB
"""Most a body read from outside may have: the largest limit a daemon can be given. The daemon's own comes on top."""
MAX_TOKEN: Final = 4096

_Command = TypeVar("_Command", bound=Callable[..., Any])


if TYPE_CHECKING:
    _DurationType = click.ParamType[float]
    _HeaderType = click.ParamType[tuple[str, str]]
else:  # older releases of click have no type argument there
    _DurationType = _HeaderType = click.ParamType


class Duration(_DurationType):
    """``500ms``, ``5s``, ``1m``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return values.duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Header(_HeaderType):
    """``key:value``."""

    name = "key:value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        try:
            return values.header(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options every command has came to.

    Attributes:
        url: Where the daemon is; None to look in the usual places.
        service: Which of the daemon's services; None for its only one.
        token_file: Holds the token a TCP listener wants.
        json: Print JSON, errors too.
        timeout: Seconds a call, or finding the daemon, may take.
        timeout_given: Whether that was said.
    """

    url: str | None = None
    service: str | None = None
    token_file: Path | None = None
    json: bool = False
    timeout: float = DEFAULT_TIMEOUT
    timeout_given: bool = field(default=False, compare=False)

    @property
    def token(self) -> str | None:
        """The token, read from its file; None when no file was named.

        Raises:
            Failure: It cannot be read, or is none.
        """
        return None if self.token_file is None else read_token(self.token_file)


def read_token(path: Path) -> str:
    """Read a token from its file.

    Raises:
        Failure: It cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TOKEN + 1)
    except OSError as error:
        raise Failure(f"token file {path}: {error.strerror}", code=USAGE, kind="TokenFile") from None
    try:
        token = raw.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token or len(raw) > MAX_TOKEN:
        raise Failure(
            f"token file {path}: expected one line of printable ASCII, at most {MAX_TOKEN} bytes",
            code=USAGE,
            kind="TokenFile",
        )
    return token


def token_in_environment(targets: Sequence[Target]) -> str | None:
    """Read the token ``IRIS_TOKEN_FILE`` names, if any target wants one.

    Raises:
        Failure: It cannot be read, or is none.
    """
    path = os.environ.get("IRIS_TOKEN_FILE")
    if not path or not any(target.scheme in ("tcp", "tls") for target in targets):
        return None
    return read_token(Path(path))


_GLOBAL = (
    click.option(
        "--url",
        metavar="URL",
        help="The daemon: unix:///path, tcp://host:port. [default: IRIS_URL, then the usual places]",
    ),
    click.option("--service", metavar="NAME", help="Which service, when the daemon holds several."),
    click.option(
        "--token-file",
        metavar="PATH",
        type=click.Path(path_type=Path),
        help="The token of a TCP listener. [default: IRIS_TOKEN_FILE]",
    ),
    click.option("--timeout", metavar="TIME", type=Duration(), help="500ms, 5s, 1m.  [default: 5s]"),
    click.option("--json", "as_json", is_flag=True, default=None, help="Print JSON; errors too."),
)
_NAMES = {"url": "url", "service": "service", "token_file": "token_file", "timeout": "timeout", "as_json": "json"}


def global_options(function: _Command) -> _Command:
    """Give a command the options every command has, so that they may stand before its name and after it."""
    for option in reversed(_GLOBAL):
        function = option(function)
    return function


def with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """As :func:`global_options`, and hand what came of them to the command as its first argument.

    An ``async`` command gets an event loop.
    """

    @global_options
    @click.pass_context
    @functools.wraps(function)
    def command(ctx: click.Context, /, **arguments: Any) -> Any:
        for name in _NAMES:
            arguments.pop(name)
        result = function(settings_of(ctx), **arguments)
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    return command


def settings_of(ctx: click.Context) -> Settings:
    """What the options came to; what stands nearer to the command's arguments wins."""
    found: dict[str, Any] = {}
    at: click.Context | None = ctx
    while at is not None:
        for name, attribute in _NAMES.items():
            given = at.params.get(name)
            if given is not None:
                found.setdefault(attribute, given)
        at = at.parent
    return Settings(**found, timeout_given="timeout" in found)


def examples(*lines: str) -> str:
    """A command's examples, as they are shown below its options."""
    return "\b\nExamples:\n" + "".join(f"  {line}\n" for line in lines)


def connect(settings: Settings) -> iris.Mesh:
    """The mesh a command talks to; to be entered."""
    return iris.connect(
        settings.url, service=settings.service, name="iris", token=settings.token, timeout=settings.timeout
    )


def tell_state(mesh: iris.Mesh, *, as_json: bool) -> None:
    """Say on standard error when the daemon goes away and comes back: for commands that outlive it."""

    def tell(change: iris.StateChange) -> None:
        if change.state is iris.State.DETACHED:
            warning = {"warning": "Detached", "reason": change.reason}
            words = f"iris: warning: the daemon is gone ({values.printable(change.reason)}); looking for it"
        elif change.state is iris.State.ATTACHED:
            warning = {"warning": "Attached", "url": change.reason}
            words = f"iris: attached again to {change.reason}"
        else:
            return
        note_json(warning) if as_json else note(words)

    mesh.on_state(tell)


header_option = click.option(
    "-H", "--header", "header_pairs", metavar="KEY:VALUE", type=Header(), multiple=True, help="A header; repeatable."
)
method_option = click.option("--method", metavar="NAME", default="", help="Which of the members' handlers.")
file_option = click.option(
    "--file", "file", metavar="PATH", type=click.Path(path_type=Path), help="Read the body from a file."
)


def headers_of(pairs: tuple[tuple[str, str], ...]) -> Mapping[str, str] | None:
    """The headers of ``-H``; None when there are none.

    Raises:
        click.UsageError: One was given twice.
    """
    try:
        return values.headers(pairs) or None
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def body_of(argument: str | None, file: Path | None) -> bytes:
    """The body: the argument, or what ``--file`` names, or standard input.

    Raises:
        click.UsageError: There is none, or there are two.
        Failure: It cannot be read, or is above :data:`MAX_INPUT`.
    """
    if file is not None:
        if argument is not None:
            raise click.UsageError("a body as an argument and --file: give one of them")
        return _read_file(file)
    if argument is not None and argument != "-":
        return os.fsencode(argument)
    if argument is None and sys.stdin.isatty():
        raise click.UsageError(
            "no body: give one as an argument ('' for an empty one), pipe it in, or name a file with --file"
        )
    return _bounded(sys.stdin.buffer, "standard input")


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            if stat.S_ISREG(info.st_mode) and info.st_size > MAX_INPUT:
                raise _too_large(str(path))
            return _bounded(file, str(path))
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", code=USAGE, kind="BodyFile") from None


def _bounded(file: BinaryIO, name: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := file.read(MiB):
        size += len(chunk)
        if size > MAX_INPUT:
            raise _too_large(name)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(name: str) -> Failure:
    return Failure(
        f"{name}: a body has at most {show_size(MAX_INPUT)}",
        hint="iris tunnel moves bytes of any length",
        kind="TooLarge",
    )
