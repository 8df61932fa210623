"""What one node knows of all (pure): records, what is believed of whom, and a digest to compare it by.

A node is the only author of its record. Records merge by (incarnation,
version), beliefs by incarnation and then by state; whoever is dead or has left
keeps a tombstone for a while, so that older news do not raise it.

Two nodes with equal digests know the same records of the same nodes. What one
suspects is not in it: suspicion is a matter of who is linked with whom.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from irisd.model import NodeId, NodeRecord, State
from irisd.wire.views import BUCKETS, Held

MAX_NODES: Final = 16_384
"""Most nodes of a service that are known at once."""
MAX_GONE: Final = 4_096
"""Most tombstones; the oldest go first."""
GONE_MEMORY: Final = 3_600.0
"""Seconds a tombstone is kept."""
MAX_JUMP: Final = 1 << 20
"""An incarnation rises by one at a time; a record this far ahead of what is known is from nowhere."""
UNRECORDED: Final = -1
"""The version of a node whose record has not come yet."""

_MARK: Final = struct.Struct(">16sQQ")


class Verdict(StrEnum):
    """What to make of a record, or of a change of one."""

    NEWS = "news"
    STALE = "stale"  # held already, or something newer is
    LACKING = "lacking"  # it builds on what is not held here: the whole is wanted
    BURIED = "buried"  # of somebody believed dead or gone, and not newer than that belief
    OWN = "own"  # of this node itself
    FUTURE = "from-the-future"
    FULL = "too-many-nodes"


class Known:
    """One node, as far as it is known.

    Attributes:
        record: What it says of itself.
        version: Of its claims held here.
        state: What is believed of it.
        since: When that began, monotonic seconds.
        heard: When it was last heard, by ``heard_by``.
        heard_by: A node id.
    """

    __slots__ = ("heard", "heard_by", "record", "since", "state", "version")

    def __init__(self, record: NodeRecord, version: int, state: State, now: float, heard_by: NodeId) -> None:
        self.record = record
        self.version = version
        self.state = state
        self.since = now
        self.heard = now
        self.heard_by = heard_by


class View:
    """All nodes that are known.

    Attributes:
        present: Those believed to be there, this node included.
        gone: Tombstones, the oldest first.
        digest: Of the records of all present.
        buckets: The same, cut by the first byte of the node id.
    """

    def __init__(self, own: NodeRecord, version: int, now: float) -> None:
        self.own = own.node_id
        self.present: dict[NodeId, Known] = {}
        self.gone: OrderedDict[NodeId, Known] = OrderedDict()
        self.digest = 0
        self.buckets = [0] * BUCKETS
        self.enter(Known(own, version, State.ALIVE, now, own.node_id))

    def known(self, node: NodeId) -> Known | None:
        """What is known of a node, whether it is present or gone."""
        return self.present.get(node) or self.gone.get(node)

    def judge(self, node: NodeId, about: NodeRecord | None, base: int, version: int, *, full: bool) -> Verdict:
        """What to make of a record, or a change of one.

        Args:
            node: Whose.
            about: What it says of itself; None: as before.
            base: The version a change builds on.
            version: What it brings the record to.
            full: It is whole.
        """
        if node == self.own:
            return Verdict.OWN
        known = self.known(node)
        if known is None:
            if about is None or not full:
                return Verdict.LACKING
            return Verdict.NEWS if len(self.present) < MAX_NODES else Verdict.FULL
        held = known.record.incarnation
        incarnation = about.incarnation if about is not None else held
        if incarnation > held + MAX_JUMP:
            return Verdict.FUTURE
        if known.state >= State.DEAD:
            if incarnation <= held:
                return Verdict.BURIED
            return Verdict.NEWS if full else Verdict.LACKING
        if (incarnation, version) <= (held, known.version):
            return Verdict.STALE
        return Verdict.NEWS if full or base == known.version else Verdict.LACKING

    def enter(self, known: Known) -> None:
        """Somebody is there, for the first time or again."""
        node = known.record.node_id
        self.gone.pop(node, None)
        self.present[node] = known
        self._mark(known)

    def update(self, known: Known, record: NodeRecord, version: int) -> None:
        """Take in a newer record of somebody present."""
        self._mark(known)
        known.record, known.version = record, version
        self._mark(known)

    def bury(self, node: NodeId, state: State, now: float) -> Known:
        """Somebody present is dead or has left."""
        known = self.present.pop(node)
        self._mark(known)
        known.state, known.since = state, now
        self.gone[node] = known
        self.expire(now)
        return known

    def expire(self, now: float) -> None:
        """Let tombstones go whose time is over, and the oldest of too many."""
        gone = self.gone
        while gone:
            oldest = next(iter(gone))
            if len(gone) <= MAX_GONE and now - gone[oldest].since < GONE_MEMORY:
                break
            del gone[oldest]

    def held(self, buckets: Iterable[int]) -> Iterator[Held]:
        """The records held of these buckets."""
        wanted = frozenset(buckets)
        for node, known in self.present.items():
            if node[0] in wanted and known.version != UNRECORDED:
                yield Held(node, known.record.incarnation, known.version)

    def differing(self, buckets: Iterable[int]) -> list[int]:
        """The buckets that are not as somebody else's."""
        return [at for at, (own, other) in enumerate(zip(self.buckets, buckets, strict=True)) if own != other]

    def _mark(self, known: Known) -> None:
        """Put a record into the digest, or take it out: the same, twice is nothing."""
        if known.version == UNRECORDED:
            return
        record = known.record
        packed = _MARK.pack(record.node_id, record.incarnation, known.version)
        mark = int.from_bytes(blake2b(packed, digest_size=16).digest())
        self.digest ^= mark
        self.buckets[record.node_id[0]] ^= mark & 0xFFFF_FFFF
