"""Tunnels at scale over two real daemons: memory within the window, cuts at any byte, thousands at once."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import iris_client as iris
from iris_client import MiB
from irisd.demo.mesh import DaemonProcess, Mesh, eventually

pytestmark = pytest.mark.accept

APP = Path(__file__).with_name("tunnel_app.py")
PATIENCE = 60.0
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 1 << 30)


class End:
    """One end of a tunnel in a process of its own, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, *arguments: str) -> End:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(APP), *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        end = cls(process)
        try:
            await end.has("ready")
        except BaseException:
            await end.kill()
            raise
        return end

    async def has(self, word: str, *, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait until it has said something with ``word``; return the last such line."""
        async with asyncio.timeout(patience):
            await eventually(lambda: any(word in line for line in self.said) or self._reading.done())
        return next(line for line in reversed(self.said) if word in line)

    @property
    def outcome(self) -> dict[str, Any] | None:
        """How its tunnel ended, once it said so."""
        return next((line for line in self.said if "end" in line), None)

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(json.loads(line))


# ------------------------------------------------------------------- memory

GIB = 1024 * MiB
SLOW, RATE = 10.0, 1_000_000
SENDER_BOUND, DAEMON_BOUND = 4 * MiB, 8 * MiB
"""What resident memory may rise by: a window is at most 1 MiB, and so is a batch, in three stages of each hop."""


async def test_a_gigabyte_to_a_slow_reader_stays_within_the_window() -> None:
    async with Mesh(2) as mesh:
        reader = await End.start("read", mesh[1].url)
        sender = await End.start("send", mesh[0].url, str(GIB), "7", f"rate={RATE}", f"slow={SLOW}", f"report={MiB}")
        try:
            await reader.has("have")  # windows are open, caches are warm
            processes = [psutil.Process(pid) for pid in (sender.process.pid, mesh[0].pid, mesh[1].pid)]
            before = [process.memory_info().rss for process in processes]
            most, slow_most, began = list(before), list(before), time.monotonic()
            read_slowly = 0
            while reader.outcome is None and sender.outcome is None:
                await asyncio.sleep(0.05)  # between two samples
                assert time.monotonic() - began < 300
                if sender.process.returncode is None:
                    most = [max(m, p.memory_info().rss) for m, p in zip(most, processes, strict=True)]
                if time.monotonic() - began < SLOW - 1:
                    slow_most, read_slowly = list(most), reader.said[-1]["have"]
            took = time.monotonic() - began
            whole = await reader.has("whole")
            told = await sender.has("end")
        finally:
            await reader.kill()
            await sender.kill()
        rose = [m - b for m, b in zip(most, before, strict=True)]
        print(f"\n1 GiB in {took:.1f} s, {read_slowly / 1e6:.1f} MB of it in the first {SLOW - 1:.0f} s;")
        print("memory rose by", [f"{each / MiB:.1f} MiB" for each in rose], "(sender, its daemon, the reader's);")
        print("while it read slowly", [f"{(m - b) / MiB:.1f}" for m, b in zip(slow_most, before, strict=True)])
        assert whole["whole"] == GIB
        assert told["right"], told
        assert read_slowly < 1.5 * RATE * SLOW, "the reader was to be slow"
        assert rose[0] < SENDER_BOUND
        assert max(rose[1:]) < DAEMON_BOUND


# --------------------------------------------------------------------- cuts

CUT_BYTES = 24 * MiB
CUTS = ("member", "opener", "member's daemon", "opener's daemon", "link")
ROUNDS = 6  # of each


class Cable:
    """The way a link takes, to be cut: what connects goes on to ``target``, ``host:port``."""

    def __init__(self) -> None:
        self.target = ""
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.address = ""

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._through, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        try:
            onwards_reader, onwards = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onwards}
        try:
            await asyncio.gather(self._carry(reader, onwards), self._carry(onwards_reader, writer))
        finally:
            self._writers -= {writer, onwards}
            writer.transport.abort()
            onwards.transport.abort()

    @staticmethod
    async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(256 * 1024):
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def cabled() -> AsyncIterator[tuple[Mesh, Cable]]:
    """Two daemons; the second knows the first by the end of a cable, and the first knows no way to the second."""
    async with Cable() as cable, Mesh(0, "--preset", "local") as mesh:
        mesh.daemons.append(mesh.make("node-1", "--advertise", cable.address))
        await mesh[0].start()
        cable.target = mesh[0].links
        mesh.daemons.append(mesh.make("node-2", "--advertise", "127.0.0.1:9", seeds=[cable.address]))
        await mesh[1].start()
        yield mesh, cable


async def test_a_cut_at_any_byte_is_an_error_at_both_ends_and_never_a_short_file() -> None:
    chance = random.Random(SEED)
    print(f"\nSEED={SEED}")
    tally: dict[str, list[str]] = {cut: [] for cut in CUTS}
    longest = 0.0
    async with cabled() as (mesh, cable):
        for number in range(ROUNDS * len(CUTS)):
            cut = CUTS[number % len(CUTS)]
            at = chance.randrange(CUT_BYTES)
            for daemon in mesh.daemons:
                if not daemon.running:
                    await daemon.start()
            for daemon in mesh.daemons:
                await daemon.linked(1)
            reader = await End.start("read", mesh[1].url)
            headers = [f"report={max(1, at)}"]
            sender = await End.start("send", mesh[0].url, str(CUT_BYTES), str(number), *headers)
            try:
                await reader.has("have")
                await strike(cut, mesh, cable, reader, sender)
                began = time.monotonic()
                ends = [end for end, gone in ((reader, "member"), (sender, "opener")) if cut != gone]
                for end in ends:
                    await end.has("end", patience=10.0)
                longest = max(longest, time.monotonic() - began)
                for end in ends:
                    tally[cut].append(judged(end.outcome))
            finally:
                await reader.kill()
                await sender.kill()
    for cut, outcomes in tally.items():
        print(f"  {cut:16}", {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))})
    print(f"  the last end knew within {longest:.2f} s")
    assert all(any(outcome != "whole" for outcome in outcomes) for outcomes in tally.values()), "a cut that cut nothing"


async def strike(cut: str, mesh: Mesh, cable: Cable, reader: End, sender: End) -> None:
    if cut == "member":
        await reader.kill()
    elif cut == "opener":
        await sender.kill()
    elif cut == "member's daemon":
        await mesh[1].kill()
    elif cut == "opener's daemon":
        await mesh[0].kill()
    else:
        cable.cut()


def judged(outcome: dict[str, Any] | None) -> str:
    """``whole`` only when everything was there; otherwise a typed error."""
    assert outcome is not None
    if "whole" in outcome:
        assert outcome["whole"] == CUT_BYTES, outcome
        assert outcome.get("right", True), outcome
        return "whole"
    assert outcome["error"] == "TunnelBroken", outcome
    return "TunnelBroken"


# ---------------------------------------------------------------- thousands

ATTACHMENTS = 10  # at each side
EACH = 500  # tunnels of each
TIMES = 4
FLAT = 8 * MiB
"""What a daemon may still hold more than a round earlier."""


async def quiet(daemon: DaemonProcess) -> None:
    """Wait until nothing is under way in a daemon and nothing waits."""
    async with asyncio.timeout(PATIENCE):
        while True:
            service = (await daemon.status()).services[0]
            if not service.pending and not service.queued:
                return
            await asyncio.sleep(0.02)  # between two looks at the state that is awaited


async def test_thousands_opened_and_closed_at_once_leave_nothing() -> None:
    chance = random.Random(SEED)
    print(f"\nSEED={SEED}")
    sink = iris.Cluster("sink")

    @sink.on_tunnel
    async def serve(tunnel: iris.Tunnel) -> None:
        async for message in tunnel:
            await tunnel.send(message)

    async with Mesh(2) as mesh, AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(iris.connect(mesh[0].url)) for _ in range(ATTACHMENTS)]
        servers = [await stack.enter_async_context(iris.connect(mesh[1].url)) for _ in range(ATTACHMENTS)]
        for server in servers:
            await stack.enter_async_context(server.join(sink))
        tasks_before = len(asyncio.all_tasks())
        processes = [psutil.Process(daemon.pid) for daemon in mesh.daemons]
        held: list[list[int]] = []
        for _ in range(TIMES):
            began = time.monotonic()
            outcomes = await one_round(callers, chance)
            for daemon in mesh.daemons:
                await quiet(daemon)
            await nothing_lingers([*callers, *servers], tasks_before)
            held.append([process.memory_info().rss for process in processes])
            counts = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
            print(f"  {len(outcomes)} tunnels in {time.monotonic() - began:.1f} s: {counts}; daemons hold",
                  [f"{each / MiB:.0f} MiB" for each in held[-1]])  # fmt: skip
            assert set(counts) <= {"echoed", "cancelled"}, counts
            assert counts["cancelled"] > len(outcomes) / 4
        grown = [last - earlier for last, earlier in zip(held[-1], held[-2], strict=True)]
        assert max(grown) < FLAT, held


async def one_round(callers: list[iris.Mesh], chance: random.Random) -> list[str]:
    """All tunnels at once; half are cancelled at some instant of their set-up."""

    async def echo(caller: iris.Mesh, number: int) -> None:
        async with caller.tunnel("sink", timeout=PATIENCE) as tunnel:
            await tunnel.send(b"%d" % number)
            await tunnel.finish()
            assert [message async for message in tunnel] == [b"%d" % number]

    async def outcome(caller: iris.Mesh, number: int, cancel_after: float | None) -> str:
        task = asyncio.create_task(echo(caller, number))
        if cancel_after is not None:
            await asyncio.wait((task,), timeout=cancel_after)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        except iris.IrisError as error:
            return f"{type(error).__name__}: {error}"
        return "echoed"

    calls = [(caller, number) for number in range(EACH) for caller in callers]
    pauses = [chance.uniform(0.0, 1.0) if at % 2 else None for at in range(len(calls))]
    return list(await asyncio.gather(*(outcome(*call, pause) for call, pause in zip(calls, pauses, strict=True))))


async def nothing_lingers(meshes: list[iris.Mesh], tasks: int) -> None:
    """Every table of the apps is empty again, and every task gone."""
    async with asyncio.timeout(PATIENCE):
        await eventually(lambda: all(mesh._session.idle and not len(mesh._session._flows) for mesh in meshes))
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    for mesh in meshes:
        assert mesh._session._flows._budget._left == 64 * MiB
    gc.collect()


# ------------------------------------------------------------------ fairness

SENDERS = 1_000
SENDING = 8.0  # seconds
SHARE = 2.5
"""The most that got through in that time, of any tunnel, over the least."""


async def test_a_thousand_that_send_at_once_get_their_shares() -> None:
    came: dict[int, int] = {}
    sink = iris.Cluster("sink")

    @sink.on_tunnel
    async def serve(tunnel: iris.Tunnel) -> None:
        number = int(tunnel.body)
        came[number] = 0
        async for message in tunnel:
            came[number] += len(message)

    async def send(caller: iris.Mesh, number: int, go: asyncio.Event) -> None:
        piece = bytes(32 * 1024)
        with suppress(iris.TunnelBroken):
            async with caller.tunnel("sink", b"%d" % number, timeout=PATIENCE) as tunnel:
                await go.wait()
                while True:
                    await tunnel.send(piece)

    async with Mesh(2) as mesh, AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(iris.connect(mesh[0].url)) for _ in range(2)]
        servers = [await stack.enter_async_context(iris.connect(mesh[1].url)) for _ in range(4)]
        for server in servers:
            await stack.enter_async_context(server.join(sink))
        tasks_before = len(asyncio.all_tasks())
        go = asyncio.Event()
        sending = [asyncio.create_task(send(callers[at % 2], at, go)) for at in range(SENDERS)]
        async with asyncio.timeout(PATIENCE):
            await eventually(lambda: len(came) == SENDERS)
        go.set()
        async with asyncio.timeout(PATIENCE):  # each has had its first window
            await eventually(lambda: min(came.values()) > 0)
        before = dict(came)
        await asyncio.sleep(SENDING)
        shares = sorted(came[number] - before[number] for number in came)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        for daemon in mesh.daemons:
            await quiet(daemon)
        await nothing_lingers([*callers, *servers], tasks_before)
    least, middle, most = shares[0], shares[len(shares) // 2], shares[-1]
    print(f"\n{SENDERS} tunnels, {sum(shares) / SENDING / 1e6:.0f} MB/s together for {SENDING:.0f} s: least {least:,},")
    print(f"middle {middle:,}, most {most:,} bytes each; most/least {most / max(1, least):.2f}")
    assert least > 0
    assert most / least < SHARE
