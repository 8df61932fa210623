"""Zenoh: no router, ``eclipse-zenoh`` on both sides, peer to peer over TCP or a Unix socket. Scouting is off."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from typing import Any

from bench.process import JSON, free_port
from bench.systems.base import Client, Found, System, packages

KEY = "bench/data"
ASK = "bench/ask"


class Zenoh(System):
    """Peers that know each other's endpoint.

    Args:
        transport: ``tcp`` or ``unix``.
    """

    flow = "its own: congestion control BLOCK, and a bounded channel at the subscriber"

    def __init__(self, transport: str) -> None:
        self._transport = transport
        self.name = f"zenoh-{transport}"
        self.label = f"Zenoh, {transport}"

    def installed(self) -> Found:
        return packages("eclipse-zenoh")

    def client(self, address: JSON, endpoints: list[str]) -> Client:
        return ZenohClient(self._transport, address["folder"], endpoints)


class ZenohClient(Client):
    """The blocking API; what arrives is read from the channel that ``declare_subscriber`` makes by default."""

    asynchronous = False

    def __init__(self, transport: str, folder: str, endpoints: list[str]) -> None:
        import zenoh

        self._zenoh = zenoh
        self._transport = transport
        self._folder = folder
        self._endpoints = endpoints
        self._asked: deque[Any] = deque()

    def _open(self, listen: str = "") -> Any:
        config = self._zenoh.Config()
        config.insert_json5("mode", '"peer"')
        config.insert_json5("scouting/multicast/enabled", "false")
        config.insert_json5("scouting/gossip/enabled", "false")
        config.insert_json5("listen/endpoints", json.dumps([listen] if listen else []))
        config.insert_json5("connect/endpoints", json.dumps(self._endpoints))
        self._session = self._zenoh.open(config)
        return self._session

    def _listen(self, number: int) -> str:
        if self._transport == "tcp":
            endpoint = f"tcp/127.0.0.1:{free_port()}"
        else:
            endpoint = f"unixsock-stream/{self._folder}/zenoh-{os.getpid()}-{number}"
        self._open(endpoint)
        return endpoint

    @staticmethod
    def body(message: Any) -> bytes:
        return message.payload.to_bytes()

    def publisher(self, subscribers: int) -> None:
        zenoh = self._zenoh
        self._publisher = self._open().declare_publisher(
            KEY, congestion_control=zenoh.CongestionControl.BLOCK, reliability=zenoh.Reliability.RELIABLE
        )
        self.publish = self._publisher.put  # type: ignore[method-assign]

    def flush(self) -> None:
        """Its own threads send; there is nothing to wait for."""

    def subscriber(self, number: int) -> str:
        endpoint = self._listen(number)
        self._subscriber = self._session.declare_subscriber(KEY)
        return endpoint

    def messages(self) -> Iterator[Any]:
        return iter(self._subscriber)

    def responder(self) -> str:
        endpoint = self._listen(0)
        self._queryable = self._session.declare_queryable(ASK)
        return endpoint

    def respond(self) -> None:
        for query in self._queryable:
            with query:
                query.reply(ASK, query.payload.to_bytes())

    def requester(self, in_flight: int) -> None:
        self._querier = self._open().declare_querier(ASK)

    def request(self, body: bytes) -> bytes:
        for reply in self._querier.get(payload=body):
            return reply.ok.payload.to_bytes()
        raise RuntimeError("nobody answered")

    def ask(self, body: bytes) -> None:
        self._asked.append(self._querier.get(payload=body))

    def answer(self) -> bytes:
        return next(iter(self._asked.popleft())).ok.payload.to_bytes()
