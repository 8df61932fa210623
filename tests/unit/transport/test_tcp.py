"""TCP connections: reading into one buffer, writing in order, dialling names with many addresses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random

import pytest

from irisd.config import Address
from irisd.transport import tcp
from irisd.transport.memory import keep_freed_memory
from irisd.transport.tcp import TcpConnection, TcpOptions, dial, show_address, tune
from irisd.transport.tcp_listener import TcpListener

OPTIONS = TcpOptions()


class Owner:
    """Takes what it is told to take, and writes down the rest."""

    def __init__(self, take: Callable[[memoryview], int] = len) -> None:
        self.take = take
        self.offered: list[bytes] = []
        self.events: list[str] = []
        self.changed = asyncio.Event()
        self.connection: TcpConnection | None = None

    def connected(self, connection: TcpConnection) -> None:
        self.connection = connection
        self.note("connected")

    def received(self, data: memoryview) -> int:
        self.offered.append(bytes(data))
        self.note("received")
        return self.take(data)

    def writable(self) -> None:
        self.note("writable")

    def finished(self) -> None:
        self.note("finished")

    def lost(self, error: Exception | None) -> None:
        self.note("lost" if error is None else f"lost {type(error).__name__}")

    def note(self, event: str) -> None:
        self.events.append(event)
        self.changed.set()

    async def until(self, state: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not state():
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def connected(owner: Owner, buffer_bytes: int = 64) -> AsyncIterator[tuple[TcpConnection, socket.socket]]:
    """A connection whose other end is a plain socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    connection = TcpConnection(owner, OPTIONS, memoryview(bytearray(buffer_bytes)))
    await asyncio.get_running_loop().create_connection(lambda: connection, sock=ours)
    try:
        yield connection, theirs
    finally:
        connection.abort()
        theirs.close()
        await owner.until(lambda: owner.events[-1].startswith("lost"))


async def test_what_is_not_used_comes_again_with_more_behind_it() -> None:
    owner = Owner(lambda data: len(data) // 4 * 4)  # words of four
    async with connected(owner) as (_, far):
        far.send(b"abcdef")
        await owner.until(lambda: len(owner.offered) == 1)
        far.send(b"gh")
        await owner.until(lambda: len(owner.offered) == 2)
        assert owner.offered == [b"abcdef", b"efgh"]


async def test_where_to_read_to_changes_between_reads() -> None:
    owner = Owner(lambda data: 0)
    async with connected(owner, 9) as (connection, far):
        far.send(b"12345678")
        await owner.until(lambda: len(owner.offered) == 1)
        connection.read_into(memoryview(bytearray(32)))
        far.send(b"9" * 24)
        await owner.until(lambda: len(owner.offered[-1]) == 32)
        assert owner.offered[-1] == b"12345678" + b"9" * 24


async def test_connections_read_to_the_same_place_and_keep_what_is_left() -> None:
    first, second = Owner(lambda data: len(data) // 4 * 4), Owner(lambda data: len(data) // 4 * 4)
    room = memoryview(bytearray(16))
    async with connected(first) as (one, far_one), connected(second) as (two, far_two):
        one.read_into(room)
        two.read_into(room)
        far_one.send(b"abcdef")
        await first.until(lambda: len(first.offered) == 1)
        far_two.send(b"ABCDEFG")
        await second.until(lambda: len(second.offered) == 1)
        far_one.send(b"ghij")
        await first.until(lambda: len(first.offered) == 2)
        far_two.send(b"H")
        await second.until(lambda: len(second.offered) == 2)
        assert first.offered == [b"abcdef", b"efghij"]
        assert second.offered == [b"ABCDEFG", b"EFGH"]


@pytest.mark.parametrize("seed", range(5))
async def test_long_pieces_in_many_reads_are_not_copied_for_each(seed: int) -> None:
    random = Random(seed)
    pieces = [random.randbytes(random.choice([1, 100, 5_000, 20_000])) for _ in range(40)]
    stream = b"".join(len(piece).to_bytes(4) + piece for piece in pieces)
    got: list[bytes] = []

    def take(data: memoryview) -> int:
        at = 0
        while len(data) - at >= 4 and len(data) - at >= 4 + (size := int.from_bytes(data[at : at + 4])):
            got.append(bytes(data[at + 4 : at + 4 + size]))
            at += 4 + size
        return at

    owner = Owner(take)
    room = memoryview(bytearray(32 * 1024))
    connection = TcpConnection(owner, OPTIONS, room)
    at = moved = 0
    while at < len(stream):
        place = connection.get_buffer(-1)
        count = min(len(place), random.choice([1, 10, 1_448, 9_000]), len(stream) - at)
        moved += connection._have if connection._own is None else 0
        place[:count] = stream[at : at + count]
        connection.buffer_updated(count)
        room[:] = bytes(len(room))  # others read here in between
        at += count
    assert got == pieces
    assert moved < len(stream)


async def test_writing_and_the_end_of_it() -> None:
    owner = Owner()
    async with connected(owner) as (connection, far):
        connection.write([b"one", b"two"])
        connection.finish_writing()
        connection.write([b"dropped"])
        loop = asyncio.get_running_loop()
        got = b""
        while data := await loop.sock_recv(far, 100):
            got += data
        assert got == b"onetwo"
        far.send(b"still reading")
        await owner.until(lambda: owner.offered == [b"still reading"])
        far.close()
        await owner.until(lambda: "finished" in owner.events)
        connection.close()
        await owner.until(lambda: owner.events[-1] == "lost")
        connection.write([b"nobody"])
        connection.finish_writing()
        assert not connection.is_writable


async def test_a_full_connection_says_so_and_says_when_it_is_not() -> None:
    owner = Owner()
    async with connected(owner) as (connection, far):
        assert connection.is_writable
        while connection.is_writable:
            connection.write([bytes(65_536)])
        loop = asyncio.get_running_loop()
        while "writable" not in owner.events:
            await loop.sock_recv(far, 1 << 20)
        assert connection.is_writable


async def test_options_are_set() -> None:
    with socket.socket() as sock:
        tune(sock, TcpOptions(user_timeout=3.0, unsent=65_536))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3_000
        if tcp._UNSENT_LOW_WATER:
            assert sock.getsockopt(socket.IPPROTO_TCP, tcp._UNSENT_LOW_WATER) == 65_536
        if tcp._THIN_LINEAR_TIMEOUTS:
            assert sock.getsockopt(socket.IPPROTO_TCP, tcp._THIN_LINEAR_TIMEOUTS) == 1


@pytest.mark.parametrize(("seconds", "set_to"), [(2.0, 2_000), (0.1, 1_000), (1e6, 120_000)])
async def test_the_pause_between_repeats_is_bounded_where_the_kernel_can(seconds: float, set_to: int) -> None:
    with socket.socket() as sock:
        try:
            sock.getsockopt(socket.IPPROTO_TCP, tcp._RTO_MAX_MS or 1 << 30)
        except OSError:
            pytest.skip("this kernel does not bound it (Linux before 6.15)")
        tune(sock, TcpOptions(repeat_pause=seconds))
        assert sock.getsockopt(socket.IPPROTO_TCP, tcp._RTO_MAX_MS) == set_to


# ---------------------------------------------------------------- dialling


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def names(monkeypatch: pytest.MonkeyPatch, *where: tuple[str, int]) -> None:
    """Let every name stand for these addresses."""

    async def resolve(address: Address) -> list[tuple[int, object]]:
        return [(socket.AF_INET, entry) for entry in where]

    monkeypatch.setattr(tcp, "_resolve", resolve)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_dial_an_address() -> None:
    with listening() as server:
        sock = await dial(Address("127.0.0.1", server.getsockname()[1]), OPTIONS)
        with sock:
            assert sock.getpeername() == server.getsockname()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_dial_a_name() -> None:
    with listening() as server, await dial(Address("localhost", server.getsockname()[1]), OPTIONS) as sock:
        assert sock.getpeername() == server.getsockname()


async def test_nobody_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        await dial(Address("127.0.0.1", free_port()), OPTIONS)


async def test_a_dead_address_costs_a_head_start_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as server:
        names(monkeypatch, ("127.0.0.1", free_port()), server.getsockname())
        with await dial(Address("shop.example", 1), OPTIONS) as sock:
            assert sock.getpeername() == server.getsockname()


async def test_an_address_that_does_not_answer_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    hung: list[object] = []
    hanging = asyncio.Event()

    async def connect(sock: socket.socket, where: object) -> None:
        if where == ("127.0.0.1", 1):
            hung.append(where)
            hanging.set()
            await asyncio.Event().wait()
        sock.setblocking(True)
        sock.connect(where)  # type: ignore[arg-type]
        sock.setblocking(False)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "sock_connect", connect)
    monkeypatch.setattr(tcp, "STAGGER", 0.02)
    with listening() as server:
        names(monkeypatch, ("127.0.0.1", 1), ("127.0.0.1", 1), server.getsockname())
        with await dial(Address("shop.example", 1), OPTIONS) as sock:
            assert sock.getpeername() == server.getsockname()
        assert len(hung) == 2
    names(monkeypatch, ("127.0.0.1", 1))
    with pytest.raises(TimeoutError, match=r"127\.0\.0\.1:1 within 0\.05 s"):
        await dial(Address("shop.example", 1), OPTIONS, per_address=0.05)
    hanging.clear()
    dialling = asyncio.create_task(dial(Address("shop.example", 1), OPTIONS))
    await asyncio.wait_for(hanging.wait(), 5)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling


async def test_a_name_that_cannot_be_one() -> None:
    with pytest.raises(OSError, match="cannot be a host's name"):
        await dial(Address("x" * 70 + ".example", 1), OPTIONS)


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*args: object, **named: object) -> list[object]:
        return []

    async def unknown(*args: object, **named: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    loop = asyncio.get_running_loop()
    for resolver, says in ((nothing, "has no address"), (unknown, "not known")):
        monkeypatch.setattr(loop, "getaddrinfo", resolver)
        with pytest.raises(OSError, match=says):
            await dial(Address("shop.example", 1), OPTIONS)


@pytest.mark.parametrize(
    ("where", "shown"),
    [(("127.0.0.1", 80), "127.0.0.1:80"), (("::1", 80, 0, 0), "[::1]:80"), ("", "?"), (None, "?")],
)
def test_addresses_as_people_see_them(where: object, shown: str) -> None:
    assert show_address(where) == shown


# --------------------------------------------------------------- listening


async def test_a_listener_hands_over_what_it_accepts() -> None:
    accepted: list[tuple[socket.socket, str, str]] = []
    come = asyncio.Event()

    def take(sock: socket.socket, ip: str, remote: str) -> None:
        accepted.append((sock, ip, remote))
        come.set()

    listener = TcpListener(Address("127.0.0.1", 0), take, pytest.fail)
    (address,) = listener.addresses
    with await dial(address, OPTIONS) as sock:
        await come.wait()
        taken, ip, remote = accepted[0]
        assert (ip, remote) == ("127.0.0.1", show_address(sock.getsockname()))
        assert taken.getblocking() is False
        taken.close()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        await dial(address, OPTIONS)


async def test_without_file_descriptors_it_waits_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irisd.transport.tcp_listener.PAUSE", 0.01)
    starved: list[str] = []
    come = asyncio.Event()

    def take(sock: socket.socket, ip: str, remote: str) -> None:
        sock.close()
        come.set()

    listener = TcpListener(Address("127.0.0.1", 0), take, starved.append)
    real = socket.socket.accept

    def accept(sock: socket.socket) -> object:
        if len(starved) < 2:
            raise OSError(24, os.strerror(24))
        return real(sock)

    monkeypatch.setattr(socket.socket, "accept", accept)
    with await dial(listener.addresses[0], OPTIONS):
        await asyncio.wait_for(come.wait(), 5)
    assert len(starved) == 2 and "RLIMIT_NOFILE" in starved[0]
    listener.close()


def test_memory_is_kept_where_the_c_library_can() -> None:
    assert keep_freed_memory() in (True, False)


@pytest.mark.parametrize("host", ["localhost", "::1"])
async def test_all_addresses_of_a_name_share_one_port(host: str) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    listener = TcpListener(Address(host, 0), lambda sock, ip, remote: sock.close(), pytest.fail)
    assert len({address.port for address in listener.addresses}) == 1
    for address in listener.addresses:
        with await dial(address, OPTIONS) as sock:
            assert show_address(sock.getpeername()) == str(address)
    listener.close()
