"""The Control service: questions about the daemon, answered from plain rows. Read-only.

A listener that offers only some services answers for those only: what it does
not offer does not exist there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

import grpc
import grpc.aio

from iris_proto.v1 import control_pb2 as pb
from iris_proto.v1 import control_pb2_grpc
from irisd.attach.attachment import abort
from irisd.attach.describe import discovery_message
from irisd.attach.seeing import asked, load_message, trace_message
from irisd.status import (
    ClusterRow,
    DiscoveryInfo,
    LoadInfo,
    NodeRow,
    ServiceInfo,
    StatusInfo,
    TopicRow,
    TraceAsked,
    TraceInfo,
)


class ControlSource(Protocol):
    """Where the answers come from. ``service`` is one the daemon holds a key for, or empty for all of them."""

    def services(self) -> Iterable[str]:
        """Name the services the daemon holds a key for."""

    def status(self) -> StatusInfo:
        """Describe the daemon."""

    def nodes(self, service: str) -> Iterable[NodeRow]:
        """List the nodes of a service."""

    def clusters(self, service: str) -> Iterable[ClusterRow]:
        """List the clusters known anywhere in a service."""

    def topics(self, service: str) -> Iterable[TopicRow]:
        """List the topic filters somebody subscribes to."""

    def discovery(self) -> DiscoveryInfo:
        """Describe how the daemon looks for peers."""

    def load(self) -> LoadInfo:
        """Describe what the daemon has to do now."""

    async def trace(self, service: str, asked: TraceAsked) -> TraceInfo:
        """Find out what would happen to a call in a service the daemon holds a key for."""


_Context = grpc.aio.ServicerContext[Any, Any]


class ControlService(control_pb2_grpc.ControlServicer):
    """gRPC's side of a :class:`ControlSource`, for one listener.

    Args:
        source: Where the answers come from.
        services: What the listener offers; empty for everything.
    """

    def __init__(self, source: ControlSource, services: frozenset[str]) -> None:
        self._source = source
        self._services = services

    async def GetStatus(self, request: pb.GetStatusRequest, context: _Context) -> pb.Status:
        status = self._source.status()
        return status_message(replace(status, services=tuple(s for s in status.services if self._offers(s.service))))

    async def ListNodes(self, request: pb.ListRequest, context: _Context) -> pb.NodeList:
        service = await self._asked(request.service, context)
        return pb.NodeList(
            nodes=[node_message(row) for row in self._source.nodes(service) if self._offers(row.service)]
        )

    async def ListClusters(self, request: pb.ListRequest, context: _Context) -> pb.ClusterList:
        service = await self._asked(request.service, context)
        rows = self._source.clusters(service)
        return pb.ClusterList(clusters=[cluster_message(row) for row in rows if self._offers(row.service)])

    async def ListTopics(self, request: pb.ListRequest, context: _Context) -> pb.TopicList:
        service = await self._asked(request.service, context)
        rows = self._source.topics(service)
        return pb.TopicList(topics=[topic_message(row) for row in rows if self._offers(row.service)])

    async def GetDiscovery(self, request: pb.ListRequest, context: _Context) -> pb.Discovery:
        chosen = await self._asked(request.service, context)

        def shown(service: str) -> bool:
            return self._offers(service) and chosen in ("", service)

        info = self._source.discovery()
        return discovery_message(
            replace(
                info,
                heard=tuple(row for row in info.heard if not row.service or shown(row.service)),
                services=tuple(row for row in info.services if shown(row.service)),
            )
        )

    async def GetLoad(self, request: pb.ListRequest, context: _Context) -> pb.Load:
        service = await self._asked(request.service, context)
        info = self._source.load()
        rows = (row for row in info.services if self._offers(row.service) and service in ("", row.service))
        return load_message(replace(info, services=tuple(rows)))

    async def TraceCall(self, request: pb.TraceRequest, context: _Context) -> pb.Trace:
        service = await self._asked(request.service, context)
        if not service:
            offered = self._offered()
            if len(offered) != 1:
                here = ", ".join(offered) or "none"
                await abort(context, grpc.StatusCode.NOT_FOUND, f"which service? There is: {here}")
            [service] = offered
        return trace_message(await self._source.trace(service, asked(request)))

    def _offers(self, service: str) -> bool:
        return not self._services or service in self._services

    def _offered(self) -> list[str]:
        return sorted(service for service in self._source.services() if self._offers(service))

    async def _asked(self, service: str, context: _Context) -> str:
        """The service asked about; aborts the call when there is no such service here."""
        offered = self._offered()
        if service and service not in offered:
            here = ", ".join(offered) or "none"
            await abort(context, grpc.StatusCode.NOT_FOUND, f"no service {service[:200]!r} here; there is: {here}")
        return service


def status_message(info: StatusInfo) -> pb.Status:
    """A daemon's status as the message that travels."""
    return pb.Status(
        version=info.version,
        pid=info.pid,
        uptime=info.uptime,
        host=info.host,
        listeners=[pb.Listener(purpose=row.purpose, address=row.address) for row in info.listeners],
        services=[service_message(row) for row in info.services],
        draining=info.draining,
        memory=info.memory,
        conditions=[pb.Condition(name=row.name, detail=row.detail) for row in info.conditions],
    )


def service_message(info: ServiceInfo) -> pb.ServiceStatus:
    """A node's numbers as the message that travels."""
    return pb.ServiceStatus(
        service=info.service,
        key=info.key,
        node=info.node,
        peers=info.peers,
        attachments=info.attachments,
        clusters=info.clusters,
        subscriptions=info.subscriptions,
        pending=info.pending,
        queued=info.queued,
        counters=dict(info.counters),
        local_attachments=info.local_attachments,
    )


def node_message(row: NodeRow) -> pb.Node:
    """A node's row as the message that travels."""
    return pb.Node(
        service=row.service,
        node=row.node,
        name=row.name,
        state=row.state,
        address=row.address,
        since=row.since,
        incarnation=row.incarnation,
        version=row.version,
        round_trip=row.round_trip,
        linked=row.linked,
        heard=row.heard,
        heard_by=row.heard_by,
        health=row.health,
        draining=row.draining,
    )


def cluster_message(row: ClusterRow) -> pb.Cluster:
    """A cluster's row as the message that travels."""
    nodes = [
        pb.ClusterNode(node=part.node, name=part.name, members=part.members, outstanding=part.outstanding)
        for part in row.nodes
    ]
    return pb.Cluster(service=row.service, name=row.name, members=row.members, nodes=nodes, patterns=row.patterns)


def topic_message(row: TopicRow) -> pb.Topic:
    """A topic's row as the message that travels."""
    return pb.Topic(
        service=row.service, filter=row.filter, group=row.group, subscribers=row.subscribers, nodes=row.nodes
    )
