"""A second attempt beside the first, for an idempotent request that is not answered in the time its caller gave.

Source: J. Dean, L. A. Barroso, "The Tail at Scale", 2013: hedged requests.
"""

from __future__ import annotations

from collections.abc import Callable

from irisd.model import Executed, Kind, Pattern
from irisd.node.core import Core
from irisd.node.endpoints import App
from irisd.node.members import Members
from irisd.node.places import Place, Places
from irisd.router import Call, CallState, Hedge


class Hedges:
    """Of this node's own apps.

    Args:
        core: Shared state.
        members: To find out whose slot a call has.
        places: To choose another node.
        go: Gives a call to a node.
        forget: Ends an attempt, for its source.
    """

    def __init__(
        self,
        core: Core,
        members: Members,
        places: Places,
        go: Callable[[Call, Place], None],
        forget: Callable[[Call], None],
    ) -> None:
        self._core = core
        self._members = members
        self._places = places
        self._go = go
        self._forget = forget

    def plan(self, call: Call) -> None:
        """A call begins: if it may be hedged, note when."""
        frame = call.frame
        if frame.hedge_ms and frame.idempotent and frame.kind == Kind.REQUEST:
            call.hedge = Hedge(call)
            self._core.timers.add(call.hedge, self._core.now + frame.hedge_ms / 1000)

    def drop(self, call: Call) -> None:
        """A call is over."""
        if call.hedge is not None:
            self._core.timers.remove(call.hedge)
            call.hedge = None

    def due(self, hedge: Hedge) -> None:
        """A call is still not answered: ask a second member, if there is one. The first answer counts."""
        core, call = self._core, hedge.call
        call.hedge = None
        source = core.endpoint(call.source)
        if call.state is not CallState.GIVEN or call.rival is not None or not isinstance(source, App):
            return  # one that waits for a slot would not get another one sooner
        twin = Call(call.source, call.source_id, True, call.frame, call.cluster, call.deadline)
        twin.tried, twin.attempts = set(call.tried), call.attempts
        untried = self._places.untried(call, Pattern.REQUEST)
        if untried:
            place = self._places.choose(call, untried)
        else:  # the same node, but another member: which one not, its own node knows
            there = self._places.of(call.cluster).places.get(call.place)
            if there is None or there.claim.members < 2:
                return
            place = there
            if (holder := self._members.holder(call)) is not None:
                twin.tried.add(holder.app.attachment)
            twin.frame = call.frame.copy(count=call.target_id)
        if not source.retries.spend(core.now):
            core.counters["calls.retries-refused"] += 1
            return
        core.counters["calls.hedged"] += 1
        call.rival, twin.rival = twin, call
        self._go(twin, place)

    def survives(self, call: Call) -> bool:
        """An attempt has failed: whether there is a second one, which goes on alone."""
        rival = call.rival
        if rival is None:
            return False
        call.rival = rival.rival = None
        rival.exposed = rival.exposed or call.executed is not Executed.NO
        self._forget(call)
        source = self._core.endpoint(call.source)
        if source is not None:
            source.opened[rival.source_id] = rival
        self._core.timers.add(rival, rival.deadline)
        return True
