"""``iris status``, ``nodes``, ``clusters``, ``topics``: what the daemon knows."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from iris_client.cli import tables
from iris_client.cli.control import Control, ask_once, keep_asking
from iris_client.cli.options import Duration, Settings, examples, with_settings
from iris_client.cli.output import print_json

_Answer = TypeVar("_Answer")

_HOME_AND_CLEAR = "\x1b[H\x1b[2J"

watch_option = click.option(
    "--watch",
    metavar="TIME",
    type=Duration(),
    is_flag=False,
    flag_value="1s",
    help="Show it again and again, every second or every TIME.",
)


@click.command(
    short_help="The daemon: services, listeners, conditions, drops.",
    epilog=examples(
        "iris status",
        "iris status --watch",
        "iris status --json | jq '.services[0].peers'",
    ),
)
@watch_option
@click.option("--counters", is_flag=True, help="Show every counter.")
@with_settings
async def status(settings: Settings, watch: float | None, counters: bool) -> None:
    """Show the daemon: its services, listeners, peers, conditions and drops."""
    show = tables.show_counters if counters else tables.show_status
    await _show(settings, watch, Control.status, show, tables.status_json)


@click.command(
    short_help="The nodes of the service.",
    epilog=examples(
        "iris nodes",
        "iris nodes --watch 500ms",
    ),
)
@watch_option
@with_settings
async def nodes(settings: Settings, watch: float | None) -> None:
    """List the nodes of the service: their state, who heard them when, how far they are, and where."""
    await _show(settings, watch, Control.nodes, tables.show_nodes, tables.nodes_json)


@click.command(
    short_help="Who serves which name.",
    epilog=examples(
        "iris clusters",
        "iris clusters --json | jq -r '.clusters[].cluster'",
    ),
)
@watch_option
@with_settings
async def clusters(settings: Settings, watch: float | None) -> None:
    """List the clusters: how many members, on which nodes, and what they handle."""
    await _show(settings, watch, Control.clusters, tables.show_clusters, tables.clusters_json)


@click.command(
    short_help="What is subscribed to.",
    epilog=examples(
        "iris topics",
    ),
)
@watch_option
@with_settings
async def topics(settings: Settings, watch: float | None) -> None:
    """List the topic filters somebody subscribes to."""
    await _show(settings, watch, Control.topics, tables.show_topics, tables.topics_json)


async def _show(
    settings: Settings,
    watch: float | None,
    ask: Callable[[Control], Awaitable[_Answer]],
    show: Callable[[_Answer], str],
    as_json: Callable[[_Answer], dict[str, Any]],
) -> None:
    """Ask and print, once or again and again; a terminal is cleared in between, a file is not."""
    if watch is None:
        _print(settings, await ask_once(settings, ask), show, as_json)
        return
    clear = sys.stdout.isatty() and not settings.json
    async for answer in keep_asking(settings, ask, watch):
        if clear:
            print(_HOME_AND_CLEAR, end="")
        _print(settings, answer, show, as_json)
        if not clear and not settings.json:
            print(flush=True)


def _print(
    settings: Settings, answer: _Answer, show: Callable[[_Answer], str], as_json: Callable[[_Answer], dict[str, Any]]
) -> None:
    if settings.json:
        print_json(as_json(answer))
    else:
        print(show(answer), flush=True)
