"""The registry between nodes: this node's record out, the others' in, and who waits for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace

from irisd.flow import TopicKey
from irisd.flow.outbox import REQUESTS
from irisd.flow.timers import TICK
from irisd.membership import MAX_JUMP, Membership, Verdict
from irisd.model import Claim, Frame, Kind, NodeId, NodeRecord, State
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import App, Incoming, Peer, Syncing
from irisd.registry import MAX_CLAIMS, Record
from irisd.wire import (
    PIECE_BYTES,
    Belief,
    Saying,
    WireError,
    decode_record,
    encode_beliefs,
    encode_claims,
    encode_record,
    record_pieces,
)

MAX_WANTED = 4096
LONG = 4096
"""A record with more claims than this is encoded as it leaves: that of a million claims takes seconds."""
TIDY = ("tidy",)
"""The timer for what is left to forget of records that are over."""


class Records:
    """Keeps every peer's copy of this node's record up to date, and this node's copies of theirs.

    A link delivers in order, so after the whole record each change alone
    suffices. Changes that came by another way say what they build on; where
    that is not held the whole record is asked for. In a mesh too large for
    everybody to be linked with everybody, what is news is passed on.

    Args:
        core: Shared state.
        membership: What is believed of whom.
        forgotten: Told when a peer turns out to have lost count of what it published to us.
        arrived: Told when the claims of a node have changed.
        contradict: Told of the incarnation of a record that claims to be this node's and is not.
    """

    def __init__(
        self,
        core: Core,
        membership: Membership,
        forgotten: Callable[[NodeId], None],
        arrived: Callable[[NodeId], None],
        contradict: Callable[[int], None],
    ) -> None:
        self._core = core
        self._membership = membership
        self._forgotten = forgotten
        self._arrived = arrived
        self._contradict = contradict
        self._syncing: OrderedDict[tuple[int, int], Syncing] = OrderedDict()  # versions never fall
        self._wanted: dict[NodeId, float] = {}  # when it was last asked for

    # -- this node's own

    @property
    def about(self) -> NodeRecord:
        """What this node says of itself."""
        return self._membership.view.present[self._membership.own].record

    def link_up(self, peer: Peer) -> None:
        """Tell a new peer everything, and where its publishes to us stand."""
        record = self._core.record
        ledger = self._core.ledgers[peer.node]
        peer.sent_before = ledger.sent
        whole = self._core.registry.record(self._core.identity.node_id)
        pieces = record_pieces(whole.claims() if whole is not None else (), about=self.about)
        frame = Frame(Kind.RECORD, count=record.version, seq=ledger.received, total=ledger.sent)
        peer.change, peer.changed = self._whole(peer, whole, frame, pieces), None

    def claim(self, claim: Claim) -> None:
        """Change this node's claims and tell every peer."""
        core = self._core
        base = core.record.version
        if not core.record.set(claim):
            return
        version = core.record.version
        core.claimed(core.identity.node_id, (claim,), False)
        self._membership.own_recorded(self.about, version)
        piece = b""
        for peer in self._linked():
            piece = piece or encode_claims([claim])[0]
            change = peer.change
            if change is None or change.sent or len(change.body) >= PIECE_BYTES:
                (body,) = encode_record([claim], base=base)
                change = peer.change = Frame(Kind.RECORD, count=version, body=body)
                peer.changed = (base, {claim.key: claim})
                core.urgent(peer, change)
            elif peer.changed is not None and claim.key in peer.changed[1]:  # one that flips takes no more room
                first, claims = peer.changed
                claims[claim.key] = claim
                peer.outbox.replace_urgent(change, b"".join(encode_record(claims.values(), base=first)))
                change.count = version
            else:
                if peer.changed is not None:
                    peer.changed[1][claim.key] = claim
                peer.outbox.extend_urgent(change, piece)
                change.count = version

    def announce(self, about: NodeRecord) -> None:
        """Change what this node says of itself and tell every peer."""
        core = self._core
        base = core.record.version
        core.record.touch()
        self._membership.own_recorded(about, core.record.version)
        (body,) = encode_record([], base=base, about=about)
        for peer in self._linked():
            peer.change = None
            core.urgent(peer, Frame(Kind.RECORD, count=core.record.version, body=body))

    # -- the others'

    def received(self, peer: Peer, frame: Frame) -> None:
        """Claims of a peer's record, or of one it passes on.

        A whole one counts once its last piece is in: no message falls in between.
        """
        try:
            piece = decode_record(frame.body)
        except WireError as error:
            raise ProtocolError(str(error)) from None
        own = frame.kind == Kind.RECORD
        incoming = None if frame.full else peer.incoming.get(frame.kind)
        if incoming is None:
            if own and not frame.full and not peer.synced:
                raise ProtocolError("RECORD: the first one on a link must be whole")
            author = peer.node if own else piece.node
            if not author:
                raise ProtocolError("HEARSAY: it does not say of whom")
            about = piece.about
            if about is not None and about.node_id != author:
                about = replace(about, node_id=author)
            if not own and not frame.more and self._is_stale(author, about, piece.base, frame):
                return  # the same, by another way
            self._give_up(peer.incoming.pop(frame.kind, None))
            incoming = Incoming(author, about, piece.base, full=frame.full)
            if frame.full and frame.more:
                incoming.draft = self._core.registry.draft(author)
                peer.incoming[frame.kind] = incoming
        if incoming.draft is not None:
            broken = self._core.registry.write(incoming.draft, piece.claims)
            if broken:
                raise ProtocolError(broken)
        else:
            incoming.claims += piece.claims
        if frame.more and len(incoming.claims) <= MAX_CLAIMS:
            peer.incoming[frame.kind] = incoming
            return
        peer.incoming.pop(frame.kind, None)
        if own and not incoming.full and not peer.speaks:  # the first release counts on the order alone
            known = self._membership.view.known(peer.node)
            incoming.base = known.version if known is not None else 0
        self._take_in(peer, incoming, frame.count, own)
        if own:
            if incoming.full:
                peer.synced = True
                self._relinked(peer, frame)
                self._arrived(peer.node)
            self._acknowledge(peer, frame.count)

    def _acknowledge(self, peer: Peer, version: int) -> None:
        """Say what is held. One that drains is told behind the calls on their way to it: after that no more come."""
        known = self._membership.view.known(peer.node)
        ack = Frame(Kind.RECORD_ACK, count=version)
        if known is not None and known.record.draining:
            self._core.send(peer, REQUESTS, ack)
        else:
            self._core.urgent(peer, ack)

    def _is_stale(self, author: NodeId, about: NodeRecord | None, base: int, frame: Frame) -> bool:
        verdict = self._membership.judge(author, about, base, frame.count, full=frame.full)
        return verdict is Verdict.STALE

    def _take_in(self, peer: Peer, incoming: Incoming, version: int, own: bool) -> None:
        core, author, about = self._core, incoming.author, incoming.about
        verdict = self._membership.judge(author, about, incoming.base, version, full=incoming.full)
        if verdict is Verdict.NEWS:
            if incoming.draft is not None:
                core.registry.adopt(incoming.draft)
                core.claimed(author, core.registry.clusters_of(author), True)
            else:
                broken = core.registry.learn(author, incoming.claims, full=incoming.full)
                if broken:
                    raise ProtocolError(broken)
                core.claimed(author, incoming.claims, incoming.full)
            self.tidy()
            self._membership.recorded(author, about, version, peer.node, core.now)
            if self._membership.spread:
                self._pass_on(peer, incoming, version)
            self._arrived(author)
            return
        self._give_up(incoming)
        if verdict is Verdict.LACKING:
            self._want(peer, author)
        elif verdict is Verdict.BURIED and not own:  # else it was told when it linked
            self.say_gone(peer, author)
        elif verdict is Verdict.OWN:
            held = self.about.incarnation
            said = about.incarnation if about is not None else held
            newer = (said, version) > (held, core.record.version)
            if newer and said < held + MAX_JUMP:  # else nobody would believe what outbids it
                self._contradict(said)
        elif verdict in (Verdict.FUTURE, Verdict.FULL):
            core.drop(f"record-{verdict}")

    def say_gone(self, peer: Peer, node: NodeId) -> None:
        """Somebody speaks of a node that is dead or has left as if it were there."""
        known = self._membership.view.gone.get(node)
        if known is not None and peer.speaks:
            saying = Saying.DEAD if known.state is State.DEAD else Saying.LEFT
            (body,) = encode_beliefs([Belief(node, known.record.incarnation, saying)])
            self._core.urgent(peer, Frame(Kind.BELIEFS, body=body))

    def send(self, peer: Peer, node: NodeId) -> None:
        """Send a peer all that is known of another node; if it has much to read already, it will ask again."""
        known = self._membership.view.present.get(node)
        if known is None or known.version < 0 or not peer.speaks:
            return
        if peer.outbox.urgent_bytes > self._core.settings.peer_outbox:
            return
        self._pass_whole(peer, node, known.record, known.version)

    def _pass_on(self, source: Peer, incoming: Incoming, version: int) -> None:
        """Tell some neighbours what was news here; the others find it out by its digest, if not by another way."""
        author, about = incoming.author, incoming.about
        pieces = encode_record(incoming.claims, base=incoming.base, node=author, about=about)
        for peer in self._linked():
            if peer is source or not peer.speaks or peer.node == author or not self._membership.spreads_to(peer.node):
                continue
            if incoming.draft is not None:
                self._pass_whole(peer, author, about, version)
                continue
            for frame in _frames(Frame(Kind.HEARSAY, count=version, full=incoming.full), iter(pieces)):
                self._core.urgent(peer, frame)

    def _pass_whole(self, peer: Peer, node: NodeId, about: NodeRecord | None, version: int) -> None:
        record = self._core.registry.record(node)
        pieces = record_pieces(record.claims() if record is not None else (), node=node, about=about)
        self._whole(peer, record, Frame(Kind.HEARSAY, count=version), pieces)

    def _whole(self, peer: Peer, record: Record | None, first: Frame, pieces: Iterator[bytes]) -> Frame | None:
        """Send a whole record: at once and return its last frame or, if it is long, piece by piece as it leaves.

        A piece says what is so when it is made. What has changed since ``first`` was numbered is told again behind it.
        """
        first.full = True
        frames = _frames(first, pieces)
        if record is not None and len(record) > LONG:
            peer.outbox.put_stream(Kind(first.kind), _while_it_counts(record, frames, peer.node), PIECE_BYTES)
            self._core.wake(peer)
            return None
        for frame in frames:
            self._core.urgent(peer, frame)
        return frame

    def _give_up(self, incoming: Incoming | None) -> None:
        """What has come of a record counts for nothing."""
        if incoming is not None and incoming.draft is not None:
            self._core.registry.retire(incoming.draft)
            self.tidy()

    def link_lost(self, peer: Peer) -> None:
        """The rest of what has come in part will not come."""
        while peer.incoming:
            self._give_up(peer.incoming.popitem()[1])

    def tidy(self) -> None:
        """Long records that are over are forgotten bit by bit, between other things."""
        core = self._core
        if core.registry.retired and TIDY not in core.timers:
            core.timers.add(TIDY, core.now + TICK)

    def _want(self, peer: Peer, node: NodeId) -> None:
        """Ask for a whole record, at most once an interval."""
        now = self._core.now
        if not peer.speaks or now - self._wanted.get(node, -1e9) < self._core.settings.heartbeat_interval:
            return
        if len(self._wanted) >= MAX_WANTED:
            self._wanted.clear()
        self._wanted[node] = now
        self._core.urgent(peer, Frame(Kind.WANT, body=node))

    def _linked(self) -> list[Peer]:
        return [peer for peer in self._core.peers.values() if peer.linked]

    def _relinked(self, peer: Peer, frame: Frame) -> None:
        """Both sides know where their publishes stand: tell what was lost with the link before."""
        ledger = self._core.ledgers[peer.node]
        if not ledger.resumed(frame.total):
            self._forgotten(peer.node)
        self._tell(peer, ledger.relinked(frame.seq, peer.sent_before))

    def tell_lost(self, peer: Peer) -> None:
        """It counts as there again: tell what was not sent while it was linked and still taken for dead."""
        self._tell(peer, self._core.ledgers[peer.node].untold())

    def _tell(self, peer: Peer, losses: list[tuple[TopicKey, int]]) -> None:
        for (topic, group), count in losses:
            self._core.urgent(peer, Frame(Kind.LOST, address=topic, group=group, count=count))

    # -- who waits

    def acknowledged(self, peer: Peer, version: int) -> None:
        """A peer holds our record at this version."""
        peer.acknowledged = max(peer.acknowledged, version)
        self.settle()

    def settle(self) -> None:
        """Answer those whose claim every linked peer knows by now."""
        known = self._known
        while self._syncing:
            syncing = next(iter(self._syncing.values()))
            if syncing.version > known:
                break
            self._answer(syncing, 1)

    @property
    def _known(self) -> int:
        """The version of this node's record that every linked peer holds."""
        return min((peer.acknowledged for peer in self._linked()), default=self._core.record.version)

    def wait(self, app: App, id: int) -> None:
        """Answer a JOIN or SUBSCRIBE once every linked peer knows, or after a bounded wait."""
        core = self._core
        if not self._syncing and self._known >= core.record.version:
            core.answer(app.attachment, Frame(Kind.DONE, id=id, count=1))
            return
        syncing = Syncing(app, id, core.record.version)
        self._syncing[app.attachment, id] = syncing
        core.timers.add(syncing, core.now + core.settings.sync_timeout)

    def expired(self, syncing: Syncing) -> None:
        """Some peer has not confirmed in time: established here, not yet known everywhere."""
        self._answer(syncing, 0)

    def ended(self, app: App, id: int) -> None:
        """What was joined or subscribed to is over: nobody waits any more."""
        syncing = self._syncing.pop((app.attachment, id), None)
        if syncing is not None:
            self._core.timers.remove(syncing)

    def _answer(self, syncing: Syncing, count: int) -> None:
        self.ended(syncing.app, syncing.id)
        self._core.answer(syncing.app.attachment, Frame(Kind.DONE, id=syncing.id, count=count))


def _while_it_counts(record: Record, frames: Iterator[Frame], reader: NodeId) -> Iterator[Frame]:
    """A long record's frames, while it counts; then one that ends it: half of it is not all, what follows not its rest.

    That is an empty whole record of the reader itself: every release gives up what it has, and takes nothing.
    """
    begun = False
    for frame in frames:
        if not record.counts:
            if begun:
                (nothing,) = encode_record((), node=reader)
                yield Frame(Kind.HEARSAY, full=True, body=nothing)
            return
        yield frame
        begun = True


def _frames(first: Frame, pieces: Iterator[bytes]) -> Iterator[Frame]:
    """A record's frames, one for each piece, like ``first``."""
    piece: bytes | None = next(pieces)
    full = first.full
    while piece is not None:
        following = next(pieces, None)
        yield first.copy(body=piece, full=full, more=following is not None)
        piece, full = following, False
