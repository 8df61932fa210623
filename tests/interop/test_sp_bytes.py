"""The golden bytes are what real peers put on the wire, byte for byte."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from irisd.sp import Framing
from tests.interop.sp_glue import PATIENCE, StartTool, Tool, split_url
from tests.vectors.sp.golden import golden

pytestmark = pytest.mark.interop

GOLDEN = golden()


class Bare:
    """One accepted connection that knows nothing of SP."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def read(self, size: int) -> bytes:
        """Read exactly so many bytes, or fewer if the peer closes before."""
        data = b""
        while len(data) < size:
            piece = await asyncio.get_running_loop().sock_recv(self._sock, size - len(data))
            if not piece:
                break
            data += piece
        return data

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)


@asynccontextmanager
async def accept_one(url: str, start: Callable[[], Awaitable[Tool]]) -> AsyncIterator[Bare]:
    """Listen, start the peer that will dial, and accept it."""
    host, port, path = split_url(url)
    family = socket.AF_UNIX if path else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setblocking(False)
        listener.bind(path or (host, port))
        listener.listen()
        await start()
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        with sock:
            sock.setblocking(False)
            yield Bare(sock)


@pytest.mark.parametrize(
    ("name", "arguments", "vector", "answer"),
    [
        ("nngcat", ["--pair1", "-D", "hi"], "PAIR1", "PAIR1"),
        ("nngcat", ["--surveyor", "-D", "who?"], "SURVEYOR", "RESPONDENT"),
        ("nanocat", ["--surveyor", "-d", "0.3", "-D", "who?"], "SURVEYOR", "RESPONDENT"),
        ("nngcat", ["--respondent", "-D", "me"], "RESPONDENT", "SURVEYOR"),
        ("nanocat", ["--respondent", "-D", "me"], "RESPONDENT", "SURVEYOR"),
    ],
)
async def test_hello_and_first_message(
    name: str, arguments: list[str], vector: str, answer: str, framing: Framing, url: str, start_tool: StartTool
) -> None:
    kind = b"\x01" if framing is Framing.IPC else b""

    def start() -> Awaitable[Tool]:
        return start_tool(name, arguments[0], "--connect", url, *arguments[1:])

    async with asyncio.timeout(PATIENCE), accept_one(url, start) as peer:
        assert await peer.read(8) == GOLDEN[f"hello.{vector}"]
        await peer.write(GOLDEN[f"hello.{answer}"])
        if vector == "PAIR1":
            golden_message = GOLDEN[f"{framing.value}.pair1.hi"]
            assert await peer.read(len(golden_message)) == golden_message
        elif vector == "SURVEYOR":
            prefix = kind + (8).to_bytes(8)
            message = await peer.read(len(prefix) + 8)
            assert message.startswith(prefix)
            assert message[len(prefix)] & 0x80  # the id begins anywhere, its top bit is set
            assert message.endswith(GOLDEN["survey.question"][4:])
        else:
            question, expected = GOLDEN["survey.forwarded"], GOLDEN["survey.forwarded"][:12] + b"me"
            await peer.write(kind + len(question).to_bytes(8) + question)
            message = kind + len(expected).to_bytes(8) + expected
            assert await peer.read(len(message)) == message


@pytest.mark.parametrize("name", ["nngcat", "nanocat"])
@pytest.mark.parametrize("hello", ["00 53 50 00 00 11 00 00", "00 53 50 00 00 60 00 00", "00 53 50 01 00 62 00 00"])
async def test_a_wrong_hello_is_answered_by_closing_and_by_nothing_else(
    name: str, hello: str, framing: Framing, url: str, start_tool: StartTool
) -> None:
    """As we do: SP has no word for a refusal."""

    def start() -> Awaitable[Tool]:
        return start_tool(name, "--respondent", "--connect", url)

    async with asyncio.timeout(PATIENCE), accept_one(url, start) as peer:
        assert await peer.read(8) == GOLDEN["hello.RESPONDENT"]
        await peer.write(bytes.fromhex(hello))
        with suppress(ConnectionResetError):  # a close with bytes of ours still unread
            assert await peer.read(1) == b""
