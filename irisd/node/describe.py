"""A node described: rows for whoever asks what it believes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from irisd.membership import Known
from irisd.model import LARGE, State
from irisd.node.node import Node
from irisd.status import ClusterNodeRow, ClusterRow, Condition, NodeRow, ServiceInfo, TopicRow

MAX_GONE_SHOWN = 64
"""Most nodes that are dead or have left in the list; those that went last."""

DROPPED: Final = "dropped."
"""What the counters of drops begin with; the reason follows."""

_NONE: Final[Mapping[str, int]] = MappingProxyType({})


def service_info(node: Node, key_id: str, drops: Mapping[str, int] = _NONE) -> ServiceInfo:
    """The node's numbers.

    Args:
        node: Whose.
        key_id: Names its key, in hexadecimal; never the key.
        drops: What its edges dropped, by reason.
    """
    core = node.core
    endpoints = [*core.apps.values(), *core.peers.values()]
    return ServiceInfo(
        service=core.identity.service,
        key=key_id,
        node=core.identity.node_id.hex(),
        peers=sum(peer.linked for peer in core.peers.values()),
        attachments=len(core.apps),
        clusters=len(core.registry.clusters()),
        subscriptions=sum(len(app.subscriptions) for app in core.apps.values()),
        pending=node.under_way,
        queued=sum(endpoint.outbox.bytes + endpoint.outbox.urgent_bytes for endpoint in endpoints),
        counters={**core.counters, **{f"{DROPPED}{reason}": count for reason, count in drops.items()}},
    )


def node_rows(node: Node, now: float, started: float) -> list[NodeRow]:
    """This node, then all others that are known, by name; those that are gone last.

    ``now`` and ``started`` are monotonic seconds.
    """
    identity, membership = node.identity, node.membership
    view = membership.view
    own = view.present[view.own].record
    rows = [
        NodeRow(
            identity.service,
            identity.node_id.hex(),
            identity.name,
            "self",
            address=own.addresses[0] if own.addresses else "",
            since=now - started,
            incarnation=own.incarnation,
            version=identity.version,
            health=membership.health.score,
            draining=own.draining,
        )
    ]
    others = [known for node_id, known in view.present.items() if node_id != view.own]
    others.sort(key=lambda known: (known.record.name, known.record.node_id))
    gone = list(view.gone.values())[-MAX_GONE_SHOWN:]
    return rows + [_node_row(node, known, now) for known in (*others, *reversed(gone))]


def _node_row(node: Node, known: Known, now: float) -> NodeRow:
    membership, record = node.membership, known.record
    peer = node.core.peers.get(record.node_id)
    pulse = membership.heart.pulses.get(record.node_id)
    linked = peer is not None and peer.linked
    heard = now - known.heard
    if pulse is not None:
        heard = max(0.0, membership.health.awake(now) - pulse.heard)
    by = membership.view.known(known.heard_by)
    address = peer.info.address if peer is not None and linked else ""
    return NodeRow(
        node.identity.service,
        record.node_id.hex(),
        record.name,
        known.state.name.lower(),
        address=address or (record.addresses[0] if record.addresses else ""),
        since=now - known.since,
        incarnation=record.incarnation,
        version=record.release,
        round_trip=(pulse.rtt or 0.0) if pulse is not None else 0.0,
        linked=linked,
        heard=heard,
        heard_by=by.record.name if by is not None else "",
        health=pulse.health if pulse is not None else 0,
        draining=record.draining,
    )


def conditions(node: Node, now: float) -> list[Condition]:
    """What an operator should know of this node's view."""
    membership, service = node.membership, node.identity.service
    found = []
    stalls, longest = membership.health.stalls(now)
    if stalls:
        times = "once" if stalls == 1 else f"{stalls} times"
        detail = f"{service}: the event loop was held up {times} in the last minute, for {longest:.2f} s at most"
        found.append(Condition("slow-loop", f"{detail}; something else takes the processor, or it was stopped"))
    there = [known.record.name for known in membership.view.present.values() if known.state < State.SUSPECT]
    twice = sorted(name for name, times in Counter(there).items() if times > 1)
    if twice:
        found.append(
            Condition("duplicate-name", f"{service}: several nodes are called {', '.join(twice[:5])}; set `name`")
        )
    return found


def cluster_rows(node: Node) -> list[ClusterRow]:
    """Every cluster that can be reached, with its members by node."""
    core = node.core
    own = core.identity.node_id
    rows = []
    for cluster, serving in core.registry.clusters():
        patterns = 0
        nodes = []
        for node_id, claim in serving.items():
            patterns |= claim.patterns & ~LARGE
            if node_id == own:
                name = core.identity.name
                outstanding = sum(member.outstanding for member in node.calls.members.of(cluster))
            else:
                name = node.membership.view.present[node_id].record.name
                outstanding = node.calls.places.outstanding(cluster, node_id)
            nodes.append(ClusterNodeRow(node_id.hex(), name, claim.members, outstanding))
        nodes.sort(key=lambda row: (row.name, row.node))
        members = sum(row.members for row in nodes)
        rows.append(ClusterRow(core.identity.service, cluster, members, tuple(nodes), patterns))
    return rows


def topic_rows(node: Node) -> list[TopicRow]:
    """Every (filter, group) somebody subscribes to."""
    service = node.identity.service
    topics = sorted(node.core.registry.topics().items())
    return [TopicRow(service, filter, group, sum(nodes.values()), len(nodes)) for (filter, group), nodes in topics]
