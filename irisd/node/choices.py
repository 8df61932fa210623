"""The choices this node would make for a call now, described: what :mod:`irisd.node.traces` shows.

They are made by the code that makes them for calls, with a
:class:`~irisd.router.Foresight` in the place of the chooser, so nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from irisd.membership import Membership
from irisd.model import Balance, Kind, NodeId
from irisd.node.addressing import NAME, PATTERN
from irisd.node.calls import Calls
from irisd.node.core import Core
from irisd.node.endpoints import Member
from irisd.node.members import Group, policy_of
from irisd.node.places import Place, first_of
from irisd.router import Call, Candidate, Contender, Foresight, cost
from irisd.status import TraceCandidate, TraceHop
from irisd.wire import MAX_CANDIDATES

MOST_COST: Final = 1e6
"""What a candidate costs that can take nothing at all."""

_POLICIES: Final = {int(balance): balance.name.lower() for balance in Balance}


class Choices:
    """Of one node.

    Args:
        core: Shared state.
        calls: Who chooses.
        membership: For the names of other nodes, and the times to them.
    """

    def __init__(self, core: Core, calls: Calls, membership: Membership) -> None:
        self._core = core
        self._calls = calls
        self._membership = membership

    def hop(self, outcome: str = "", detail: str = "") -> TraceHop:
        """One at this node, of which nothing more is known."""
        identity = self._core.identity
        return TraceHop(identity.name, identity.node_id.hex(), outcome=outcome, detail=detail)

    def name(self, node: NodeId) -> str:
        """A node's name for people."""
        known = self._membership.view.known(node)
        return known.record.name if known is not None else node.hex()[:8]

    # -- a caller's node

    def of_node(self, call: Call) -> tuple[TraceHop, Place | None]:
        """The node that would get a call; None when nobody can take it."""
        core, places = self._core, self._calls.places
        kind = Kind(call.frame.kind)
        nodes = places.of(call.cluster)
        everybody, able = list(nodes.places.values()), nodes.able(PATTERN[kind])
        asked = {place.claim.balance for place in able}
        policy, because = _policy(call, policy_of(place.claim for place in able), asked)
        hop = replace(self.hop(), policy=policy, because=because, count=len(everybody))
        if not able:
            rows = [self._place_row(place, call, None, (), ()) for place in everybody]
            hop = replace(hop, policy="", because="", candidates=_shown(rows))
            if everybody:
                detail = f"members of {call.cluster!r} handle no {NAME[kind]}"
                return replace(hop, outcome="not-supported", detail=detail), None
            return replace(hop, outcome="no-member", detail=f"nobody serves {call.cluster!r}"), None
        foresight = Foresight(nodes.chooser)
        place = places.choose(call, able, foresight)
        sound = [each for each in able if each.node not in core.suspects] or able
        first = sound if call.frame.key else first_of(sound).pool.candidates
        rows = [self._place_row(each, call, place, foresight.drawn, first) for each in everybody]
        names = [self.name(each.node) for each in foresight.drawn if isinstance(each, Place)]
        why = _why(place, policy, foresight.drawn, names, first, core.now)
        return replace(hop, chosen=self.name(place.node), why=why, candidates=_shown(rows)), place

    def _place_row(
        self, place: Place, call: Call, chosen: Place | None, drawn: Sequence[Contender], first: Iterable[Place]
    ) -> TraceCandidate:
        core, claim = self._core, place.claim
        peer = core.peers.get(place.node)
        pulse = self._membership.heart.pulses.get(place.node)
        return replace(
            _row(place, self.name(place.node), chosen, drawn, first, core.now),
            id=place.node.hex(),
            members=claim.members,
            out=claim.ejected,
            level=claim.level,
            handles=bool(claim.patterns & PATTERN[Kind(call.frame.kind)]),
            suspect=place.node in core.suspects,
            ejected=claim.ejected >= claim.members,
            round_trip=round(pulse.rtt or 0.0, 6) if pulse is not None else 0.0,
            queued=peer.outbox.bytes + peer.outbox.urgent_bytes if peer is not None else 0,
        )

    # -- a member's node

    def of_member(self, call: Call) -> TraceHop:
        """The member of this node that would get a call, and what would become of it."""
        core, members = self._core, self._calls.members
        cluster, kind, here = call.cluster, Kind(call.frame.kind), self._core.identity.name
        group, there = members.group(cluster), members.of(cluster)
        able = [member for member in there if member.patterns & PATTERN[kind]]
        hop = replace(self.hop(), among="members", count=len(there), waiting=members.waiting_for(cluster))
        if group is None or not able:
            rows = [self._member_row(member, call, None, (), ()) for member in there]
            hop = replace(hop, candidates=_shown(rows))
            if there:
                detail = f"no member of {cluster!r} at {here} handles {NAME[kind]}"
                return replace(hop, outcome="not-supported", detail=detail)
            return replace(hop, outcome="no-member", detail=f"no member of {cluster!r} is at {here}")
        policy, because = _policy(call, group.balance or Balance.P2C, {member.balance for member in there})
        foresight = Foresight(group.chooser)
        member = members.pick(call, foresight)
        first = able if call.frame.key else group.pool(PATTERN[kind]).candidates
        outcome, detail, why = "handed", "", ""
        if member is not None:
            names = [each.app.member_name for each in foresight.drawn if isinstance(each, Member)]
            why = _why(member, policy, foresight.drawn, names, first, core.now)
        elif members.may_wait(call):
            outcome = "waits"
            member = members.keeper(call, group) if call.frame.key else None
            who = "the member its key belongs to" if call.frame.key else "everybody of the best level"
            others = {0: "the first in line", 1: "behind 1 other"}.get(len(group.waiting))
            detail = f"{who} at {here} is full: it would wait for a slot, "
            detail += others or f"behind {len(group.waiting):,} others"
            why = "its key belongs there" if call.frame.key else ""
        else:
            member = members.last_resort(call)
            why = "those that come first are full and no more calls may wait: anybody who has room" if member else ""
        if member is None and outcome == "handed":
            outcome, detail = "overloaded", self._full(group, first)
        elif member is not None and outcome == "handed":
            detail = f"{member.app.member_name} would have it at once"
            if not member.app.outbox.fits(call.frame, core.settings.app_outbox):
                outcome, detail = "overloaded", f"the queue towards {member.app.member_name} is full"
        rows = [self._member_row(each, call, member, foresight.drawn, first) for each in there]
        chosen = member.app.member_name if member is not None else ""
        hop = replace(hop, policy=policy, because=because, chosen=chosen, why=why, candidates=_shown(rows))
        return replace(hop, outcome=outcome, detail=detail)

    def _full(self, group: Group, first: Sequence[Member]) -> str:
        here = self._core.identity.name
        if all(member.on_trial for member in first):
            return f"all that {here} has is on trial with one call; it gives the call back, for another node"
        limit = self._core.settings.request_queue
        return f"all members at {here} are full, {len(group.waiting)} calls wait, and more than {limit:,} bytes may not"

    def _member_row(
        self, member: Member, call: Call, chosen: Member | None, drawn: Sequence[Contender], first: Iterable[Member]
    ) -> TraceCandidate:
        outbox = member.app.outbox
        return replace(
            _row(member, member.app.member_name, chosen, drawn, first, self._core.now),
            level=member.level,
            handles=bool(member.patterns & PATTERN[Kind(call.frame.kind)]),
            ejected=member.out,
            on_trial=member.on_trial,
            queued=outbox.bytes + outbox.urgent_bytes,
        )


def _row(
    candidate: Candidate,
    name: str,
    chosen: Candidate | None,
    drawn: Sequence[Contender],
    first: Iterable[Candidate],
    now: float,
) -> TraceCandidate:
    is_first = any(candidate is each for each in first)
    worth = 0.0
    if is_first and len(drawn) == 2:  # else costs were not compared
        beside: Contender | None = chosen
        if candidate is chosen or beside is None:
            beside = drawn[1] if drawn[0] is candidate else drawn[0]
        worth = min(cost(candidate, beside, now), MOST_COST)
    return TraceCandidate(
        name,
        slots=int(candidate.weight),
        busy=round(candidate.busy(now), 1),
        pace=round(candidate.pace(now), 6),
        failing=round(candidate.fails(now), 4),
        first=is_first,
        drawn=any(candidate is each for each in drawn),
        chosen=candidate is chosen,
        cost=round(worth, 3),
    )


def _shown(rows: list[TraceCandidate]) -> tuple[TraceCandidate, ...]:
    """Those that matter most, by name."""
    rows.sort(key=lambda row: (not row.chosen, not row.drawn, not row.first, row.name))
    return tuple(sorted(rows[:MAX_CANDIDATES], key=lambda row: (row.name, row.id)))


def _policy(call: Call, policy: int, asked: set[int]) -> tuple[str, str]:
    """The rule by which one is chosen, and whose wish it is."""
    if call.frame.key:
        return "hash", "the call has a key"
    if call.frame.balance:
        return _POLICIES.get(call.frame.balance, str(call.frame.balance)), "the call asks for it"
    if not any(asked):
        because = "nobody asks for another"
    else:
        because = "its members ask for it" if len(asked) == 1 else "most of what its members ask for"
    return _POLICIES.get(policy, str(policy)), because


def _why(
    chosen: Candidate, policy: str, drawn: Sequence[Contender], names: list[str], first: Sequence[Candidate], now: float
) -> str:
    if policy == "hash":
        return "its key belongs there"
    if len(first) == 1:
        return "there is no other choice"
    if len(drawn) == 2:
        one, other = drawn
        mine = cost(chosen, other if chosen is one else one, now)
        theirs = cost(other if chosen is one else one, chosen, now)
        of = "" if len(first) == 2 else " drawn by chance"
        if mine == theirs:
            return f"of {names[0]} and {names[1]}{of}, which cost the same, it had less so far"
        return f"of {names[0]} and {names[1]}{of} it costs less: {mine:.2f}, the other {min(theirs, MOST_COST):.2f}"
    if policy == "round_robin":
        return "it is its turn"
    if policy == "random":
        return "by chance, the more slots the likelier"
    if policy == "local" and isinstance(chosen, Place):
        return "this node comes first while it has room"
    return "it is the only one with a free slot"
