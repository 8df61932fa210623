"""``iris events``: nodes and members that come and go, a line each."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

import click

import iris_client as iris
from iris_client.cli.completion import cluster_names
from iris_client.cli.options import Settings, connect, examples, tell_state, with_settings
from iris_client.cli.output import Failure, note, note_json, style
from iris_client.cli.streams import Output
from iris_client.cli.values import count_of, printable

_COLOURS: Final = {"alive": "green", "suspect": "yellow", "dead": "red", "left": "dim", "self": "bold"}


@click.command(
    short_help="Print who comes and goes.",
    epilog=examples(
        "iris events",
        "iris events databases --no-picture",
        "iris events --now --json | jq -r 'select(.cluster == \"\").name'",
    ),
)
@click.argument("cluster", required=False, default="", shell_complete=cluster_names)
@click.option("--now", is_flag=True, help="Only the picture: what there is now.")
@click.option("--no-picture", is_flag=True, help="Only what changes from now on.")
@click.option("--count", metavar="N", type=click.IntRange(1), help="Stop after N lines.")
@with_settings
async def events(settings: Settings, cluster: str, now: bool, no_picture: bool, count: int | None) -> None:
    """Print which nodes and members there are, and then what changes, until interrupted.

    With CLUSTER only its members, and the nodes that serve it or did a moment ago. Losses are told on standard error.
    --timeout is for finding the daemon. Ctrl-C ends it well: with 0.
    """
    if now and no_picture:
        raise click.UsageError("--now and --no-picture: choose one")
    try:
        await _print(settings, cluster, now=now, no_picture=no_picture, count=count)
    except iris.NotSupported as error:
        raise Failure(str(error), hint="iris status tells its release", kind="NotSupported") from None
    except asyncio.CancelledError:  # ctrl-C: nobody else cancels a command
        if sys.stderr.isatty():
            note("")  # the prompt belongs on a line of its own, below the ^C


async def _print(settings: Settings, cluster: str, *, now: bool, no_picture: bool, count: int | None) -> None:
    left = count
    async with connect(settings) as mesh, mesh.watch(cluster) as changes:
        tell_state(mesh, as_json=settings.json)
        if sys.stderr.isatty() and not now:
            what = repr(cluster) if cluster else "nodes and clusters"
            note(f"iris: watching {what}; ctrl-C ends it")
        sink = Output()
        async for batch in _batches(changes, now=now):
            shown = [change for change in batch if not (no_picture and change.present)]
            if left is not None:
                shown = shown[:left]
                left -= len(shown)
            for change in batch:
                _tell_loss(change, as_json=settings.json)
            await sink.write(b"".join(_line(change, as_json=settings.json) for change in shown))
            if left == 0:
                break
        await sink.close()


async def _batches(changes: iris.Watch, *, now: bool) -> AsyncIterator[list[iris.Change]]:
    """Yield the picture at once, and after that, unless it was all that is wanted, what came together."""
    if picture := await changes.picture():
        yield picture
    while not now and (batch := await changes._batch()):
        yield batch


def _line(change: iris.Change, *, as_json: bool) -> bytes:
    """One change, and when it came here."""
    clock = datetime.now().astimezone()
    if as_json:
        told = {
            "time": clock.isoformat(timespec="milliseconds"),
            "node": change.node,
            "name": change.name,
            "state": change.state,
            "cluster": change.cluster,
            "members": change.members,
            "reason": change.reason,
            "present": change.present,
            "lost": change.lost,
        }
        return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    who = printable(change.name or change.node[:6])
    why = f" ({printable(change.reason)})" if change.reason else ""
    if change.cluster:
        members = count_of(change.members, "member") if change.members else "no members"
        what = f"{style(change.cluster, 'bold')}: {members} at {who}"
    else:
        what = f"node {who} {style(printable(change.state), _COLOURS.get(change.state, ''))}"
    return f"{clock:%H:%M:%S} {what}{why}\n".encode()


def _tell_loss(change: iris.Change, *, as_json: bool) -> None:
    if change.lost == 0:
        return
    if as_json:
        note_json({"warning": "Lost", "lost": change.lost, "before": change.cluster or change.name})
    elif change.lost is None:
        note("iris: warning: changes may have been missed here; how things are now begins anew")
    else:
        note(f"iris: warning: {count_of(change.lost, 'change')} lost here")
