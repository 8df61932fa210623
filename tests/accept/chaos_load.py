"""What apps do while things break, and the books of it: every pattern, each operation with a number of its own.

A breach of a promise is written down in words the moment it shows; nothing here stops at the first.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import iris_client as iris
from iris_client._calls import SURVEY_GRACE
from tests.accept.chaos_app import CLUSTER

TIMEOUT = 3.0
"""Seconds of every call."""

PATIENT = 20.0
"""Seconds of an idempotent request: longer than any fault, and a restart after it."""

LATE = 0.75
"""Seconds a loaded machine may need to run the timer that ends a call."""

CHUNKS = 20
"""Messages of a tunnel each way."""

RATES = {"request": 30.0, "idempotent": 10.0, "push": 10.0, "publish": 40.0, "group": 10.0}
RARE = {"broadcast": 1.0, "survey": 1.0, "tunnel": 1.0}
"""Operations a second and app."""


class Reader:
    """One subscription to the topic of one publisher: what it missed, and what it was told of that.

    Attributes:
        last: The highest number read.
        missing: Numbers skipped since the last reckoning.
        told: Losses told since then; ``unknown`` if some could not be counted.
    """

    def __init__(self, name: str, breaches: list[str]) -> None:
        self.name = name
        self.read = self.last = self.missing = self.told = 0
        self.unknown = False
        self._breaches = breaches
        self.news = asyncio.Event()

    async def follow(self, events: iris.Subscription) -> None:
        """Read until cancelled."""
        async for event in events:
            number = int(event.body)
            if number <= self.last:
                self._breaches.append(f"{self.name}: {number} came after {self.last}")
            self.missing += max(0, number - self.last - 1)
            self.last = max(self.last, number)
            self.read += 1
            if event.lost is None:
                self.unknown = True
            else:
                self.told += event.lost
            self.news.set()

    @property
    def balanced(self) -> bool:
        """What was told is what was missed, or nobody could know."""
        return self.unknown or self.told == self.missing

    def reckon(self) -> None:
        """Begin a new page."""
        self.missing = self.told = 0
        self.unknown = False


class Books:
    """Every operation and what became of it.

    Attributes:
        lag: Seconds this process itself ran late, at most, since the last check: nobody's fault.
    """

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.breaches: list[str] = []
        self.outcomes: dict[str, Counter[str]] = {}
        self.acknowledged: dict[str, set[int]] = {"r": set(), "i": set(), "p": set(), "b": set()}
        self.said: dict[str, dict[int, str]] = {"r": {}, "i": {}, "p": {}}
        self.readers: list[Reader] = []
        self.under_way = 0
        self.lag = 0.0
        self._read = 0  # bytes of the log
        self._idempotent: set[int] = set()
        self.runs: dict[str, Counter[str]] = {"r": Counter(), "p": Counter(), "b": Counter(), "e": Counter()}

    @asynccontextmanager
    async def operation(self, what: str, timeout: float = TIMEOUT) -> AsyncIterator[None]:
        """Note how it ends; anything but an answer or a typed error in time is a breach."""
        began = time.monotonic()
        self.under_way += 1
        outcome = "done"
        try:
            yield
        except iris.IrisError as error:
            outcome = type(error).__name__
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception as error:
            outcome = repr(error)
            self.breaches.append(f"{what} failed with {error!r}, which is no error of ours")
        finally:
            self.under_way -= 1
            self.outcomes.setdefault(what, Counter())[outcome] += 1
            if (took := time.monotonic() - began) > timeout + LATE + self.lag:
                self.breaches.append(f"{what} ended after {took:.2f} s, its timeout was {timeout:g} s: {outcome}")

    async def feel_lag(self) -> None:
        """Measure, until cancelled, how late this process is."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.1
            await asyncio.sleep(0.1)
            self.lag = max(self.lag, loop.time() - due)

    def read_log(self, log: Path) -> None:
        """Take in what members have written down since."""
        with log.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        for line in data.decode().splitlines():
            kind, _, rest = line.partition(" ")
            self.runs[kind][rest] += 1
            if self.runs[kind][rest] > 1 and not (kind == "r" and int(rest) in self._idempotent):
                self.breaches.append(f"ran twice: {line}")

    def asked_idempotently(self, number: int) -> None:
        """This one may run more than once."""
        self._idempotent.add(number)

    def judge(self, *, pushes: bool) -> None:
        """Compare what callers were told with what ran. ``pushes``: nobody died, so each one accepted ran, too."""
        for kind, letter in (("r", "r"), ("i", "r"), ("p", "p")):
            runs = self.runs[letter]
            if kind != "p" or pushes:
                lost = [number for number in self.acknowledged[kind] if str(number) not in runs]
                if lost:
                    self.breaches.append(f"{len(lost)} acknowledged and never ran: {kind} {lost[:5]}")
            self.acknowledged[kind].clear()
            for number, said in self.said[kind].items():
                if said == "no" and str(number) in runs:
                    self.breaches.append(f"{kind} {number} ran, and its error said it had not")
                if said == "yes" and str(number) not in runs:
                    self.breaches.append(f"{kind} {number} never ran, and its error said it had")
            self.said[kind].clear()


class Load:
    """The apps of one daemon, asking at an even pace."""

    def __init__(self, name: str, app: iris.Mesh, books: Books, rng: random.Random, factor: float = 1.0) -> None:
        self.name, self.app, self._books, self._rng, self._factor = name, app, books, rng, factor
        self.topic = f"{CLUSTER}.from.{name}"
        self.published = 0
        self._going = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def go(self) -> None:
        """Ask."""
        self._going.set()

    def pause(self) -> None:
        """Ask nothing more for now; ``books.under_way`` falls to 0."""
        self._going.clear()

    async def run(self) -> None:
        """Until cancelled."""
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "request": self._request,
            "idempotent": self._idempotent,
            "push": self._push,
            "publish": self.publish,
            "group": self._group,
            "broadcast": self._broadcast,
            "survey": self._survey,
            "tunnel": self._tunnel,
        }
        try:
            async with asyncio.TaskGroup() as group:
                for what, rate in (*RATES.items(), *RARE.items()):
                    group.create_task(self._evenly(kinds[what], rate * self._factor))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _evenly(self, operation: Callable[[], Awaitable[None]], rate: float) -> None:
        await asyncio.sleep(self._rng.random() / rate)
        while True:
            await self._going.wait()
            if operation == self.publish:
                await operation()  # one task, so that there is an order
            else:
                task: asyncio.Task[None] = asyncio.ensure_future(operation())  # type: ignore[assignment]
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) / rate)

    async def _request(self) -> None:
        number, books = next(self._books.numbers), self._books
        async with books.operation("request"):
            try:
                reply = await self.app.request(CLUSTER, b"%d" % number, timeout=TIMEOUT)
            except iris.DeliveryError as error:
                books.said["r"][number] = error.executed.value
                raise
            books.acknowledged["r"].add(number)
            assert reply.body == b"%d" % number, "somebody else's reply"

    async def _idempotent(self) -> None:
        number, books = next(self._books.numbers), self._books
        books.asked_idempotently(number)
        async with books.operation("idempotent", PATIENT):
            try:
                await self.app.request(CLUSTER, b"%d" % number, timeout=PATIENT, idempotent=True)
            except iris.DeliveryError as error:
                books.said["i"][number] = error.executed.value
                raise
            books.acknowledged["i"].add(number)

    async def _push(self) -> None:
        number, books = next(self._books.numbers), self._books
        async with books.operation("push"):
            try:
                await self.app.push(CLUSTER, b"%d" % number, timeout=TIMEOUT)
            except iris.DeliveryError as error:
                books.said["p"][number] = error.executed.value
                raise
            books.acknowledged["p"].add(number)

    async def publish(self) -> None:
        """The next message of this publisher's topic."""
        self.published += 1
        async with self._books.operation("publish"):
            await self.app.publish(self.topic, b"%d" % self.published)

    async def _group(self) -> None:
        async with self._books.operation("group"):
            await self.app.publish(f"{CLUSTER}.group.{self.name}", b"%d" % next(self._books.numbers))

    async def _broadcast(self) -> None:
        async with self._books.operation("broadcast"):
            await self.app.broadcast(CLUSTER, b"%d" % next(self._books.numbers), timeout=TIMEOUT)

    async def _survey(self) -> None:
        books = self._books
        async with books.operation("survey", TIMEOUT + SURVEY_GRACE):
            answers: Counter[str] = Counter()
            async with self.app.survey(CLUSTER, b"?", timeout=TIMEOUT) as survey:
                async for answer in survey:
                    answers[answer.member] += 1
            if any(count > 1 for count in answers.values()):
                books.breaches.append(f"a survey was answered twice by one: {answers}")
            if not set(answers) <= set(survey.asked):
                books.breaches.append(
                    f"a survey was answered by somebody not asked: {set(answers) - set(survey.asked)}"
                )

    async def _tunnel(self) -> None:
        sent = [b"%d" % number for number in range(CHUNKS)]
        came: list[bytes] = []
        ended = False
        async with self._books.operation("tunnel", 4 * TIMEOUT):
            try:
                async with asyncio.timeout(3 * TIMEOUT):
                    async with self.app.tunnel(CLUSTER, timeout=TIMEOUT) as tunnel:
                        for chunk in sent:
                            await tunnel.send(chunk)
                            await asyncio.sleep(0.01)
                        await tunnel.finish()
                        async for chunk in tunnel:
                            came.append(chunk)
                        ended = True
            except TimeoutError as error:
                if not isinstance(error, iris.IrisError):
                    raise iris.TunnelBroken("given up by its opener") from None
                raise
            finally:
                if came != sent[: len(came)]:
                    self._books.breaches.append(f"a tunnel brought {came}")
                if ended and len(came) != len(sent):
                    self._books.breaches.append(f"a tunnel ended cleanly after {len(came)} of {len(sent)} messages")


async def follow(app: iris.Mesh, topic: str, name: str, books: Books, ready: asyncio.Event) -> None:
    """Subscribe to a topic and keep the books of it until cancelled."""
    reader = Reader(name, books.breaches)
    books.readers.append(reader)
    async with app.subscribe(topic) as events:
        ready.set()
        with suppress(asyncio.CancelledError):
            await reader.follow(events)
            books.breaches.append(f"{name}: the subscription ended")
