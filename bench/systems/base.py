"""What a measured system must be able to do: be found, be started, and play four roles.

A *system* is the driver's side: is it installed, how is its server started. A *client* is the worker's side, one
object per connection, made from the system's ordinary Python package the way its documentation does. A client is
asynchronous or blocking, whichever its package is; ``bench.roles`` runs the same loops over either.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.process import JSON

TOPIC = "bench.data"
REPORTS = "bench.reports"
CLUSTER = "bench"

PUBSUB = "publish/subscribe"
REQUEST = "request"
TUNNEL = "tunnel"
ATTACH = "attachments"


@dataclass(frozen=True, slots=True)
class Found:
    """Whether a system is there.

    Attributes:
        version: Of everything it needs; None: something is missing.
        hint: How to install what is missing.
    """

    version: str | None
    hint: str = ""


class System(ABC):
    """One system in one configuration.

    Attributes:
        name: As in ``--systems``; a prefix up to a dash names all its configurations.
        label: For tables and charts.
        flow: What keeps a fast publisher from losing messages, for people.
        window: It has no flow control of its own: the publisher stays within a window that subscribers acknowledge.
        can: Which of the abilities above it has.
    """

    name: str
    label: str
    flow: str
    window: bool = False
    can: frozenset[str] = frozenset({PUBSUB, REQUEST})
    max_size: int = 2**20

    @abstractmethod
    def installed(self) -> Found:
        """Look for what it needs, without starting anything."""

    @abstractmethod
    def client(self, address: JSON, endpoints: list[str]) -> Client:
        """One connection, not open yet.

        Args:
            address: What :meth:`serve` yielded.
            endpoints: Of those that listen, for systems without a server.
        """

    @asynccontextmanager
    async def serve(self, folder: Path) -> AsyncIterator[JSON]:
        """Start its server, if it has one; yields where clients find it."""
        yield {"folder": str(folder)}

    def environment(self) -> dict[str, str]:
        """Of its worker processes."""
        return {}


class Unable(Exception):
    """This system's client does not play that role."""


class Client:
    """One connection in one role. Methods are coroutines when :attr:`asynchronous` is set, else they block.

    Which methods there are depends on what the system can do; a role begins with the method of its name.
    """

    asynchronous: bool = True
    handles: bool = False
    """Messages are given to a handler, because that is the package's fast way; then there is :meth:`deliver`."""

    body: Callable[[Any], bytes]
    """The body of what :meth:`messages` yields."""

    def publisher(self, subscribers: int) -> Any:
        """Become a publisher for that many subscribers."""
        raise Unable

    def publish(self, body: bytes) -> Any:
        """Publish one message."""
        raise Unable

    def flush(self) -> Any:
        """Return when everything published has left this process."""
        raise Unable

    def pause(self) -> None:
        """Nothing is published for a moment: send what was kept back. Most packages keep nothing back."""

    def heard(self) -> Any:
        """Wait for the next report of a subscriber, and return it."""
        raise Unable

    def subscriber(self, number: int) -> Any:
        """Become a subscriber; return the endpoint where it listens, or an empty text."""
        raise Unable

    def messages(self) -> Any:
        """An iterator of messages, asynchronous or not."""
        raise Unable

    def deliver(self, handler: Callable[[Any], Awaitable[None]]) -> Any:
        """Have every message given to ``handler``."""
        raise Unable

    def report(self, report: bytes) -> Any:
        """Tell the publisher how far this subscriber is."""
        raise Unable

    def responder(self) -> Any:
        """Become one that answers with the body it was asked with; return its endpoint, or an empty text."""
        raise Unable

    def respond(self) -> Any:
        """Answer, for ever."""
        raise Unable

    def requester(self, in_flight: int) -> Any:
        """Become one that asks, at most so many at a time."""
        raise Unable

    def request(self, body: bytes) -> Any:
        """Ask, and return the answer's body."""
        raise Unable

    def ask(self, body: bytes) -> None:
        """Blocking clients: begin to ask, without waiting for the answer."""
        raise Unable

    def answer(self) -> bytes:
        """Blocking clients: wait for the next answer to any :meth:`ask`."""
        raise Unable

    def tunnel(self, chunk: bytes, chunks: int) -> Any:
        """Send so many chunks through a stream; return when the other end says how many bytes it has."""
        raise Unable

    def close(self) -> Any:
        """Let go of the connection."""


def package(name: str) -> str | None:
    """The version of an installed Python package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages(*names: str) -> Found:
    """Look for Python packages of ``bench/requirements.txt``."""
    versions = {name: package(name) for name in names}
    if missing := [name for name, version in versions.items() if version is None]:
        return Found(None, f"pip install {' '.join(missing)} (all: make bench PEERS=1)")
    return Found(", ".join(f"{name} {version}" for name, version in versions.items()))


def program(name: str, *version: str) -> str | None:
    """The last word of what a program says to ``version``; None: it is not there."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/lib/rabbitmq/bin")
    if path is None:
        return None
    if not version:
        return path
    said = subprocess.run([path, *version], capture_output=True, text=True, timeout=30).stdout
    return said.strip()


def both(server: str | None, debian: str, *clients: str) -> Found:
    """A server's version and its Python packages."""
    found = packages(*clients)
    if server is None:
        hint = f"apt-get install {debian}" + (f"; {found.hint}" if found.version is None else "")
        return Found(None, hint)
    return Found(f"{server}, {found.version}") if found.version else found
