"""Requests, pushes and the opening of tunnels: one target at a time, at most once per attempt.

The origin chooses the node, the node chooses its member. An attempt that
provably did not run (still queued here, or the far node says so) is tried
elsewhere; after ``sent`` only an idempotent request is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from irisd.flow.outbox import REQUESTS
from irisd.model import MAX_BALANCE, Code, Executed, Frame, Kind
from irisd.node.addressing import COUNTER, NAME, cluster_named, kind_of, needed
from irisd.node.core import Core
from irisd.node.endpoints import App, Endpoint, Member, Peer
from irisd.node.hedges import Hedges
from irisd.node.members import Members, Trial
from irisd.node.outcomes import ELSEWHERE, LATE, MOST_HERE, ended_by
from irisd.node.places import Place, Places
from irisd.router import MAX_KEY, Call, CallState, Ended

ACCEPTED = -1
"""In place of a source's id: a push whose caller has its answer already."""


class Calls:
    """All calls with one target. ``opened`` is told when a tunnel's member accepts."""

    def __init__(self, core: Core, accepted: Callable[[Call, Endpoint, Frame], None]) -> None:
        self._core = core
        self._accepted = accepted
        self.members = Members(core)
        self.places = Places(core, self.members)
        self.hedges = Hedges(core, self.members, self.places, self._go, self._forget)

    # -- members of this node's own clusters

    def add_member(self, member: Member) -> None:
        """A member takes work from now on."""
        self.members.add(member)
        self._feed(member)

    def remove_member(self, member: Member) -> None:
        """A member takes no new work; what it has may still be answered."""
        orphaned, hopeless = self.members.remove(member)
        for call in orphaned:
            self._hand(call)
        self.members_changed(member.cluster)
        code = Code.NOT_SUPPORTED if self.members.of(member.cluster) else Code.NO_MEMBER
        for call in hopeless:
            self._failed(call, code, Executed.NO, f"no member of {call.cluster!r} that handles it is left on its node")

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
        if len(frame.key) > MAX_KEY or frame.balance > MAX_BALANCE:
            rule = (
                f"key: at most {MAX_KEY} bytes" if len(frame.key) > MAX_KEY else f"balance: {frame.balance} is unknown"
            )
            core.fail(source.id, frame.id, Code.INVALID, rule)
            return
        call = Call(source.id, frame.id, isinstance(source, App), frame, cluster, deadline)
        source.opened[frame.id] = call
        core.timers.add(call, deadline)
        core.counters[COUNTER[kind_of(frame)]] += 1
        if isinstance(source, App):
            frame.member, frame.hops, frame.count = source.member_name, 0, 0
            source.retries.earn()
            self.hedges.plan(call)
            self._dispatch(call)
        else:
            self._shun(source, call)
            self._hand(call)

    def _shun(self, source: Endpoint, call: Call) -> None:
        """A second attempt names the first by its id: not the same member again."""
        first = source.opened.get(call.frame.count) if call.frame.count else None
        holder = self.members.holder(first) if isinstance(first, Call) else None
        if holder is not None:
            call.tried.add(holder.app.attachment)

    def _dispatch(self, call: Call) -> None:
        """The origin chooses a node."""
        core = self._core
        untried = self.places.untried(call, needed(call.frame))
        if not untried:
            serving = core.registry.serving(call.cluster)
            if call.attempts:
                self._end(call, Code.MEMBER_LOST, call.executed, "every member that could be tried was lost")
            elif serving:
                size = " of this size" if call.frame.carries else ""
                what = f"members of {call.cluster!r} handle no {NAME[kind_of(call.frame)]}{size}"
                self._end(call, Code.NOT_SUPPORTED, Executed.NO, what)
            else:
                self._end(call, Code.NO_MEMBER, Executed.NO, f"nobody serves {call.cluster!r}")
            return
        self._go(call, self.places.choose(call, untried))

    def _go(self, call: Call, place: Place) -> None:
        """On to the node that was chosen."""
        core, node = self._core, place.node
        call.attempts += 1
        call.tried.add(node)
        if node == core.identity.node_id:
            self._gave(call, place)
            self._hand(call)
            return
        peer = core.connect(node)
        if not peer.outbox.fits(call.frame, core.settings.peer_outbox):
            core.drop("peer-outbox-full")
            self._failed(call, Code.OVERLOADED, Executed.NO, f"the queue towards {peer.info.name} is full")
            return
        self._gave(call, place)
        self._give(call, peer)

    def _gave(self, call: Call, place: Place) -> None:
        call.place = place.node
        self.places.gave(call, place)

    def _hand(self, call: Call) -> None:
        """This node chooses one of its members, or lets the call wait for a slot."""
        members = self.members
        if not members.can(call):
            code = Code.NOT_SUPPORTED if members.of(call.cluster) else Code.NO_MEMBER
            self._failed(call, code, Executed.NO, f"no member of {call.cluster!r} on its node handles that")
            return
        member = members.pick(call)
        if member is None:
            call.state, call.target = CallState.WAITING, None
            if members.wait(call):
                self._queued(call)
                return
            member = members.last_resort(call)
        if member is None:
            self._core.drop("request-queue-full")
            self._failed(call, Code.OVERLOADED, Executed.NO, f"{call.cluster!r} takes no more at its node")
            return
        self._give_member(call, member)

    def _give_member(self, call: Call, member: Member) -> None:
        if not member.app.outbox.fits(call.frame, self._core.settings.app_outbox):
            self._core.drop("app-outbox-full")
            self._failed(call, Code.OVERLOADED, Executed.NO, f"the queue towards {member.app.member_name} is full")
            return
        if kind_of(call.frame) != Kind.TUNNEL:
            self.members.took(call, member)
        self._queued(call)
        self._give(call, member.app)

    def _queued(self, call: Call) -> None:
        """A push has arrived once its member's node has it: the caller need not wait for the handler."""
        if call.frame.kind != Kind.PUSH or call.source_id == ACCEPTED:
            return
        self._forget(call)
        self.places.accepted(call)
        self._core.answer(call.source, Frame(Kind.DONE, id=call.source_id, count=1))
        call.source_id = ACCEPTED
        call.deadline = math.inf  # it bounded the way here, not the handler

    def _give(self, call: Call, target: Endpoint) -> None:
        id = target.next_id()
        call.state, call.target, call.target_id = CallState.GIVEN, target.id, id
        hops = call.frame.hops + 1
        call.attempt = call.frame.copy(id=id, hops=hops, address=call.cluster, deadline=call.deadline)
        if isinstance(target, App):
            call.attempt.count = 0
        if call.deadline == math.inf:
            call.attempt.remaining_ms = 0
        target.given[id] = call
        self._core.send(target, REQUESTS, call.attempt)

    # -- what comes back

    def reply(self, target: Endpoint, call: Call, frame: Frame) -> None:
        """A REPLY, DONE or ERROR of whoever the call was given to."""
        ended = Ended.OTHERWISE if call.late else ended_by(frame)  # that was judged when its time was over
        self._released(call, ended)
        if call.cancelled:
            if frame.kind == Kind.REPLY:
                self._core.drop("answer-late")
            return
        self._left(call, ended, busy=frame.concurrency if isinstance(target, Peer) else -1)
        member = target.member_name if isinstance(target, App) else frame.member
        if frame.kind == Kind.ERROR:
            executed = Executed(frame.executed) if frame.executed in (1, 2, 3) else Executed.MAYBE
            if executed is Executed.NO and frame.code in ELSEWHERE and isinstance(target, App):
                call.tried.add(target.id)
                call.refusals += frame.code != Code.NO_MEMBER  # that one is leaving
                if call.refusals < MOST_HERE and self._another(call):
                    self._hand(call)
                    return
            self._failed(call, frame.code, executed, frame.detail, frame.copy(member=member))
            return
        if frame.kind == Kind.DONE and call.frame.kind == Kind.PUSH:
            self._queued(call)  # a peer's: the push lies with its member; a member's: it was handled
            self._forget(call)
            return
        if kind_of(call.frame) != Kind.REQUEST or frame.kind != Kind.REPLY:
            self._failed(
                call, Code.HANDLER_FAILED, Executed.MAYBE, "the member answered with a frame that is no answer"
            )
            return
        self._forget(call)
        frame.member = member
        self._answer(call, frame)

    def credit(self, target: Endpoint, call: Call, frame: Frame) -> None:
        """The first CREDIT of a tunnel's member accepts it; that of a request's begins a large reply."""
        carried = kind_of(call.frame) == Kind.REQUEST and bool(call.frame.carries or call.frame.max_large)
        if call.frame.kind != Kind.TUNNEL and not carried:
            return
        if not carried:
            self._released(call, Ended.OTHERWISE)
        if call.cancelled:
            return
        place = b""
        if carried:
            place, call.place = call.place, b""
        self._forget(call)
        call.place = place
        self.places.accepted(call)
        self._accepted(call, target, frame)

    def carried(self, call: Call, ended: Ended) -> None:
        """The tunnel that carried a request is over, and with it the request: its slot is free."""
        self._left(call, Ended.OTHERWISE)
        self._released(call, ended)
        self.members.released(call, Ended.OTHERWISE)  # its app may have gone

    def abandoned(self, call: Call) -> None:
        """Whoever opened the tunnel that carries a request wants no more of it: it is cancelled like any other."""
        self._left(call, Ended.OTHERWISE)
        target = self._core.endpoint(call.target) if call.target is not None else None
        if target is None:
            self.carried(call, Ended.OTHERWISE)
            return
        target.given[call.target_id] = call
        self._stop(call)

    # -- what goes wrong

    def cancel(self, source: Endpoint, call: Call) -> None:
        """The opener no longer wants it: out of the queue, or on to whoever has it."""
        # an origin's deadline and ours are the same, and its word may be here first
        call.late = call.deadline - self._core.now < LATE
        self._stop_all(call)
        executed = self._executed(call)
        self._forget(call)
        word = "dequeued" if executed is Executed.NO else "running"
        self._core.fail(source.id, call.source_id, Code.CANCELLED, word, executed)

    def expired(self, call: Call) -> None:
        """The deadline passed before an answer came."""
        call.late = True
        self._stop_all(call)
        self._left(call, Ended.BADLY)
        self._end(call, Code.DEADLINE_EXCEEDED, self._executed(call), f"no answer from {call.cluster!r} in time")

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
        self.members.released(call, Ended.OTHERWISE)
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
        pattern = needed(call.frame)
        return any(m.patterns & pattern and m.app.attachment not in call.tried for m in self.members.of(call.cluster))

    def _may_repeat(self, call: Call) -> bool:
        """Once more, for one that may have run; what another node's app asked for is that node's to count."""
        again = call.frame.idempotent and call.attempts < self._core.settings.attempts
        return again and (not call.origin or self._may_spend(call))

    def _stop_all(self, call: Call) -> None:
        """Stop a call, a second attempt included."""
        self._stop(call)
        if call.rival is not None:
            call.rival.late = call.late
            self._stop(call.rival)

    def _stop(self, call: Call) -> None:
        """Take it back if it has not left; else tell whoever has it."""
        if call.cancelled:
            return
        if call.state is CallState.WAITING:
            self.members.unwait(call)
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
            if call.late:
                self.members.missed(call)
                self._ejected(call.cluster)
            return
        target.given.pop(call.target_id, None)
        self._released(call, Ended.OTHERWISE)

    def _failed(self, call: Call, code: int, executed: Executed, detail: str, frame: Frame | None = None) -> None:
        """One attempt failed: try elsewhere if that is safe and useful, else the call has failed."""
        self._left(call, Ended.OTHERWISE)
        call.attempt = None
        call.exposed = call.exposed or executed is not Executed.NO
        if self.hedges.survives(call):
            return
        again = executed is Executed.NO or (call.frame.idempotent and code == Code.MEMBER_LOST)
        if (
            call.origin
            and again
            and code in ELSEWHERE
            and call.source_id != ACCEPTED
            and call.attempts < self._core.settings.attempts
            and self.places.untried(call, needed(call.frame))
            and self._may_spend(call)
        ):
            self._core.counters["calls.retried"] += 1
            call.frame.count = 0  # what a second attempt said of the first meant nothing to other nodes
            self._dispatch(call)
            return
        self._end(call, code, executed, detail, frame)

    def _may_spend(self, call: Call) -> bool:
        source = self._core.endpoint(call.source)
        if isinstance(source, App) and source.retries.spend(self._core.now):
            return True
        self._core.counters["calls.retries-refused"] += 1
        return False

    def _end(self, call: Call, code: int, executed: Executed, detail: str, frame: Frame | None = None) -> None:
        if executed is Executed.NO:
            executed = self._executed(call)  # of all attempts
        self._forget(call)
        if call.source_id == ACCEPTED:
            self._core.drop("push-failed" if executed is Executed.YES else "push-lost")
            return
        self.places.failed(call, code)
        if frame is not None:
            frame.executed = executed
            self._answer(call, frame)
        else:
            self._answer(call, Frame(Kind.ERROR, code=code, executed=executed, detail=detail))

    def _answer(self, call: Call, frame: Frame) -> None:
        """Tell the source, with a frame that is nobody else's; a node hears how busy its members' cluster is here."""
        frame.id = call.source_id
        frame.concurrency = 0 if call.origin else self.members.busy(call.cluster)
        self._core.answer(call.source, frame)

    @staticmethod
    def _executed(call: Call) -> Executed:
        """Whether any attempt may have run."""
        return max(call.executed, call.rival.executed) if call.rival is not None else call.executed

    def _forget(self, call: Call) -> None:
        """The source's side is over; the target's is :meth:`_released`'s matter."""
        rival = call.rival
        self._core.timers.remove(call)
        self.hedges.drop(call)
        self._left(call, Ended.OTHERWISE)
        source = self._core.endpoint(call.source)
        if source is not None and source.opened.get(call.source_id) in (call, rival):
            source.opened.pop(call.source_id, None)
        if rival is not None:  # the other attempt is not needed any more
            call.rival = rival.rival = None
            self._stop(rival)
            self._forget(rival)

    def _left(self, call: Call, ended: Ended, *, busy: int = -1) -> None:
        """The node that was chosen is done with it, one way or another."""
        if call.place:
            timed = call.frame.kind == Kind.REQUEST
            self.places.ended(call, call.place, ended, timed=timed, busy=busy)
            call.place = b""

    def _released(self, call: Call, ended: Ended) -> None:
        """The target is done with it: free its slot, let the next one in."""
        if call.target is None or call.state is not CallState.GIVEN:
            return
        target = self._core.endpoint(call.target)
        call.state = CallState.WAITING
        if target is None:
            return
        target.given.pop(call.target_id, None)
        holder = self.members.released(call, ended)
        if holder is not None and holder.out:
            self._ejected(holder.cluster)
        elif holder is not None:
            self._feed(holder)

    def _feed(self, member: Member) -> None:
        """A slot is free: hand it what waits."""
        while (call := self.members.next_for(member)) is not None:
            if call.deadline > self._core.now:  # else its timer answers
                self._give_member(call, member)

    def _ejected(self, cluster: str) -> None:
        """A member may have been: what waits for nobody else here goes elsewhere, or to those that come first now."""
        for call in self.members.stranded(cluster):
            self._failed(call, Code.OVERLOADED, Executed.NO, f"the members of {cluster!r} on its node keep failing")
        self.members_changed(cluster)

    def trial(self, trial: Trial) -> None:
        """A member that was given nothing for a while may have one call."""
        self.members.trial(trial)
        self._feed(trial.member)

    def members_changed(self, cluster: str) -> None:
        """Others come first now: let them have what waits."""
        for member in list(self.members.of(cluster)):
            if not self.members.waiting_for(cluster):
                return
            self._feed(member)
