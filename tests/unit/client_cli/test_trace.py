"""What would happen to a call, for people and for programs."""

from __future__ import annotations

import json

import pytest

from iris_client.cli.trace import EXITS, show_trace, trace_json
from iris_proto.v1 import control_pb2 as pb


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")


NODES = pb.TraceHop(
    name="oak",
    node="aa",
    among="nodes",
    policy="p2c",
    because="its members ask for it",
    count=70,
    chosen="elm",
    why="of elm and oak it costs less: 1.00, the other 2.50",
    candidates=[
        pb.TraceCandidate(
            name="elm",
            id="bb",
            members=2,
            slots=16,
            pace=0.0015,
            handles=True,
            first=True,
            drawn=True,
            chosen=True,
            cost=1.0,
            round_trip=0.00025,
        ),
        pb.TraceCandidate(
            name="oak",
            id="aa",
            members=1,
            out=1,
            level=1,
            slots=2,
            busy=2.5,
            failing=0.5,
            handles=True,
            suspect=True,
            ejected=True,
            cost=2.5,
            queued=2048,
        ),
        pb.TraceCandidate(name="ash", id="cc", members=1, level=7, slots=8, handles=True),
    ],
)
MEMBERS = pb.TraceHop(
    name="elm",
    node="bb",
    among="members",
    policy="p2c",
    because="its members ask for it",
    count=2,
    waiting=1,
    chosen="app@elm/bb.1",
    why="there is no other choice",
    outcome="handed",
    detail="app@elm/bb.1 would have it at once",
    took=0.002,
    candidates=[
        pb.TraceCandidate(name="app@elm/bb.1", slots=8, busy=3, handles=True, first=True, chosen=True, on_trial=True),
        pb.TraceCandidate(name="app@elm/bb.2", slots=8),
    ],
)
TRACE = pb.Trace(service="shop", cluster="db", pattern=1, hops=[NODES, MEMBERS])


def test_for_people():
    assert show_trace(TRACE, "request", "get").splitlines() == [
        "a request to db, now, from oak; nothing is delivered",
        "",
        "method get: the member finds the handler, its daemon does not know which it has",
        "",
        "1. oak chooses a node: p2c, its members ask for it",
        "    NODE  MEMBERS  EJECTED  LEVEL  BUSY/SLOTS    PACE  FAILING  ROUND TRIP   QUEUED  COST  REMARKS",
        "->  elm         2        0      0        0/16  1.5 ms        -      250 us        -  1.00  compared",
        "    oak         1        1      1       2.5/2       -      50%           -  2.0 KiB  2.50  "
        "suspect, ejected, full",
        "    ash         1        0      7         0/8       -        -           -        -     -  "
        "only after those of a better level",
        "... and 67 more",
        "-> elm: of elm and oak it costs less: 1.00, the other 2.50",
        "",
        "2. elm chooses a member: p2c, its members ask for it; asked and answered in 2 ms",
        "    MEMBER        LEVEL  BUSY/SLOTS  PACE  FAILING  QUEUED  COST  REMARKS",
        "->  app@elm/bb.1      0         3/8     -        -       -     -  on trial",
        "    app@elm/bb.2      0         0/8     -        -       -     -  does not handle it",
        "-> app@elm/bb.1: there is no other choice",
        "   waiting there for a slot: 1 call",
        "",
        "handed: app@elm/bb.1 would have it at once",
    ]


def test_nobody_to_choose():
    hop = pb.TraceHop(name="oak", among="nodes", outcome="no-member", detail="nobody serves 'db'")
    assert show_trace(pb.Trace(cluster="db", hops=[hop]), "push").splitlines() == [
        "a push to db, now, from oak; nothing is delivered",
        "",
        "no-member: nobody serves 'db'",
    ]


def test_what_comes_from_elsewhere_does_not_steer_the_terminal():
    hop = pb.TraceHop(name="o\x1bk", among="nodes", outcome="no-member", detail="\x1b[2J")
    assert "\x1b" not in show_trace(pb.Trace(cluster="\x1b", hops=[hop]), "push", "\x1b")


def test_for_programs():
    told = trace_json(TRACE, "request", "get")
    json.dumps(told, allow_nan=False)
    assert (told["outcome"], told["member"], told["method"]) == ("handed", "app@elm/bb.1", "get")
    nodes, members = told["hops"]
    assert (nodes["chosen"], nodes["took"], nodes["count"]) == ("elm", None, 70)
    assert nodes["candidates"][0]["round_trip"] == 0.00025
    assert nodes["candidates"][1]["suspect"] is True
    assert members["took"] == 0.002
    assert members["candidates"][0]["on_trial"] is True
    assert "members" not in members["candidates"][0]


def test_a_hop_that_could_not_be_asked_has_no_member():
    unknown = pb.TraceHop(name="elm", among="members", outcome="unknown", detail="no link")
    told = trace_json(pb.Trace(hops=[NODES, unknown]), "request")
    assert (told["outcome"], told["member"]) == ("unknown", None)


def test_a_daemon_that_says_nothing():
    assert show_trace(pb.Trace(cluster="db"), "request").endswith("unknown: the daemon says nothing")
    assert trace_json(pb.Trace(), "request")["outcome"] == "unknown"


def test_exit_codes():
    assert EXITS == {"no-member": 3, "not-supported": 3, "overloaded": 1, "invalid": 2}
