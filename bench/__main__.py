"""``python -m bench``: irisd beside other systems, one scenario after the other, on this machine."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from bench.figures import figure
from bench.goals import judged
from bench.results import Results
from bench.run import run
from bench.scenarios import SCENARIOS, wanted
from bench.scenarios.base import Scenario, Settings
from bench.systems import SYSTEMS, chosen
from bench.table import of_goals, of_machine, of_scenario

LABELS = {name: system.label for name, system in SYSTEMS.items()}
QUICK = "pubsub,roundtrip,requests,tunnel,limit,matching"


class Screen:
    """The progress line, on standard error: one line that changes on a terminal, lines elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        passed = f"{time.monotonic() - self._began:5.0f} s  "
        if self._terminal:
            click.echo(f"\r\x1b[2K{passed}{text}", nl=False, err=True)
        else:
            click.echo(passed + text.rstrip(), err=True)

    def clear(self) -> None:
        if self._terminal:
            click.echo("\r\x1b[2K", nl=False, err=True)


async def stoppable(work: Coroutine[Any, Any, None]) -> None:
    """SIGTERM ends the work as Ctrl-C does: with everything it has started."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


def show(results: Results, scenarios: list[Scenario], baseline: str) -> None:
    """Print everything there is."""
    click.echo(of_machine(results))
    for scenario in scenarios:
        if text := of_scenario(scenario, results, baseline, LABELS):
            click.echo(f"\n{text}")
    click.echo(f"\n{of_goals(results)}")


def draw(results: Results, scenarios: list[Scenario], folder: Path) -> None:
    """Write a chart for each scenario."""
    folder.mkdir(parents=True, exist_ok=True)
    for scenario in scenarios:
        if chart := figure(scenario, results, LABELS):
            (folder / f"bench-{scenario.name}.svg").write_text(chart)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="About a minute: few messages, one round, the main scenarios.")
@click.option("--only", default="", metavar="A,B", help=f"Scenarios: {', '.join(SCENARIOS)}.")
@click.option("--systems", default="", metavar="A,B", help=f"Systems, or what they begin with: {', '.join(SYSTEMS)}.")
@click.option("--baseline", default="nats", show_default=True, metavar="SYSTEM", help="Whom ratios are made to.")
@click.option("--messages", type=click.IntRange(1_000), help="Messages to publish.  [default: 1000000]")
@click.option("--seconds", type=click.FloatRange(0.2), help="Of requests, and of slow systems.  [default: 5]")
@click.option("--rounds", type=click.IntRange(1), help="How often everything is measured.  [default: 3]")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure there.")
@click.option("--figures", type=click.Path(file_okay=False, path_type=Path), help="Write SVG charts into that folder.")
@click.option(
    "--from", "earlier", type=click.Path(exists=True, path_type=Path), help="Show a --json file; run nothing."
)
def main(
    quick: bool,
    only: str,
    systems: str,
    baseline: str,
    messages: int | None,
    seconds: float | None,
    rounds: int | None,
    json_file: Path | None,
    figures: Path | None,
    earlier: Path | None,
) -> None:
    """Measure irisd and other messaging systems on this machine, side by side.

    Everything, of every system, takes about an hour; --quick takes a minute or two.
    """
    settings = Settings(
        messages=messages or (100_000 if quick else 1_000_000),
        seconds=seconds or (1.0 if quick else 5.0),
        rounds=rounds or (1 if quick else 3),
        quick=quick,
    )
    try:
        scenarios, measured = wanted(only or (QUICK if quick else "")), chosen(systems)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if baseline not in SYSTEMS:
        raise click.UsageError(f"no system {baseline!r}: {', '.join(SYSTEMS)}")
    results = Results()
    interrupted = False
    if earlier is not None:
        results = Results.from_json(json.loads(earlier.read_text()))
    else:
        screen = Screen()
        try:
            asyncio.run(stoppable(run(scenarios, measured, settings, results, screen)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            interrupted = True
        screen.clear()
    show(results, scenarios, baseline)
    if json_file is not None:
        json_file.write_text(json.dumps({**results.to_json(), "goals": judged(results)}, indent=1))
    if figures is not None:
        draw(results, scenarios, figures)
    if interrupted:
        click.echo("interrupted: this is what was measured by then", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
