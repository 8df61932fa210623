"""Publish and subscribe: every subscriber of a topic gets every event, in order, and hears of losses.

    irisd                                  # a development daemon
    python examples/pubsub.py listen       # as often as you like: subscribers
    python examples/pubsub.py              # publishes

Each command in a terminal of its own.
"""

from __future__ import annotations

import asyncio
import sys

import iris_client as iris


async def listen() -> None:
    async with iris.connect() as mesh, mesh.subscribe("readings.*", when_full="drop_oldest") as events:
        print("listening", flush=True)
        async for event in events:
            if event.topic == "readings.end":
                break
            if event.lost != 0:
                print(f"lost before this one: {'nobody knows' if event.lost is None else event.lost}", flush=True)
            print(f"{event.topic}: {event.body.decode()}", flush=True)


async def publish() -> None:
    async with iris.connect() as mesh:
        for number in range(5):
            await mesh.publish("readings.kitchen", f"{20 + number / 10} °C".encode())
        await mesh.publish_many("readings.cellar", [b"11.0", b"11.1"])
        await mesh.publish("readings.end", b"")
        await mesh.flush()  # everything above has been routed; raises with a number if some of it was lost
        print("published")


if __name__ == "__main__":
    asyncio.run(listen() if sys.argv[1:] == ["listen"] else publish())
