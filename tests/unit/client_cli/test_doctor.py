"""What ``iris doctor`` shows and advises."""

from __future__ import annotations

from typing import Any

import pytest

from iris_client.cli.doctor import advice, discovery_json, show_discovery
from iris_proto.v1 import control_pb2 as pb

OTHER = "0123456789abcdef0123456789abcdef"
THIRD = "fedcba9876543210fedcba9876543210"


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")


def discovery(state: str = "on", seeds: tuple[pb.Seed, ...] = ()) -> pb.Discovery:
    return pb.Discovery(
        multicast=pb.Multicast(
            state=state,
            groups=["224.0.0.251:5353"],
            interfaces=[pb.Interface(name="eth0", addresses=["192.0.2.1"])],
            counters={"own": 2, "known": 3},
        ),
        heard=[pb.Heard(node=OTHER, service="shop", verdict="known", addresses=["192.0.2.2:7511"], count=3, ago=2)],
        services=[
            pb.ServiceDiscovery(
                service="shop",
                node="aa" * 16,
                advertised=["192.0.2.1:7511"],
                advertised_because="it listens there",
                candidates=[
                    pb.Candidate(
                        node=OTHER, source="multicast", addresses=["192.0.2.2:7511"], linked=True, attempts=1,
                        outcome="linked", ago=2,
                    )
                ],
                seeds=seeds,
            )
        ],
    )  # fmt: skip


def test_all_well():
    assert show_discovery(discovery()).splitlines() == [
        "multicast: on, joined 224.0.0.251:5353 on eth0 (192.0.2.1)",
        "records heard: known 3, own 2",
        "",
        "HEARD     SERVICE  WHICH IS  SAYS IT IS AT   TIMES  AGO",
        "01234567  shop     ours      192.0.2.2:7511      3  2.0 s",
        "",
        "shop: node aaaaaaaa, others are told 192.0.2.1:7511: it listens there",
        "",
        "CANDIDATE  FROM       AT              OUTCOME  DIALS  NEXT IN",
        "01234567   multicast  192.0.2.2:7511  linked       1  -",
        "",
        "addresses that worked are not kept over a restart",
        "",
        "What to do",
        "  nothing: all is as it should be",
    ]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("wrong-key", "another key of the same name"),
        ("wrong-version", "another version"),
        ("unreachable", "is not reachable"),
        ("timeout", "does not finish a handshake"),
        ("misrouted", "another node than was announced"),
        ("self", "this daemon itself"),
    ],
)
def test_a_dial_that_failed_is_explained(outcome, words):
    found = discovery()
    row = found.services[0].candidates.add(source="seed", addresses=["192.0.2.3:7511"], attempts=4, outcome=outcome)
    row.ago, row.next_dial = 1.0, 2.0
    [told] = advice(found)
    assert told.startswith("shop: 192.0.2.3:7511 ")
    assert words in told
    assert f"{outcome} 1.0 s ago" in show_discovery(found)


def test_who_answers_over_tcp_but_not_by_multicast_is_named():
    found = discovery()
    found.services[0].candidates.add(node=THIRD, source="seed", addresses=["192.0.2.3:7511"], linked=True)
    [told] = advice(found)
    assert told.startswith("1 linked node (fedcba98) answers over TCP but not heard by multicast: ")
    nodes = [node(OTHER, "elm"), node(THIRD, "ash"), node("11" * 16, "fir")]  # the last one dialled us
    [told] = advice(found, nodes)
    assert told.startswith("2 linked nodes (fir, ash) answer over TCP but not heard by multicast: ")


def test_with_more_announcers_than_are_remembered_nobody_is_called_unheard():
    found = discovery()
    found.services[0].candidates.add(node=THIRD, source="seed", addresses=["192.0.2.3:7511"], linked=True)
    for number in range(127):
        found.heard.add(node=f"{number:032x}", service="shop", verdict="known")
    assert advice(found) == []


def node(node_id: str, name: str, **said: Any) -> pb.Node:
    known: dict[str, Any] = {"state": "alive", "linked": True, "heard": 0.4, "heard_by": "oak", "version": "0.1.0"}
    return pb.Node(service="shop", node=node_id, name=name, **(known | said))


def test_who_is_known_and_by_which_ways():
    nodes = [
        node("aa" * 16, "oak", state="self", linked=False, heard_by=""),
        node(OTHER, "elm"),
        node(THIRD, "ash", linked=False, heard_by="elm", health=2),
        node("11" * 16, "fir", state="dead", linked=False, heard=600),
    ]
    lines = show_discovery(discovery(), nodes).splitlines()
    at = lines.index("NODE  STATE  TCP      MULTICAST        LAST HEARD         SAYS IT IS     VERSION")
    assert lines[at + 1 : at + 4] == [
        "elm   alive  linked   heard 2.0 s ago  400 ms ago by oak  well           0.1.0",
        "ash   alive  no link  not heard        400 ms ago by elm  slow (2 of 8)  0.1.0",
        "fir   dead   no link  not heard        10m 0s ago by oak  -              0.1.0",
    ]
    told = discovery_json(discovery(), nodes)
    assert [row["name"] for row in told["nodes"]] == ["oak", "elm", "ash", "fir"]
    assert told["nodes"][2]["health"] == 2


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"health": 3}, "shop: elm says that it is slow (3 of 8)"),
        ({"state": "suspect", "heard": 4.0}, "shop: elm is doubted, it was last heard 4.0 s ago by oak"),
        ({"version": "0.2.0"}, "shop: elm runs 0.2.0, this daemon 0.1.0"),
    ],
)
def test_what_a_node_suffers_from_is_said(said, words):
    own = node("aa" * 16, "oak", state="self", linked=False, heard_by="")
    [told] = advice(discovery(), [own, node(OTHER, "elm", **said)])
    assert told.startswith(words)
    assert advice(discovery(), [own, node(OTHER, "elm")]) == []
    assert advice(discovery(), [own, node(OTHER, "elm", state="dead", linked=False, version="0.2.0", health=3)]) == []


def test_our_own_slowness_is_said():
    found = discovery()
    found.conditions.add(name="slow-loop", detail="shop: the loop stood still for 2.1 s")
    assert advice(found) == ["this daemon: shop: the loop stood still for 2.1 s"]
    own = node("aa" * 16, "oak", state="self", health=1, linked=False)
    assert advice(discovery(), [own]) == [
        "shop: oak, which is this daemon, is slow (1 of 8): its host has too much to do"
    ]


def test_one_that_needs_no_link_is_no_problem():
    found = discovery()
    found.services[0].candidates.add(node=THIRD, source="peer", addresses=["192.0.2.3:7511"], outcome="not-wanted")
    assert advice(found) == []
    assert "no link needed now" in show_discovery(found)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("other-service", "another key"), ("other-version", "another version"), ("out-of-reach", "cannot reach"),
     ("malformed", "makes no sense")],
)  # fmt: skip
def test_what_was_heard_is_explained(verdict, words):
    found = discovery()
    found.heard.add(node=THIRD, verdict=verdict, count=1, addresses=["198.51.100.7:7511"])
    [told] = advice(found)
    assert words in told
    assert "(fedcba98 at 198.51.100.7:7511)" in told


def test_no_way_to_find_anybody():
    found = discovery("off")
    assert "no seeds" in advice(found)[0]
    found.multicast.state, found.multicast.detail = "unavailable", "Address already in use"
    assert "Address already in use" in advice(found)[0]
    found = discovery("off", seeds=(pb.Seed(seed="oak:7511", problem="the name does not resolve"),))
    assert advice(found) == ["shop: seed oak:7511: the name does not resolve"]


def test_what_strangers_announce_does_not_reach_the_terminal():
    found = discovery()
    found.heard.add(node="\x1b[2J", verdict="\x1b]0;x", addresses=["\x1b[31m"])
    found.services[0].candidates.add(source="seed", addresses=["\x1b[31m"], outcome="unreachable", detail="\x1b[1m")
    assert "\x1b" not in show_discovery(found)


def test_a_long_list_is_cut_for_people_and_whole_for_programs():
    found = discovery()
    for number in range(100):
        found.heard.add(node=f"{number:032x}", service="shop", verdict="known")
    assert "... and 77 more (--json)" in show_discovery(found)
    told = discovery_json(found)
    assert len(told["heard"]) == 101
    assert told["services"][0]["candidates"][0]["outcome"] == "linked"
    assert told["multicast"]["counters"] == {"known": 3, "own": 2}
