"""A daemon's load, and what would happen to a call, as the messages of the Control service."""

from __future__ import annotations

from iris_proto.v1 import control_pb2 as pb
from irisd.model import Pattern
from irisd.status import (
    ClusterLoad,
    LoadInfo,
    MemberLoad,
    QueueLoad,
    ServiceLoad,
    TallyRow,
    TraceAsked,
    TraceCandidate,
    TraceHop,
    TraceInfo,
)


def load_message(info: LoadInfo) -> pb.Load:
    """A daemon's load as the message that travels."""
    return pb.Load(
        host=info.host,
        version=info.version,
        at=info.at,
        uptime=info.uptime,
        memory=info.memory,
        draining=info.draining,
        bounds=info.bounds,
        services=[_service(row) for row in info.services],
    )


def _service(row: ServiceLoad) -> pb.ServiceLoad:
    return pb.ServiceLoad(
        service=row.service,
        node=row.node,
        nodes=row.nodes,
        links=row.links,
        attachments=row.attachments,
        pending=row.pending,
        queued=row.queued,
        clusters=[_cluster(cluster) for cluster in row.clusters],
        cluster_count=row.cluster_count,
        members=[_member(member) for member in row.members],
        member_count=row.member_count,
        queues=[_queue(queue) for queue in row.queues],
        queue_count=row.queue_count,
        drops=dict(row.drops),
    )


def _tally(row: TallyRow) -> pb.Tally:
    return pb.Tally(answered=row.answered, failed=row.failed, took=row.took)


def _cluster(row: ClusterLoad) -> pb.ClusterLoad:
    return pb.ClusterLoad(
        name=row.name,
        members=row.members,
        nodes=row.nodes,
        ejected=row.ejected,
        in_flight=row.in_flight,
        called=_tally(row.called),
        here=row.here,
        at_work=row.at_work,
        waiting=row.waiting,
        served=_tally(row.served),
    )


def _member(row: MemberLoad) -> pb.MemberLoad:
    return pb.MemberLoad(
        cluster=row.cluster,
        name=row.name,
        at_work=row.at_work,
        concurrency=row.concurrency,
        level=row.level,
        pace=row.pace,
        failing=row.failing,
        ejected=row.ejected,
        on_trial=row.on_trial,
    )


def _queue(row: QueueLoad) -> pb.QueueLoad:
    return pb.QueueLoad(to=row.to, name=row.name, bytes=row.bytes, frames=row.frames)


def asked(request: pb.TraceRequest) -> TraceAsked:
    """What a TraceRequest asks."""
    return TraceAsked(request.cluster, request.pattern or Pattern.REQUEST, request.key, request.balance)


def trace_message(info: TraceInfo) -> pb.Trace:
    """What would happen to a call as the message that travels."""
    return pb.Trace(
        service=info.service, cluster=info.cluster, pattern=info.pattern, hops=[_hop(hop) for hop in info.hops]
    )


def _hop(hop: TraceHop) -> pb.TraceHop:
    return pb.TraceHop(
        name=hop.name,
        node=hop.node,
        among=hop.among,
        policy=hop.policy,
        because=hop.because,
        candidates=[_candidate(row) for row in hop.candidates],
        count=hop.count,
        chosen=hop.chosen,
        why=hop.why,
        waiting=hop.waiting,
        outcome=hop.outcome,
        detail=hop.detail,
        took=hop.took,
    )


def _candidate(row: TraceCandidate) -> pb.TraceCandidate:
    return pb.TraceCandidate(
        name=row.name,
        id=row.id,
        members=row.members,
        out=row.out,
        level=row.level,
        slots=row.slots,
        busy=row.busy,
        pace=row.pace,
        failing=row.failing,
        handles=row.handles,
        first=row.first,
        suspect=row.suspect,
        ejected=row.ejected,
        on_trial=row.on_trial,
        drawn=row.drawn,
        chosen=row.chosen,
        cost=row.cost,
        round_trip=row.round_trip,
        queued=row.queued,
    )
