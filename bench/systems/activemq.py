"""ActiveMQ: a broker between the two, ``stomp.py`` on both sides."""

from __future__ import annotations

import queue
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.process import JSON, free_port, server
from bench.systems.base import CLUSTER, REPORTS, TOPIC, Client, Found, System, both

HOME = Path("/usr/share/activemq")
JAR = HOME / "bin" / "activemq.jar"
JARS = Path("/usr/share/java")
CONFIG = """<?xml version="1.0" encoding="UTF-8"?>
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans
  http://www.springframework.org/schema/beans/spring-beans-2.0.xsd
  http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="bench" useJmx="false" persistent="false"
    schedulerSupport="false" dataDirectory="{folder}/data">
    <transportConnectors><transportConnector name="stomp" uri="stomp://127.0.0.1:{port}"/></transportConnectors>
  </broker>
</beans>
"""


class ActiveMq(System):
    """Without persistence, automatic acknowledgement; topics for events, a queue and a temporary one for requests."""

    name = "activemq"
    label = "ActiveMQ"
    flow = "a window, beside the broker's own limits"
    window = True

    def installed(self) -> Found:
        if not JAR.exists() or shutil.which("java") is None:
            return both(None, "activemq default-jre-headless", "stomp.py")
        jars = sorted(JARS.glob("activemq-broker-*.jar"))
        version = jars[-1].stem.replace("activemq-broker-", "activemq ") if jars else "activemq"
        return both(version, "activemq", "stomp.py")

    @asynccontextmanager
    async def serve(self, folder: Path) -> AsyncIterator[JSON]:
        port, config = free_port(), folder / "activemq.xml"
        config.write_text(CONFIG.format(folder=folder, port=port))
        places = [f"-Dactivemq.home={HOME}", f"-Dactivemq.base={folder}", f"-Dactivemq.conf={folder}"]
        command: list[str | Path] = [
            "java",
            "-Xms512M",
            "-Xmx512M",
            *places,
            f"-Dactivemq.data={folder}/data",
            "-jar",
            JAR,
        ]
        command += ["start", f"xbean:file:{config}"]
        async with server(command, port, folder / "activemq.log") as pid:
            yield {"port": port, "pids": [pid]}

    def client(self, address: JSON, endpoints: list[str]) -> Client:
        return ActiveClient(address["port"])


class ActiveClient(Client):
    """``stomp.py``: sends from the caller's thread; what arrives in its listener's goes through a queue."""

    asynchronous = False

    def __init__(self, port: int) -> None:
        self._port = port
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def _connect(self) -> Any:
        import stomp

        arrived = self._arrived

        class Listener(stomp.ConnectionListener):  # type: ignore[misc]
            def on_message(self, frame: Any) -> None:
                arrived.put(frame)

        self._stomp = stomp.Connection12([("127.0.0.1", self._port)], auto_decode=False)
        self._stomp.set_listener("", Listener())
        self._stomp.connect(wait=True)
        return self._stomp

    @staticmethod
    def body(message: Any) -> bytes:
        return message.body

    def publisher(self, subscribers: int) -> None:
        self._connect().subscribe(f"/topic/{REPORTS}", id="1", ack="auto")

    def publish(self, body: bytes) -> None:
        self._stomp.send(f"/topic/{TOPIC}", body)

    def flush(self) -> None:
        """What was published is in the socket."""

    def heard(self) -> bytes:
        return self._arrived.get(timeout=120).body

    def subscriber(self, number: int) -> str:
        self._connect().subscribe(f"/topic/{TOPIC}", id="1", ack="auto")
        return ""

    def messages(self) -> Iterator[Any]:
        return iter(self._arrived.get, None)

    def report(self, report: bytes) -> None:
        self._stomp.send(f"/topic/{REPORTS}", report)

    def responder(self) -> str:
        self._connect().subscribe(f"/queue/{CLUSTER}", id="1", ack="auto")
        return ""

    def respond(self) -> None:
        while True:
            asked = self._arrived.get()
            self._stomp.send(asked.headers["reply-to"], asked.body)

    def requester(self, in_flight: int) -> None:
        self._connect().subscribe("/temp-queue/answers", id="1", ack="auto")

    def request(self, body: bytes) -> bytes:
        self.ask(body)
        return self.answer()

    def ask(self, body: bytes) -> None:
        self._stomp.send(f"/queue/{CLUSTER}", body, headers={"reply-to": "/temp-queue/answers"})

    def answer(self) -> bytes:
        return self._arrived.get(timeout=60).body
