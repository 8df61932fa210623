"""What ``iris doctor`` shows and advises."""

from __future__ import annotations

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
    assert "fedcba98" in told
    assert "not heard by multicast" in told


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("other-service", "another key"), ("other-version", "another version"), ("out-of-reach", "cannot reach"),
     ("malformed", "makes no sense")],
)  # fmt: skip
def test_what_was_heard_is_explained(verdict, words):
    found = discovery()
    found.heard.add(node=THIRD, verdict=verdict, count=1)
    [told] = advice(found)
    assert words in told


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
