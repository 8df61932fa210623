"""The registry between nodes: this node's record out, the others' in, and who waits for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from irisd.model import Claim, Frame, Kind, NodeId
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import App, Peer, Syncing
from irisd.registry import MAX_CLAIMS
from irisd.wire import PIECE_BYTES, WireError, decode_claims, encode_claims


class Records:
    """Keeps every linked peer's copy of this node's record up to date.

    A link delivers in order, so after the whole record each change alone
    suffices; its version says whether the peer has it. ``forgotten`` is told
    when a peer turns out to have lost count of what it published to us.
    """

    def __init__(self, core: Core, forgotten: Callable[[NodeId], None]) -> None:
        self._core = core
        self._forgotten = forgotten
        self._syncing: OrderedDict[tuple[int, int], Syncing] = OrderedDict()  # versions never fall

    def link_up(self, peer: Peer) -> None:
        """Tell a new peer everything, and where its publishes to us stand."""
        record = self._core.record
        ledger = self._core.ledgers[peer.id]
        pieces = encode_claims(record.claims())
        for at, piece in enumerate(pieces):
            frame = Frame(Kind.RECORD, count=record.version, body=piece, seq=ledger.received, total=ledger.sent)
            frame.full = at == 0
            frame.more = at < len(pieces) - 1
            self._core.urgent(peer, frame)
        peer.change = frame

    def claim(self, claim: Claim) -> None:
        """Change this node's record and tell every peer."""
        core = self._core
        if not core.record.set(claim):
            return
        version = core.record.version
        core.registry.learn(core.identity.node_id, version, [claim])
        core.claimed(core.identity.node_id, (claim,), False)
        (piece,) = encode_claims([claim])
        for peer in core.peers.values():
            change = peer.change
            if change is None or change.sent or len(change.body) >= PIECE_BYTES:
                change = peer.change = Frame(Kind.RECORD, count=version, body=piece)
                core.urgent(peer, change)
            else:
                peer.outbox.extend_urgent(change, piece)
                change.count = version

    def received(self, peer: Peer, frame: Frame) -> None:
        """Claims of a peer's record. A whole one counts once its last piece is in: no message falls in between."""
        core = self._core
        try:
            claims = decode_claims(frame.body)
        except WireError as error:
            raise ProtocolError(str(error)) from None
        whole = peer.pieces is not None or frame.full
        if whole:
            pieces = [] if frame.full or peer.pieces is None else peer.pieces
            peer.pieces = claims = pieces + claims
            if frame.more and len(claims) <= MAX_CLAIMS:
                return
            peer.pieces = None
        elif not peer.synced:
            raise ProtocolError("RECORD: the first one on a link must be whole")
        broken = core.registry.learn(peer.id, frame.count, claims, full=whole)
        if broken:
            raise ProtocolError(broken)
        core.claimed(peer.id, claims, whole)
        if whole:
            peer.synced = True
            self._relinked(peer, frame)
        core.urgent(peer, Frame(Kind.RECORD_ACK, count=frame.count))

    def _relinked(self, peer: Peer, frame: Frame) -> None:
        """Both sides know where their publishes stand: tell what was lost with the link before."""
        ledger = self._core.ledgers[peer.id]
        if not ledger.resumed(frame.total):
            self._forgotten(peer.id)
        for (topic, group), count in ledger.relinked(frame.seq):
            self._core.urgent(peer, Frame(Kind.LOST, address=topic, group=group, count=count))

    def acknowledged(self, peer: Peer, version: int) -> None:
        """A peer holds our record at this version."""
        peer.acknowledged = max(peer.acknowledged, version)
        self.settle()

    def settle(self) -> None:
        """Answer those whose claim every linked peer knows by now."""
        known = min((peer.acknowledged for peer in self._core.peers.values()), default=self._core.record.version)
        while self._syncing:
            syncing = next(iter(self._syncing.values()))
            if syncing.version > known:
                break
            self._answer(syncing, 1)

    def wait(self, app: App, id: int) -> None:
        """Answer a JOIN or SUBSCRIBE once every linked peer knows, or after a bounded wait."""
        core = self._core
        syncing = Syncing(app, id, core.record.version)
        self._syncing[app.id, id] = syncing
        core.timers.add(syncing, core.now + core.settings.sync_timeout)
        self.settle()

    def expired(self, syncing: Syncing) -> None:
        """Some peer has not confirmed in time: established here, not yet known everywhere."""
        self._answer(syncing, 0)

    def ended(self, app: App, id: int) -> None:
        """What was joined or subscribed to is over: nobody waits any more."""
        syncing = self._syncing.pop((app.id, id), None)
        if syncing is not None:
            self._core.timers.remove(syncing)

    def _answer(self, syncing: Syncing, count: int) -> None:
        self.ended(syncing.app, syncing.id)
        self._core.answer(syncing.app.id, Frame(Kind.DONE, id=syncing.id, count=count))
