"""The call that opens a tunnel (pure), and what both ends do with a tunnel's frames."""

from __future__ import annotations

import math

from iris_client._calls import Call, Promise
from iris_client._errors import IrisError, TunnelBroken
from iris_client._frames import Header, Kind, ProtocolError
from iris_client._model import Executed
from iris_client._tunnelflow import TunnelFlow


class TunnelCall(Call):
    """A tunnel this app opens; accepted by the first CREDIT. The promise gets None."""

    __slots__ = ("promise",)

    def __init__(self, header: Header, body: bytes, deadline: float, what: str, promise: Promise) -> None:
        super().__init__(header, body, deadline, what)
        self.promise = promise

    def on_frame(self, kind: int, header: Header, body: bytes) -> None:
        flow = self.flow
        assert flow is not None
        if kind == Kind.ERROR:
            self.fail(self.error(header, body))
            return
        if not self.promise.done():
            if kind != Kind.CREDIT:
                raise ProtocolError(f"frame kind {kind} for {self.what} before its member accepted it")
            self.deadline = math.inf  # it was for the set-up only
            self.promise.set_result(None)
            flow.accept()
        tunnel_frame(flow, kind, header, body)

    def dropped(self) -> None:
        if self.flow is not None:
            self.flow.fail(broken(self.what, "cancelled"))

    def fail(self, error: IrisError) -> None:
        self.over = True
        if not self.promise.done():
            self.promise.set_exception(error)
        if self.flow is not None:
            self.flow.fail(broken(self.what, error))


def broken(what: str, cause: IrisError | str) -> TunnelBroken:
    """An established tunnel ended with ``cause``: at both ends that is one kind of error."""
    if isinstance(cause, TunnelBroken):
        return cause
    said = str(cause.args[0]) if isinstance(cause, IrisError) and cause.args else str(cause)
    return TunnelBroken(said if said.startswith(f"{what}: ") else f"{what}: {said}", executed=Executed.YES)


def tunnel_frame(flow: TunnelFlow, kind: int, header: Header, body: bytes) -> None:
    """Give a flow a frame that both ends of a tunnel may get.

    Raises:
        ProtocolError: It is no frame of a tunnel.
    """
    if kind == Kind.DATA:
        flow.on_data(header, body)
    elif kind == Kind.FINISH:
        flow.on_finish()
    elif kind == Kind.CREDIT:
        flow.on_credit(header.count, header.max_bytes)
    else:
        raise ProtocolError(f"unexpected frame kind {kind} in a tunnel")
