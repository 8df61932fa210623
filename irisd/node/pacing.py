"""Publishers that wait for subscriptions that block: nothing is sent to those without credit.

What an app publishes to such a topic beyond the credit this node holds is kept here, in order, and the app is told to
PAUSE that topic; everything else of it goes on, until so much is kept under many topics that its questions whether all
was read are not answered: it sends nothing then. When nothing has moved for a while the app is told whom it waits for.
"""

from __future__ import annotations

import math
from collections import deque

from irisd.flow import Purse
from irisd.flow.credit import Lack, charge, cut, least
from irisd.model import Code, Executed, Frame, Kind, NodeId
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import App, Flushing, Head, Hold, Peer
from irisd.node.lending import Lending
from irisd.node.routes import Router
from irisd.registry import BlockKey, Match

MARK_BYTES = 64
"""What a FLUSH that waits is charged for, under every topic."""

MAX_ASKED = 64
"""FLUSH that wait for an answer at once; a client of ours asks one at a time."""


class Pacing:
    """What waits, of all apps of this node."""

    def __init__(self, core: Core, lending: Lending, router: Router) -> None:
        self._core = core
        self._own = core.identity.node_id
        self._lending = lending
        self._router = router
        self._most = core.settings.most_held
        self._purses: dict[BlockKey, Purse] = {}
        self.refilled: dict[Purse, None] = {}  # some wait there, and others had it filled
        lending.granted = self._granted_here
        lending.recalled = self._recalled_here

    @property
    def purses(self) -> dict[BlockKey, Purse]:
        """What this node may send, to be looked at by tests."""
        return self._purses

    # -- what apps say

    def publish(self, app: App, frame: Frame, topic: str) -> None:
        """A PUBLISH that may have to wait.

        Raises:
            ProtocolError: The app goes on although it was told to wait.
        """
        hold = app.held.get(topic)
        head = Head(frame)
        lack = Lack()
        if hold is None:
            lack = self._advance(app, topic, head)
            if not lack.purses:
                return
        if app.held_bytes + head.bytes > self._most:
            if app.heeds_pause:
                raise ProtocolError(f"PUBLISH: over {self._most} bytes to topics that this app was told to wait with")
            app.lost += frame.messages
            self._core.drop("publisher-did-not-wait", frame.messages)
            self._router.unsent(app, topic, head)
            return
        if hold is None:
            hold = app.held[topic] = Hold(app, topic)
            self._core.counters["held.topics"] += 1
            self._core.timers.add(hold, self._core.now + self._core.settings.stall_timeout)
            self._wait(hold, lack)
        hold.items.append(head)
        self._count(app, head.bytes, head.messages)
        if len(hold.items) == 1:
            self._tell(hold, Kind.PAUSE)

    def flush(self, app: App, frame: Frame) -> None:
        """FLUSH: answer once everything before it has been routed."""
        if frame.at_once and app.held_bytes > self._core.settings.publish_hold:
            if len(app.asked) >= MAX_ASKED:
                raise ProtocolError("FLUSH: too many that wait for an answer")
            app.asked.append(frame.id)
            return
        if frame.at_once or not app.held:
            self._flushed(app, frame.id)
            return
        flushing = Flushing(app, frame.id, len(app.held))
        if app.held_bytes + MARK_BYTES * flushing.left > self._most:
            raise ProtocolError("FLUSH: too many wait for topics that are paused")
        for hold in app.held.values():
            hold.items.append(flushing)
            self._count(app, MARK_BYTES, 0)

    def app_gone(self, app: App) -> None:
        """What an app that left published last is lost to those who made it wait; they are told."""
        app.asked = []
        for hold in list(app.held.values()):
            for item in hold.items:
                if isinstance(item, Head):
                    self._core.drop("publisher-gone", item.messages)
                    self._router.unsent(app, hold.topic, item)
            self._end(hold)
        self._count(app, -app.held_bytes, -app.held_messages)

    def stalled(self, hold: Hold) -> None:
        """Nothing of it has moved for a while: its app is told for whom it waits, again and again."""
        hold.stalled = True
        self._core.timers.add(hold, self._core.now + self._core.settings.stall_timeout)
        self._core.counters["stalled.topics"] += 1
        self._core.fact("events.stalled", app=hold.app.member_name, topic=hold.topic, waits_for=self._slow(hold))
        self._tell(hold, Kind.STALLED)
        for item in hold.items:
            if isinstance(item, Flushing) and not item.over:
                item.over = True
                self._fail(item.app, item.id, hold)

    # -- what peers say

    def granted(self, peer: Peer, frame: Frame) -> None:
        """GRANT: a peer lends us room, or says who has none."""
        purse = self._purses.get((peer.node, frame.address, frame.group))
        if purse is None:
            if frame.count:  # nobody waits any more
                back = Frame(Kind.RETURN, address=frame.address, group=frame.group, count=frame.count)
                self._core.urgent(peer, back)
        elif frame.count:
            purse.fill(frame.count)
            self._serve(purse)
        elif frame.member:
            purse.slow = frame.member

    def recalled(self, peer: Peer, frame: Frame) -> None:
        """RETURN without a count: a peer would like to have back what we do not need."""
        purse = self._purses.get((peer.node, frame.address, frame.group))
        if purse is not None:
            purse.recalled = True
            self._return(purse)

    def link_lost(self, node: NodeId) -> None:
        """What a peer lent us is worth nothing any more; those who wait for it look again."""
        for key, purse in self._purses.items():
            if key[0] == node:
                purse.credit, purse.asked = 0, None
                self._core.registry.freed[key] = None

    def freed(self) -> None:
        """Subscribers are gone, or cannot be reached: nobody waits for those. And where there is credit, go on."""
        registry = self._core.registry
        while registry.freed:
            keys, registry.freed = registry.freed, {}
            for key in keys:
                purse = self._purses.get(key)
                if purse is None or (registry.blocks(key) and (purse.credit or purse.asked is not None)):
                    continue
                del self._purses[key]
                self._let_go(purse)
                for hold in list(purse.waiting):
                    assert isinstance(hold, Hold)
                    self._retry(hold)
        while self.refilled:
            self._serve(self.refilled.popitem()[0])

    # -- inside

    def _advance(self, app: App, topic: str, head: Head) -> Lack:
        """Send as much of it as there is credit for; return what the rest waits for."""
        router, match = self._router, self._core.registry.match(topic)
        blocking = match.blocking
        lack = Lack()
        head.moved = False
        if head.groups is None:
            assert head.rest is not None
            head.groups = {group: deque(router.split(head.rest, match, group)) for group in match.groups}
            head.groups |= {group: deque([head.rest]) for _, group in match.unreachable if group}
        keys = blocking.everyone if blocking is not None else ()
        while head.rest is not None:
            piece, rest = self._afford(keys, head.rest, lack)
            if piece is None:
                break
            router.to_everyone(app, piece, topic, match, self._spend(keys, piece))
            head.rest, head.moved = rest, True
        for group, pieces in head.groups.items():
            makes_wait = blocking.groups.get(group, {}) if blocking is not None else {}
            while pieces:
                node = self._node_for(group, match, makes_wait, pieces[0], lack)
                if node is None:
                    break
                keys = makes_wait.get(node, ())
                piece, rest = cut(pieces.popleft(), self._credit(keys))
                if rest is not None:
                    pieces.appendleft(rest)
                router.to_group(app, piece, topic, group, node, self._spend(keys, piece))
                head.moved = True
            if pieces and group not in match.groups:
                router.to_nobody(topic, group, sum(piece.messages for piece in pieces), match)
                pieces.clear()
                head.moved = True
        return lack

    def _afford(self, keys: tuple[BlockKey, ...], frame: Frame, lack: Lack) -> tuple[Frame | None, Frame | None]:
        """What of a frame can be paid for, and what cannot."""
        whole = charge(frame)
        if self._credit(keys) < whole:
            self._want(keys, frame)
            first = least(frame)
            purses = list(map(self._purse, keys))
            lack.purses.update(dict.fromkeys(purse for purse in purses if purse.credit < first))
            if lack.purses:
                before = purses[: next(at for at, purse in enumerate(purses) if purse in lack.purses)]
                lack.reserved.update(dict.fromkeys(before, first))
                return None, frame
        return cut(frame, self._credit(keys))

    def _node_for(
        self,
        group: str,
        match: Match,
        makes_wait: dict[NodeId, tuple[BlockKey, ...]],
        frame: Frame,
        lack: Lack,
    ) -> NodeId | None:
        """Whose member gets a piece: one that all of it can go to, else one that some of it can."""
        nodes = match.groups.get(group)
        if not nodes:
            return None
        for size in (charge(frame), least(frame)):
            for _ in range(2):
                able = {node: n for node, n in nodes.items() if self._credit(makes_wait.get(node, ())) >= size}
                if able:
                    return self._router.choose(frame.address, group, able)
                for keys in makes_wait.values():
                    self._want(keys, frame)
        first = least(frame)
        purses = [purse for keys in makes_wait.values() for purse in map(self._purse, keys)]
        lack.purses.update(dict.fromkeys(purse for purse in purses if purse.credit < first))
        return None

    def _credit(self, keys: tuple[BlockKey, ...]) -> float:
        """What may be sent where these must be paid, each."""
        return min((self._purse(key).credit for key in keys), default=math.inf)

    def _spend(self, keys: tuple[BlockKey, ...], frame: Frame) -> int:
        """Pay for a frame; ask for more in time."""
        if not keys:
            return 0
        cost = charge(frame)
        for key in keys:
            purse = self._purse(key)
            purse.credit -= cost
            if purse.credit < purse.level // 2:
                self._ask(purse, 0)
        return cost

    def _want(self, keys: tuple[BlockKey, ...], frame: Frame) -> None:
        """Ask for the credit that a frame lacks: all if that can be had, enough for one message in any case."""
        whole, first = charge(frame), least(frame)
        for purse in map(self._purse, keys):
            if purse.credit < whole:
                self._ask(purse, max(0, first - purse.credit))

    def _ask(self, purse: Purse, need: int) -> None:
        if purse.asked is not None and need <= purse.asked:
            return
        purse.asked = need
        wanted = max(self._core.settings.block_window - purse.credit, need, 1)
        if purse.node != self._own:
            frame = Frame(Kind.NEED, address=purse.filter, group=purse.group, count=wanted, total=need)
            frame.cost = purse.credit
            self._core.urgent(self._core.connect(purse.node), frame)
            return
        lent = self._lending.ask(purse.filter, purse.group, need, wanted, purse.credit)
        if lent:
            purse.fill(lent)
            if purse.waiting:  # not those for whom it was asked: they do not wait while they are served
                self.refilled[purse] = None
        else:
            purse.slow = self._lending.slowest(purse.filter, purse.group)

    def _purse(self, key: BlockKey) -> Purse:
        purse = self._purses.get(key)
        if purse is None:
            purse = self._purses[key] = Purse(*key)
        return purse

    def _return(self, purse: Purse) -> None:
        """Give back what is not needed."""
        count = purse.release()
        if not count:
            return
        if purse.node == self._own:
            self._lending.give_back(self._own, purse.filter, purse.group, count)
            return
        frame = Frame(Kind.RETURN, address=purse.filter, group=purse.group, count=count)
        self._core.urgent(self._core.peers[purse.node], frame)

    def _let_go(self, purse: Purse) -> None:
        """Nobody needs it any more: what is left of it goes back, and what was asked for is not waited for."""
        asked, purse.asked = purse.asked, None
        purse.reserved.clear()
        if purse.node == self._own:
            self._lending.withdraw(purse.filter, purse.group)
            self._return(purse)
        elif purse.node in self._core.peers:
            if asked is not None:
                frame = Frame(Kind.NEED, address=purse.filter, group=purse.group)
                self._core.urgent(self._core.peers[purse.node], frame)
            self._return(purse)

    def _granted_here(self, filter: str, group: str, count: int) -> None:
        purse = self._purses.get((self._own, filter, group))
        if purse is None:
            self._lending.give_back(self._own, filter, group, count)
        else:
            purse.fill(count)
            self._serve(purse)

    def _recalled_here(self, filter: str, group: str) -> int:
        purse = self._purses.get((self._own, filter, group))
        if purse is None:
            return 0
        purse.recalled = True
        return purse.release()

    # -- holds

    def _serve(self, purse: Purse) -> None:
        """There is credit: those who wait for it go on, in turn. The first that lacks some asks for more."""
        while purse.waiting:
            hold = next(iter(purse.waiting))
            assert isinstance(hold, Hold)
            if not self._retry(hold) and hold in purse.waiting:
                purse.waiting.move_to_end(hold, last=False)
                return

    def _retry(self, hold: Hold) -> bool:
        """Route what can be routed; whether anything could."""
        app, moved = hold.app, False
        reserving = self._leave(hold)
        while hold.items:
            item = hold.items[0]
            if isinstance(item, Head):
                lack = self._advance(app, hold.topic, item)
                moved = moved or item.moved
                if lack.purses:
                    self._wait(hold, lack)
                    break
                self._count(app, -item.bytes, -item.messages)
            else:
                self._count(app, -MARK_BYTES, 0)
                item.left -= 1
                if not item.left and not item.over:
                    self._flushed(app, item.id)
            hold.items.popleft()
        if not hold.items:
            self._end(hold)
            self._tell(hold, Kind.RESUME)
        elif moved:
            self._core.timers.add(hold, self._core.now + self._core.settings.stall_timeout)
            if hold.stalled:
                hold.stalled = False
                self._tell(hold, Kind.PAUSE)
        for purse in reserving:
            if purse.recalled:
                self._return(purse)
        return moved

    @staticmethod
    def _wait(hold: Hold, lack: Lack) -> None:
        hold.lacking, hold.reserving = list(lack.purses), list(lack.reserved)
        for purse in hold.lacking:
            purse.waiting[hold] = None
        for purse, amount in lack.reserved.items():
            purse.reserved[hold] = amount

    @staticmethod
    def _leave(hold: Hold) -> list[Purse]:
        """It waits no longer; return what it had reserved."""
        for purse in hold.lacking:
            purse.waiting.pop(hold, None)
        for purse in hold.reserving:
            purse.reserved.pop(hold, None)
        reserving, hold.lacking, hold.reserving = hold.reserving, [], []
        return reserving

    def _end(self, hold: Hold) -> None:
        del hold.app.held[hold.topic]
        self._core.counters["held.topics"] -= 1
        self._core.timers.remove(hold)
        for purse in self._leave(hold):
            if purse.recalled:
                self._return(purse)

    def _count(self, app: App, size: int, messages: int) -> None:
        app.held_bytes += size
        app.held_messages += messages
        self._core.counters["held.bytes"] += size
        if app.asked and app.held_bytes <= self._core.settings.publish_hold:
            asked, app.asked = app.asked, []
            for id in asked:
                self._flushed(app, id)

    def _flushed(self, app: App, id: int) -> None:
        lost, app.lost = app.lost, 0
        self._core.answer(app.attachment, Frame(Kind.DONE, id=id, lost=lost, count=app.held_messages))

    # -- words to apps

    def _slow(self, hold: Hold) -> str:
        """Whom it waits for."""
        for purse in hold.lacking:
            if purse.slow:
                return purse.slow
        return self._core.label(hold.lacking[0].node) if hold.lacking else ""

    def _detail(self, hold: Hold) -> str:
        seconds = self._core.settings.stall_timeout
        return (
            f"{self._slow(hold)!r} does not read {hold.topic!r}, and must not lose anything: waited for {seconds:g} s"
        )

    def _fail(self, app: App, id: int, hold: Hold) -> None:
        frame = Frame(Kind.ERROR, id=id, code=Code.SLOW_SUBSCRIBER, executed=Executed.MAYBE, reason=self._slow(hold))
        frame.detail = self._detail(hold)
        self._core.answer(app.attachment, frame)

    def _tell(self, hold: Hold, kind: Kind) -> None:
        """Say whether to wait with a topic; what was said and has not left yet is said no more."""
        app, topic = hold.app, hold.topic
        if not app.heeds_pause:
            return
        fields: dict[str, object] = {"kind": kind, "address": topic, "count": app.held_messages}
        if kind == Kind.STALLED:
            fields |= {"code": Code.SLOW_SUBSCRIBER, "reason": self._slow(hold), "detail": self._detail(hold)}
        before = app.told.get(topic)
        if before is not None and not before.sent:
            vars(before).clear()
            vars(before).update(fields)
            return
        if len(app.told) > 2 * len(app.held) + 64:
            app.told = {said: frame for said, frame in app.told.items() if not frame.sent}
        frame = app.told[topic] = Frame(kind)
        vars(frame).update(fields)
        self._core.answer(app.attachment, frame)
