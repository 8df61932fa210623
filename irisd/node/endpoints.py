"""The two kinds of neighbour a node has: its own apps, and its peers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from irisd.flow import Assembler, Flow, Outbox, Purse, Queue
from irisd.flow.outbox import cost
from irisd.model import AttachmentId, Claim, Destination, Frame, NodeId, NodeRecord, PeerInfo
from irisd.registry import Record
from irisd.router import Call, Candidate, Contender, Gather, RetryBudget, Tunnel

UnderWay = Call | Gather | Tunnel


class Endpoint:
    """A neighbour: what waits to leave towards it, and the calls between us.

    Attributes:
        id: Where frames go that are for it: a peer's ``node``, an app's ``attachment``.
        opened: Calls it opened, by its ids.
        given: Calls we opened towards it, by our ids.
    """

    def __init__(self, id: Destination, *, first_id: int, outbox_limit: float, max_body: int) -> None:
        self.id = id
        self.outbox = Outbox(limit=outbox_limit)
        self.assembler = Assembler(max_body=max_body)
        self.opened: dict[int, UnderWay] = {}
        self.given: dict[int, UnderWay] = {}
        self._next_id = first_id

    def next_id(self) -> int:
        """An id of ours for a new call; odd and even keep the two sides apart."""
        id, self._next_id = self._next_id, self._next_id + 2
        return id

    def find(self, id: int) -> UnderWay | None:
        """The call under way with this id, whoever opened it."""
        return self.opened.get(id) or self.given.get(id)


class Incoming:
    """A record of which some pieces are here. ``draft`` has the claims of a whole one in more than one piece."""

    def __init__(self, author: NodeId, about: NodeRecord | None, base: int, *, full: bool) -> None:
        self.author = author
        self.about = about
        self.base = base
        self.full = full
        self.claims: list[Claim] = []
        self.draft: Record | None = None


class Peer(Endpoint):
    """Another node: linked, or about to be because something waits for it.

    Attributes:
        linked: Whether there is a link.
        dialled: Whether this side made it.
        speaks: Whether it knows more than the first release.
        last_used: When a call or an event last went either way.
        closing: It was asked whether its link may be closed; until it answers nothing is sent.
        acknowledged: Version of our record it holds.
        incoming: What has come of a record, its own and somebody else's.
        synced: Its whole record is here.
        sent_before: The number of the last publish before this link.
        change: The last RECORD towards it; one that still waits takes up the next claim.
        changed: What that builds on and its claims; None: it is a whole record.
    """

    def __init__(self, info: PeerInfo, *, first_id: int, outbox_limit: int, max_body: int, now: float) -> None:
        super().__init__(info.node_id, first_id=first_id, outbox_limit=outbox_limit, max_body=max_body)
        # all its topics may be between two parts at once, and a call and a reply besides
        self.assembler = Assembler(max_body=max_body, max_bytes=outbox_limit + 3 * max_body)
        self.info = info
        self.node: NodeId = info.node_id
        self.linked = False
        self.dialled = False
        self.speaks = False
        self.since = now
        self.last_used = now
        self.closing = False
        self.acknowledged = 0
        self.incoming: dict[int, Incoming] = {}
        self.synced = False
        self.sent_before = 0
        self.change: Frame | None = None
        self.changed: tuple[int, dict[tuple[str, str, str], Claim]] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way and nothing waits."""
        return not (self.given or self.opened or self.outbox)


class Member(Candidate):
    """One attachment serving one cluster.

    Attributes:
        patterns: What it handles.
        concurrency: Calls it takes at once; it is never given more.
        level: 0 is the best; see ``Header.priority``.
        balance: How calls to its cluster should be shared out.
        seat: Its number among the cluster's members here: what keys go by.
        taking: It takes new work.
        ejections: How often in a row it was given nothing for a while, because it failed.
        out: It is given nothing now.
        on_trial: One call decides whether it is given more.
    """

    __slots__ = (
        "app",
        "balance",
        "cluster",
        "concurrency",
        "ejections",
        "join_id",
        "level",
        "on_trial",
        "out",
        "patterns",
        "seat",
        "sound_since",
        "taking",
    )

    def __init__(
        self,
        app: App,
        join_id: int,
        cluster: str,
        patterns: int,
        concurrency: int,
        *,
        level: int = 0,
        balance: int = 0,
    ) -> None:
        super().__init__(concurrency)
        self.app = app
        self.join_id = join_id
        self.cluster = cluster
        self.patterns = patterns
        self.concurrency = concurrency
        self.level = level
        self.balance = balance
        self.seat = 0
        self.taking = False
        self.ejections = 0
        self.out = False
        self.on_trial = False
        self.sound_since = 0.0

    @property
    def has_room(self) -> bool:
        """Whether it may be given one more call."""
        return len(self.under_way) < (1 if self.on_trial else self.concurrency)


class Subscription(Contender):
    """One app's wish for the topics a filter matches; in a group, one of those a message may go to.

    There may be a million, most of them silent: one holds no container of its own.

    Attributes:
        limit: Bytes that may wait for it.
        when_full: What happens to more.
        queue: Set when it blocks: its publishers wait.
    """

    __slots__ = ("app", "filter", "group", "id", "limit", "queue", "when_full")

    def __init__(
        self, app: App, id: int, filter: str, group: str, limit: int, when_full: int, queue: Queue | None = None
    ) -> None:
        super().__init__()
        self.app = app
        self.id = id
        self.filter = filter
        self.group = group
        self.limit = limit
        self.when_full = when_full
        self.queue = queue

    @property
    def flow(self) -> Flow:
        """Where its messages wait; made when there are any, to be used at once."""
        return self.app.outbox.open(self.id, limit=self.limit, when_full=self.when_full)

    def load(self, now: float) -> float:
        """Share of its queue that is taken."""
        return self.app.outbox.queued(self.id)[1] / self.limit


@dataclass(slots=True, eq=False)
class Watch:
    """One app's wish to be told who comes and goes."""

    app: App
    id: int
    cluster: str  # empty: everything
    flow: Flow


class Head:
    """A publish that waits for credit, in full or in part.

    Attributes:
        rest: What those who get every message have yet to get.
        groups: What each group has yet to get, in pieces for its members. None: nobody was asked yet.
        moved: Something of it left the last time.
    """

    __slots__ = ("bytes", "groups", "messages", "moved", "rest")

    def __init__(self, frame: Frame) -> None:
        self.rest: Frame | None = frame
        self.groups: dict[str, deque[Frame]] | None = None
        self.bytes = cost(frame)
        self.messages = frame.messages
        self.moved = False


@dataclass(slots=True, eq=False)
class Flushing:
    """A FLUSH that waits for what is held in front of it, under ``left`` topics."""

    app: App
    id: int
    left: int
    over: bool = False


@dataclass(slots=True, eq=False)
class Hold:
    """What one app published to one topic and that waits for credit, in order."""

    app: App
    topic: str
    items: deque[Head | Flushing] = field(default_factory=deque)
    lacking: list[Purse] = field(default_factory=list)
    reserving: list[Purse] = field(default_factory=list)
    stalled: bool = False


class App(Endpoint):
    """An attachment: one app's live stream."""

    def __init__(
        self, id: AttachmentId, name: str, member_name: str, *, backlog: float, max_body: int, now: float = 0.0
    ) -> None:
        # the bound of all subscriptions; calls are bounded where they are given
        super().__init__(id, first_id=2, outbox_limit=backlog, max_body=max_body)
        self.attachment: AttachmentId = id
        self.name = name
        self.member_name = member_name
        self.members: dict[int, Member] = {}  # by the JOIN's id
        self.subscriptions: dict[int, Subscription] = {}
        self.watches: dict[int, Watch] = {}
        self.draining = False
        self.answers = False  # it says GOODBYE to ours
        self.goodbye = False  # it has said so: it opens nothing more
        self.gone = False  # its stream has ended; some of its subscriptions may still have to
        self.last_heard = 0.0
        self.welcome = False  # until then nothing leaves towards it
        self.lost = 0  # publishes dropped since its last FLUSH
        self.retries = RetryBudget(now)
        self.last_taken = now  # when the edge last took something: is it reading?
        self.heeds_pause = False
        self.reserved = 0  # bytes its subscriptions that block may hold
        self.held: dict[str, Hold] = {}  # by topic
        self.held_bytes = 0
        self.held_messages = 0
        self.asked: list[int] = []  # FLUSH that are answered at once, once less is held
        self.told: dict[str, Frame] = {}  # by topic: the last word on whether to wait with it

    @property
    def standing(self) -> int:
        """How much it has joined, subscribed to and watches."""
        return len(self.members) + len(self.subscriptions) + len(self.watches)

    def holds(self, id: int) -> bool:
        """Whether ``id`` is that of something it has joined, subscribed to or watches."""
        return id in self.members or id in self.subscriptions or id in self.watches


@dataclass(slots=True, eq=False)
class Syncing:
    """A JOIN or SUBSCRIBE that waits until every linked peer holds our record at ``version``."""

    app: App
    id: int
    version: int
