"""Apps that come, serve, subscribe and go: what this node's record is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from irisd.flow import Queue
from irisd.flow.outbox import REQUESTS
from irisd.flow.timers import TICK
from irisd.model import LARGE, MAX_BALANCE, Claim, Code, Frame, KiB, Kind, Pattern, WhenFull
from irisd.node.calls import Calls
from irisd.node.core import Core
from irisd.node.endpoints import App, Member, Subscription
from irisd.node.events import Events
from irisd.node.records import Records
from irisd.registry import MAX_CLAIMS, MAX_SHAPES
from irisd.router.names import BadName, valid_cluster, valid_filter

ALL_PATTERNS = sum(Pattern)  # a plain number: the complement of a flag would leave out the bits nobody knows
_WHEN_FULL = frozenset({0, *WhenFull})
MAX_CONCURRENCY = 65_536
MAX_PRIORITY = 255
MAX_APP_NAME = 64
LET_GO, MIN_LET_GO = 2048, 32
"""Subscriptions of an app that is gone that end in one call, if no peer must be told of each; at least."""
BLOCK_SHARE = 16
"""A subscription that blocks gets at most this part of what its app may still let wait."""
MIN_BLOCK = 64 * KiB
"""Less than this is refused, unless that is what was asked for."""


class Attachments:
    """The apps of this node, and the claims made on their behalf."""

    def __init__(self, core: Core, calls: Calls, events: Events, records: Records) -> None:
        self._core = core
        self._calls = calls
        self._events = events
        self._records = records
        calls.members.claimed = self._claim_cluster
        self._leaving: dict[App, None] = {}  # gone, and some of its subscriptions are not
        self._blocking: Counter[tuple[str, str]] = Counter()  # subscribers that must lose nothing
        self.app_frames: dict[int, Callable[[App, Frame], None]] = {
            Kind.JOIN: self.join,
            Kind.LEAVE: self.leave,
            Kind.SUBSCRIBE: self.subscribe,
            Kind.GOODBYE: self.said_goodbye,
            Kind.PING: lambda app, frame: core.urgent(app, Frame(Kind.PING)),
        }

    def attach(self, id: int, hello: Frame, *, settled: bool) -> App:
        """A new app; it is welcomed at once, or when the node has settled."""
        identity = self._core.identity
        name = "".join(c if c.isprintable() else "?" for c in hello.member[:MAX_APP_NAME]) or "app"
        member_name = f"{name}@{identity.name}/{identity.node_id.hex()[:6]}.{id}"
        settings = self._core.settings
        app = App(id, name, member_name, backlog=settings.app_backlog, max_body=settings.max_body, now=self._core.now)
        app.answers = hello.count == 1
        self._core.apps[id] = app
        app.welcome = settled
        app.heeds_pause = hello.when_full == WhenFull.BLOCK
        welcome = Frame(
            Kind.WELCOME,
            address=identity.service,
            member=app.member_name,
            max_bytes=settings.max_body,
            max_large=settings.max_large_body,
            version=identity.version,
            node=identity.node_id.hex(),
        )
        self._core.urgent(app, welcome)
        if self._core.draining:
            self.goodbye(app)
        return app

    def settled(self) -> None:
        """Those who came early may begin."""
        for app in self._core.apps.values():
            if not app.welcome:
                app.welcome = True
                self._core.wake(app)

    def goodbye(self, app: App) -> None:
        """Tell an app that this daemon is about to stop."""
        self._core.urgent(app, Frame(Kind.GOODBYE, reason="the daemon is shutting down", count=1))

    def detach(self, app: App) -> None:
        """An app is gone, with everything it stood for."""
        self._core.apps.pop(app.attachment, None)
        if unread := app.outbox.waiting(REQUESTS, Kind.BROADCAST):
            self._core.drop("member-left", unread)  # of calls that wait there, their callers are told
        for id in list(app.members):
            self._leave(app, id)
        app.gone = True
        for subscription in list(app.subscriptions.values()):
            if subscription.queue is not None or subscription.group:  # its publishers wait, or others can have it
                self._unsubscribe(app.subscriptions.pop(subscription.id))
        self.let_go(app)
        self._events.settle()  # what waited for nobody else may still leave
        self._events.pacing.app_gone(app)

    def let_go(self, app: App) -> None:
        """End what an app that is gone had subscribed to; of very much, some now, and some with every tick."""
        core = self._core
        for _ in range(max(MIN_LET_GO, LET_GO // (1 + len(core.peers)))):
            if not app.subscriptions:
                break
            self._unsubscribe(app.subscriptions.popitem()[1])
        if app.subscriptions:
            self._leaving[app] = None
        else:
            self._leaving.pop(app, None)
        first = next(iter(self._leaving), None)  # one at a time, however many have gone
        if first is not None and first not in core.timers:
            core.timers.add(first, core.now + TICK)

    def said_goodbye(self, app: App, frame: Frame) -> None:
        """GOODBYE: the app opens nothing more."""
        app.goodbye = True
        self.drain(app)

    def drain(self, app: App) -> None:
        """It takes no new work; what it has may still be answered."""
        if app.draining:
            return
        app.draining = True
        for member in app.members.values():
            self._calls.remove_member(member)
            self._claim_cluster(member.cluster)
        for subscription in app.subscriptions.values():
            if subscription.group:  # the others of the group have it from now on; what waits here may still leave
                self._events.withdraw(subscription)
                self._count(subscription, -1)

    def join(self, app: App, frame: Frame) -> None:
        """JOIN: serve a cluster."""
        core = self._core
        try:
            cluster = valid_cluster(frame.address)
        except BadName as error:
            core.fail(app.attachment, frame.id, Code.INVALID, str(error))
            return
        if any(member.app is app for member in self._calls.members.of(cluster)):
            core.fail(app.attachment, frame.id, Code.INVALID, f"this app serves {cluster!r} already")
        elif not frame.patterns or frame.patterns & ~ALL_PATTERNS:
            core.fail(app.attachment, frame.id, Code.INVALID, "patterns: state at least one, and only known ones")
        elif not 1 <= frame.concurrency <= MAX_CONCURRENCY:
            core.fail(
                app.attachment, frame.id, Code.INVALID, f"concurrency: 1 to {MAX_CONCURRENCY}, not {frame.concurrency}"
            )
        elif frame.balance > MAX_BALANCE or frame.priority > MAX_PRIORITY:
            rule = f"balance: 0 to {MAX_BALANCE}, priority: 0 to {MAX_PRIORITY}"
            core.fail(app.attachment, frame.id, Code.INVALID, rule)
        elif self._refused(app, frame):
            return
        else:
            member = Member(
                app,
                frame.id,
                cluster,
                frame.patterns | (LARGE if frame.max_large and frame.patterns & Pattern.REQUEST else 0),
                frame.concurrency,
                level=frame.priority,
                balance=frame.balance,
            )
            app.members[frame.id] = member
            self._calls.add_member(member)
            self._claim_cluster(cluster)
            core.fact("registry.joined", cluster=cluster, member=app.member_name)
            self._records.wait(app, frame.id)

    def leave(self, app: App, frame: Frame) -> None:
        """LEAVE: calls in flight may still be answered."""
        if frame.id in app.members:
            self._leave(app, frame.id)
            self._core.send(app, REQUESTS, Frame(Kind.DONE, id=frame.id))  # behind what it was given: no call follows

    def subscribe(self, app: App, frame: Frame) -> None:
        """SUBSCRIBE to the topics a filter matches, alone or as a group."""
        core = self._core
        try:
            filter = valid_filter(frame.address)
            group = valid_cluster(frame.group) if frame.group else ""
        except BadName as error:
            core.fail(app.attachment, frame.id, Code.INVALID, str(error))
            return
        if frame.when_full not in _WHEN_FULL:
            core.fail(app.attachment, frame.id, Code.INVALID, f"when_full: {frame.when_full} is none of its values")
            return
        if self._refused(app, frame):
            return
        while self._leaving and not self._events.fits(filter):  # what is over stands in nobody's way
            self.let_go(next(iter(self._leaving)))
        if not self._events.fits(filter):
            full = f"the apps of this node have subscribed to {MAX_SHAPES} different shapes of wildcards"
            core.fail(app.attachment, frame.id, Code.OVERLOADED, full)
            return
        limit = min(frame.max_bytes or core.settings.max_subscription, core.settings.max_subscription)
        queue = None
        if frame.when_full == WhenFull.BLOCK:
            limit = min(limit, (core.settings.app_backlog - app.reserved) // BLOCK_SHARE)
            if limit < min(frame.max_bytes or MIN_BLOCK, MIN_BLOCK):
                full = f"this app's subscriptions that block may hold {app.reserved} bytes already"
                core.fail(app.attachment, frame.id, Code.OVERLOADED, full)
                return
            queue = Queue(limit, app.member_name)
            app.reserved += limit
        when_full = frame.when_full or WhenFull.DROP_OLDEST
        subscription = Subscription(app, frame.id, filter, group, _shared(limit), when_full, queue)
        app.subscriptions[frame.id] = subscription
        self._events.add(subscription)
        self._count(subscription, +1)
        self._records.wait(app, frame.id)

    def unsubscribe(self, app: App, frame: Frame) -> None:
        """UNSUBSCRIBE: what still waits is dropped."""
        if frame.id in app.subscriptions:
            self._unsubscribe(app.subscriptions.pop(frame.id))
            self._core.answer(app.attachment, Frame(Kind.DONE, id=frame.id))

    def withdraw_all(self) -> None:
        """The daemon drains: peers must send no new work here."""
        for app in self._core.apps.values():
            self.drain(app)
            self.goodbye(app)

    def _leave(self, app: App, id: int) -> None:
        member = app.members.pop(id)
        self._records.ended(app, id)
        self._calls.remove_member(member)
        self._claim_cluster(member.cluster)

    def _unsubscribe(self, subscription: Subscription) -> None:
        app = subscription.app
        self._records.ended(app, subscription.id)
        self._events.remove(subscription)
        if subscription.queue is not None:
            app.reserved -= subscription.queue.limit
        if not (app.draining and subscription.group):  # draining has withdrawn it already
            self._count(subscription, -1)

    def _count(self, subscription: Subscription, by: int) -> None:
        """One subscriber more or less: the record itself says how many there were."""
        key = (subscription.filter, subscription.group)
        before = self._core.record.get(("", *key))
        members = by + (before.members if before is not None else 0)
        blocks = self._blocking[key] + by if subscription.queue is not None else self._blocking.get(key, 0)
        if blocks:
            self._blocking[key] = blocks
        else:
            self._blocking.pop(key, None)
        self._records.claim(
            Claim(members, topic=subscription.filter, group=subscription.group, blocks=bool(members and blocks))
        )

    def _claim_cluster(self, cluster: str) -> None:
        self._records.claim(self._calls.members.claim(cluster))

    def _refused(self, app: App, frame: Frame) -> bool:
        """Whether the app may not claim anything more; it has been told."""
        if app.draining or self._core.draining:
            what = "this app has said GOODBYE" if app.draining else "the daemon is shutting down"
            self._core.fail(app.attachment, frame.id, Code.MEMBER_LOST, f"{what}: it takes no new work")
            return True
        while self._leaving and len(self._core.record) >= MAX_CLAIMS:
            self.let_go(next(iter(self._leaving)))
        limit = self._core.settings.max_claims
        if app.standing >= limit:
            full = f"one app may join, subscribe and watch at most {limit} times"
        elif len(self._core.record) >= MAX_CLAIMS:  # peers would take no more
            full = f"the apps of this node have joined and subscribed to {MAX_CLAIMS} names, the most there may be"
        else:
            return False
        self._core.fail(app.attachment, frame.id, Code.OVERLOADED, full)
        return True


@lru_cache(maxsize=4096)
def _shared(limit: int) -> int:
    """The same object for the same number: most subscriptions have the same few bounds."""
    return limit
