"""The composition root: builds everything, runs until it is told to stop, drains.

Start: keys, nodes, link listeners, the search for peers, then the attach
listeners (an app that gets in finds a node that knows its peers, or has waited
for them). Stop: nodes drain, what is under way ends, apps and peers are told.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import SystemRandom

import structlog

from irisd import __version__
from irisd.attach import AdminServer, AttachLimits, Attachment, AttachRefused, AttachServer, DrainInfo
from irisd.config import Address, Config
from irisd.daemon.discovering import DiscoveryLinks, tell
from irisd.daemon.draining import Drain
from irisd.daemon.listening import listeners_of
from irisd.daemon.process import FEW_FILES, Signals, raise_open_files, resident_memory, spare_collector
from irisd.daemon.reloading import Read, compare, compare_keys, keyrings
from irisd.daemon.service import Service, log_outcome
from irisd.discovery import Discovery, Presence
from irisd.errors import IrisdError
from irisd.keys import Keyring, ServiceKey
from irisd.link.limits import Limits
from irisd.link.node_links import LinkConfig
from irisd.link.race import Finish
from irisd.link.service import LinkService
from irisd.logs import set_level
from irisd.model import FEATURES, Frame, NodeId, PeerInfo
from irisd.node import Node, NodeIdentity, NodeSettings
from irisd.node.describe import cluster_rows, conditions, node_rows, topic_rows
from irisd.node.load import service_load
from irisd.router import BOUNDS
from irisd.status import (
    ClusterRow,
    Condition,
    DiscoveryInfo,
    ListenerInfo,
    LoadInfo,
    MulticastInfo,
    NodeRow,
    StatusInfo,
    TopicRow,
    TraceAsked,
    TraceInfo,
)
from irisd.transport.memory import keep_freed_memory

STOP_GRACE = 2.0
"""Seconds for apps to be told when everything else has ended."""

ALONE_AFTER = 10.0
"""Seconds after which a daemon that found nobody says so."""

_log = structlog.get_logger("irisd")


OnReady = Callable[[Sequence[ListenerInfo]], None]


def run(
    config: Config, keys: Sequence[ServiceKey], *, on_ready: OnReady | None = None, read: Read | None = None
) -> int:
    """Run a daemon until it is told to stop; return the exit code.

    Args:
        config: Checked settings.
        keys: One or more keys; several of one service make its keyring, the first is active.
        on_ready: Told, once everything is open, what is.
        read: Reads both again, for a reload; without it only the token is.

    Raises:
        IrisdError: It cannot start; the message says what to do.
    """
    raise_open_files()  # before there is a loop, which opens some itself
    daemon = Daemon(config, keys, on_ready=on_ready, read=read)
    spare_collector()
    try:
        import uvloop
    except ImportError:  # not on this platform
        return asyncio.run(daemon.run())
    return uvloop.run(daemon.run())


class Daemon:
    """One process: a node per service, their links, the apps of this host."""

    def __init__(
        self,
        config: Config,
        keys: Sequence[ServiceKey],
        *,
        on_ready: OnReady | None = None,
        read: Read | None = None,
    ) -> None:
        self._config = config
        self._on_ready = on_ready
        self._read = read
        self._keyrings = keyrings(keys)
        self._clock = time.monotonic
        self._began = 0.0
        self._services: dict[str, Service] = {}
        self._of: dict[int, Service] = {}
        self._links: LinkService | None = None
        self._discovery: Discovery | None = None
        self._link_addresses: list[Address] = []
        self._attach: AttachServer | None = None
        self._admin: AdminServer | None = None
        self._signals = Signals(self._hang_up)
        self._open_files = 0
        self._started = False
        self._drain = Drain(config.drain_timeout)

    async def run(self) -> int:
        """Start, serve, drain; return the exit code."""
        with self._signals as signals:
            await self.start()
            try:
                if self._on_ready is not None:
                    self._on_ready(self.status().listeners)
                await signals.stop.wait()
                await self._finish(signals.now)
            finally:
                await self.stop()
        return 0

    # -- starting

    async def start(self) -> None:
        """Open everything.

        Raises:
            IrisdError: Something cannot be opened; what was is closed again.
        """
        config = self._config
        self._began = self._clock()
        self._open_files = raise_open_files()
        keep_freed_memory()
        self._links = LinkService(
            LinkConfig(
                heartbeat_interval=config.heartbeat_interval,
                handshake_timeout=config.handshake_timeout,
                limits=Limits(half_open=config.max_handshakes, half_open_per_host=config.max_handshakes_per_address),
            ),
            observer=log_outcome,
        )
        self._discovery = Discovery(
            config,
            DiscoveryLinks(self._links, self._wants),
            clock=self._clock,
            random=SystemRandom(),
            tell=tell,
            advertised=self._advertised,
        )
        try:
            for name, keyring in self._keyrings.items():
                self._add(name, keyring, self._links)
            bound = [(listener.services, await self._links.start([listener])) for listener in config.listen]
            self._link_addresses = [address for _, addresses in bound for address in addresses]
            await self._look_for_peers(self._discovery, bound)
            self._attach = AttachServer(
                self,
                self,
                listeners_of(config),
                AttachLimits(attachments=config.max_attachments, max_body=config.max_body),
                ids=itertools.count(1),
            )
            await self._attach.start()
            if config.admin_socket:
                self._admin = AdminServer(self, Path(config.admin_socket))
                await self._admin.start()
        except BaseException:
            await self.stop()
            raise
        self._started = True
        _log.info(
            "daemon.started",
            version=__version__,
            name=config.name,
            services=sorted(self._services),
            links=[str(address) for address in self._link_addresses],
            attach=self._attach.urls,
        )
        for condition in self._conditions():
            if condition.name != "no-peers":  # they have only just been looked for
                _log.warning("daemon.condition", name=condition.name, detail=condition.detail)

    def _add(self, name: str, keyring: Keyring, links: LinkService) -> None:
        config = self._config
        identity = NodeIdentity(secrets.token_bytes(16), config.name, name, config.cloud, __version__)
        settings = NodeSettings(
            max_body=config.max_body,
            max_large_body=config.max_large_body,
            peer_outbox=config.peer_outbox,
            app_outbox=config.attachment_outbox,
            app_backlog=4 * config.subscription_queue,
            request_queue=config.request_queue,
            max_subscription=config.subscription_queue,
            stall_timeout=config.stall_timeout,
            heartbeat_interval=config.heartbeat_interval,
            full_mesh_limit=config.full_mesh_limit,
            idle_link=config.idle_link,
        )
        settle = bool(config.seeds) or (config.multicast != "off" and not config.development)
        node = Node(identity, settings, SystemRandom(), now=self._clock(), settle=settle)
        service = Service(node, keyring, self._clock, self)
        self._services[name] = service
        service.apply([])  # start its clock
        links.register(keyring, PeerInfo(identity.node_id, config.name, features=FEATURES), service)

    async def _look_for_peers(self, discovery: Discovery, bound: Sequence[tuple[Sequence[str], list[Address]]]) -> None:
        presences = []
        for name, service in self._services.items():
            listens = [address for offered, there in bound if not offered or name in offered for address in there]
            tags = service.keyring.discovery_tags
            presences.append(Presence(name, service.node.identity.node_id, tags, tuple(listens)))
        await discovery.start(presences)

    # -- stopping

    async def _finish(self, now: asyncio.Event) -> None:
        """Let what is under way end, for as long as a drain may take or until told a second time."""
        _log.info("daemon.draining", timeout=self._drain.timeout)
        if self._attach is not None:
            await self._attach.drain()
        await self._drain.run(list(self._services.values()), now, self._clock)

    def begin_drain(self, timeout: float | None) -> None:
        """Stop as SIGTERM does; a drain that is under way goes on."""
        if not self._signals.stop.is_set():
            self._drain.timeout = self._config.drain_timeout if timeout is None else timeout
            self._signals.stop.set()

    def drain_info(self) -> DrainInfo:
        """How the drain goes."""
        return self._drain.info(list(self._services.values()), self._clock())

    async def stop(self) -> None:
        """Close everything: apps are told, links say goodbye, the socket goes."""
        if self._attach is not None:
            await self._attach.stop(STOP_GRACE)
        if self._discovery is not None:
            await self._discovery.stop()
        for service in self._services.values():
            await service.dial_no_more()
        if self._links is not None:
            await self._links.stop("the daemon is shutting down")
        for service in self._services.values():
            service.close()
        if self._started:
            _log.info("daemon.stopped")
        if self._admin is not None:
            await self._admin.stop(STOP_GRACE / 2)

    def _hang_up(self) -> None:
        """SIGHUP."""
        with suppress(IrisdError):  # it has been logged
            self.reload()

    def reload(self) -> tuple[Sequence[str], Sequence[str]]:
        """Read settings, keys and tokens again; return what was applied and what wants a restart.

        Raises:
            IrisdError: Something is wrong with them; nothing was changed.
        """
        if self._attach is None or self._links is None or self._discovery is None:
            return (), ()
        try:
            config, keys = self._read() if self._read is not None else (self._config, None)
            rings, gone = compare_keys(self._keyrings, self._keyrings if keys is None else keyrings(keys))
            for ring in rings.values():
                self._links.check(ring)
            self._attach.reload_tokens()
        except IrisdError as error:
            _log.error("daemon.reload_failed", error=str(error), hint="nothing was changed")
            raise
        self._config, found = compare(self._config, config)
        for name, ring in rings.items():
            self._keyrings[name] = self._services[name].keyring = ring
            self._links.use(ring)
        self._discovery.use(self._config, {name: ring.discovery_tags for name, ring in self._keyrings.items()})
        self._attach.allow(self._config.max_attachments)
        if "log_level" in found.applied:
            set_level(self._config.log_level)
        if not self._signals.stop.is_set():
            self._drain.timeout = self._config.drain_timeout
        applied, restart = (*found.applied, *(["keys"] if rings else [])), (*found.restart, *gone)
        _log.info("daemon.reloaded", applied=applied)
        if restart:
            _log.warning("daemon.reload_wants_restart", needs_a_restart=restart)
        return applied, restart

    # -- services and discovery: what one finds out the other is told

    def linked(self, service: str, node_id: NodeId, *, up: bool, left: bool) -> None:
        """A link came up or ended: discovery looks for those that are missing only."""
        if self._discovery is None:
            return
        if up:
            self._discovery.link_up(service, node_id)
        else:
            self._discovery.link_down(service, node_id, left=left)

    def found(self, service: str, node_id: NodeId, addresses: Sequence[Address]) -> None:
        """A peer told where a node is."""
        if self._discovery is not None:
            self._discovery.learned(service, addresses, node_id)

    async def attempt(self, service: str, addresses: Sequence[Address], node_id: NodeId) -> Finish:
        """Dial a node once."""
        assert self._links is not None
        return await self._links.attempt(service, addresses, node_id)

    def _wants(self, service: str, node_id: NodeId) -> bool:
        return self._services[service].node.wants(node_id)

    def _advertised(self, service: str, addresses: tuple[Address, ...]) -> None:
        each = self._services[service]
        each.apply(each.node.set_addresses(tuple(map(str, addresses)), self._clock()))

    # -- apps: each belongs to one service (irisd.attach calls these)

    def attached(self, attachment: Attachment, hello: Frame) -> None:
        """Find the service an app asks for, and hand it over."""
        offered = sorted(name for name in self._services if attachment.allows(name))
        wanted = hello.address
        if not wanted and len(offered) == 1:
            wanted = offered[0]
        if wanted not in offered:
            here = ", ".join(offered) or "none"
            what = f"no service {wanted[:200]!r} here" if wanted else "HELLO must name a service"
            raise AttachRefused("NOT_FOUND", f"{what}; this daemon holds keys for: {here}")
        service = self._services[wanted]
        self._of[attachment.id] = service
        service.app_attached(attachment, hello)

    def frames_received(self, attachment: Attachment, frames: list[Frame]) -> None:
        """All frames of one read."""
        self._of[attachment.id].app_frames(attachment, frames)

    def pull(self, attachment: Attachment, limit: int) -> list[Frame]:
        """What waits for the app."""
        return self._of[attachment.id].app_pull(attachment, limit)

    def control_full(self, attachment: Attachment) -> bool:
        """Whether its answers pile up."""
        return self._of[attachment.id].app_control_full(attachment)

    def detached(self, attachment: Attachment, reason: str) -> None:
        """Its stream is over."""
        self._of.pop(attachment.id).app_detached(attachment, reason)

    # -- the daemon described (irisd.attach's control service asks)

    def services(self) -> Iterable[str]:
        """The services this daemon holds keys for."""
        return self._services

    def status(self) -> StatusInfo:
        """The daemon as a whole."""
        attach = self._attach.urls if self._attach is not None else []
        return StatusInfo(
            version=__version__,
            pid=os.getpid(),
            uptime=self._clock() - self._began,
            host=self._config.name,
            listeners=(
                *(ListenerInfo("links", f"tcp://{address}") for address in self._link_addresses),
                *(ListenerInfo("attach", url) for url in attach),
                *([ListenerInfo("admin", self._admin.url)] if self._admin is not None else []),
            ),
            services=tuple(service.info() for service in self._services.values()),
            draining=self._signals.stop.is_set(),
            memory=resident_memory(),
            conditions=tuple(self._conditions()),
        )

    def nodes(self, service: str) -> Iterable[NodeRow]:
        """The nodes of a service, or of all."""
        now = self._clock()
        return [row for each in self._asked(service) for row in node_rows(each.node, now, each.started)]

    def clusters(self, service: str) -> Iterable[ClusterRow]:
        """The clusters of a service, or of all."""
        return [row for each in self._asked(service) for row in cluster_rows(each.node)]

    def topics(self, service: str) -> Iterable[TopicRow]:
        """The topic filters of a service, or of all."""
        return [row for each in self._asked(service) for row in topic_rows(each.node)]

    def discovery(self) -> DiscoveryInfo:
        """How this daemon looks for peers."""
        conditions = tuple(self._conditions())
        if self._discovery is None:
            return DiscoveryInfo(MulticastInfo("starting"), conditions=conditions)
        return replace(self._discovery.info(), conditions=conditions)

    def load(self) -> LoadInfo:
        """What this daemon has to do now."""
        now = self._clock()
        return LoadInfo(
            self._config.name,
            __version__,
            at=now,
            uptime=now - self._began,
            memory=resident_memory(),
            draining=self._signals.stop.is_set(),
            bounds=BOUNDS,
            services=tuple(service_load(service.node, now, service.drops) for service in self._services.values()),
        )

    async def trace(self, service: str, asked: TraceAsked) -> TraceInfo:
        """What would happen to a call."""
        return await self._services[service].trace(asked)

    def _asked(self, service: str) -> list[Service]:
        return [each for name, each in self._services.items() if service in ("", name)]

    def _conditions(self) -> list[Condition]:
        found = []
        if self._config.development:
            found.append(Condition("development-key", "a fresh key of its own: for trying things out, loopback only"))
        if self._open_files < FEW_FILES:
            found.append(Condition("few-open-files", f"at most {self._open_files} open files; raise LimitNOFILE"))
        if self._discovery is not None:
            found += self._discovery.conditions(sum(service.peers for service in self._services.values()))
        for service in self._services.values():
            if not service.peers and self._discovery is not None and self._should_have_peers():
                detail = f"{service.name}: no other node found yet, looking by {self._discovery.searching()}"
                found.append(Condition("no-peers", f"{detail}; `iris doctor` says more"))
            found += conditions(service.node, self._clock())
        return found

    def _should_have_peers(self) -> bool:
        """With seeds at once; otherwise, unless it is only for trying things out, after a while."""
        patient = self._clock() - self._began >= ALONE_AFTER and not self._config.development
        return bool(self._config.seeds) or (patient and self._config.multicast != "off")
