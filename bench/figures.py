"""Which scenario becomes which chart (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from bench.charts import Bar, Line, bars, lines
from bench.results import Results, Row
from bench.scenarios.base import Scenario


def figure(scenario: Scenario, results: Results, labels: Mapping[str, str]) -> str | None:
    """The scenario's chart as SVG; None: there is too little to draw."""
    rows = [row for row in results.of(scenario.name) if row.rounds.get(scenario.figure)]
    if not rows:
        return None
    if len({row.point for row in rows}) > 1:
        found = _lines(scenario, rows, labels)
        return lines(scenario.title, scenario.axis, scenario.figure, found) if found else None
    drawn = sorted((_bar(scenario, row, labels) for row in rows), key=lambda bar: bar.value)
    return bars(scenario.title, scenario.figure, drawn if scenario.less_is_better else drawn[::-1])


def _ours(system: str) -> bool:
    return system.startswith("irisd-") or system == "registry"


def _bar(scenario: Scenario, row: Row, labels: Mapping[str, str]) -> Bar:
    found = row.spread(scenario.figure)
    assert found is not None
    return Bar(labels.get(row.system, row.system), found.median, found.least, found.most, _ours(row.system))


def _lines(scenario: Scenario, rows: list[Row], labels: Mapping[str, str]) -> list[Line]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in sorted(rows, key=lambda row: row.point):
        spread = row.spread(scenario.figure)
        if spread is not None and spread.median > 0 and row.point > 0:  # the axes are logarithmic
            found.setdefault(row.system, []).append((float(row.point), spread.median))
    return [Line(labels.get(system, system), points, _ours(system)) for system, points in found.items()]
