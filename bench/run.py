"""A run: every scenario, in rounds, the systems taking turns, so that what disturbs the machine disturbs all."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.measure import Running
from bench.process import Failed
from bench.results import Results
from bench.scenarios.base import Alone, Scenario, Settings
from bench.systems.base import System, package

Progress = Callable[[str], None]


class Servers:
    """The systems' servers: each started when first needed, and kept until the end of the run."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._running: dict[str, Running] = {}
        self._failed: dict[str, str] = {}

    async def of(self, system: System) -> Running:
        """Raises Failed: it could not be started, now or earlier."""
        if system.name in self._failed:
            raise Failed(self._failed[system.name])
        if system.name not in self._running:
            folder = self._folder / system.name
            folder.mkdir()
            try:
                address = await self._stack.enter_async_context(system.serve(folder))
            except (Failed, OSError, RuntimeError, TimeoutError) as error:
                self._failed[system.name] = f"does not start: {one_line(error)}"
                raise Failed(self._failed[system.name]) from error
            self._running[system.name] = Running(system, address)
        return self._running[system.name]


def one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[-1] if text else type(error).__name__


async def run(
    scenarios: Sequence[Scenario], systems: Sequence[System], settings: Settings, results: Results, progress: Progress
) -> None:
    """Measure, and put what is found into ``results`` at once: an interrupted run has what it had by then."""
    results.machine |= machine()
    present = []
    for system in systems:
        found = system.installed()
        if found.version is None:
            results.missing[system.name] = found.hint
        else:
            results.machine[system.name] = found.version
            present.append(system)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with AsyncExitStack() as stack:
            servers = Servers(stack, Path(folder))
            for scenario in scenarios:
                rounds = 1 if scenario.once else settings.rounds
                for number in range(rounds):
                    for point in scenario.points(settings):
                        subjects: Sequence[Any] = present
                        if isinstance(scenario, Alone):
                            subjects = scenario.subjects
                        for subject in subjects:
                            await _one(scenario, subject, point, settings, results, servers, progress, number, rounds)


async def _one(
    scenario: Scenario,
    subject: System | str,
    point: int,
    settings: Settings,
    results: Results,
    servers: Servers,
    progress: Progress,
    number: int,
    rounds: int,
) -> None:
    """One system, once. Whatever it fails with, the others go on."""
    name = subject if isinstance(subject, str) else subject.name
    if isinstance(subject, System) and not scenario.fits(subject, point):
        return
    row = results.row(scenario.name, name, point)
    if row.failed:
        return
    at = f" {point:,} {scenario.axis}" if scenario.axis else ""
    progress(f"{scenario.name}{at}, round {number + 1}/{rounds}: {name}")
    try:
        if isinstance(scenario, Alone):
            figures = await scenario.measure_alone(name, point, settings)
        else:
            assert isinstance(subject, System)
            figures = await scenario.measure(await servers.of(subject), point, settings)
    except (Failed, OSError, TimeoutError) as error:
        row.failed = one_line(error)
        progress(f"{scenario.name}{at}: {name} failed: {row.failed}\n")
        return
    results.keep(scenario.name, name, point, figures)


def machine() -> dict[str, str]:
    """What everybody shares."""
    return {
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "irisd": package("irisd") or "from its sources",
        "command": " ".join(["python -m bench", *sys.argv[1:]]),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
