"""What a daemon says of itself, laid out for people and for programs."""

from __future__ import annotations

import pytest

from iris_client.cli import tables
from iris_proto.v1 import control_pb2 as pb

STATUS = pb.Status(
    version="0.1.0",
    pid=4711,
    uptime=3 * 3600 + 12 * 60,
    host="oak",
    memory=61 * 1024 * 1024,
    listeners=[pb.Listener(purpose="attach", address="unix:///run/irisd/irisd.sock")],
    conditions=[pb.Condition(name="no-peers", detail="alone")],
    services=[
        pb.ServiceStatus(
            service="shop",
            key="a1b2c3d4e5f60708",
            node="0123456789abcdef0123456789abcdef",
            peers=2,
            attachments=3,
            local_attachments=2,
            clusters=4,
            subscriptions=5,
            pending=6,
            queued=2048,
            counters={"dropped.no-member": 7, "dropped.late": 0, "frames.in": 100},
        )
    ],
)


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")


def test_status_for_people():
    assert tables.show_status(STATUS).splitlines() == [
        "oak: irisd 0.1.0, process 4711, up 3h 12m, 61.0 MiB",
        "",
        "LISTENS FOR  AT",
        "attach       unix:///run/irisd/irisd.sock",
        "",
        "SERVICE  KEY       NODE      PEERS  APPS  ON LANE  CLUSTERS  SUBSCRIPTIONS  PENDING  QUEUED",
        "shop     a1b2c3d4  01234567      2     3        2         4              5        6  2.0 KiB",
        "",
        "CONDITION  WHAT IT MEANS",
        "no-peers   alone",
        "",
        "SERVICE  DROPPED BECAUSE  COUNT",
        "shop     no-member            7",
    ]


def test_a_bare_status():
    shown = tables.show_status(pb.Status(version="0.1.0", pid=1, uptime=1, host="oak", draining=True))
    assert shown == "oak: irisd 0.1.0, process 1, up 1.0 s, draining\n\nno service: the daemon holds no key"


def test_status_for_programs():
    told = tables.status_json(STATUS)
    assert told["pid"] == 4711
    assert told["listeners"] == [{"purpose": "attach", "address": "unix:///run/irisd/irisd.sock"}]
    assert told["conditions"] == [{"name": "no-peers", "detail": "alone"}]
    [service] = told["services"]
    assert service["node"] == "0123456789abcdef0123456789abcdef"
    assert service["counters"] == {"dropped.late": 0, "dropped.no-member": 7, "frames.in": 100}


def test_every_field_of_a_status_reaches_programs():
    """A field added to the protocol and forgotten here would be missed by everybody who scripts."""
    told = tables.status_json(STATUS)
    assert set(told) == {field.name for field in pb.Status.DESCRIPTOR.fields}
    assert set(told["services"][0]) == {field.name for field in pb.ServiceStatus.DESCRIPTOR.fields}
    [node] = tables.nodes_json([pb.Node(service="shop")])["nodes"]
    assert set(node) == {field.name for field in pb.Node.DESCRIPTOR.fields}
    [topic] = tables.topics_json([pb.Topic(service="shop")])["topics"]
    assert set(topic) == {field.name for field in pb.Topic.DESCRIPTOR.fields}


def test_counters():
    assert tables.show_counters(STATUS).splitlines()[1:] == [
        "shop     dropped.late           0",
        "shop     dropped.no-member      7",
        "shop     frames.in            100",
    ]


def test_nodes():
    nodes = [
        pb.Node(service="shop", node="aa" * 16, name="oak", state="self", since=61, version="0.1.0"),
        pb.Node(
            service="shop",
            node="bb" * 16,
            name="elm",
            state="alive",
            since=1.5,
            address="127.0.0.1:7511",
            round_trip=0.00025,
            version="0.1.0",
            linked=True,
            heard=0.4,
            heard_by="oak",
        ),
        pb.Node(
            service="shop", node="cc" * 16, name="ash", state="suspect", since=2, heard=4, heard_by="elm",
            health=3, draining=True,
        ),
        pb.Node(service="shop", node="dd" * 16, name="fir", state="dead", since=600, heard=605, heard_by="oak"),
    ]  # fmt: skip
    assert tables.show_nodes(nodes).splitlines() == [
        "NODE  STATE    FOR     HEARD              ROUND TRIP  ADDRESS         ID        VERSION  REMARKS",
        "oak   self     1m 1s   -                  -           -               aaaaaaaa  0.1.0    -",
        "elm   alive    1.5 s   400 ms ago by oak  250 us      127.0.0.1:7511  bbbbbbbb  0.1.0    -",
        "ash   suspect  2.0 s   4.0 s ago by elm   -           -               cccccccc  -        "
        "draining, slow (3 of 8), no link",
        "fir   dead     10m 0s  10m 5s ago by oak  -           -               dddddddd  -        -",
    ]
    told = tables.nodes_json(nodes)["nodes"]
    assert [row["round_trip"] for row in told] == [None, 0.00025, None, None]
    assert [(row["heard"], row["heard_by"]) for row in told[:2]] == [(None, None), (0.4, "oak")]
    assert [(row["linked"], row["health"], row["draining"]) for row in told[1:3]] == [
        (True, 0, False),
        (False, 3, True),
    ]
    assert tables.show_nodes([]) == "no nodes"


def test_clusters():
    rows = [
        pb.Cluster(
            service="shop",
            name="databases",
            members=3,
            patterns=1 | 2 | 16 | 1024,
            nodes=[
                pb.ClusterNode(node="aa", name="oak", members=2, outstanding=4),
                pb.ClusterNode(node="bb", name="elm", members=1),
            ],
        )
    ]
    assert tables.show_clusters(rows).splitlines() == [
        "CLUSTER    MEMBERS  HANDLES                ON            UNDER WAY",
        "databases        3  request, push, tunnel  oak 2, elm 1          4",
    ]
    [told] = tables.clusters_json(rows)["clusters"]
    assert told["cluster"] == "databases"
    assert told["patterns"] == ["request", "push", "tunnel"]
    assert [part["members"] for part in told["nodes"]] == [2, 1]
    assert "nobody serves" in tables.show_clusters([])


def test_topics_of_several_services_say_which():
    rows = [
        pb.Topic(service="shop", filter="orders.*", group="billing", subscribers=2, nodes=1),
        pb.Topic(service="bank", filter="a.>", subscribers=1, nodes=1),
    ]
    assert tables.show_topics(rows).splitlines() == [
        "SERVICE  FILTER    GROUP    SUBSCRIBERS  NODES",
        "bank     a.>       -                  1      1",
        "shop     orders.*  billing            2      1",
    ]
    assert tables.show_topics([]) == "no subscriptions"


def test_names_from_elsewhere_are_made_safe():
    shown = tables.show_nodes([pb.Node(service="shop", node="aa", name="\x1b[2J", state="alive")])
    assert "\x1b" not in shown
