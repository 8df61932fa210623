"""A request (pure): body and reply each in their frame, or over a tunnel when they are too large for one."""

from __future__ import annotations

from iris_client._calls import Promise, Unary
from iris_client._errors import DeliveryError, HandlerFailed, IrisError, MemberLost, Overloaded, TooLarge, TunnelBroken
from iris_client._flows import Flows
from iris_client._frames import Header, Kind, ProtocolError
from iris_client._large import Feed, Gather
from iris_client._model import Executed
from iris_client._tunnelcall import tunnel_frame


class RequestCall(Unary):
    """A request. The promise gets ``(header, body)`` of its reply, however that came.

    Invariants:
        - the handler cannot have run before the last byte of the body has left
        - a reply is given whole or not at all

    Args:
        large: The body is too large for the frame.
    """

    __slots__ = ("_feed", "_flows", "_gather", "_head", "_upload")

    def __init__(
        self, header: Header, body: bytes, deadline: float, what: str, promise: Promise, *, large: bool = False
    ) -> None:
        super().__init__(header, b"" if large else body, deadline, what, promise)
        self._upload = body if large else b""
        self._flows: Flows | None = None
        self._feed: Feed | None = None
        self._gather: Gather | None = None
        self._head: Header | None = None
        if large:
            header.kind = Kind.TUNNEL  # type: ignore[assignment]
            header.carries = Kind.REQUEST  # type: ignore[assignment]
            header.total = len(body)
            header.more = False  # as it may be after it went in parts

    def prepare(self, flows: Flows) -> None:
        """Get ready to be opened.

        Raises:
            Overloaded: All tunnels together already hold as much as they may.
        """
        self._flows = flows
        if self._upload:
            flow = flows.open(self, self.what, large=True)
            if flow is None:
                raise Overloaded(f"{self.what}: the tunnels of this mesh already hold all the memory they may")
            flow.on_change = self._changed
            self._feed = Feed(flow, self._upload, flows.max_body)
            self._upload = b""

    # ------------------------------------------------------------ what came

    def on_frame(self, kind: int, header: Header, body: bytes) -> None:
        flow = self.flow
        if kind == Kind.CREDIT:
            self._credit(header)
        elif flow is not None and kind in (Kind.DATA, Kind.FINISH):
            tunnel_frame(flow, kind, header, body)
        elif kind == Kind.REPLY and header.total and not body:
            self._begin(header)
        else:
            super().on_frame(kind, header, body)
            if self.over:
                self._close()

    def _credit(self, header: Header) -> None:
        """The member takes the body; or, for a body that went in its frame, begins a large reply."""
        flow = self.flow
        if flow is None:
            assert self._flows is not None
            flow = self._flows.open(self, self.what, large=True)
            if flow is None:
                flow = self._flows.open_outgoing(self, self.what)
                self._give_up(self._no_room("the tunnels of this mesh already hold all the memory they may"))
                return
            flow.on_change = self._changed
            flow.finish()
        flow.on_credit(header.count, header.max_bytes)
        if self._feed is not None:
            self._feed.pump()

    def _begin(self, header: Header) -> None:
        """The head of a large reply: its body comes now."""
        flow, flows, total = self.flow, self._flows, header.total
        if flow is None or flows is None or self._head is not None:
            raise ProtocolError(f"{self.what}: a large reply that nobody began, or began twice")
        self._head = header
        if total > self.header.max_large:
            limit = self.header.max_large
            detail = f"{self.what}: the reply has {total} bytes, the limit is {limit} bytes"
            self._give_up(TooLarge(detail, executed=Executed.YES))
        elif not flows.hold(flow, total):
            self._give_up(
                self._no_room(f"large bodies of this process hold what they may, the reply has {total} bytes")
            )
        else:
            self._gather = Gather(flow, total)
            flow.accept()

    def _changed(self) -> None:
        flow, gather = self.flow, self._gather
        assert flow is not None
        if flow.broken is not None:
            self.fail(flow.broken)
            return
        if self._feed is not None:
            self._feed.pump()
        if gather is not None:
            gather.pump()
            if gather.wrong:
                self._give_up(MemberLost(f"{self.what}: {gather.wrong}", executed=Executed.YES))
            elif gather.whole:
                self._answered(gather.take())
        elif flow.clean:
            self._give_up(HandlerFailed(f"{self.what}: its member finished without an answer"))

    def _answered(self, body: bytes) -> None:
        flow = self.flow
        assert flow is not None
        self.over = True
        flow.on_change = _nothing
        if not flow.finishing:
            flow.abort("the reply came before all of the body had left")
        if not self.promise.done():
            self.promise.set_result((self._head, body))

    # --------------------------------------------------------- how it fails

    @property
    def _ran(self) -> Executed:
        """Whether the handler may have run, by what left and what came."""
        if self._head is not None:
            return Executed.YES
        if not self.id or (self._feed is not None and self.flow is not None and not self.flow.sent):
            return Executed.NO
        return Executed.MAYBE

    def fail(self, error: IrisError) -> None:
        if isinstance(error, TunnelBroken):
            error = MemberLost(str(error.args[0]), executed=self._ran)
        elif isinstance(error, DeliveryError) and error.executed is Executed.MAYBE:
            error.executed = self._ran
        self._close()
        super().fail(error)

    def dropped(self) -> None:
        self._close()

    def _give_up(self, error: IrisError) -> None:
        """It fails here, and the other end has yet to hear of it."""
        if self.flow is not None:
            self.flow.on_change = _nothing
            self.flow.abort(str(error.args[0]))
        self.fail(error)

    def _close(self) -> None:
        """The call is over; the flow has nothing more to bring."""
        if self.flow is not None:
            self.flow.on_change = _nothing
            self.flow.fail(TunnelBroken(f"{self.what}: it is over"))

    def _no_room(self, why: str) -> Overloaded:
        return Overloaded(f"{self.what}: {why}", executed=Executed.YES)


def _nothing() -> None:
    """Nobody looks at the flow any more."""
