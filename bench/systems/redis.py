"""Redis: ``redis-server`` between the two, ``redis`` (redis-py, with hiredis) on both sides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from bench.process import JSON, free_port, server
from bench.systems.base import CLUSTER, REPORTS, TOPIC, Client, Found, System, both, program

ANSWERS = "bench.answers"
PIPELINED = 256
"""Publishes that share a round trip."""


class Redis(System):
    """PUBLISH is a round trip of its own in the plain client; in a pipeline, many share one.

    Args:
        pipeline: Publish through a pipeline.
    """

    flow = "a window: the server disconnects a subscriber that leaves too much unread"
    window = True

    def __init__(self, pipeline: bool) -> None:
        self._pipeline = pipeline
        self.name = "redis-pipeline" if pipeline else "redis"
        self.label = "Redis, pipeline" if pipeline else "Redis"

    def installed(self) -> Found:
        said = program("redis-server", "--version")
        version = said.split(" sha")[0].replace("Redis server v=", "redis-server ") if said else None
        return both(version, "redis-server", "redis", "hiredis")

    @asynccontextmanager
    async def serve(self, folder: Path) -> AsyncIterator[JSON]:
        port, path = free_port(), folder / "redis.sock"
        command: list[str | Path] = [
            program("redis-server") or "",
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--dir",
            folder,
        ]
        command += ["--unixsocket", path, "--save", "", "--appendonly", "no"]
        command += ["--client-output-buffer-limit", "pubsub 256mb 256mb 0"]
        async with server(command, port, folder / "redis-server.log") as pid:
            yield {"path": str(path), "pids": [pid]}

    def client(self, address: JSON, endpoints: list[str]) -> Client:
        return RedisClient(address["path"], self._pipeline)


class RedisClient(Client):
    """redis-py, blocking, over the Unix socket. Requests are lists: RPUSH to ask, BLPOP to take, as its users do."""

    asynchronous = False
    body = itemgetter("data")

    def __init__(self, path: str, pipeline: bool) -> None:
        self._path = path
        self._pipelined = pipeline
        self._waiting = 0

    def _connect(self) -> Any:
        import redis

        self._redis = redis.Redis(unix_socket_path=self._path)
        return self._redis

    def _listen(self, topic: str) -> Iterator[Any]:
        listening = self._connect().pubsub(ignore_subscribe_messages=True)
        listening.subscribe(topic)
        listening.get_message(timeout=5.0)  # the confirmation
        return listening.listen()

    def publisher(self, subscribers: int) -> None:
        self._reports = self._listen(REPORTS)
        self._pipeline = self._redis.pipeline(transaction=False)

    def publish(self, body: bytes) -> None:
        if not self._pipelined:
            self._redis.publish(TOPIC, body)
            return
        self._pipeline.publish(TOPIC, body)
        self._waiting += 1
        if self._waiting == PIPELINED:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self._pipeline.execute()
            self._waiting = 0

    def pause(self) -> None:
        self.flush()

    def heard(self) -> bytes:
        self.flush()
        return next(self._reports)["data"]

    def subscriber(self, number: int) -> str:
        self._messages = self._listen(TOPIC)
        return ""

    def messages(self) -> Iterator[Any]:
        return self._messages

    def report(self, report: bytes) -> None:
        self._redis.publish(REPORTS, report)

    def responder(self) -> str:
        self._connect()
        return ""

    def respond(self) -> None:
        while True:
            _, body = self._redis.blpop([CLUSTER])
            self._redis.rpush(ANSWERS, body)

    def requester(self, in_flight: int) -> None:
        self._connect()

    def request(self, body: bytes) -> bytes:
        self.ask(body)
        return self.answer()

    def ask(self, body: bytes) -> None:
        self._redis.rpush(CLUSTER, body)

    def answer(self) -> bytes:
        return self._redis.blpop([ANSWERS])[1]
