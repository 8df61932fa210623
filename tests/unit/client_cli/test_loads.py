"""A daemon's load for people, and the screen it is drawn upon."""

from __future__ import annotations

import io

import pytest

from iris_client.cli.loads import show_load
from iris_client.cli.rates import Span
from iris_client.cli.screen import ENTER, HOME, LEAVE, REST, Screen, clip
from iris_proto.v1 import control_pb2 as pb


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")


def load(at: float, clusters: int = 1, *, times: int = 1) -> pb.Load:
    rows = [
        pb.ClusterLoad(
            name=f"db{number}",
            members=3,
            nodes=2,
            ejected=1,
            in_flight=4,
            called=pb.Tally(answered=100 * times * (number + 1), failed=times, took=[0, 100 * times]),
            here=1,
            at_work=2,
            waiting=5,
            served=pb.Tally(answered=10 * times, took=[10 * times]),
        )
        for number in range(clusters)
    ]
    service = pb.ServiceLoad(
        service="shop",
        node="aa",
        nodes=3,
        links=2,
        attachments=1,
        pending=12_345,
        queued=2048,
        clusters=rows,
        cluster_count=clusters,
        members=[
            pb.MemberLoad(cluster="db0", name="app@oak/aa.1", at_work=8, concurrency=8, pace=0.0015, failing=0.25),
            pb.MemberLoad(cluster="db0", name="app@oak/aa.2", concurrency=8, ejected=True, failing=1.0),
            pb.MemberLoad(cluster="db0", name="app@oak/aa.3", concurrency=8, on_trial=True, failing=0.01),
        ],
        member_count=3,
        queues=[pb.QueueLoad(to="node", name="elm", bytes=1 << 20, frames=7)],
        queue_count=1,
        drops={"too-large": 5 * times},
    )
    return pb.Load(
        host="oak", version="1.0", at=at, uptime=61, memory=1 << 20, bounds=[0.001, 0.002], services=[service]
    )


def test_everything_there_is():
    assert show_load(Span(load(1.0), load(2.0, times=2))).splitlines() == [
        "oak: irisd 1.0, up 1m 1s, 1.0 MiB",
        "shop: 3 nodes, 2 links, 1 app, 12,345 under way, 2.0 KiB queued",
        "",
        "CLUSTER  MEMBERS  NODES  EJECTED  IN FLIGHT  CALLS/S  FAILED/S      P50      P99",
        "db0            3      2        1          4      101       1.0  1.41 ms  1.99 ms",
        "",
        "SERVED HERE  MEMBERS  AT WORK  WAITING  CALLS/S  FAILED/S     P50     P99",
        "db0                1        2        5       10         0  707 us  993 us",
        "",
        "MEMBER OF THIS NODE  CLUSTER  AT WORK  LEVEL    PACE  FAILING  STATE",
        "app@oak/aa.1         db0          8/8      0  1.5 ms      25%  -",
        "app@oak/aa.2         db0          0/8      0       -     100%  ejected",
        "app@oak/aa.3         db0          0/8      0       -     1.0%  on trial",
        "",
        "QUEUE TOWARDS         HOLDS  FRAMES",
        "node           elm  1.0 MiB       7",
        "",
        "DROPPED BECAUSE  A SECOND  IN ALL",
        "too-large             5.0      10",
    ]


def test_a_first_look_has_no_rates():
    lines = show_load(Span(None, load(1.0))).splitlines()
    assert lines[4].split() == ["db0", "3", "2", "1", "4", "-", "-", "-", "-"]


def test_a_daemon_that_does_nothing():
    now = pb.Load(
        host="oak", version="1.0", uptime=1, draining=True, services=[pb.ServiceLoad(service="shop", nodes=1)]
    )
    assert show_load(Span(None, now)).splitlines() == [
        "oak: irisd 1.0, up 1.0 s, 0 B, draining",
        "shop: 1 node, 0 links, 0 apps, 0 under way, 0 B queued",
        "",
        "no clusters: nobody serves a name (iris serve NAME -- COMMAND does)",
    ]


def test_names_that_nobody_serves_are_shown_while_they_are_asked_for():
    before, now = load(1.0), load(2.0, times=2)
    for look in (before, now):
        look.services[0].clusters[0].ClearField("members")
        look.services[0].clusters[0].ClearField("in_flight")
    assert "db0            0" in show_load(Span(before, now))
    assert "CLUSTER  MEMBERS" not in show_load(Span(now, load_again(now)))


def load_again(now: pb.Load) -> pb.Load:
    later = pb.Load()
    later.CopyFrom(now)
    later.at += 1
    return later


@pytest.mark.parametrize("height", [24, 30, 40])
def test_what_does_not_fit_gives_way_busiest_last(height):
    text = show_load(Span(load(1.0, 50), load(2.0, 50, times=2)), height)
    assert len(text.splitlines()) <= height
    assert "... and " in text
    called = text.split("\n\n")[1]
    numbers = [int(line.split()[0].removeprefix("db")) for line in called.splitlines() if line.startswith("db")]
    assert numbers == list(range(50 - len(numbers), 50))


def test_what_the_daemon_left_out_is_counted():
    now = load(2.0)
    now.services[0].cluster_count = 1000
    now.services[0].member_count = 300
    text = show_load(Span(None, now))
    assert "... and 999 more" in text
    assert "... and 297 more" in text


@pytest.mark.parametrize(
    ("line", "columns", "shown"),
    [
        ("short", 10, "short"),
        ("too long", 3, "too"),
        ("\x1b[1mbold\x1b[0m and more", 6, "\x1b[1mbold\x1b[0m a"),
        ("\x1b[31mred", 2, "\x1b[31mre\x1b[0m"),
        ("日本", 3, "日"),
        ("abc", 3, "abc"),
    ],
)
def test_a_line_is_cut_where_the_screen_ends(line, columns, shown):
    assert clip(line, columns) == shown


def test_a_screen_is_left_as_it_was_found(monkeypatch):
    monkeypatch.setenv("COLUMNS", "5")
    monkeypatch.setenv("LINES", "2")
    stream = io.StringIO()
    with pytest.raises(KeyError), Screen(stream) as screen:
        screen.draw("one line\ntwo\nthree")
        assert screen.height == 2
        raise KeyError
    assert stream.getvalue() == f"{ENTER}{HOME}one l\x1b[K\r\ntwo\x1b[K{REST}{LEAVE}"
