"""A link that is up, or about to be (edge): two connections, one conversation.

The daemon sees a link as a place to pull messages for and a source of messages.
Nothing is queued here. :meth:`Link.wake` says that there is something to send;
when the data connection takes it, one batch is pulled, sealed and written, and
the next is pulled when that one is on its way. Whatever has to wait waits in
the brain's outbox, where it can be ordered, dropped and counted.

The control connection carries heartbeats. What they say, and when a peer has
been silent for too long, is decided above: a link only passes them on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from irisd.link.connection import LinkConnection
from irisd.link.outcome import LinkEnd, LinkFact, Outcome
from irisd.model import PeerInfo
from irisd.sp import Buffer, SpLimitError

BATCH_BYTES: Final = 256 * 1024
"""What one pull asks for: four records, and less than a connection may hold back."""
PROBE_INTERVALS: Final = 2
"""Heartbeat intervals that a link that is asked about may take to show that it is alive."""


class LinkHandler(Protocol):
    """What a service does with its links. Called from the event loop; must not block."""

    def link_up(self, link: Link) -> None:
        """A link is up. Per peer there is at most one at any time."""

    def link_down(self, link: Link, end: LinkEnd) -> None:
        """A link that was up has ended; comes before another link with the same peer comes up."""

    def messages_received(self, link: Link, bodies: list[bytes]) -> None:
        """All messages of one read, in order."""

    def control_received(self, link: Link, messages: list[bytes]) -> None:
        """All messages of one read of the control connection, in order: surveys, or their answers."""

    def probe(self, link: Link) -> None:
        """Somebody wants to know now whether the peer is there: send it a question, if this side asks."""

    def pull(self, link: Link, limit: int) -> Sequence[Sequence[Buffer]]:
        """Up to about ``limit`` bytes of messages to send, each as its parts; empty when there are none."""

    def outcome(self, fact: LinkFact) -> None:
        """What became of a dial or an accepted connection: for logs, ``doctor`` and tests."""


class Link:
    """The conversation with one peer.

    Args:
        peer: What the peer says it is.
        control: The settled control connection.
        interval: Seconds between two heartbeats, as this side has them.
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
        self._drops: Counter[str] = Counter()
        self._handler = handler
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._interval = interval
        self._pull_is_due = False
        self._is_reading = False
        self._probed: Callable[[bool], None] | None = None
        self._probe_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "up" if self.is_up else "ended" if self.ended else "coming up"
        return f"<Link {self.peer.name} {self.peer.node_id.hex()[:8]} {self.peer.address} {state}>"

    # ------------------------------------------------- for the daemon

    @property
    def drops(self) -> Counter[str]:
        """What was dropped here, by reason."""
        too_far = sum(each.hop_drops for each in (self.control, self.data) if each is not None)
        return self._drops + Counter({"hop-limit": too_far})

    def wake(self) -> None:
        """There is something to send. Cheap; call it as often as there is.

        The first goes out at once, what comes while the loop is still at the same turn goes out together.
        """
        if not self._pull_is_due and self.is_up:
            self._pull_is_due = True
            if not self._is_reading:
                self._pull()

    def send_control(self, parts: Sequence[Buffer]) -> None:
        """Send one message on the control connection, now or not at all.

        Surveys are best effort: a peer that does not read them has none kept for it in memory.
        """
        if not self.is_up or not self.control.is_writable:
            self._drops["heartbeat-unsent"] += 1
            return
        try:
            self.control.send([parts])
        except SpLimitError as error:
            self.abort(f"refused to send: {error}")

    async def close(self, reason: str = "") -> None:
        """Say goodbye and wait until the peer has read it, two seconds at most.

        What was pulled before is sent first. Cancelling stops the waiting, not the closing.
        """
        self._on_end(self, LinkEnd(Outcome.CLOSED, reason))
        await self.wait_closed()

    def close_now(self, outcome: Outcome, reason: str) -> None:
        """End for a reason that is nobody's fault: ``SILENT`` or ``IDLE``. The peer is told, and not waited for."""
        self._on_end(self, LinkEnd(outcome, reason))

    def abort(self, reason: str) -> None:
        """End at once: the peer broke the rules. It is told why."""
        self._on_end(self, LinkEnd(Outcome.VIOLATION, reason))

    async def wait_closed(self) -> None:
        """Wait until both sockets are gone."""
        for connection in (self.control, self.data):
            if connection is not None:
                await asyncio.shield(connection.closed)

    # ---------------------------------------------- for the node's links

    def come_up(self, data: LinkConnection) -> None:
        """The data connection is open: messages flow."""
        self.data = data
        self.is_up = True
        self._handler.link_up(self)
        self.wake()

    def finish(self) -> None:
        """It is over: no probe, nothing pulled any more."""
        self.ended, self.is_up = True, False
        self._probed = None
        self._stop_probe()

    def probe(self, within: float, done: Callable[[bool], None]) -> None:
        """Find out whether the peer is alive; ``done`` is told unless the link ends first.

        Args:
            within: Seconds it may take to answer, if this side asks; else it is
                given the time in which it has to ask by itself.
            done: Told whether it is.
        """
        patience = PROBE_INTERVALS * self._interval
        if self.dialled:
            patience = min(patience, within)
        self._stop_probe()
        self._probed = done
        self._probe_timer = self._loop.call_later(patience, self._probe_over, False)
        self._handler.probe(self)

    def control_received(self, messages: list[bytes]) -> None:
        """Messages of the control connection. Those that are early are dropped: the peer asks again."""
        if not self.is_up:
            self._drops["heartbeat-early"] += len(messages)
            return
        self._handler.control_received(self, messages)
        self._probe_over(True)

    def data_received(self, messages: list[bytes]) -> None:
        """Messages of the data connection."""
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
        self._pull_is_due = True
        self._loop.call_soon(self._pull)

    def _probe_over(self, alive: bool) -> None:
        done, self._probed = self._probed, None
        self._stop_probe()
        if done is not None:
            self._loop.call_soon(done, alive)

    def _stop_probe(self) -> None:
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None
