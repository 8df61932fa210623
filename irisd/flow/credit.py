"""Byte credit between publishers' nodes and subscribers that must lose nothing (pure).

A subscriber that blocks has a :class:`Queue`: what it may hold, in its node and in its app. Its node keeps a
:class:`Book` for each (filter, group) and lends room to the nodes that publish; a publishing node keeps what it was
lent in a :class:`Purse` and sends only what it can pay for.

Invariants:
    - what is lent and what is held never exceed the queue, but for one message that alone is larger, and what had
      been lent when a smaller queue joined
    - a loan is as large as the purse and what is on its way together: a message pays the same at both ends
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from irisd.flow.outbox import FRAME_COST
from irisd.model import Frame, KiB, NodeId

MESSAGE_COST = 32
"""Credit each message of a batch uses besides its body: about what it costs to hold it cut out."""

CHUNK = 16 * KiB
"""Less than this is not lent, unless the queue is small or that is all that is needed."""


def charge(frame: Frame) -> int:
    """The credit a frame of messages uses; the same at every node."""
    headers = sum(map(len, frame.headers)) + len(frame.content_type)
    return FRAME_COST + headers + len(frame.body) + MESSAGE_COST * (len(frame.sizes) >> 2)


def least(frame: Frame) -> int:
    """The credit its first message alone uses."""
    if not frame.sizes:
        return charge(frame)
    first = int.from_bytes(frame.sizes[:4], "little")
    return charge(frame) - len(frame.body) + first - MESSAGE_COST * ((len(frame.sizes) >> 2) - 1)


def cut(frame: Frame, credit: float) -> tuple[Frame, Frame | None]:
    """The first messages of a frame, as many as ``credit`` pays for and one in any case, and the rest."""
    if charge(frame) <= credit or not frame.sizes:
        return frame, None
    sizes = memoryview(frame.sizes).cast("I")
    left = credit - least(frame)
    at, count = sizes[0], 1
    while count < len(sizes) - 1 and left >= sizes[count] + MESSAGE_COST:
        left -= sizes[count] + MESSAGE_COST
        at += sizes[count]
        count += 1
    first = frame.copy(sizes=frame.sizes[: 4 * count], body=frame.body[:at])
    return first, frame.copy(sizes=frame.sizes[4 * count :], body=frame.body[at:])


class Queue:
    """What one subscriber that blocks may hold.

    Attributes:
        limit: Bytes.
        used: Of them, what waits for it here and what its app has not yet given back.
        name: Its member, for people.
    """

    __slots__ = ("limit", "name", "used")

    def __init__(self, limit: int, name: str) -> None:
        self.limit = limit
        self.name = name
        self.used = 0

    @property
    def room(self) -> int:
        """What it can still take; below zero when one large message fills it."""
        return self.limit - self.used

    def takes(self, size: int) -> bool:
        """Whether it can take so much; one message always fits when nothing else is held."""
        return size <= self.limit - self.used or not self.used


class Book:
    """What is lent of the queues under one (filter, group).

    Every message of a filter goes to all of its queues, so the fullest one counts; of a group's it goes to one, so
    the emptiest does.
    """

    def __init__(self, filter: str, group: str) -> None:
        self.filter = filter
        self.group = group
        self.queues: dict[Queue, None] = {}
        self.loans: dict[NodeId, int] = {}
        self.lent = 0
        self._waiting: dict[NodeId, tuple[int, int, int]] = {}  # in turn: as in `ask`
        self._recalled: set[NodeId] = set()

    def __bool__(self) -> bool:
        return bool(self.queues or self.loans or self._waiting)

    @property
    def has_waiting(self) -> bool:
        """Whether somebody waits for more."""
        return bool(self._waiting)

    @property
    def free(self) -> int:
        """What may still be lent."""
        rooms = [queue.limit - queue.used for queue in self.queues]
        return (max(rooms) if self.group else min(rooms)) - self.lent if rooms else 0

    @property
    def slowest(self) -> str:
        """Whom everybody waits for: the group, else the member with the least room."""
        if self.group or not self.queues:
            return self.group
        return min(self.queues, key=lambda queue: queue.room).name

    def ask(self, node: NodeId, need: int, wanted: int, purse: int, window: int) -> int:
        """Lend ``wanted`` bytes or fewer, ``need`` at least; 0: it waits until :meth:`serve` has some.

        Args:
            node: Who asks.
            need: Less is of no use; 0: none is needed yet.
            wanted: All that would be of use.
            purse: What it holds of its loan; the rest is on its way here.
            window: Most it may hold.
        """
        self._waiting.pop(node, None)
        self._recalled.discard(node)  # it may hold something again
        others_first = any(needed for needed, _, _ in self._waiting.values())
        lent = 0 if others_first else self._lend(node, need, wanted, purse, window)
        if not lent:
            self._waiting[node] = (need, wanted, purse)
        return lent

    def serve(self, window: int) -> list[tuple[NodeId, int]]:
        """Lend what has become free to those who wait, in turn; those who need it before those who would like it."""
        served = []
        for node, (need, wanted, purse) in sorted(self._waiting.items(), key=lambda item: not item[1][0]):
            lent = self._lend(node, need, wanted, purse, window)
            if not lent:
                break
            del self._waiting[node]
            served.append((node, lent))
        return served

    def recalls(self) -> list[NodeId]:
        """Those who should give back what they do not need, because somebody waits for it; each is told once."""
        if not self.queues or not any(need for need, _, _ in self._waiting.values()):
            return []
        waiting = next(iter(self._waiting)) if len(self._waiting) == 1 else None
        found = [node for node in self.loans if node != waiting and node not in self._recalled]
        self._recalled.update(found)
        return found

    def give_back(self, node: NodeId, amount: int) -> None:
        """Some of a loan comes back unused; what its borrower waits for grows by that."""
        self.repay(node, amount)
        if node in self._waiting:
            need, wanted, purse = self._waiting[node]
            known = min(amount, purse)  # what it was lent after it asked is not part of what it asked for
            self._waiting[node] = (need and need + known, wanted + known, purse - known)

    def repay(self, node: NodeId, amount: int) -> bool:
        """A loan was used or given back; False if it was not as large as that."""
        held = self.loans.get(node, 0)
        paid = min(held, amount)
        self.lent -= paid
        if held > paid:
            self.loans[node] = held - paid
        elif held:
            del self.loans[node]
            self._recalled.discard(node)
        return paid == amount

    def forget(self, node: NodeId) -> None:
        """A node that cannot be reached holds nothing and waits for nothing."""
        self.lent -= self.loans.pop(node, 0)
        self._waiting.pop(node, None)
        self._recalled.discard(node)

    def withdraw(self, node: NodeId) -> None:
        """A node waits no longer."""
        self._waiting.pop(node, None)

    def _lend(self, node: NodeId, need: int, wanted: int, purse: int, window: int) -> int:
        free, mine = self.free, self.loans.get(node, 0)
        share = free // len(self.loans.keys() | self._waiting.keys() | {node})
        lent = min(wanted, share, window - mine)
        enough = max(need, min(CHUNK, wanted, self._limit // 8))
        if lent < enough:
            fits = enough + mine <= window or (need and mine <= purse)
            lent = enough if enough <= free and fits else 0
        if not lent and need and self.lent == mine <= purse and self._empty():
            lent = need
        if lent:
            self.loans[node] = mine + lent
            self.lent += lent
            self._recalled.discard(node)
        return lent

    @property
    def _limit(self) -> int:
        return min((queue.limit for queue in self.queues), default=0)

    def _empty(self) -> bool:
        used = [queue.used for queue in self.queues]
        return bool(used) and not (min(used) if self.group else max(used))


class Purse:
    """What this node may send to the queues under a node's (filter, group).

    Attributes:
        credit: Bytes.
        level: What it was when it was last filled: at half of it more is asked for.
        asked: Of an answer that is still to come: how much is needed at least. None: nothing was asked.
        slow: Whom the other side waits for.
        waiting: What waits for credit here, in turn.
        reserved: What has enough here and waits for another purse, and how much that is. Purses are taken in one
            order by all nodes, so two that want the same ones never wait for each other.
        recalled: The other side would like to have back what is not needed.
    """

    __slots__ = ("asked", "credit", "filter", "group", "level", "node", "recalled", "reserved", "slow", "waiting")

    def __init__(self, node: NodeId, filter: str, group: str) -> None:
        self.node = node
        self.filter = filter
        self.group = group
        self.credit = 0
        self.level = 0
        self.asked: int | None = None
        self.slow = group
        self.waiting: OrderedDict[Hashable, None] = OrderedDict()
        self.reserved: dict[Hashable, int] = {}
        self.recalled = False

    @property
    def spare(self) -> int:
        """What is not needed."""
        return max(0, self.credit - max(self.reserved.values(), default=0))

    def release(self) -> int:
        """Take out what is not needed, to give it back."""
        spare = self.spare
        self.credit -= spare
        self.recalled = self.credit > 0
        if self.asked:
            self.asked += spare
        return spare

    def fill(self, amount: int) -> None:
        """More credit has come: what was asked for."""
        self.credit += amount
        self.level = self.credit
        self.asked = None
        self.recalled = False


class Lack:
    """What a publish waits for: credit in any of ``purses``; and what it has ``reserved`` in others meanwhile."""

    __slots__ = ("purses", "reserved")

    def __init__(self) -> None:
        self.purses: dict[Purse, None] = {}
        self.reserved: dict[Purse, int] = {}
