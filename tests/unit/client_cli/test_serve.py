"""iris serve: a command, or an echo, behind a cluster's name."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager

import click
import pytest

import iris_client as iris
from iris_client.cli import serve
from iris_client.cli.output import Failure, exit_code

from .conftest import until


@pytest.fixture
def served(shell):
    """Serve while a test talks to it; then SIGTERM, and it must end by itself."""

    @asynccontextmanager
    async def serving(*argv: str, json: bool = False, stops: bool = False):
        task = asyncio.create_task(shell(serve.serve, *argv, json=json))
        async with shell.local.connect() as mesh:
            try:
                async with asyncio.timeout(10):
                    while not task.done():
                        try:
                            async with mesh.survey(argv[0], b"?", method="-", timeout=0.5) as survey:
                                async for _ in survey:
                                    break
                        except iris.NoMember:
                            await asyncio.sleep(0.005)
                        except iris.NotSupported:
                            break
                        else:
                            break
                yield mesh
            finally:
                if not task.done() and not stops:
                    os.kill(os.getpid(), signal.SIGTERM)
                async with asyncio.timeout(10):
                    await task

    return serving


async def test_a_request_is_answered_with_a_commands_output(served):
    async with served("shout", "--", "tr", "a-z", "A-Z") as mesh:
        assert (await mesh.request("shout", b"hello\xff\n")).body == b"HELLO\xff\n"
        async with mesh.survey("shout", b"who", timeout=5) as survey:
            assert [answer.body async for answer in survey] == [b"WHO"]


async def test_the_message_is_in_the_environment(served):
    script = 'printf "%s|" $IRIS_CLUSTER $IRIS_PATTERN $IRIS_METHOD $IRIS_HEADER_TRACE_ID; test -n "$IRIS_SENDER"'
    async with served("env", "--method", "get", "--", "sh", "-c", script) as mesh:
        reply = await mesh.request("env", b"", method="get", headers={"trace-id": "7"})
        assert reply.body == b"env|request|get|7|"
        with pytest.raises(iris.NotSupported):
            await mesh.request("env", b"")


async def test_failure_is_an_error_with_the_status_and_the_last_words(served):
    async with served("bad", "--", "sh", "-c", "echo partial; echo first >&2; echo oops >&2; exit 3") as mesh:
        with pytest.raises(iris.Rejected, match="the command ended with exit-3: first; oops") as caught:
            await mesh.request("bad", b"")
        assert (caught.value.code, caught.value.body, caught.value.executed) == (
            "exit-3",
            b"partial\n",
            iris.Executed.YES,
        )


async def test_a_header_no_environment_can_carry(served):
    async with served("env", "--", "true") as mesh:
        with pytest.raises(iris.Rejected, match="zero byte") as caught:
            await mesh.request("env", b"", headers={"a": "x\0y"})
        assert caught.value.code == "bad_header"


async def test_the_deadline_ends_the_command(served, tmp_path):
    notes = tmp_path / "pid"
    async with served(
        "slow", "--", "sh", "-c", f"echo $$ > {notes}.new; mv {notes}.new {notes}; exec sleep 60"
    ) as mesh:
        with pytest.raises(iris.DeadlineExceeded):
            await mesh.request("slow", b"", timeout=0.3)
        await until(notes.exists)
        pid = int(notes.read_text())

        def ended() -> bool:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            return False

        await until(ended)


async def test_what_pushes_and_broadcasts_write_goes_to_standard_output(served, capfdbinary):
    async with served("log", "--", "sh", "-c", 'echo "$IRIS_PATTERN $(cat)"') as mesh:
        await mesh.push("log", b"one")
        await mesh.broadcast("log", b"two")
        out = b""
        async with asyncio.timeout(10):
            while out.count(b"\n") < 2:
                out += capfdbinary.readouterr().out
                await asyncio.sleep(0.005)
    assert sorted(out.splitlines()) == [b"broadcast two", b"push one"]


async def test_too_much_output_is_refused_by_its_limit(served):
    async with served("flood", "--", "yes") as mesh:
        async with mesh.survey("flood", b"", timeout=30) as survey:
            (answer,) = [answer async for answer in survey]
        assert isinstance(answer.error, iris.Rejected)
        assert answer.error.code == "too_large" and "more than 8388608 bytes" in str(answer.error)


async def test_a_request_is_answered_with_more_than_fits_in_a_frame(served):
    async with served("zeros", "--", "head", "-c", "9000000", "/dev/zero") as mesh:
        assert (await mesh.request("zeros", b"", timeout=30)).body == bytes(9_000_000)


async def test_echo_answers_everything(served):
    async with served("echo", "--echo") as mesh:
        assert (await mesh.request("echo", b"\x00")).body == b"\x00"
        await mesh.push("echo", b"x")
        assert await mesh.broadcast("echo", b"x") == 1
        async with mesh.tunnel("echo") as tunnel:
            await tunnel.send(b"back")
            assert await tunnel.receive() == b"back"
            await tunnel.finish()
            assert await tunnel.receive() is None


async def test_a_tunnel_is_piped_through_a_command(served):
    body = bytes(range(256)) * 4096
    async with served("gzip", "--tunnel", "--", "sh", "-c", "gzip | gzip -d") as mesh:
        async with mesh.tunnel("gzip") as tunnel:

            async def send() -> None:
                for at in range(0, len(body), 50_000):
                    await tunnel.send(body[at : at + 50_000])
                await tunnel.finish()

            sending = asyncio.create_task(send())
            assert b"".join([chunk async for chunk in tunnel]) == body
            await sending
        with pytest.raises(iris.NotSupported):
            await mesh.request("gzip", b"x")


async def test_a_tunnels_command_that_fails_breaks_the_tunnel(served):
    async with served("bad", "--tunnel", "--", "sh", "-c", "echo some; echo full >&2; exit 4") as mesh:
        with pytest.raises(iris.TunnelBroken, match="exit-4"):
            async with mesh.tunnel("bad") as tunnel:
                async for chunk in tunnel:
                    assert chunk == b"some\n"


async def test_a_tunnel_that_breaks_ends_its_command(served, tmp_path):
    notes = tmp_path / "pid"
    script = f"echo $$ > {notes}.new; mv {notes}.new {notes}; exec cat > /dev/null"
    async with served("sink", "--tunnel", "--", "sh", "-c", script) as mesh:
        with pytest.raises(ZeroDivisionError):
            async with mesh.tunnel("sink") as tunnel:
                await tunnel.send(b"x")
                await until(notes.exists)
                raise ZeroDivisionError
        pid = int(notes.read_text())

        def ended() -> bool:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            return False

        await until(ended)


async def test_sigterm_lets_what_is_under_way_finish(served, tmp_path):
    begun = tmp_path / "begun"
    async with served("slow", "--", "sh", "-c", f"touch {begun}; sleep 0.3; echo done", stops=True) as mesh:
        asking = asyncio.create_task(mesh.request("slow", b"", timeout=10))
        await until(begun.exists)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await asking).body == b"done\n"


async def test_a_line_about_every_message(served, capfd):
    async with served("shout", "-v", "--", "tr", "a-z", "A-Z") as mesh:
        await mesh.request("shout", b"hello")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("iris: serving 'shout'")
    [told] = [line for line in lines if "request from" in line]
    assert ": exit-0, 5 B in, 5 B out, " in told


async def test_a_line_about_every_message_for_programs(served, capfd):
    async with served("shout", "-v", "--", "tr", "a-z", "A-Z", json=True) as mesh:
        await mesh.request("shout", b"hello")
    first, told, *_ = map(json.loads, capfd.readouterr().err.splitlines())
    assert (first["serving"], first["ready"]) == ("shout", True)
    assert (told["pattern"], told["in"], told["out"], told["outcome"]) == ("request", 5, 5, "exit-0")


@pytest.mark.parametrize("argv", [("name",), ("name", "--echo", "--", "cat")])
async def test_a_command_or_an_echo(shell, argv):
    with pytest.raises(click.UsageError, match="give a command after --"):
        await shell(serve.serve, *argv)


async def test_a_command_that_is_not_there_is_found_out_at_once(shell):
    with pytest.raises(Failure, match="no-such-command-here: no such command") as caught:
        await shell(serve.serve, "name", "--", "no-such-command-here")
    assert exit_code(caught.value) == 2
