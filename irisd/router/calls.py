"""Calls under way (pure): what a node remembers of each until it ends.

A call comes from a *source* (an app or a peer) under the source's id, and is
given to a *target* under an id of ours. The node whose app asked is the
*origin*: it alone chooses nodes and tries again. A node that was chosen picks
one of its own members and never forwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from irisd.model import Destination, Executed, Frame, NodeId


class CallState(StrEnum):
    """How far a call got: what decides whether its handler may have run."""

    WAITING = "waiting"  # at this node, for a free slot
    GIVEN = "given"  # put in the target's outbox; ``frame.sent`` tells whether it left


@dataclass(slots=True, eq=False)
class Call:
    """A request or a push with one target at a time, or the opening of a tunnel."""

    source: Destination
    source_id: int
    origin: bool
    frame: Frame  # as it came in
    cluster: str
    deadline: float
    state: CallState = CallState.WAITING
    target: Destination | None = None
    target_id: int = 0
    attempt: Frame | None = None  # as it was given to the target
    attempts: int = 0
    refusals: int = 0  # of members here that did not begin
    tried: set[Destination] = field(default_factory=set)
    exposed: bool = False  # an earlier attempt may have run
    cancelled: bool = False
    late: bool = False  # it was given up because its time was over
    place: NodeId = b""  # the node the origin gave it to, while it is there
    hedge: Hedge | None = None  # its timer, while a second attempt may come
    rival: Call | None = None  # the other attempt of a hedged call

    @property
    def executed(self) -> Executed:
        """``NO`` unless a byte of it, in any attempt, has left this node towards a handler.

        One that a tunnel carries has no body to run with until the tunnel is accepted, and then is no call any more.
        """
        if self.frame.carries:
            return Executed.NO
        if self.exposed or (self.attempt is not None and self.attempt.sent):
            return Executed.MAYBE
        return Executed.NO


@dataclass(frozen=True, slots=True)
class Hedge:
    """The time at which a call that is not answered is given to a second member."""

    call: Call


class Leg(NamedTuple):
    """One of those a broadcast or a survey asked: a member, by name, or a node, whose name here is empty."""

    name: str
    frame: Frame


@dataclass(slots=True, eq=False)
class Gather:
    """A broadcast or a survey: one question, many legs."""

    source: Destination
    source_id: int
    kind: int
    deadline: float
    legs: dict[tuple[Destination, int], Leg] = field(default_factory=dict)
    asked: dict[str, None] = field(default_factory=dict)
    count: int = 0


@dataclass(slots=True, eq=False)
class Tunnel:
    """An open tunnel through this node: two ends, credit and half-close each way.

    ``credit[i]`` is what end *i* may still send; with what is queued of it here
    it never exceeds the window. ``longest[i]`` is the longest DATA it may send
    besides the usual ones, and several messages in one; 0: the other end takes
    none such. ``grants[i]`` is the last CREDIT frame towards end *i*: one that
    still waits takes up the next. ``call`` is the request it carries, or whose
    reply; ``answered`` once the head of that came.
    """

    ends: tuple[tuple[Destination, int], tuple[Destination, int]]
    cluster: str
    credit: list[int] = field(default_factory=lambda: [0, 0])
    longest: list[int] = field(default_factory=lambda: [0, 0])
    finished: list[bool] = field(default_factory=lambda: [False, False])
    grants: list[Frame | None] = field(default_factory=lambda: [None, None])
    over: bool = False
    call: Call | None = None
    answered: bool = False

    def end_of(self, destination: Destination, id: int) -> int:
        """Which end (0 opened it) a destination and its id are."""
        return 0 if self.ends[0] == (destination, id) else 1
