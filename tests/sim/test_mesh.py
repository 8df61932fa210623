"""Many meshes, each with its own seed. ``SEEDS=2000 make sim`` plays more of them, ``SEEDS=7,7`` from 7 up to 7."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.scenario import CALM, CRASHES, CUTS, WEATHERS, Scenario

CHUNK = 10


def seeds() -> list[int]:
    """The seeds asked for: ``SEEDS`` is a number of them, or ``first,last``."""
    first, comma, last = os.environ.get("SEEDS", "210").partition(",")
    return list(range(int(first), int(last) + 1)) if comma else list(range(int(first)))


def weather(seed: int) -> str:
    return WEATHERS[seed % len(WEATHERS)]


KEPT = (41, 179, 272)
"""Seeds that found a fault, whatever ``SEEDS`` says."""


@pytest.mark.parametrize("seed", KEPT)
def test_meshes_that_once_went_wrong(seed: int):
    Scenario(seed, weather(seed)).run()


@pytest.mark.parametrize("first", seeds()[::CHUNK])
def test_meshes(first: int):
    for seed in seeds():
        if first <= seed < first + CHUNK:
            Scenario(seed, weather(seed)).run()


def digest(seed: int, kind: str) -> str:
    return hashlib.sha256("\n".join(Scenario(seed, kind).run().trace).encode()).hexdigest()


@pytest.mark.parametrize("kind", WEATHERS)
def test_the_same_seed_plays_the_same(kind: str):
    assert digest(1, kind) == digest(1, kind)
    assert digest(1, kind) != digest(2, kind)


def test_the_same_seed_plays_the_same_in_another_process():
    """No order of a set, no hash of a string may leak into what a node does."""
    program = "from tests.sim.test_mesh import digest; print(digest(3, 'crashes'))"
    root = Path(__file__).resolve().parents[2]
    outs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert outs == {digest(3, CRASHES)}


def test_the_seeds_reach_what_they_are_for():
    """A simulation in which nothing interesting happens proves nothing."""
    seen: set[str] = set()
    drops: set[str] = set()
    for seed in range(30):
        world = Scenario(seed, (CALM, CUTS, CRASHES)[seed % 3]).run()
        seen |= world.oracle.outcomes.keys()
        for daemon in world.daemons:
            drops |= daemon.node.core.counters.keys()
    for outcome in (
        "REQUEST REPLY ",
        "REQUEST ERROR NO_MEMBER",
        "REQUEST ERROR NOT_SUPPORTED",
        "REQUEST ERROR DEADLINE_EXCEEDED",
        "REQUEST ERROR MEMBER_LOST",
        "REQUEST ERROR OVERLOADED",
        "REQUEST ERROR REJECTED",
        "REQUEST ERROR HANDLER_FAILED",
        "REQUEST ERROR CANCELLED",
        "PUSH DONE ",
        "PUSH ERROR MEMBER_LOST",
        "BROADCAST DONE ",
        "SURVEY DONE ",
    ):
        assert outcome in seen
    for drop in ("dropped.topic-queue-full", "dropped.subscription-full", "dropped.no-link", "dropped.link-lost"):
        assert drop in drops
    assert {"calls.retried", "tunnel.bytes", "delivered.messages"} <= drops
