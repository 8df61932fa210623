"""This node's own members: which of them a call gets, who waits for a slot, and who is given nothing for a while.

The node that has a member is the only judge of it. A member that keeps failing
is *ejected*: its node gives it nothing for a time that doubles each time, says so
in its claim, and then lets one call decide. Callers' nodes follow the claim.

Source: outlier detection as Envoy has it (consecutive failures, growing
ejection times, a cap on how many are out).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from irisd.model import MAX_SEATS, Balance, Claim, Kind
from irisd.node.addressing import kind_of, needed
from irisd.node.core import Core
from irisd.node.endpoints import Member
from irisd.node.waiting import Waiting
from irisd.router import FEW, Call, Chooser, Ended, Pool, Tally, rank

IN_A_ROW = 5
"""Failures in a row that eject a member."""

MOSTLY = 0.6
"""Smoothed share of failures that does."""

FIRST_EJECTION = 1.0
LONGEST_EJECTION = 60.0
"""Seconds; each ejection is twice as long as the one before."""

DRAWS = 8
"""With many members: how often one is drawn before all are looked at for a free slot."""

FORGIVEN = 60.0
"""Seconds without an ejection after which the next one is the first again."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A member's ejection is over: one call decides."""

    member: Member


class Group:
    """The members of one cluster here."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.waiting = Waiting()
        self.chooser = Chooser()
        self.tally = Tally()
        self.under_way = 0
        self._pools: dict[int, Pool[Member]] = {}

    @property
    def busy(self) -> int:
        """Calls its members have, and calls that wait for one."""
        return self.under_way + len(self.waiting)

    @property
    def balance(self) -> int:
        """How calls are shared out: as the member that came last has it."""
        return self.members[-1].balance if self.members else 0

    def changed(self) -> None:
        """Who takes work is not what it was."""
        self._pools.clear()

    def pool(self, pattern: int) -> Pool[Member]:
        """Those a call gets first: sound, and of the best level there is. Empty when nobody handles the pattern."""
        pool = self._pools.get(pattern)
        if pool is None:
            able = [member for member in self.members if member.patterns & pattern]
            sound = [member for member in able if not member.out] or able
            level = min((member.level for member in sound), default=0)
            pool = self._pools[pattern] = Pool([member for member in sound if member.level == level])
        return pool

    def is_first(self, member: Member, pattern: int) -> bool:
        """Whether a call of a pattern it handles may be given to it before others of its cluster have been asked."""
        first = self.pool(pattern).candidates[0]
        return (member.level, member.out) == (first.level, first.out)

    def claim(self, cluster: str) -> Claim:
        """What this node can be reached for."""
        members = self.members
        sound = [member for member in members if not member.out]
        level = min((member.level for member in sound or members), default=0)
        patterns = seats = 0
        for member in members:
            patterns |= member.patterns
            seats |= 1 << member.seat if member.seat < MAX_SEATS else 0
        return Claim(
            len(members),
            cluster=cluster,
            patterns=patterns,
            slots=sum(1 if m.on_trial else m.concurrency for m in sound if m.level == level),
            ejected=len(members) - len(sound),
            level=level,
            balance=self.balance,
            seats=0 if seats == (1 << min(len(members), MAX_SEATS)) - 1 else seats,
        )


class Members:
    """All members of this node.

    Args:
        core: Shared state.

    Attributes:
        claimed: To be called with a cluster whose claim has changed.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._groups: dict[str, Group] = {}
        self._holders: dict[Call, Member] = {}  # whose slot a call has
        self.claimed: Callable[[str], None] = lambda cluster: None

    def of(self, cluster: str) -> list[Member]:
        """Those that take new work."""
        group = self._groups.get(cluster)
        return group.members if group is not None else []

    def group(self, cluster: str) -> Group | None:
        """The cluster here, if it has members or somebody waits for one."""
        return self._groups.get(cluster)

    def claim(self, cluster: str) -> Claim:
        """What this node can be reached for; nothing when the cluster has no members here."""
        group = self._groups.get(cluster)
        return group.claim(cluster) if group is not None else Claim(0, cluster=cluster)

    def busy(self, cluster: str) -> int:
        """Calls of a cluster that its members here have, or that wait for one."""
        group = self._groups.get(cluster)
        return group.busy if group is not None else 0

    def clusters(self) -> Iterable[tuple[str, Group]]:
        """All that have members here, or somebody who waits for one."""
        return self._groups.items()

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return sum(len(group.waiting) for group in self._groups.values())

    def waiting_for(self, cluster: str) -> int:
        """Calls that wait for a slot of one cluster."""
        group = self._groups.get(cluster)
        return len(group.waiting) if group is not None else 0

    def add(self, member: Member) -> None:
        """It takes work from now on."""
        group = self._groups.setdefault(member.cluster, Group())
        taken = {other.seat for other in group.members}
        member.seat = next(seat for seat in range(len(taken) + 1) if seat not in taken)
        member.taking = True
        group.members.append(member)
        group.changed()

    def remove(self, member: Member) -> tuple[list[Call], list[Call]]:
        """It takes no new work; what it has may still be answered.

        Returns:
            Those that waited for it and can have another, and those that nobody left here can have.
        """
        if not member.taking:
            return [], []
        member.taking = False
        self._core.timers.remove(Trial(member))
        group = self._groups[member.cluster]
        group.members.remove(member)
        group.changed()
        patterns = 0
        for other in group.members:
            patterns |= other.patterns
        hopeless = list(group.waiting.hopeless(patterns))
        orphaned = list(group.waiting.orphaned(member))
        self._tidy(member.cluster, group)
        return orphaned, hopeless

    # -- who gets a call

    def can(self, call: Call) -> bool:
        """Whether anybody here handles such a call."""
        group = self._groups.get(call.cluster)
        return group is not None and bool(group.pool(needed(call.frame)).candidates)

    def pick(self, call: Call, chooser: Chooser | None = None) -> Member | None:
        """A member that has room for a call now; None: let it :meth:`wait`.

        The caller has seen to it that there are members for its pattern. A ``chooser`` is given by whoever only
        wants to know.
        """
        core, group = self._core, self._groups[call.cluster]
        chooser = chooser or group.chooser
        pool = group.pool(needed(call.frame))
        if call.frame.key:
            member = self.keeper(call, group)
            return member if member.has_room else None
        if kind_of(call.frame) == Kind.TUNNEL:  # bounded by its window, and long: it takes no slot
            return chooser.choose(call.frame.balance or group.balance, pool, core.rng, core.now)
        policy = call.frame.balance or group.balance
        if len(pool.candidates) > FEW:
            for _ in range(DRAWS):
                member = chooser.choose(policy, pool, core.rng, core.now)
                if member.has_room and member.app.attachment not in call.tried:
                    return member
        free = self._free(pool.candidates, call)
        if not free:
            return None
        if len(free) < len(pool.candidates):
            pool = Pool(free)
        return chooser.choose(policy, pool, core.rng, core.now)

    def may_wait(self, call: Call) -> bool:
        """Whether the queue has room for it, and more is here than one call on trial."""
        group = self._groups[call.cluster]
        pool = group.pool(needed(call.frame))
        on_trial = all(member.on_trial for member in pool.candidates) and not self._is_alone(group)
        return not on_trial and group.waiting.fits(call.frame, self._core.settings.request_queue)

    def wait(self, call: Call) -> bool:
        """Let a call wait for a slot; False when it :meth:`may not <may_wait>`."""
        if not self.may_wait(call):
            return False
        group = self._groups[call.cluster]
        group.waiting.push(call, self.keeper(call, group) if call.frame.key else None)
        return True

    def last_resort(self, call: Call) -> Member | None:
        """The queue is full: anybody who has room, of whatever level."""
        group, pattern = self._groups[call.cluster], needed(call.frame)
        if call.frame.key:
            return None
        free = self._free([member for member in group.members if member.patterns & pattern and not member.out], call)
        level = min((member.level for member in free), default=0)
        return next((member for member in free if member.level == level), None)

    def unwait(self, call: Call) -> None:
        """A call waits no more; one that did not is ordinary."""
        group = self._groups.get(call.cluster)
        if group is not None:
            group.waiting.remove(call)
            self._tidy(call.cluster, group)

    def next_for(self, member: Member) -> Call | None:
        """Take out the call that waits longest for what this member has: a free slot."""
        group = self._groups.get(member.cluster)
        if group is None or not member.taking or not member.has_room or not len(group.waiting):
            return None
        resting = member.out and not self._is_alone(group)  # what it has to itself it gets all the same
        return group.waiting.pop(member, lambda pattern: not resting and group.is_first(member, pattern))

    def _free(self, members: Iterable[Member], call: Call) -> list[Member]:
        tried = call.tried
        return [member for member in members if member.has_room and member.app.attachment not in tried]

    def keeper(self, call: Call, group: Group) -> Member:
        """Whose the call's key is: as long as it is there, whatever it does."""
        node, pattern, key = self._core.identity.node_id, needed(call.frame), call.frame.key
        able = [m for m in group.members if m.patterns & pattern]
        untried = [m for m in able if m.app.attachment not in call.tried]
        return max(untried or able, key=lambda member: rank(key, node, (member.seat,)))

    # -- slots

    def took(self, call: Call, member: Member) -> None:
        """A call has a slot of a member."""
        self._holders[call] = member
        member.begin(call, self._core.now)
        if (group := self._groups.get(member.cluster)) is not None:
            group.under_way += 1

    def holder(self, call: Call) -> Member | None:
        """Whose slot a call has."""
        return self._holders.get(call)

    def released(self, call: Call, ended: Ended) -> Member | None:
        """A call has ended: its slot is free, and its member is judged by it."""
        member = self._holders.pop(call, None)
        if member is None:
            return None
        took = member.end(call, self._core.now, ended)
        group = self._groups.get(member.cluster)
        if group is not None:
            group.under_way -= 1
            if took is not None and ended is not Ended.OTHERWISE:
                group.tally.time(took)
                if ended is Ended.WELL:
                    group.tally.answered += 1
                else:
                    group.tally.failed += 1
            self._tidy(member.cluster, group)
        if member.taking and ended is not Ended.OTHERWISE:
            self._judge(member, ended)
        return member

    def missed(self, call: Call) -> None:
        """A call was not answered in time. Its slot stays taken until its handler has ended."""
        member = self._holders.get(call)
        if member is None:
            return
        if (group := self._groups.get(member.cluster)) is not None:
            group.tally.failed += 1
            group.tally.time(self._core.now - member.under_way[call])
        if member.taking:
            member.missed(call, self._core.now)
            self._judge(member, Ended.BADLY)

    # -- who is given nothing

    def _judge(self, member: Member, ended: Ended) -> None:
        if member.on_trial:
            if ended is Ended.BADLY:
                self._eject(member)
            else:
                member.on_trial = False
                member.sound_since = self._core.now
                member.forgive()
                self._told(member)
                self._core.fact("member.restored", cluster=member.cluster, member=member.app.member_name)
        elif not member.out and (member.streak >= IN_A_ROW or member.failing >= MOSTLY) and self._may_eject(member):
            self._eject(member)

    def _may_eject(self, member: Member) -> bool:
        """At most half of a cluster's members may be out, wherever they are."""
        serving = self._core.registry.serving(member.cluster).values()
        return 2 * (sum(claim.ejected for claim in serving) + 1) <= sum(claim.members for claim in serving)

    def _eject(self, member: Member) -> None:
        core = self._core
        if core.now - member.sound_since > FORGIVEN:
            member.ejections = 0
        seconds = min(LONGEST_EJECTION, FIRST_EJECTION * 2**member.ejections) * core.rng.uniform(0.9, 1.1)
        member.ejections = min(member.ejections + 1, 16)
        member.out, member.on_trial = True, False
        core.timers.add(Trial(member), core.now + seconds)
        core.counters["members.ejected"] += 1
        core.fact("member.ejected", cluster=member.cluster, member=member.app.member_name, seconds=round(seconds, 1))
        self._told(member)

    def trial(self, trial: Trial) -> None:
        """An ejection is over."""
        member = trial.member
        if member.under_way:  # what hangs there hangs still
            self._core.timers.add(trial, self._core.now + FIRST_EJECTION)
        elif member.taking and member.out:
            member.out, member.on_trial = False, True
            member.sound_since = self._core.now
            self._told(member)

    def stranded(self, cluster: str) -> list[Call]:
        """Take out what waits here for members that are all ejected, where there are others elsewhere.

        A push whose caller was told that it is here stays: nobody would have it elsewhere.
        """
        group = self._groups.get(cluster)
        if group is None or not all(member.out for member in group.members) or self._is_alone(group):
            return []
        stranded = [call for call in group.waiting if call.deadline < math.inf]
        for call in stranded:
            group.waiting.remove(call)
        return stranded

    def _is_alone(self, group: Group) -> bool:
        """Whether no other node serves the cluster."""
        cluster = next((member.cluster for member in group.members), "")
        return len(self._core.registry.serving(cluster)) < 2

    def _told(self, member: Member) -> None:
        self._groups[member.cluster].changed()
        self.claimed(member.cluster)

    def _tidy(self, cluster: str, group: Group) -> None:
        if not group.members and not len(group.waiting) and not group.under_way:
            self._groups.pop(cluster, None)


def policy_of(claims: Iterable[Claim]) -> int:
    """How the members of a cluster want calls shared out; where they differ, the same for every caller."""
    return max((claim.balance for claim in claims), default=0) or Balance.P2C
