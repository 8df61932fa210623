"""Tunnels through this node: messages both ways, end-to-end byte credit, half-close.

The credit an end holds is the other *app's* word, passed on by every node in
between; nobody may send beyond it, so what a node can have queued of a tunnel
is bounded by the window. A tunnel is over when both ends have finished; any
other end is an error at both, never a quiet one.
"""

from __future__ import annotations

from typing import NoReturn

from irisd.flow.outbox import FRAME_COST
from irisd.model import Code, Executed, Frame, KiB, Kind, MiB
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import App, Endpoint
from irisd.router import Call, Tunnel

MAX_WINDOW = MiB
"""Most credit an end may hold, in bytes."""

MAX_DATA = 64 * KiB
"""Most bytes one DATA frame may carry."""

DATA_COST = 64
"""Credit a DATA frame uses besides its body, so that a flood of tiny messages is bounded too."""


class Tunnels:
    """All open tunnels of a node."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._backlog = core.settings.app_backlog + core.settings.app_outbox
        self.open = 0

    def accepted(self, call: Call, target: Endpoint, frame: Frame) -> None:
        """The member took the tunnel: its first CREDIT opens it."""
        source = self._core.endpoint(call.source)
        if source is None:
            self._core.fail(target.id, call.target_id, Code.TUNNEL_BROKEN, "the opener has left", Executed.YES)
            return
        tunnel = Tunnel(((source.id, call.source_id), (target.id, call.target_id)), call.cluster)
        source.opened[call.source_id] = tunnel
        target.given[call.target_id] = tunnel
        self.open += 1
        self.frame(target, tunnel, frame)

    def frame(self, sender: Endpoint, tunnel: Tunnel, frame: Frame) -> None:
        """A DATA, FINISH, CREDIT, ERROR or CANCEL of one end."""
        end = tunnel.end_of(sender.id, frame.id)
        destination, id = tunnel.ends[1 - end]
        other = self._core.endpoint(destination)
        if other is None:
            self._break(tunnel, "the other end has left")
            return
        if frame.kind == Kind.DATA:
            cost = len(frame.body) + DATA_COST
            if tunnel.finished[end]:
                self._violated(sender, tunnel, "DATA after FINISH")
            elif len(frame.body) > MAX_DATA:
                self._violated(sender, tunnel, f"DATA of {len(frame.body)} bytes: the limit is {MAX_DATA}")
            elif cost > tunnel.credit[end]:
                self._violated(sender, tunnel, "DATA beyond the credit it was given")
            elif isinstance(other, App) and other.outbox.bytes > self._backlog:
                self._core.drop("tunnel-not-read")
                self._break(tunnel, "the app at the other end does not read what it was sent")
            else:
                tunnel.credit[end] -= cost
                self._core.counters["tunnel.bytes"] += len(frame.body)
                data = Frame(Kind.DATA, id=id, body=frame.body)
                if frame.more:
                    data.more = True
                self._core.send(other, ("tunnel", id), data)
        elif frame.kind == Kind.CREDIT:
            if not tunnel.finished[1 - end]:  # else the other end has sent its last
                self._credit(sender, tunnel, end, frame)
        elif frame.kind == Kind.FINISH:
            if tunnel.finished[end]:
                return
            tunnel.finished[end] = True
            self._core.send(other, ("tunnel", id), Frame(Kind.FINISH, id=id))
            if all(tunnel.finished):
                self._forget(tunnel)
        elif frame.kind in (Kind.ERROR, Kind.CANCEL):
            detail = frame.detail or "the other end aborted it"
            self._abort(tunnel, 1 - end, detail, code=frame.code or Code.TUNNEL_BROKEN, reason=frame.reason)
            self._discard(sender, frame.id)
            if frame.kind == Kind.CANCEL:
                self._core.fail(sender.id, frame.id, Code.CANCELLED, "running", Executed.YES)

    def _credit(self, sender: Endpoint, tunnel: Tunnel, end: int, frame: Frame) -> None:
        """An end lets the other send more: what it may send and what waits here stay within the window."""
        waiting, queued = sender.outbox.queued(("tunnel", frame.id))
        queued -= waiting * (FRAME_COST - DATA_COST)
        if tunnel.credit[1 - end] + queued + frame.count > MAX_WINDOW:
            self._violated(sender, tunnel, f"CREDIT above the window of {MAX_WINDOW} bytes")
        tunnel.credit[1 - end] += frame.count
        destination, id = tunnel.ends[1 - end]
        other = self._core.endpoint(destination)
        grant = tunnel.grants[1 - end]
        if grant is not None and not grant.sent:
            grant.count += frame.count
        elif other is not None:
            grant = tunnel.grants[1 - end] = Frame(Kind.CREDIT, id=id, count=frame.count)
            self._core.urgent(other, grant)

    def gone(self, tunnel: Tunnel, endpoint: Endpoint, id: int) -> None:
        """One end's app, or the link towards it, has gone; perhaps both ends were there."""
        if tunnel.over:
            return
        what = "app" if isinstance(endpoint, App) else "link"
        self._abort(tunnel, 1 - tunnel.end_of(endpoint.id, id), f"the {what} at the other end was lost")

    def _violated(self, sender: Endpoint, tunnel: Tunnel, rule: str) -> NoReturn:
        self._core.drop("tunnel-violation")
        self._break(tunnel, rule)
        raise ProtocolError(f"tunnel: {rule}")

    def _break(self, tunnel: Tunnel, detail: str) -> None:
        """End it with an error at both ends."""
        for end in (0, 1):
            self._tell(tunnel, end, Frame(Kind.ERROR, code=Code.TUNNEL_BROKEN, executed=Executed.YES, detail=detail))
        self._forget(tunnel)

    def _abort(
        self, tunnel: Tunnel, end: int, detail: str, *, code: int = Code.TUNNEL_BROKEN, reason: str = ""
    ) -> None:
        self._tell(tunnel, end, Frame(Kind.ERROR, code=code, executed=Executed.YES, detail=detail, reason=reason))
        self._forget(tunnel)

    def _tell(self, tunnel: Tunnel, end: int, frame: Frame) -> None:
        """An error overtakes and replaces what still waits for that end."""
        destination, id = tunnel.ends[end]
        endpoint = self._core.endpoint(destination)
        if endpoint is not None:
            self._discard(endpoint, id)
            frame.id = id
            self._core.urgent(endpoint, frame)

    def _discard(self, endpoint: Endpoint, id: int) -> None:
        if dropped := endpoint.outbox.discard(("tunnel", id)):
            self._core.drop("tunnel-broken", dropped)

    def _forget(self, tunnel: Tunnel) -> None:
        self.open -= 1
        tunnel.over = True
        for destination, id in tunnel.ends:
            endpoint = self._core.endpoint(destination)
            if endpoint is not None:
                for table in (endpoint.opened, endpoint.given):
                    if table.get(id) is tunnel:
                        del table[id]
