"""SVG that a browser can read, with everything where its value says."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest

from bench.charts import LEFT, OURS, RIGHT, THEIRS, WIDTH, Bar, Line, bars, colours, lines, short

SVG = "{http://www.w3.org/2000/svg}"


def drawn(text):
    return ElementTree.fromstring(text)


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


def test_bars_are_as_long_as_their_values():
    root = drawn(bars("Speed", "messages/s", [Bar("fast", 200.0, 150.0, 200.0, ours=True), Bar("slow", 50.0, 50, 50)]))
    widths = [float(rect.get("width")) for rect in root.iter(f"{SVG}rect")][1:]  # the first is the page
    assert widths == [WIDTH - LEFT - RIGHT, (WIDTH - LEFT - RIGHT) / 4]
    assert {"Speed", "fast", "slow", "200", "50"} <= set(texts(root))
    assert root.find(f"{SVG}title").text == "Speed"


def test_ours_stand_out():
    assert colours([Bar("a", 1, 1, 1, ours=True), Bar("b", 1, 1, 1), Bar("c", 1, 1, 1, ours=True)]) == [
        OURS[0],
        THEIRS[0],
        OURS[1],
    ]


def test_lines_go_up_where_values_do():
    root = drawn(lines("Late", "messages", "us", [Line("a", [(10.0, 1.0), (100.0, 10.0), (1000.0, 100.0)])]))
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in root.iter(f"{SVG}circle")]
    steps = [(later[0] - dot[0], later[1] - dot[1]) for dot, later in itertools.pairwise(dots)]
    assert steps[0] == pytest.approx(steps[1], abs=0.2)  # equal factors are equal distances
    assert steps[0][0] > 0 > steps[0][1]
    assert "a" in texts(root)


def test_a_flat_line_is_drawn():
    root = drawn(lines("Flat", "n", "us", [Line("a", [(1.0, 5.0), (10.0, 5.0)])]))
    assert len({dot.get("cy") for dot in root.iter(f"{SVG}circle")}) == 1


def test_names_are_escaped():
    assert "a &lt;b&gt; &amp; c" in bars("T", "u", [Bar("a <b> & c", 1.0, 1.0, 1.0)])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: bars("T", "u", []),
        lambda: lines("T", "x", "y", []),
        lambda: lines("T", "x", "y", [Line("a", [(0.0, 1.0)])]),
        lambda: lines("T", "x", "y", [Line("a", [(1.0, 0.0)])]),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw):
    with pytest.raises(ValueError, match=r"bars|positive"):
        draw()


@pytest.mark.parametrize(("value", "text"), [(16, "16"), (0.5, "0.5"), (20_000, "20k"), (1e6, "1M"), (2.5e9, "2.5G")])
def test_ticks_are_short(value, text):
    assert short(value) == text
