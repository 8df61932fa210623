"""``iris top``: what the daemon has to do, as it does it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import click

from iris_client.cli.control import Control, keep_asking
from iris_client.cli.loads import show_load
from iris_client.cli.options import Duration, Settings, examples, with_settings
from iris_client.cli.output import print_json
from iris_client.cli.rates import Span, load_json
from iris_client.cli.screen import Screen
from iris_proto.v1 import control_pb2 as pb


@click.command(
    short_help="Calls, members, queues and drops, live.",
    epilog=examples(
        "iris top",
        "iris top --once --interval 5s            # what happens in five seconds",
        "iris top --json | jq -c '.services[].clusters[] | {cluster, p99: .called.p99}'",
    ),
)
@click.option(
    "--interval",
    metavar="TIME",
    type=Duration(),
    default="1s",
    show_default=True,
    help="Between two looks; rates and percentiles are of this time.",
)
@click.option("--once", is_flag=True, help="Look twice, print what happened in between, and end.")
@with_settings
async def top(settings: Settings, interval: float, once: bool) -> None:
    """Show what the daemon has to do: rates, latencies, members, queues and drops.

    CLUSTER rows are calls of this daemon's apps, wherever they are served; SERVED HERE rows are calls its own members
    have, whoever makes them. Latencies are of requests, in steps of about 1.4, P50 and P99 of the last interval. On a
    terminal the picture stays in its place until Ctrl-C; else each look is printed below the last.
    """
    live = not (once or settings.json) and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    with ExitStack() as stack:
        screen = stack.enter_context(Screen(sys.stdout)) if live else None
        looking = asyncio.ensure_future(_look(settings, interval, once, screen))
        stack.enter_context(_ending(looking))
        with suppress(asyncio.CancelledError):  # told to end, which is how this ends
            await looking


async def _look(settings: Settings, interval: float, once: bool, screen: Screen | None) -> None:
    before: pb.Load | None = None
    async for now in keep_asking(settings, Control.load, interval):
        span = Span(before, now)
        if screen is not None:
            show = _drawing(screen, span)
            show()
            _on_resize(show)
        elif span.seconds:  # one look alone says nothing of what happens
            _print(settings, span)
            if once:
                return
        before = now


def _print(settings: Settings, span: Span) -> None:
    if settings.json:
        print_json(load_json(span))
    else:
        print(show_load(span), end="\n\n", flush=True)


def _drawing(screen: Screen, span: Span) -> Callable[[], None]:
    return lambda: screen.draw(show_load(span, screen.height))


def _on_resize(draw: Callable[[], None]) -> None:
    with suppress(AttributeError, NotImplementedError):  # not on this platform: the next look draws anew
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, draw)


@contextmanager
def _ending(task: asyncio.Future[None]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the task rather than the process."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    with suppress(NotImplementedError):
        for number in numbers:
            loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        with suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)
