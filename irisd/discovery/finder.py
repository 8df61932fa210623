"""Candidates of one service, dialled (edge): the table, the clock, the seeds, what is worth keeping."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Final, Protocol

from irisd.config import Address
from irisd.discovery.announcement import Announcement, needles_of
from irisd.discovery.lanes import Bucket
from irisd.discovery.seeds import Seed
from irisd.discovery.statefile import MAX_ADDRESSES as MAX_KEPT
from irisd.discovery.table import NOBODY, Attempted, Candidate, Limits, Source, Table
from irisd.status import CandidateRow, SeedRow

NEW_RATE: Final = 200.0
NEW_BURST: Final = 2_000.0
"""New candidates taken from announcements, per second and at once; more are not looked at."""
SHOWN: Final = 256
"""Most candidates that are shown to an operator."""


class Links(Protocol):
    """What discovery needs of the links of a daemon."""

    async def attempt(self, service: str, addresses: Sequence[Address], expected: bytes) -> Attempted:
        """Dial once, at all addresses; say what became of it."""

    def is_linked(self, service: str, node_id: bytes) -> bool:
        """Whether a link with this node is up."""

    def wants(self, service: str, node_id: bytes) -> bool:
        """Whether to dial this node now; it is asked again every half a minute."""


class Teller(Protocol):
    """Told facts worth a log line."""

    def __call__(self, event: str, *, warning: bool = False, **fields: object) -> None:
        """``event`` happened."""


class Finder:
    """Finds the peers of one node.

    Args:
        service: The service.
        node_id: Our id in it.
        tags: Discovery tags of its keyring.
        links: Who dials.
        clock: Monotonic seconds.
        random: For delays.
        tell: Told facts.
        changed: Told when :attr:`kept` has changed.
        limits: What candidates may cost.
    """

    def __init__(
        self,
        service: str,
        node_id: bytes,
        tags: tuple[bytes, ...],
        links: Links,
        *,
        clock: Callable[[], float],
        random: Random,
        tell: Teller,
        changed: Callable[[], None],
        limits: Limits | None = None,
    ) -> None:
        self.service = service
        self.node_id = node_id
        self.tags = tags
        self.needles = needles_of(tags)
        self.table = Table(
            node_id,
            lambda peer: links.is_linked(service, peer),
            random,
            limits,
            wants=lambda peer: links.wants(service, peer),
        )
        self.seeds: list[Seed] = []
        self._links = links
        self._clock = clock
        self._tell = tell
        self._changed = changed
        self._new = Bucket(NEW_RATE, NEW_BURST)
        self._kept: OrderedDict[Address, None] = OrderedDict()  # worked last, last
        self._nudge = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._dials: set[asyncio.Task[None]] = set()

    @property
    def kept(self) -> tuple[Address, ...]:
        """Addresses worth keeping over a restart, those that worked last first."""
        return tuple(reversed(self._kept))

    def start(self, seeds: Iterable[Address], kept: Iterable[Address]) -> None:
        """Begin.

        Args:
            seeds: What the operator named.
            kept: What was kept over the restart.
        """
        now = self._clock()
        for address in reversed(list(kept)):
            self._kept[address] = None
            self.table.heard_address(address, Source.STATE_FILE, now)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"discovery {self.service}")
        for written in seeds:
            seed = Seed(written, self._seed_changed)
            self.seeds.append(seed)
            seed.start()

    def use(self, seeds: Sequence[Address], tags: tuple[bytes, ...]) -> None:
        """Go on with other seeds and tags; those that stay are not asked about anew."""
        self.tags, self.needles = tags, needles_of(tags)
        gone = [seed for seed in self.seeds if seed.written not in seeds]
        held = {seed.written for seed in self.seeds}
        self.seeds = [seed for seed in self.seeds if seed not in gone]
        for seed in gone:
            seed.end()
            self._seed_changed(seed.written, set(), seed.addresses)
        for written in seeds:
            if written not in held:
                seed = Seed(written, self._seed_changed)
                self.seeds.append(seed)
                seed.start()

    async def stop(self) -> None:
        """Dial no more; links that are up stay."""
        for seed in self.seeds:
            await seed.stop()
        tasks = [task for task in (self._task, *self._dials) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------- sources

    def announced(self, announcement: Announcement, addresses: tuple[Address, ...]) -> str:
        """An announcement with one of our tags was heard; return what became of it, in a word."""
        now = self._clock()
        if announcement.node_id == self.node_id:
            return "own"
        if self.table.of_node(announcement.node_id) is None and not self._new.take(now):
            self.table.counts["over-budget"] += 1
            return "over-budget"
        news = self.table.heard_node(announcement.node_id, addresses, Source.MULTICAST, now)
        if news:
            self._nudge.set()
        return "new" if news else "known"

    def goodbye(self, node_id: bytes) -> None:
        """A node is said to have gone."""
        if self.table.goodbye(node_id):
            self.table.counts["goodbye"] += 1

    def learned(self, addresses: Iterable[Address], node_id: bytes) -> None:
        """A peer told where a node (``NOBODY``: some node) of the service is."""
        now = self._clock()
        told = tuple(addresses)[:MAX_KEPT]
        if node_id != NOBODY:
            self.table.heard_node(node_id, told[:16], Source.PEER, now)
        else:
            for address in told:
                self.table.heard_address(address, Source.PEER, now)
        for address in told:
            if address not in self._kept and len(self._kept) < MAX_KEPT:
                self._kept[address] = None
                self._kept.move_to_end(address, last=False)  # told is less than tried
                self._changed()
        self._nudge.set()

    def _seed_changed(self, written: Address, new: set[Address], gone: set[Address]) -> None:
        for address in gone:
            if not any(address in seed.addresses for seed in self.seeds):
                self.table.drop(str(address))
        for address in sorted(new):
            self.table.heard_address(address, Source.SEED, self._clock())
        if str(written.host) != "" and {written} != new:
            self._tell("discovery.resolved", service=self.service, seed=str(written), new=len(new), gone=len(gone))
        self._nudge.set()

    # --------------------------------------------------------------- links

    def link_up(self, node_id: bytes) -> None:
        """A link is up."""
        self.table.link_up(node_id, self._clock())

    def link_down(self, node_id: bytes, *, left: bool) -> None:
        """A link has ended; ``left``: the node said goodbye."""
        self.table.link_down(node_id, self._clock(), left=left)
        self._nudge.set()

    # ------------------------------------------------------------ dialling

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._nudge.clear()
            for candidate in self.table.take(self._clock()):
                task = loop.create_task(self._dial(candidate), name=f"dial {candidate.key}")
                self._dials.add(task)
                task.add_done_callback(self._dialled)
            wait = self.table.deadline(self._clock()) - self._clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait == math.inf else max(0.0, wait)):
                    await self._nudge.wait()

    async def _dial(self, candidate: Candidate) -> None:
        trusted, expected = candidate.trusted, candidate.expected
        result = Attempted("failed", hopeless=True)
        try:
            result = await self._links.attempt(self.service, candidate.addresses, expected)
        finally:
            self.table.attempted(candidate, trusted, result, self._clock())
            self._nudge.set()
        if result.linked and result.address is not None:
            self._keep(result.address)

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dials.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell("discovery.dial_failed", warning=True, service=self.service, error=repr(error)[:200])

    def _keep(self, address: Address) -> None:
        self._kept[address] = None
        self._kept.move_to_end(address)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        self._changed()

    # ------------------------------------------------------------- showing

    def rows(self) -> tuple[CandidateRow, ...]:
        """Candidates for people, those heard of last first, and how their dials ended."""
        now = self._clock()
        rows: list[CandidateRow] = []
        for candidate in reversed(list(self.table.candidates())):
            if len(rows) >= SHOWN:
                break
            rows.append(self._row(candidate, now))
        return tuple(rows)

    def _row(self, candidate: Candidate, now: float) -> CandidateRow:
        linked = candidate.peer_id != NOBODY and self._links.is_linked(self.service, candidate.peer_id)
        last = candidate.last
        found: dict[str, Any] = {}
        if last is not None:
            found = {"outcome": last.outcome, "detail": last.detail, "ago": now - candidate.last_at}
        return CandidateRow(
            node=candidate.peer_id.hex() if candidate.peer_id != NOBODY else "",
            source=str(candidate.source),
            addresses=tuple(map(str, candidate.addresses)),
            linked=linked,
            attempts=candidate.attempts,
            heard=now - candidate.heard,
            next_dial=max(0.0, candidate.due - now) if candidate.due != math.inf and not linked else 0.0,
            **found,
        )

    def seed_rows(self) -> tuple[SeedRow, ...]:
        """Seeds for people."""
        return tuple(
            SeedRow(str(seed.written), tuple(map(str, sorted(seed.addresses)))[:SHOWN], seed.problem)
            for seed in self.seeds
        )
