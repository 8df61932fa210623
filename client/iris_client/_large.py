"""Bodies too large for a frame (pure): how one leaves over a tunnel, and how it is put together at the other end.

Such a body goes as the messages of a tunnel, one after another. So nothing on the way holds more of it than the
tunnel's window; the two apps hold it whole, and how much all of them together may hold is bounded for the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from iris_client._frames import EXECUTED_NO, Code
from iris_client._model import DATA_BYTES, MiB
from iris_client._tunnelflow import DATA_COST, TunnelFlow

if TYPE_CHECKING:
    from iris_client._deliveries import Delivery

PIECE_BYTES: Final = DATA_BYTES - DATA_COST
"""A piece and its cost together: a whole number of them fills a window."""

MAX_ASSEMBLY: Final = 512 * MiB


class Reserve:
    """What large bodies may hold together while they come and until they have been used. Bytes.

    Attributes:
        limit: May be changed; what is held stays.
        held: By announced length, so that a body which was begun can be completed.
    """

    def __init__(self, limit: int = MAX_ASSEMBLY) -> None:
        self.limit = limit
        self.held = 0

    def take(self, size: int) -> bool:
        """Hold ``size`` more, if that is within the limit."""
        if self.held + size > self.limit:
            return False
        self.held += size
        return True

    def give_back(self, size: int) -> None:
        self.held -= size


PROCESS: Final = Reserve()
"""The one that all meshes of this process share."""


class Feed:
    """A large body on its way out: fed into a flow as room allows, then finished. ``max_body`` bounds its messages."""

    def __init__(self, flow: TunnelFlow, body: bytes, max_body: int) -> None:
        self._flow = flow
        self._body = body
        self._at = 0
        self._piece = min(PIECE_BYTES, max_body)

    def pump(self) -> None:
        """Hand over what there is room for."""
        flow, body = self._flow, self._body
        while not flow.over and not flow.finishing and flow.room:
            piece = body[self._at : self._at + self._piece]
            self._at += len(piece)
            if piece:
                flow.send(piece)
            if self._at >= len(body):
                flow.finish()
                self._body = b""


class Gather:
    """A large body on its way in. Allocates what has come, never what was announced.

    Attributes:
        have: Bytes that came.
    """

    def __init__(self, flow: TunnelFlow, total: int) -> None:
        self._flow = flow
        self._total = total
        self._pieces: list[bytes] = []
        self.have = 0

    def pump(self) -> None:
        """Take what came; what is above the total is not kept."""
        while (piece := self._flow.receive()) is not None:
            self.have += len(piece)
            if self.have <= self._total:
                self._pieces.append(piece)

    @property
    def wrong(self) -> str:
        """What does not add up, if anything: too much came, or the end came too early."""
        if self.have > self._total or (self._flow.clean and self.have < self._total):
            return f"{self.have} bytes came of a body of {self._total}"
        return ""

    @property
    def whole(self) -> bool:
        """Everything has come, and nothing more will."""
        return self._flow.clean and self.have == self._total

    def take(self) -> bytes:
        """The body; the pieces are gone."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class Arrival:
    """A request whose body is still on its way to a member: delivered when it is whole, and not otherwise.

    Args:
        delivery: The request, its body aside.
        flow: What the body comes over.
        total: Its length.
        arrived: Called with the delivery once it is whole.
        lost: Called with it if it never will be.
    """

    def __init__(
        self,
        delivery: Delivery,
        flow: TunnelFlow,
        total: int,
        arrived: Callable[[Delivery], None],
        lost: Callable[[Delivery], None],
    ) -> None:
        self._delivery = delivery
        self._flow = flow
        self._gather = Gather(flow, total)
        self._arrived = arrived
        self._lost = lost
        delivery.on_cancel = self._cancelled
        flow.on_change = self._changed
        flow.accept()

    def _changed(self) -> None:
        gather, delivery = self._gather, self._delivery
        if self._flow.broken is not None:
            gather.take()
            self._flow.on_change = _nothing
            delivery.on_cancel = None
            self._lost(delivery)
            return  # nobody is there to be told
        gather.pump()
        if gather.wrong:
            self._fail(Code.INVALID, gather.wrong)
        elif gather.whole:
            self._flow.on_change = _nothing
            delivery.on_cancel = None
            delivery.body = gather.take()
            self._arrived(delivery)

    def _cancelled(self, late: bool) -> None:
        if late:
            self._fail(Code.DEADLINE_EXCEEDED, "its deadline passed before its body had come")
        else:
            self._fail(Code.CANCELLED, "its caller gave up before its body had come")

    def _fail(self, code: Code, detail: str) -> None:
        self._flow.on_change = _nothing
        self._gather.take()
        self._delivery.fail(code, EXECUTED_NO, detail)
        self._lost(self._delivery)


def _nothing() -> None:
    """Nobody looks at the flow any more."""
