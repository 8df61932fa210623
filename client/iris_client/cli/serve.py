"""``iris serve``: a command, or an echo, as a member of a cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

import click

import iris_client as iris
from iris_client._balance import BALANCES, MAX_PRIORITY
from iris_client._model import DATA_BYTES
from iris_client.cli.command import Child, answer, end_all, environment
from iris_client.cli.completion import cluster_names
from iris_client.cli.options import Settings, connect, examples, tell_state, with_settings
from iris_client.cli.output import USAGE, Failure, note, note_json
from iris_client.cli.streams import Output
from iris_client.cli.values import count_of, printable, show_size, show_time
from iris_client.cli.waiting import first_of

TAIL_IN_MESSAGE: Final = 500  # characters of a command's last words that go into the error for people


class Server:
    """Answers for one cluster.

    Args:
        name: The cluster.
        argv: The command and its arguments; empty to echo.
        max_output: Called with the pattern for the most bytes an answer may have.
        verbose: Say a line about every message.
        as_json: Say it as JSON.
    """

    def __init__(
        self, name: str, argv: tuple[str, ...], max_output: Callable[[str], int], *, verbose: bool, as_json: bool
    ) -> None:
        self._name = name
        self._argv = argv
        self._max_output = max_output
        self._verbose = verbose
        self._as_json = as_json
        self._out = Output()

    def handlers(self, cluster: iris.Cluster, methods: tuple[str, ...], *, tunnels: bool) -> None:
        """Declare what the cluster handles: messages, or tunnels; an echo does both."""
        for method in methods:
            if tunnels or not self._argv:
                cluster.on_tunnel(method)(self.tunnel)
            if not tunnels or not self._argv:
                cluster.on_request(method)(self.request)
                cluster.on_survey(method)(self.survey)
                cluster.on_push(method)(self.push)
                cluster.on_broadcast(method)(self.broadcast)

    async def request(self, request: iris.Request) -> bytes:
        return await self._answer("request", request)

    async def survey(self, request: iris.Request) -> bytes:
        return await self._answer("survey", request)

    async def push(self, request: iris.Request) -> None:
        """Nobody waits for an answer: it goes to our own standard output."""
        await self._out.write(await self._answer("push", request))

    async def broadcast(self, request: iris.Request) -> None:
        await self._out.write(await self._answer("broadcast", request))

    async def close(self) -> None:
        await self._out.close()

    async def _answer(self, pattern: str, request: iris.Request) -> bytes:
        """Run the command over a message.

        Raises:
            iris.Reject: It failed, wrote too much, or cannot be given this message.
        """
        if not self._argv:
            self._say(pattern, request.sender, len(request.body), len(request.body), "echo", 0.0)
            return request.body
        started = time.perf_counter()
        waits = request.remaining
        try:
            env = environment(
                os.environ,
                cluster=self._name,
                pattern=pattern,
                method=request.method,
                sender=request.sender,
                content_type=request.content_type,
                timeout=waits if waits != float("inf") else None,
                headers=request.headers,
            )
        except ValueError as error:
            raise iris.Reject(str(error), code="bad_header") from None
        try:
            most = self._max_output(pattern)
            outcome = await answer(self._argv, request.body, env, most)
        except OSError as error:
            raise _cannot_start(self._argv[0], error) from None
        except asyncio.CancelledError:
            self._say(pattern, request.sender, len(request.body), 0, "ended: nobody waits any more", _since(started))
            raise
        if outcome.truncated:
            self._say(pattern, request.sender, len(request.body), 0, "ended: wrote too much", _since(started))
            raise iris.Reject(f"the command wrote more than {most} bytes", code="too_large")
        size = len(outcome.output)
        self._say(pattern, request.sender, len(request.body), size, outcome.code, _since(started))
        if outcome.status != 0:
            raise iris.Reject(_failed(outcome.code, outcome.tail), code=outcome.code, body=outcome.output)
        return outcome.output

    # -------------------------------------------------------------- tunnels

    async def tunnel(self, tunnel: iris.Tunnel) -> None:
        """Pipe a tunnel through a command, or back to where it came from."""
        started = time.perf_counter()
        if not self._argv:
            await tunnel.accept()
            moved = 0
            async for chunk in tunnel:
                moved += len(chunk)
                await tunnel.send(chunk)
            self._say("tunnel", tunnel.peer, moved, moved, "echo", _since(started))
            return
        try:
            env = environment(
                os.environ,
                cluster=self._name,
                pattern="tunnel",
                method=tunnel.method,
                sender=tunnel.peer,
                headers=tunnel.headers,
            )
        except ValueError as error:
            raise iris.Reject(str(error), code="bad_header") from None
        try:
            child = await Child.start(self._argv, env)
        except OSError as error:
            raise _cannot_start(self._argv[0], error) from None
        piping = _Piping(tunnel, child)
        try:
            await tunnel.accept()
            status = await piping.run()
        except BaseException:
            await child.end()
            raise
        code = f"exit-{status}" if status >= 0 else f"signal-{-status}"
        self._say("tunnel", tunnel.peer, piping.taken, piping.given, code, _since(started))
        if status != 0:
            raise iris.Reject(_failed(code, child.tail), code=code)

    def _say(self, pattern: str, sender: str, taken: int, given: int, how: str, took: float) -> None:
        if not self._verbose:
            return
        if self._as_json:
            told = {"pattern": pattern, "from": sender, "in": taken, "out": given, "outcome": how, "took": took}
            note_json(told)
        else:
            sizes = f"{show_size(taken)} in, {show_size(given)} out"
            note(f"iris: {pattern} from {printable(sender) or '-'}: {how}, {sizes}, {show_time(took)}")


class _Piping:
    """A tunnel on one side, a command's pipes on the other.

    Attributes:
        taken: Bytes that came out of the tunnel.
        given: Bytes that went into it.
    """

    def __init__(self, tunnel: iris.Tunnel, child: Child) -> None:
        self._tunnel = tunnel
        self._child = child
        self.taken = 0
        self.given = 0

    async def run(self) -> int:
        """Pipe until the command has ended; return its status.

        Raises:
            iris.TunnelBroken: The tunnel broke first.
        """
        feeding = asyncio.create_task(self._feed(), name="iris-tunnel-feed")
        ending = asyncio.create_task(self._drain(), name="iris-tunnel-drain")
        try:
            await asyncio.wait((feeding, ending), return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()  # a tunnel that broke ends the command
            return await ending
        finally:
            for task in (feeding, ending):
                task.cancel()
            await asyncio.gather(feeding, ending, return_exceptions=True)

    async def _feed(self) -> None:
        stdin = self._child.stdin
        try:
            async for chunk in self._tunnel:
                self.taken += len(chunk)
                stdin.write(chunk)
                await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return  # the command has read what it wanted
        stdin.close()

    async def _drain(self) -> int:
        while chunk := await self._child.stdout.read(DATA_BYTES):
            await self._tunnel.send(chunk)
            self.given += len(chunk)
        return await self._child.wait()


@click.command(
    short_help="Serve a name with a command.",
    epilog=examples(
        "iris serve shout -- tr a-z A-Z",
        "iris serve databases --concurrency 4 -- sqlite3 shop.db",
        "iris serve greet -- sh -c 'echo \"hello $IRIS_SENDER\"'",
        "iris serve storage --tunnel -- sh -c 'cat > /srv/in.$$'",
        "iris serve echo --echo",
    ),
)
@click.argument("name", shell_complete=cluster_names)
@click.argument("command", nargs=-1, metavar="[-- COMMAND [ARG]...]", type=click.UNPROCESSED)
@click.option("--echo", is_flag=True, help="No command: answer with what was sent. Handles tunnels too.")
@click.option("--tunnel", "tunnels", is_flag=True, help="Serve tunnels: each is piped to a command of its own.")
@click.option(
    "--method",
    "methods",
    metavar="NAME",
    multiple=True,
    help="Answer for this method; repeatable. [default: none named]",
)
@click.option(
    "--concurrency",
    metavar="N",
    type=click.IntRange(1, 65_536),
    default=os.cpu_count() or 1,
    help="Commands at a time.  [default: one per core]",
)
@click.option(
    "--balance",
    type=click.Choice(list(BALANCES)),
    default="p2c",
    show_default=True,
    help="How callers share calls out among the members of NAME.",
)
@click.option(
    "--priority",
    metavar="LEVEL",
    type=click.IntRange(0, MAX_PRIORITY),
    default=0,
    help="Used only while no member of a better level can take a call; 0 is the best.  [default: 0]",
)
@click.option("-v", "--verbose", is_flag=True, help="A line on standard error about every message.")
@with_settings
async def serve(
    settings: Settings,
    name: str,
    command: tuple[str, ...],
    echo: bool,
    tunnels: bool,
    methods: tuple[str, ...],
    concurrency: int,
    balance: str,
    priority: int,
    verbose: bool,
) -> None:
    """Serve cluster NAME with a command: a request's body is its input, its output is the reply.

    The command runs once per message, without a shell. It finds IRIS_METHOD, IRIS_SENDER, IRIS_PATTERN, IRIS_CLUSTER,
    IRIS_CONTENT_TYPE, IRIS_TIMEOUT (seconds left) and IRIS_HEADER_<KEY> in its environment. When it exits with
    anything but 0, the caller gets an error with the code and the last it wrote to standard error. It is ended, with
    all it started, when its caller waits no longer. Surveys are answered like requests; what it writes for pushes and
    broadcasts goes to standard output. SIGTERM and ctrl-C let what is under way finish.
    """
    if echo == bool(command):
        raise click.UsageError("give a command after --, as in: iris serve NAME -- tr a-z A-Z; or --echo")
    if os.name != "posix":
        raise Failure("iris serve needs Linux or macOS", hint="iris_client.Cluster serves names anywhere")
    if command and shutil.which(command[0]) is None:
        raise Failure(f"{command[0]}: no such command", code=USAGE, kind="NoCommand")
    logging.basicConfig(format="iris: %(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    cluster = iris.Cluster(name, concurrency=concurrency, balance=balance, priority=priority)
    async with connect(settings) as mesh:

        def most(pattern: str) -> int:
            return mesh.max_request if pattern == "request" else mesh.max_body

        server = Server(name, command, most, verbose=verbose, as_json=settings.json)
        server.handlers(cluster, methods or ("",), tunnels=tunnels)
        stop = _stop_on_signals(as_json=settings.json)
        tell_state(mesh, as_json=settings.json)
        async with mesh.join(cluster) as joined:
            if settings.json:
                note_json({"serving": name, "ready": joined.ready, "pid": os.getpid()})
            else:
                note(f"iris: serving {name!r}, {count_of(concurrency, 'command')} at a time; ctrl-C ends it")
            await first_of(joined.wait_closed(), stop.wait())
        await server.close()


def _stop_on_signals(*, as_json: bool) -> asyncio.Event:
    """The first SIGTERM or SIGINT drains; the second ends the process now."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask(number: signal.Signals) -> None:
        if stop.is_set():
            end_all()
            os._exit(128 + number)
        if as_json:
            note_json({"draining": True})
        else:
            note("iris: finishing what is under way; once more ends it now")
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    return stop


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 6)


def _failed(code: str, tail: str) -> str:
    said = printable(tail[-TAIL_IN_MESSAGE:].replace("\n", "; "))
    return f"the command ended with {code}" + (f": {said}" if said else "")


def _cannot_start(name: str, error: OSError) -> iris.Reject:
    note(f"iris: error: {name}: {error.strerror}")
    return iris.Reject(f"the command cannot be started: {error.strerror}", code="no_command")
