"""A daemon's answers about itself, for people and for programs (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from iris_client._model import Pattern
from iris_client.cli.output import Cell, style, table
from iris_client.cli.values import printable, show_size, show_time
from iris_proto.v1 import control_pb2 as pb

ID_SHOWN: Final = 8  # hexadecimal digits of an id that people can tell apart
DROPPED: Final = "dropped."
STATE_COLOURS = {"alive": "green", "self": "green", "joining": "yellow", "suspect": "yellow", "dead": "red"}


# ------------------------------------------------------------------- for people


def show_status(status: pb.Status) -> str:
    """The daemon, its listeners and services, what an operator should know, and what was dropped."""
    facts = [f"irisd {status.version}", f"process {status.pid}", f"up {show_time(status.uptime)}"]
    if status.memory:
        facts.append(show_size(status.memory))
    if status.draining:
        facts.append("draining")
    parts = [f"{style(printable(status.host), 'bold')}: {printable(', '.join(facts))}"]
    if status.listeners:
        parts.append(table(("LISTENS FOR", "AT"), [(row.purpose, row.address) for row in status.listeners]))
    parts.append(_services(status.services) if status.services else "no service: the daemon holds no key")
    if status.conditions:
        parts.append(
            table(("CONDITION", "WHAT IT MEANS"), [(Cell(c.name, "yellow"), c.detail) for c in status.conditions])
        )
    drops = [
        (service.service, name.removeprefix(DROPPED), count)
        for service in status.services
        for name, count in sorted(service.counters.items())
        if name.startswith(DROPPED) and count
    ]
    if drops:
        parts.append(table(("SERVICE", "DROPPED BECAUSE", "COUNT"), drops))
    return "\n\n".join(parts)


def show_counters(status: pb.Status) -> str:
    """Every counter of every service."""
    rows = [(s.service, name, count) for s in status.services for name, count in sorted(s.counters.items())]
    return table(("SERVICE", "COUNTER", "COUNT"), rows)


def _services(services: Iterable[pb.ServiceStatus]) -> str:
    titles = ("SERVICE", "KEY", "NODE", "PEERS", "APPS", "ON LANE", "CLUSTERS", "SUBSCRIPTIONS", "PENDING", "QUEUED")
    rows = [
        (
            row.service,
            row.key[:ID_SHOWN],
            row.node[:ID_SHOWN],
            row.peers,
            row.attachments,
            row.local_attachments,
            row.clusters,
            row.subscriptions,
            row.pending,
            show_size(row.queued),
        )
        for row in services
    ]
    return table(titles, rows)


def show_nodes(nodes: Sequence[pb.Node]) -> str:
    """The nodes of each service: how sure we are of them, who heard them when, how far and where they are."""
    if not nodes:
        return "no nodes"
    rows = [
        (
            row.name,
            Cell(row.state, STATE_COLOURS.get(row.state, "")),
            show_time(row.since),
            heard(row),
            show_time(row.round_trip) if row.round_trip else "-",
            row.address or "-",
            row.node[:ID_SHOWN],
            row.version or "-",
            ", ".join(_remarks(row)) or "-",
        )
        for row in nodes
    ]
    titles = ("NODE", "STATE", "FOR", "HEARD", "ROUND TRIP", "ADDRESS", "ID", "VERSION", "REMARKS")
    return _with_service(titles, rows, [row.service for row in nodes])


def heard(node: pb.Node) -> str:
    """When a node was last heard, and by whom."""
    return f"{show_time(node.heard)} ago by {node.heard_by}" if node.heard_by else "-"


def slow(node: pb.Node) -> str:
    """How slow a node says that it is; empty: it is well."""
    return f"slow ({node.health} of 8)" if node.health else ""


def _remarks(node: pb.Node) -> list[str]:
    remarks = ["draining"] if node.draining else []
    if node.health:
        remarks.append(slow(node))
    if not node.linked and node.heard_by and node.state in ("alive", "suspect"):
        remarks.append("no link")
    return remarks


def show_clusters(clusters: Sequence[pb.Cluster]) -> str:
    """The clusters of each service: how many members on which node, and what they handle."""
    if not clusters:
        return "no clusters: nobody serves a name (iris serve NAME -- COMMAND does)"
    rows = [
        (
            row.name,
            row.members,
            ", ".join(pattern_names(row.patterns)) or "-",
            ", ".join(f"{part.name} {part.members}" for part in row.nodes) or "-",
            sum(part.outstanding for part in row.nodes),
        )
        for row in clusters
    ]
    titles = ("CLUSTER", "MEMBERS", "HANDLES", "ON", "UNDER WAY")
    return _with_service(titles, rows, [row.service for row in clusters])


def show_topics(topics: Sequence[pb.Topic]) -> str:
    """The topic filters somebody subscribes to."""
    if not topics:
        return "no subscriptions"
    rows = [(row.filter, row.group or "-", row.subscribers, row.nodes) for row in topics]
    return _with_service(("FILTER", "GROUP", "SUBSCRIBERS", "NODES"), rows, [row.service for row in topics])


def _with_service(titles: Sequence[str], rows: Sequence[Sequence[object]], services: Sequence[str]) -> str:
    """A table, with a column for the service when there are several to tell apart."""
    if len(set(services)) < 2:
        return table(titles, rows)
    return table(
        ("SERVICE", *titles), [(service, *row) for service, row in sorted(zip(services, rows, strict=True), key=_first)]
    )


def _first(row: tuple[str, Sequence[object]]) -> str:
    return row[0]


def pattern_names(bits: int) -> list[str]:
    """The patterns in ``bits``, by name; bits of a later release are left out."""
    return [str(pattern.name).lower() for pattern in Pattern if bits & pattern]


# ----------------------------------------------------------------- for programs


def status_json(status: pb.Status) -> dict[str, Any]:
    return {
        "version": status.version,
        "pid": status.pid,
        "uptime": status.uptime,
        "host": status.host,
        "draining": status.draining,
        "memory": status.memory,
        "listeners": [{"purpose": row.purpose, "address": row.address} for row in status.listeners],
        "conditions": [{"name": row.name, "detail": row.detail} for row in status.conditions],
        "services": [
            {
                "service": row.service,
                "key": row.key,
                "node": row.node,
                "peers": row.peers,
                "attachments": row.attachments,
                "local_attachments": row.local_attachments,
                "clusters": row.clusters,
                "subscriptions": row.subscriptions,
                "pending": row.pending,
                "queued": row.queued,
                "counters": dict(sorted(row.counters.items())),
            }
            for row in status.services
        ],
    }


def nodes_json(nodes: Iterable[pb.Node]) -> dict[str, Any]:
    return {
        "nodes": [
            {
                "service": row.service,
                "node": row.node,
                "name": row.name,
                "state": row.state,
                "since": row.since,
                "address": row.address,
                "incarnation": row.incarnation,
                "version": row.version,
                "round_trip": row.round_trip or None,
                "linked": row.linked,
                "heard": row.heard if row.heard_by else None,
                "heard_by": row.heard_by or None,
                "health": row.health,
                "draining": row.draining,
            }
            for row in nodes
        ]
    }


def clusters_json(clusters: Iterable[pb.Cluster]) -> dict[str, Any]:
    return {
        "clusters": [
            {
                "service": row.service,
                "cluster": row.name,
                "members": row.members,
                "patterns": pattern_names(row.patterns),
                "nodes": [
                    {
                        "node": part.node,
                        "name": part.name,
                        "members": part.members,
                        "outstanding": part.outstanding,
                    }
                    for part in row.nodes
                ],
            }
            for row in clusters
        ]
    }


def topics_json(topics: Iterable[pb.Topic]) -> dict[str, Any]:
    return {
        "topics": [
            {
                "service": row.service,
                "filter": row.filter,
                "group": row.group,
                "subscribers": row.subscribers,
                "nodes": row.nodes,
            }
            for row in topics
        ]
    }
