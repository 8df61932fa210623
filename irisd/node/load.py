"""What a node has to do now, described: calls, members, queues and drops. Whoever looks twice knows the rates."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from irisd.model import KiB
from irisd.node.describe import DROPPED
from irisd.node.endpoints import App, Endpoint, Peer
from irisd.node.node import Node
from irisd.router import Tally
from irisd.status import ClusterLoad, MemberLoad, QueueLoad, ServiceLoad, TallyRow

MOST: Final = 256
"""Rows of a kind that are shown; those with most to do."""

QUEUE_SHOWN: Final = 64 * KiB
"""Bytes above which a queue is shown."""

_NONE: Final[Mapping[str, int]] = MappingProxyType({})


def service_load(node: Node, now: float, drops: Mapping[str, int] = _NONE) -> ServiceLoad:
    """The node's load.

    Args:
        node: Whose.
        now: Monotonic seconds.
        drops: What its edges dropped, by reason.
    """
    core = node.core
    own = {name.removeprefix(DROPPED): n for name, n in core.counters.items() if name.startswith(DROPPED) and n}
    endpoints: list[Endpoint] = [*core.apps.values(), *core.peers.values()]
    held = {endpoint: endpoint.outbox.bytes + endpoint.outbox.urgent_bytes for endpoint in endpoints}
    clusters, members = _clusters(node), _members(node, now)
    queues = sorted((item for item in held.items() if item[1] > QUEUE_SHOWN), key=lambda item: -item[1])
    return ServiceLoad(
        core.identity.service,
        node=core.identity.node_id.hex(),
        nodes=len(node.membership.view.present),
        links=sum(peer.linked for peer in core.peers.values()),
        attachments=len(core.apps),
        pending=node.under_way,
        queued=sum(held.values()),
        clusters=tuple(sorted(clusters[:MOST], key=lambda row: row.name)),
        cluster_count=len(clusters),
        members=tuple(sorted(members[:MOST], key=lambda row: (row.cluster, row.name))),
        member_count=len(members),
        queues=tuple(_queue(endpoint, size) for endpoint, size in queues[:MOST]),
        queue_count=len(queues),
        drops={**own, **drops},
    )


def _clusters(node: Node) -> list[ClusterLoad]:
    """Every cluster somebody serves, or an app here calls in vain; those with most calls first."""
    core, members = node.core, node.calls.members
    serving = dict(core.registry.clusters())
    called, groups = dict(node.calls.places.called()), dict(members.clusters())
    rows = []
    for name in serving.keys() | called.keys() | groups.keys():
        claims = serving.get(name, {}).values()
        nodes, group = called.get(name), groups.get(name)
        rows.append(
            ClusterLoad(
                name,
                members=sum(claim.members for claim in claims),
                nodes=len(claims),
                ejected=sum(claim.ejected for claim in claims),
                in_flight=sum(place.outstanding for place in nodes.places.values()) if nodes is not None else 0,
                called=_tally(nodes.tally if nodes is not None else None),
                here=len(group.members) if group is not None else 0,
                at_work=group.under_way if group is not None else 0,
                waiting=len(group.waiting) if group is not None else 0,
                served=_tally(group.tally if group is not None else None),
            )
        )
    rows.sort(key=_calls_of, reverse=True)
    return rows


def _calls_of(row: ClusterLoad) -> int:
    called, served = row.called, row.served
    return called.answered + called.failed + served.answered + served.failed + row.in_flight + row.at_work + row.waiting


def _tally(tally: Tally | None) -> TallyRow:
    if tally is None:
        return TallyRow()
    last = max((at for at, count in enumerate(tally.took) if count), default=-1)
    return TallyRow(tally.answered, tally.failed, tuple(tally.took[: last + 1]))


def _members(node: Node, now: float) -> list[MemberLoad]:
    """The members of this node; first those that are given nothing, then those with most to do."""
    rows = [
        MemberLoad(
            cluster,
            member.app.member_name,
            at_work=member.outstanding,
            concurrency=member.concurrency,
            level=member.level,
            pace=member.pace(now),
            failing=member.fails(now),
            ejected=member.out,
            on_trial=member.on_trial,
        )
        for cluster, group in node.calls.members.clusters()
        for member in group.members
    ]
    rows.sort(key=lambda row: (row.ejected or row.on_trial, row.at_work), reverse=True)
    return rows


def _queue(endpoint: Endpoint, size: int) -> QueueLoad:
    if isinstance(endpoint, Peer):
        return QueueLoad("node", endpoint.info.name, size, endpoint.outbox.frames)
    name = endpoint.member_name if isinstance(endpoint, App) else ""
    return QueueLoad("app", name, size, endpoint.outbox.frames)
