"""A few nodes with their edges worn by the test: frames go in by hand, and what leaves is looked at."""

from __future__ import annotations

from random import Random
from typing import Any, TypeVar

from irisd.effects import Connect, Control, Detach, Effect, Found, Unlink, Wake
from irisd.model import FEATURES, Destination, Frame, Kind, MiB, PeerInfo, WhenFull
from irisd.node import Node, NodeIdentity, NodeSettings
from irisd.wire import decode_frame, encode_frame

T = TypeVar("T")

ALL = 31
NO, MAYBE, YES = 1, 2, 3


class Place:
    """One node. ``say`` is an app speaking, ``hear`` what has left towards somebody since the last time."""

    def __init__(self, number: int = 1, *, settle: bool = False, **settings: Any) -> None:
        self.id = bytes([number]) * 16
        self.now = 100.0
        identity = NodeIdentity(self.id, f"n{number}", "shop", "paris", "1.0")
        self.node = Node(identity, NodeSettings(**settings), Random(number), now=self.now, settle=settle)
        self.effects: list[Effect] = []
        self.links: dict[bytes, Place] = {}
        self._apps = 0

    def app(self, name: str = "app", *, heeds_pause: bool = False) -> int:
        """Attach one more app; its welcome is heard already."""
        self._apps += 1
        hello = Frame(Kind.HELLO, member=name, when_full=WhenFull.BLOCK if heeds_pause else 0)
        self._do(self.node.attach(self._apps, hello, self.now))
        self.hear(self._apps)
        return self._apps

    def serving(
        self, cluster: str = "db", *, patterns: int = ALL, concurrency: int = 8, max_large: int = 1 << 28
    ) -> int:
        """Attach an app that has joined a cluster, under id 1, and whom every linked node knows."""
        app = self.app()
        self.say(app, join(1, cluster, patterns=patterns, concurrency=concurrency, max_large=max_large))
        pump(self, *self.links.values())
        assert kinds(self.hear(app)) == ["DONE"]
        return app

    def say(self, app: int, *frames: Frame) -> None:
        self._do(self.node.frames_from_app(app, [crossed(frame) for frame in frames], self.now))

    def hear(self, whom: Destination, limit: int = 1 << 24) -> list[Frame]:
        heard: list[Frame] = []
        while frames := self.node.take(whom, limit, self.now):
            heard += [crossed(frame) for frame in frames]
        return heard

    def take(self, whom: Destination, limit: int = 1) -> list[Frame]:
        """Only what leaves with the next write."""
        return [crossed(frame) for frame in self.node.take(whom, limit, self.now)]

    def wait(self, seconds: float) -> None:
        """Let time pass, and everything happen in its time."""
        until = self.now + seconds
        while (deadline := self.node.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self._do(self.node.on_deadline(self.now))
        self.now = until
        self._do(self.node.on_deadline(self.now))

    def gone(self, app: int) -> None:
        self._do(self.node.detach(app, "gone", self.now))

    def from_peer(self, peer: Place | bytes, *frames: Frame) -> None:
        id = peer.id if isinstance(peer, Place) else peer
        self._do(self.node.frames_from_peer(id, [crossed(frame) for frame in frames], self.now))

    def link_up(self, id: bytes, *, features: int = 0, dialled: bool | None = None) -> None:
        info = PeerInfo(id, f"n{id[0]}", address=address_of(id), features=features)
        self._do(self.node.link_up(info, self.now, dialled=dialled))

    def link_down(self, id: bytes, *, left: bool = False, idle: bool = False) -> None:
        self._do(self.node.link_down(id, "test", self.now, left=left, idle=idle))

    def connect_failed(self, id: bytes) -> None:
        self._do(self.node.connect_failed(id, "test", self.now))

    def control(self, peer: Place | bytes, message: bytes) -> None:
        """A message of a link's control connection comes in."""
        id = peer.id if isinstance(peer, Place) else peer
        self._do(self.node.control_received(id, [message], self.now))

    def drain(self) -> None:
        self._do(self.node.drain(self.now))

    def effects_of(self, kind: type[Any]) -> list[Any]:
        """Effects of a kind since the last time."""
        found = [effect for effect in self.effects if isinstance(effect, kind)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, kind)]
        return found

    def detached(self) -> list[Detach]:
        return self.effects_of(Detach)

    def found(self) -> list[bytes]:
        return [found.node for found in self.effects_of(Found)]

    def connecting(self) -> list[bytes]:
        return [connect.node for connect in self.effects_of(Connect)]

    def unlinked(self) -> list[Unlink]:
        return self.effects_of(Unlink)

    def woken(self) -> list[Destination]:
        return [wake.destination for wake in self.effects_of(Wake)]

    @property
    def counters(self) -> dict[str, int]:
        return self.node.core.counters

    def outstanding(self, app: int) -> list[int]:
        return [member.outstanding for member in self.node.core.apps[app].members.values()]

    def quiet(self) -> bool:
        """Whether nothing is under way and nothing waits to leave."""
        core = self.node.core
        ends = [*core.apps.values(), *core.peers.values()]
        busy = [bool(end.opened or end.given or end.outbox.bytes or end.assembler._open) for end in ends]
        calls = self.node._calls
        return not any(busy) and not self.node.under_way and not calls.members._holders and not calls.places.under_way

    def _do(self, effects: list[Effect]) -> None:
        self.effects += effects


def crossed(frame: Frame) -> Frame:
    """The frame as it is after a journey."""
    raw = encode_frame(frame)
    return decode_frame(raw, 0, len(raw), 1 << 30)


def link(one: Place, other: Place) -> None:
    """Link two places and let their records settle."""
    one.links[other.id], other.links[one.id] = other, one
    one.link_up(other.id)
    other.link_up(one.id)
    pump(one, other)


def address_of(id: bytes) -> str:
    return f"10.0.0.{id[0]}:7511"


def meet(one: Place, other: Place) -> None:
    """Link two places of this release, ``one`` dials; their records settle, and the first heartbeat."""
    one.links[other.id], other.links[one.id] = other, one
    one.link_up(other.id, features=FEATURES, dialled=True)
    other.link_up(one.id, features=FEATURES, dialled=False)
    pump(one, other)


def together(seconds: float, *places: Place) -> None:
    """Let time pass for several places at once; whatever they say arrives at once."""
    now = places[0].now
    until = now + seconds
    while True:
        due = min((place.node.next_deadline() or until + 1 for place in places), default=until + 1)
        if due > until:
            break
        now = max(now, due)
        for place in places:
            place.now = now
            place._do(place.node.on_deadline(now))
        pump(*places)
    for place in places:
        place.now = until


def cut(one: Place, other: Place, *, seconds: float = 0.0) -> None:
    """Lose the link and what waits on it."""
    del one.links[other.id], other.links[one.id]
    one.link_down(other.id)
    other.link_down(one.id)
    for place in (one, other):
        place.wait(seconds)


def carry(source: Place, target: Place, limit: int = 1 << 24) -> list[Frame]:
    """One write from ``source`` to ``target``; return it."""
    frames = source.take(target.id, limit)
    if frames:
        target.from_peer(source, *frames)
    return frames


def pump(*places: Place) -> None:
    """Carry frames over all links until nothing moves."""
    moving = True
    while moving:
        moving = False
        for place in places:
            for control in place.effects_of(Control):  # those who are not here do not answer
                if control.peer in place.links and place.links[control.peer] in places:
                    place.links[control.peer].control(place, b"".join(control.parts))
                    moving = True
            for far in list(place.links.values()):
                if far in places and carry(place, far):
                    moving = True


def pair(**settings: Any) -> tuple[Place, Place]:
    """Two linked nodes that know each other's record."""
    one, other = Place(1, **settings), Place(2, **settings)
    link(one, other)
    return one, other


def join(id: int, cluster: str = "db", *, patterns: int = ALL, concurrency: int = 8, **fields: Any) -> Frame:
    return Frame(Kind.JOIN, id=id, address=cluster, patterns=patterns, concurrency=concurrency, **fields)


def subscribe(id: int, filter: str, *, group: str = "", max_bytes: int = 1 << 20, when_full: int = 0) -> Frame:
    return Frame(Kind.SUBSCRIBE, id=id, address=filter, group=group, max_bytes=max_bytes, when_full=when_full)


def ask(kind: Kind, id: int, cluster: str = "db", *, ms: int = 1000, **fields: Any) -> Frame:
    return Frame(kind, id=id, address=cluster, remaining_ms=ms, **fields)


def request(id: int, cluster: str = "db", *, ms: int = 1000, **fields: Any) -> Frame:
    return ask(Kind.REQUEST, id, cluster, ms=ms, **fields)


def publish(topic: str, *bodies: bytes) -> Frame:
    sizes = b"".join(len(body).to_bytes(4, "little") for body in bodies) if len(bodies) > 1 else b""
    return Frame(Kind.PUBLISH, address=topic, body=b"".join(bodies), sizes=sizes)


def reply(id: int, body: bytes = b"ok") -> Frame:
    return Frame(Kind.REPLY, id=id, body=body)


def error(id: int, code: int, executed: int, **fields: Any) -> Frame:
    return Frame(Kind.ERROR, id=id, code=code, executed=executed, **fields)


def only(things: list[T]) -> T:
    """The one thing there is."""
    assert len(things) == 1, things
    return things[0]


def kinds(frames: list[Frame]) -> list[str]:
    return [Kind(frame.kind).name for frame in frames]


def failure(frames: list[Frame]) -> tuple[int, int]:
    """(code, executed) of the one ERROR there is."""
    frame = only(frames)
    assert frame.kind == Kind.ERROR, frame
    assert frame.detail, "an error says something to people"
    return frame.code, frame.executed


def subscriber(place: Place, *filters: str, group: str = "", max_bytes: int = 64 * MiB, when_full: int = 0) -> int:
    """An app with subscriptions 1, 3, 5 ... that every linked node knows."""
    app = place.app()
    for at, filter in enumerate(filters):
        place.say(app, subscribe(2 * at + 1, filter, group=group, max_bytes=max_bytes, when_full=when_full))
    pump(place, *place.links.values())
    assert kinds(place.hear(app)) == ["DONE"] * len(filters)
    return app


def bodies(frames: list[Frame]) -> list[bytes]:
    """The messages of EVENT frames."""
    out = []
    for frame in frames:
        assert frame.kind == Kind.EVENT
        if not frame.address:
            continue
        at = 0
        for size in memoryview(frame.sizes).cast("I") if frame.sizes else [len(frame.body)]:
            out.append(frame.body[at : at + size])
            at += size
    return out


def lost(frames: list[Frame]) -> int:
    return sum(frame.lost for frame in frames)
