"""nng: no server, ``pynng`` on both sides, over a Unix socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

from bench.process import JSON
from bench.systems.base import PUBSUB, REQUEST, Client, Found, System, packages

BUFFERED = 8_192


class Nng(System):
    """PUB and SUB drop what does not fit a buffer, so the publisher keeps a window; REQ and REP with contexts."""

    name = "nng"
    label = "nng"
    flow = "a window: PUB and SUB drop what exceeds their buffers"
    window = True
    can = frozenset({PUBSUB, REQUEST})

    def installed(self) -> Found:
        return packages("pynng")

    def client(self, address: JSON, endpoints: list[str]) -> Client:
        return NngClient(address["folder"], endpoints)


class NngClient(Client):
    """Blocking sockets; with several requests in flight, REQ contexts under asyncio, as its documentation has it."""

    asynchronous = False
    body = bytes  # it is its own

    def __init__(self, folder: str, endpoints: list[str]) -> None:
        import pynng

        self._pynng = pynng
        self._folder = folder
        self._endpoints = endpoints
        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()

    def _path(self, number: int) -> str:
        return f"ipc://{self._folder}/nng-{os.getpid()}-{number}"

    def publisher(self, subscribers: int) -> None:
        self._reports = self._pynng.Pull0(recv_buffer_size=BUFFERED)
        self._socket = self._pynng.Pub0(send_buffer_size=BUFFERED)
        for endpoint in self._endpoints:
            self._socket.dial(endpoint, block=True)
            self._reports.dial(f"{endpoint}-reports", block=True)
        self.publish = self._socket.send  # type: ignore[method-assign]

    def flush(self) -> None:
        """Its own threads send; there is nothing to wait for."""

    def heard(self) -> bytes:
        return self._reports.recv()

    def subscriber(self, number: int) -> str:
        endpoint = self._path(number)
        self._socket = self._pynng.Sub0(topics=b"", recv_buffer_size=BUFFERED, listen=endpoint)
        self._reports = self._pynng.Push0(listen=f"{endpoint}-reports")
        return endpoint

    def messages(self) -> Iterator[bytes]:
        return iter(self._socket.recv, None)

    def report(self, report: bytes) -> None:
        self._reports.send(report)

    def responder(self) -> str:
        endpoint = self._path(0)
        self._socket = self._pynng.Rep0(listen=endpoint)
        return endpoint

    def respond(self) -> None:
        receive, send = self._socket.recv, self._socket.send
        while True:
            send(receive())

    def requester(self, in_flight: int) -> None:
        self._socket = self._pynng.Req0()
        self._socket.dial(self._endpoints[0], block=True)
        if in_flight > 1:
            self.asynchronous = True
            for _ in range(in_flight):
                self._free.put_nowait(self._socket.new_context())

    def request(self, body: bytes) -> Any:
        if self.asynchronous:
            return self._request(body)
        self._socket.send(body)
        return self._socket.recv()

    async def _request(self, body: bytes) -> bytes:
        context = await self._free.get()
        try:
            await context.asend(body)
            return await context.arecv()
        finally:
            self._free.put_nowait(context)
