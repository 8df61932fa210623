"""Standard input and output on an event loop: pipes, files and what only exists in memory."""

from __future__ import annotations

import asyncio
import io
import os
import threading

import pytest

from iris_client.cli import streams
from iris_client.cli.streams import Input, Output

from .conftest import until


class Pipe:
    """A pipe whose ends are text streams, as standard input and output are."""

    def __init__(self) -> None:
        read, write = os.pipe()
        self.reader = open(read)  # noqa: SIM115
        self.writer = open(write, "w")  # noqa: SIM115

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.close()


async def test_input_comes_as_it_is_written_and_ends(pipe):
    source = Input(pipe.reader)
    os.write(pipe.writer.fileno(), b"first")
    assert await source.read() == b"first"
    os.write(pipe.writer.fileno(), b"second")
    assert await source.read() == b"second"
    pipe.writer.close()
    assert await source.read() == b""
    assert await source.read() == b""


async def test_input_is_read_a_bounded_step_ahead(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 64)
    with path.open() as file:
        source = Input(file, chunk_bytes=1024)
        chunks = [await source.read()]
        for _ in range(100):
            await asyncio.sleep(0)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) <= 1024 * (streams.AHEAD + 2)
        while chunks[-1]:
            chunks.append(await source.read())
    assert b"".join(chunks) == path.read_bytes()


async def test_input_from_memory():
    source = Input(io.TextIOWrapper(io.BytesIO(b"abc")), chunk_bytes=2)
    assert [await source.read(), await source.read(), await source.read()] == [b"ab", b"c", b""]


async def test_input_that_fails_says_how(tmp_path):
    with (tmp_path / "file").open("w") as not_for_reading:
        source = Input(not_for_reading)
        with pytest.raises(OSError):
            await source.read()
        assert await source.read() == b""


async def test_input_on_a_pipe_somebody_made_non_blocking(pipe):
    os.set_blocking(pipe.reader.fileno(), False)
    source = Input(pipe.reader)
    reading = asyncio.create_task(source.read())
    await asyncio.sleep(0.01)
    assert not reading.done()
    os.write(pipe.writer.fileno(), b"late")
    assert await reading == b"late"
    pipe.writer.close()
    assert await source.read() == b""


async def test_output_is_written_in_order(pipe):
    sink = Output(pipe.writer)
    for number in range(100):
        await sink.write(b"%d," % number)
    await sink.close()
    assert os.read(pipe.reader.fileno(), 10_000) == b"".join(b"%d," % number for number in range(100))


async def test_what_was_printed_before_goes_first(pipe):
    pipe.writer.write("printed ")
    sink = Output(pipe.writer)
    await sink.write(b"written")
    await sink.close()
    assert os.read(pipe.reader.fileno(), 100) == b"printed written"


async def test_output_waits_for_a_slow_reader_and_holds_no_more_than_it_may(pipe):
    sink = Output(pipe.writer)
    size, handed = 64 * 1024, 0

    async def write() -> None:
        nonlocal handed
        for _ in range(64):
            await sink.write(b"x" * size)
            handed += size
        await sink.close()

    writing = asyncio.create_task(write())
    await until(lambda: handed >= streams.BEHIND_BYTES)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not writing.done()
    assert handed <= streams.BEHIND_BYTES + 2 * size + 1024 * 1024  # what lies in the pipe too

    got: list[int] = []

    def read() -> None:
        while sum(got) < 64 * size:
            got.append(len(os.read(pipe.reader.fileno(), size)))

    reader = threading.Thread(target=read)
    reader.start()
    await writing
    await asyncio.to_thread(reader.join)
    assert sum(got) == 64 * size


async def test_output_nobody_reads_any_more(pipe):
    pipe.reader.close()
    sink = Output(pipe.writer)
    with pytest.raises(BrokenPipeError):
        await sink.write(b"x")
        await sink.flush()
    with pytest.raises(BrokenPipeError):
        await sink.close()


async def test_output_to_memory():
    memory = io.BytesIO()
    sink = Output(io.TextIOWrapper(memory))
    await sink.write(b"abc")
    await sink.close()
    assert memory.getvalue() == b"abc"


async def test_output_that_was_never_used_closes():
    await Output(io.TextIOWrapper(io.BytesIO())).close()
