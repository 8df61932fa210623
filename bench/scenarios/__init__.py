"""Every scenario, by name, in the order of a run."""

from __future__ import annotations

from bench.scenarios.asking import InFlight, RoundTrip
from bench.scenarios.base import Scenario
from bench.scenarios.budget import Budget
from bench.scenarios.inside import Attachments, Limit, Matching, Tunnels
from bench.scenarios.publishing import FanOut, Latency, PubSub, Sizes

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        PubSub(),
        Latency(),
        Sizes(),
        FanOut(),
        RoundTrip(),
        InFlight(),
        Budget(),
        Tunnels(),
        Limit(),
        Attachments(),
        Matching(),
    )
}


def wanted(names: str) -> list[Scenario]:
    """The scenarios that ``--only`` names, in the order of a run. Empty: all.

    Raises:
        ValueError: There is no such scenario.
    """
    words = {word.strip() for word in names.split(",") if word.strip()}
    if unknown := words - SCENARIOS.keys():
        raise ValueError(f"no scenario {', '.join(map(repr, sorted(unknown)))}: {', '.join(SCENARIOS)}")
    return [scenario for name, scenario in SCENARIOS.items() if not words or name in words]
