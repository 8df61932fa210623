"""Credit for those who publish to this node's subscriptions that block: whom it is lent, and when there is more.

This node's own publishers borrow as those of any other node do, without frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from irisd.flow import Book
from irisd.flow.credit import charge
from irisd.model import Frame, KiB, Kind, NodeId
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import App, Peer, Subscription
from irisd.registry import TopicIndex, entries

MIN_WINDOW = 16 * KiB
"""Credit every publishing node may hold under one filter, however many filters there are."""


class Lending:
    """The books of this node.

    Attributes:
        granted: Called with (filter, group, bytes) when this node's own publishers, who waited, are lent something.
        recalled: Called with (filter, group) to have back what they do not need; returns how much that is.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._own = core.identity.node_id
        self._books: dict[tuple[str, str], Book] = {}
        self._index: TopicIndex[Book, tuple[Book, ...]] = TopicIndex(entries)
        self._due: dict[Book, None] = {}
        self.granted: Callable[[str, str, int], None] = lambda filter, group, count: None
        self.recalled: Callable[[str, str], int] = lambda filter, group: 0

    def __len__(self) -> int:
        return len(self._books)

    @property
    def is_due(self) -> bool:
        """Whether :meth:`settle` has something to do."""
        return bool(self._due)

    @property
    def books(self) -> Iterator[Book]:
        """To be looked at, by tests."""
        return iter(self._books.values())

    def open(self, subscription: Subscription) -> None:
        """A subscription that blocks takes messages from now on."""
        if subscription.queue is not None:
            self._book(subscription.filter, subscription.group).queues[subscription.queue] = None

    def close(self, subscription: Subscription) -> None:
        """It takes no more; the others of its filter may have more room now."""
        book = self._books.get((subscription.filter, subscription.group))
        if subscription.queue is not None and book is not None and subscription.queue in book.queues:
            del book.queues[subscription.queue]
            self._due[book] = None

    def consumed(self, app: App, subscription: Subscription, frame: Frame) -> None:
        """CREDIT: an app gives back what it has read.

        Raises:
            ProtocolError: It was never given so much.
        """
        queue, count = subscription.queue, frame.count
        if queue is None or frame.kind != Kind.CREDIT or count > queue.used:
            raise ProtocolError(f"subscription {frame.id}: it holds less than {count} bytes that could be given back")
        queue.used -= count
        book = self._books.get((subscription.filter, subscription.group))
        if book is not None:
            self._due[book] = None

    def ask(self, filter: str, group: str, need: int, wanted: int, purse: int) -> int:
        """This node's own publishers need credit: lend it, or note that they wait (0)."""
        book = self._book(filter, group)
        lent = book.ask(self._own, need, wanted, purse, self._window)
        if not lent and need:
            self._due[book] = None  # others may have what they do not need
        return lent

    def slowest(self, filter: str, group: str) -> str:
        """Whom those who wait for credit wait for."""
        return self._book(filter, group).slowest

    def needed(self, peer: Peer, frame: Frame) -> None:
        """NEED: a peer's publishers need credit, or (``count`` 0) no longer do."""
        book = self._book(frame.address, frame.group)
        if not frame.count:
            book.withdraw(peer.node)
            self._due[book] = None
            return
        lent = book.ask(peer.node, frame.total, max(frame.count, frame.total), frame.cost, self._window)
        if lent or frame.total:
            self._grant(peer.node, book, lent)
        if not lent:
            self._due[book] = None

    def returned(self, peer: Peer, frame: Frame) -> None:
        """RETURN: a peer gives back what it did not use."""
        self.give_back(peer.node, frame.address, frame.group, frame.count)

    def give_back(self, node: NodeId, filter: str, group: str, count: int) -> None:
        """Credit comes back unused."""
        book = self._books.get((filter, group))
        if book is not None:
            book.give_back(node, count)
            self._due[book] = None

    def withdraw(self, filter: str, group: str) -> None:
        """This node's own publishers wait no longer."""
        book = self._books.get((filter, group))
        if book is not None:
            book.withdraw(self._own)
            self._due[book] = None

    def arrived(self, node: NodeId, topic: str, group: str, cost: int) -> set[str]:
        """Messages came that were paid for with ``cost`` bytes of credit: under which filters that had been lent."""
        books = [book for book in self._index.match(topic) if book.group == group] if cost else []
        self._due.update(dict.fromkeys(book for book in books if book.has_waiting))
        return {book.filter for book in books if book.repay(node, cost)}

    def hold(self, subscription: Subscription, event: Frame) -> None:
        """An event is on its way to a subscription that blocks: say what it takes."""
        if subscription.queue is not None:
            event.cost = charge(event)
            subscription.queue.used += event.cost

    def link_lost(self, node: NodeId) -> None:
        """What a peer was lent is free again."""
        for book in self._books.values():
            book.forget(node)
            self._due[book] = None

    @property
    def _window(self) -> int:
        settings = self._core.settings
        share = settings.peer_outbox // 2 // max(1, len(self._books))
        return max(MIN_WINDOW, min(settings.block_window, settings.topic_queue, share))

    def _book(self, filter: str, group: str) -> Book:
        book = self._books.get((filter, group))
        if book is None:
            book = self._books[filter, group] = Book(filter, group)
            self._index.add(filter, book)
        return book

    def settle(self) -> None:
        """Serve everybody for whom something has changed."""
        while self._due:
            book, _ = self._due.popitem()
            self._serve(book)

    def _serve(self, book: Book) -> None:
        """Give what is free to those who wait, and have back what others do not need."""
        again = True
        while again:
            served = book.serve(self._window)
            for node, lent in sorted(served, key=lambda each: each[0] == self._own):  # own ones ask for more at once
                self._grant(node, book, lent)
            again = False
            for node in book.recalls():
                if node == self._own:
                    book.give_back(node, self.recalled(book.filter, book.group))
                    again = True
                elif node in self._core.peers:
                    frame = Frame(Kind.RETURN, address=book.filter, group=book.group)
                    self._core.urgent(self._core.peers[node], frame)
        if not book and self._books.get((book.filter, book.group)) is book:
            del self._books[book.filter, book.group]
            self._index.remove(book.filter, book)

    def _grant(self, node: NodeId, book: Book, lent: int) -> None:
        if node == self._own:
            self.granted(book.filter, book.group, lent)
        elif node in self._core.peers:
            frame = Frame(Kind.GRANT, address=book.filter, group=book.group, count=lent)
            if not lent:
                frame.member = book.slowest
            self._core.urgent(self._core.peers[node], frame)
