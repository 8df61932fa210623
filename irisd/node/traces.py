"""What would happen to a call now, and why; nothing is delivered.

The choice of a node is made here. The chosen node is asked for its choice of a
member by a TRACE frame, which goes the way a call goes, so that the time until
the answer tells how long that way is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from irisd.effects import Effect, Traced
from irisd.flow.outbox import REQUESTS
from irisd.membership import Membership
from irisd.model import TRACES, Balance, Frame, Kind, NodeId, Pattern
from irisd.node.calls import Calls
from irisd.node.choices import Choices
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import Peer
from irisd.router import MAX_KEY, BadName, Call, parse_address
from irisd.status import TraceAsked, TraceHop, TraceInfo
from irisd.wire import WireError, decode_hop, encode_hop

PATIENCE: Final = 2.0
"""Seconds the chosen node may take to answer."""

MAX_OPEN: Final = 64
"""Traces that may wait for an answer at once."""

_KINDS: Final[dict[int, Kind]] = {
    Pattern.REQUEST: Kind.REQUEST,
    Pattern.PUSH: Kind.PUSH,
    Pattern.TUNNEL: Kind.TUNNEL,
}


@dataclass(eq=False, slots=True)
class Probe:
    """A node was asked; its answer completes a trace."""

    number: int
    node: NodeId
    info: TraceInfo
    asked_at: float


class Traces:
    """Traces of one node, and its answers to those of others.

    Args:
        core: Shared state.
        calls: Who chooses.
        membership: What is known of other nodes.
    """

    def __init__(self, core: Core, calls: Calls, membership: Membership) -> None:
        self._core = core
        self._choices = Choices(core, calls, membership)
        self._number = 0
        self._open: dict[int, Probe] = {}
        self._done: dict[int, TraceInfo] = {}

    def begin(self, asked: TraceAsked, now: float) -> tuple[int, list[Effect]]:
        """Begin a trace; a ``Traced`` with its number is among these effects, or later ones."""
        self._core.now = now
        self._number += 1
        self._begin(self._number, asked)
        return self._number, self._core.collect()

    def _begin(self, number: int, asked: TraceAsked) -> None:
        choices, identity = self._choices, self._core.identity
        cluster, problem = self._named(asked)
        info = TraceInfo(identity.service, cluster, asked.pattern)
        if problem is not None:
            self._end(number, info, problem)
            return
        call = self._call(cluster, asked.pattern, asked.key, asked.balance)
        hop, place = choices.of_node(call)
        if place is None:
            self._end(number, info, hop)
        elif place.node == identity.node_id:
            self._end(number, info, hop, choices.of_member(call))
        else:
            self._ask(Probe(number, place.node, replace(info, hops=(hop,)), self._core.now), call)

    def take(self, number: int) -> TraceInfo:
        """A trace that is complete; once."""
        return self._done.pop(number)

    def _named(self, asked: TraceAsked) -> tuple[str, TraceHop | None]:
        """The cluster; and, as for a call, why there is no such place."""
        identity, hop = self._core.identity, self._choices.hop
        try:
            service, cluster, cloud = parse_address(asked.cluster)
        except BadName as error:
            return asked.cluster, hop("invalid", str(error))
        if service and service != identity.service:
            return cluster, hop("no-member", f"service {service!r} is not reachable from {identity.service!r}")
        if cloud and cloud != identity.cloud:
            return cluster, hop("no-member", f"cloud {cloud!r} is not reachable from {identity.cloud!r}")
        if asked.pattern not in _KINDS:
            return cluster, hop("invalid", f"pattern {asked.pattern}: a request, a push or a tunnel has one target")
        if len(asked.key) > MAX_KEY:
            return cluster, hop("invalid", f"key: at most {MAX_KEY} bytes")
        if not 0 <= asked.balance <= max(Balance):
            return cluster, hop("invalid", f"balance: {asked.balance} is unknown")
        return cluster, None

    def _call(self, cluster: str, pattern: int, key: str, balance: int) -> Call:
        """A call that nobody will ever have."""
        frame = Frame(_KINDS[pattern], key=key, balance=balance)
        return Call(self._core.identity.node_id, 0, True, frame, cluster, math.inf)

    # -- the chosen node is asked

    def _ask(self, probe: Probe, call: Call) -> None:
        core, name = self._core, self._choices.name(probe.node)
        peer = core.peers.get(probe.node)
        if peer is None or not peer.linked:
            problem = f"there is no link with {name} now: the first call makes one, and waits for it"
        elif not peer.outbox.fits(call.frame, core.settings.peer_outbox):
            self._complete(probe, TraceHop(name, outcome="overloaded", detail=f"the queue towards {name} is full"))
            return
        elif not peer.info.features & TRACES:
            problem = f"{name} runs an older release, which cannot say which member it would choose"
        elif len(self._open) >= MAX_OPEN:
            problem = f"{name} was not asked: {MAX_OPEN} traces wait for an answer already"
        else:
            self._open[probe.number] = probe
            core.timers.add(probe, core.now + PATIENCE)
            peer.last_used = core.now
            question = Frame(Kind.TRACE, count=probe.number, address=call.cluster, patterns=probe.info.pattern)
            question.key, question.balance, question.deadline = call.frame.key, call.frame.balance, core.now + PATIENCE
            core.send(peer, REQUESTS, question)
            return
        self._complete(probe, TraceHop(name, outcome="unknown", detail=problem))

    def answered(self, peer: Peer, frame: Frame) -> None:
        """TRACED: the chosen node says what it would do."""
        probe = self._open.get(frame.count)
        if probe is None or probe.node != peer.node:
            self._core.drop("no-such-trace")
            return
        try:
            hop = decode_hop(frame.body)
        except WireError as error:
            raise ProtocolError(str(error)) from None
        self._complete(probe, replace(hop, name=peer.info.name, took=round(self._core.now - probe.asked_at, 6)))

    def expired(self, probe: Probe) -> None:
        """The chosen node has not answered in time."""
        peer, name = self._core.peers.get(probe.node), self._choices.name(probe.node)
        why = f"did not answer within {PATIENCE:g} s" if peer is not None and peer.linked else "is linked no more"
        self._complete(probe, TraceHop(name, outcome="unknown", detail=f"{name} was asked, and {why}"))

    def _complete(self, probe: Probe, hop: TraceHop) -> None:
        if self._open.pop(probe.number, None) is not None:
            self._core.timers.remove(probe)
        self._end(probe.number, probe.info, *probe.info.hops, replace(hop, node=probe.node.hex(), among="members"))

    def _end(self, number: int, info: TraceInfo, *hops: TraceHop) -> None:
        self._done[number] = replace(info, hops=hops)
        self._core.emit(Traced(number))

    # -- others ask

    def asked(self, peer: Peer, frame: Frame) -> None:
        """TRACE: a peer wants to know which member of ours would have a call."""
        core, pattern = self._core, frame.patterns
        if pattern not in _KINDS or len(frame.key) > MAX_KEY:
            raise ProtocolError(f"TRACE: pattern {pattern}, or a key of {len(frame.key)} characters")
        if peer.outbox.urgent_bytes > core.settings.peer_outbox:
            core.drop("answer-queue-full")
            return
        hop = self._choices.of_member(self._call(frame.address, pattern, frame.key, frame.balance))
        core.urgent(peer, Frame(Kind.TRACED, count=frame.count, body=encode_hop(hop)))
