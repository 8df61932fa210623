"""RabbitMQ: ``rabbitmq-server`` between the two, ``pika`` on both sides."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from bench.process import JSON, free_port, server
from bench.systems.base import CLUSTER, REPORTS, TOPIC, Client, Found, System, both

INSTALLED = Path("/usr/lib/rabbitmq/lib")
EXCHANGE = "amq.topic"
REPLY_TO = "amq.rabbitmq.reply-to"


def script() -> Path | None:
    """The server's own script: the one in the path would become another user."""
    return next(iter(sorted(INSTALLED.glob("rabbitmq_server-*/sbin/rabbitmq-server"))), None)


class RabbitMq(System):
    """Transient messages, no confirms, automatic acknowledgement: as little as it can promise, as fast as it goes."""

    name = "rabbitmq"
    label = "RabbitMQ"
    flow = "a window: its queues would grow without end"
    window = True

    def installed(self) -> Found:
        found = script()
        version = found.parent.parent.name.replace("rabbitmq_server-", "rabbitmq-server ") if found else None
        return both(version, "rabbitmq-server", "pika")

    @asynccontextmanager
    async def serve(self, folder: Path) -> AsyncIterator[JSON]:
        port, names, distribution = free_port(), free_port(), free_port()
        environment = {
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        }
        epmd = [shutil.which("epmd") or "epmd", "-port", str(names), "-address", "127.0.0.1"]
        async with (
            server(epmd, names, folder / "epmd.log"),  # else the server leaves one behind
            server([script() or ""], port, folder / "rabbitmq-server.log", environment, folder) as pid,
        ):
            yield {"port": port, "pids": [pid]}

    def client(self, address: JSON, endpoints: list[str]) -> Client:
        return RabbitClient(address["port"])


class RabbitClient(Client):
    """``pika``'s blocking connection. Requests use direct reply-to."""

    asynchronous = False
    body = itemgetter(2)  # of (method, properties, body)

    def __init__(self, port: int) -> None:
        self._port = port

    def _connect(self) -> Any:
        import pika

        self._pika = pika
        where = pika.ConnectionParameters("127.0.0.1", self._port, heartbeat=0)
        self._channel = pika.BlockingConnection(where).channel()
        return self._channel

    def _listen(self, topic: str) -> Iterator[Any]:
        channel = self._connect()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, EXCHANGE, topic)
        return channel.consume(queue, auto_ack=True)

    def publisher(self, subscribers: int) -> None:
        self._reports = self._listen(REPORTS)

    def publish(self, body: bytes) -> None:
        self._channel.basic_publish(EXCHANGE, TOPIC, body)

    def flush(self) -> None:
        """What was published is in the socket."""

    def heard(self) -> bytes:
        return next(self._reports)[2]

    def subscriber(self, number: int) -> str:
        self._messages = self._listen(TOPIC)
        return ""

    def messages(self) -> Iterator[Any]:
        return self._messages

    def report(self, report: bytes) -> None:
        self._channel.basic_publish(EXCHANGE, REPORTS, report)

    def responder(self) -> str:
        self._connect().queue_declare(CLUSTER, auto_delete=True)
        return ""

    def respond(self) -> None:
        for _, properties, body in self._channel.consume(CLUSTER, auto_ack=True):
            self._channel.basic_publish("", properties.reply_to, body)

    def requester(self, in_flight: int) -> None:
        self._answers = self._connect().consume(REPLY_TO, auto_ack=True)
        next(self._channel.consume(REPLY_TO, auto_ack=True, inactivity_timeout=0.01), None)
        self._asking = self._pika.BasicProperties(reply_to=REPLY_TO)

    def request(self, body: bytes) -> bytes:
        self.ask(body)
        return self.answer()

    def ask(self, body: bytes) -> None:
        self._channel.basic_publish("", CLUSTER, body, self._asking)

    def answer(self) -> bytes:
        return next(self._answers)[2]
