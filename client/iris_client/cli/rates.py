"""Two looks at a daemon's load, and what happened in between (pure).

A daemon counts, and its counts only grow; a count that is lower than before
began anew. Rates and percentiles are worked out here, by whoever looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iris_proto.v1 import control_pb2 as pb


@dataclass(frozen=True, slots=True)
class Rates:
    """Calls of one cluster, from one side; None where there was nothing to see.

    Attributes:
        calls: That ended, a second.
        failed: That ended with an error, a second; among ``calls``.
        p50: Seconds within which half of the requests were over.
        p99: The same of 99 in a hundred.
    """

    calls: float | None = None
    failed: float | None = None
    p50: float | None = None
    p99: float | None = None


def rates(before: pb.Tally | None, now: pb.Tally, bounds: Sequence[float], seconds: float) -> Rates:
    """What happened in ``seconds``; nothing can be said without a look ``before``."""
    if before is None or seconds <= 0:
        return Rates()
    if now.answered < before.answered or now.failed < before.failed or sum(now.took) < sum(before.took):
        before = pb.Tally()
    answered, failed = now.answered - before.answered, now.failed - before.failed
    took = [count - (before.took[at] if at < len(before.took) else 0) for at, count in enumerate(now.took)]
    return Rates(
        (answered + failed) / seconds, failed / seconds, percentile(took, bounds, 0.5), percentile(took, bounds, 0.99)
    )


def percentile(took: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """Seconds within which a share of the calls was over, as near as the buckets tell; None without calls."""
    total = sum(took)
    if not total:
        return None
    wanted, passed = share * total, 0
    for at, count in enumerate(took):
        if count and passed + count >= wanted:
            if at >= len(bounds):
                break
            upper = bounds[at]
            lower = bounds[at - 1] if at else upper / 2
            return float(lower * (upper / lower) ** ((wanted - passed) / count))
        passed += count
    return bounds[-1] if bounds else None


class Span:
    """What happened between two looks.

    Args:
        before: The earlier one; None if there is none.
        now: The later one.
    """

    def __init__(self, before: pb.Load | None, now: pb.Load) -> None:
        self.now = now
        self.seconds = now.at - before.at if before is not None else 0.0
        nodes = {row.node for row in now.services}
        earlier = before.services if before is not None and self.seconds > 0 else ()
        self._before = {row.service: row for row in earlier if row.node in nodes}  # else the daemon began anew
        self._clusters = {
            (row.service, cluster.name): cluster for row in self._before.values() for cluster in row.clusters
        }

    def called(self, service: pb.ServiceLoad, cluster: pb.ClusterLoad) -> Rates:
        """The calls of the daemon's apps."""
        before = self._cluster(service, cluster)
        return rates(before.called if before else None, cluster.called, self.now.bounds, self.seconds)

    def served(self, service: pb.ServiceLoad, cluster: pb.ClusterLoad) -> Rates:
        """The calls that the daemon's members had."""
        before = self._cluster(service, cluster)
        return rates(before.served if before else None, cluster.served, self.now.bounds, self.seconds)

    def drops(self, service: pb.ServiceLoad) -> list[tuple[str, int, float | None]]:
        """Each reason with its count, and how many a second there were."""
        before = self._before.get(service.service)
        return [
            (reason, count, max(0, count - before.drops[reason]) / self.seconds if before is not None else None)
            for reason, count in sorted(service.drops.items())
        ]

    def _cluster(self, service: pb.ServiceLoad, cluster: pb.ClusterLoad) -> pb.ClusterLoad | None:
        """The cluster as it was; nothing of one that was not there before counts, if anything was seen before."""
        if service.service not in self._before:
            return None
        return self._clusters.get((service.service, cluster.name)) or pb.ClusterLoad()


def load_json(span: Span) -> dict[str, Any]:
    """For programs: one look, with what happened since the last."""
    now = span.now
    return {
        "host": now.host,
        "version": now.version,
        "uptime": now.uptime,
        "seconds": round(span.seconds, 6),
        "memory": now.memory,
        "draining": now.draining,
        "services": [_service_json(span, service) for service in now.services],
    }


def _service_json(span: Span, service: pb.ServiceLoad) -> dict[str, Any]:
    return {
        "service": service.service,
        "node": service.node,
        "nodes": service.nodes,
        "links": service.links,
        "attachments": service.attachments,
        "pending": service.pending,
        "queued": service.queued,
        "clusters": [
            {
                "cluster": row.name,
                "members": row.members,
                "nodes": row.nodes,
                "ejected": row.ejected,
                "called": {"in_flight": row.in_flight} | _rates_json(span.called(service, row), row.called),
                "served": {"members": row.here, "at_work": row.at_work, "waiting": row.waiting}
                | _rates_json(span.served(service, row), row.served),
            }
            for row in service.clusters
        ],
        "cluster_count": service.cluster_count,
        "members": [
            {
                "cluster": row.cluster,
                "member": row.name,
                "at_work": row.at_work,
                "concurrency": row.concurrency,
                "level": row.level,
                "pace": round(row.pace, 6) or None,
                "failing": round(row.failing, 4),
                "ejected": row.ejected,
                "on_trial": row.on_trial,
            }
            for row in service.members
        ],
        "member_count": service.member_count,
        "queues": [
            {"to": row.to, "name": row.name, "bytes": row.bytes, "frames": row.frames} for row in service.queues
        ],
        "queue_count": service.queue_count,
        "drops": [
            {"reason": reason, "count": count, "per_second": _rounded(rate)}
            for reason, count, rate in span.drops(service)
        ],
    }


def _rates_json(found: Rates, tally: pb.Tally) -> dict[str, Any]:
    return {
        "answered": tally.answered,
        "failed": tally.failed,
        "calls_per_second": _rounded(found.calls),
        "failures_per_second": _rounded(found.failed),
        "p50": _rounded(found.p50),
        "p99": _rounded(found.p99),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
