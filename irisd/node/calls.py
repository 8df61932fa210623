"""Requests, pushes and the opening of tunnels: one target at a time, at most once per attempt.

The origin chooses the node, the node chooses its member. An attempt that
provably did not run (still queued here, or the far node says so) is tried
elsewhere; after ``sent`` only an idempotent request is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from irisd.flow.outbox import REQUESTS
from irisd.model import Code, Executed, Frame, Kind, NodeId
from irisd.node.core import Core
from irisd.node.endpoints import App, Endpoint, Member, Peer
from irisd.node.waiting import PATTERN, Waiting
from irisd.router import Call, CallState, least_outstanding
from irisd.router.names import BadName, parse_address

NAME = {
    Kind.REQUEST: "requests",
    Kind.PUSH: "pushes",
    Kind.TUNNEL: "tunnels",
    Kind.BROADCAST: "broadcasts",
    Kind.SURVEY: "surveys",
}
ACCEPTED = -1
"""In place of a source's id: a push whose caller has its answer already."""

ELSEWHERE = frozenset({Code.OVERLOADED, Code.MEMBER_LOST, Code.NO_MEMBER, Code.NOT_SUPPORTED})
"""Failures another node may not share."""


class Calls:
    """All calls with one target. ``opened`` is told when a tunnel's member accepts."""

    def __init__(self, core: Core, accepted: Callable[[Call, Endpoint, Frame], None]) -> None:
        self._core = core
        self._accepted = accepted
        self._members: dict[str, list[Member]] = {}
        self._waiting: dict[str, Waiting] = {}
        self._holders: dict[Call, Member] = {}  # whose slot a call has

    # -- members of this node's own clusters

    def members(self, cluster: str) -> list[Member]:
        """This node's members of a cluster that take new work."""
        return self._members.get(cluster, [])

    def add_member(self, member: Member) -> None:
        """A member takes work from now on."""
        self._members.setdefault(member.cluster, []).append(member)
        member.taking = True
        self._feed(member)

    def remove_member(self, member: Member) -> None:
        """A member takes no new work; what it has may still be answered."""
        if not member.taking:
            return
        member.taking = False
        members = self._members[member.cluster]
        members.remove(member)
        patterns = 0
        for other in members:
            patterns |= other.patterns
        waiting = self._waiting.get(member.cluster)
        if not members:
            del self._members[member.cluster]
            self._waiting.pop(member.cluster, None)
        code = Code.NOT_SUPPORTED if members else Code.NO_MEMBER
        for call in waiting.hopeless(patterns) if waiting else ():
            self._failed(call, code, Executed.NO, f"no member of {call.cluster!r} that handles it is left on its node")

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return sum(map(len, self._waiting.values()))

    # -- a call comes in

    def open(self, source: Endpoint, frame: Frame) -> None:
        """A REQUEST, PUSH or TUNNEL from an app or a peer."""
        core = self._core
        deadline = core.deadline_of(frame)
        if deadline is None:
            core.fail(source.id, frame.id, Code.INVALID, "remaining_ms is missing: every call has a deadline")
            return
        cluster = cluster_named(core, source, frame)
        if cluster is None:
            return
        call = Call(source.id, frame.id, isinstance(source, App), frame, cluster, deadline)
        source.opened[frame.id] = call
        core.timers.add(call, deadline)
        core.counters[f"calls.{NAME[Kind(frame.kind)]}"] += 1
        if call.origin:
            frame.member, frame.hops = core.label(source.id), 0
            self._dispatch(call)
        else:
            self._hand(call)

    def _dispatch(self, call: Call) -> None:
        """The origin chooses a node."""
        core = self._core
        own = core.identity.node_id
        pattern = PATTERN[Kind(call.frame.kind)]
        serving = core.registry.serving(call.cluster)
        able = [node for node, claim in serving.items() if claim.patterns & pattern]
        untried = [node for node in able if node not in call.tried]
        if not untried:
            if call.attempts:
                self._end(call, Code.MEMBER_LOST, call.executed, "every member that could be tried was lost")
            elif serving:
                self._end(
                    call,
                    Code.NOT_SUPPORTED,
                    Executed.NO,
                    f"members of {call.cluster!r} handle no {NAME[Kind(call.frame.kind)]}",
                )
            else:
                self._end(call, Code.NO_MEMBER, Executed.NO, f"nobody serves {call.cluster!r}")
            return

        def load(node: NodeId) -> float:
            if node == own:
                under_way = sum(member.outstanding for member in self.members(call.cluster))
                waiting = self._waiting.get(call.cluster)
                under_way += len(waiting) if waiting else 0
            else:
                peer = core.peers.get(node)
                under_way = peer.outstanding.get(call.cluster, 0) if peer is not None else 0
            return under_way / serving[node].members

        node = least_outstanding(core.sound(untried), load, core.rng)
        assert node is not None, "untried is not empty"
        call.attempts += 1
        if node == own:
            call.tried.add(own)
            self._hand(call)
            return
        peer = core.connect(node)
        if not peer.outbox.fits(call.frame, core.settings.peer_outbox):
            core.drop("peer-outbox-full")
            call.tried.add(node)
            self._failed(call, Code.OVERLOADED, Executed.NO, f"the queue towards {peer.info.name} is full")
            return
        call.tried.add(node)
        peer.outstanding[call.cluster] = peer.outstanding.get(call.cluster, 0) + 1
        self._give(call, peer)

    def _hand(self, call: Call) -> None:
        """This node chooses one of its members, or lets the call wait for a slot."""
        pattern = PATTERN[Kind(call.frame.kind)]
        members = self.members(call.cluster)
        able = [member for member in members if member.patterns & pattern]
        if not able:
            code = Code.NOT_SUPPORTED if members else Code.NO_MEMBER
            self._failed(call, code, Executed.NO, f"no member of {call.cluster!r} on its node handles that")
            return
        free = [m for m in able if m.outstanding < m.concurrency and m.app.id not in call.tried]
        if call.frame.kind == Kind.TUNNEL:
            free = able  # a tunnel is bounded by its window, and lives long: it takes no slot
        member = least_outstanding(free, lambda m: m.load, self._core.rng)
        if member is not None:
            self._give_member(call, member)
            return
        waiting = self._waiting.setdefault(call.cluster, Waiting())
        if not waiting.fits(call.frame, self._core.settings.request_queue):
            self._core.drop("request-queue-full")
            self._failed(call, Code.OVERLOADED, Executed.NO, f"the queue of {call.cluster!r} at its node is full")
            return
        call.state, call.target = CallState.WAITING, None
        waiting.push(call)
        self._queued(call)

    def _give_member(self, call: Call, member: Member) -> None:
        if not member.app.outbox.fits(call.frame, self._core.settings.app_outbox):
            self._core.drop("app-outbox-full")
            self._failed(call, Code.OVERLOADED, Executed.NO, f"the queue towards {member.app.member_name} is full")
            return
        if call.frame.kind != Kind.TUNNEL:
            member.outstanding += 1
            self._holders[call] = member
        self._queued(call)
        self._give(call, member.app)

    def _queued(self, call: Call) -> None:
        """A push has arrived once its member's node has it: the caller need not wait for the handler."""
        if call.frame.kind != Kind.PUSH or call.source_id == ACCEPTED:
            return
        self._forget(call)
        self._core.answer(call.source, Frame(Kind.DONE, id=call.source_id, count=1))
        call.source_id = ACCEPTED
        call.deadline = math.inf  # it bounded the way here, not the handler

    def _give(self, call: Call, target: Endpoint) -> None:
        id = target.next_id()
        call.state, call.target, call.target_id = CallState.GIVEN, target.id, id
        hops = call.frame.hops + 1
        call.attempt = call.frame.copy(id=id, hops=hops, address=call.cluster, deadline=call.deadline)
        if call.deadline == math.inf:
            call.attempt.remaining_ms = 0
        target.given[id] = call
        self._core.send(target, REQUESTS, call.attempt)

    # -- what comes back

    def reply(self, target: Endpoint, call: Call, frame: Frame) -> None:
        """A REPLY, DONE or ERROR of whoever the call was given to."""
        self._released(call)
        if call.cancelled:
            return
        member = target.member_name if isinstance(target, App) else frame.member
        if frame.kind == Kind.ERROR:
            executed = Executed(frame.executed) if frame.executed in (1, 2, 3) else Executed.MAYBE
            if executed is Executed.NO and frame.code == Code.NO_MEMBER and isinstance(target, App):  # it is leaving
                call.tried.add(target.id)
                if self._another(call):
                    self._hand(call)
                    return
            self._failed(call, frame.code, executed, frame.detail, frame.copy(member=member))
            return
        if frame.kind == Kind.DONE and call.frame.kind == Kind.PUSH:
            self._queued(call)  # a peer's: the push lies with its member; a member's: it was handled
            self._forget(call)
            return
        if call.frame.kind != Kind.REQUEST or frame.kind != Kind.REPLY:
            self._failed(
                call, Code.HANDLER_FAILED, Executed.MAYBE, "the member answered with a frame that is no answer"
            )
            return
        self._forget(call)
        self._core.answer(call.source, frame.copy(id=call.source_id, member=member))

    def credit(self, target: Endpoint, call: Call, frame: Frame) -> None:
        """The first CREDIT of a tunnel's member accepts it."""
        if call.frame.kind != Kind.TUNNEL:
            return
        self._released(call)
        if call.cancelled:
            return
        self._forget(call)
        self._accepted(call, target, frame)

    # -- what goes wrong

    def cancel(self, source: Endpoint, call: Call) -> None:
        """The opener no longer wants it: out of the queue, or on to whoever has it."""
        self._stop(call)
        self._forget(call)
        executed = call.executed
        word = "dequeued" if executed is Executed.NO else "running"
        self._core.fail(source.id, call.source_id, Code.CANCELLED, word, executed)

    def expired(self, call: Call) -> None:
        """The deadline passed before an answer came."""
        self._stop(call)
        self._end(call, Code.DEADLINE_EXCEEDED, call.executed, f"no answer from {call.cluster!r} in time")

    def source_gone(self, call: Call) -> None:
        """Whoever asked has left; a push already accepted goes on."""
        if call.source_id == ACCEPTED:
            return
        self._stop(call)
        self._forget(call)

    def target_gone(self, call: Call, target: Endpoint) -> None:
        """Whoever had it has left. Unsent means not run."""
        executed = call.executed
        call.target, call.state, call.attempt = None, CallState.WAITING, None
        if isinstance(target, Peer):
            self._count_down(target, call.cluster)
        elif (holder := self._holders.pop(call, None)) is not None:
            holder.outstanding -= 1
        if call.cancelled:
            return
        call.exposed = executed is not Executed.NO
        if isinstance(target, App):
            call.tried.add(target.id)
            if self._another(call) and (executed is Executed.NO or self._may_repeat(call)):
                call.attempts += 1
                self._hand(call)
                return
        what = "member" if isinstance(target, App) else "node"
        self._failed(call, Code.MEMBER_LOST, executed, f"the {what} that had the call was lost")

    def _another(self, call: Call) -> bool:
        """Whether this node has a member that was not tried yet."""
        pattern = PATTERN[Kind(call.frame.kind)]
        return any(m.patterns & pattern and m.app.id not in call.tried for m in self.members(call.cluster))

    def _may_repeat(self, call: Call) -> bool:
        return call.frame.idempotent and call.attempts < self._core.settings.attempts

    def _stop(self, call: Call) -> None:
        """Take it back if it has not left; else tell whoever has it."""
        if call.state is CallState.WAITING:
            waiting = self._waiting.get(call.cluster)
            if waiting is not None:
                waiting.remove(call)
            return
        target = self._core.endpoint(call.target) if call.target is not None else None
        if target is None or call.attempt is None:
            return
        taken_back = target.outbox.withdraw(REQUESTS, call.attempt)
        if call.attempt.sent:
            self._core.urgent(target, Frame(Kind.CANCEL, id=call.target_id))
        if taken_back:  # its first parts may have left, but no handler can have had it
            call.attempt = None
        elif isinstance(target, App):
            call.cancelled = True  # its slot stays taken until the handler has ended
            return
        target.given.pop(call.target_id, None)
        self._released(call)

    def _failed(self, call: Call, code: int, executed: Executed, detail: str, frame: Frame | None = None) -> None:
        """One attempt failed: try elsewhere if that is safe and useful, else the call has failed."""
        call.attempt = None
        call.exposed = call.exposed or executed is not Executed.NO
        again = executed is Executed.NO or (call.frame.idempotent and code == Code.MEMBER_LOST)
        if (
            call.origin
            and again
            and code in ELSEWHERE
            and call.source_id != ACCEPTED
            and call.attempts < self._core.settings.attempts
            and self._untried(call)
        ):
            self._core.counters["calls.retried"] += 1
            self._dispatch(call)
            return
        self._end(call, code, executed, detail, frame)

    def _untried(self, call: Call) -> bool:
        pattern = PATTERN[Kind(call.frame.kind)]
        serving = self._core.registry.serving(call.cluster)
        return any(claim.patterns & pattern and node not in call.tried for node, claim in serving.items())

    def _end(self, call: Call, code: int, executed: Executed, detail: str, frame: Frame | None = None) -> None:
        self._forget(call)
        if executed is Executed.NO:
            executed = call.executed  # of all attempts
        if call.source_id == ACCEPTED:
            self._core.drop("push-failed" if executed is Executed.YES else "push-lost")
        elif frame is not None:
            self._core.answer(call.source, frame.copy(id=call.source_id, executed=executed))
        else:
            self._core.fail(call.source, call.source_id, Code(code), detail, executed)

    def _forget(self, call: Call) -> None:
        """The source's side is over; the target's is :meth:`_released`'s matter."""
        self._core.timers.remove(call)
        source = self._core.endpoint(call.source)
        if source is not None and source.opened.get(call.source_id) is call:
            del source.opened[call.source_id]

    def _released(self, call: Call) -> None:
        """The target is done with it: free its slot, let the next one in."""
        if call.target is None or call.state is not CallState.GIVEN:
            return
        target = self._core.endpoint(call.target)
        call.state = CallState.WAITING
        if target is None:
            return
        target.given.pop(call.target_id, None)
        if isinstance(target, Peer):
            self._count_down(target, call.cluster)
        elif (holder := self._holders.pop(call, None)) is not None:
            holder.outstanding -= 1
            self._feed(holder)

    def _feed(self, member: Member) -> None:
        """A slot is free: hand it what waits."""
        waiting = self._waiting.get(member.cluster)
        while waiting is not None and member.taking and member.outstanding < member.concurrency:
            call = waiting.pop(member.patterns)
            if call is None:
                return
            if call.deadline > self._core.now:  # else its timer answers
                self._give_member(call, member)

    @staticmethod
    def _count_down(peer: Peer, cluster: str) -> None:
        left = peer.outstanding.get(cluster, 0) - 1
        if left > 0:
            peer.outstanding[cluster] = left
        else:
            peer.outstanding.pop(cluster, None)


def cluster_named(core: Core, source: Endpoint, frame: Frame) -> str | None:
    """The cluster a call is addressed to; answers the call itself when there is no such place."""
    try:
        service, cluster, cloud = parse_address(frame.address)
    except BadName as error:
        core.fail(source.id, frame.id, Code.INVALID, str(error))
        return None
    identity = core.identity
    if service and service != identity.service:
        core.fail(
            source.id, frame.id, Code.NO_MEMBER, f"service {service!r} is not reachable from {identity.service!r}"
        )
        return None
    if cloud and cloud != identity.cloud:
        core.fail(source.id, frame.id, Code.NO_MEMBER, f"cloud {cloud!r} is not reachable from {identity.cloud!r}")
        return None
    return cluster
