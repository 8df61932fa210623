"""``iris request``, ``push``, ``broadcast``, ``survey``: one message to a cluster, and what comes back."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

import iris_client as iris
from iris_client._balance import BALANCES
from iris_client.cli.completion import cluster_names
from iris_client.cli.options import (
    Settings,
    body_of,
    connect,
    examples,
    file_option,
    header_option,
    headers_of,
    method_option,
    with_settings,
)
from iris_client.cli.output import FAILED, TIMEOUT, describe, print_json, style
from iris_client.cli.repeat import repeat_requests
from iris_client.cli.values import json_body, line_body, printable, show_time

_Headers = tuple[tuple[str, str], ...]

name_argument = click.argument("name", shell_complete=cluster_names)
body_argument = click.argument("body", required=False)


key_option = click.option("--key", metavar="KEY", help="Calls with the same key go to the same member.")
balance_option = click.option(
    "--balance",
    type=click.Choice([name for name in BALANCES if name != "hash"]),
    help="How a member is chosen.  [default: as the cluster's members say]",
)


@click.command(
    short_help="Ask one member.",
    epilog=examples(
        "iris request databases 'select 1'",
        "iris request thumbnails --file photo.jpg > small.jpg",
        "date | iris request shout",
        "iris request databases hello --repeat 1000 --concurrency 64",
    ),
)
@name_argument
@body_argument
@file_option
@header_option
@method_option
@click.option("--idempotent", is_flag=True, help="Running it twice does no harm: try again when a member is lost.")
@click.option(
    "--hedge-after", metavar="S", type=float, help="With --idempotent: ask a second member after this many seconds."
)
@key_option
@balance_option
@click.option("--repeat", metavar="N", type=click.IntRange(1, 10_000_000), help="Send it N times and sum up.")
@click.option(
    "--concurrency", metavar="C", type=click.IntRange(1, 4096), default=1, help="With --repeat: how many at once."
)
@with_settings
async def request(
    settings: Settings,
    name: str,
    body: str | None,
    file: Path | None,
    header_pairs: _Headers,
    method: str,
    idempotent: bool,
    hedge_after: float | None,
    key: str | None,
    balance: str | None,
    repeat: int | None,
    concurrency: int,
) -> int | None:
    """Ask one member of cluster NAME and print its answer, byte for byte."""
    content, headers = body_of(body, file), headers_of(header_pairs)
    if concurrency > 1 and repeat is None:
        raise click.UsageError("--concurrency belongs to --repeat")
    async with connect(settings) as mesh:

        async def once() -> iris.Reply:
            return await mesh.request(
                name,
                content,
                method=method,
                timeout=settings.timeout,
                headers=headers,
                idempotent=idempotent,
                hedge_after=hedge_after,
                key=key,
                balance=balance,
            )

        if repeat is not None:
            return await repeat_requests(once, repeat, concurrency, as_json=settings.json)
        started = time.perf_counter()
        reply = await once()
        took = time.perf_counter() - started
    if settings.json:
        told: dict[str, Any] = {"member": reply.member, **json_body(reply.body), "headers": dict(reply.headers)}
        print_json(told | {"content_type": reply.content_type, "took": round(took, 6)})
        return None
    print_raw(reply.body)
    return None


@click.command(
    short_help="Give one member a job.",
    epilog=examples(
        "iris push workers '{\"job\": 7}'",
        "iris push workers --file job.json",
    ),
)
@name_argument
@body_argument
@file_option
@header_option
@method_option
@key_option
@balance_option
@with_settings
async def push(
    settings: Settings,
    name: str,
    body: str | None,
    file: Path | None,
    header_pairs: _Headers,
    method: str,
    key: str | None,
    balance: str | None,
) -> None:
    """Hand a message to one member of cluster NAME; no answer comes back.

    Returns when the member's node has queued it.
    """
    content, headers = body_of(body, file), headers_of(header_pairs)
    async with connect(settings) as mesh:
        await mesh.push(
            name, content, method=method, timeout=settings.timeout, headers=headers, key=key, balance=balance
        )
    if settings.json:
        print_json({"pushed": True})


@click.command(
    short_help="Tell every member.",
    epilog=examples(
        "iris broadcast caches flush",
    ),
)
@name_argument
@body_argument
@file_option
@header_option
@method_option
@with_settings
async def broadcast(
    settings: Settings, name: str, body: str | None, file: Path | None, header_pairs: _Headers, method: str
) -> None:
    """Hand a message to every member of cluster NAME, and print how many that were."""
    content, headers = body_of(body, file), headers_of(header_pairs)
    async with connect(settings) as mesh:
        count = await mesh.broadcast(name, content, method=method, timeout=settings.timeout, headers=headers)
    if settings.json:
        print_json({"members": count})
    else:
        print(count)


@click.command(
    short_help="Ask every member.",
    epilog=examples(
        "iris survey databases version --timeout 500ms",
        "iris survey databases version --json | jq .body",
    ),
)
@name_argument
@body_argument
@file_option
@header_option
@method_option
@with_settings
async def survey(
    settings: Settings, name: str, body: str | None, file: Path | None, header_pairs: _Headers, method: str
) -> int | None:
    """Ask every member of cluster NAME and print the answers as they come.

    Ends when all have answered, or at --timeout; then says who was silent. The exit code is 0 when somebody answered,
    5 when nobody did, 1 when there were only errors.
    """
    content, headers = body_of(body, file), headers_of(header_pairs)
    good, late = 0, set[str]()
    started = time.perf_counter()
    async with (
        connect(settings) as mesh,
        mesh.survey(name, content, method=method, timeout=settings.timeout, headers=headers) as answers,
    ):
        async for answer in answers:
            if isinstance(answer.error, iris.DeadlineExceeded):
                late.add(answer.member)  # "I was not done in time" is silence, only nearer
                continue
            good += answer.error is None
            _print_answer(answer, as_json=settings.json)
        took = time.perf_counter() - started
    asked, answered = sorted(answers.asked), sorted(set(answers.answered) - late)
    silent = sorted(late.union(answers.silent))
    if settings.json:
        print_json({"asked": asked, "answered": answered, "silent": silent, "took": round(took, 6)})
    else:
        line = f"{len(answered)} of {len(asked)} answered in {show_time(took)}"
        print(line + (f"; silent: {', '.join(map(printable, silent))}" if silent else ""))
    if good:
        return None
    return FAILED if answered else TIMEOUT


def _print_answer(answer: iris.Answer, *, as_json: bool) -> None:
    if as_json:
        failed = {"error": describe(answer.error)} if answer.error is not None else json_body(answer.body)
        print_json({"member": answer.member, **failed})
        return
    who = style(printable(answer.member), "bold")
    if answer.error is not None:
        print(f"{who}: {style('error', 'red')}: {printable(str(answer.error))}", flush=True)
    else:
        text = line_body(answer.body.rstrip(b"\n"))
        print(f"{who}: {text}", flush=True)


def print_raw(body: bytes) -> None:
    """Write a body byte for byte; a terminal also gets the newline that keeps the prompt on its own line."""
    sys.stdout.flush()
    sys.stdout.buffer.write(body)
    if sys.stdout.isatty() and not body.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
