"""One service of this daemon: its node, and the edges that are wired to it.

Everything that happens to the node goes through :meth:`Service.apply`: it
carries out the effects, keeps the one timer, and tells whoever waits for quiet.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol

import structlog

from irisd.attach import Attachment
from irisd.config import Address, parse_address
from irisd.effects import Cause, Connect, Control, Detach, Effect, Fact, Found, Traced, Unlink, Wake
from irisd.keys import Keyring
from irisd.link.link import Link
from irisd.link.outcome import LinkEnd, LinkFact, Outcome
from irisd.link.race import Finish
from irisd.model import PART_BYTES, Frame, NodeId
from irisd.node import Node
from irisd.node.describe import service_info
from irisd.status import ServiceInfo, TraceAsked, TraceInfo
from irisd.wire import WireError, decode_frame, encode_parts

OTHER_WAY: Final = 2.0
"""Seconds for the link to come up that another connection with the same node is about to become."""
MAX_DIALS: Final = 4_096
"""Addresses of which it is remembered how the last dial ended; then from the beginning."""

_CLOSED_AS: Final = {Cause.SILENT: Outcome.SILENT, Cause.IDLE: Outcome.IDLE}

_log = structlog.get_logger("irisd")


class Surroundings(Protocol):
    """What a service needs of the daemon it lives in. ``service`` is its name."""

    def linked(self, service: str, node_id: NodeId, *, up: bool, left: bool) -> None:
        """A link came up, or ended; ``left``: the peer said goodbye."""

    def found(self, service: str, node_id: NodeId, addresses: Sequence[Address]) -> None:
        """A node is said to be at these addresses: be linked with it."""

    async def attempt(self, service: str, addresses: Sequence[Address], node_id: NodeId) -> Finish:
        """Dial a node once, at all addresses; say how it ended."""


class Service:
    """A node and its wiring; implements what links and attachments call.

    Args:
        node: The brain.
        keyring: The service's keys.
        clock: Monotonic seconds.
        surroundings: The daemon.
    """

    def __init__(self, node: Node, keyring: Keyring, clock: Callable[[], float], surroundings: Surroundings) -> None:
        self.node = node
        self.keyring = keyring
        self.name = node.identity.service
        self.started = clock()
        self._clock = clock
        self._surroundings = surroundings
        self._links: dict[NodeId, Link] = {}
        self._dropped: Counter[str] = Counter()  # by links that have ended
        self._connecting: dict[NodeId, asyncio.Task[None]] = {}
        self._traces: dict[int, asyncio.Future[TraceInfo]] = {}
        self._dials_no_more = False
        self._came_up = asyncio.Event()
        self._attachments: dict[int, Attachment] = {}
        self._dials: dict[str, Outcome] = {}  # how the last dial of each address ended
        self._max_frame = max(node.core.settings.max_body, PART_BYTES)  # what is too large is answered, not unlinked
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._quiet = asyncio.Event()
        self._log = _log.bind(service=self.name)

    @property
    def peers(self) -> int:
        """How many links are up."""
        return len(self._links)

    @property
    def drops(self) -> Counter[str]:
        """What the links dropped, by reason; the node has its own count."""
        return sum((link.drops for link in self._links.values()), Counter(self._dropped))

    def info(self) -> ServiceInfo:
        """The node's numbers, and its edges'."""
        info = service_info(self.node, self.keyring.active.key_id_hex, self.drops)
        local = sum(attachment.lane == "local" for attachment in self._attachments.values())
        return replace(info, local_attachments=local)

    # -- effects

    def apply(self, effects: list[Effect]) -> None:
        """Carry out what the node asks for, then look at the clock again."""
        for effect in effects:
            if type(effect) is Wake:
                if isinstance(effect.destination, int):
                    attachment = self._attachments.get(effect.destination)
                    if attachment is not None:
                        attachment.wake()
                else:
                    link = self._links.get(effect.destination)
                    if link is not None:
                        link.wake()
            elif type(effect) is Detach:
                attachment = self._attachments.get(effect.attachment)
                if attachment is not None:
                    self._log.warning("attach.ended", attachment=effect.attachment, reason=effect.reason)
                    attachment.end(effect.status, effect.reason)
            elif type(effect) is Control:
                link = self._links.get(effect.peer)
                if link is not None:
                    link.send_control(effect.parts)
            elif type(effect) is Unlink:
                self._unlink(effect)
            elif type(effect) is Found:
                addresses = _dialable(effect.addresses)
                if addresses:
                    self._surroundings.found(self.name, effect.node, addresses)
            elif type(effect) is Connect:
                self._connect(effect)
            elif type(effect) is Fact:
                self._log.info(effect.event, **effect.fields)
            elif type(effect) is Traced:
                self._traced(effect)
        self._set_timer()
        if self.node.core.draining:
            self._look_for_quiet()

    def _set_timer(self) -> None:
        deadline = self.node.next_deadline()
        timer = self._timer
        if timer is not None:
            if deadline is not None and self._due <= deadline:
                return  # it fires early at most, and is set anew then
            timer.cancel()
            self._timer = None
        if deadline is not None:
            self._due = deadline  # a loop need not remember it
            self._timer = asyncio.get_running_loop().call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.apply(self.node.on_deadline(self._clock()))

    def close(self) -> None:
        """Stop the timer; nothing is applied after this."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unlink(self, effect: Unlink) -> None:
        link = self._links.get(effect.peer)
        if link is None:
            return
        outcome = _CLOSED_AS.get(effect.cause)
        if outcome is None:
            self._log.warning("link.violation", peer=link.peer.name, rule=effect.reason)
            link.abort(effect.reason)
        else:
            link.close_now(outcome, effect.reason)

    # -- dials of the node's own: something waits for a peer

    async def dial_no_more(self) -> None:
        """The daemon is stopping: give up what is being dialled, and begin nothing new."""
        self._dials_no_more = True
        dials = list(self._connecting.values())
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)

    def _connect(self, effect: Connect) -> None:
        if self._dials_no_more or effect.node in self._connecting:
            return  # of one under way the node is told how it ends
        task = asyncio.get_running_loop().create_task(self._dial(effect), name=f"connect {effect.node.hex()[:8]}")
        self._connecting[effect.node] = task

    async def _dial(self, effect: Connect) -> None:
        try:
            failure = await self._dialled(effect.node, _dialable(effect.addresses))
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        finally:
            self._connecting.pop(effect.node, None)
        if effect.node not in self._links:
            failure = failure or "the link ended as soon as it was up"
            self._log.info("link.connect_failed", node=effect.node.hex()[:8], reason=failure)
            self.apply(self.node.connect_failed(effect.node, failure, self._clock()))

    async def _dialled(self, node_id: NodeId, addresses: Sequence[Address]) -> str:
        """Dial once; return why there is no link, or nothing."""
        if not addresses:
            return "none of its addresses can be dialled"
        finish = await self._surroundings.attempt(self.name, addresses, node_id)
        if finish.end.outcome is Outcome.LINKED:
            return ""
        if finish.end.outcome is Outcome.DUPLICATE:  # the other side dials too: the link is one of those connections
            try:
                async with asyncio.timeout(OTHER_WAY):
                    while node_id not in self._links:
                        self._came_up.clear()
                        await self._came_up.wait()
            except TimeoutError:
                return str(finish.end)
        return f"{finish.end} at {finish.address}"

    # -- what would happen to a call

    async def trace(self, asked: TraceAsked) -> TraceInfo:
        """Find out; takes as long as the chosen node takes to answer, and no longer than the node waits for it."""
        number, effects = self.node.traces.begin(asked, self._clock())
        trace: asyncio.Future[TraceInfo] = asyncio.get_running_loop().create_future()
        self._traces[number] = trace
        try:
            self.apply(effects)
            return await trace
        finally:
            del self._traces[number]

    def _traced(self, effect: Traced) -> None:
        info, trace = self.node.traces.take(effect.number), self._traces.get(effect.number)
        if trace is not None and not trace.done():  # else whoever asked has gone
            trace.set_result(info)

    # -- draining

    def drain(self) -> None:
        """Take no new work; apps and peers are told."""
        self.apply(self.node.drain(self._clock()))

    async def quiet(self) -> None:
        """Wait until nothing is under way, waits to leave, or can be on its way here. Only after :meth:`drain`."""
        self._look_for_quiet()
        await self._quiet.wait()

    def _look_for_quiet(self) -> None:
        if self.node.drained:
            self._quiet.set()
        else:
            self._quiet.clear()

    # -- apps (the daemon passes on what irisd.attach calls)

    def app_attached(self, attachment: Attachment, hello: Frame) -> None:
        """An app came in."""
        self._attachments[attachment.id] = attachment
        self._log.info("attach.opened", attachment=attachment.id, app=hello.member[:64], peer=attachment.peer)
        self.apply(self.node.attach(attachment.id, hello, self._clock()))

    def app_frames(self, attachment: Attachment, frames: list[Frame]) -> None:
        """All frames of one read."""
        self.apply(self.node.frames_from_app(attachment.id, frames, self._clock()))

    def app_pull(self, attachment: Attachment, limit: int) -> list[Frame]:
        """What waits for the app."""
        frames = self.node.take(attachment.id, limit, self._clock())
        if not frames and self.node.core.draining:
            self._look_for_quiet()
        return frames

    def app_control_full(self, attachment: Attachment) -> bool:
        """Whether an app that does not read has let its answers pile up."""
        app = self.node.core.apps.get(attachment.id)
        return app is not None and app.outbox.urgent_bytes > self.node.core.settings.app_outbox

    def app_detached(self, attachment: Attachment, reason: str) -> None:
        """Its stream is over."""
        self._attachments.pop(attachment.id, None)
        self._log.info("attach.closed", attachment=attachment.id, reason=reason)
        self.apply(self.node.detach(attachment.id, reason, self._clock()))

    # -- peers (irisd.link calls these)

    def link_up(self, link: Link) -> None:
        """A link is settled."""
        peer = link.peer
        self._links[peer.node_id] = link
        self._came_up.set()
        self._log.info("link.up", peer=peer.name, node=peer.node_id.hex()[:8], address=peer.address)
        self.apply(self.node.link_up(peer, self._clock(), dialled=link.dialled))
        self._surroundings.linked(self.name, peer.node_id, up=True, left=False)

    def link_down(self, link: Link, end: LinkEnd) -> None:
        """A link has ended."""
        peer = link.peer
        if self._links.get(peer.node_id) is link:
            del self._links[peer.node_id]
            self._dropped += link.drops
        self._log.info("link.down", peer=peer.name, node=peer.node_id.hex()[:8], reason=str(end))
        left = end.outcome is Outcome.STOPPING or (end.outcome is Outcome.CLOSED and end.by_peer)
        idle = end.outcome is Outcome.IDLE
        self.apply(self.node.link_down(peer.node_id, str(end), self._clock(), left=left, idle=idle))
        self._surroundings.linked(self.name, peer.node_id, up=False, left=left)

    def control_received(self, link: Link, messages: list[bytes]) -> None:
        """All messages of one read of a control connection."""
        self.apply(self.node.control_received(link.peer.node_id, messages, self._clock()))

    def probe(self, link: Link) -> None:
        """The links want to know now whether this peer is there."""
        self.apply(self.node.probe(link.peer.node_id, self._clock()))

    def messages_received(self, link: Link, bodies: list[bytes]) -> None:
        """All messages of one read of a data connection."""
        try:
            limit = self._max_frame
            frames = [decode_frame(body, 0, len(body), limit) for body in bodies]
        except WireError as error:
            self._log.warning("link.violation", peer=link.peer.name, rule=str(error))
            link.abort(str(error))
            return
        self.apply(self.node.frames_from_peer(link.peer.node_id, frames, self._clock()))

    def pull(self, link: Link, limit: int) -> list[tuple[bytes, bytes]]:
        """What waits for the peer, each frame as header and untouched body."""
        frames = self.node.take(link.peer.node_id, limit, self._clock())
        if not frames and self.node.core.draining:
            self._look_for_quiet()
        return [encode_parts(frame) for frame in frames]

    def outcome(self, fact: LinkFact) -> None:
        """How a dial or an accepted connection ended. A dial that keeps failing the same way is told once."""
        if fact.dialled:
            again = self._dials.get(fact.address) == fact.outcome
            if len(self._dials) >= MAX_DIALS:
                self._dials.clear()
            self._dials[fact.address] = fact.outcome
            if again and fact.outcome not in QUIET_OUTCOMES:
                return
        log_outcome(fact)


QUIET_OUTCOMES = frozenset(
    {Outcome.LINKED, Outcome.CLOSED, Outcome.DUPLICATE, Outcome.STOPPING, Outcome.SELF, Outcome.IDLE}
)
"""Ordinary ends; the others are worth a warning."""


def _dialable(texts: Iterable[str]) -> tuple[Address, ...]:
    """What peers tell as ``host:port``; what is none is left out."""
    found: dict[Address, None] = {}
    for text in texts:
        try:
            address = parse_address(text)
        except ValueError:
            continue
        if address.port:
            found[address] = None
    return tuple(found)


def log_outcome(fact: LinkFact) -> None:
    """Log how a dial or an accepted connection ended."""
    level = _log.debug if fact.outcome in QUIET_OUTCOMES else _log.warning
    level(
        "link.outcome",
        service=fact.service or None,
        outcome=str(fact.outcome),
        address=fact.address,
        dialled=fact.dialled,
        detail=fact.detail or None,
        repeated=fact.repeated,
    )
