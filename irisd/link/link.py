"""A link that is up, or about to be (edge): two connections, one conversation.

The daemon sees a link as a place to pull messages for and a source of messages.
Nothing is queued here. :meth:`Link.wake` says that there is something to send;
when the data connection takes it, one batch is pulled, sealed and written, and
the next is pulled when that one is on its way. Whatever has to wait waits in
the brain's outbox, where it can be ordered, dropped and counted.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from irisd.errors import WireError
from irisd.link.connection import LinkConnection
from irisd.link.heartbeat import Heartbeat
from irisd.link.outcome import LinkEnd, LinkFact, Outcome
from irisd.model import PeerInfo
from irisd.sp import Buffer, SpLimitError

BATCH_BYTES: Final = 256 * 1024
"""What one pull asks for: four records, and less than a connection may hold back."""


class LinkHandler(Protocol):
    """What a service does with its links. Called from the event loop; must not block."""

    def link_up(self, link: Link) -> None:
        """A link is up. Per peer there is at most one at any time."""

    def link_down(self, link: Link, end: LinkEnd) -> None:
        """A link that was up has ended; comes before another link with the same peer comes up."""

    def messages_received(self, link: Link, bodies: list[bytes]) -> None:
        """All messages of one read, in order."""

    def pull(self, link: Link, limit: int) -> Sequence[Sequence[Buffer]]:
        """Up to about ``limit`` bytes of messages to send, each as its parts; empty when there are none."""

    def outcome(self, fact: LinkFact) -> None:
        """What became of a dial or an accepted connection: for logs, ``doctor`` and tests."""


class Link:
    """The conversation with one peer.

    Args:
        peer: What the peer says it is.
        control: The settled control connection.
        interval: Seconds between two heartbeats.
        handler: The service.
        on_end: Called once, when this side decides that the link is over.

    Attributes:
        peer: Node id, name, incarnation, features, and the address dialled or remote.
        dialled: Whether this side dialled.
        is_up: Whether messages flow.
    """

    def __init__(
        self,
        peer: PeerInfo,
        control: LinkConnection,
        *,
        interval: float,
        handler: LinkHandler,
        on_end: Callable[[Link, LinkEnd], None],
    ) -> None:
        self.peer = peer
        self.dialled = control.dialled
        self.control = control
        self.data: LinkConnection | None = None
        self.is_up = False
        self.ended = False
        self._handler = handler
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._heartbeat = Heartbeat(
            asks=self.dialled, interval=interval, first_id=secrets.randbits(31), now=time.monotonic()
        )
        self._beat: asyncio.TimerHandle | None = None
        self._pull_is_due = False
        self._is_reading = False
        self._probed: Callable[[bool], None] | None = None

    def __repr__(self) -> str:
        state = "up" if self.is_up else "ended" if self.ended else "coming up"
        return f"<Link {self.peer.name} {self.peer.node_id.hex()[:8]} {self.peer.address} {state}>"

    @property
    def rtt(self) -> float | None:
        """Seconds the last heartbeat took, on the side that dialled."""
        return self._heartbeat.rtt

    # ------------------------------------------------- for the daemon

    def wake(self) -> None:
        """There is something to send. Cheap; call it as often as there is."""
        if not self._pull_is_due and self.is_up:
            self._pull_is_due = True
            if not self._is_reading:
                self._loop.call_soon(self._pull)

    async def close(self, reason: str = "") -> None:
        """Say goodbye and wait until the peer has read it, two seconds at most.

        What was pulled before is sent first. Cancelling stops the waiting, not the closing.
        """
        self._on_end(self, LinkEnd(Outcome.CLOSED, reason))
        await self.wait_closed()

    def abort(self, reason: str) -> None:
        """End at once: the peer broke the rules. It is told why."""
        self._on_end(self, LinkEnd(Outcome.VIOLATION, reason))

    async def wait_closed(self) -> None:
        """Wait until both sockets are gone."""
        for connection in (self.control, self.data):
            if connection is not None:
                await asyncio.shield(connection.closed)

    # ---------------------------------------------- for the node's links

    def begin(self) -> None:
        """Start the heartbeat; the control connection is open."""
        self._schedule()

    def come_up(self, data: LinkConnection) -> None:
        """The data connection is open: messages flow."""
        self.data = data
        self.is_up = True
        self._heartbeat.heard(time.monotonic())
        self._handler.link_up(self)
        self.wake()

    def finish(self) -> None:
        """It is over: no heartbeat, no probe, nothing pulled any more."""
        self.ended, self.is_up = True, False
        self._probed = None
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def probe(self, within: float, done: Callable[[bool], None]) -> None:
        """Find out whether the peer is alive; ``done`` is told unless the link ends first.

        Args:
            within: Seconds it may take to answer, if this side asks; else it is
                given the time in which it has to ask by itself.
            done: Told whether it is.
        """
        self._probed = done
        question = self._heartbeat.probe(time.monotonic(), within)
        if question is not None:
            self.control.send([question])
        self._schedule()

    def control_received(self, messages: list[bytes]) -> None:
        """Messages of the control connection: heartbeats."""
        now = time.monotonic()
        self._heartbeat.heard(now)
        for message in messages:
            try:
                answer = self._heartbeat.message_received(message, now)
            except WireError as error:
                self.abort(str(error))
                return
            # Surveys are best effort: a peer that asks and does not read is not answered into memory.
            if answer is not None and self.control.is_writable:
                self.control.send([answer])
        self._schedule()

    def data_received(self, messages: list[bytes]) -> None:
        """Messages of the data connection."""
        self._heartbeat.heard(time.monotonic())
        self._is_reading = True
        try:
            self._handler.messages_received(self, messages)
        finally:
            self._is_reading = False
        if self._pull_is_due:  # an answer need not wait for the next turn: all that was read has been handled
            self._pull()

    def _pull(self) -> None:
        self._pull_is_due = False
        data = self.data
        if not self.is_up or data is None or not data.is_writable:
            return  # when it is writable again it says so
        batch = self._handler.pull(self, BATCH_BYTES)
        if not batch:
            return
        try:
            data.send(batch)
        except SpLimitError as error:
            # The brain cuts large frames into parts: nothing it hands over can be too large for a peer.
            self.abort(f"refused to send: {error}")
            return
        self.wake()

    def _schedule(self) -> None:
        if self.ended:
            return
        verdict = self._heartbeat.probe_verdict(time.monotonic())
        if verdict is not None and self._probed is not None:
            done, self._probed = self._probed, None
            self._loop.call_soon(done, verdict)
        if self._beat is not None:
            self._beat.cancel()
        # Not call_at: a loop's own clock may be coarse and a turn old, and round trips are shorter than that.
        self._beat = self._loop.call_later(self._heartbeat.next_deadline() - time.monotonic(), self._on_beat)

    def _on_beat(self) -> None:
        self._beat = None
        question, is_silent = self._heartbeat.on_deadline(time.monotonic())
        if is_silent:
            seconds = self._heartbeat.interval * 5
            self._on_end(self, LinkEnd(Outcome.SILENT, f"nothing heard for {seconds:g} s"))
            return
        if question is not None:
            self.control.send([question])
        self._schedule()
