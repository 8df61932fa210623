"""The two kinds of neighbour a node has: its own apps, and its peers."""

from __future__ import annotations

from dataclasses import dataclass, field

from irisd.flow import Assembler, Flow, Outbox
from irisd.model import AttachmentId, Claim, Destination, Frame, NodeId, NodeRecord, PeerInfo
from irisd.router import Call, Gather, Tunnel

UnderWay = Call | Gather | Tunnel


class Endpoint:
    """A neighbour: what waits to leave towards it, and the calls between us.

    Attributes:
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
    """A record of which some pieces are here."""

    def __init__(self, author: NodeId, about: NodeRecord | None, base: int, *, full: bool) -> None:
        self.author = author
        self.about = about
        self.base = base
        self.full = full
        self.claims: list[Claim] = []


class Peer(Endpoint):
    """Another node: linked, or about to be because something waits for it.

    Attributes:
        linked: Whether there is a link.
        dialled: Whether this side made it.
        speaks: Whether it knows more than the first release.
        last_used: When a call or an event last went either way.
        closing: It was asked whether its link may be closed; until it answers nothing is sent.
        outstanding: Calls under way there, by cluster.
        acknowledged: Version of our record it holds.
        incoming: What has come of a record, its own and somebody else's.
        synced: Its whole record is here.
        sent_before: The number of the last publish before this link.
        change: The last RECORD towards it; one that still waits takes up the next claim.
    """

    id: NodeId

    def __init__(self, info: PeerInfo, *, first_id: int, outbox_limit: int, max_body: int, now: float) -> None:
        super().__init__(info.node_id, first_id=first_id, outbox_limit=outbox_limit, max_body=max_body)
        # all its topics may be between two parts at once, and a call and a reply besides
        self.assembler = Assembler(max_body=max_body, max_bytes=outbox_limit + 3 * max_body)
        self.info = info
        self.linked = False
        self.dialled = False
        self.speaks = False
        self.since = now
        self.last_used = now
        self.closing = False
        self.outstanding: dict[str, int] = {}
        self.acknowledged = 0
        self.incoming: dict[int, Incoming] = {}
        self.synced = False
        self.sent_before = 0
        self.change: Frame | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way and nothing waits."""
        return not (self.given or self.opened or self.outbox)


@dataclass(slots=True, eq=False)
class Member:
    """One attachment serving one cluster."""

    app: App
    join_id: int
    cluster: str
    patterns: int
    concurrency: int
    outstanding: int = 0
    taking: bool = False  # new work

    @property
    def load(self) -> float:
        """Share of its slots taken, 0 to 1."""
        return self.outstanding / self.concurrency


@dataclass(slots=True, eq=False)
class Subscription:
    """One app's wish for the topics a filter matches."""

    app: App
    id: int
    filter: str
    group: str
    flow: Flow
    sources: set[NodeId] = field(default_factory=set)  # nodes it has had messages from


@dataclass(slots=True, eq=False)
class Watch:
    """One app's wish to be told who comes and goes."""

    app: App
    id: int
    cluster: str  # empty: everything
    flow: Flow


class App(Endpoint):
    """An attachment: one app's live stream."""

    id: AttachmentId

    def __init__(self, id: AttachmentId, name: str, member_name: str, *, backlog: float, max_body: int) -> None:
        # the bound of all subscriptions; calls are bounded where they are given
        super().__init__(id, first_id=2, outbox_limit=backlog, max_body=max_body)
        self.name = name
        self.member_name = member_name
        self.members: dict[int, Member] = {}  # by the JOIN's id
        self.subscriptions: dict[int, Subscription] = {}
        self.watches: dict[int, Watch] = {}
        self.draining = False
        self.answers = False  # it says GOODBYE to ours
        self.goodbye = False  # it has said so: it opens nothing more
        self.last_heard = 0.0
        self.welcome = False  # until then nothing leaves towards it
        self.lost = 0  # publishes dropped since its last FLUSH
        self.last_taken = 0.0  # when the edge last took something: is it reading?

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
