"""Two looks, and what happened in between."""

from __future__ import annotations

import json

import pytest

from iris_client.cli.rates import Rates, Span, load_json, percentile, rates
from iris_proto.v1 import control_pb2 as pb

BOUNDS = [0.1, 0.2, 0.4]


def tally(answered: int = 0, failed: int = 0, *took: int) -> pb.Tally:
    return pb.Tally(answered=answered, failed=failed, took=took)


def load(at: float, *, node: str = "aa", called: pb.Tally | None = None, drops: int = 0) -> pb.Load:
    cluster = pb.ClusterLoad(name="db", members=2, nodes=1, called=called or pb.Tally())
    service = pb.ServiceLoad(service="shop", node=node, clusters=[cluster], cluster_count=1, drops={"too-large": drops})
    return pb.Load(host="oak", at=at, bounds=BOUNDS, services=[service])


@pytest.mark.parametrize(
    ("took", "share", "seconds"),
    [
        ([], 0.5, None),
        ([0, 0], 0.5, None),
        ([0, 4], 0.5, pytest.approx(0.1414, abs=1e-4)),
        ([0, 4], 1.0, pytest.approx(0.2)),
        ([1], 1.0, pytest.approx(0.1)),
        ([50, 49, 1], 0.5, pytest.approx(0.1)),
        ([50, 49, 1], 0.99, pytest.approx(0.2)),
        ([0, 0, 0, 5], 0.5, 0.4),
        ([1, 0, 0, 99], 0.99, 0.4),
    ],
)
def test_percentiles_lie_within_their_bucket(took, share, seconds):
    assert percentile(took, BOUNDS, share) == seconds


def test_rates_are_of_the_time_in_between():
    found = rates(tally(10, 5, 3), tally(30, 7, 3, 4), BOUNDS, 2.0)
    assert (found.calls, found.failed) == (11.0, 1.0)
    assert found.p50 == pytest.approx(0.1414, abs=1e-4)


def test_one_look_says_nothing():
    assert rates(None, tally(10), BOUNDS, 1.0) == Rates()
    assert rates(tally(), tally(10), BOUNDS, 0.0) == Rates()


def test_a_count_that_began_anew():
    assert rates(tally(100, 0, 100), tally(3, 0, 3), BOUNDS, 1.0).calls == 3.0


def test_a_daemon_that_began_anew_is_not_compared_with_the_one_before():
    span = Span(load(1.0, called=tally(5)), load(2.0, node="bb", called=tally(9)))
    [service] = span.now.services
    assert span.called(service, service.clusters[0]) == Rates()
    assert span.drops(service) == [("too-large", 0, None)]


def test_a_cluster_that_was_not_there_before_counts_from_nothing():
    before = load(1.0)
    del before.services[0].clusters[:]
    span = Span(before, load(2.0, called=tally(9)))
    [service] = span.now.services
    assert span.called(service, service.clusters[0]).calls == 9.0


def test_drops_by_the_second():
    span = Span(load(1.0, drops=3), load(3.0, drops=9))
    assert span.drops(span.now.services[0]) == [("too-large", 9, 3.0)]


def test_for_programs():
    told = load_json(Span(load(1.0), load(2.0, called=tally(2, 1, 3), drops=4)))
    json.dumps(told, allow_nan=False)
    [service] = told["services"]
    [cluster] = service["clusters"]
    assert cluster["called"] == {
        "in_flight": 0,
        "answered": 2,
        "failed": 1,
        "calls_per_second": 3.0,
        "failures_per_second": 1.0,
        "p50": pytest.approx(0.070711),
        "p99": pytest.approx(0.099309),
    }
    assert cluster["served"]["p99"] is None
    assert service["drops"] == [{"reason": "too-large", "count": 4, "per_second": 4.0}]
    first = load_json(Span(None, load(2.0)))
    assert first["services"][0]["clusters"][0]["called"]["calls_per_second"] is None
