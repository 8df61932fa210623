"""All tunnels of a session (pure): whose each one is, what they may hold together, and how their frames leave."""

from __future__ import annotations

from collections.abc import Callable

from iris_client._calls import Call
from iris_client._deliveries import Delivery
from iris_client._errors import IrisError
from iris_client._frames import Header
from iris_client._large import Reserve
from iris_client._model import DATA_BYTES
from iris_client._outbox import Out, Outbox
from iris_client._tunnelflow import Budget, TunnelFlow

Owner = Call | Delivery


class Flows:
    """The flows that are open.

    Args:
        outbox: Where their frames go.
        reserve: What large bodies may hold.
        ended: Called with the owner of a flow that is over.

    Attributes:
        max_body: Most bytes one message may have.
    """

    def __init__(self, outbox: Outbox, reserve: Reserve, max_body: int, ended: Callable[[Owner], None]) -> None:
        self._outbox = outbox
        self._reserve = reserve
        self._ended = ended
        self._budget = Budget()
        self._owners: dict[TunnelFlow, Owner] = {}
        self._holding: dict[TunnelFlow, int] = {}
        self.max_body = max_body

    def __len__(self) -> int:
        return len(self._owners)

    def open(self, owner: Owner, what: str, *, large: bool = False) -> TunnelFlow | None:
        """A new flow, with a window; None when all together already hold what they may.

        Args:
            owner: Whose.
            what: For error messages.
            large: It brings a large body, in pieces of whatever length its sender's daemon allows.
        """
        window = self._budget.first()
        return self._open(owner, what, window, max(self.max_body, DATA_BYTES * large)) if window else None

    def open_outgoing(self, owner: Owner, what: str) -> TunnelFlow:
        """A new flow that lets the other end send nothing, and so takes nothing."""
        return self._open(owner, what, 0, self.max_body)

    def hold(self, flow: TunnelFlow, size: int) -> bool:
        """Set bytes aside for a large body, until the flow is over; False when there are not so many left."""
        if not self._reserve.take(size):
            return False
        self._holding[flow] = self._holding.get(flow, 0) + size
        return True

    @property
    def most(self) -> int:
        """Bytes the longest of large bodies can have here."""
        return self._reserve.limit

    def lane_down(self, error: IrisError) -> None:
        """The stream is gone: what had yet to be sent for owners who are done is not."""
        for flow, owner in tuple(self._owners.items()):
            if owner.over:
                flow.fail(error)

    # ------------------------------------------------------------ for flows

    def push_for(self, flow: TunnelFlow, header: Header) -> None:
        """Send a small frame of a tunnel."""
        header.id = flow.id
        self._outbox.push(Out(header))

    def offer_flow(self, flow: TunnelFlow) -> None:
        self._outbox.offer(flow)

    def forget_flow(self, flow: TunnelFlow) -> None:
        self._reserve.give_back(self._holding.pop(flow, 0))
        owner = self._owners.pop(flow, None)
        if owner is not None:
            owner.over = True
            self._ended(owner)

    def _open(self, owner: Owner, what: str, window: int, max_body: int) -> TunnelFlow:
        owner.flow = flow = TunnelFlow(self, self._budget, window, max_body, what)
        flow.id = owner.id
        self._owners[flow] = owner
        return flow
