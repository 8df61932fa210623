"""Every system that can be measured, by name."""

from __future__ import annotations

from pathlib import Path

from bench.systems.activemq import ActiveMq
from bench.systems.base import System
from bench.systems.irisd import Irisd
from bench.systems.nats import Nats
from bench.systems.nng import Nng
from bench.systems.rabbitmq import RabbitMq
from bench.systems.rawsocket import RawSocket
from bench.systems.redis import Redis
from bench.systems.zenoh import Zenoh
from bench.systems.zeromq import ZeroMq

COMPILED = Path(__file__).parents[2] / "build" / "compiled"
"""Where ``make compiled`` leaves what it has built."""

_ALL: list[System] = [
    Irisd("local", 1),
    Irisd("local", 2),
    Irisd("local", 1, COMPILED),
    Irisd("local", 2, COMPILED),
    Irisd("grpc", 1),
    Irisd("grpc", 2),
    Nats(),
    Redis(pipeline=False),
    Redis(pipeline=True),
    Zenoh("unix"),
    Zenoh("tcp"),
    ZeroMq("ipc"),
    ZeroMq("tcp"),
    Nng(),
    RabbitMq(),
    ActiveMq(),
    RawSocket(),
]

SYSTEMS: dict[str, System] = {system.name: system for system in _ALL}


def chosen(names: str) -> list[System]:
    """The systems that ``--systems`` names, in the order of the list above.

    Args:
        names: Divided by commas; a name, or the part of it before a dash. Empty: all.

    Raises:
        ValueError: There is no such system.
    """
    words = [word.strip() for word in names.split(",") if word.strip()]
    for word in words:
        if not any(_is(system, word) for system in _ALL):
            raise ValueError(f"no system {word!r}: {', '.join(SYSTEMS)}")
    return [system for system in _ALL if not words or any(_is(system, word) for word in words)]


def _is(system: System, word: str) -> bool:
    return system.name == word or system.name.startswith(f"{word}-")
