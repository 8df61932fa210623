"""A node described: rows for whoever asks what it believes."""

from __future__ import annotations

from irisd.node.node import Node
from irisd.status import ClusterNodeRow, ClusterRow, NodeRow, ServiceInfo, TopicRow


def service_info(node: Node, key_id: str) -> ServiceInfo:
    """The node's numbers. ``key_id`` names its key, in hexadecimal; never the key."""
    core = node.core
    endpoints = [*core.apps.values(), *core.peers.values()]
    return ServiceInfo(
        service=core.identity.service,
        key=key_id,
        node=core.identity.node_id.hex(),
        peers=len(core.peers),
        attachments=len(core.apps),
        clusters=len(core.registry.clusters()),
        subscriptions=sum(len(app.subscriptions) for app in core.apps.values()),
        pending=node.under_way,
        queued=sum(endpoint.outbox.bytes + endpoint.outbox.urgent_bytes for endpoint in endpoints),
        counters=dict(core.counters),
    )


def node_rows(node: Node, now: float, started: float) -> list[NodeRow]:
    """This node, then its peers by name. ``now`` and ``started`` are monotonic seconds."""
    core = node.core
    identity = core.identity
    own = NodeRow(
        identity.service, identity.node_id.hex(), identity.name, "self", since=now - started, version=identity.version
    )
    peers = [
        NodeRow(
            identity.service,
            peer.id.hex(),
            peer.info.name,
            "alive",
            address=peer.info.address,
            since=now - peer.since,
            incarnation=peer.info.incarnation,
        )
        for peer in core.peers.values()
    ]
    return [own, *sorted(peers, key=lambda row: (row.name, row.node))]


def cluster_rows(node: Node) -> list[ClusterRow]:
    """Every cluster that can be reached, with its members by node."""
    core = node.core
    own = core.identity.node_id
    rows = []
    for cluster, serving in core.registry.clusters():
        patterns = 0
        nodes = []
        for node_id, claim in serving.items():
            patterns |= claim.patterns
            if node_id == own:
                name, outstanding = core.identity.name, node.outstanding(cluster)
            else:
                peer = core.peers[node_id]
                name, outstanding = peer.info.name, peer.outstanding.get(cluster, 0)
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
