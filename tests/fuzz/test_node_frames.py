"""Whatever an app or a peer sends, in whatever order: the node never raises, and its neighbours' calls still work."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from irisd.effects import Detach, Unlink
from irisd.model import FEATURES, Claim, Code, Frame, Kind, NodeRecord, WhenFull
from irisd.wire import (
    Belief,
    Held,
    encode_beliefs,
    encode_claims,
    encode_record,
    encode_view,
    encode_want,
)
from tests.unit.node.house import Place, join, kinds, link, pump, reply, request, subscribe

SMALL: dict[str, Any] = {
    "max_body": 5_000,
    "peer_outbox": 20_000,
    "app_outbox": 20_000,
    "topic_queue": 5_000,
    "request_queue": 5_000,
    "max_pending": 20,
    "max_claims": 20,
    "lost_peer_memory": 5.0,
}
"""Bounds that a few frames reach."""

IDS = st.one_of(st.integers(0, 12), st.integers(0, 2**64 - 1))
NUMBERS = st.one_of(st.integers(0, 3), st.sampled_from([64, 1000, 2**20, 2**32 - 1, 2**64 - 1]))
CLUSTERS = st.sampled_from(["db", "db", "web", "shop/db", "other/db", "db@rome", "", "bad name", "_iris.x"])
TOPICS = st.sampled_from(["t", "t.a", "t.*", ">", "*", "tunnel", "", "no good", "a.>.b"])
BODIES = st.one_of(st.binary(max_size=20), st.integers(0, 4000).map(bytes))
CLAIM = st.one_of(
    st.builds(
        Claim,
        st.sampled_from([0, 1, 2, 3, 1 << 24]),
        cluster=st.sampled_from(["db", "web", "far"]),
        patterns=st.integers(0, 63),
        slots=st.sampled_from([0, 1, 2, 1 << 48]),
        ejected=st.sampled_from([0, 1, 2, 3, 1 << 24]),
        level=st.sampled_from([0, 1, 255, 2**32 - 1]),
        balance=st.sampled_from([0, 1, 2, 3, 4, 99, 2**32 - 1]),
        seats=st.sampled_from([0, 0, 2, 1 << 100, (1 << 8192) - 1, 1 << 8191]),
    ),
    st.builds(Claim, st.integers(0, 3), topic=st.just("t.a"), group=st.sampled_from(["", "g"]), blocks=st.booleans()),
    st.builds(Claim, st.integers(0, 3), topic=TOPICS.filter(bool), group=st.sampled_from(["", "g"])),
)
THIRD = b"\x00" * 15 + b"\x01"
STRANGERS = st.sampled_from([THIRD, b"\x01" * 16, b"\x33" * 16, b"\x44" * 16, b"\x55" * 16])
"""Whom a liar speaks of: anybody but the honest peer. Whoever holds the key is believed."""
INCARNATIONS = st.sampled_from([0, 1, 2, 3, 2**20 + 2, 2**62])
ABOUT = st.builds(NodeRecord, STRANGERS, INCARNATIONS, st.text(max_size=5), addresses=st.just(("h:1",)))
KINDS = st.one_of(
    st.sampled_from([int(kind) for kind in Kind]),
    st.sampled_from(
        [Kind.REQUEST, Kind.TUNNEL, Kind.SURVEY, Kind.REPLY, Kind.DATA, Kind.CREDIT, Kind.PUBLISH, Kind.PART]
    ),
    st.sampled_from([Kind.BELIEFS, Kind.VIEW, Kind.WANT, Kind.HEARSAY, Kind.IDLE]),
    st.sampled_from([26, 63, 79, 1000, 2**64 - 1]),
)


@st.composite
def of_others(draw: st.DrawFn, kind: int) -> bytes:
    """The body of a frame that speaks of other nodes."""
    if kind == Kind.BELIEFS:
        some = st.builds(Belief, STRANGERS, INCARNATIONS, st.integers(0, 8), st.floats(0, 9))
        return b"".join(encode_beliefs(draw(st.lists(some, max_size=3))))
    if kind == Kind.WANT:
        return b"".join(encode_want(draw(st.lists(STRANGERS, max_size=3))))
    if kind == Kind.VIEW:
        held = draw(st.lists(st.builds(Held, STRANGERS, INCARNATIONS, NUMBERS), max_size=3))
        bodies = encode_view(held, [0, 1, 2, 0x33, 0x44, 0x55, 255])
        return bodies[0]
    claims = draw(st.lists(CLAIM, max_size=3))
    about = draw(st.one_of(st.none(), ABOUT))
    node = draw(STRANGERS) if kind == Kind.HEARSAY else b""
    return b"".join(encode_record(claims, base=draw(NUMBERS), node=node, about=about))


@st.composite
def any_frames(draw: st.DrawFn) -> Frame:
    """A frame with any fields, more often than not those its kind asks for."""
    kind = draw(KINDS)
    fields: dict[str, Any] = {"id": draw(IDS), "body": draw(BODIES)}
    if draw(st.integers(0, 4)):
        fields["remaining_ms"] = draw(st.sampled_from([1, 50, 1000, 2**32 - 1]))
    fields["address"] = draw(TOPICS if kind in (Kind.PUBLISH, Kind.SUBSCRIBE, Kind.LOST) else CLUSTERS)
    if kind == Kind.JOIN and draw(st.integers(0, 4)):
        fields |= {"patterns": draw(st.integers(0, 63)), "concurrency": draw(st.integers(0, 3))}
    if kind == Kind.RECORD:
        fields["body"] = b"".join(encode_claims(draw(st.lists(CLAIM, max_size=5)))) + draw(
            st.sampled_from([b"", b"\xff"])
        )
    if kind in (Kind.BELIEFS, Kind.VIEW, Kind.WANT, Kind.HEARSAY) and draw(st.integers(0, 4)):
        fields["body"] = draw(of_others(kind)) + draw(st.sampled_from([b"", b"", b"", b"\xff"]))
    if draw(st.integers(0, 3)) == 0:
        fields["more"] = draw(st.booleans())
        fields["total"] = draw(st.sampled_from([0, 1, 5, 4000, 5001, len(fields["body"]), 2**64 - 1]))
    fields |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "count": NUMBERS,
                "code": NUMBERS,
                "executed": NUMBERS,
                "lost": NUMBERS,
                "seq": NUMBERS,
                "hops": NUMBERS,
                "full": st.booleans(),
                "lost_unknown": st.booleans(),
                "idempotent": st.booleans(),
                "group": st.sampled_from(["", "g", "bad group"]),
                "when_full": st.sampled_from([0, *WhenFull, 9, 2**64 - 1]),
                "max_bytes": NUMBERS,
                "member": st.text(max_size=5),
                "members": st.lists(st.text(max_size=3), max_size=3).map(tuple),
                "patterns": NUMBERS,
                "concurrency": NUMBERS,
                "carries": st.sampled_from([0, 11, 12, 999]),
                "max_large": NUMBERS,
                "balance": NUMBERS,
                "priority": NUMBERS,
                "hedge_ms": NUMBERS,
                "key": st.sampled_from(["k", "k" * 1100, "\0"]),
                "cost": NUMBERS,
            },
        )
    )
    body = fields["body"]
    if not fields.get("more") and draw(st.integers(0, 5)) == 0 and body:
        cut = draw(st.integers(0, len(body)))
        fields["sizes"] = cut.to_bytes(4, "little") + (len(body) - cut).to_bytes(4, "little")
    return Frame(kind, **fields)


BATCHES = st.lists(any_frames(), min_size=1, max_size=8)
OPENERS = st.builds(
    Frame,
    st.sampled_from([Kind.REQUEST, Kind.PUSH, Kind.BROADCAST, Kind.SURVEY, Kind.TUNNEL]),
    address=st.sampled_from(["db", "db", "far", "honest", "nobody"]),
    remaining_ms=st.sampled_from([1, 50, 5000]),
    body=BODIES,
    idempotent=st.booleans(),
    carries=st.sampled_from([0, 0, Kind.REQUEST]),
    max_large=NUMBERS,
    total=NUMBERS,
    key=st.sampled_from(["", "", "k"]),
    balance=st.integers(0, 6),
    hedge_ms=st.sampled_from([0, 1, 2**32 - 1]),
)
OF_CREDIT = st.builds(
    Frame,
    st.sampled_from([Kind.NEED, Kind.GRANT, Kind.RETURN, Kind.TRACE, Kind.TRACED, Kind.PUBLISH]),
    address=st.sampled_from(["t.a", "t.a", "db", "", ">.>"]),
    group=st.sampled_from(["", "g"]),
    count=NUMBERS,
    total=NUMBERS,
    cost=NUMBERS,
    patterns=st.sampled_from([1, 2, 16, 99]),
    key=st.sampled_from(["", "k"]),
    balance=NUMBERS,
    body=BODIES,
    seq=NUMBERS,
)
"""What nodes say of subscriptions that block, and of choices."""
OF_CALLS = st.sampled_from(
    [Kind.REPLY, Kind.ERROR, Kind.DONE, Kind.CANCEL, Kind.CREDIT, Kind.DATA, Kind.FINISH, Kind.PART]
)
SAID = st.builds(
    Frame,
    OF_CALLS,
    body=BODIES,
    count=NUMBERS,
    code=NUMBERS,
    executed=NUMBERS,
    member=st.text(max_size=3),
    total=NUMBERS,
)


class AnyMesh(RuleBasedStateMachine):
    """A node with an honest member, an honest caller, one peer, and three who say whatever they like."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.peer = Place(1, **SMALL), Place(2, **SMALL)
        self.third = THIRD
        self.member = self.place.app("member")
        self.place.say(self.member, join(1, "honest", concurrency=100), subscribe(3, "honest"))
        self.place.hear(self.member)
        self.caller = self.place.app("caller")
        self.watcher = self.place.app("watcher")
        self.place.say(self.watcher, Frame(Kind.WATCH, id=1))
        self.told: dict[tuple[str, str], int] = {}
        self.liars: list[int] = []
        self.next_id = 1
        link(self.place, self.peer)

    @rule()
    def a_liar_comes(self) -> None:
        if len(self.liars) < 3:
            app = self.place.app("liar")
            self.liars.append(app)
            self.place.say(app, join(1, "db", concurrency=2, max_large=1), subscribe(3, "t.>", max_bytes=2000))
            self.place.say(app, Frame(Kind.WATCH, id=5, address="db"))

    @precondition(lambda self: self.liars)
    @rule(batch=BATCHES, who=st.integers(0, 2))
    def a_liar_speaks(self, batch: list[Frame], who: int) -> None:
        self.place.say(self.liars[who % len(self.liars)], *batch)

    @precondition(lambda self: self.liars)
    @rule(who=st.integers(0, 2), read=st.booleans())
    def a_liar_answers(self, who: int, read: bool) -> None:
        """It answers whatever it was given, in the right way, so that calls get further than a mistake."""
        app = self.liars[who % len(self.liars)]
        heard = self.place.hear(app) if read else []
        for frame in heard:
            if frame.kind == Kind.REQUEST and frame.max_large:
                head = Frame(Kind.REPLY, id=frame.id, total=frame.max_large)
                self.place.say(app, Frame(Kind.CREDIT, id=frame.id), head)
            elif frame.kind in (Kind.REQUEST, Kind.SURVEY):
                self.place.say(app, reply(frame.id, frame.body))
            elif frame.kind == Kind.TUNNEL:
                self.place.say(app, Frame(Kind.CREDIT, id=frame.id, count=5000))
            elif frame.kind == Kind.CREDIT:
                self.place.say(app, Frame(Kind.DATA, id=frame.id, body=b"x"), Frame(Kind.FINISH, id=frame.id))

    @precondition(lambda self: self.liars)
    @rule(who=st.integers(0, 2), opener=OPENERS)
    def a_liar_asks(self, who: int, opener: Frame) -> None:
        app = self.liars[who % len(self.liars)]
        self.place.say(app, opener.copy(id=self.fresh()))

    @precondition(lambda self: self.liars)
    @rule(who=st.integers(0, 2), said=SAID, which=st.integers(0, 20))
    def a_liar_speaks_of_what_is_under_way(self, who: int, said: Frame, which: int) -> None:
        app = self.liars[who % len(self.liars)]
        self.place.say(app, said.copy(id=self.under_way(app, which)))

    @precondition(lambda self: self.liars)
    @rule(who=st.integers(0, 2))
    def a_liar_goes(self, who: int) -> None:
        self.place.gone(self.liars.pop(who % len(self.liars)))

    @rule(claims=st.lists(CLAIM, max_size=5), full=st.booleans())
    def a_lying_peer_comes(self, claims: list[Claim], full: bool) -> None:
        self.place.link_up(self.third)
        self.place.from_peer(self.third, Frame(Kind.RECORD, count=1, full=full, body=b"".join(encode_claims(claims))))

    @rule(kind=st.sampled_from([Kind.RECORD, Kind.HEARSAY]), data=st.data(), version=NUMBERS, dialled=st.booleans())
    def a_lying_peer_of_this_release_comes(self, kind: Kind, data: st.DataObject, version: int, dialled: bool) -> None:
        self.place.link_up(self.third, features=FEATURES, dialled=dialled)
        whole = Frame(Kind.RECORD, count=version, full=True, body=data.draw(of_others(Kind.RECORD)))
        self.place.from_peer(self.third, whole, Frame(kind, count=version, body=data.draw(of_others(kind))))

    @rule(message=st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(lambda raw: b"\x80\0\0\1\1" + raw)))
    def a_lying_peer_has_a_heartbeat(self, message: bytes) -> None:
        self.place.control(self.third, message)

    @rule(opener=OPENERS)
    def a_lying_peer_asks(self, opener: Frame) -> None:
        self.place.from_peer(self.third, opener.copy(id=self.fresh()))

    @rule(said=SAID, which=st.integers(0, 20))
    def a_lying_peer_speaks_of_what_is_under_way(self, said: Frame, which: int) -> None:
        self.place.from_peer(self.third, said.copy(id=self.under_way(self.third, which)))

    def fresh(self) -> int:
        self.next_id += 2
        return self.next_id

    def under_way(self, whom: int | bytes, which: int) -> int:
        """The id of some call between the node and one of the liars."""
        end = self.place.node.core.endpoint(whom)
        ids = [*end.opened, *end.given] if end is not None else []
        return ids[which % len(ids)] if ids else which

    @precondition(lambda self: self.liars)
    @rule(who=st.integers(0, 2), group=st.sampled_from(["", "g"]), bound=st.sampled_from([0, 1, 300, 2**63]))
    def a_liar_blocks(self, who: int, group: str, bound: int) -> None:
        app = self.liars[who % len(self.liars)]
        wish = subscribe(self.fresh(), "t.a", group=group, max_bytes=bound, when_full=WhenFull.BLOCK)
        self.place.say(app, wish)

    @precondition(lambda self: self.liars)
    @rule(who=st.integers(0, 2), body=BODIES, flush=st.booleans())
    def a_liar_publishes(self, who: int, body: bytes, flush: bool) -> None:
        app = self.liars[who % len(self.liars)]
        self.place.say(app, Frame(Kind.PUBLISH, address="t.a", body=body))
        if flush:
            self.place.say(app, Frame(Kind.FLUSH, id=self.fresh()))

    @precondition(lambda self: self.liars)
    @rule(who=st.integers(0, 2))
    def a_liar_gives_back(self, who: int) -> None:
        app = self.liars[who % len(self.liars)]
        for event in self.place.hear(app):
            if event.kind == Kind.EVENT and event.cost:
                self.place.say(app, Frame(Kind.CREDIT, id=event.id, count=event.cost))

    @rule(some=st.lists(OF_CREDIT, max_size=5))
    def a_lying_peer_has_credit(self, some: list[Frame]) -> None:
        self.place.from_peer(self.third, *some)

    @rule(batch=BATCHES)
    def a_lying_peer_speaks(self, batch: list[Frame]) -> None:
        self.place.from_peer(self.third, *batch)

    @rule(read=st.integers(1, 5000))
    def a_lying_peer_reads(self, read: int) -> None:
        self.place.take(self.third, read)

    @rule(left=st.booleans())
    def a_lying_peer_goes(self, left: bool) -> None:
        self.place.link_down(self.third, left=left)

    @rule(seconds=st.sampled_from([0.001, 0.05, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.place.wait(seconds)
        self.peer.wait(seconds)

    @rule(up=st.booleans())
    def the_link(self, up: bool) -> None:
        if up and not self.place.links:
            link(self.place, self.peer)
        elif not up and self.place.links:
            self.place.links.clear()
            self.peer.links.clear()
            self.place.link_down(self.peer.id)
            self.peer.link_down(self.place.id)

    @rule()
    def the_honest_are_served(self) -> None:
        """A request, a survey, a tunnel and an event between those who keep the rules."""
        self.honest_answers(self.place.hear(self.member))
        place, id = self.place, self.next_id
        self.next_id += 10
        place.say(self.caller, request(id, "honest", body=b"q"))
        place.say(self.caller, Frame(Kind.SURVEY, id=id + 2, address="honest", remaining_ms=1000))
        place.say(self.caller, Frame(Kind.TUNNEL, id=id + 4, address="honest", remaining_ms=1000))
        place.say(self.caller, Frame(Kind.PUBLISH, address="honest", body=b"news"))
        heard = {frame.kind: frame for frame in place.hear(self.member)}
        for kind in (Kind.REQUEST, Kind.SURVEY):
            place.say(self.member, reply(heard[kind].id, b"a"))
        place.say(self.member, Frame(Kind.CREDIT, id=heard[Kind.TUNNEL].id, count=1000))
        place.say(self.caller, Frame(Kind.DATA, id=id + 4, body=b"through"), Frame(Kind.FINISH, id=id + 4))
        answers = place.hear(self.caller)
        assert sorted(kinds(answers)) == ["CREDIT", "DONE", "REPLY", "REPLY"], answers
        assert (heard[Kind.REQUEST].body, heard[Kind.EVENT].body) == (b"q", b"news")
        assert [frame.body for frame in place.hear(self.member)] == [b"through", b""]
        place.say(self.member, Frame(Kind.FINISH, id=heard[Kind.TUNNEL].id))
        assert kinds(place.hear(self.caller)) == ["FINISH"]

    def honest_answers(self, frames: list[Frame]) -> None:
        """Liars call honest members too; those answer whatever comes, and stop when told to."""
        for frame in frames:
            if frame.kind in (Kind.REQUEST, Kind.SURVEY):
                self.place.say(self.member, reply(frame.id))
            elif frame.kind == Kind.PUSH:
                self.place.say(self.member, Frame(Kind.DONE, id=frame.id))
            elif frame.kind in (Kind.TUNNEL, Kind.CANCEL):
                self.place.say(self.member, Frame(Kind.ERROR, id=frame.id, code=Code.CANCELLED, executed=3))

    @invariant()
    def only_those_who_lie_are_shown_out(self) -> None:
        pump(self.place, self.peer)
        for detach in self.place.effects_of(Detach):
            assert detach.attachment in self.liars
            assert detach.reason
            self.liars.remove(detach.attachment)
        for unlink in self.place.effects_of(Unlink):
            assert unlink.peer == self.third, unlink
        assert self.peer.effects_of(Unlink) == []

    @invariant()
    def queues_are_bounded_and_counts_are_true(self) -> None:
        core = self.place.node.core
        for end in (*core.apps.values(), *core.peers.values()):
            outbox = end.outbox
            assert outbox.bytes == sum(flow.bytes for flow in outbox.flows()) >= 0
            assert outbox.urgent_bytes >= 0
            assert outbox.bytes < 500_000
        for app in core.apps.values():
            assert len(app.opened) <= 20
            for member in app.members.values():
                assert 0 <= member.outstanding <= member.concurrency

    @invariant()
    def who_watches_knows_what_the_node_knows(self) -> None:
        """Whatever happens, the picture and the changes after it add up to what the registry would route by."""
        for frame in self.place.hear(self.watcher):
            assert frame.kind in (Kind.CHANGE, Kind.DONE) and not frame.lost
            if frame.address:
                self.told[frame.node, frame.address] = frame.count
        registry = self.place.node.core.registry
        true = {(node.hex(), name): c.members for name, nodes in registry.clusters() for node, c in nodes.items()}
        assert {key: count for key, count in self.told.items() if count} == true

    def teardown(self) -> None:
        """Once everybody who lied is gone and all time is up, nothing is left of it."""
        for app in list(self.liars):
            self.place.gone(app)
        self.place.link_down(self.third, left=True)
        pump(self.place, self.peer)
        while (deadline := self.place.node.next_deadline()) is not None:
            self.place.wait(max(0.0, deadline - self.place.now))
        pump(self.place, self.peer)
        self.honest_answers(self.place.hear(self.member))
        self.place.hear(self.caller)
        self.place.hear(self.member)
        self.who_watches_knows_what_the_node_knows()
        assert self.place.quiet()
        assert self.place.node._tunnels.open == 0
        events, counters = self.place.node._events, self.place.counters
        assert not len(events.lending) + len(events.pacing.purses) + counters["held.topics"] + counters["held.bytes"]
        assert len(self.place.node.core.timers) == 0


TestAnyMesh = AnyMesh.TestCase
# every example is a whole conversation, with all checks after each step
TestAnyMesh.settings = settings(max_examples=max(1, settings().max_examples // 5), deadline=None)


@given(BATCHES, BATCHES)
def test_an_app_and_a_peer_may_say_anything(from_app: list[Frame], from_peer: list[Frame]):
    place = Place(1, **SMALL)
    app, peer = place.app(), b"\xff" * 16
    place.link_up(peer, features=FEATURES, dialled=False)
    place.from_peer(peer, *from_peer)
    place.say(app, *from_app)
    place.from_peer(peer, *from_peer)
    for detach in place.detached():
        assert detach.status == "INVALID_ARGUMENT"
    for frame in place.hear(app):
        if frame.kind == Kind.ERROR and frame.code in set(Code):
            assert frame.executed in (1, 2, 3)
