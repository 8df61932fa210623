"""Standard input and output on an event loop, whatever they are: files, pipes, terminals.

An event loop cannot wait for a file, and a terminal or a pipe must not be made non-blocking, because others share it.
So one thread reads and one writes, each a bounded step ahead of or behind the loop. They are daemon threads on plain
descriptors: a read that never returns does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import BinaryIO, Final, TextIO

from iris_client._model import KiB, MiB

CHUNK_BYTES: Final = 256 * KiB
AHEAD: Final = 4
"""Chunks that may be read before anybody asks for them."""
BEHIND_BYTES: Final = MiB
"""Bytes that may wait to be written before :meth:`Output.write` waits."""


class Input:
    """Bytes from standard input, as they come.

    Args:
        stream: Where to read; standard input when not given.
        chunk_bytes: Most bytes one :meth:`read` returns.
    """

    def __init__(self, stream: TextIO | None = None, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._stream = stream or sys.stdin  # kept: a stream that nobody holds is closed
        self._read = _reader(self._stream)
        self._size = chunk_bytes
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(AHEAD)
        self._chunks: deque[bytes | OSError] = deque()
        self._came = asyncio.Event()
        self._ended = False
        self._started = False

    async def read(self) -> bytes:
        """Return the next chunk; empty at the end, and from then on.

        Raises:
            OSError: It cannot be read.
        """
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="iris-stdin", daemon=True).start()
        while not self._chunks:
            if self._ended:
                return b""
            self._came.clear()
            await self._came.wait()
        chunk = self._chunks.popleft()
        self._room.release()
        if isinstance(chunk, OSError):
            self._ended = True
            raise chunk
        if not chunk:
            self._ended = True
        return chunk

    def _run(self) -> None:
        chunk: bytes | OSError = b"-"
        while chunk and not isinstance(chunk, OSError):
            self._room.acquire()
            try:
                chunk = self._read(self._size)
            except OSError as error:
                chunk = error
            except ValueError as error:  # closed behind our back
                chunk = OSError(errno.EBADF, str(error))
            if not _call(self._loop, self._add, chunk):
                return

    def _add(self, chunk: bytes | OSError) -> None:
        self._chunks.append(chunk)
        self._came.set()


class Output:
    """Bytes to standard output: written as soon as it takes them, in order, a bounded number waiting.

    Args:
        stream: Where to write; standard output when not given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout  # kept: a stream that nobody holds is closed
        self._write = _writer(self._stream)
        self._loop = asyncio.get_running_loop()
        self._condition = threading.Condition()
        self._waiting: list[bytes] = []
        self._bytes = 0  # handed to write() and not yet written
        self._closing = False
        self._error: OSError | None = None
        self._moved = asyncio.Event()
        self._started = False

    async def write(self, data: bytes) -> None:
        """Hand over bytes to write; wait while too many wait already.

        Raises:
            OSError: They, or earlier ones, cannot be written; ``BrokenPipeError`` when nobody reads them.
        """
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="iris-stdout", daemon=True).start()
        with self._condition:
            self._waiting.append(data)
            self._bytes += len(data)
            self._condition.notify()
        await self._below(BEHIND_BYTES)

    async def flush(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: It cannot be.
        """
        await self._below(0)

    async def close(self) -> None:
        """Write what waits and end the thread.

        Raises:
            OSError: It cannot be written.
        """
        try:
            await self.flush()
        finally:
            with self._condition:
                self._closing = True
                self._condition.notify()

    async def _below(self, limit: int) -> None:
        while True:
            self._moved.clear()
            with self._condition:
                if self._error is not None:
                    raise self._error
                if self._bytes <= limit:
                    return
            await self._moved.wait()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._closing:
                    self._condition.wait()
                if not self._waiting:
                    return
                data, self._waiting = b"".join(self._waiting), []
            try:
                self._write(data)
            except (OSError, ValueError) as error:
                with self._condition:
                    self._error = error if isinstance(error, OSError) else OSError(errno.EBADF, str(error))
            with self._condition:
                self._bytes -= len(data)
                failed = self._error is not None
            if not _call(self._loop, self._moved.set) or failed:
                return


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> bool:
    """Call on the loop from a thread; False when the loop is gone and nobody waits any more."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        return False
    return True


def _descriptor(stream: TextIO) -> int | None:
    """The stream's descriptor; None for one that only exists in memory."""
    try:
        return stream.fileno()
    except (OSError, io.UnsupportedOperation):
        return None


def _reader(stream: TextIO) -> Callable[[int], bytes]:
    descriptor = _descriptor(stream)
    if descriptor is None:
        memory: BinaryIO = stream.buffer
        return memory.read

    def read(size: int) -> bytes:
        while True:
            try:
                return os.read(descriptor, size)
            except BlockingIOError:  # somebody who shares it made it non-blocking
                select.select([descriptor], [], [])

    return read


def _writer(stream: TextIO) -> Callable[[bytes], None]:
    descriptor = _descriptor(stream)
    if descriptor is None:
        memory: BinaryIO = stream.buffer

        def remember(data: bytes) -> None:
            memory.write(data)
            memory.flush()

        return remember
    stream.flush()  # what was printed so far goes first

    def write(data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except BlockingIOError:
                select.select([], [descriptor], [])

    return write
