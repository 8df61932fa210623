"""Node: the one object edges and simulations talk to. It composes the brain and sorts frames to its parts."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from irisd.effects import Detach, Effect, Unlink
from irisd.errors import WireError
from irisd.flow import PartsError
from irisd.membership import Membership
from irisd.model import AttachmentId, Code, Destination, Executed, Frame, Kind, NodeId, PeerInfo
from irisd.node.addressing import check_accepted, check_id
from irisd.node.attachments import Attachments
from irisd.node.calls import Calls
from irisd.node.core import Core, NodeIdentity, NodeSettings, ProtocolError
from irisd.node.draining import LAST_CALLS, Draining
from irisd.node.endpoints import App, Endpoint, Hold, Peer, Syncing
from irisd.node.events import Events
from irisd.node.gathers import Gathers
from irisd.node.members import Trial
from irisd.node.peers import Peers
from irisd.node.traces import Probe, Traces
from irisd.node.tunnels import Tunnels
from irisd.node.views import Views
from irisd.node.watches import Watches
from irisd.router import Call, Gather, Hedge, Tunnel

SETTLED = "settled"
_OPENERS = frozenset({Kind.REQUEST, Kind.PUSH, Kind.BROADCAST, Kind.SURVEY, Kind.TUNNEL})
_TUNNEL_FRAMES = frozenset({Kind.DATA, Kind.FINISH, Kind.CREDIT})
_BODY_FRAMES = _TUNNEL_FRAMES - {Kind.CREDIT}
_OF_CALLS = _TUNNEL_FRAMES | {Kind.REPLY, Kind.ERROR, Kind.DONE, Kind.CANCEL}
_STANDING = frozenset({Kind.JOIN, Kind.SUBSCRIBE, Kind.WATCH, Kind.FLUSH})
_NUMBERED = frozenset({Kind.PUBLISH, Kind.LOST})
_WHOLE = frozenset({Kind.DATA, Kind.RECORD, Kind.HEARSAY})  # `more` means something else there
_WHOLE |= {Kind.BELIEFS, Kind.VIEW, Kind.WANT, Kind.TRACED}  # nodes bound these, whatever apps may send


class Node:
    """One service's presence in this daemon.

    Every method takes ``now`` (monotonic seconds, never falling) and returns
    the effects to carry out. An outbox that turns non-empty is announced by one
    ``Wake``; pull it with :meth:`take` until it returns nothing.

    Args:
        identity: Who this node is.
        settings: Bounds and waits.
        rng: Source of chance: the choice among equals.
        settle: Let early apps wait for the first peer's record (bounded).
    """

    def __init__(
        self, identity: NodeIdentity, settings: NodeSettings, rng: Random, *, now: float = 0.0, settle: bool = False
    ) -> None:
        self._core = Core(identity, settings, rng)
        self._core.now = now
        self._settled = not settle
        self._tunnels = Tunnels(self._core)
        self._calls = Calls(self._core, self._tunnels.accepted)
        self._tunnels.carried, self._tunnels.abandoned = self._calls.carried, self._calls.abandoned
        self._gathers = Gathers(self._core, self._calls)
        self._events = Events(self._core)
        self._views = Views(
            self._core,
            rng,
            forgotten=lambda node: self._events.publisher_gone(node, died=True),
            buried=lambda node, left: self._peers.buried(node, left),
            settled=self._settle,
        )
        self._records = self._views.records
        self._peers = Peers(self._core, self._views, self._events, self._end_calls)
        self._attachments = Attachments(self._core, self._calls, self._events, self._records)
        self._draining = Draining(self._core, self._views, self._attachments, self._calls.members)
        self._watches = Watches(self._core, self._views.picture)
        self.traces = Traces(self._core, self._calls, self._views.membership)
        self._core.changed, self._core.claimed = self._watches.changed, self._watches.claimed
        if settle:
            self._core.timers.add(SETTLED, now + settings.settle_timeout)
        self._app_frames: dict[int, Callable[[App, Frame], None]] = {
            **self._attachments.app_frames,
            Kind.UNSUBSCRIBE: self._unsubscribe,
            Kind.WATCH: self._watches.open,
            Kind.FLUSH: self._events.pacing.flush,
        }
        self._peer_frames: dict[int, Callable[[Peer, Frame], None]] = {
            Kind.RECORD: self._record_received,
            Kind.RECORD_ACK: lambda peer, frame: self._records.acknowledged(peer, frame.count),
            Kind.PUBLISH_ACK: lambda peer, frame: self._core.ledgers[peer.node].acknowledge(frame.count),
            **self._events.peer_frames,
            Kind.ACCEPTED: self._accepted,
            Kind.BELIEFS: self._views.beliefs,
            Kind.VIEW: self._views.view,
            Kind.WANT: self._views.want,
            Kind.SYNCED: self._views.synced,
            Kind.HEARSAY: self._records.received,
            Kind.IDLE: self._peers.idle,
            Kind.TRACE: self.traces.asked,
            Kind.TRACED: self.traces.answered,
        }
        self._due: dict[type, Callable[[Any], None]] = {
            Call: self._calls.expired,
            Hedge: self._calls.hedges.due,
            Trial: self._calls.trial,
            Gather: self._gathers.expired,
            Syncing: self._records.expired,
            App: self._attachments.let_go,
            Hold: self._events.pacing.stalled,
            Probe: self.traces.expired,
            tuple: self._peers.due,
            str: lambda what: self._draining.look_again() if what == LAST_CALLS else self._settle(),
        }

    # -- what this node is

    @property
    def core(self) -> Core:
        """Shared state, to be read only: for :mod:`irisd.node.describe` and tests."""
        return self._core

    @property
    def identity(self) -> NodeIdentity:
        """Who this node is."""
        return self._core.identity

    @property
    def under_way(self) -> int:
        """Calls and tunnels that involve this node: what a drain waits for."""
        return self._draining.under_way

    @property
    def drained(self) -> bool:
        """Whether it drains, nothing is under way, and nothing more can be on its way here."""
        return self._draining.done

    @property
    def membership(self) -> Membership:
        """What is believed of other nodes, to be read only: for edges, :mod:`irisd.node.describe` and tests."""
        return self._views.membership

    def wants(self, node_id: NodeId) -> bool:
        """Whether this node should be linked with one that discovery knows of."""
        return self.membership.wants(node_id)

    def set_addresses(self, addresses: tuple[str, ...], now: float) -> list[Effect]:
        """Where others may dial this node, ``host:port``, best first."""
        self._core.now = now
        self._views.set_addresses(addresses)
        return self._collect()

    @property
    def calls(self) -> Calls:
        """Who is chosen for what, to be read only: for :mod:`irisd.node.describe` and tests."""
        return self._calls

    # -- apps

    def attach(self, attachment: AttachmentId, hello: Frame, now: float) -> list[Effect]:
        """An app has said HELLO."""
        self._core.now = now
        self._attachments.attach(attachment, hello, settled=self._settled)
        return self._collect()

    def detach(self, attachment: AttachmentId, reason: str, now: float) -> list[Effect]:
        """An app's stream has ended; unknown ones are ordinary."""
        self._core.now = now
        app = self._core.apps.get(attachment)
        if app is not None:
            self._remove_app(app)
        return self._collect()

    def frames_from_app(self, attachment: AttachmentId, frames: list[Frame], now: float) -> list[Effect]:
        """All frames of one read of an app's stream, in order."""
        core = self._core
        core.now = now
        app = core.apps.get(attachment)
        if app is None:
            return core.unheard(len(frames))
        app.last_heard = now
        try:
            for frame in frames:
                if frame.kind == Kind.PART or (frame.more and frame.kind not in _WHOLE):
                    whole = app.assembler.feed(frame)
                    if whole is None:
                        continue
                    frame = whole
                if frame.kind == Kind.PUBLISH:
                    self._events.publish(app, frame)
                elif frame.kind in _OPENERS:
                    self._open(app, frame)
                elif frame.kind in self._app_frames:
                    if frame.kind in _STANDING:
                        check_id(core, app, frame)
                    self._app_frames[frame.kind](app, frame)
                else:
                    self._under_way(app, frame)
        except (ProtocolError, PartsError) as error:
            core.drop("protocol-error")
            core.emit(Detach(attachment, "INVALID_ARGUMENT", str(error)))
            self._remove_app(app)
        return self._collect()

    # -- peers

    def link_up(self, info: PeerInfo, now: float, *, dialled: bool | None = None) -> list[Effect]:
        """A link to a peer is settled; an older one to the same peer has ended with it.

        Args:
            info: Who it is.
            now: When.
            dialled: Whether this side made it: that side asks for signs of life. None: the edge watches it by itself.
        """
        self._core.now = now
        self._peers.link_up(info, dialled)
        return self._collect()

    def link_down(
        self, node_id: NodeId, reason: str, now: float, *, left: bool = False, idle: bool = False
    ) -> list[Effect]:
        """The link to a peer has ended.

        Args:
            node_id: Whose.
            reason: Why, in a few words.
            now: When.
            left: It said goodbye: it is gone for good, rather than perhaps cut off.
            idle: Nobody needed it.
        """
        self._core.now = now
        self._peers.link_down(node_id, reason, left=left, idle=idle)
        return self._collect()

    def connect_failed(self, node_id: NodeId, reason: str, now: float) -> list[Effect]:
        """A link that was asked for by ``Connect`` could not be made."""
        self._core.now = now
        self._peers.connect_failed(node_id, reason)
        return self._collect()

    def control_received(self, node_id: NodeId, messages: list[bytes], now: float) -> list[Effect]:
        """All messages of one read of a link's control connection, in order."""
        self._core.now = now
        try:
            for message in messages:
                self.membership.control_received(node_id, message, now)
        except WireError as error:
            self._core.drop("protocol-error")
            self._core.emit(Unlink(node_id, str(error)))
        return self._collect()

    def probe(self, node_id: NodeId, now: float) -> list[Effect]:
        """Ask a peer for a sign of life now, if this side asks."""
        self._core.now = now
        self.membership.probe(node_id, now)
        return self._collect()

    def frames_from_peer(self, node_id: NodeId, frames: list[Frame], now: float) -> list[Effect]:
        """All frames of one read of a link's data connection, in order."""
        core = self._core
        core.now = now
        peer = core.peers.get(node_id)
        if peer is None or not peer.linked:
            return core.unheard(len(frames))
        self.membership.heard(node_id, now)
        published = False
        max_body = core.settings.max_body
        try:
            for frame in frames:
                if (frame.total if frame.more else len(frame.body)) > max_body and frame.kind not in _WHOLE:
                    self._too_large(peer, frame)
                    continue
                if frame.kind == Kind.PART or (frame.more and frame.kind not in _WHOLE):
                    whole = peer.assembler.feed(frame)
                    if whole is None:
                        continue
                    frame = whole
                handler = self._peer_frames.get(frame.kind)
                if handler is not None:
                    published = published or frame.kind in _NUMBERED
                    handler(peer, frame)
                elif frame.kind in _OPENERS:
                    self._open(peer, frame)
                else:
                    self._under_way(peer, frame)
            if published:
                self._events.acknowledge(peer)
            self._peers.check_reading(peer)
        except (ProtocolError, PartsError) as error:
            core.drop("protocol-error")
            core.emit(Unlink(peer.node, str(error)))
            self._peers.drop(peer)
        return self._collect()

    # -- out

    def take(self, destination: Destination, limit: int, now: float) -> list[Frame]:
        """Take what leaves next towards a neighbour, about ``limit`` bytes; empty means empty."""
        core = self._core
        endpoint = core.endpoint(destination)
        if endpoint is None:
            return []
        early = isinstance(endpoint, App) and not endpoint.welcome
        if early or (isinstance(endpoint, Peer) and (not endpoint.linked or endpoint.closing)):
            endpoint.outbox.idle = True
            return []
        frames = endpoint.outbox.take(limit, now)
        core.drop_late(endpoint)
        if isinstance(endpoint, Peer):
            self._events.number(endpoint, frames)
            frames = self._peers.hold_if_closing(endpoint, frames)
        elif isinstance(endpoint, App):
            endpoint.last_taken = now
        return frames

    # -- time

    def next_deadline(self) -> float | None:
        """When :meth:`on_deadline` next has something to do."""
        mine, beats = self._core.timers.next_deadline(), self.membership.next_deadline()
        return beats if mine is None else mine if beats is None else min(mine, beats)

    def on_deadline(self, now: float) -> list[Effect]:
        """Let everything end whose time has come. Early calls do nothing."""
        core = self._core
        core.now = now
        self.membership.on_deadline(now)
        for thing in core.timers.due(now):
            self._due[type(thing)](thing)
        return self._collect()

    def drain(self, now: float) -> list[Effect]:
        """Take no new work from peers, tell the apps; what is under way may finish."""
        self._core.now = now
        if not self._core.draining:
            self._settle()
            self._draining.begin()
        return self._collect()

    # -- inside

    def _collect(self) -> list[Effect]:
        if self._events.is_due:
            self._events.settle()
        while self._core.evicted:
            self._remove_app(self._core.evicted[-1])
            self._core.evicted.pop()
        return self._core.collect()

    def _open(self, endpoint: Endpoint, frame: Frame) -> None:
        check_id(self._core, endpoint, frame)
        if len(endpoint.opened) >= self._core.settings.max_pending and isinstance(endpoint, App):
            limit = self._core.settings.max_pending
            self._core.fail(endpoint.id, frame.id, Code.OVERLOADED, f"one app may have {limit} calls under way")
        elif frame.kind in (Kind.BROADCAST, Kind.SURVEY):
            self._gathers.open(endpoint, frame)
        elif not (frame.carries or frame.max_large) or self._tunnels.may_carry(endpoint, frame):
            self._calls.open(endpoint, frame)

    def _too_large(self, peer: Peer, frame: Frame) -> None:
        """A body that its node allows and this one does not: its call fails or it is lost; its parts find no place."""
        core = self._core
        detail = f"{core.identity.name} takes bodies of at most {core.settings.max_body} bytes"
        if frame.kind == Kind.PUBLISH:
            self._events.too_large(peer, frame)
        elif frame.kind in _OPENERS:
            core.drop("too-large")
            core.fail(peer.node, frame.id, Code.TOO_LARGE, detail)
        elif frame.kind in (Kind.REPLY, Kind.ERROR):
            core.drop("too-large")
            answer = Frame(Kind.ERROR, id=frame.id, code=Code.TOO_LARGE, executed=Executed.YES, detail=detail)
            self._under_way(peer, answer.copy(member=frame.member))

    def _under_way(self, endpoint: Endpoint, frame: Frame) -> None:
        """A frame of a call that was opened before; of one that is over, it is ordinary and ignored."""
        id, kind = frame.id, frame.kind
        if kind not in _OF_CALLS:
            raise ProtocolError(f"kind {kind} is not one an app or a peer sends here")
        given = endpoint.given.get(id)
        under_way = given or endpoint.opened.get(id)
        if isinstance(under_way, Tunnel):
            self._tunnels.frame(endpoint, under_way, frame)
        elif given is not None:
            if isinstance(given, Call):
                check_accepted(given, kind in _BODY_FRAMES)
                if kind == Kind.CREDIT:
                    self._calls.credit(endpoint, given, frame)
                elif kind in (Kind.REPLY, Kind.ERROR, Kind.DONE):
                    self._calls.reply(endpoint, given, frame)
            elif isinstance(given, Gather) and kind in (Kind.REPLY, Kind.ERROR, Kind.DONE):
                self._gathers.reply(endpoint, given, frame)
        elif under_way is not None:
            check_accepted(under_way, kind in _TUNNEL_FRAMES)
            if kind in (Kind.CANCEL, Kind.ERROR):
                if isinstance(under_way, Call):
                    self._calls.cancel(endpoint, under_way)
                else:
                    self._gathers.cancel(endpoint, under_way)
        elif kind == Kind.CANCEL:
            endpoint.assembler.forget(id)
        elif isinstance(endpoint, App) and id in endpoint.subscriptions:
            self._events.lending.consumed(endpoint, endpoint.subscriptions[id], frame)
        else:
            self._core.drop("no-such-call")

    def _accepted(self, peer: Peer, frame: Frame) -> None:
        given = peer.given.get(frame.id)
        if isinstance(given, Gather):
            self._gathers.accepted(given, frame)

    def _record_received(self, peer: Peer, frame: Frame) -> None:
        self._records.received(peer, frame)
        if peer.synced and not self.membership.compares(peer.node):
            self._settle()

    def _settle(self) -> None:
        if not self._settled:
            self._settled = True
            self._core.timers.remove(SETTLED)
            self._attachments.settled()

    def _unsubscribe(self, app: App, frame: Frame) -> None:
        self._watches.close(app, frame.id)
        self._attachments.unsubscribe(app, frame)

    def _remove_app(self, app: App) -> None:
        self._watches.app_gone(app)
        self._attachments.detach(app)
        self._end_calls(app)

    def _end_calls(self, endpoint: Endpoint) -> None:
        """Whatever was under way with a neighbour that is gone ends, by name, at the other side."""
        given, opened, endpoint.given, endpoint.opened = endpoint.given, endpoint.opened, {}, {}
        for id, under_way in given.items():
            if isinstance(under_way, Call):
                self._calls.target_gone(under_way, endpoint)
            elif isinstance(under_way, Gather):
                self._gathers.target_gone(under_way, endpoint, id)
            else:
                self._tunnels.gone(under_way, endpoint, id)
        for id, under_way in opened.items():
            if isinstance(under_way, Call):
                self._calls.source_gone(under_way)
            elif isinstance(under_way, Gather):
                self._gathers.source_gone(under_way)
            else:
                self._tunnels.gone(under_way, endpoint, id)
