"""Discovery's rows as the messages of the Control service."""

from __future__ import annotations

from iris_proto.v1 import control_pb2 as pb
from irisd.status import CandidateRow, DiscoveryInfo, HeardRow, MulticastInfo, ServiceDiscovery


def discovery_message(info: DiscoveryInfo) -> pb.Discovery:
    """How a daemon looks for peers, as the message that travels."""
    return pb.Discovery(
        multicast=_multicast(info.multicast),
        state_file=info.state_file,
        state_problem=info.state_problem,
        heard=[_heard(row) for row in info.heard],
        services=[_service(row) for row in info.services],
        conditions=[pb.Condition(name=row.name, detail=row.detail) for row in info.conditions],
    )


def _multicast(info: MulticastInfo) -> pb.Multicast:
    return pb.Multicast(
        state=info.state,
        detail=info.detail,
        service_type=info.service_type,
        groups=info.groups,
        interfaces=[pb.Interface(name=row.name, addresses=row.addresses) for row in info.interfaces],
        counters=dict(info.counters),
    )


def _heard(row: HeardRow) -> pb.Heard:
    return pb.Heard(
        node=row.node,
        service=row.service,
        verdict=row.verdict,
        addresses=row.addresses,
        count=row.count,
        ago=row.ago,
    )


def _service(row: ServiceDiscovery) -> pb.ServiceDiscovery:
    return pb.ServiceDiscovery(
        service=row.service,
        node=row.node,
        advertised=row.advertised,
        advertised_because=row.advertised_because,
        seeds=[pb.Seed(seed=seed.seed, addresses=seed.addresses, problem=seed.problem) for seed in row.seeds],
        candidates=[_candidate(candidate) for candidate in row.candidates],
        known=row.known,
        remembered=row.remembered,
        counters=dict(row.counters),
    )


def _candidate(row: CandidateRow) -> pb.Candidate:
    return pb.Candidate(
        node=row.node,
        source=row.source,
        addresses=row.addresses,
        linked=row.linked,
        attempts=row.attempts,
        outcome=row.outcome,
        detail=row.detail,
        ago=row.ago,
        heard=row.heard,
        next_dial=row.next_dial,
    )
