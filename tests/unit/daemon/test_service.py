"""What the edges do as the node's effects say, with a node and links that only write down what they are told."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from irisd.config import Address
from irisd.daemon import service as service_module
from irisd.daemon.service import Service
from irisd.effects import Cause, Connect, Control, Found, Traced, Unlink
from irisd.link.outcome import LinkEnd, LinkFact, Outcome
from irisd.link.race import Finish
from irisd.model import PeerInfo
from irisd.status import TraceAsked, TraceInfo

PEER, OTHER = b"\x01" * 16, b"\x02" * 16
AT = Address("192.0.2.7", 7511)


class FakeNode:
    """Answers every call with the effects that are laid out for it."""

    def __init__(self) -> None:
        self.identity = SimpleNamespace(service="shop")
        settings = SimpleNamespace(max_body=1024)
        self.core = SimpleNamespace(settings=settings, draining=False, apps={}, peers={})
        self.drained = True
        self.under_way = 0
        self.traces: Any = None
        self.calls: list[tuple[Any, ...]] = []
        self.effects: dict[str, list[Any]] = {}
        self.called = asyncio.Event()

    def next_deadline(self) -> float | None:
        return None

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> list[Any]:
            self.calls.append((name, *arguments, *named.items()))
            self.called.set()
            return self.effects.pop(name, [])

        return call


class FakeLink:
    """A link that is up."""

    def __init__(self, node_id: bytes = PEER, *, dialled: bool = True) -> None:
        self.peer = PeerInfo(node_id, "elm", address=str(AT))
        self.dialled = dialled
        self.told: list[tuple[Any, ...]] = []
        self.drops = Counter({"heartbeat-unsent": 2})

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.told.append((name, *arguments))


class House:
    """The daemon around a service."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.told: list[tuple[Any, ...]] = []
        self.dials: list[tuple[Any, ...]] = []
        self.finish: asyncio.Future[Finish] = asyncio.get_running_loop().create_future()
        self.service = Service(self.node, None, lambda: 5.0, self)  # type: ignore[arg-type]

    def linked(self, service: str, node_id: bytes, *, up: bool, left: bool) -> None:
        self.told.append((service, node_id, "up" if up else "left" if left else "down"))

    def found(self, service: str, node_id: bytes, addresses: tuple[Address, ...]) -> None:
        self.told.append((service, node_id, addresses))

    async def attempt(self, service: str, addresses: tuple[Address, ...], node_id: bytes) -> Finish:
        self.dials.append((service, addresses, node_id))
        return await self.finish

    def link(self, node_id: bytes = PEER, *, dialled: bool = True) -> Any:
        link: Any = FakeLink(node_id, dialled=dialled)
        self.service.link_up(link)
        return link

    def ended(self, outcome: Outcome, detail: str = "") -> None:
        self.finish.set_result(Finish(LinkEnd(outcome, detail), AT))

    async def next_call(self) -> tuple[Any, ...]:
        self.node.called.clear()
        async with asyncio.timeout(5):
            await self.node.called.wait()
        return self.node.calls[-1]


@pytest.mark.parametrize("dialled", [True, False])
async def test_the_node_is_told_who_dialled(dialled: bool) -> None:
    house = House()
    link = house.link(dialled=dialled)
    assert house.node.calls == [("link_up", link.peer, 5.0, ("dialled", dialled))]
    assert house.told == [("shop", PEER, "up")]
    assert house.service.peers == 1


@pytest.mark.parametrize(
    ("end", "left", "idle", "told"),
    [
        (LinkEnd(Outcome.STOPPING, by_peer=True), True, False, "left"),
        (LinkEnd(Outcome.CLOSED, by_peer=True), True, False, "left"),
        (LinkEnd(Outcome.CLOSED), False, False, "down"),
        (LinkEnd(Outcome.BROKEN), False, False, "down"),
        (LinkEnd(Outcome.SILENT), False, False, "down"),
        (LinkEnd(Outcome.IDLE), False, True, "down"),
        (LinkEnd(Outcome.IDLE, by_peer=True), False, True, "down"),
    ],
)
async def test_the_node_is_told_how_a_link_ended(end: LinkEnd, left: bool, idle: bool, told: str) -> None:
    house = House()
    house.service.link_down(house.link(), end)
    assert house.node.calls[-1] == ("link_down", PEER, str(end), 5.0, ("left", left), ("idle", idle))
    assert house.told[-1] == ("shop", PEER, told)
    assert house.service.peers == 0


async def test_what_a_link_dropped_is_remembered_when_it_has_ended() -> None:
    house = House()
    link = house.link()
    assert house.service.drops == {"heartbeat-unsent": 2}
    house.service.link_down(link, LinkEnd(Outcome.BROKEN))
    assert house.service.drops == {"heartbeat-unsent": 2}
    house.link()
    assert house.service.drops == {"heartbeat-unsent": 4}


async def test_a_trace_waits_for_the_node_to_say_that_it_is_complete() -> None:
    house = House()
    asked, done = TraceAsked("db"), TraceInfo("shop", "db", 1)
    house.node.traces = SimpleNamespace(begin=lambda asked, now: (7, []), take=lambda number: done)
    tracing = asyncio.create_task(house.service.trace(asked))
    await asyncio.sleep(0)
    house.service.apply([Traced(8)])  # whoever asked for that one has gone
    assert not tracing.done()
    house.service.apply([Traced(7)])
    assert await tracing is done
    house.node.traces.begin = lambda asked, now: (9, [Traced(9)])
    assert await house.service.trace(asked) is done
    assert not house.service._traces


async def test_heartbeats_go_through_the_node() -> None:
    house = House()
    link = house.link()
    house.node.effects["control_received"] = [Control(PEER, (b"id", b"answer")), Control(OTHER, (b"nobody",))]
    house.service.control_received(link, [b"one", b"two"])
    assert house.node.calls[-1] == ("control_received", PEER, [b"one", b"two"], 5.0)
    assert link.told == [("send_control", (b"id", b"answer"))]
    house.node.effects["probe"] = [Control(PEER, (b"question",))]
    house.service.probe(link)
    assert link.told[-1] == ("send_control", (b"question",))


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (Cause.VIOLATION, ("abort", "why")),
        (Cause.SILENT, ("close_now", Outcome.SILENT, "why")),
        (Cause.IDLE, ("close_now", Outcome.IDLE, "why")),
    ],
)
async def test_a_link_is_closed_as_the_node_says(cause: Cause, told: tuple[Any, ...]) -> None:
    house = House()
    link = house.link()
    house.service.apply([Unlink(PEER, "why", cause), Unlink(OTHER, "not linked", cause)])
    assert link.told == [told]


async def test_what_a_peer_told_reaches_discovery_if_it_makes_sense() -> None:
    house = House()
    told = ("192.0.2.7:7511", "oops", "[::1]:9", "1.2.3.4:0", ":5", "192.0.2.7:7511", "a" * 300 + ":1", "\x00:1")
    house.service.apply([Found(PEER, told), Found(OTHER, ("nowhere",))])
    assert house.told == [("shop", PEER, (AT, Address("::1", 9)))]


async def test_a_peer_that_is_waited_for_is_dialled_once() -> None:
    house = House()
    house.service.apply([Connect(PEER, (str(AT),)), Connect(PEER, (str(AT),))])
    await asyncio.sleep(0)
    assert house.dials == [("shop", (AT,), PEER)]
    house.ended(Outcome.UNREACHABLE, "nothing there")
    call = await house.next_call()
    assert call == ("connect_failed", PEER, "unreachable: nothing there at 192.0.2.7:7511", 5.0)


async def test_a_dial_that_became_a_link_is_no_failure() -> None:
    house = House()
    house.service.apply([Connect(PEER, (str(AT),))])
    await asyncio.sleep(0)
    house.link()
    house.ended(Outcome.LINKED)
    await asyncio.sleep(0.01)
    assert [name for name, *_ in house.node.calls] == ["link_up"]


async def test_the_link_may_come_up_by_the_other_sides_dial() -> None:
    house = House()
    house.service.apply([Connect(PEER, (str(AT),))])
    await asyncio.sleep(0)
    house.ended(Outcome.DUPLICATE)
    await asyncio.sleep(0.01)
    assert house.node.calls == []
    house.link(OTHER)
    await asyncio.sleep(0.01)
    house.link(dialled=False)
    await asyncio.sleep(0.01)
    assert [name for name, *_ in house.node.calls] == ["link_up", "link_up"]


async def test_a_duplicate_that_becomes_nothing_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irisd.daemon.service.OTHER_WAY", 0.01)
    house = House()
    house.service.apply([Connect(PEER, (str(AT),))])
    house.ended(Outcome.DUPLICATE)
    assert (await house.next_call())[:3] == ("connect_failed", PEER, "duplicate")


async def test_whatever_goes_wrong_with_a_dial_the_node_is_told() -> None:
    house = House()
    house.service.apply([Connect(PEER, ("nonsense",))])
    assert (await house.next_call())[2] == "none of its addresses can be dialled"
    house.service.apply([Connect(PEER, (str(AT),))])
    house.finish.set_exception(OSError("too many open files"))
    assert (await house.next_call())[2] == "OSError: too many open files"


async def test_a_daemon_that_stops_dials_no_more() -> None:
    house = House()
    house.service.apply([Connect(PEER, (str(AT),))])
    await asyncio.sleep(0)
    await house.service.dial_no_more()
    house.service.apply([Connect(OTHER, (str(AT),))])
    await asyncio.sleep(0)
    assert len(house.dials) == 1
    assert house.node.calls == []


async def test_how_dials_ended_is_remembered_of_so_many_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MAX_DIALS", 10)
    house = House()
    for port in range(1, 100):
        house.service.outcome(LinkFact(Outcome.UNREACHABLE, f"192.0.2.7:{port}", dialled=True))
    assert len(house.service._dials) <= 10


def test_a_deadline_that_has_passed_is_a_deadline_on_every_loop() -> None:
    """uvloop gives back a handle without a time for it."""
    uvloop = pytest.importorskip("uvloop")

    async def late() -> None:
        house = House()
        house.node.next_deadline = lambda: asyncio.get_running_loop().time() - 1.0  # type: ignore[method-assign]
        house.service.apply([])
        house.service.apply([])
        assert (await house.next_call())[0] == "on_deadline"
        house.service.close()

    uvloop.run(late())
