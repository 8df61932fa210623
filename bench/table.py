"""Results as text (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.goals import GOALS
from bench.results import Results, Row
from bench.scenarios.base import Scenario
from bench.stats import human, ratio


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Columns as wide as they must be; the first ``left`` begin at the left, figures at the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def of_scenario(scenario: Scenario, results: Results, baseline: str, labels: Mapping[str, str]) -> str:
    """One scenario: a block for each of its points, the better first."""
    rows = list(results.of(scenario.name))
    if not rows:
        return ""
    blocks = [scenario.title]
    for point in sorted({row.point for row in rows}):
        if scenario.axis:
            blocks.append(f"  {point:,} {scenario.axis}")
        blocks += _block(scenario, [row for row in rows if row.point == point], baseline, labels)
    return "\n".join(blocks)


def _block(scenario: Scenario, rows: Sequence[Row], baseline: str, labels: Mapping[str, str]) -> list[str]:
    measured = [(found.median, row) for row in rows if (found := row.spread(scenario.figure))]
    measured.sort(key=lambda pair: pair[0], reverse=not scenario.less_is_better)
    base = next((median for median, row in measured if row.system == baseline), None)
    head = ["  ", scenario.figure, "least", "most", f"to {baseline}" if base else "", *scenario.more]
    lines = [head]
    for median, row in measured:
        found = row.spread(scenario.figure)
        assert found is not None
        times = ratio(median, base) if base else None
        cells = ["    " + labels.get(row.system, row.system), human(median), human(found.least), human(found.most)]
        cells.append(f"{times:.2f}x" if times is not None else "")
        more = [row.spread(figure) for figure in scenario.more]
        lines.append(cells + [human(one.median) if one else "" for one in more])
    text = aligned(lines) if measured else []
    failed = [f"    {labels.get(row.system, row.system)}: not measured, {row.failed}" for row in rows if row.failed]
    return text + failed


def of_goals(results: Results) -> str:
    """Every goal this run says something about, what was reached, and the verdict."""
    judged = [(goal, reached) for goal in GOALS if (reached := goal.reached(results)) is not None]
    lines = [["goal", "wanted", "reached", ""]]
    for goal, reached in judged:
        unit = "x" if goal.other else ""
        lines.append([goal.text, goal.wanted(), f"{reached:.2f}{unit}", goal.verdict(results)])
    text = aligned(lines) if judged else []
    if others := len(GOALS) - len(judged):
        text.append(f"{others} of {len(GOALS)} goals are about what was not measured")
    return "\n".join(text)


def of_machine(results: Results) -> str:
    """Where it was, with which versions, and who was missing."""
    lines = [f"{name:<16} {value}" for name, value in results.machine.items()]
    lines += [f"{name:<16} missing: {hint}" for name, hint in results.missing.items()]
    return "\n".join(lines)
