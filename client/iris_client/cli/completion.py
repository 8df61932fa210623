"""Tab completion: click's for commands and options, and the names the daemon knows for their arguments."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from iris_client._errors import IrisError
from iris_client.cli.control import Control, open_control
from iris_client.cli.options import examples, settings_of
from iris_client.cli.output import Failure

PATIENCE: Final = 0.5
"""Seconds a shell may be kept waiting for names."""
COMPLETE_VARIABLE: Final = "_IRIS_COMPLETE"
SHELLS: Final = ("bash", "zsh", "fish")


async def _cluster_names(control: Control) -> list[str]:
    return [row.name for row in await control.clusters()]


async def _topic_filters(control: Control) -> list[str]:
    return [row.filter for row in await control.topics()]


async def _topic_names(control: Control) -> list[str]:
    """Filters without wildcards are topics somebody waits for."""
    return [name for name in await _topic_filters(control) if "*" not in name and ">" not in name]


def _completing(
    ask: Callable[[Control], Awaitable[list[str]]],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            names = asyncio.run(_names(ctx, ask))
        except (IrisError, Failure, OSError, TimeoutError, ValueError):
            return []  # a shell that completes is no place for errors
        return [CompletionItem(name) for name in sorted(set(names)) if name.startswith(incomplete)]

    return complete


async def _names(ctx: click.Context, ask: Callable[[Control], Awaitable[list[str]]]) -> list[str]:
    settings = replace(settings_of(ctx), timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE), open_control(settings) as control:
        return await ask(control)


cluster_names = _completing(_cluster_names)
topic_filters = _completing(_topic_filters)
topic_names = _completing(_topic_names)


@click.command(
    short_help="Tab completion for your shell.",
    epilog=examples(
        'eval "$(iris completion bash)"      # in ~/.bashrc',
        'eval "$(iris completion zsh)"       # in ~/.zshrc, after compinit',
        "iris completion fish | source       # in ~/.config/fish/config.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Print what a shell needs to complete iris commands, cluster names and topics."""
    if shell is None:
        shell = Path(os.environ.get("SHELL", "")).name
        if shell not in SHELLS:
            raise click.UsageError(f"which shell? One of {', '.join(SHELLS)}", ctx)
    complete = get_completion_class(shell)
    assert complete is not None  # the choice above are those click has
    root = ctx.find_root().command
    print(complete(root, {}, "iris", COMPLETE_VARIABLE).source())
