"""ZeroMQ: no server, ``pyzmq`` on both sides, over a Unix socket (``ipc``) or TCP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from bench.process import JSON
from bench.systems.base import Client, Found, System, packages

ASKING_MARK = 8_192


class ZeroMq(System):
    """Blocking sockets: XPUB that waits at its high water mark instead of dropping, and SUB; DEALER and ROUTER.

    Args:
        transport: ``ipc`` or ``tcp``.
    """

    flow = "its own: XPUB_NODROP, so the publisher waits at the high water mark, the default of 1,000"

    def __init__(self, transport: str) -> None:
        self._transport = transport
        self.name = f"zeromq-{transport}"
        self.label = f"ZeroMQ, {transport}"

    def installed(self) -> Found:
        found = packages("pyzmq")
        if found.version is None:
            return found
        import zmq

        return Found(f"libzmq {zmq.zmq_version()}, {found.version}")

    def client(self, address: JSON, endpoints: list[str]) -> Client:
        return ZeroMqClient(self._transport, address["folder"], endpoints)


class ZeroMqClient(Client):
    """``pyzmq``'s blocking API, the fastest it has."""

    asynchronous = False
    body = bytes  # it is its own

    def __init__(self, transport: str, folder: str, endpoints: list[str]) -> None:
        import zmq

        self._zmq: Any = zmq
        self._context = zmq.Context()
        self._transport = transport
        self._folder = folder
        self._endpoints = endpoints

    def _listen(self, kind: int, number: int) -> tuple[Any, str]:
        listening = self._context.socket(kind)
        self._raise_mark(listening, kind)
        if self._transport == "ipc":
            listening.bind(f"ipc://{self._folder}/zmq-{os.getpid()}-{number}")
        else:
            listening.bind("tcp://127.0.0.1:*")
        return listening, listening.getsockopt_string(self._zmq.LAST_ENDPOINT)

    def _dial(self, kind: int, **options: int) -> Any:
        dialing = self._context.socket(kind)
        self._raise_mark(dialing, kind)
        for name, value in options.items():
            dialing.setsockopt(getattr(self._zmq, name), value)
        for endpoint in self._endpoints:
            dialing.connect(endpoint)
        return dialing

    def _raise_mark(self, made: Any, kind: int) -> None:
        """A ROUTER drops at its mark, which it may take for reached at half of it: more than is ever in flight."""
        if kind in (self._zmq.ROUTER, self._zmq.DEALER):
            made.set_hwm(ASKING_MARK)

    def publisher(self, subscribers: int) -> None:
        self._socket = self._dial(self._zmq.XPUB, XPUB_NODROP=1)
        self.publish = self._socket.send  # type: ignore[method-assign]

    def flush(self) -> None:
        """Its own thread sends; there is nothing to wait for."""

    def subscriber(self, number: int) -> str:
        self._socket, endpoint = self._listen(self._zmq.SUB, number)
        self._socket.setsockopt(self._zmq.SUBSCRIBE, b"")
        return endpoint

    def messages(self) -> Iterator[bytes]:
        return iter(self._socket.recv, None)

    def responder(self) -> str:
        self._socket, endpoint = self._listen(self._zmq.ROUTER, 0)
        return endpoint

    def respond(self) -> None:
        receive, send = self._socket.recv_multipart, self._socket.send_multipart
        while True:
            send(receive())

    def requester(self, in_flight: int) -> None:
        self._socket = self._dial(self._zmq.DEALER)

    def request(self, body: bytes) -> bytes:
        self._socket.send(body)
        return self._socket.recv()

    def ask(self, body: bytes) -> None:
        self._socket.send(body)

    def answer(self) -> bytes:
        return self._socket.recv()
