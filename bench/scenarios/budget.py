"""Where the processor's time goes: how much of it each process of a mesh takes for one message or one request."""

from __future__ import annotations

from collections.abc import Sequence

from bench.measure import USED, Running, publish, request
from bench.process import JSON
from bench.scenarios.base import KiB, Scenario, Settings
from bench.systems.base import PUBSUB, System


class Budget(Scenario):
    """Processor time of the app that begins, of all daemons, and of the app at the other end, 1 KiB.

    Time within the kernel on their behalf is included. It tells more than a rate where everything shares two cores:
    what a process does not need, the others have.
    """

    name = "budget"
    title = "Processor time for one published message (0 in flight), for one request, 1 KiB"
    needs = PUBSUB
    figure = "us"
    more = ("sender us", "daemons us", "receiver us")
    less_is_better = True
    axis = "in flight"

    def points(self, settings: Settings) -> Sequence[int]:
        return (0, 64) if settings.quick else (0, 1, 64, 512)

    def fits(self, system: System, point: int) -> bool:
        """Only of systems that say which processes they are."""
        return super().fits(system, point) and system.name.startswith("irisd")

    async def measure(self, running: Running, point: int, settings: Settings) -> JSON:
        if not point:
            messages = await settings.affordable(running, settings.messages, KiB)
            return _each(await publish(running, messages, KiB), messages)
        figures = await request(running, KiB, point, settings.seconds / 2)
        return _each(figures, figures["requests"])


def _each(figures: JSON, times: int) -> JSON:
    sender, daemons, receiver = (1e6 * figures[name] / times for name in USED)
    return {
        "us": sender + daemons + receiver,
        "sender us": sender,
        "daemons us": daemons,
        "receiver us": receiver,
    }
