"""Small SVG charts (pure): bars, and lines over a logarithmic axis. No dependency, and readable in a diff."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
LEFT = 150
RIGHT = 110
TOP = 48
ROW = 26
PLOT = 300
FONT = 'font-family="system-ui, sans-serif" font-size="12"'
INK = "#24292f"
FAINT = "#d0d7de"
OURS = ("#0550ae", "#218bff", "#0a7d6b", "#2dba9f")
"""Of irisd's lanes."""
THEIRS = ("#bc4c00", "#8250df", "#bf3989", "#9a6700", "#57606a", "#cf222e", "#6e7781", "#953800", "#116329")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, with the spread of its rounds."""

    label: str
    value: float
    least: float
    most: float
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One line: rising x, positive y."""

    label: str
    points: Sequence[tuple[float, float]]
    ours: bool = False


def colours(lines: Sequence[Line | Bar]) -> list[str]:
    """A colour for each: ours are blue and green, the others are not."""
    mine, others = 0, 0
    found = []
    for line in lines:
        if line.ours:
            found.append(OURS[mine % len(OURS)])
            mine += 1
        else:
            found.append(THEIRS[others % len(THEIRS)])
            others += 1
    return found


def short(value: float) -> str:
    """A tick: 1M, 20k, 0.5."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero, in the order given; a thin line shows the least and the most.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("no bars")
    height = TOP + ROW * len(rows) + 34
    top = max(row.most for row in rows) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / top
    parts = []
    for number, (row, colour) in enumerate(zip(rows, colours(rows), strict=True)):
        y = TOP + ROW * number
        parts.append(_text(LEFT - 8, y + 15, row.label, "end"))
        fill = colour if row.ours else "#8c959f"
        parts.append(f'<rect x="{LEFT}" y="{y + 3}" width="{row.value * scale:.1f}" height="{ROW - 9}" fill="{fill}"/>')
        middle = y + 3 + (ROW - 9) / 2
        least, most = LEFT + row.least * scale, LEFT + row.most * scale
        parts.append(f'<path d="M{least:.1f} {middle:.1f}H{most:.1f}" stroke="{INK}" stroke-width="1.5"/>')
        parts.append(_text(max(most, LEFT + row.value * scale) + 6, y + 15, short(row.value)))
    parts.append(_text(LEFT, height - 10, f"{unit}; bar: median, line: least to most of the rounds", size=11))
    return _page(title, height, parts)


def lines(title: str, x_unit: str, y_unit: str, rows: Sequence[Line]) -> str:
    """Lines over two logarithmic axes, each named beside the plot.

    Raises:
        ValueError: There is nothing to draw, or something is not positive.
    """
    points = [point for row in rows for point in row.points]
    if not points or any(x <= 0 or y <= 0 for x, y in points):
        raise ValueError("lines need positive points")
    across = _Axis([x for x, _ in points], 64, WIDTH - 190)
    up = _Axis([y for _, y in points], TOP + PLOT, TOP)
    parts = []
    for tick in up.ticks():
        y = up.place(tick)
        parts.append(f'<path d="M64 {y:.1f}H{WIDTH - 190}" stroke="{FAINT}"/>')
        parts.append(_text(58, y + 4, short(tick), "end", size=11))
    for tick in sorted({x for x, _ in points}):
        x = across.place(tick)
        parts.append(f'<path d="M{x:.1f} {TOP}V{TOP + PLOT}" stroke="{FAINT}"/>')
        parts.append(_text(x, TOP + PLOT + 16, short(tick), "middle", size=11))
    for row, colour in zip(rows, colours(rows), strict=True):
        path = "L".join(f"{across.place(x):.1f} {up.place(y):.1f}" for x, y in row.points)
        width = 2.5 if row.ours else 1.5
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        parts += [
            f'<circle cx="{across.place(x):.1f}" cy="{up.place(y):.1f}" r="3" fill="{colour}"/>' for x, y in row.points
        ]
    parts += _legend(rows)
    parts.append(_text(64, TOP + PLOT + 36, f"across: {x_unit}; up: {y_unit}; both logarithmic", size=11))
    return _page(title, TOP + PLOT + 50, parts)


class _Axis:
    """Logarithms of values on a stretch of pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._low = math.log10(min(values))
        self._high = math.log10(max(values))
        if self._high - self._low < 0.3:  # never a stretch of nothing
            self._low, self._high = self._low - 0.15, self._high + 0.15
        self._start = start
        self._end = end

    def place(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        decades = range(math.floor(self._low), math.ceil(self._high) + 1)
        steps = (1, 2, 5) if self._high - self._low < 2.5 else (1,)
        marks = [step * 10.0**decade for decade in decades for step in steps]
        return [mark for mark in marks if self._low - 1e-9 <= math.log10(mark) <= self._high + 1e-9]


def _legend(rows: Sequence[Line]) -> list[str]:
    """Names beside the plot, in the order in which the lines end."""
    parts = []
    named = sorted(zip(rows, colours(rows), strict=True), key=lambda pair: -pair[0].points[-1][1])
    for number, (row, colour) in enumerate(named):
        y = TOP + 10 + number * 20
        parts.append(f'<rect x="{WIDTH - 172}" y="{y - 8}" width="12" height="4" fill="{colour}"/>')
        parts.append(_text(WIDTH - 154, y, row.label))
    return parts


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{INK}">{escape(text)}</text>'


def _page(title: str, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" {FONT} role="img">'
    inside = [
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>',
        f'<text x="16" y="26" font-size="15" font-weight="600" fill="{INK}">{escape(title)}</text>',
    ]
    return "\n".join([head, *inside, *parts, "</svg>", ""])
