"""``iris publish`` and ``iris subscribe``: messages to a topic, and messages from one."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Final

import click

import iris_client as iris
from iris_client._model import MiB
from iris_client.cli.completion import cluster_names, topic_filters, topic_names
from iris_client.cli.options import (
    Settings,
    body_of,
    connect,
    examples,
    file_option,
    header_option,
    headers_of,
    tell_state,
    with_settings,
)
from iris_client.cli.output import Failure, note, note_json, print_json, style
from iris_client.cli.streams import Input, Output
from iris_client.cli.values import count_of, json_body, line_body

MAX_LINE: Final = 64 * MiB
"""Longest line ``publish --lines`` holds while it looks for its end. The daemon's limit of a body comes on top."""

QUEUE_BYTES: Final = 64 * MiB
"""What may wait to be printed before messages are lost."""


@click.command(
    short_help="Publish to a topic.",
    epilog=examples(
        "iris publish orders.new '{\"id\": 7}'",
        "tail -f app.log | iris publish logs.web --lines",
    ),
)
@click.argument("topic", shell_complete=topic_names)
@click.argument("body", required=False)
@file_option
@header_option
@click.option("--lines", is_flag=True, help="Each line of standard input is a message.")
@click.option("--no-wait", is_flag=True, help="Fail rather than wait for subscribers that must lose nothing.")
@with_settings
async def publish(
    settings: Settings,
    topic: str,
    body: str | None,
    file: Path | None,
    header_pairs: tuple[tuple[str, str], ...],
    lines: bool,
    no_wait: bool,
) -> None:
    """Publish a message to TOPIC. Exits when the daemon has routed it, with 1 if it could not.

    Where a subscriber must lose nothing and does not read, it waits for a few seconds, and then says for whom.
    """
    headers = headers_of(header_pairs)
    if lines:
        if body not in (None, "-") or file is not None:
            raise click.UsageError("--lines reads standard input: leave out the body and --file")
        count = 0
        async with connect(settings) as mesh:
            async for batch in _lines(Input()):
                count += len(batch)
                await _publish_all(mesh, topic, batch, headers, wait=not no_wait)
            await mesh.flush(timeout=settings.timeout)
    else:
        content = body_of(body, file)
        count = 1
        async with connect(settings) as mesh:
            await mesh.publish(topic, content, headers=headers, wait=not no_wait)
            await mesh.flush(timeout=settings.timeout)
    if settings.json:
        print_json({"published": count})
    elif lines and sys.stderr.isatty():
        note(f"iris: published {count_of(count, 'message')}")


async def _publish_all(
    mesh: iris.Mesh, topic: str, bodies: list[bytes], headers: Mapping[str, str] | None, *, wait: bool
) -> None:
    if headers is None:
        await mesh.publish_many(topic, bodies, wait=wait)
        return
    for body in bodies:
        await mesh.publish(topic, body, headers=headers, wait=wait)


async def _lines(source: Input) -> AsyncIterator[list[bytes]]:
    """Yield the lines of what was read at once, without their ends; a last line needs none.

    Raises:
        Failure: A line is longer than :data:`MAX_LINE`.
    """
    begun: list[bytes] = []  # of a line whose end has not come
    size = 0
    while chunk := await source.read():
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join([*begun, whole[0]])
            begun, size = [], 0
            yield whole
        if rest:
            begun.append(rest)
            size += len(rest)
            if size > MAX_LINE:
                raise Failure(f"a line is longer than {MAX_LINE} bytes", hint="leave out --lines", kind="TooLarge")
    if begun:
        yield [b"".join(begun)]


@click.command(
    short_help="Print what is published.",
    epilog=examples(
        "iris subscribe 'orders.*'",
        "iris subscribe 'logs.>' --json --count 10",
        "iris subscribe jobs.new --group workers      # each message to one of the group",
    ),
)
@click.argument("topic_filter", metavar="FILTER", shell_complete=topic_filters)
@click.option(
    "--group",
    metavar="CLUSTER",
    default="",
    shell_complete=cluster_names,
    help="Share the messages: each goes to one subscriber of this group.",
)
@click.option("--count", metavar="N", type=click.IntRange(1), help="Stop after N messages.")
@click.option(
    "--when-full",
    type=click.Choice(("drop-oldest", "drop-newest", "block")),
    default="drop-oldest",
    help="What gives way when messages come faster than they are printed; block: nothing, publishers wait."
    "  [default: drop-oldest]",
)
@click.option("--raw", is_flag=True, help="Only bodies, byte for byte, a newline after each.")
@with_settings
async def subscribe(
    settings: Settings, topic_filter: str, group: str, count: int | None, when_full: str, raw: bool
) -> None:
    """Print what is published to the topics FILTER matches, until interrupted.

    In a filter '*' stands for one token of a topic, a last '>' for the rest. Losses are told on standard error.
    --timeout is for finding the daemon.
    """
    if raw and settings.json:
        raise click.UsageError("--raw and --json: choose one")
    left = count
    async with (
        connect(settings) as mesh,
        mesh.subscribe(
            topic_filter, group=group or None, when_full=when_full.replace("-", "_"), max_bytes=QUEUE_BYTES
        ) as events,
    ):
        tell_state(mesh, as_json=settings.json)
        if sys.stderr.isatty():
            note(f"iris: subscribed to {topic_filter!r}; ctrl-C ends it")
        sink = Output()
        async for batch in events.batches():
            if left is not None:
                batch = batch[:left]
                left -= len(batch)
            _tell_losses(batch, as_json=settings.json)
            await sink.write(b"".join(_shown(batch, raw=raw, as_json=settings.json)))
            if left == 0:
                break
        await sink.close()


def _shown(events: Iterable[iris.Event], *, raw: bool, as_json: bool) -> Iterable[bytes]:
    """One line per event."""
    if raw:
        for event in events:
            yield event.body
            yield b"\n"
    elif as_json:
        for event in events:
            told = {"topic": event.topic, **json_body(event.body), "headers": dict(event.headers), "lost": event.lost}
            yield json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    else:
        for event in events:
            yield f"{style(event.topic, 'bold')} {line_body(event.body)}\n".encode()


def _tell_losses(events: Iterable[iris.Event], *, as_json: bool) -> None:
    for event in events:
        if event.lost == 0:
            continue
        if as_json:
            note_json({"warning": "Lost", "lost": event.lost, "before": event.topic})
        elif event.lost is None:
            note("iris: warning: messages may have been lost here, how many cannot be known")
        else:
            note(f"iris: warning: {count_of(event.lost, 'message')} lost here")
