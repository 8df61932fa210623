"""Apps with the SDK: what they may not send, handlers that go wrong in every way, and apps that vanish."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import iris_client as iris

from .bad_input_ground import (
    BODY_LIMIT,
    PATIENCE,
    REQUEST_LIMIT,
    MiB,
    daemons,
    eventually,
    neighbour,
    nothing_left,
    status_of,
    url_of,
)
from .cli_iris_ground import Mesh

PROMPT = 2.0  # seconds within which a loss must be told; nobody waits for a deadline of ten


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with daemons("oak", "elm") as mesh:
        yield mesh


@pytest_asyncio.fixture
async def caller(mesh: Mesh) -> AsyncIterator[iris.Mesh]:
    """An app at one node, beside two neighbours whose requests go on; nothing is left of it all afterwards."""
    url = url_of(mesh)
    pids = [status_of(url_of(mesh, name)).pid for name in ("oak", "elm")]
    async with neighbour(url), iris.connect(url) as caller:
        yield caller
    for name, pid in zip(("oak", "elm"), pids, strict=True):
        status = await nothing_left(url_of(mesh, name))
        assert (status.pid, status.services[0].peers) == (pid, 1)


@pytest_asyncio.fixture
async def far(mesh: Mesh) -> AsyncIterator[iris.Mesh]:
    """An app at the other node."""
    async with iris.connect(url_of(mesh, "elm")) as far:
        yield far


# ----------------------------------------------------------------------- what is refused at once

NAMES = {
    "": "cannot be empty",
    "a b": "letters, digits",
    "a..b": "single dots",
    ".a": "single dots",
    "é": "letters, digits",
    "x" * 201: "at most 200 bytes, this one has 201",
    "_iris.x": "reserved",
    "a\n": "letters, digits",
}


@pytest.mark.parametrize("name", NAMES, ids=[repr(name[:8]) for name in NAMES])
async def test_names_that_are_none(caller: iris.Mesh, name: str) -> None:
    with pytest.raises(iris.InvalidName, match=NAMES[name]):
        await caller.request(name, b"")
    with pytest.raises(iris.InvalidName, match=NAMES[name]):
        await caller.publish(name, b"")
    with pytest.raises(iris.InvalidName, match=NAMES[name]):
        caller.subscribe(name)
    with pytest.raises(iris.InvalidName, match=NAMES[name]):
        iris.Cluster(name)


async def test_nobody_there(caller: iris.Mesh) -> None:
    for call in (caller.request("nobody"), caller.push("nobody"), caller.broadcast("nobody")):
        with pytest.raises(iris.NoMember, match=r"nobody serves 'nobody'.*executed: no"):
            await call
    with pytest.raises(iris.NoMember):
        async with caller.survey("nobody") as survey:
            [answer async for answer in survey]
    with pytest.raises(iris.NoMember):
        async with caller.tunnel("nobody"):
            pass
    with pytest.raises(iris.NoMember, match="service 'bank' is not reachable from 'shop'"):
        await caller.request("bank/x")


async def test_bodies_above_the_limit_are_refused_with_the_limit_named(caller: iris.Mesh) -> None:
    body = bytes(BODY_LIMIT + 1)
    named = "the body has 8388609 bytes, the limit is 8388608 bytes"
    with pytest.raises(iris.TooLarge, match="the body has 268435457 bytes, the limit is 268435456 bytes"):
        await caller.request("x", bytes(REQUEST_LIMIT + 1))
    for call in (caller.push("x", body), caller.broadcast("x", body)):
        with pytest.raises(iris.TooLarge, match=named):
            await call
    with pytest.raises(iris.TooLarge, match=named):
        caller.survey("x", body)
    with pytest.raises(iris.TooLarge, match=named):
        caller.tunnel("x", body)
    with pytest.raises(iris.TooLarge, match=named):
        await caller.publish("t", body)
    with pytest.raises(iris.TooLarge, match=named):
        await caller.publish_many("t", [b"fits", body])


async def test_the_largest_body_and_an_empty_one_cross_two_nodes(caller: iris.Mesh, far: iris.Mesh) -> None:
    echo = iris.Cluster("echo")
    echo.on_request(lambda body: body)
    async with far.join(echo), far.subscribe("t") as events:
        for body in (os.urandom(BODY_LIMIT), b""):
            assert (await caller.request("echo", body)).body == body
            await caller.publish("t", body)
            await caller.flush()
            assert (await anext(aiter(events))).body == body


@pytest.mark.parametrize("body", ["text", None, 5, {"a": 1}, [b"x"]], ids=repr)
async def test_bodies_that_are_no_bytes(caller: iris.Mesh, body: Any) -> None:
    with pytest.raises(iris.CodecError, match=r"a body is bytes, not .*; codec=iris.JSON takes other types"):
        await caller.request("x", body)


@pytest.mark.parametrize("timeout", [None, 0, -1, float("nan"), float("inf"), "5"])
async def test_timeouts_that_are_none(caller: iris.Mesh, timeout: Any) -> None:
    with pytest.raises((ValueError, TypeError, iris.DeadlineExceeded), match="timeout"):
        await caller.request("nobody", b"", timeout=timeout)


async def test_headers_that_are_none(caller: iris.Mesh) -> None:
    for headers, words in (
        ({str(at): "" for at in range(65)}, "at most 64 headers, not 65"),
        ({"a": "b" * 9000}, "at most 8192 bytes"),
        ({"": "x"}, "cannot be empty"),
        ({"a": b"x"}, "str to str"),
    ):
        with pytest.raises(iris.InvalidName, match=words):
            await caller.request("nobody", b"", headers=headers)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------- handlers that go wrong


@asynccontextmanager
async def serving(
    far: iris.Mesh, function: Any, *, concurrency: int = 1, codec: Any = iris.BYTES
) -> AsyncIterator[None]:
    cluster = iris.Cluster("odd", concurrency=concurrency, codec=codec)
    cluster.on_request(function)
    cluster.on_request("well")(_well)
    async with far.join(cluster):
        yield


def _well(request: iris.Request) -> iris.Reply:
    return iris.Reply(b"well")


async def still_serves(caller: iris.Mesh) -> None:
    """Its only slot is free again."""
    assert (await caller.request("odd", b"", method="well", timeout=PATIENCE)).body == b"well"


async def raises(body: bytes) -> bytes:
    raise RuntimeError("a secret of the handler")


def raises_in_a_thread(body: bytes) -> bytes:
    raise RuntimeError("a secret of the handler")


async def raises_cancelled(body: bytes) -> bytes:
    raise asyncio.CancelledError


async def raises_stop(body: bytes) -> bytes:
    raise StopAsyncIteration


def raises_stop_in_a_thread(body: bytes) -> bytes:
    raise StopIteration


async def raises_group(body: bytes) -> bytes:
    raise ExceptionGroup("two", [ValueError("one"), KeyError("other")])


@pytest.mark.parametrize(
    "handler", [raises, raises_in_a_thread, raises_cancelled, raises_stop, raises_stop_in_a_thread, raises_group]
)
async def test_a_handler_that_raises(caller: iris.Mesh, far: iris.Mesh, handler: Any) -> None:
    async with serving(far, handler):
        with pytest.raises(iris.HandlerFailed, match="its traceback is in the member's log") as failed:
            await caller.request("odd", b"")
        assert failed.value.executed == iris.Executed.YES
        assert "secret" not in str(failed.value)
        await still_serves(caller)


@pytest.mark.parametrize(
    "answer",
    ["text", None, 5, object(), iris.Reply("text")],  # type: ignore[arg-type]
    ids=["text", "none", "number", "object", "reply"],
)
async def test_a_handler_that_returns_the_wrong_type(caller: iris.Mesh, far: iris.Mesh, answer: Any) -> None:
    async def wrong(body: bytes) -> Any:
        return answer

    async with serving(far, wrong):
        with pytest.raises(iris.HandlerFailed, match=r"answered with what cannot be sent: expected bytes, got"):
            await caller.request("odd", b"")
        await still_serves(caller)


async def test_a_handler_that_returns_too_much(caller: iris.Mesh, far: iris.Mesh) -> None:
    async def much(body: bytes) -> bytes:
        return bytes(REQUEST_LIMIT + 1)

    async with serving(far, much):
        named = "answered with 268435457 bytes, the limit is 268435456 bytes"
        with pytest.raises(iris.TooLarge, match=named) as failed:
            await caller.request("odd", b"")
        assert failed.value.executed == iris.Executed.YES
        await still_serves(caller)


async def test_headers_a_handler_may_not_return(caller: iris.Mesh, far: iris.Mesh) -> None:
    async def chatty(body: bytes) -> iris.Reply:
        return iris.Reply(b"", headers={"a": "b" * 9000})

    async with serving(far, chatty):
        with pytest.raises(iris.HandlerFailed, match="at most 8192 bytes"):
            await caller.request("odd", b"")
        await still_serves(caller)


async def test_a_body_the_codec_does_not_know(caller: iris.Mesh, far: iris.Mesh) -> None:
    async def typed(body: dict[str, int]) -> dict[str, int]:
        return body

    async with serving(far, typed, codec=iris.JSON):
        for body in (b"{", b"[1]", b'{"a": "b"}', b"\xff", b"[" * 100_000):
            with pytest.raises(iris.Rejected) as rejected:
                await caller.request("odd", body)
            assert (rejected.value.code, rejected.value.executed) == ("bad_body", iris.Executed.NO)
        await still_serves(caller)


async def test_a_handler_that_hangs_is_cancelled_and_its_slot_is_free(caller: iris.Mesh, far: iris.Mesh) -> None:
    cancelled = asyncio.Event()

    async def hangs(body: bytes) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return body

    async with serving(far, hangs):
        began = time.monotonic()
        with pytest.raises(iris.DeadlineExceeded, match=r"executed: (maybe|yes)"):
            await caller.request("odd", b"", timeout=0.2)
        assert time.monotonic() - began < PROMPT
        async with asyncio.timeout(PATIENCE):
            await cancelled.wait()
        await still_serves(caller)


async def test_a_handler_that_hangs_in_a_thread_holds_its_slot_and_nothing_else(
    caller: iris.Mesh, far: iris.Mesh
) -> None:
    let_go = threading.Event()

    def hangs(body: bytes) -> bytes:
        let_go.wait(PATIENCE)
        return body

    try:
        async with serving(far, hangs):
            for _ in range(3):
                with pytest.raises(iris.DeadlineExceeded):
                    await caller.request("odd", b"", timeout=0.2)
            let_go.set()
            await still_serves(caller)
    finally:
        let_go.set()


async def test_a_handler_that_cannot_be_cancelled(caller: iris.Mesh, far: iris.Mesh) -> None:
    """It swallows its cancellation: its slot stays taken until it ends, the caller waits no longer for that."""
    let_go = asyncio.Event()

    async def stubborn(body: bytes) -> bytes:
        while not let_go.is_set():
            with suppress(asyncio.CancelledError):
                await let_go.wait()
        return body

    async with serving(far, stubborn):
        with pytest.raises(iris.DeadlineExceeded):
            await caller.request("odd", b"", timeout=0.2)
        with pytest.raises(iris.DeadlineExceeded):
            await caller.request("odd", b"", method="well", timeout=0.2)
        let_go.set()
        await still_serves(caller)


async def test_a_handler_that_rejects_with_too_much(caller: iris.Mesh, far: iris.Mesh) -> None:
    async def rejects(body: bytes) -> bytes:
        raise iris.Reject("m" * 100_000, code="c" * 1000, body=bytes(BODY_LIMIT + 1))

    async with serving(far, rejects):
        with pytest.raises(iris.Rejected) as rejected:
            await caller.request("odd", b"")
        assert len(str(rejected.value)) < 5000
        assert (len(rejected.value.code), rejected.value.body) == (200, b"")


async def test_a_tunnels_handler_that_raises_breaks_it(caller: iris.Mesh, far: iris.Mesh) -> None:
    cluster = iris.Cluster("pipes")

    @cluster.on_tunnel
    async def serve(tunnel: iris.Tunnel) -> None:
        async for _ in tunnel:
            raise RuntimeError("a secret of the handler")

    async with far.join(cluster):
        with pytest.raises(iris.TunnelBroken, match="raised RuntimeError; its traceback is in the member's log"):
            async with caller.tunnel("pipes") as tunnel:
                await tunnel.send(b"x")
                async for _ in tunnel:
                    pass


async def test_what_other_daemons_allow_is_told_by_name() -> None:
    """Two daemons that do not agree on what a body may have: the call fails, the link stands."""
    with daemons("ash") as own:
        own.daemon("fir", "--max-body", "1MiB", "--max-large-body", "3MiB")
        own.await_peers(1, "ash")
        async with iris.connect(url_of(own, "ash")) as caller, iris.connect(url_of(own, "fir")) as small:
            echo = iris.Cluster("echo")
            echo.on_request(lambda body: body)
            echo.on_push(lambda body: None)
            async with small.join(echo), small.subscribe("t") as events:
                assert (await caller.request("echo", bytes(2 * MiB))).body == bytes(2 * MiB), "it rode a tunnel"
                with pytest.raises(iris.TooLarge, match="fir takes large bodies of at most 3145728 bytes"):
                    await caller.request("echo", bytes(4 * MiB))
                with pytest.raises(iris.TooLarge, match="fir takes bodies of at most 1048576 bytes"):
                    await caller.push("echo", bytes(2 * MiB))
                await caller.publish("t", bytes(2 * MiB))
                await caller.publish("t", b"x")
                event = await anext(aiter(events))
                assert (event.body, event.lost) == (b"x", 1)
                assert (await caller.request("echo", b"x")).body == b"x"
                with pytest.raises(iris.TooLarge, match="the limit is 3145728 bytes"):
                    await small.request("echo", bytes(4 * MiB))
                with pytest.raises(iris.TooLarge, match="the limit is 1048576 bytes"):
                    await small.push("echo", bytes(2 * MiB))


# ------------------------------------------------------------------------------- apps that vanish


class Victim:
    """A process with a member, and what it says of its handlers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self, word: str) -> None:
        """Wait until a handler has begun."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE * 2):
            assert await self._process.stdout.readline() == word.encode() + b"\n"

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@pytest_asyncio.fixture
async def victim(mesh: Mesh) -> AsyncIterator[Victim]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("bad_input_app.py")),
        url_of(mesh, "elm"),
        stdout=asyncio.subprocess.PIPE,
    )
    victim = Victim(process)
    try:
        await victim.says("ready")
        mesh.await_members("victims", 1)
        yield victim
    finally:
        await victim.end()


@pytest.mark.parametrize("method", ["", "block"])
async def test_a_member_killed_in_the_middle_of_a_request(caller: iris.Mesh, victim: Victim, method: str) -> None:
    asking = asyncio.create_task(caller.request("victims", b"x", method=method, timeout=PATIENCE))
    await victim.says("block" if method else "request")
    victim.signal(signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(iris.MemberLost, match="executed: maybe"):
        await asking
    assert time.monotonic() - began < PROMPT
    with pytest.raises(iris.NoMember):
        await caller.request("victims", b"x", timeout=PATIENCE)


async def test_an_idempotent_request_finds_another_member(caller: iris.Mesh, far: iris.Mesh, victim: Victim) -> None:
    asking = [asyncio.create_task(caller.request("victims", b"x", idempotent=True, timeout=PATIENCE)) for _ in range(2)]
    for _ in asking:
        await victim.says("request")
    heirs = iris.Cluster("victims")
    heirs.on_request(lambda body: b"heir")
    async with far.join(heirs):
        victim.signal(signal.SIGKILL)
        assert [(await each).body for each in asking] == [b"heir", b"heir"]


async def test_a_member_killed_in_the_middle_of_a_survey(caller: iris.Mesh, victim: Victim) -> None:
    async with caller.survey("victims", b"x", timeout=PATIENCE) as survey:
        await victim.says("survey")
        victim.signal(signal.SIGKILL)
        began = time.monotonic()
        [answer] = [answer async for answer in survey]
        assert time.monotonic() - began < PROMPT
    assert isinstance(answer.error, iris.MemberLost)


async def test_a_member_killed_with_a_push_in_hand(mesh: Mesh, caller: iris.Mesh, victim: Victim) -> None:
    await caller.push("victims", b"x")
    await victim.says("push")
    victim.signal(signal.SIGKILL)
    mesh.await_members("victims", 0)
    with pytest.raises(iris.NoMember):
        await caller.push("victims", b"x")


async def test_a_member_killed_in_the_middle_of_a_tunnel(caller: iris.Mesh, victim: Victim) -> None:
    with pytest.raises(iris.TunnelBroken):
        async with caller.tunnel("victims") as tunnel:
            await tunnel.send(b"first")
            await victim.says("tunnel")
            victim.signal(signal.SIGKILL)
            began = time.monotonic()
            while True:
                await tunnel.send(bytes(65_536))
    assert time.monotonic() - began < PROMPT


async def test_a_member_killed_while_its_tunnel_is_read(caller: iris.Mesh, victim: Victim) -> None:
    """A broken tunnel is never mistaken for one that has ended."""
    with pytest.raises(iris.TunnelBroken):
        async with caller.tunnel("victims") as tunnel:
            await tunnel.send(b"first")
            await tunnel.finish()
            await victim.says("tunnel")
            victim.signal(signal.SIGKILL)
            assert [chunk async for chunk in tunnel] == [b"an end it must not reach"]


async def test_a_member_that_stands_still(caller: iris.Mesh, victim: Victim) -> None:
    """SIGSTOP: its connection is open and it says nothing. Callers wait to their deadline, others do not wait."""
    victim.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(iris.DeadlineExceeded):
        await caller.request("victims", b"x", timeout=0.5)
    assert 0.4 < time.monotonic() - began < PROMPT
    victim.signal(signal.SIGCONT)


CALLER = """
import asyncio, sys
import iris_client as iris

async def main():
    async with iris.connect(sys.argv[1]) as mesh:
        if sys.argv[2] == "tunnel":
            async with mesh.tunnel("waiters") as tunnel:
                await tunnel.send(b"x")
                await asyncio.sleep(60)
        await mesh.request("waiters", b"x", timeout=60)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["request", "tunnel"])
async def test_a_caller_killed_in_the_middle(mesh: Mesh, caller: iris.Mesh, far: iris.Mesh, how: str) -> None:
    """Its handler is told, and its slot is free."""
    begun, ended = asyncio.Event(), asyncio.Event()
    waiters = iris.Cluster("waiters", concurrency=1)
    outcome: list[BaseException] = []

    @waiters.on_request
    async def wait(body: bytes) -> bytes:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            outcome.append(error)
            ended.set()
            raise
        return body

    @waiters.on_tunnel
    async def serve(tunnel: iris.Tunnel) -> None:
        try:
            async for _ in tunnel:
                begun.set()
        except iris.TunnelBroken as error:
            outcome.append(error)
            ended.set()
            raise

    async with far.join(waiters):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", CALLER, url_of(mesh), how)
        try:
            async with asyncio.timeout(PATIENCE * 2):
                await begun.wait()
                process.kill()
                await ended.wait()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        assert isinstance(outcome[0], iris.TunnelBroken if how == "tunnel" else asyncio.CancelledError)
        url = url_of(mesh, "elm")
        await eventually(lambda: status_of(url).services[0].pending == 0, "the slot is free")


async def test_fifty_apps_killed_at_once(mesh: Mesh, caller: iris.Mesh) -> None:
    """Each a child that joined and is gone; nothing of them is left and the others never noticed."""
    script = (
        "import asyncio, os, sys\nimport iris_client as iris\n"
        "async def main():\n"
        "    meshes = [await iris.connect(sys.argv[1]).__aenter__() for _ in range(10)]\n"
        "    cluster = lambda n: (c := iris.Cluster(f'gone-{n}'), c.on_request(lambda b: b))[0]\n"
        "    for n, mesh in enumerate(meshes):\n"
        "        await mesh.join(cluster(n)).__aenter__()\n"
        "        await mesh.subscribe('gone.>').__aenter__()\n"
        "    print('ready', flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, url_of(mesh), stdout=asyncio.subprocess.DEVNULL
        )
        for _ in range(5)
    ]
    assert [await asyncio.wait_for(process.wait(), 30) for process in processes] == [-9] * 5
    for at in range(10):
        mesh.await_members(f"gone-{at}", 0)
