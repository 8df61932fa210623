"""Tunnels, as apps hold them: messages both ways with one member, in order, each end's reader setting the pace."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from iris_client._codecs import encode_body
from iris_client._deliveries import Delivery
from iris_client._errors import TunnelBroken
from iris_client._model import NO_HEADERS
from iris_client._tunnelflow import TunnelFlow

if TYPE_CHECKING:
    from iris_client._mesh import Mesh
    from iris_client._tunnelcall import TunnelCall


class Tunnel:
    """One tunnel. Made by :meth:`Mesh.tunnel`, or handed to an ``on_tunnel`` handler.

    Iterating gives whole messages until the other end has finished; if it broke, :class:`TunnelBroken` is raised, so
    an end of iteration always means that everything came. One task may send while another reads.

    Leaving ``async with`` normally finishes this end, waits until everything has been handed over, and discards what
    was not read. Leaving by an exception (or cancellation) breaks the tunnel, and the other end sees that.

    Attributes:
        body: At the member's end: what the opener sent along with opening.
        headers: At the member's end: the opener's headers.
        method: Which handler was asked for.
        peer: Who is at the other end, as far as the mesh told.
    """

    def __init__(
        self,
        *,
        mesh: Mesh | None = None,
        call: TunnelCall | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] = NO_HEADERS,
        method: str = "",
        peer: str = "",
    ) -> None:
        self.body = body
        self.headers = headers
        self.method = method
        self.peer = peer
        self._mesh = mesh
        self._call = call
        self._flow: TunnelFlow | None = None
        self._used = False
        self._changed = asyncio.Event()

    @classmethod
    def accepted(cls, delivery: Delivery, flow: TunnelFlow) -> Tunnel:
        """Make the member's end. For the SDK's own use."""
        request = delivery.request()
        tunnel = cls(body=request.body, headers=request.headers, method=request.method, peer=request.sender)
        tunnel._attach(flow)
        return tunnel

    @property
    def used(self) -> bool:
        """Whether this end has sent, received, or accepted: from then on the opener takes it as open."""
        return self._used

    async def __aenter__(self) -> Tunnel:
        """Open it.

        Raises:
            DeliveryError: As for a request; nobody accepted it.
        """
        mesh, call = self._mesh, self._call
        if mesh is None or call is None:
            raise RuntimeError("a handler's tunnel is open already: use it, do not enter it")
        if self._flow is not None:
            raise RuntimeError("a tunnel is entered once")
        self._attach(await mesh._open_tunnel(call))
        self._used = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        flow = self._flow
        assert flow is not None
        if error is not None:
            flow.abort(f"the opener left it by {type(error).__name__}")
            return
        flow.finish()
        flow.discard()
        try:
            while not flow.sent:
                if flow.broken is not None:
                    raise flow.broken
                await self._change()
        except asyncio.CancelledError:
            flow.abort("the opener was cancelled while finishing it")
            raise

    async def accept(self) -> None:
        """Take the tunnel, at the member's end. The first use does it too; until then ``Reject`` refuses cleanly."""
        self._open()

    async def send(self, body: Any) -> None:
        """Send one message; its boundaries are kept. Returns when a small local buffer holds it.

        Cancelling while it waits for room sends nothing; once it has returned the message will go, unless the tunnel
        breaks.

        Raises:
            TunnelBroken: The tunnel broke, or this end has finished it.
            TooLarge: The message is above the limit, which the error names.
            CodecError: It is not bytes.
        """
        data, _ = encode_body(body, None)
        flow = self._open()
        while not (flow.room or flow.broken is not None or flow.finishing):
            await self._change()
        self._check_sending(flow)
        flow.send(data)

    async def finish(self) -> None:
        """Send no more (half-close). The other end sees the end after everything that was sent; reading goes on.

        Raises:
            TunnelBroken: The tunnel broke.
        """
        flow = self._open()
        if flow.broken is not None:
            raise flow.broken
        flow.finish()

    async def receive(self) -> bytes | None:
        """Return the next message, or None when the other end has finished. Cancelling loses nothing.

        Raises:
            TunnelBroken: It broke: what came before that has been returned, the rest is lost.
        """
        flow = self._open()
        while True:
            message = flow.receive()
            if message is not None:
                return message
            if flow.broken is not None:
                raise flow.broken
            if flow.clean:
                return None
            if flow.over:
                raise TunnelBroken("the tunnel was left")
            await self._change()

    def abort(self, detail: str = "aborted by the app") -> None:
        """Break the tunnel at both ends, at once."""
        self._open().abort(detail)

    def __aiter__(self) -> Tunnel:
        return self

    async def __anext__(self) -> bytes:
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    def _attach(self, flow: TunnelFlow) -> None:
        self._flow = flow
        flow.on_change = self._changed.set

    def _open(self) -> TunnelFlow:
        flow = self._flow
        if flow is None:
            raise RuntimeError("the tunnel is not open yet: use `async with mesh.tunnel(...) as tunnel`")
        if not self._used:
            self._used = True
            flow.accept()
        return flow

    @staticmethod
    def _check_sending(flow: TunnelFlow) -> None:
        if flow.broken is not None:
            raise flow.broken
        if flow.finishing or flow.over:
            raise TunnelBroken("this end has finished the tunnel and can send no more")

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
