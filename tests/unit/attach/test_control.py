"""The Control service's messages say what the rows say, for the services a listener offers."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import grpc
import pytest

from iris_proto.v1 import control_pb2 as pb
from irisd.attach.control import ControlService, cluster_message, node_message, status_message, topic_message
from irisd.status import (
    CandidateRow,
    ClusterLoad,
    ClusterNodeRow,
    ClusterRow,
    Condition,
    DiscoveryInfo,
    HeardRow,
    InterfaceRow,
    ListenerInfo,
    LoadInfo,
    MemberLoad,
    MulticastInfo,
    NodeRow,
    QueueLoad,
    SeedRow,
    ServiceDiscovery,
    ServiceInfo,
    ServiceLoad,
    StatusInfo,
    TallyRow,
    TopicRow,
    TraceAsked,
    TraceCandidate,
    TraceHop,
    TraceInfo,
)

STATUS = StatusInfo(
    version="0.1.0",
    pid=4711,
    uptime=12.5,
    host="left",
    listeners=(ListenerInfo("attach", "unix:///run/irisd/irisd.sock"),),
    services=(
        ServiceInfo("shop", "aa", "bb", 1, 2, 3, 4, 5, 6, {"dropped.full": 7}, 1),
        ServiceInfo("bank", "cc", "dd"),
    ),
    draining=True,
    memory=80_000_000,
    conditions=(Condition("no-peers", "nobody found yet"),),
)
NODE = NodeRow("shop", "bb", "left", "self", "127.0.0.1:7511", 3.5, 1, "0.1.0", 0.001, True, 0.5, "left", 2, True)
CLUSTER = ClusterRow("shop", "databases", 3, (ClusterNodeRow("bb", "left", 3, 1),), 5)
TOPIC = TopicRow("shop", "orders.*", "billing", 2, 1)

DISCOVERY = DiscoveryInfo(
    multicast=MulticastInfo(
        "on", "why", "_irisd._tcp.local.", ("224.0.0.251:5353",), (InterfaceRow("lo", ("127.0.0.1",)),), {"new": 1}
    ),
    state_file="/var/lib/irisd/peers.json",
    state_problem="full",
    heard=(
        HeardRow("aa", "shop", "new", ("192.0.2.7:7511",), 3, 1.5),
        HeardRow("cc", "bank", "known"),
        HeardRow("ee", "", "other-service"),
    ),
    services=(
        ServiceDiscovery(
            service="shop",
            node="bb",
            advertised=("192.0.2.1:7511",),
            advertised_because="it listens there",
            seeds=(SeedRow("oak:7511", ("192.0.2.9:7511",), "late"),),
            candidates=(
                CandidateRow("aa", "seed", ("192.0.2.9:7511",), True, 2, "linked", "detail", 1.0, 2.0, 3.0),
                CandidateRow("", "multicast"),
            ),
            known=2,
            remembered=("192.0.2.9:7511",),
            counters={"new": 2},
        ),
        ServiceDiscovery("bank", "dd"),
    ),
    conditions=(Condition("no-peers", "alone"),),
)

CALLED, SERVED = TallyRow(1, 2, (0, 3)), TallyRow(4, 5, (6,))
LOAD = LoadInfo(
    "left",
    "0.1.0",
    1.5,
    2.5,
    80_000_000,
    True,
    (0.1, 0.2),
    (
        ServiceLoad(
            "shop",
            "bb",
            *(1, 2, 3, 4, 5),
            clusters=(ClusterLoad("db", 1, 2, 3, 4, CALLED, 5, 6, 7, SERVED),),
            cluster_count=8,
            members=(MemberLoad("db", "app@left/bb.1", 1, 2, 3, 0.5, 0.25, True, True),),
            member_count=9,
            queues=(QueueLoad("node", "right", 70_000, 2),),
            queue_count=10,
            drops={"too-large": 11},
        ),
        ServiceLoad("bank", "dd"),
    ),
)
TRACE = TraceInfo(
    "shop",
    "db",
    1,
    (
        TraceHop(
            "left",
            "bb",
            "members",
            policy="p2c",
            because="so",
            candidates=(
                TraceCandidate(
                    "right",
                    id="cc",
                    members=1,
                    out=2,
                    level=3,
                    slots=4,
                    busy=5.0,
                    pace=0.5,
                    failing=0.25,
                    suspect=True,
                    ejected=True,
                    on_trial=True,
                    drawn=True,
                    chosen=True,
                    cost=1.5,
                    round_trip=0.125,
                    queued=6,
                ),
            ),
            count=7,
            chosen="app",
            why="why",
            waiting=3,
            outcome="handed",
            detail="detail",
            took=0.5,
        ),
    ),
)


class Source:
    def load(self) -> LoadInfo:
        return LOAD

    async def trace(self, service: str, asked: TraceAsked) -> TraceInfo:
        return replace(TRACE, service=service, cluster=f"{asked.cluster} {asked.pattern} {asked.key} {asked.balance}")

    def discovery(self) -> DiscoveryInfo:
        return DISCOVERY

    def services(self) -> list[str]:
        return ["shop", "bank"]

    def status(self) -> StatusInfo:
        return STATUS

    def nodes(self, service: str) -> list[NodeRow]:
        rows = [NODE, NodeRow("bank", "dd", "left", "self")]
        return [row for row in rows if service in ("", row.service)]

    def clusters(self, service: str) -> list[ClusterRow]:
        return [CLUSTER, ClusterRow("bank", "ledgers", 1)]

    def topics(self, service: str) -> list[TopicRow]:
        return [TOPIC, TopicRow("bank", "rates.>", "", 1, 1)]


class Aborted(Exception):
    pass


class Context:
    """gRPC's end of a call: notes how it was aborted."""

    def __init__(self) -> None:
        self.status: grpc.StatusCode | None = None
        self.detail = ""

    async def abort(self, status: grpc.StatusCode, detail: str) -> None:
        self.status, self.detail = status, detail
        raise Aborted


def anywhere() -> Any:
    return Context()


def test_every_field_of_a_status_arrives():
    message = status_message(STATUS)
    assert message == pb.Status(
        version="0.1.0",
        pid=4711,
        uptime=12.5,
        host="left",
        listeners=[pb.Listener(purpose="attach", address="unix:///run/irisd/irisd.sock")],
        services=[
            pb.ServiceStatus(
                service="shop",
                key="aa",
                node="bb",
                peers=1,
                attachments=2,
                clusters=3,
                subscriptions=4,
                pending=5,
                queued=6,
                counters={"dropped.full": 7},
                local_attachments=1,
            ),
            pb.ServiceStatus(service="bank", key="cc", node="dd"),
        ],
        draining=True,
        memory=80_000_000,
        conditions=[pb.Condition(name="no-peers", detail="nobody found yet")],
    )


@pytest.mark.parametrize(
    ("made", "row"), [(node_message(NODE), NODE), (topic_message(TOPIC), TOPIC), (cluster_message(CLUSTER), CLUSTER)]
)
def test_every_field_of_a_row_arrives(made, row):
    names = {field.name for field in made.DESCRIPTOR.fields}
    assert names == set(type(row).__dataclass_fields__)
    assert {field.name for field, _ in made.ListFields()} == names  # nothing was left at its default
    plain = names - {"nodes"} if isinstance(row, ClusterRow) else names
    assert {name: getattr(made, name) for name in plain} == {name: getattr(row, name) for name in plain}


def test_a_cluster_names_its_nodes():
    assert list(cluster_message(CLUSTER).nodes) == [pb.ClusterNode(node="bb", name="left", members=3, outstanding=1)]


async def ask(services: set[str], method: str, service: str = "") -> Any:
    control = ControlService(Source(), frozenset(services))
    request = pb.GetStatusRequest() if method == "GetStatus" else pb.ListRequest(service=service)
    return await getattr(control, method)(request, Context())


async def test_a_listener_that_offers_all_tells_all():
    assert [row.service for row in (await ask(set(), "GetStatus")).services] == ["shop", "bank"]
    assert [row.name for row in (await ask(set(), "ListNodes")).nodes] == ["left", "left"]
    assert [row.name for row in (await ask(set(), "ListClusters")).clusters] == ["databases", "ledgers"]
    assert [row.filter for row in (await ask(set(), "ListTopics")).topics] == ["orders.*", "rates.>"]


async def test_a_listener_tells_only_what_it_offers():
    assert [row.service for row in (await ask({"bank"}, "GetStatus")).services] == ["bank"]
    assert [row.service for row in (await ask({"bank"}, "ListNodes")).nodes] == ["bank"]
    assert [row.name for row in (await ask({"bank"}, "ListClusters")).clusters] == ["ledgers"]
    assert [row.filter for row in (await ask({"bank"}, "ListTopics", "bank")).topics] == ["rates.>"]


async def test_the_rest_of_the_status_is_the_same_for_all():
    assert (await ask({"bank"}, "GetStatus")).pid == 4711


@pytest.mark.parametrize("method", ["ListNodes", "ListClusters", "ListTopics", "GetLoad", "TraceCall"])
@pytest.mark.parametrize(
    ("offered", "asked", "sentence"),
    [
        (frozenset(), "shoop", "no service 'shoop' here; there is: bank, shop"),
        (frozenset({"bank"}), "shop", "no service 'shop' here; there is: bank"),
        (frozenset({"other"}), "shop", "no service 'shop' here; there is: none"),
    ],
)
async def test_a_service_that_is_not_here(method, offered, asked, sentence):
    context: Any = Context()
    with pytest.raises(Aborted):
        request = pb.TraceRequest if method == "TraceCall" else pb.ListRequest
        await getattr(ControlService(Source(), offered), method)(request(service=asked), context)
    assert (context.status, context.detail) == (grpc.StatusCode.NOT_FOUND, sentence)


async def test_how_peers_are_looked_for_is_told_in_full():
    found = await ControlService(Source(), frozenset()).GetDiscovery(pb.ListRequest(), anywhere())
    assert found.multicast == pb.Multicast(
        state="on",
        detail="why",
        service_type="_irisd._tcp.local.",
        groups=["224.0.0.251:5353"],
        interfaces=[pb.Interface(name="lo", addresses=["127.0.0.1"])],
        counters={"new": 1},
    )
    assert (found.state_file, found.state_problem) == ("/var/lib/irisd/peers.json", "full")
    assert found.heard[0] == pb.Heard(
        node="aa", service="shop", verdict="new", addresses=["192.0.2.7:7511"], count=3, ago=1.5
    )
    assert found.services[0] == pb.ServiceDiscovery(
        service="shop",
        node="bb",
        advertised=["192.0.2.1:7511"],
        advertised_because="it listens there",
        seeds=[pb.Seed(seed="oak:7511", addresses=["192.0.2.9:7511"], problem="late")],
        candidates=[
            pb.Candidate(
                node="aa",
                source="seed",
                addresses=["192.0.2.9:7511"],
                linked=True,
                attempts=2,
                outcome="linked",
                detail="detail",
                ago=1.0,
                heard=2.0,
                next_dial=3.0,
            ),
            pb.Candidate(source="multicast"),
        ],
        known=2,
        remembered=["192.0.2.9:7511"],
        counters={"new": 2},
    )
    assert found.conditions == [pb.Condition(name="no-peers", detail="alone")]


async def test_discovery_keeps_to_what_the_listener_offers():
    found = await ControlService(Source(), frozenset({"bank"})).GetDiscovery(pb.ListRequest(), anywhere())
    assert [row.service for row in found.services] == ["bank"]
    assert [row.node for row in found.heard] == ["cc", "ee"]
    one = await ControlService(Source(), frozenset()).GetDiscovery(pb.ListRequest(service="shop"), anywhere())
    assert [row.service for row in one.services] == ["shop"]
    with pytest.raises(Aborted):
        await ControlService(Source(), frozenset({"bank"})).GetDiscovery(pb.ListRequest(service="shop"), anywhere())


def agree(message: Any, row: Any) -> None:
    """Every field of a row is one of its message, and says the same."""
    assert {field.name for field in message.DESCRIPTOR.fields} == {field.name for field in fields(row)}
    for field in fields(row):
        said, told = getattr(message, field.name), getattr(row, field.name)
        if isinstance(told, tuple):
            for one, other in zip(said, told, strict=True):
                agree(one, other) if is_dataclass(other) else compare(one, other)
        elif is_dataclass(told):
            agree(said, told)
        else:
            compare(dict(said) if isinstance(told, dict) else said, told)


def compare(said: Any, told: Any) -> None:
    assert said == told


async def test_every_field_of_a_load_arrives():
    agree(await ControlService(Source(), frozenset()).GetLoad(pb.ListRequest(), anywhere()), LOAD)


async def test_a_load_keeps_to_what_is_asked_and_offered():
    only = await ControlService(Source(), frozenset({"bank"})).GetLoad(pb.ListRequest(), anywhere())
    assert [row.service for row in only.services] == ["bank"]
    one = await ControlService(Source(), frozenset()).GetLoad(pb.ListRequest(service="shop"), anywhere())
    assert [row.service for row in one.services] == ["shop"]


async def test_every_field_of_a_trace_arrives():
    request = pb.TraceRequest(service="shop", cluster="db", pattern=16, key="k", balance=3)
    found = await ControlService(Source(), frozenset()).TraceCall(request, anywhere())
    agree(found, replace(TRACE, cluster="db 16 k 3"))


async def test_a_trace_is_of_the_only_service_offered_and_of_a_request():
    found = await ControlService(Source(), frozenset({"bank"})).TraceCall(pb.TraceRequest(cluster="db"), anywhere())
    assert (found.service, found.cluster) == ("bank", "db 1  0")
    context: Any = Context()
    with pytest.raises(Aborted):
        await ControlService(Source(), frozenset()).TraceCall(pb.TraceRequest(cluster="db"), context)
    assert (context.status, context.detail) == (grpc.StatusCode.NOT_FOUND, "which service? There is: bank, shop")
