"""One service of this daemon: its node, and the edges that are wired to it.

Everything that happens to the node goes through :meth:`Service.apply`: it
carries out the effects, keeps the one timer, and tells whoever waits for quiet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from irisd.attach import Attachment
from irisd.effects import Detach, Effect, Fact, Unlink, Wake
from irisd.keys import Keyring
from irisd.link.link import Link
from irisd.link.outcome import LinkEnd, LinkFact, Outcome
from irisd.model import PART_BYTES, Frame, NodeId
from irisd.node import Node
from irisd.wire import WireError, decode_frame, encode_parts

_log = structlog.get_logger("irisd")


class Service:
    """A node and its wiring; implements what links and attachments call.

    Args:
        node: The brain.
        keyring: The service's keys.
        clock: Monotonic seconds.
        linked: Told of each link that its service's name, the peer's id, whether it is up now, and whether
            the peer said goodbye.
    """

    def __init__(
        self, node: Node, keyring: Keyring, clock: Callable[[], float], linked: Callable[[str, bytes, bool, bool], None]
    ) -> None:
        self.node = node
        self.keyring = keyring
        self.name = node.identity.service
        self.started = clock()
        self._clock = clock
        self._linked = linked
        self._links: dict[NodeId, Link] = {}
        self._attachments: dict[int, Attachment] = {}
        self._dials: dict[str, Outcome] = {}  # how the last dial of each address ended
        self._max_frame = max(node.core.settings.max_body, PART_BYTES)  # what is too large is answered, not unlinked
        self._timer: asyncio.TimerHandle | None = None
        self._quiet = asyncio.Event()
        self._log = _log.bind(service=self.name)

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
            elif type(effect) is Unlink:
                link = self._links.get(effect.peer)
                if link is not None:
                    self._log.warning("link.violation", peer=link.peer.name, rule=effect.reason)
                    link.abort(effect.reason)
            elif type(effect) is Fact:
                self._log.info(effect.event, **effect.fields)
        self._set_timer()
        if self.node.core.draining:
            self._look_for_quiet()

    def _set_timer(self) -> None:
        deadline = self.node.next_deadline()
        timer = self._timer
        if timer is not None:
            if deadline is not None and timer.when() <= deadline:
                return  # it fires early at most, and is set anew then
            timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.apply(self.node.on_deadline(self._clock()))

    def close(self) -> None:
        """Stop the timer; nothing is applied after this."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- draining

    def drain(self) -> None:
        """Take no new work; apps and peers are told."""
        self.apply(self.node.drain(self._clock()))

    async def quiet(self) -> None:
        """Wait until nothing is under way and nothing waits to leave. Only after :meth:`drain`."""
        self._look_for_quiet()
        await self._quiet.wait()

    def _look_for_quiet(self) -> None:
        core = self.node.core
        endpoints = (*core.apps.values(), *core.peers.values())
        if self.node.under_way or any(endpoint.outbox for endpoint in endpoints):
            self._quiet.clear()
        else:
            self._quiet.set()

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
        self._links[link.peer.node_id] = link
        self._log.info("link.up", peer=link.peer.name, node=link.peer.node_id.hex()[:8], address=link.peer.address)
        self.apply(self.node.link_up(link.peer, self._clock()))
        self._linked(self.name, link.peer.node_id, True, False)

    def link_down(self, link: Link, end: LinkEnd) -> None:
        """A link has ended."""
        if self._links.get(link.peer.node_id) is link:
            del self._links[link.peer.node_id]
        self._log.info("link.down", peer=link.peer.name, node=link.peer.node_id.hex()[:8], reason=str(end))
        left = end.outcome in (Outcome.CLOSED, Outcome.STOPPING)
        self.apply(self.node.link_down(link.peer.node_id, str(end), self._clock(), left=left))
        self._linked(self.name, link.peer.node_id, False, left)

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
            self._dials[fact.address] = fact.outcome
            if again and fact.outcome not in QUIET_OUTCOMES:
                return
        log_outcome(fact)


QUIET_OUTCOMES = frozenset({Outcome.LINKED, Outcome.CLOSED, Outcome.DUPLICATE, Outcome.STOPPING, Outcome.SELF})
"""Ordinary ends; the others are worth a warning."""


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
