"""Tunnels through this node: messages both ways, end-to-end byte credit, half-close.

The credit an end holds is the other *app's* word, passed on by every node in
between; nobody may send beyond it, so what a node can have queued of a tunnel
is bounded by the window. A tunnel is over when both ends have finished; any
other end is an error at both, never a quiet one.

A tunnel may carry a request whose body is too large for a frame, or the reply
to one: it then ends with a REPLY or ERROR like the request it is, whose slot
it keeps, and one that its opener abandons is cancelled like one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from irisd.flow.outbox import FRAME_COST
from irisd.model import PART_BYTES, Code, Executed, Frame, KiB, Kind, MiB
from irisd.node.addressing import kind_of
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import App, Endpoint
from irisd.node.outcomes import ended_by
from irisd.router import Call, Ended, Tunnel

MAX_WINDOW = MiB
"""Most credit an end may hold, in bytes."""

MAX_DATA = 64 * KiB
"""Most bytes one DATA frame may carry, and it is one message or a piece of one, unless the other end takes more."""

LONGEST_DATA = PART_BYTES
"""Most bytes it may carry then, and several messages."""

DATA_COST = 64
"""Credit each message of a DATA frame uses besides its body, so that a flood of tiny messages is bounded too."""


class Tunnels:
    """All open tunnels of a node.

    Attributes:
        carried: To be told of a request whose tunnel is over, and how it ended.
        abandoned: To be told of one whose opener wants no more of it.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._backlog = core.settings.app_backlog + core.settings.app_outbox
        self.open = 0
        self.carried: Callable[[Call, Ended], None] = lambda call, ended: None
        self.abandoned: Callable[[Call], None] = lambda call: None

    def may_carry(self, source: Endpoint, frame: Frame) -> bool:
        """Whether a call may have a large body or a large reply; lowers what it says to what is allowed here."""
        core = self._core
        limit = core.settings.max_large_body
        if frame.max_large > limit:
            frame.max_large = limit
        if not frame.carries:
            return True
        if frame.kind != Kind.TUNNEL or frame.carries != Kind.REQUEST:
            core.fail(source.id, frame.id, Code.INVALID, "carries: only a TUNNEL can, and only a REQUEST")
        elif frame.total > limit:
            detail = f"{core.identity.name} takes large bodies of at most {limit} bytes, this one has {frame.total}"
            core.fail(source.id, frame.id, Code.TOO_LARGE, detail)
        else:
            return True
        return False

    def accepted(self, call: Call, target: Endpoint, frame: Frame) -> None:
        """The member took the tunnel: its first CREDIT opens it."""
        source = self._core.endpoint(call.source)
        if source is None:
            self._core.fail(target.id, call.target_id, Code.TUNNEL_BROKEN, "the opener has left", Executed.YES)
            return
        tunnel = Tunnel(((source.id, call.source_id), (target.id, call.target_id)), call.cluster)
        if kind_of(call.frame) == Kind.REQUEST:
            tunnel.call = call
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
            cost = len(frame.body) + DATA_COST * frame.messages
            longest = tunnel.longest[end]
            if tunnel.finished[end]:
                self._violated(sender, tunnel, "DATA after FINISH")
            elif frame.sizes and (not longest or frame.more):
                reason = "which goes on" if longest else "which the other end does not take"
                self._violated(sender, tunnel, f"DATA of several messages, {reason}")
            elif len(frame.body) > (limit := longest if frame.sizes else max(longest, MAX_DATA)):
                self._violated(sender, tunnel, f"DATA of {len(frame.body)} bytes: the limit is {limit}")
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
                elif frame.sizes:
                    data.sizes = frame.sizes
                    data.header_bytes = cost - len(frame.body) - DATA_COST  # waits for as much as it costs
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
                self._forget(tunnel, Ended.WELL if tunnel.answered else Ended.BADLY)
        elif tunnel.call is not None:
            self._of_request(sender, tunnel, end, frame)
        elif frame.kind in (Kind.ERROR, Kind.CANCEL):
            detail = frame.detail or "the other end aborted it"
            self._abort(tunnel, 1 - end, detail, code=frame.code or Code.TUNNEL_BROKEN, reason=frame.reason)
            self._discard(sender, frame.id)
            if frame.kind == Kind.CANCEL:
                self._core.fail(sender.id, frame.id, Code.CANCELLED, "running", Executed.YES)

    def _of_request(self, sender: Endpoint, tunnel: Tunnel, end: int, frame: Frame) -> None:
        """A REPLY or ERROR of whoever has the request; a CANCEL or ERROR of whoever made it."""
        destination, id = tunnel.ends[1 - end]
        if end == 1 and frame.kind in (Kind.REPLY, Kind.ERROR):
            member = sender.member_name if isinstance(sender, App) else frame.member
            answer = frame.copy(id=id, member=member)
            if frame.kind == Kind.REPLY and frame.total:  # its body follows as DATA
                if tunnel.answered:
                    self._violated(sender, tunnel, "a second REPLY")
                tunnel.answered = True
                if (other := self._core.endpoint(destination)) is not None:
                    self._core.urgent(other, answer)
                return
            sender.outbox.discard(("tunnel", frame.id))
            if (other := self._core.endpoint(destination)) is not None:
                other.outbox.discard(("tunnel", id))
            self._forget(tunnel, ended_by(answer))
            self._core.answer(destination, answer)
        elif end == 0 and frame.kind in (Kind.CANCEL, Kind.ERROR):
            sender.outbox.discard(("tunnel", frame.id))
            self._abandon(tunnel)
            self._core.fail(sender.id, frame.id, Code.CANCELLED, "running", Executed.MAYBE)

    def _abandon(self, tunnel: Tunnel) -> None:
        call, tunnel.call = tunnel.call, None
        self._forget(tunnel)
        destination, id = tunnel.ends[1]
        target = self._core.endpoint(destination)
        if target is not None:
            target.outbox.discard(("tunnel", id))
        if call is not None:
            self.abandoned(call)

    def _credit(self, sender: Endpoint, tunnel: Tunnel, end: int, frame: Frame) -> None:
        """An end lets the other send more: what it may send and what waits here stay within the window."""
        waiting, queued = sender.outbox.queued(("tunnel", frame.id))
        queued -= waiting * (FRAME_COST - DATA_COST)
        if tunnel.credit[1 - end] + queued + frame.count > MAX_WINDOW:
            self._violated(sender, tunnel, f"CREDIT above the window of {MAX_WINDOW} bytes")
        tunnel.credit[1 - end] += frame.count
        longest = min(frame.max_bytes, LONGEST_DATA, self._core.settings.max_body)
        tunnel.longest[1 - end] = max(tunnel.longest[1 - end], longest)  # what it was told before may be on its way
        destination, id = tunnel.ends[1 - end]
        other = self._core.endpoint(destination)
        grant = tunnel.grants[1 - end]
        if grant is not None and not grant.sent:
            grant.count += frame.count
        elif other is not None:
            grant = tunnel.grants[1 - end] = Frame(Kind.CREDIT, id=id, count=frame.count)
            self._core.urgent(other, grant)
        if grant is not None and grant.max_bytes != longest:
            grant.max_bytes = longest  # the last word counts

    def gone(self, tunnel: Tunnel, endpoint: Endpoint, id: int) -> None:
        """One end's app, or the link towards it, has gone; perhaps both ends were there."""
        if tunnel.over:
            return
        if tunnel.call is not None and tunnel.end_of(endpoint.id, id) == 0:
            self._abandon(tunnel)
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
        if tunnel.call is not None:
            frame.code, frame.executed = Code.MEMBER_LOST, Executed.MAYBE  # to its opener it is a request
        destination, id = tunnel.ends[end]
        endpoint = self._core.endpoint(destination)
        if endpoint is not None:
            self._discard(endpoint, id)
            frame.id = id
            self._core.urgent(endpoint, frame)

    def _discard(self, endpoint: Endpoint, id: int) -> None:
        if dropped := endpoint.outbox.discard(("tunnel", id)):
            self._core.drop("tunnel-broken", dropped)

    def _forget(self, tunnel: Tunnel, ended: Ended = Ended.OTHERWISE) -> None:
        self.open -= 1
        tunnel.over = True
        for destination, id in tunnel.ends:
            endpoint = self._core.endpoint(destination)
            if endpoint is not None:
                for table in (endpoint.opened, endpoint.given):
                    if table.get(id) is tunnel:
                        del table[id]
        if tunnel.call is not None:
            self.carried(tunnel.call, ended)
