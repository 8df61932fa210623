"""``iris tunnel``: standard input into a tunnel, the tunnel onto standard output."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from collections.abc import Coroutine
from typing import Final

import click

import iris_client as iris
from iris_client._model import DATA_BYTES
from iris_client.cli.completion import cluster_names
from iris_client.cli.options import Settings, connect, examples, header_option, headers_of, method_option, with_settings
from iris_client.cli.output import Failure, note, note_json
from iris_client.cli.streams import Input, Output
from iris_client.cli.values import show_size, show_time

PROGRESS_INTERVAL: Final = 0.2
BAR_WIDTH: Final = 20
CLEAR_LINE: Final = "\r\x1b[K"


class Progress:
    """How much went each way, and how fast.

    Args:
        total: Bytes there are to send, if that is known.

    Attributes:
        sent: Bytes handed to the tunnel.
        received: Bytes taken from it.
    """

    def __init__(self, total: int | None = None) -> None:
        self._total = total
        self.sent = 0
        self.received = 0
        self._started = time.perf_counter()

    @property
    def took(self) -> float:
        """Seconds since the tunnel was open."""
        return time.perf_counter() - self._started

    def line(self) -> str:
        took = self.took
        moved = self.sent + self.received
        rate = f"{show_size(moved / took)}/s" if took > 0 and moved else "-"
        return f"sent {show_size(self.sent)}, received {show_size(self.received)} in {show_time(took)} ({rate})"

    def bar(self) -> str:
        """How far it is, when it is known how far there is to go; empty when not."""
        if not self._total:
            return ""
        share = min(1.0, self.sent / self._total)
        return f"[{'#' * int(share * BAR_WIDTH):<{BAR_WIDTH}}] {share:4.0%} "

    async def show(self) -> None:
        """Keep a line on the terminal up to date, until cancelled."""
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL)
            print(f"{CLEAR_LINE}{self.bar()}{self.line()}", end="", file=sys.stderr, flush=True)


@click.command(
    short_help="Pipe stdin and stdout through a member.",
    epilog=examples(
        "iris tunnel storage < big.iso",
        "iris serve storage --tunnel -- sh -c 'cat > /srv/big.iso'     # the other end",
        "tar c photos | iris tunnel storage",
    ),
)
@click.argument("name", shell_complete=cluster_names)
@header_option
@method_option
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary on standard error.")
@with_settings
async def tunnel(
    settings: Settings, name: str, header_pairs: tuple[tuple[str, str], ...], method: str, quiet: bool
) -> None:
    """Open a tunnel to one member of cluster NAME: standard input goes in, what comes back goes to standard output.

    The end of the input half-closes the tunnel. A tunnel that breaks exits with 1 and says how far it came; it is
    never mistaken for one that finished. --timeout is for opening it.
    """
    headers = headers_of(header_pairs)
    progress = Progress()
    try:
        async with (
            connect(settings) as mesh,
            mesh.tunnel(name, method=method, timeout=settings.timeout, headers=headers) as opened,
        ):
            progress = Progress(_length_of_input())
            # Whoever types sees what happens; a line that moves would only be in the way.
            show = not quiet and not settings.json and sys.stderr.isatty() and not sys.stdin.isatty()
            await _watched(_both_ways(opened, progress, tidy=show and sys.stdout.isatty()), progress, show=show)
    except iris.TunnelBroken as error:
        raise Failure(
            f"{error.args[0]}; it broke after {progress.sent} bytes were sent and {progress.received} received",
            hint="the other end may have got less than was sent; move it again",
            kind="TunnelBroken",
        ) from None
    if settings.json:
        note_json({"sent": progress.sent, "received": progress.received, "took": round(progress.took, 6)})
    elif not quiet:
        note(f"iris: {progress.line()}")


async def _watched(work: Coroutine[None, None, None], progress: Progress, *, show: bool) -> None:
    """Do the work, with a line of progress if that is wanted."""
    if not show:
        await work
        return
    showing = asyncio.create_task(progress.show(), name="iris-progress")
    try:
        await work
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        print(CLEAR_LINE, end="", file=sys.stderr, flush=True)


def _length_of_input() -> int | None:
    """How much standard input still has, if it is a file."""
    try:
        descriptor = sys.stdin.fileno()
        info = os.fstat(descriptor)
        return info.st_size - os.lseek(descriptor, 0, os.SEEK_CUR) if stat.S_ISREG(info.st_mode) else None
    except OSError:
        return None


async def _both_ways(opened: iris.Tunnel, progress: Progress, *, tidy: bool) -> None:
    """Pump both directions until both ends have finished.

    Somebody who types at a terminal is not waited for once the other end has finished.

    Args:
        opened: The tunnel.
        progress: Counts the bytes.
        tidy: Output and progress share a terminal: clear the line before anything is written.

    Raises:
        iris.TunnelBroken: The tunnel broke.
        OSError: Standard input or output did.
    """
    sending = asyncio.create_task(_send(opened, progress), name="iris-tunnel-send")
    receiving = asyncio.create_task(_receive(opened, progress, tidy=tidy), name="iris-tunnel-receive")
    pending = {sending, receiving}
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if receiving in done and sys.stdin.isatty():
                return
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


async def _send(opened: iris.Tunnel, progress: Progress) -> None:
    source = Input(chunk_bytes=DATA_BYTES)
    while chunk := await source.read():
        await opened.send(chunk)
        progress.sent += len(chunk)
    await opened.finish()


async def _receive(opened: iris.Tunnel, progress: Progress, *, tidy: bool) -> None:
    sink = Output()
    async for chunk in opened:
        progress.received += len(chunk)
        if tidy:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
        await sink.write(chunk)
    await sink.close()
