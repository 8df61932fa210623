"""What a scenario is, and how far a run goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.measure import Running, publish
from bench.process import JSON, Failed
from bench.systems.base import System

KiB = 1024
FEW = 1_000
"""Messages a second, before anything is known."""
SHARE = 0.8
"""Of what a system can sustain: the load at which its latency is looked at."""


@dataclass(slots=True)
class Settings:
    """How far to go.

    Attributes:
        messages: To publish where a scenario says nothing else.
        seconds: How long requests are made; and how long a slow system's publishing may take, about: it is then
            given fewer messages.
        rounds: How often everything is measured.
        quick: Fewer points of everything.
        rates: What was seen so far, messages/s by system, size and subscribers.
    """

    messages: int = 1_000_000
    seconds: float = 5.0
    rounds: int = 3
    quick: bool = False
    rates: dict[tuple[str, int, int], float] = field(default_factory=dict)
    sustained: dict[str, float] = field(default_factory=dict)

    async def rate(self, running: Running, size: int = KiB, subscribers: int = 1) -> float:
        """What the system carries, messages/s published.

        Found out when it is not known yet: with a few messages, then with as many as take about a second. That also
        warms it up; a broker on a virtual machine needs it.
        """
        key = (running.system.name, size, subscribers)
        if key not in self.rates:
            most = max(100, min(self.messages, 256 * 2**20 // size) // subscribers // 4)
            for _ in range(2):
                few = int(self.rates.get(key, FEW) * min(1.0, self.seconds / 4))
                figures = await publish(running, max(100, min(few, most)), size, subscribers)
                self.rates[key] = figures["received/s"] / subscribers
        return self.rates[key]

    async def sustainable(self, running: Running) -> float:
        """Messages/s of 1 KiB that a system carries to a subscriber that looks at the clock for each.

        The least of three looks: what it carries only while the machine is idle, it does not sustain.
        """
        name = running.system.name
        if name not in self.sustained:
            messages = await self.affordable(running, self.messages, KiB)
            looks = [await publish(running, max(100, messages // 3), KiB, stamped=True) for _ in range(3)]
            self.sustained[name] = min(figures["received/s"] for figures in looks)
        return self.sustained[name]

    async def affordable(self, running: Running, messages: int, size: int, subscribers: int = 1) -> int:
        """So many messages, or as many as the time allows."""
        rate = await self.rate(running, size, subscribers)
        return max(100, min(messages, int(rate * self.seconds)))


class Scenario(ABC):
    """One question asked of every system that can answer it.

    Attributes:
        name: As in ``--only``.
        title: For tables and charts.
        needs: The ability a system must have; empty: the scenario starts no system.
        figure: The figure that is compared, and its unit.
        more: Other figures worth a column.
        less_is_better: Of the figure.
        once: One round is enough.
        axis: What the points are; empty: there is one only.
    """

    name: str
    title: str
    needs: str
    figure: str
    more: tuple[str, ...] = ()
    less_is_better: bool = False
    once: bool = False
    axis: str = ""

    def points(self, settings: Settings) -> Sequence[int]:
        """Where on the axis it is measured."""
        return (0,)

    def fits(self, system: System, point: int) -> bool:
        """Whether the system can be measured there."""
        return self.needs in system.can

    @abstractmethod
    async def measure(self, running: Running, point: int, settings: Settings) -> JSON:
        """One round at one point: figures by name.

        Raises:
            Failed: It could not be measured; the others go on.
        """


class Alone(Scenario):
    """A scenario about this machine or a part of irisd, without any running system."""

    needs = ""
    subjects: tuple[str, ...] = ()
    """What stands where a system's name would."""

    async def measure(self, running: Running, point: int, settings: Settings) -> JSON:
        raise Failed(f"{self.name} needs no running system")

    @abstractmethod
    async def measure_alone(self, subject: str, point: int, settings: Settings) -> JSON:
        """One round at one point."""
