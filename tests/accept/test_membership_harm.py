"""What must not disturb a mesh: forged announcements, clocks that are set, both sides dialling at once.

Every test prints what it measured: ``make accept ARGS='-s -k membership'`` shows the figures.
"""

from __future__ import annotations

import asyncio
import glob
import json
import os
import random
import time
from datetime import datetime
from pathlib import Path

import psutil
import pytest

import iris_client as iris
from iris_proto.v1 import control_pb2 as pb
from irisd.demo.mesh import DaemonProcess, Mesh
from irisd.keys import ServiceKey
from tests.accept.membership_ground import Ears, all_see_all, control, echo, listening, rows, sees
from tests.integration.test_discovery import forged, voice

pytestmark = [pytest.mark.accept, pytest.mark.timeout(600)]

FLOOD = 5.0  # seconds of it
FORGED = 2_000  # announcements a second
GROWTH = 64 << 20  # bytes a daemon may have grown by: tables are bounded, allocators keep what they had
HOUR = 3_600
STEPS = (HOUR, 0, -HOUR, 0)  # what the wall clock is away from the true time, one after the other
DWELL = 4.0  # seconds after each step: four heartbeats, and longer than anybody may be silent


def disturbed(ears: list[Ears], began: float) -> list[str]:
    """What was said of nodes that nothing has happened to."""
    return [verdict for each in ears for verdict in each.verdicts(began, "suspect", "dead", "left", "joining")]


async def link_ages(daemons: list[DaemonProcess]) -> dict[tuple[str, str], float]:
    """Since when, by the daemons' own word, each believes each other to be alive; and that they are linked."""
    found = {}
    for daemon in daemons:
        for row in await sees(daemon, len(daemons) - 1):
            found[daemon.name, row.node] = row.since
    return found


# ------------------------------------------------------------------- forged announcements


async def test_forged_announcements_disturb_nobody() -> None:
    """2,000 a second of the right service, each with an identity of its own, at a port where somebody hangs up."""
    dialled = 0

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dialled
        dialled += 1
        writer.close()

    trap = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = trap.sockets[0].getsockname()[1]
    async with trap, Mesh(3, "--interface", "127.0.0.1", discover=True) as mesh:
        assert not mesh.fallback, mesh.fallback
        await all_see_all(mesh.daemons)
        tag = ServiceKey.parse(mesh.key.read_text()).discovery_tag
        async with listening(mesh.daemons) as ears:
            processes = [psutil.Process(daemon.pid) for daemon in mesh.daemons]
            idle = await processor(processes, 3.0)
            before = [process.memory_info().rss for process in processes]
            packets = [forged((tag,), port) for _ in range(int(FLOOD * FORGED))]
            began, most = time.monotonic(), list(before)
            spent = [process.cpu_times() for process in processes]
            with voice() as say:
                for number, data in enumerate(packets):
                    if number % 50 == 0:
                        await asyncio.sleep(max(0.0, began + number / FORGED - time.monotonic()))
                        most = [max(m, p.memory_info().rss) for m, p in zip(most, processes, strict=True)]
                    say(data)
            took = time.monotonic() - began
            used = [
                (now.user + now.system - then.user - then.system) / took
                for then, now in zip(spent, (process.cpu_times() for process in processes), strict=True)
            ]
            await asyncio.sleep(2.0)  # heartbeats that were missed would be noticed by now
            assert not disturbed(ears, began), disturbed(ears, began)
            known = [await candidates(daemon) for daemon in mesh.daemons]
            after = await back_to(processes, idle)
            grown = [m - b for m, b in zip(most, before, strict=True)]
            ended = [process.memory_info().rss - b for process, b in zip(processes, before, strict=True)]
            print(f"\n{len(packets)} forged announcements in {took:.1f} s: {dialled} dials, {known} candidates known,")
            print(f"{max(used):.0%} of a processor at most while it lasted, {idle:.1%} before, {after:.1%} afterwards;")
            print(f"memory +{max(grown) >> 20} MiB at most, +{max(ended) >> 20} MiB in the end; nobody suspected")
            assert took < 3 * FLOOD, "hardly a flood"
            assert min(known) > 0, "nobody has heard any of it"
            assert max(known) <= 4_096
            assert max(grown) < GROWTH
            assert max(ended) < GROWTH
            ages = await link_ages(mesh.daemons)
            assert min(ages.values()) > time.monotonic() - began, "a link is younger than the flood"


async def candidates(daemon: DaemonProcess) -> int:
    """How many candidates a daemon has."""
    async with control(daemon) as stub:
        found = await stub.GetDiscovery(pb.ListRequest(), timeout=5.0)
    return int(found.services[0].known)


async def processor(processes: list[psutil.Process], seconds: float) -> float:
    """The share of one processor that the busiest of these takes."""
    before = [sum(process.cpu_times()[:2]) for process in processes]
    began = time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    return max((sum(p.cpu_times()[:2]) - b) / took for p, b in zip(processes, before, strict=True))


async def back_to(processes: list[psutil.Process], idle: float) -> float:
    """Wait until they take no more than before, or a few percent."""
    ends = time.monotonic() + 60.0
    while (now := await processor(processes, 2.0)) > max(2 * idle, 0.05):
        assert time.monotonic() < ends, f"{now:.0%} of a processor a minute later, {idle:.0%} before"
    return now


# ------------------------------------------------------------------------- the wall clock


def faketime() -> str:
    """The library that gives a process another wall clock; empty: it is not here."""
    found = [
        path
        for pattern in ("/usr/lib/*/faketime", "/usr/lib*/faketime", "/usr/local/lib/faketime", "/opt/*/lib/faketime")
        for path in glob.glob(f"{pattern}/libfaketimeMT.so.1")
    ]
    return found[0] if found else ""


def set_clock(file: Path, seconds: float) -> None:
    """Move the wall clock of all who look at this file."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{seconds:+.0f}\n")
    os.replace(fresh, file)


@pytest.mark.skipif(not faketime(), reason="libfaketime is not installed (Debian, Ubuntu: apt install faketime)")
async def test_a_wall_clock_that_is_set_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An hour forward, back, an hour back, forward: at one of three daemons, then at all."""
    clocks = [tmp_path / f"clock-{number}" for number in range(3)]
    mesh = Mesh(0, "--log-level", "info", "--log-format", "json")
    async with mesh:
        with monkeypatch.context() as patch:
            patch.setenv("LD_PRELOAD", faketime())
            patch.setenv("FAKETIME_NO_CACHE", "1")
            patch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            for number, clock in enumerate(clocks):
                set_clock(clock, 0)
                patch.setenv("FAKETIME_TIMESTAMP_FILE", str(clock))
                daemon = mesh.make(f"node-{number + 1}", seeds=[other.links for other in mesh.daemons])
                mesh.daemons.append(daemon)
                await daemon.start()
        await all_see_all(mesh.daemons)
        async with listening(mesh.daemons) as ears, ears[0].app.join(echo("work", "node-1")):
            began = time.monotonic()
            asked = 0
            for which in (clocks[:1], clocks):
                for step in STEPS:
                    for clock in which:
                        set_clock(clock, step)
                    until = time.monotonic() + DWELL
                    while time.monotonic() < until:
                        for each in ears:
                            assert (await each.app.request("work", timeout=2.0)).body == b"node-1"
                            asked += 1
                        await asyncio.sleep(0.1)
                    away = [await wall_clock(daemon) for daemon in mesh.daemons]
                    told = [step if clock in which else 0 for clock in clocks]
                    assert all(abs(a - t) < 60 for a, t in zip(away, told, strict=True)), f"no such clock: {away}"
                    assert not disturbed(ears, began), disturbed(ears, began)
                    for daemon in mesh.daemons:
                        silent = [row.heard for row in await rows(daemon) if row.state != "self"]
                        assert max(silent) < 2.0, f"heartbeats stopped: {silent}"
            ages = await link_ages(mesh.daemons)
            assert min(ages.values()) > time.monotonic() - began, "a link is younger than that"
            stalls = {name for daemon in mesh.daemons for name in [c.name for c in (await daemon.status()).conditions]}
        print(f"\n8 steps of the wall clock, an hour each: no change of state, {asked} requests answered")
        print(f"conditions meanwhile: {', '.join(sorted(stalls)) or 'none'}")
        assert "slow-loop" not in stalls, "a clock that is set is no loop that stood still"


async def wall_clock(daemon: DaemonProcess) -> float:
    """How far a daemon's wall clock is away from ours, by the time in its log."""
    marker = f"clock-{random.getrandbits(40)}"
    lines: list[str] = []
    async with asyncio.timeout(10.0), iris.connect(daemon.url, name=marker):
        while not lines:  # they are written beside the loop
            await asyncio.sleep(0.01)
            lines = [line for line in daemon.log.read_text().splitlines() if marker in line]
    said = json.loads(lines[0])
    stamp = datetime.fromisoformat(said["timestamp"])
    return stamp.timestamp() - time.time()
