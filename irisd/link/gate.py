"""Where strangers wait (edge): from the accepted socket to a first message that opens.

Anybody can open a connection, so everything here is cheap, bounded and paced.
A stranger is a bare socket: no protocol object, no task, no timer of its own.
One step (read what is there, look at it) is done per turn of the event loop, so
a thousand strangers delay a link that is up by one step, not by a thousand. Who
overdraws his host's budget is turned away unread, the oldest goes when places
are taken, and one deadline counts from accept to first record.

A first message that does not open costs no Diffie-Hellman. One that was
recorded opens; it would cost one each time, so those seen lately are remembered
and refused at sight. Remembering is thrift, not security: what nobody stands by
is acted on nowhere, remembered or not.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import OrderedDict, deque
from typing import Final, Protocol

from irisd.link.handshake import Credentials, Greeting, Purpose, Refused, Responder, refusal
from irisd.link.limits import HandshakeLimits, host_of
from irisd.link.outcome import Outcome
from irisd.link.session import Session

MAX_REMEMBERED: Final = 4096
"""First messages remembered."""
_READ: Final = 2048


class Node(Protocol):
    """Whose stranger it is, once the key id is in."""

    def credentials(self, key_id: bytes) -> Credentials | None:
        """What the key table says about a key id."""

    def hailed(self, purpose: Purpose, key_id: bytes, greeting: Greeting) -> Outcome | None:
        """The first message opened. Nothing is proven yet; return why not, or ``None`` to answer."""

    def greeting(self) -> Greeting:
        """Who we are."""


class Stranger:
    """One connection that nobody has stood by yet.

    Attributes:
        purpose: What it is for, once its preamble is in.
        key_id: The key it names, likewise.
    """

    __slots__ = ("deadline", "greeting", "host", "key_id", "node", "number", "purpose", "remote", "responder", "sock")

    def __init__(self, number: int, sock: socket.socket, host: str, remote: str, deadline: float) -> None:
        self.number = number
        self.sock = sock
        self.host = host
        self.remote = remote
        self.deadline = deadline
        self.responder: Responder | None = None
        self.node: Node | None = None
        self.greeting: Greeting | None = None
        self.purpose: Purpose | None = None
        self.key_id = b""


class House(Protocol):
    """What the gate belongs to."""

    def new_number(self) -> int:
        """A number no connection of this daemon has."""

    def node_of(self, key_id: bytes, services: frozenset[str]) -> Node | None:
        """The node with this key, among these services (empty: all)."""

    def welcome(self, stranger: Stranger, greeting: Greeting, session: Session, remaining: float) -> None:
        """Its first message opened and was answered: take its socket; ``remaining`` seconds for the first record."""

    def evicted(self, number: int) -> None:
        """This connection, welcomed before, has to go for another stranger."""

    def turned_away(self, stranger: Stranger | None, remote: str, outcome: Outcome, detail: str) -> None:
        """A stranger's connection is over."""


class Gate:
    """The strangers of one daemon.

    Args:
        house: The link service.
        limits: What they may cost.
        timeout: Seconds from accept to first record.
    """

    def __init__(self, house: House, limits: HandshakeLimits, timeout: float) -> None:
        self._house = house
        self._limits = limits
        self._timeout = timeout
        self._strangers: dict[int, Stranger] = {}  # the oldest first
        self._ready: deque[Stranger] = deque()
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._sweep: asyncio.TimerHandle | None = None
        self._stepping = False

    @property
    def half_open(self) -> int:
        """Connections that nobody has stood by, those already answered included."""
        return self._limits.half_open

    def accepted(self, sock: socket.socket, ip: str, remote: str, services: frozenset[str]) -> None:
        """Take a connection that was accepted."""
        began = time.thread_time()
        loop = asyncio.get_running_loop()
        host = host_of(ip)
        if not self._limits.admits(host, loop.time()):
            sock.close()
            self._house.turned_away(None, remote, Outcome.OVERLOADED, "this host's handshakes take too much time")
        else:
            number = self._house.new_number()
            evicted = self._limits.opened(number, host)
            if evicted is not None:
                self._evict(evicted)
            stranger = Stranger(number, sock, host, remote, loop.time() + self._timeout)
            house = self._house

            def find(key_id: bytes) -> Credentials | None:
                node = stranger.node = house.node_of(key_id, services)
                return None if node is None else node.credentials(key_id)

            stranger.responder = Responder(find)
            self._strangers[number] = stranger
            loop.add_reader(sock.fileno(), self._readable, stranger)
            if self._sweep is None:
                self._sweep = loop.call_at(stranger.deadline, self._expire)
        self._charge(host, began)

    def proven(self, number: int) -> None:
        """This connection, welcomed before, is half-open no more: stood by, or gone."""
        self._limits.closed(number)

    def close(self) -> None:
        """Turn everybody away."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for stranger in list(self._strangers.values()):
            self._turn_away(stranger, Outcome.STOPPING, "the daemon is stopping")

    def _readable(self, stranger: Stranger) -> None:
        asyncio.get_running_loop().remove_reader(stranger.sock.fileno())
        self._ready.append(stranger)
        self._next_step()

    def _next_step(self) -> None:
        if self._ready and not self._stepping:
            self._stepping = True
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        """Look at one stranger. The others have theirs in the turns to come, and links have their events in between."""
        self._stepping = False
        while self._ready:
            stranger = self._ready.popleft()
            if stranger.number in self._strangers:  # else turned away meanwhile
                began = time.thread_time()
                self._look_at(stranger)
                self._charge(stranger.host, began)
                break
        self._next_step()

    def _look_at(self, stranger: Stranger) -> None:
        loop = asyncio.get_running_loop()
        if not self._limits.admits(stranger.host, loop.time()):
            self._turn_away(stranger, Outcome.OVERLOADED, "this host's handshakes take too much time")
            return
        responder = stranger.responder
        assert responder is not None
        try:
            if stranger.greeting is not None:
                self._answer(stranger, responder, stranger.greeting)
            elif self._read(stranger, responder):
                self._ready.append(stranger)  # answering costs the most: it gets a turn of its own
            else:
                loop.add_reader(stranger.sock.fileno(), self._readable, stranger)
        except BlockingIOError:
            loop.add_reader(stranger.sock.fileno(), self._readable, stranger)
        except OSError as error:
            self._turn_away(stranger, Outcome.BROKEN, error.strerror or str(error))
        except Refused as refused:
            self._turn_away(stranger, refused.outcome, refused.detail, refused.reply)

    def _read(self, stranger: Stranger, responder: Responder) -> bool:
        """Read what is there; return whether the first message is whole and opened."""
        data = stranger.sock.recv(_READ)
        if not data:
            raise Refused(Outcome.BROKEN, "the peer closed the connection during the handshake")
        try:
            stranger.greeting = responder.feed(data)
        finally:
            stranger.purpose, stranger.key_id = responder.purpose, responder.key_id
        if stranger.greeting is not None and self._was_seen(responder.first_ephemeral):
            raise Refused(Outcome.UNCONFIRMED, "a first message that was seen before: a replay")
        return stranger.greeting is not None

    def _answer(self, stranger: Stranger, responder: Responder, greeting: Greeting) -> None:
        node = stranger.node
        assert node is not None and stranger.purpose is not None
        verdict = node.hailed(stranger.purpose, stranger.key_id, greeting)
        reply, session = responder.answer(verdict, node.greeting(), os.urandom(32))
        if session is None:
            assert verdict is not None
            self._turn_away(stranger, verdict, "refused in the handshake", reply)
            return
        if stranger.sock.send(reply) != len(reply):
            raise Refused(Outcome.BROKEN, "the peer does not take the answer")
        del self._strangers[stranger.number]
        remaining = max(0.0, stranger.deadline - asyncio.get_running_loop().time())
        self._house.welcome(stranger, greeting, session, remaining)

    def _was_seen(self, ephemeral: bytes) -> bool:
        if ephemeral in self._seen:
            return True
        self._seen[ephemeral] = None
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def _evict(self, number: int) -> None:
        stranger = self._strangers.get(number)
        if stranger is None:
            self._house.evicted(number)
        else:
            self._turn_away(stranger, Outcome.OVERLOADED, "too many handshakes under way", refusal(Outcome.OVERLOADED))

    def _expire(self) -> None:
        """Turn away those whose time is up; they all have the same, so the oldest come first."""
        loop = asyncio.get_running_loop()
        self._sweep = None
        now = loop.time()
        for stranger in list(self._strangers.values()):
            if stranger.deadline > now:
                self._sweep = loop.call_at(stranger.deadline, self._expire)
                return
            self._turn_away(stranger, Outcome.TIMEOUT, "the handshake took too long")

    def _turn_away(self, stranger: Stranger, outcome: Outcome, detail: str, reply: bytes = b"") -> None:
        del self._strangers[stranger.number]
        self._limits.closed(stranger.number)
        asyncio.get_running_loop().remove_reader(stranger.sock.fileno())
        if reply:
            try:
                stranger.sock.send(reply)
            except OSError:
                detail = f"{detail}; it could not be told"
        stranger.sock.close()
        self._house.turned_away(stranger, stranger.remote, outcome, detail)

    def _charge(self, host: str, began: float) -> None:
        self._limits.charge(host, time.thread_time() - began, asyncio.get_running_loop().time())
