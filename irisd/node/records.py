"""The registry between nodes: this node's record out, the others' in, and who waits for it."""

from __future__ import annotations

from irisd.model import Claim, Frame, Kind
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import App, Peer, Syncing
from irisd.wire import WireError, decode_claims, encode_claims


class Records:
    """Keeps every linked peer's copy of this node's record up to date.

    A link delivers in order, so after the whole record each change alone
    suffices; its version says whether the peer has it.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._syncing: list[Syncing] = []

    def link_up(self, peer: Peer) -> None:
        """Tell a new peer everything, and where its publishes to us stand."""
        record = self._core.record
        pieces = encode_claims(record.claims())
        for at, piece in enumerate(pieces):
            frame = Frame(Kind.RECORD, count=record.version, body=piece, seq=self._core.ledgers[peer.id].received)
            frame.full = at == 0
            frame.more = at < len(pieces) - 1
            self._core.urgent(peer, frame)

    def claim(self, claim: Claim) -> None:
        """Change this node's record and tell every peer."""
        core = self._core
        if not core.record.set(claim):
            return
        own = core.identity.node_id
        core.registry.learn(own, core.record.version, [claim])
        for peer in core.peers.values():
            for piece in encode_claims([claim]):
                core.urgent(peer, Frame(Kind.RECORD, count=core.record.version, body=piece))

    def received(self, peer: Peer, frame: Frame) -> None:
        """Claims of a peer's record."""
        core = self._core
        try:
            claims = decode_claims(frame.body)
        except WireError as error:
            raise ProtocolError(str(error)) from None
        broken = core.registry.learn(peer.id, frame.count, claims, full=frame.full)
        if broken:
            raise ProtocolError(broken)
        if frame.full:
            for (topic, group), count in core.ledgers[peer.id].relinked(frame.seq):
                core.urgent(peer, Frame(Kind.LOST, address=topic, group=group, count=count))
        if not frame.more:
            core.urgent(peer, Frame(Kind.RECORD_ACK, count=frame.count))
            peer.synced = True

    def acknowledged(self, peer: Peer, version: int) -> None:
        """A peer holds our record at this version."""
        peer.acknowledged = max(peer.acknowledged, version)
        for syncing in list(self._syncing):
            if syncing.version <= version:
                syncing.peers.discard(peer.id)
                self._settle(syncing)

    def link_lost(self, peer: Peer) -> None:
        """A peer that is gone need not know."""
        for syncing in list(self._syncing):
            syncing.peers.discard(peer.id)
            self._settle(syncing)

    def wait(self, app: App, id: int) -> None:
        """Answer a JOIN or SUBSCRIBE once every linked peer knows, or after a bounded wait."""
        core = self._core
        version = core.record.version
        behind = {peer.id for peer in core.peers.values() if peer.acknowledged < version}
        syncing = Syncing(app, id, version, behind)
        self._syncing.append(syncing)
        core.timers.add(syncing, core.now + core.settings.sync_timeout)
        self._settle(syncing)

    def expired(self, syncing: Syncing) -> None:
        """Some peer has not confirmed in time: established here, not yet known everywhere."""
        self._answer(syncing, 0)

    def app_gone(self, app: App) -> None:
        """Nobody waits any more."""
        for syncing in [s for s in self._syncing if s.app is app]:
            self._syncing.remove(syncing)
            self._core.timers.remove(syncing)

    def _settle(self, syncing: Syncing) -> None:
        if not syncing.peers:
            self._core.timers.remove(syncing)
            self._answer(syncing, 1)

    def _answer(self, syncing: Syncing, count: int) -> None:
        self._syncing.remove(syncing)
        self._core.urgent(syncing.app, Frame(Kind.DONE, id=syncing.id, count=count))
