"""``iris bench``: what the mesh carries between two processes, of which one may be on another host."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import secrets
import signal
import sys
import time
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import click

import iris_client as iris
from iris_client._model import DATA_BYTES, MiB
from iris_client.cli.benchend import COUNT, OtherEnd
from iris_client.cli.completion import cluster_names
from iris_client.cli.options import Duration, Settings, connect, examples, tell_state, with_settings
from iris_client.cli.output import Failure, note, print_json, table
from iris_client.cli.streams import Input
from iris_client.cli.values import count_of, show_size, show_time
from iris_client.cli.waiting import first_of

WHAT: Final = ("publish", "request", "tunnel")
BURST: Final = 256
"""Messages between two looks at the clock; fewer when they are large."""
BURST_BYTES: Final = 4 * MiB
WARM: Final = 200
"""Requests that are not counted, at most: connections, caches and the balance settle meanwhile."""
WARM_SECONDS: Final = 0.3
MAX_IN_FLIGHT: Final = 32 * MiB
"""Bytes of requests at a time: half of what a process may have waiting."""
IN_FLIGHT: Final = 64
MAX_NAME: Final = 180
"""Bytes; topics add theirs."""
MAX_SECONDS: Final = 600.0
CALL_TIMEOUT: Final = 30.0
START_TIMEOUT: Final = 20.0

clock = time.perf_counter


@dataclass(frozen=True, slots=True)
class Published:
    """``seconds`` until the last message had come."""

    messages: int
    seconds: float
    per_second: float
    mb_per_second: float
    lost: int | None
    """None: some may have been, how many cannot be known."""


@dataclass(frozen=True, slots=True)
class Requested:
    """``in_flight`` at a time; times in seconds."""

    in_flight: int
    requests: int
    per_second: float
    p50: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Moved:
    """Through one tunnel, 64 KiB at a time."""

    bytes: int
    seconds: float
    mb_per_second: float


Found = Published | Requested | Moved


async def published(mesh: iris.Mesh, name: str, body: bytes, seconds: float) -> Published:
    """Publish as fast as it goes, until everything has come or been counted as lost.

    Raises:
        Failure: Nothing comes.
    """
    topic = f"{name}.{secrets.token_hex(4)}"
    await _heard(mesh, name, f"{topic}-warm")
    burst = max(1, min(BURST, BURST_BYTES // max(1, len(body))))
    sent, began = 0, clock()
    while clock() - began < seconds:
        for _ in range(burst):
            await mesh.publish(topic, body)
        sent += burst
    came = await _counted(mesh, name, topic, sent)
    took = max(clock() - began - float(came["quiet"]), 1e-6)
    received = int(came["received"])
    lost = None if came["unknown"] else sent - received
    return Published(sent, took, received / took, received * len(body) / took / 1e6, lost)


async def _heard(mesh: iris.Mesh, name: str, topic: str) -> None:
    """Publish until it is heard: the other end's subscription may be on its way here."""
    ends = clock() + CALL_TIMEOUT
    sent = 0
    while clock() < ends:
        await mesh.publish(topic, b"")
        sent += 1
        if (await _counted(mesh, name, topic, sent))["received"]:
            return
    raise Failure(f"what is published is not heard by {name!r}", kind="NotHeard")


async def _counted(mesh: iris.Mesh, name: str, topic: str, count: int) -> dict[str, Any]:
    asked = json.dumps({"topic": topic, "count": count}).encode()
    reply = await mesh.request(name, asked, method=COUNT, timeout=CALL_TIMEOUT)
    told: dict[str, Any] = json.loads(reply.body)
    return told


async def requested(mesh: iris.Mesh, name: str, body: bytes, seconds: float, in_flight: int) -> Requested:
    """Keep so many requests in flight.

    Raises:
        iris.DeliveryError: One failed.
    """
    warm_until = clock() + WARM_SECONDS
    for _ in range(WARM):
        await mesh.request(name, body, timeout=CALL_TIMEOUT)
        if clock() > warm_until:
            break
    took = array("d")
    began = clock()
    ends = began + seconds

    async def ask() -> None:
        while (start := clock()) < ends:
            await mesh.request(name, body, timeout=CALL_TIMEOUT)
            took.append(clock() - start)

    async with asyncio.TaskGroup() as asking:
        for _ in range(in_flight):
            asking.create_task(ask())
    all_in, ordered = clock() - began, sorted(took)
    return Requested(
        in_flight, len(ordered), len(ordered) / all_in, _share(ordered, 0.5), _share(ordered, 0.99), ordered[-1]
    )


def _share(ordered: list[float], share: float) -> float:
    """The value that such a share of them does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def moved(mesh: iris.Mesh, name: str, seconds: float) -> Moved:
    """Send through one tunnel, until the other end has all of it.

    Raises:
        iris.TunnelBroken: It broke.
        Failure: Something is missing.
    """
    piece = os.urandom(DATA_BYTES)
    async with mesh.tunnel(name) as tunnel:
        sent, began = 0, clock()
        while clock() - began < seconds:
            await tunnel.send(piece)
            sent += len(piece)
        await tunnel.finish()
        came = int(await tunnel.receive() or b"0")
    took = clock() - began
    if came != sent:
        raise Failure(f"{sent} bytes went into a tunnel and {came} came out")
    return Moved(sent, took, sent / took / 1e6)


# ----------------------------------------------------------------- the command


@click.command(
    short_help="Measure what the mesh carries.",
    epilog=examples(
        "iris bench                                   # two processes on this host",
        "iris bench --serve bench                     # on one host, and on another:",
        "iris bench --to bench --size 64 --only publish",
    ),
)
@click.option("--to", "name", metavar="NAME", shell_complete=cluster_names, help="An `iris bench --serve NAME`.")
@click.option("--serve", "served", metavar="NAME", help="Be the other end, until interrupted.")
@click.option(
    "--size",
    metavar="BYTES",
    type=click.IntRange(0, 8 * MiB),
    default=1024,
    show_default=True,
    help="Of bodies.",
)
@click.option("--seconds", metavar="TIME", type=Duration(), default=3.0, help="Of each measurement.  [default: 3s]")
@click.option(
    "--in-flight",
    metavar="N",
    type=click.IntRange(1, 4096),
    help="Requests at a time; one at a time is measured too.  [default: 64, fewer above 512 KiB]",
)
@click.option(
    "--only", metavar="WHAT", multiple=True, type=click.Choice(WHAT), help="publish, request or tunnel; repeatable."
)
@click.option("--held", is_flag=True, hidden=True, help="With --serve: end when standard input does.")
@with_settings
async def bench(
    settings: Settings,
    name: str | None,
    served: str | None,
    size: int,
    seconds: float,
    in_flight: int | None,
    only: tuple[str, ...],
    held: bool,
) -> None:
    """Measure what the mesh carries from here to NAME: messages, requests, a tunnel.

    Without a NAME it starts the other end itself, as a process on this host. Nothing may be lost: the subscriber
    keeps the publisher back, and what is lost all the same is counted or, if that cannot be known, said. Rates count
    until the last message had come. --size is of messages and requests; a tunnel gets 64 KiB at a time. A size and
    --in-flight come to 32 MiB at most together, --seconds to 600. --timeout is for finding the daemon.
    """
    if name is not None and served is not None:
        raise click.UsageError("--to and --serve: this is one end or the other")
    if seconds > MAX_SECONDS:
        raise click.UsageError(f"--seconds: at most {MAX_SECONDS:g} s")
    most = max(1, MAX_IN_FLIGHT // max(1, size))
    if in_flight is None:
        in_flight = min(IN_FLIGHT, most)
    elif in_flight > most:
        raise click.UsageError(f"--in-flight: with bodies of {show_size(size)} at most {most}")
    for option, given in (("--to", name), ("--serve", served)):
        if given is not None and not 0 < len(given.encode()) <= MAX_NAME:
            raise click.UsageError(f"{option}: a name of 1 to {MAX_NAME} bytes")
    if served is not None:
        await _serve(settings, served, held=held)
        return
    async with connect(settings) as mesh:
        await _while_attached(mesh, _measure(settings, mesh, name, size, seconds, in_flight, only or WHAT))


async def _measure(
    settings: Settings,
    mesh: iris.Mesh,
    name: str | None,
    size: int,
    seconds: float,
    in_flight: int,
    what: tuple[str, ...],
) -> None:
    async with _other_end(settings, name) as to:
        found = await _found(settings, mesh, to, size, seconds, in_flight, what)
    if settings.json:
        told: dict[str, Any] = {"to": to, "lane": mesh.lane, "size": size}
        for key, each in found:
            if key == "request":
                told.setdefault(key, []).append(asdict(each))
            else:
                told[key] = asdict(each)
        print_json(told)
    else:
        print(f"to {to!r}, lane {mesh.lane}, bodies of {count_of(size, 'byte')}")
        print(table(("WHAT", "A SECOND", "MB/S", ""), [_row(each) for _, each in found]))


async def _found(
    settings: Settings, mesh: iris.Mesh, to: str, size: int, seconds: float, in_flight: int, what: tuple[str, ...]
) -> list[tuple[str, Found]]:
    """What each measurement found.

    Raises:
        Failure: The other end stands still.
    """
    body = os.urandom(size)
    steps: list[tuple[str, Callable[[], Coroutine[Any, Any, Found]]]] = [
        ("publish", partial(published, mesh, to, body, seconds)),
        *(("request", partial(requested, mesh, to, body, seconds, number)) for number in sorted({1, in_flight})),
        ("tunnel", partial(moved, mesh, to, seconds)),
    ]
    found: list[tuple[str, Found]] = []
    for key, step in steps:
        if key in what:
            if sys.stderr.isatty() and not settings.json:
                note(f"iris: {key}, {show_time(seconds)} ...")
            try:
                async with asyncio.timeout(seconds + WARM_SECONDS + CALL_TIMEOUT) as limit:
                    found.append((key, await step()))
            except TimeoutError:
                if not limit.expired():
                    raise  # a call's own
                raise Failure("the other end stands still", kind="StandsStill") from None
    return found


async def _while_attached(mesh: iris.Mesh, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; a daemon that goes away ends it.

    Raises:
        Failure: It did.
    """
    gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def tell(change: iris.StateChange) -> None:
        if change.state is iris.State.DETACHED and not gone.done():
            gone.set_result(change.reason)

    async def detached() -> None:
        raise Failure(f"the daemon is gone: {await gone}", kind="Detached")

    mesh.on_state(tell)
    await first_of(work, detached())


def _row(found: Found) -> tuple[object, ...]:
    if isinstance(found, Published):
        lost = "some may be lost" if found.lost is None else f"{found.lost:,} lost" if found.lost else "none lost"
        return ("published messages", f"{found.per_second:,.0f}", f"{found.mb_per_second:,.1f}", lost)
    if isinstance(found, Requested):
        times = f"p50 {show_time(found.p50)}, p99 {show_time(found.p99)}, most {show_time(found.most)}"
        return (f"requests, {found.in_flight:,} at a time", f"{found.per_second:,.0f}", "", times)
    return ("one tunnel, 64 KiB at a time", "", f"{found.mb_per_second:,.1f}", "")


# --------------------------------------------------------------- the other end


async def _serve(settings: Settings, name: str, *, held: bool) -> None:
    """Be the other end, until told to end; also while it waits for a daemon."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows: KeyboardInterrupt
            loop.add_signal_handler(number, stop.set)
    ends = [_input_ended()] if held else []
    await first_of(_serving(settings, name, held=held), stop.wait(), *ends)


async def _serving(settings: Settings, name: str, *, held: bool) -> None:
    other = OtherEnd(name)
    async with connect(settings) as mesh, mesh.join(other.cluster) as joined, other.subscribe(mesh) as events:
        if not held:
            tell_state(mesh, as_json=settings.json)
        if settings.json:
            print_json({"serving": name})
        else:
            note(f"iris: the other end of `iris bench --to {name}`; ctrl-C ends it")
        await first_of(other.listen(events), joined.wait_closed())


async def _input_ended() -> None:
    """Wait until whoever holds the other end of standard input is gone."""
    source = Input()
    while await source.read():
        pass


@contextlib.asynccontextmanager
async def _other_end(settings: Settings, name: str | None) -> AsyncIterator[str]:
    """The name to measure to: the one given, or that of a process started for it, which ends with us."""
    if name is not None:
        yield name
        return
    fresh = f"bench-{secrets.token_hex(4)}"
    options: list[str] = ["--timeout", f"{settings.timeout:g}s", "--json"]
    for option, value in (
        ("--url", settings.url),
        ("--service", settings.service),
        ("--token-file", settings.token_file),
    ):
        if value is not None:
            options += [option, str(value)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "iris_client.cli", *options, "bench", "--serve", fresh, "--held",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        if fresh.encode() not in line:
            raise Failure("the process at the other end did not start", kind="NoOtherEnd")
        yield fresh
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
