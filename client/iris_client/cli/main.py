"""The command's root: global options, and how everything that can go wrong becomes a message and an exit code."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any

import click

import iris_client as iris
from iris_client import _frames
from iris_client.cli import admin, bench, call, doctor, events, inspect, serve, top, topics, trace, tunnel
from iris_client.cli.completion import COMPLETE_VARIABLE, completion
from iris_client.cli.options import examples, global_options
from iris_client.cli.output import BROKEN_PIPE, INTERRUPTED, USAGE, Failure, note, report

BUILD = "" if _frames.__file__.endswith(".py") else " (compiled)"

_EPILOG = (
    examples(
        "iris serve shout -- tr a-z A-Z        # answer requests with a command's output",
        "iris request shout hello              # HELLO",
        "iris subscribe 'orders.>' &",
        "iris publish orders.new '{\"id\": 7}'",
        "iris tunnel storage < big.iso",
    )
    + """
\b
A body is an argument, standard input, or --file. Exit codes:
  0 ok   1 failed   2 usage   3 no member   4 denied   5 timeout
"""
)


class _Commands(click.Group):
    """The commands in the order they were added, and a hint for those that do not exist."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.commands, n=1, cutoff=0.5)
            raise click.UsageError(f"no command {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""), ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                note("")  # the prompt belongs on a line of its own, below the ^C
            raise click.exceptions.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _forget_stdout()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        return result


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@global_options
@click.option("--version", "show_version", is_flag=True, help="Show the version and exit.")
@click.pass_context
def cli(ctx: click.Context, /, show_version: bool, **_: Any) -> None:
    """Talk to names instead of addresses, through the irisd on this host."""
    if show_version:
        print(f"iris {iris.__version__}{BUILD}")
        ctx.exit(0)
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        ctx.exit(USAGE)


for _command in (
    inspect.status,
    inspect.nodes,
    inspect.clusters,
    inspect.topics,
    events.events,
    top.top,
    trace.trace,
    doctor.doctor,
    call.request,
    call.push,
    call.broadcast,
    call.survey,
    topics.publish,
    topics.subscribe,
    tunnel.tunnel,
    serve.serve,
    bench.bench,
    admin.drain,
    admin.reload,
    completion,
):
    cli.add_command(_command)


def run(argv: Sequence[str]) -> int:
    """Run one command line.

    Args:
        argv: What follows the command's name.

    Returns:
        What the process exits with.
    """
    _open_what_is_closed()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # grpc's own words on stderr are not for users
    as_json = "--json" in takewhile(lambda word: word != "--", argv)
    try:
        code = cli.main(list(argv), prog_name="iris", complete_var=COMPLETE_VARIABLE, standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BaseExceptionGroup as group:
        error = _first(group)
        if isinstance(error, KeyboardInterrupt):
            return INTERRUPTED
        if not _expected(error):
            raise
        return report(error, as_json=as_json)
    except Exception as error:
        if not _expected(error):
            raise
        return report(error, as_json=as_json)
    return code if isinstance(code, int) else 0


def _open_what_is_closed() -> None:
    """Give a process that was started with closed streams empty ones; else its first socket would take their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - until the process ends


def _expected(error: BaseException) -> bool:
    """Whether it is an outcome, told in a sentence; anything else is a defect and wants its traceback."""
    return isinstance(error, (iris.IrisError, Failure, click.ClickException, OSError, TimeoutError))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _forget_stdout() -> None:
    """Nobody reads our output any more: keep the interpreter from trying again as it ends."""
    with suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)
