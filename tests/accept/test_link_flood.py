"""2,000 half-open handshakes a second: a link that is up notices less than a doubled p99.

A node under attack, a neighbour that sends it one message after the other and
has each come back, and the attacker, each its own process. The flood by itself
takes a core of the same machine, which is no doing of the node's: so what is
compared is the flood against the node with the same flood against a decoy, the
least a listener can be (accept, close). The attack is a mixture of
what costs a listener most: silence, garbage, preambles with the right key id and
the wrong key, and first messages recorded from a real handshake, the only ones
that make the listener do a Diffie-Hellman.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from irisd.config import Address, Listener
from irisd.keys import Keyring, ServiceKey
from irisd.link.handshake import Greeting, Initiator, PskCredentials, Purpose
from irisd.link.link import Link
from irisd.link.outcome import LinkEnd, LinkFact, Outcome
from irisd.link.service import LinkService
from irisd.model import PeerInfo

KEY = ServiceKey("shop", b"\x07" * 32)
RATE = 2_000
"""Half-open handshakes per second."""
SECONDS = 4.0
"""Of each measurement."""
ROUNDS = 3
PAUSE = 0.002
"""Between two messages of the neighbour, in seconds: it must not be its own load."""


class Echo:
    """Sends everything back."""

    def __init__(self) -> None:
        self.waiting: list[list[bytes]] = []
        self.downs: list[str] = []

    def link_up(self, link: Link) -> None:
        """Nothing to do."""

    def link_down(self, link: Link, end: LinkEnd) -> None:
        self.downs.append(str(end))

    def messages_received(self, link: Link, bodies: list[bytes]) -> None:
        self.waiting += [[body] for body in bodies]
        link.wake()

    def control_received(self, link: Link, messages: list[bytes]) -> None:
        """Nobody asks."""

    def probe(self, link: Link) -> None:
        """Nor do we."""

    def pull(self, link: Link, limit: int) -> Sequence[Sequence[bytes]]:
        taken, self.waiting = self.waiting, []
        return taken

    def outcome(self, fact: LinkFact) -> None:
        """Counted by the service."""


class Pinger(Echo):
    """Sends one message, waits for it to come back, notes how long it took."""

    def __init__(self) -> None:
        super().__init__()
        self.came_up = asyncio.Event()
        self.trips: list[float] = []
        self._sent = 0.0

    def link_up(self, link: Link) -> None:
        self.came_up.set()
        self._send(link)

    def messages_received(self, link: Link, bodies: list[bytes]) -> None:
        self.trips.append(time.perf_counter() - self._sent)
        asyncio.get_running_loop().call_later(PAUSE, self._send, link)

    def _send(self, link: Link) -> None:
        self.waiting = [[b"x" * 256]]
        self._sent = time.perf_counter()
        link.wake()


async def target() -> None:
    """The node under attack: tells its port, and its counters when asked to stop."""
    seen = Echo()
    service = LinkService()
    service.register(Keyring(KEY), PeerInfo(os.urandom(16), "target"), seen)
    (address,) = await service.start([Listener(Address("127.0.0.1", 0))])
    say({"port": address.port})
    await asked()
    counts = {outcome.value: number for outcome, number in service.counts.items()}
    say({"counts": counts, "downs": seen.downs, "half_open": service.half_open})
    await service.stop()


async def neighbour(port: int) -> None:
    """Measures as long as it is asked to: each line in is the end of one measurement."""
    pinger = Pinger()
    service = LinkService()
    node = service.register(Keyring(KEY), PeerInfo(os.urandom(16), "neighbour"), pinger)
    node.dial(Address("127.0.0.1", port))
    await asyncio.wait_for(pinger.came_up.wait(), 10)
    say({"ready": True})
    while await asked() != "stop":
        trips, pinger.trips = sorted(pinger.trips), []
        say({"trips": len(trips), "p99": trips[len(trips) * 99 // 100] if trips else 0.0})
    say({"downs": pinger.downs})
    await service.stop()


async def attacker(port: int, seconds: float) -> None:
    """Opens connections at the rate, and leaves each half-open for a while."""
    loop = asyncio.get_running_loop()
    greeting = Greeting(os.urandom(16), 1, "attacker")
    recorded = Initiator(Purpose.CONTROL, KEY.key_id, PskCredentials(KEY.link_psk), greeting, os.urandom(32)).first
    forged = Initiator(Purpose.CONTROL, KEY.key_id, PskCredentials(bytes(32)), greeting, os.urandom(32)).first
    shots = [b"", b"GET / HTTP/1.1\r\n\r\n", recorded[:16], forged, recorded]
    open_ones: list[Any] = []
    opened = 0
    began = time.perf_counter()

    async def shoot(number: int) -> None:
        nonlocal opened
        with contextlib.suppress(OSError):
            transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
            transport.write(shots[number % len(shots)])
            opened += 1
            open_ones.append(transport)
            if len(open_ones) > 500:
                open_ones.pop(random.randrange(len(open_ones))).abort()

    tasks: set[asyncio.Task[None]] = set()
    number = 0
    while (elapsed := time.perf_counter() - began) < seconds:
        while number < elapsed * RATE:
            task = loop.create_task(shoot(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.sleep(0.002)
    if tasks:
        await asyncio.wait(tasks, timeout=2)
    for transport in open_ones:
        transport.abort()
    say({"opened": opened, "seconds": time.perf_counter() - began})


def say(words: dict[str, Any]) -> None:
    print(json.dumps(words), flush=True)


async def asked() -> str:
    """The next line from the test."""
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return line.strip() or "stop"


class Part:
    """One of the processes."""

    def __init__(self, *arguments: str) -> None:
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process ended"
        return dict(json.loads(line))

    def ask(self, word: str = "go") -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self.hear()

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def part(*arguments: str) -> Iterator[Part]:
    started = Part(*arguments)
    try:
        yield started
    finally:
        started.end()


def decoy() -> None:
    """A listener that does the least one can do."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1024)
        say({"port": listening.getsockname()[1]})
        while True:
            listening.accept()[0].close()


@pytest.mark.accept
@pytest.mark.timeout(180)
def test_a_neighbour_hardly_notices_two_thousand_half_open_handshakes_a_second() -> None:
    p99: dict[str, list[float]] = {"quiet": [], "decoy": [], "node": []}
    opened = 0.0
    with part("decoy") as elsewhere, part("target") as under_attack:
        ports = {"decoy": str(elsewhere.hear()["port"]), "node": str(under_attack.hear()["port"])}
        with part("neighbour", ports["node"]) as pinger:
            assert pinger.hear()["ready"]
            for _ in range(ROUNDS):
                for phase in p99:
                    pinger.ask()  # a new measurement
                    if phase == "quiet":
                        time.sleep(SECONDS)
                    else:
                        with part("attacker", ports[phase], str(SECONDS)) as flood:
                            made = flood.hear()["opened"]
                        opened += made if phase == "node" else 0
                    p99[phase].append(pinger.ask()["p99"])
            downs = pinger.ask("stop")["downs"]
        report = under_attack.ask("stop")
        elsewhere.kill()
    rate = opened / (ROUNDS * SECONDS)
    best = {phase: min(values) * 1e3 for phase, values in p99.items()}
    print(
        f"\n{rate:.0f} connections/s; p99 of a neighbour: {best['quiet']:.2f} ms in peace, "
        f"{best['decoy']:.2f} ms beside the flood, {best['node']:.2f} ms under it\n{report}"
    )
    assert downs == []
    assert len(report["downs"]) <= 1  # the neighbour's own goodbye
    assert report["half_open"] <= 256
    assert rate > 0.75 * RATE, "this machine cannot make the flood"
    assert report["counts"][Outcome.OVERLOADED.value] > 1_000
    # Whatever else this machine does adds to a measurement, so the best round is the truest.
    assert min(under / beside for under, beside in zip(p99["node"], p99["decoy"], strict=True)) <= 2.0


if __name__ == "__main__":
    role, *values = sys.argv[1:]
    if role == "decoy":
        decoy()
    roles = {
        "target": lambda: target(),
        "neighbour": lambda: neighbour(int(values[0])),
        "attacker": lambda: attacker(int(values[0]), float(values[1])),
    }
    import uvloop

    uvloop.run(roles[role]())
