"""The loops every system runs: publish, receive, ask. One shape, with and without ``await``.

Clients of either kind are opened and closed the same way (:func:`settled`); only the innermost loops are there twice,
because a user of a blocking package writes no ``await`` and pays for none.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import struct
import threading
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from bench.pacing import Pacer
from bench.process import JSON
from bench.stats import Schedule, latencies, summary
from bench.systems.base import Client

WARM = b"\x00"
END = b"\x01"
CONTROL_BYTES = 1
"""A body that short is one of the two above, and counts for nothing."""

BURST = 1_024
TICK = 0.001
"""Seconds between the bursts of a paced publisher."""

STAMP = struct.Struct("<d")
REPORT = struct.Struct("<IQ")
WARM_REQUESTS = 200
WARM_TIMEOUT = 20.0

clock = time.perf_counter


async def settled(value: Any) -> Any:
    """The value, awaited where a client is asynchronous."""
    return await value if inspect.isawaitable(value) else value


# ------------------------------------------------------------------ publish


class Window:
    """How far a publisher may be ahead of its slowest subscriber, for systems without flow control.

    Args:
        messages: How many; 0: the system keeps the publisher back itself.
        subscribers: How many report.
    """

    def __init__(self, client: Client, messages: int, subscribers: int) -> None:
        self._client = client
        self._messages = messages
        self._told = dict.fromkeys(range(subscribers), 0)
        self._least = 0

    def room(self, sent: int) -> int:
        """How many may be published now."""
        return self._least + self._messages - sent if self._messages else BURST

    async def wait(self) -> None:
        """Wait for one report."""
        number, count = REPORT.unpack(await settled(self._client.heard()))
        self._told[number] = count
        self._least = min(self._told.values())


async def warm_up(client: Client, go: threading.Event) -> None:
    """Publish something now and then until everybody is known to receive it."""
    while not go.is_set():
        await settled(client.publish(WARM))
        await settled(client.flush())
        await asyncio.sleep(0.02)


async def publish(client: Client, spec: JSON, go: threading.Event, tell: Callable[..., None]) -> None:
    """The role ``publisher``: as fast as it goes, or at a rate."""
    await settled(client.publisher(spec["subscribers"]))
    tell(ready=[])
    await warm_up(client, go)
    window = Window(client, spec["window"], spec["subscribers"])
    body = os.urandom(spec["size"])
    if spec["stamped"]:  # chance makes numbers there that cannot be added up
        body = STAMP.pack(clock()) + body[STAMP.size :]
    began = clock()
    if spec.get("rate"):
        await _at_rate(client, window, spec["messages"], body, spec["rate"])
    else:
        await _at_once(client, window, spec["messages"], body)
    await settled(client.flush())
    seconds = clock() - began
    tell(figures={"sent/s": spec["messages"] / seconds, "began": began})
    with suppress(OSError):  # a bare socket's subscriber is gone, and that is the end of it
        while True:  # until the driver has heard of all subscribers: the word itself may be lost
            await settled(client.publish(END))
            await settled(client.flush())
            await asyncio.sleep(0.2)


async def _at_once(client: Client, window: Window, messages: int, body: bytes) -> None:
    sent = 0
    while sent < messages:
        burst = min(BURST, messages - sent, window.room(sent))
        if burst <= 0:
            await window.wait()
            continue
        await _burst(client, burst, body)
        sent += burst


async def _at_rate(client: Client, window: Window, messages: int, body: bytes, rate: float) -> None:
    """A burst every tick. All of a burst are due at its tick, which is the stamp they carry."""
    pacer = Pacer(spin=0.0)
    ticks = Schedule(clock() + TICK, 1 / TICK)
    tail = body[STAMP.size :]
    sent = number = 0
    while sent < messages:
        due = ticks.due(number)
        number += 1
        if client.asynchronous:
            await pacer.until(due)
        else:
            pacer.block_until(due)
        burst = min(messages, int(number * TICK * rate)) - sent
        stamped = STAMP.pack(due) + tail
        while burst > 0:
            allowed = min(burst, window.room(sent))
            if allowed <= 0:
                await window.wait()
                continue
            await _burst(client, allowed, stamped)
            burst -= allowed
            sent += allowed
        client.pause()
    pacer.close()


async def _burst(client: Client, burst: int, body: bytes) -> None:
    publish = client.publish
    if client.asynchronous:
        for _ in range(burst):
            await publish(body)
    else:
        for _ in range(burst):
            publish(body)


# ------------------------------------------------------------------ receive


async def subscribe(clients: list[Client], spec: JSON, tell: Callable[..., None]) -> None:
    """The role ``subscriber``: one connection, or several that share this process."""
    endpoints = [
        await settled(client.subscriber(number)) for client, number in zip(clients, spec["numbers"], strict=True)
    ]
    tell(ready=endpoints)
    waiting = set(spec["numbers"])

    def seen(number: int) -> None:
        if number in waiting:
            waiting.discard(number)
            if not waiting:
                tell(seen=True)

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(len(clients)))
    loop = _receive if clients[0].asynchronous else _receive_in_thread
    if clients[0].handles:
        loop = _receive_handed
    pairs = zip(clients, spec["numbers"], strict=True)
    found = await asyncio.gather(*(loop(client, spec, number, seen) for client, number in pairs))
    figures: JSON = {
        "received": sum(one["received"] for one in found),
        "last": max(one["last"] for one in found),
        "lost": sum(spec["messages"] - one["received"] for one in found),
    }
    if spec["stamped"]:
        figures |= summary(sorted(late for one in found for late in one["latencies"]))
    tell(figures=figures)


async def _receive(client: Client, spec: JSON, number: int, seen: Callable[[int], None]) -> JSON:
    """Count messages one by one, as an app would."""
    body_of = client.body
    expected, every, stamped = spec["messages"], spec["every"], spec["stamped"]
    late = array("d")
    count = 0
    async for message in client.messages():
        body = body_of(message)
        if len(body) <= CONTROL_BYTES:
            if body == END:
                break
            seen(number)
            continue
        count += 1
        if stamped:
            late.append(clock() - STAMP.unpack_from(body)[0])
        if every and not count % every:
            await client.report(REPORT.pack(number, count))
        if count == expected:
            break
    return {"received": count, "last": clock(), "latencies": late}


async def _receive_handed(client: Client, spec: JSON, number: int, seen: Callable[[int], None]) -> JSON:
    """The same, for packages that call a handler."""
    body_of = client.body
    expected, every, stamped = spec["messages"], spec["every"], spec["stamped"]
    late = array("d")
    count = 0
    ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def handle(message: Any) -> None:
        nonlocal count
        body = body_of(message)
        if len(body) <= CONTROL_BYTES:
            if body != END:
                seen(number)
            elif not ended.done():
                ended.set_result(clock())
            return
        count += 1
        if stamped:
            late.append(clock() - STAMP.unpack_from(body)[0])
        if every and not count % every:
            await client.report(REPORT.pack(number, count))
        if count == expected:
            ended.set_result(clock())

    await client.deliver(handle)
    last = await ended
    return {"received": count, "last": last, "latencies": late}


def _receive_blocking(client: Client, spec: JSON, number: int, seen: Callable[[int], None]) -> JSON:
    """The same, without a loop to await."""
    body_of = client.body
    expected, every, stamped = spec["messages"], spec["every"], spec["stamped"]
    late = array("d")
    count = 0
    for message in client.messages():
        body = body_of(message)
        if len(body) <= CONTROL_BYTES:
            if body == END:
                break
            seen(number)
            continue
        count += 1
        if stamped:
            late.append(clock() - STAMP.unpack_from(body)[0])
        if every and not count % every:
            client.report(REPORT.pack(number, count))
        if count == expected:
            break
    return {"received": count, "last": clock(), "latencies": late}


async def _receive_in_thread(client: Client, spec: JSON, number: int, seen: Callable[[int], None]) -> JSON:
    if len(spec["numbers"]) == 1:
        return _receive_blocking(client, spec, number, seen)
    return await asyncio.to_thread(_receive_blocking, client, spec, number, seen)


# ---------------------------------------------------------------------- ask


async def respond(client: Client, spec: JSON, tell: Callable[..., None]) -> None:
    """The role ``responder``: until standard input ends, which ends the process."""
    tell(ready=[await settled(client.responder())])
    await settled(client.respond())


async def request(client: Client, spec: JSON, go: threading.Event, tell: Callable[..., None]) -> None:
    """The role ``requester``: at a rate, or with so many in flight."""
    await settled(client.requester(spec["in_flight"]))
    body = os.urandom(spec["size"])
    await _first_answer(client, body)
    for _ in range(WARM_REQUESTS):
        await settled(client.request(body))
    tell(ready=[])
    await asyncio.to_thread(go.wait)
    if spec.get("rate"):
        tell(figures=await _ask_at_rate(client, body, spec["rate"], spec["seconds"]))
    else:
        tell(figures=await _ask_in_flight(client, body, spec["in_flight"], spec["seconds"]))


async def _first_answer(client: Client, body: bytes) -> None:
    """Try until somebody answers: the responder has just come."""
    async with asyncio.timeout(WARM_TIMEOUT):
        while True:
            try:
                if await settled(client.request(body)) == body:
                    return
            except (OSError, RuntimeError, ConnectionError, TimeoutError) as error:
                failed: BaseException | None = error
            else:
                failed = None
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                raise (failed or RuntimeError("the answer is not what was asked")) from None


async def _ask_at_rate(client: Client, body: bytes, rate: float, seconds: float) -> JSON:
    """Latencies count from the intended instant, so a stall is counted for everyone it kept waiting."""
    pacer = Pacer()
    count = int(rate * seconds)
    ended = [0.0] * count
    schedule = Schedule(clock() + 0.01, rate)

    async def one(number: int) -> None:
        await client.request(body)
        ended[number] = clock()

    if client.asynchronous:
        async with asyncio.TaskGroup() as asking:
            for number in range(count):
                await pacer.until(schedule.due(number))
                asking.create_task(one(number))
    else:
        for number in range(count):
            pacer.block_until(schedule.due(number))
            client.request(body)
            ended[number] = clock()
    pacer.close()
    return summary(latencies(schedule, ended))


async def _ask_in_flight(client: Client, body: bytes, in_flight: int, seconds: float) -> JSON:
    trips = array("d")
    began = clock()
    end = began + seconds

    async def ask() -> None:
        while (start := clock()) < end:
            await client.request(body)
            trips.append(clock() - start)

    if client.asynchronous:
        await asyncio.gather(*(ask() for _ in range(in_flight)))
    elif in_flight == 1:
        while (start := clock()) < end:
            client.request(body)
            trips.append(clock() - start)
    else:
        _pipeline(client, body, in_flight, end, trips)
    return {"requests/s": len(trips) / (clock() - began), "requests": len(trips)}


def _pipeline(client: Client, body: bytes, in_flight: int, end: float, trips: array[float]) -> None:
    """Keep that many asked and not answered, with one thread."""
    for _ in range(in_flight):
        client.ask(body)
    asked = in_flight
    while asked:
        client.answer()
        trips.append(0.0)
        asked -= 1
        if clock() < end:
            client.ask(body)
            asked += 1


async def stream(client: Client, spec: JSON, go: threading.Event, tell: Callable[..., None]) -> None:
    """The role ``source``: one stream, until the other end has all of it."""
    chunk = os.urandom(spec["chunk"])
    await settled(client.requester(1))
    await _first_stream(client, chunk)
    tell(ready=[])
    await asyncio.to_thread(go.wait)
    began = clock()
    arrived = await settled(client.tunnel(chunk, spec["chunks"]))
    seconds = clock() - began
    if arrived != spec["chunks"] * len(chunk):
        raise RuntimeError(f"{arrived} bytes of {spec['chunks'] * len(chunk)} arrived")
    tell(figures={"MB/s": arrived / seconds / 1e6})


async def _first_stream(client: Client, chunk: bytes) -> None:
    if await settled(client.tunnel(chunk, 4)) != 4 * len(chunk):
        raise RuntimeError("the first stream lost bytes")
