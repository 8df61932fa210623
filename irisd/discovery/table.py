"""Candidates of one service, and when to dial which (pure).

Two lanes keep strangers from the rest. What an operator named, a peer told or
an earlier link proved is dialled in the *trusted* lane; what was only heard on
the network in the *announced* lane, which has its own, smaller budget. A flood
of forged announcements can fill its lane and its table and nothing else.

A candidate that is linked is parked and costs nothing; when the link ends it is
due again. Failures double its delay from 0.1 s to 30 s, drawn from the upper
half, so that two nodes that lost each other do not dial in step. One that was
linked is not let wait longer than an eighth of the time it has been gone (or a
second): who is lost for a moment is back in a moment, who is gone for good
costs a dial every half a minute. Of two nodes that hear of each other at once
the lower id dials, the higher holds back a moment: most pairs need one dial.

A node that is not *wanted* (in a large mesh nobody links with everybody) is put
off, which is no failure: it is looked at again later, or when a peer tells of it.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

from irisd.config import Address
from irisd.discovery.lanes import Lane

NOBODY: Final = bytes(16)

FIRST_DELAY: Final = 0.1
MAX_DELAY: Final = 30.0
SOON: Final = 1.0
GONE_SHARE: Final = 1 / 8
"""What was linked once is dialled after ``SOON`` seconds, or this share of the time it has been gone, at the latest."""
LOOK_AGAIN: Final = 30.0
"""Seconds after which a node that was not wanted is looked at again."""
NOT_WANTED: Final = "not-wanted"
STEADY: Final = 5.0
"""Seconds a link must have lasted for those that did not last before it to be forgotten."""
HOLD_BACK: Final = 0.2
"""Least seconds the higher node id waits for the lower to dial; half as much again at most."""
GIVE_UP: Final = 24 * 3_600.0
"""Seconds without any sign of life after which an address that once worked, or was told, is forgotten."""
UNHEARD: Final = 300.0
"""Seconds after which what was only heard, and is heard no more, is forgotten; nodes repeat themselves every 30 s."""


class Source(StrEnum):
    """Where a candidate comes from; earlier ones are worth more."""

    SEED = "seed"
    PEER = "peer"
    STATE_FILE = "state-file"
    MULTICAST = "multicast"


@dataclass(frozen=True, slots=True)
class Attempted:
    """How dialling a candidate once, at all its addresses, ended."""

    outcome: str
    detail: str = ""
    linked: bool = False
    node_id: bytes = NOBODY
    """Who answered, if somebody did."""
    address: Address | None = None
    """Where the outcome is from; when linked, the address that works."""
    hopeless: bool = False
    """Trying again soon makes no sense: we reached ourselves, or somebody else."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What candidates may cost. Rates are dials per second, a dial tries all addresses of a candidate."""

    candidates: int = 4_096
    announced_dials: int = 16
    announced_rate: float = 20.0
    announced_burst: float = 40.0
    trusted_dials: int = 64
    trusted_rate: float = 200.0
    trusted_burst: float = 400.0


class Candidate:
    """Somebody who might be a node of the service.

    Attributes:
        key: ``node <id>`` or an address; unique in its table.
        source: Where it was first heard of.
        addresses: Where to dial, best first.
        expected: The only node that is welcome there, until it was linked once; ``NOBODY``: any.
        peer_id: Who answered last.
        proven: Whether it was linked once.
        heard: When it was last told, heard or linked.
        attempts: How often it was dialled.
        last: How the last dial ended, and when.
        due: When it is dialled next; infinite while it is linked.
        put_off: Whether it was not wanted when its turn came.
    """

    __slots__ = (
        "addresses",
        "attempts",
        "began",
        "dialling",
        "due",
        "expected",
        "failures",
        "flaps",
        "heard",
        "key",
        "last",
        "last_at",
        "linked_at",
        "peer_id",
        "proven",
        "put_off",
        "source",
    )

    def __init__(self, key: str, source: Source, addresses: tuple[Address, ...], expected: bytes, now: float) -> None:
        self.key = key
        self.source = source
        self.addresses = addresses
        self.expected = expected
        self.peer_id = expected
        self.proven = False
        self.put_off = False
        self.heard = now
        self.began = now
        self.attempts = 0
        self.failures = 0  # dials in a row
        self.flaps = 0  # links in a row that did not last
        self.last: Attempted | None = None
        self.last_at = 0.0
        self.linked_at = -math.inf
        self.due = math.inf
        self.dialling = False

    @property
    def trusted(self) -> bool:
        """Whether more speaks for it than an announcement."""
        return self.proven or self.source is not Source.MULTICAST

    def linked(self, now: float) -> None:
        """A link with it is up."""
        self.proven = True
        self.failures = 0
        self.heard = self.linked_at = now

    def expires(self) -> float:
        """When it is forgotten, if nothing is heard of it until then."""
        if self.source is Source.SEED:
            return math.inf
        return self.heard + (GIVE_UP if self.trusted else UNHEARD)


class Table:
    """The candidates of one node.

    Args:
        own_id: Our node id.
        is_linked: Whether a link with a node is up.
        random: For delays.
        limits: What candidates may cost.
        wants: Whether to dial a node; one whose id is not known is always wanted.

    Attributes:
        counts: What became of what was told, by name.
    """

    def __init__(
        self,
        own_id: bytes,
        is_linked: Callable[[bytes], bool],
        random: Random,
        limits: Limits | None = None,
        *,
        wants: Callable[[bytes], bool] = lambda node_id: True,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._own_id = own_id
        self._is_linked = is_linked
        self._wants = wants
        self._random = random
        self._limits = limits = limits or Limits()
        self._candidates: OrderedDict[str, Candidate] = OrderedDict()  # longest unheard first
        self._by_peer: dict[bytes, set[str]] = {}
        self._trusted: Lane[Candidate] = Lane(limits.trusted_dials, limits.trusted_rate, limits.trusted_burst)
        self._announced: Lane[Candidate] = Lane(limits.announced_dials, limits.announced_rate, limits.announced_burst)

    def __len__(self) -> int:
        return len(self._candidates)

    def __contains__(self, key: str) -> bool:
        return key in self._candidates

    def candidates(self) -> Iterable[Candidate]:
        """All of them, those heard of last at the end."""
        return self._candidates.values()

    def of_node(self, node_id: bytes) -> Candidate | None:
        """The candidate that was announced or told under this id."""
        return self._candidates.get(node_key(node_id))

    # ------------------------------------------------------------- hearing

    def heard_node(self, node_id: bytes, addresses: tuple[Address, ...], source: Source, now: float) -> bool:
        """A node is said to be at these addresses; return whether that was news."""
        if node_id == self._own_id:
            self.counts["own"] += 1
            return False
        news = self._heard(node_key(node_id), node_id, addresses, source, now)
        if source is Source.PEER and self._is_linked(node_id):
            self._take_place(node_id, addresses)
        return news

    def heard_address(self, address: Address, source: Source, now: float) -> bool:
        """Some node of the service is said to be at this address; return whether that was news."""
        return self._heard(str(address), NOBODY, (address,), source, now)

    def _heard(self, key: str, expected: bytes, addresses: tuple[Address, ...], source: Source, now: float) -> bool:
        known = self._candidates.get(key)
        if known is not None:
            known.heard = now
            self._candidates.move_to_end(key)
            if known.source is not Source.SEED and _RANK[source] < _RANK[known.source]:
                known.source = source
            if set(addresses) <= set(known.addresses):
                if known.put_off and source is not Source.MULTICAST and not self._parked(known):
                    self._schedule(known, now + self._hesitation(known))  # it may be wanted by now
                return False
            # What was known stays, at the end: anybody could send us elsewhere otherwise. What worked stays first.
            first = known.addresses[:1] if known.proven else ()
            known.addresses = tuple(dict.fromkeys((*first, *addresses, *known.addresses)))[:MAX_ADDRESSES]
            self.counts["moved"] += 1
            if not known.dialling and not self._parked(known):
                self._schedule(known, now + self._hesitation(known))
            return True
        if len(self._candidates) >= self._limits.candidates and not self._make_room(source):
            self.counts["table-full"] += 1
            return False
        candidate = Candidate(key, source, addresses, expected, now)
        self._candidates[key] = candidate
        self._index(candidate)
        if self._parked(candidate):  # told of after its link came up
            candidate.linked(now)
        self.counts["new"] += 1
        self._schedule(candidate, now + self._hesitation(candidate))
        return True

    def goodbye(self, node_id: bytes) -> bool:
        """A node is said to have gone; return whether that was believed.

        Anybody can say so. Who was linked once is forgotten when its link says
        goodbye, which nobody can forge; until then it is dialled as before.
        """
        candidate = self._candidates.get(node_key(node_id))
        if candidate is None or candidate.trusted:
            return False
        self.drop(candidate.key)
        return True

    def drop(self, key: str) -> None:
        """Forget a candidate. A link that is up stays."""
        candidate = self._candidates.pop(key, None)
        if candidate is not None:
            candidate.due = math.inf
            self._unindex(candidate)

    # ------------------------------------------------------------ dialling

    def take(self, now: float) -> list[Candidate]:
        """Candidates to dial now, within the budget. Each is followed by :meth:`attempted`."""
        taken = []
        for lane in (self._trusted, self._announced):
            while (candidate := lane.pop(now)) is not None:
                if self._candidates.get(candidate.key) is not candidate:
                    continue
                candidate.due = math.inf
                if candidate.expires() <= now:
                    self.drop(candidate.key)
                    self.counts["given-up"] += 1
                elif self._parked(candidate):
                    continue
                elif candidate.peer_id != NOBODY and not self._wants(candidate.peer_id):
                    candidate.put_off = True
                    candidate.last, candidate.last_at = Attempted(NOT_WANTED), now
                    self._schedule(candidate, now + LOOK_AGAIN * self._random.uniform(0.5, 1.0))
                else:
                    lane.begin(now)
                    candidate.dialling, candidate.put_off = True, False
                    candidate.began = now
                    candidate.attempts += 1
                    taken.append(candidate)
        return taken

    def deadline(self, now: float) -> float:
        """When :meth:`take` has something to do, at the earliest; infinite: not until something happens."""
        return min(self._trusted.deadline(now), self._announced.deadline(now))

    def attempted(self, candidate: Candidate, trusted: bool, result: Attempted, now: float) -> None:
        """A dial has ended.

        Args:
            candidate: Whose.
            trusted: What :attr:`Candidate.trusted` was when it was taken.
            result: How.
            now: When.
        """
        (self._trusted if trusted else self._announced).end()
        candidate.dialling = False
        candidate.last, candidate.last_at = result, now
        if self._candidates.get(candidate.key) is not candidate:
            return  # forgotten meanwhile
        if result.node_id not in (NOBODY, self._own_id) and not (candidate.expected != NOBODY and result.hopeless):
            self._unindex(candidate)
            candidate.peer_id = result.node_id
            self._index(candidate)
        if result.linked:
            self._proven(candidate, result, now)
        else:
            candidate.failures += 1
        if not self._parked(candidate):
            # What was linked is dialled so often that a dial which hangs is part of the wait for the next.
            began = candidate.began if candidate.proven and not result.hopeless else now
            at = max(began + self._delay(candidate, result, now), now + FIRST_DELAY * self._random.uniform(0.5, 1.0))
            self._schedule(candidate, at)

    def _proven(self, candidate: Candidate, result: Attempted, now: float) -> None:
        candidate.linked(now)
        candidate.expected = NOBODY  # whoever is at this address next is welcome too
        where = result.address
        if where is None:
            return
        if where in candidate.addresses:  # next time, first
            candidate.addresses = tuple(dict.fromkeys((where, *candidate.addresses)))
        for other in list(self._candidates.values()):
            superseded = where in other.addresses and other.peer_id != result.node_id
            if other is not candidate and superseded and other.source is not Source.SEED and not other.dialling:
                self.drop(other.key)  # a node that was there before: ids are never used again

    def _take_place(self, node_id: bytes, addresses: tuple[Address, ...]) -> None:
        """A node that is linked is at these addresses: who was nowhere else and is not linked was there before it."""
        for other in list(self._candidates.values()):
            if other.source is Source.SEED or other.dialling or other.peer_id == node_id or self._parked(other):
                continue
            if set(other.addresses) <= set(addresses):
                self.drop(other.key)

    # --------------------------------------------------------------- links

    def link_up(self, node_id: bytes, now: float) -> None:
        """A link is up, no matter who dialled: who was announced under this id has proven it."""
        for key in self._by_peer.get(node_id, ()):
            self._candidates[key].linked(now)

    def link_down(self, node_id: bytes, now: float, *, left: bool) -> None:
        """A link has ended.

        Args:
            node_id: With whom.
            now: When.
            left: The node said goodbye: it will not come back, though another may at its address.
        """
        for key in list(self._by_peer.get(node_id, ())):
            candidate = self._candidates[key]
            if left and key == node_key(node_id):
                self.drop(key)
                continue
            candidate.heard = now
            if candidate.dialling:
                continue
            candidate.flaps = 0 if now - candidate.linked_at >= STEADY else candidate.flaps + 1
            delay = _doubled(candidate.flaps) * self._random.uniform(0.5, 1.0)
            self._schedule(candidate, now + delay + self._hesitation(candidate))

    # -------------------------------------------------------------- inside

    def _parked(self, candidate: Candidate) -> bool:
        return candidate.peer_id != NOBODY and self._is_linked(candidate.peer_id)

    def _hesitation(self, candidate: Candidate) -> float:
        """Whom both sides hear of at once is dialled by the lower id."""
        both = candidate.proven or candidate.source is Source.MULTICAST
        if not both or not NOBODY < candidate.peer_id < self._own_id:
            return 0.0
        return HOLD_BACK * self._random.uniform(1.0, 1.5)

    def _delay(self, candidate: Candidate, result: Attempted, now: float) -> float:
        longest = MAX_DELAY if result.hopeless else _doubled(candidate.failures)
        if candidate.proven and not result.hopeless:
            longest = min(longest, max(SOON, (now - candidate.heard) * GONE_SHARE))
        return longest * self._random.uniform(0.5, 1.0)

    def _schedule(self, candidate: Candidate, at: float) -> None:
        candidate.due = at
        (self._trusted if candidate.trusted else self._announced).push(candidate)

    def _make_room(self, source: Source) -> bool:
        """Forget the longest unheard of those that are only announced; what is told may take the place of any."""
        longest: str | None = None
        for key, candidate in self._candidates.items():
            if not candidate.dialling and not self._parked(candidate):
                if not candidate.trusted:
                    longest = key
                    break
                if longest is None and candidate.source is not Source.SEED:
                    longest = key
            if source is Source.MULTICAST:
                self._candidates.move_to_end(key)  # look elsewhere next time: this must not cost a scan each
                return False
        if longest is None:
            return False
        self.drop(longest)
        self.counts["evicted"] += 1
        return True

    def _index(self, candidate: Candidate) -> None:
        if candidate.peer_id != NOBODY:
            self._by_peer.setdefault(candidate.peer_id, set()).add(candidate.key)

    def _unindex(self, candidate: Candidate) -> None:
        keys = self._by_peer.get(candidate.peer_id)
        if keys is not None:
            keys.discard(candidate.key)
            if not keys:
                del self._by_peer[candidate.peer_id]


MAX_ADDRESSES: Final = 16
_RANK: Final = {source: rank for rank, source in enumerate(Source)}


def _doubled(times: int) -> float:
    """The longest pause after so many failures in a row."""
    return min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(max(times - 1, 0), 30))


def node_key(node_id: bytes) -> str:
    """The key of a candidate whose id is known."""
    return f"node {node_id.hex()}"
