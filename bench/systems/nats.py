"""NATS: ``nats-server`` between the two, ``nats-py`` on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

from bench.process import JSON, free_port, server
from bench.systems.base import CLUSTER, REPORTS, TOPIC, Client, Found, System, both, program


class Nats(System):
    """A server drops what a slow subscriber has not read, so the publisher keeps a window."""

    name = "nats"
    label = "NATS"
    flow = "a window: the server drops what a slow subscriber leaves unread"
    window = True

    def installed(self) -> Found:
        return both(program("nats-server", "--version"), "nats-server", "nats-py")

    @asynccontextmanager
    async def serve(self, folder: Path) -> AsyncIterator[JSON]:
        port = free_port()
        command = [program("nats-server") or "", "-a", "127.0.0.1", "-p", str(port)]
        async with server(command, port, folder / "nats-server.log") as pid:
            yield {"url": f"nats://127.0.0.1:{port}", "pids": [pid]}

    def client(self, address: JSON, endpoints: list[str]) -> Client:
        return NatsClient(address["url"])


class NatsClient(Client):
    """``nats-py``: publish fills the client's buffer, which goes out at 2 MiB or when the loop has time.

    Subscribers use a callback: several times as fast as its iterator, which makes two tasks a message.
    """

    handles = True

    body = attrgetter("data")

    def __init__(self, url: str) -> None:
        self._url = url
        self._nats: Any = None

    async def _connect(self) -> Any:
        import nats

        self._nats = await nats.connect(self._url)
        return self._nats

    async def publisher(self, subscribers: int) -> None:
        connected = await self._connect()
        self._reports = await connected.subscribe(REPORTS)
        await connected.flush()

    async def publish(self, body: bytes) -> None:
        await self._nats.publish(TOPIC, body)

    async def flush(self) -> None:
        await self._nats.flush(timeout=120)

    async def heard(self) -> bytes:
        return (await self._reports.next_msg(timeout=120)).data

    async def subscriber(self, number: int) -> str:
        await self._connect()
        return ""

    async def deliver(self, handler: Callable[[Any], Awaitable[None]]) -> None:
        await self._nats.subscribe(TOPIC, cb=handler)
        await self._nats.flush()

    async def report(self, report: bytes) -> None:
        await self._nats.publish(REPORTS, report)

    async def responder(self) -> str:
        connected = await self._connect()

        async def echo(message: Any) -> None:
            await message.respond(message.data)

        await connected.subscribe(CLUSTER, cb=echo)
        await connected.flush()
        return ""

    async def respond(self) -> None:
        await asyncio.Event().wait()

    async def requester(self, in_flight: int) -> None:
        await self._connect()

    async def request(self, body: bytes) -> bytes:
        return (await self._nats.request(CLUSTER, body, timeout=60)).data
