"""What a run prints and keeps."""

from __future__ import annotations

import json

import pytest

from bench.figures import figure
from bench.goals import GOALS, Goal, Side, judged
from bench.results import Results
from bench.scenarios import SCENARIOS, wanted
from bench.systems import SYSTEMS, chosen
from bench.table import aligned, of_goals, of_machine, of_scenario

LABELS = {name: system.label for name, system in SYSTEMS.items()}


def some() -> Results:
    results = Results(machine={"cores": "2"}, missing={"redis": "apt-get install redis-server"})
    for ours, nats in ((400_000.0, 100_000.0), (500_000.0, 90_000.0), (600_000.0, 110_000.0)):
        results.keep("pubsub", "irisd-local-1", 0, {"received/s": ours, "sent/s": ours, "lost": 0})
        results.keep("pubsub", "nats", 0, {"received/s": nats, "sent/s": nats, "lost": 0})
    results.row("pubsub", "nng", 0).failed = "subscriber: no word"
    results.keep("latency", "irisd-local-1", 10_000, {"mean us": 500.0})
    results.keep("latency", "irisd-local-1", 1_000_000, {"mean us": 1_000.0})
    return results


def test_medians_and_ratios_are_in_the_table():
    text = of_scenario(SCENARIOS["pubsub"], some(), "nats", LABELS)
    rows = [line.split() for line in text.splitlines()]
    assert ["irisd,", "local,", "1", "node", "500,000", "400,000", "600,000", "5.00x", "500,000", "0.0"] in rows
    assert ["NATS", "100,000", "90,000", "110,000", "1.00x", "100,000", "0.0"] in rows
    assert text.index("irisd") < text.index("NATS")  # the better first
    assert "nng: not measured, subscriber: no word" in text


def test_without_its_baseline_a_table_has_no_ratios():
    text = of_scenario(SCENARIOS["pubsub"], some(), "zeromq-ipc", LABELS)
    assert "500,000" in text
    assert "5.00x" not in text


def test_points_are_told_apart():
    text = of_scenario(SCENARIOS["latency"], some(), "nats", LABELS)
    assert text.index("10,000 messages") < text.index("1,000,000 messages")


def test_a_scenario_that_did_not_run_is_not_shown():
    assert of_scenario(SCENARIOS["fanout"], some(), "nats", LABELS) == ""
    assert figure(SCENARIOS["fanout"], some(), LABELS) is None


def test_columns_are_aligned():
    assert aligned([["a", "1"], ["long", "100"]]) == ["a       1", "long  100"]


def test_missing_systems_say_how_to_get_them():
    assert "missing: apt-get install redis-server" in of_machine(some())


def test_one_point_becomes_bars_and_several_become_lines():
    assert "<circle" not in (figure(SCENARIOS["pubsub"], some(), LABELS) or "")
    assert "<circle" in (figure(SCENARIOS["latency"], some(), LABELS) or "")


def test_a_point_at_nought_has_no_place_on_a_logarithmic_axis():
    results = Results(machine={}, missing={})
    for point in (0, 1, 64):
        results.keep("budget", "irisd-local-1", point, {"us": 2.5})
    assert (figure(SCENARIOS["budget"], results, LABELS) or "").count("<circle") == 2
    results = Results(machine={}, missing={})
    for system, point in (("irisd-local-1", 0), ("irisd-local-2", 0)):
        results.keep("budget", system, point, {"us": 2.5})
    results.row("budget", "irisd-grpc-1", 1).failed = "no word"
    assert "<circle" not in (figure(SCENARIOS["budget"], results, LABELS) or "")


def test_results_survive_json():
    results = some()
    assert Results.from_json(json.loads(json.dumps(results.to_json()))) == results


@pytest.mark.parametrize(
    ("bound", "most", "verdict"), [(4.0, False, "met"), (6.0, False, "missed"), (4.0, True, "missed")]
)
def test_a_goal_is_met_or_missed(bound, most, verdict):
    ours, other = (Side("pubsub", name, "received/s") for name in ("irisd-local-1", "nats"))
    goal = Goal("faster", ours, other, bound, most)
    assert goal.reached(some()) == 5.0
    assert goal.verdict(some()) == verdict


def test_a_goal_about_what_was_not_measured_is_not_judged():
    goal = Goal("faster", Side("pubsub", "irisd-local-1", "received/s"), Side("pubsub", "redis", "received/s"), 1.0)
    assert goal.reached(some()) is None
    assert goal.verdict(some()) == "not measured"


def test_goals_name_what_there_is():
    for goal in GOALS:
        for side in (goal.ours, goal.other):
            if side is not None:
                scenario = SCENARIOS[side.scenario]
                assert side.figure in (scenario.figure, *scenario.more)
                assert side.system in SYSTEMS or side.system in getattr(scenario, "subjects", ())


def test_goals_are_printed_and_kept():
    text = of_goals(some())
    assert "publish/subscribe: irisd-local-1 to nats" in text
    assert "5.00x     met" in text
    assert "2.00x  missed" in text  # latency
    assert len(judged(some())) == len(GOALS)


def test_systems_are_chosen_by_name_or_beginning():
    assert [system.name for system in chosen("nats,zeromq")] == ["nats", "zeromq-ipc", "zeromq-tcp"]
    assert [system.name for system in chosen("redis-pipeline")] == ["redis-pipeline"]
    assert len(chosen("")) == len(SYSTEMS)
    with pytest.raises(ValueError, match="no system 'natz'"):
        chosen("natz")


def test_scenarios_are_chosen_by_name():
    assert [scenario.name for scenario in wanted("requests,pubsub")] == ["pubsub", "requests"]
    with pytest.raises(ValueError, match="no scenario 'x'"):
        wanted("x")
