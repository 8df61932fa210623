"""Request and reply: ask one member of a cluster, by name.

    irisd                                  # a development daemon
    python examples/request.py serve       # as often as you like: members
    python examples/request.py             # asks

Each command in a terminal of its own.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

import iris_client as iris

weather = iris.Cluster("weather", codec=iris.JSON)
STATIONS = {"Oslo": -3.5, "Lisbon": 17.0}


@dataclass
class Query:
    """What is asked."""

    city: str


@dataclass
class Report:
    """What is answered."""

    city: str
    celsius: float


@weather.on_request
async def report(query: Query) -> Report:
    if query.city not in STATIONS:
        raise iris.Reject(f"no station in {query.city}", code="unknown-city")
    return Report(query.city, STATIONS[query.city])


async def ask() -> None:
    async with iris.connect(codec=iris.JSON) as mesh:
        answer = await mesh.request("weather", Query("Oslo"), returns=Report, timeout=2.0)
        print(f"{answer.city}: {answer.celsius} °C")
        try:
            await mesh.request("weather", Query("Atlantis"), returns=Report, timeout=2.0)
        except iris.Rejected as error:
            print(f"rejected: {error.code}, executed: {error.executed}")
        try:
            await mesh.request("wheather", Query("Oslo"), timeout=2.0)
        except iris.NoMember as error:
            print(f"nobody there, at once, executed: {error.executed}")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        iris.run(weather)
    else:
        asyncio.run(ask())
