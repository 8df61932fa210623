"""Broadcasts and surveys: one question, every member.

The origin sends one frame to each node that has members; each node hands it to
its own. A broadcast is over when every node has said how many members it was
queued to; a survey when every member has answered, or at its deadline.
"""

from __future__ import annotations

from irisd.flow.outbox import REQUESTS
from irisd.model import Code, Executed, Frame, Kind
from irisd.node.addressing import NAME, PATTERN, cluster_named
from irisd.node.calls import Calls
from irisd.node.core import Core
from irisd.node.endpoints import App, Endpoint, Peer
from irisd.router import Gather, Leg

NAMES_AT_ONCE = 1000
"""Members one ACCEPTED frame names: their names are its header, and headers are bounded."""


class Gathers:
    """All calls with many targets."""

    def __init__(self, core: Core, calls: Calls) -> None:
        self._core = core
        self._calls = calls

    def open(self, source: Endpoint, frame: Frame) -> None:
        """A BROADCAST or SURVEY from an app or a peer."""
        core = self._core
        deadline = core.deadline_of(frame)
        if deadline is None:
            core.fail(source.id, frame.id, Code.INVALID, "remaining_ms is missing: every call has a deadline")
            return
        cluster = cluster_named(core, source, frame)
        if cluster is None:
            return
        kind, pattern = Kind(frame.kind), PATTERN[frame.kind]
        core.counters[f"calls.{NAME[kind]}"] += 1
        gather = Gather(source.id, frame.id, kind, deadline)
        source.opened[frame.id] = gather
        core.timers.add(gather, deadline)
        if isinstance(source, App):
            frame.member, frame.hops = source.member_name, 0
            serving = core.registry.serving(cluster)
            if not any(claim.patterns & pattern for claim in serving.values()):
                code = Code.NOT_SUPPORTED if serving else Code.NO_MEMBER
                what = f"members of {cluster!r} handle no {NAME[kind]}" if serving else f"nobody serves {cluster!r}"
                self._fail(gather, code, what)
                return
            for node, claim in serving.items():
                if node != core.identity.node_id and claim.patterns & pattern:
                    self._ask_node(gather, core.connect(node), frame, cluster)
        for member in self._calls.members.of(cluster):
            if member.patterns & pattern:
                self._ask_member(gather, member.app, frame, cluster)
        if isinstance(source, Peer):  # the origin should know whom to miss, should this link break
            names = list(gather.asked)
            for at in range(0, len(names), NAMES_AT_ONCE):
                some = tuple(names[at : at + NAMES_AT_ONCE])
                core.urgent(source, Frame(Kind.ACCEPTED, id=frame.id, members=some))
        self._settle(gather)

    def _ask_node(self, gather: Gather, peer: Peer, frame: Frame, cluster: str) -> None:
        if not peer.outbox.fits(frame, self._core.settings.peer_outbox):
            self._core.drop("peer-outbox-full")
            return
        id = peer.next_id()
        peer.given[id] = gather
        copy = frame.copy(id=id, address=cluster, hops=frame.hops + 1)
        gather.legs[peer.node, id] = Leg("", copy)
        self._core.send(peer, REQUESTS, copy)

    def _ask_member(self, gather: Gather, app: App, frame: Frame, cluster: str) -> None:
        core = self._core
        name = app.member_name
        if not app.outbox.fits(frame, core.settings.app_outbox):
            core.drop("app-outbox-full")
            if gather.kind == Kind.SURVEY:
                gather.asked[name] = None
                core.fail(gather.source, gather.source_id, Code.OVERLOADED, "its queue is full", member=name)
            return
        id = app.next_id()
        gather.count += 1
        gather.asked[name] = None
        copy = frame.copy(id=id, address=cluster, hops=frame.hops + 1)
        if gather.kind == Kind.SURVEY:
            app.given[id] = gather
            gather.legs[app.attachment, id] = Leg(name, copy)
        else:
            copy.deadline = float("inf")  # once queued, a broadcast is not late
            copy.remaining_ms = 0
        core.send(app, REQUESTS, copy)

    def accepted(self, gather: Gather, frame: Frame) -> None:
        """A node says whom it has asked."""
        gather.asked.update(dict.fromkeys(frame.members))

    def reply(self, target: Endpoint, gather: Gather, frame: Frame) -> None:
        """An answer of a member, or the end of a node's leg."""
        leg = (target.id, frame.id)
        if leg not in gather.legs:
            return
        if isinstance(target, Peer):
            self._from_node(target, gather, frame)
        else:
            del gather.legs[leg]
            target.given.pop(frame.id, None)
            if frame.kind == Kind.DONE:  # declined: counts as silence, but ends the wait
                self._settle(gather)
                return
            answer = frame.copy(id=gather.source_id, member=self._core.label(target.id))
            self._core.answer(gather.source, answer)
        self._settle(gather)

    def _from_node(self, peer: Peer, gather: Gather, frame: Frame) -> None:
        if frame.member and frame.kind in (Kind.REPLY, Kind.ERROR):
            self._core.answer(gather.source, frame.copy(id=gather.source_id))
            return
        del gather.legs[peer.node, frame.id]
        peer.given.pop(frame.id, None)
        if frame.kind == Kind.DONE:
            gather.count += frame.count
            gather.asked.update(dict.fromkeys(frame.members))

    def target_gone(self, gather: Gather, target: Endpoint, id: int) -> None:
        """A leg broke: its member failed, its node's members stay silent."""
        leg = gather.legs.pop((target.id, id), None)
        if leg is not None and not leg.name and gather.kind == Kind.BROADCAST and not leg.frame.sent:
            self._core.drop("link-lost")
        if leg is not None and leg.name:
            executed = Executed.MAYBE if leg.frame.sent else Executed.NO
            self._core.fail(
                gather.source, gather.source_id, Code.MEMBER_LOST, "the member left", executed, member=leg.name
            )
        self._settle(gather)

    def source_gone(self, gather: Gather) -> None:
        """Nobody waits for the answers any more."""
        self._close(gather)

    def cancel(self, source: Endpoint, gather: Gather) -> None:
        """The opener wants no more answers."""
        self._close(gather)
        self._core.fail(source.id, gather.source_id, Code.CANCELLED, "running", Executed.MAYBE, last=True)

    def expired(self, gather: Gather) -> None:
        """The deadline: what has come is what there is."""
        legs = len(gather.legs)
        self._close(gather)
        if gather.kind == Kind.BROADCAST and legs:
            detail = f"{legs} nodes did not confirm in time; {gather.count} members had it by then"
            self._core.fail(gather.source, gather.source_id, Code.DEADLINE_EXCEEDED, detail, Executed.MAYBE, last=True)
        else:
            self._done(gather)

    def _settle(self, gather: Gather) -> None:
        if not gather.legs:
            self._close(gather)
            self._done(gather)

    def _done(self, gather: Gather) -> None:
        told = isinstance(gather.source, int) and gather.kind == Kind.SURVEY  # a node has been told by ACCEPTED
        members = tuple(gather.asked) if told else ()
        done = Frame(Kind.DONE, id=gather.source_id, count=gather.count, members=members)
        self._core.answer(gather.source, done, last=True)

    def _fail(self, gather: Gather, code: Code, detail: str) -> None:
        self._close(gather)
        self._core.fail(gather.source, gather.source_id, code, detail)

    def _close(self, gather: Gather) -> None:
        core = self._core
        core.timers.remove(gather)
        source = core.endpoint(gather.source)
        if source is not None:
            source.opened.pop(gather.source_id, None)
        for (destination, id), leg in gather.legs.items():
            target = core.endpoint(destination)
            if target is not None and target.given.pop(id, None) is gather:
                target.outbox.withdraw(REQUESTS, leg.frame)
                if leg.frame.sent:
                    core.urgent(target, Frame(Kind.CANCEL, id=id))
        gather.legs.clear()
