"""``python -m bench.matching N``: time to match a topic among N subscriptions, and the memory each of them takes.

In a process of its own, so that its memory can be told from everything else.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time

import psutil

from irisd.model import Claim
from irisd.registry import Registry

NODES = 10
MATCHES = 20_000
BATCH = 1_000
SEED = 7


def filled(subscriptions: int) -> Registry:
    """A registry of ten nodes that share so many subscriptions, each to a filter of its own."""
    registry = Registry()
    for number in range(NODES):
        node = bytes([number]) * 16
        claims = [Claim(members=1, topic=f"bench.{one}.*") for one in range(number, subscriptions, NODES)]
        if claims:
            registry.learn(node, claims)
        registry.routable(node, True)
    return registry


def match_seconds(registry: Registry, subscriptions: int) -> float:
    """The median time of one match; no topic comes twice, so that no answer is remembered."""
    chance = random.Random(SEED)
    topics = [f"bench.{chance.randrange(subscriptions)}.{number}" for number in range(MATCHES)]
    took = []
    for start in range(0, MATCHES, BATCH):
        batch = topics[start : start + BATCH]
        began = time.perf_counter()
        for topic in batch:
            registry.match(topic)
        took.append((time.perf_counter() - began) / len(batch))
    return statistics.median(took)


def main() -> None:
    subscriptions = int(sys.argv[1])
    filled(10)
    process = psutil.Process()
    before = process.memory_info().rss
    registry = filled(subscriptions)
    used = process.memory_info().rss - before
    assert registry.match(f"bench.{subscriptions - 1}.x").everyone
    figures = {"match us": match_seconds(registry, subscriptions) * 1e6}
    if subscriptions >= 100_000:  # fewer vanish in what the process has anyway
        figures["bytes each"] = used / subscriptions
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
