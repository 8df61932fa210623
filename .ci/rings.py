"""Run the rings of `make test` and say in one table what came of them.

Rings that only use the processor run two at a time; those that start processes
and measure run alone. A ring's output is shown when it failed, or with V=1.
Every ring has a time limit, and together they stay under ten minutes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

# (ring, seconds it may take). Rings on one line run beside each other, two at a time.
PHASES = (
    (("lint", 60), ("types", 240), ("arch", 120)),
    (("unit", 180), ("sim", 240), ("fuzz", 180)),
    (("integration", 360),),
    (("interop", 180),),
    (("netns", 120),),
)
BUDGET = 570.0  # seconds for all of them; a ring that finds less left than its own limit gets that
COUNTED = {"unit", "sim", "integration", "fuzz", "netns"}  # rings whose skips are worth naming
VERBOSE = bool(os.environ.get("V"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one ring ended: its exit status (None: out of time), seconds and output."""

    ring: str
    status: int | None
    seconds: float
    output: str

    @property
    def verdict(self) -> str:
        if self.status is None:
            return "TOO SLOW"
        return "ok" if self.status == 0 else "FAILED"

    @property
    def summary(self) -> str:
        """The line in which pytest counts, if this ring has one."""
        found = re.findall(r"^=*\s*(\d+ \w+.*?) in [\d.]+s", self.output, re.MULTILINE)
        return found[-1] if found else ""

    @property
    def skips(self) -> list[str]:
        return re.findall(r"^SKIPPED \[\d+\] (.+)$", self.output, re.MULTILINE)


def run(ring: str, limit: float) -> Outcome:
    """Run ``make RING`` for at most ``limit`` seconds, then end it and all it started."""
    started = time.monotonic()
    process = subprocess.Popen(
        ["make", "--no-print-directory", ring],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,
        env=os.environ | {"PROFILE": "short", "MAKEFLAGS": "", "ARGS": "-rs" if ring in COUNTED else ""},
    )
    status: int | None
    try:
        output, _ = process.communicate(timeout=limit)
        status = process.returncode
    except subprocess.TimeoutExpired:
        output, status = end(process), None
    outcome = Outcome(ring, status, time.monotonic() - started, output)
    show(outcome)
    return outcome


def end(process: subprocess.Popen[str]) -> str:
    """Interrupt a ring so that it can clear up, then kill what is left; return its output."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.communicate(timeout=15)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def show(outcome: Outcome) -> None:
    line = f"  {outcome.ring:<12} {outcome.verdict:<9} {outcome.seconds:6.1f} s  {outcome.summary}"
    blocks = [line.rstrip()]
    if outcome.verdict != "ok" or VERBOSE:
        blocks += [f"{'':4}| {text}" for text in outcome.output.rstrip().splitlines()]
    else:
        blocks += [f"{'':15}skipped: {reason}" for reason in outcome.skips]
    print("\n".join(blocks), flush=True)


def main() -> int:
    started = time.monotonic()
    only = set(sys.argv[1:])
    outcomes: list[Outcome] = []
    print("irisd: the rings", flush=True)
    for phase in PHASES:
        rings = [(ring, limit) for ring, limit in phase if not only or ring in only]
        with ThreadPoolExecutor(max_workers=2) as pool:
            left = BUDGET - (time.monotonic() - started)
            outcomes += pool.map(lambda pair, left=left: run(pair[0], max(1.0, min(pair[1], left))), rings)
    failed = [outcome.ring for outcome in outcomes if outcome.verdict != "ok"]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} rings ok in {time.monotonic() - started:.0f} s")
    if failed:
        print(f"not ok: {', '.join(failed)}; run one alone with `make {failed[0]}`")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
