"""A node that drains: what it tells whom, and when nothing more can be on its way to it.

Stop taking, finish giving. Its claims are withdrawn and its apps are told; from
then on calls still come from those who did not know yet, and are given back as
not run. It may leave when nothing is under way and both sides have said their
last: every peer has acknowledged the withdrawal, which it does behind the calls
it had sent before, and every app has answered GOODBYE, or was silent for a while if
it did not say in its HELLO that it answers.
"""

from __future__ import annotations

from typing import Final

from irisd.node.attachments import Attachments
from irisd.node.core import Core
from irisd.node.endpoints import App, Endpoint, Peer
from irisd.node.members import Members
from irisd.node.views import Views

LAST_CALLS: Final = "last calls"
SILENCE: Final = 1.0
"""Seconds without a frame after which an app that does not answer GOODBYE is taken to have said its last."""
LOOKS: Final = 8
"""How often within that its silence is looked at."""


class Draining:
    """The drain of one node.

    Args:
        core: Shared state.
        views: Tells the peers.
        attachments: Tells the apps.
        members: Calls wait here for their slots.
    """

    def __init__(self, core: Core, views: Views, attachments: Attachments, members: Members) -> None:
        self._core = core
        self._views = views
        self._attachments = attachments
        self._members = members
        self._began = 0.0
        self._version = 0

    def begin(self) -> None:
        """Take no new work."""
        core = self._core
        core.draining = True
        self._views.set_draining()
        self._attachments.withdraw_all()
        self._began, self._version = core.now, core.record.version
        self.look_again()

    def look_again(self) -> None:
        """Apps may have fallen silent: nothing else would say so."""
        self._core.timers.add(LAST_CALLS, self._core.now + SILENCE / LOOKS)

    @property
    def under_way(self) -> int:
        """Calls and tunnels that involve this node, and topics held for slow subscribers."""
        given = sum(len(endpoint.given) for endpoint in self._endpoints)
        return given + self._members.waiting + self._core.counters["held.topics"]

    @property
    def done(self) -> bool:
        """Whether it may leave and nobody misses anything."""
        core = self._core
        if not core.draining or self.under_way or any(each.outbox or each.assembler for each in self._endpoints):
            return False
        return all(map(self._has_acknowledged, core.peers.values())) and all(map(self._is_silent, core.apps.values()))

    @property
    def _endpoints(self) -> list[Endpoint]:
        return [*self._core.apps.values(), *self._core.peers.values()]

    def _has_acknowledged(self, peer: Peer) -> bool:
        return not peer.linked or peer.acknowledged >= self._version

    def _is_silent(self, app: App) -> bool:
        silent = self._core.now - max(self._began, app.last_heard) >= SILENCE
        return app.goodbye or (silent and not app.answers)
