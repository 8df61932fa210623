"""Which of several connections between two nodes is their link (pure).

Both nodes may dial at once, and either may dial again because it thinks the
link is gone. There must be one link in the end, the same on both sides. So one
side decides: the node with the **lower id**. It numbers its decisions, and the
other side follows the highest number it has seen; a decision that arrives late
is recognised by its lower number.

The decider takes the first control connection that is confirmed. Until that
link is up (no frame has flowed), a connection it dialled itself takes the place
of one the other side dialled: of two simultaneous dials, the one dialled by the
lower id survives. Once a link is up, a later connection waits until a survey
over the link has failed (then it replaces the link) or succeeded (then it is a
duplicate). It is this wait that makes a replayed or needless dial harmless.

Invariants:
    - at most one connection per peer is settled, and at most one waits
    - generations given to one peer only rise
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Step(Enum):
    """What to do with a control connection that wants to be the link."""

    TAKE = auto()
    """It is the link now: answer with its generation."""
    REJECT = auto()
    """Close it as a duplicate."""
    PROBE = auto()
    """Survey the link that is up, and report with ``probed``; it waits meanwhile."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision about one connection, and which other one has to go for it."""

    step: Step
    generation: int = 0
    drop: int | None = None
    """The connection that loses its place, if any; it is closed before this one is taken."""


@dataclass(slots=True)
class _Pair:
    connection: int
    dialled: bool
    generation: int
    is_up: bool = False
    waiting: int | None = None
    waiting_was_dialled: bool = False


_REJECT = Verdict(Step.REJECT)


class Settling:
    """The links of one node, by peer. Connections are numbers their owner gives them.

    Args:
        own_id: Our node id.
    """

    def __init__(self, own_id: bytes) -> None:
        self._own_id = own_id
        self._pairs: dict[bytes, _Pair] = {}
        self._generation = 0

    def decides(self, peer_id: bytes) -> bool:
        """Whether we, and not the peer, decide about the link with it."""
        return self._own_id < peer_id

    def confirmed(self, peer_id: bytes, connection: int, *, dialled: bool) -> Verdict:
        """A connection's handshake is done and stood by; only the decider asks.

        Args:
            peer_id: The other side.
            connection: Its number.
            dialled: Whether we dialled it.
        """
        pair = self._pairs.get(peer_id)
        if pair is None:
            return self._take(peer_id, connection, dialled)
        if pair.is_up:
            if pair.waiting is not None:
                return _REJECT
            pair.waiting, pair.waiting_was_dialled = connection, dialled
            return Verdict(Step.PROBE)
        if dialled and not pair.dialled:
            return self._take(peer_id, connection, dialled)
        return _REJECT

    def probed(self, peer_id: bytes, *, alive: bool) -> tuple[int, Verdict] | None:
        """The survey of the link that is up has ended.

        Returns:
            The connection that waited and what becomes of it; ``None`` if it did not wait any more.
        """
        pair = self._pairs.get(peer_id)
        if pair is None or pair.waiting is None:
            return None
        waiting, pair.waiting = pair.waiting, None
        if alive:
            return waiting, _REJECT
        return waiting, self._take(peer_id, waiting, pair.waiting_was_dialled)

    def decided(self, peer_id: bytes, connection: int, generation: int, *, dialled: bool) -> Verdict:
        """The peer, who decides, says that this connection is the link."""
        pair = self._pairs.get(peer_id)
        if pair is not None and generation <= pair.generation:
            return _REJECT
        self._pairs[peer_id] = _Pair(connection, dialled, generation)
        return Verdict(Step.TAKE, generation, None if pair is None else pair.connection)

    def came_up(self, peer_id: bytes, connection: int) -> bool:
        """The settled connection has its data connection; ``False`` if it is not the settled one."""
        pair = self._pairs.get(peer_id)
        if pair is None or pair.connection != connection:
            return False
        pair.is_up = True
        return True

    def ended(self, peer_id: bytes, connection: int) -> tuple[int, Verdict] | None:
        """A connection is gone; what waited for its place gets it."""
        pair = self._pairs.get(peer_id)
        if pair is None:
            return None
        if pair.waiting == connection:
            pair.waiting = None
            return None
        if pair.connection != connection:
            return None
        del self._pairs[peer_id]
        if pair.waiting is None:
            return None
        return pair.waiting, self._take(peer_id, pair.waiting, pair.waiting_was_dialled)

    def _take(self, peer_id: bytes, connection: int, dialled: bool) -> Verdict:
        former = self._pairs.get(peer_id)
        self._generation += 1
        self._pairs[peer_id] = _Pair(connection, dialled, self._generation)
        return Verdict(Step.TAKE, self._generation, None if former is None else former.connection)
