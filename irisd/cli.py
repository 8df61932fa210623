"""The ``irisd`` command: words in, a configuration out, errors as one sentence.

Nothing is decided here that a program could want to decide too: settings are
``config``'s, keys are ``keys``', running is ``daemon``'s. Exit codes: 0 ok,
1 failed, 2 the request made no sense.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from click.shell_completion import get_completion_class

from irisd import __version__
from irisd.config import OPTIONS, Config, Loaded, Option, Surroundings, load, parse_mode
from irisd.errors import ConfigError, IrisdError
from irisd.grpcio import import_grpc
from irisd.keys import SEED_BYTES, ServiceKey
from irisd.keys.files import load_key_file, protect_output, write_key_file

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_FILE_BYTES = 1 << 20


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. Errors of ours become one line, others keep their traceback."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes to standard error on its own
    _open_standard_streams()
    try:
        status = irisd.main(args=arguments, prog_name="irisd", standalone_mode=False)
    except IrisdError as error:
        click.echo(f"irisd: error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it goes nowhere, quietly
        if error.errno != errno.EPIPE:  # else whoever read it has left
            click.echo(f"irisd: error: the output cannot be written: {error.strerror}", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _open_standard_streams() -> None:
    """Open those that whoever started us had closed: else the next socket would be standard error, and written to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def settings(command: Command) -> Command:
    """Give a command one flag per setting, in the settings' own order."""
    for option in reversed(OPTIONS.values()):
        command = click.option(
            f"--{option.flag}",
            option.name,
            multiple=option.many,
            metavar="VALUE",
            help=f"{option.help}.{_default(option)}",
        )(command)
    return click.option(
        "--config",
        "config_file",
        envvar="IRISD_CONFIG",
        metavar="FILE",
        help="Read settings from this irisd.toml (variable IRISD_CONFIG).",
    )(command)


def _default(option: Option) -> str:
    shown = option.text(getattr(Config(), option.name))
    return f" [{shown}]" if shown else ""


def build() -> str:
    """What follows the version: whether what every frame passes is compiled."""
    from irisd.wire import frames  # a third of what this command takes to start

    return "" if frames.__file__.endswith(".py") else " (compiled)"


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"irisd {__version__}{build()}")
        context.exit()


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def irisd(context: click.Context) -> int:
    """The Iris daemon: one per host, a mesh between them, names instead of addresses.

    Without a command: a development daemon, on loopback only, with a fresh key.
    """
    return _run(lambda: _load(None, {})) if context.invoked_subcommand is None else 0


@irisd.command()
@settings
def run(config_file: str | None, **flags: Any) -> int:
    """Run the daemon. A flag wins over its IRISD_ variable, that over the file, that over the default.

    SIGTERM drains and exits, a second one exits at once. SIGHUP reads settings, keys and tokens again.
    """
    return _run(lambda: _load(config_file, flags))


@irisd.command()
@settings
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def check(config_file: str | None, as_json: bool, **flags: Any) -> int:
    """Check the settings, and the files they name; show where each value came from.

    Takes the flags of `irisd run`; nothing is started.
    """
    try:
        loaded = _load(config_file, flags)
        keys = _checked_files(loaded.config)
    except IrisdError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"ok": False, "error": str(error)}))
        return error.exit_code
    if as_json:
        rows = {
            name: {
                "value": _plain(getattr(loaded.config, name), OPTIONS[name]),
                "origin": origin,
                "reloads": OPTIONS[name].reloads,
            }
            for name, _, origin in loaded.rows()
        }
        shown = [{"file": path, "service": key.service, "key": key.key_id_hex} for path, key in keys]
        click.echo(json.dumps({"ok": True, "settings": rows, "keys": shown}))
        return 0
    rows_of_text = loaded.rows()
    wide = max(len(text) for _, text, _ in rows_of_text if len(text) <= 40)
    room = ""
    for name, text, origin in rows_of_text:
        if OPTIONS[name].room != room:
            room = OPTIONS[name].room
            click.echo(f"# {room}")
        marked = f"{name}*" if OPTIONS[name].reloads else name
        click.echo(f"{marked:<26} {text or '-':<{wide}}  {origin}")
    for path, key in keys:
        click.echo(f"key of service {key.service}: {key.key_id_hex} ({path})")
    click.echo("* a new value is taken up by SIGHUP or `iris reload`; the others want a restart")
    if loaded.config.development:
        click.echo("no key: this would be a development daemon, on loopback only, with a fresh key")
    click.echo("ok")
    return 0


@irisd.command()
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Send this file through the tunnel."
)
def demo(file: Path | None) -> int:
    """Show what a mesh does: three daemons and their apps on this machine, and a report that says what it proves.

    Exits 1 if anything in it is not so.
    """
    # Late, and here only: the demo is an app, the daemon itself needs no SDK.
    from irisd import demo as show

    return show.run(file)


# ------------------------------------------------------------------------ keys


@irisd.group()
def keys() -> None:
    """Make and look at service keys. Whoever holds a service's key is trusted by all of it."""


@keys.command("new")
@click.argument("service")
@click.option("--output", "-o", metavar="FILE", help="Write to a new file of mode 0600 instead of standard output.")
@click.option("--comment", default="", metavar="TEXT", help="A line for people, kept in the file.")
def keys_new(service: str, output: str | None, comment: str) -> int:
    """Make a new key for SERVICE: irisd keys new shop > shop.key.

    What it writes to becomes readable by you only, whatever the umask says.
    """
    key = ServiceKey.generate(service, os.urandom(SEED_BYTES))
    text = key.to_text(comment)
    if output:
        write_key_file(output, text)
        click.echo(f"key {key.key_id_hex} of service {service} written to {output}", err=True)
        return 0
    protect_output(sys.stdout.fileno())
    click.echo(text, nl=False)
    return 0


@keys.command("show")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def keys_show(file: str, as_json: bool) -> int:
    """Say which service and which key FILE holds. Never shows the key itself."""
    key = load_key_file(file)
    if as_json:
        click.echo(json.dumps({"service": key.service, "key": key.key_id_hex}))
    else:
        click.echo(f"service  {key.service}\nkey      {key.key_id_hex}")
    return 0


@irisd.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script for SHELL: eval "$(irisd completion bash)"."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(found(irisd, {}, "irisd", "_IRISD_COMPLETE").source())
    return 0


# ----------------------------------------------------------------------- steps


def _load(config_file: str | None, flags: dict[str, Any]) -> Loaded:
    environment = dict(os.environ)
    path = config_file or environment.get("IRISD_CONFIG") or None
    loaded = load(
        flags={name: value for name, value in flags.items() if value not in (None, ())},
        surroundings=Surroundings(environment, socket.gethostname(), os.geteuid() == 0),
        file_text=None if path is None else _read(path),
        file_name=path or "irisd.toml",
    )
    config = loaded.config
    admin = os.path.abspath(config.admin_socket) if config.admin_socket else ""
    return replace(loaded, config=replace(config, socket=os.path.abspath(config.socket), admin_socket=admin))


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", origin=path) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError("larger than 1 MiB; this is no configuration file", origin=path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8 text; this is no configuration file", origin=path) from None


def _checked_files(config: Config) -> list[tuple[str, ServiceKey]]:
    """Open what the settings name, as the daemon would; return the keys."""
    found = [(path, load_key_file(path)) for path in config.keys]
    for name in ("token_file", "tls_cert", "tls_key"):
        path = getattr(config, name)
        if path and not os.access(path, os.R_OK):
            raise ConfigError(f"{name}: {path} cannot be read by user {os.geteuid()}", key=name)
    return found


def _run(read: Callable[[], Loaded]) -> int:
    """Run a daemon with what ``read`` finds, now and at every reload."""

    def again() -> tuple[Config, list[ServiceKey]]:
        config = read().config
        return config, [load_key_file(path) for path in config.keys]

    config, keys_held = again()
    # Late, because they bring gRPC and uvloop: `irisd keys` and `irisd check` need neither.
    import_grpc()
    from irisd import daemon, development, logs

    lines = logs.set_up(config.log_level, config.log_format)
    try:
        if config.development:
            return development.run(config, announce=lambda text: lines.write(text + "\n"), read=lambda: read().config)
        return daemon.run(config, keys_held, read=again)
    finally:
        lines.close()


def _plain(value: Any, option: Option) -> Any:
    """Return a value as JSON would have it: sizes, counts and seconds as numbers, the rest as it would be written."""
    if option.many:
        return [option.show(part) for part in value]
    number = isinstance(value, (int, float)) and option.parse is not parse_mode
    return value if number or value is None else option.show(value)
