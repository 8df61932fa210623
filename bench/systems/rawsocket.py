"""A Unix socket and nothing else: what the machine and Python allow when two processes only copy bytes.

No names, no topics, no third process, one peer. Messages are length-prefixed and written in batches of 64 KiB: a
real library cannot do less.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from bench.process import JSON
from bench.systems.base import PUBSUB, REQUEST, TUNNEL, Client, Found, System

LENGTH = struct.Struct("<I")
BATCH = 64 * 1024
READ = 256 * 1024
BUFFER = 1024 * 1024
ROOM = 64 * 1024
"""Bytes of requests that may be under way."""


class RawSocket(System):
    """The physical limit."""

    name = "socket"
    label = "raw Unix socket"
    flow = "its own: a full socket blocks"
    can = frozenset({PUBSUB, REQUEST, TUNNEL})

    def installed(self) -> Found:
        return Found(f"Linux {os.uname().release}")

    def client(self, address: JSON, endpoints: list[str]) -> Client:
        return SocketClient(address["folder"], endpoints)


class SocketClient(Client):
    """``socket.sendall`` and ``recv``; a message is handed over one by one all the same."""

    asynchronous = False
    body = bytes  # it is its own

    def __init__(self, folder: str, endpoints: list[str]) -> None:
        self._folder = folder
        self._endpoints = endpoints
        self._pending: list[bytes] = []
        self._waiting = 0
        self._received = b""
        self._asked = 0
        self._kept: list[bytes] = []

    def publisher(self, subscribers: int) -> None:
        self._sockets = []
        for endpoint in self._endpoints:
            dialed = socket.socket(socket.AF_UNIX)
            dialed.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            dialed.connect(endpoint)
            self._sockets.append(dialed)

    def publish(self, body: bytes) -> None:
        self._pending += (LENGTH.pack(len(body)), body)
        self._waiting += len(body) + LENGTH.size
        if self._waiting >= BATCH:
            self.flush()

    def flush(self) -> None:
        if not self._pending:
            return
        batch = b"".join(self._pending)
        for one in self._sockets:
            one.sendall(batch)
        self._pending.clear()
        self._waiting = 0

    def pause(self) -> None:
        self.flush()

    def subscriber(self, number: int) -> str:
        endpoint = f"{self._folder}/raw-{os.getpid()}-{number}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(endpoint)
        self._listener.listen()
        return endpoint

    def messages(self) -> Iterator[bytes]:
        connected, _ = self._listener.accept()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        rest = b""
        while data := connected.recv(READ):
            data = rest + data if rest else data
            at, end = 0, len(data)
            while end - at >= LENGTH.size:
                after = at + LENGTH.size + LENGTH.unpack_from(data, at)[0]
                if after > end:
                    break
                yield data[at + LENGTH.size : after]
                at = after
            rest = data[at:]

    def responder(self) -> str:
        return self.subscriber(0)

    def respond(self) -> None:
        """Bytes go back as they came; a stream begins with its length, and only that goes back."""
        while True:
            connected, _ = self._listener.accept()
            if connected.recv(1) == b"e":
                while data := connected.recv(READ):
                    connected.sendall(data)
            else:
                self._swallow(connected)
            connected.close()

    @staticmethod
    def _swallow(connected: socket.socket) -> None:
        view = memoryview(bytearray(READ))
        total = 0
        while size := connected.recv_into(view):
            total += size
        connected.sendall(str(total).encode())

    def requester(self, in_flight: int) -> None:
        """Connect when it is known for what."""

    def _echo(self) -> socket.socket:
        if not hasattr(self, "_socket"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(self._endpoints[0])
            self._socket.sendall(b"e")
        return self._socket

    def request(self, body: bytes) -> bytes:
        echo = self._echo()
        echo.sendall(body)
        return self._exactly(echo, len(body))

    def ask(self, body: bytes) -> None:
        """Send it, or keep it until an answer has made room: two full sockets would wait for each other."""
        self._size = len(body)
        if self._asked < max(1, ROOM // len(body)):
            self._asked += 1
            self._echo().sendall(body)
        else:
            self._kept.append(body)

    def answer(self) -> bytes:
        body = self._exactly(self._socket, self._size)
        self._asked -= 1
        if self._kept:
            self.ask(self._kept.pop())
        return body

    def _exactly(self, connected: socket.socket, size: int) -> bytes:
        while len(self._received) < size:
            data = connected.recv(READ)
            if not data:
                raise ConnectionError("the responder is gone")
            self._received += data
        body, self._received = self._received[:size], self._received[size:]
        return body

    def tunnel(self, chunk: bytes, chunks: int) -> int:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            stream.connect(self._endpoints[0])
            stream.sendall(b"s")
            for _ in range(chunks):
                stream.sendall(chunk)
            stream.shutdown(socket.SHUT_WR)
            return int(stream.recv(32))
