"""What a run has found (pure): figures of every round, what failed, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from bench.process import JSON
from bench.stats import Spread, spread


@dataclass(slots=True)
class Row:
    """One system at one point of one scenario.

    Attributes:
        rounds: By figure, a value of each round.
        failed: Why it was not measured, or not in every round; empty: it was.
    """

    scenario: str
    system: str
    point: int
    rounds: dict[str, list[float]] = field(default_factory=dict)
    failed: str = ""

    def spread(self, figure: str) -> Spread | None:
        values = self.rounds.get(figure)
        return spread(values) if values else None


@dataclass(slots=True)
class Results:
    """All rows of a run.

    Attributes:
        machine: Where it ran, and the version of everything.
        missing: Systems that could not take part, and how to install them.
    """

    machine: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def row(self, scenario: str, system: str, point: int) -> Row:
        """That row, made when it is new."""
        for row in self.rows:
            if (row.scenario, row.system, row.point) == (scenario, system, point):
                return row
        row = Row(scenario, system, point)
        self.rows.append(row)
        return row

    def keep(self, scenario: str, system: str, point: int, figures: JSON) -> None:
        """Note one round."""
        rounds = self.row(scenario, system, point).rounds
        for figure, value in figures.items():
            rounds.setdefault(figure, []).append(float(value))

    def of(self, scenario: str) -> Iterator[Row]:
        """The rows of a scenario."""
        return (row for row in self.rows if row.scenario == scenario)

    def median(self, scenario: str, system: str, point: int | None, figure: str) -> float | None:
        """The median of a figure; at the largest point measured where ``point`` is None."""
        rows = [row for row in self.of(scenario) if row.system == system and row.rounds.get(figure)]
        if point is not None:
            rows = [row for row in rows if row.point == point]
        if not rows:
            return None
        found = max(rows, key=lambda row: row.point).spread(figure)
        return found.median if found else None

    def to_json(self) -> JSON:
        return asdict(self)

    @classmethod
    def from_json(cls, data: JSON) -> Results:
        """What :meth:`to_json` made: to draw or compare a run of another day."""
        return cls(data["machine"], data["missing"], [Row(**row) for row in data["rows"]])
