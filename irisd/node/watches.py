"""Apps that watch who comes and goes: the picture first, then every change (pure).

A node's state comes from whoever decides it, through ``Core.changed``; how many
members a node has of a cluster is read from the registry whenever a claim or a
state has changed, and told if it is not what was told before. While nobody
watches, nothing is remembered and nothing is done.

Invariants:
    - a watch hears of the same changes in the same order as every other of its kind, its own losses aside
    - what it was told last of a node and cluster is so, once its queue is empty
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from irisd.flow.outbox import cost
from irisd.model import Change, Claim, Code, Frame, Kind, MiB, NodeId, WhenFull
from irisd.node.core import Core
from irisd.node.endpoints import App, Watch
from irisd.router.names import BadName, valid_cluster

QUEUE_BYTES = MiB
"""What may wait for one watch, its picture aside."""

MAX_REASON = 200
MAX_RECENT = 64
"""Clusters of one node that are remembered as served a moment ago."""

_GONE = frozenset({"dead", "left"})


class _Seen:
    """A node as the watches were told of it. ``recent`` are the clusters it has no members of any more."""

    __slots__ = ("members", "name", "recent", "state")

    def __init__(self, name: str, state: str) -> None:
        self.name = name
        self.state = state
        self.members: dict[str, int] = {}
        self.recent: dict[str, None] = {}


class Watches:
    """Every app's watches.

    Args:
        rows: Lists all known nodes and their states: changes without a cluster, this node's own state ``self``.
    """

    def __init__(self, core: Core, rows: Callable[[], Iterable[Change]]) -> None:
        self._core = core
        self._rows = rows
        self._watching: dict[str, dict[Watch, None]] = {}  # by cluster; "": everything
        self._nodes: dict[NodeId, _Seen] = {}

    # -- apps

    def open(self, app: App, frame: Frame) -> None:
        """WATCH: answer with what there is, and go on with what changes."""
        core = self._core
        try:
            cluster = valid_cluster(frame.address) if frame.address else ""
        except BadName as error:
            core.fail(app.attachment, frame.id, Code.INVALID, str(error))
            return
        if app.draining or core.draining:
            what = "this app has said GOODBYE" if app.draining else "the daemon is shutting down"
            core.fail(app.attachment, frame.id, Code.MEMBER_LOST, f"{what}: nothing more is told")
            return
        if app.standing >= core.settings.max_claims:
            full = f"one app may join, subscribe and watch at most {core.settings.max_claims} times"
            core.fail(app.attachment, frame.id, Code.OVERLOADED, full)
            return
        if not self._watching:
            self._look()
        picture = [_frame(change) for change in self._picture(cluster)]
        size = sum(map(cost, picture))
        outbox = app.outbox
        if outbox.bytes and outbox.bytes + size > outbox.limit:
            self._forget_if_alone()
            core.fail(
                app.attachment, frame.id, Code.OVERLOADED, "too much waits for this app to tell it how things are"
            )
            return
        flow = outbox.open(
            frame.id, limit=QUEUE_BYTES + size, when_full=WhenFull.DROP_OLDEST, notice=Kind.CHANGE, kept=True
        )
        for change in picture:
            change.id, change.more = frame.id, True
            outbox.promise(flow, change)
        outbox.promise(flow, Frame(Kind.DONE, id=frame.id, count=len(picture)))
        core.wake(app)
        watch = app.watches[frame.id] = Watch(app, frame.id, cluster, flow)
        self._watching.setdefault(cluster, {})[watch] = None

    def close(self, app: App, id: int) -> None:
        """UNSUBSCRIBE: what still waits is dropped."""
        if id in app.watches:
            self._end(app, id)
            self._core.answer(app.attachment, Frame(Kind.DONE, id=id))

    def app_gone(self, app: App) -> None:
        """An app is gone, and with it its watches."""
        for id in list(app.watches):
            self._end(app, id)

    # -- changes

    def changed(self, change: Change) -> None:
        """A node's state has changed, and the registry knows what that means for routing."""
        if not self._watching:
            return
        seen = self._nodes.get(change.node)
        if seen is None:
            seen = self._nodes[change.node] = _Seen(change.name, change.state)
        if not change.name:
            change = replace(change, name=seen.name)
        seen.name, seen.state = change.name, change.state
        audience = dict(self._watching.get("", ()))
        for cluster in (*seen.members, *seen.recent):
            audience |= self._watching.get(cluster, {})
        self._tell(audience, change)
        gone = change.state in _GONE
        for cluster in (*seen.members, *seen.recent):
            self._count(change.node, seen, cluster, 0 if gone else self._members(change.node, cluster), change.reason)
        if gone:
            del self._nodes[change.node]

    def claimed(self, node: NodeId, claims: Iterable[Claim], whole: bool) -> None:
        """The registry has learned claims of a node.

        Args:
            whole: They are its whole record: what is not among them is no longer so.
        """
        if not self._watching:
            return
        clusters = {claim.cluster: None for claim in claims if claim.cluster}
        seen = self._nodes.get(node)
        if whole and seen is not None:
            clusters |= dict.fromkeys(seen.members)
        for cluster in clusters:
            members = self._members(node, cluster)
            if seen is None:
                if not members:  # a node that is gone still claims for a while, and nobody ends it again
                    continue
                seen = self._nodes[node] = self._meet(node)
            self._count(node, seen, cluster, members, "")
            while len(seen.recent) > MAX_RECENT:
                del seen.recent[next(iter(seen.recent))]

    def _count(self, node: NodeId, seen: _Seen, cluster: str, members: int, reason: str) -> None:
        """Tell how many members of a cluster a node has, if that is news."""
        if seen.members.get(cluster, 0) == members:
            return
        if members:
            seen.members[cluster] = members
            seen.recent.pop(cluster, None)
        else:
            del seen.members[cluster]
            seen.recent[cluster] = None
        audience = self._watching.get("", {}) | self._watching.get(cluster, {})
        self._tell(audience, Change(node, seen.name, seen.state, cluster, members, reason))

    def _tell(self, audience: Iterable[Watch], change: Change) -> None:
        for watch in audience:
            frame = _frame(change)
            frame.id = watch.id
            dropped = watch.app.outbox.offer(watch.flow, frame)
            if dropped:
                self._core.drop("watch-full", dropped)
            self._core.wake(watch.app)

    # -- inside

    def _picture(self, cluster: str) -> Iterable[Change]:
        """How things are: nodes, then members."""
        core = self._core
        serving = [(cluster, core.registry.serving(cluster))] if cluster else core.registry.clusters()
        for row in self._rows():
            if not cluster or row.node in serving[0][1]:
                yield row
        for name, nodes in serving:
            for node, claim in nodes.items():
                seen = self._nodes.get(node) or self._meet(node)
                yield Change(node, seen.name, seen.state, name, claim.members)

    def _look(self) -> None:
        """Somebody watches: from now on, remember."""
        for row in self._rows():
            if row.state not in _GONE:
                self._nodes[row.node] = _Seen(row.name, row.state)
        for cluster, nodes in self._core.registry.clusters():
            for node, claim in nodes.items():
                seen = self._nodes.get(node)
                if seen is None:
                    seen = self._nodes[node] = self._meet(node)
                seen.members[cluster] = claim.members

    def _meet(self, node: NodeId) -> _Seen:
        """A node that claims something before its state was told."""
        row = next((row for row in self._rows() if row.node == node), None)
        return _Seen(row.name, row.state) if row else _Seen(node.hex()[:6], "alive")

    def _members(self, node: NodeId, cluster: str) -> int:
        claim = self._core.registry.serving(cluster).get(node)
        return claim.members if claim else 0

    def _end(self, app: App, id: int) -> None:
        watch = app.watches.pop(id)
        watching = self._watching[watch.cluster]
        del watching[watch]
        if not watching:
            del self._watching[watch.cluster]
        dropped = app.outbox.discard(id)
        if dropped:
            self._core.drop("unsubscribed", dropped)
        self._forget_if_alone()

    def _forget_if_alone(self) -> None:
        if not self._watching:
            self._nodes.clear()


def _frame(change: Change) -> Frame:
    frame = Frame(Kind.CHANGE, node=change.node.hex(), reason=change.state)
    if change.name:
        frame.member = change.name
    if change.cluster:
        frame.address = change.cluster
        frame.count = change.members
    if change.reason:
        frame.detail = change.reason[:MAX_REASON]
    return frame
