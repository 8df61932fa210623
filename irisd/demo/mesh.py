"""A real mesh of daemons for measurements and long tests: processes of their own, on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import grpc.aio

from iris_proto.v1 import control_pb2 as pb
from iris_proto.v1 import control_pb2_grpc
from irisd.keys import SEED_BYTES, ServiceKey
from irisd.keys.files import write_key_file

START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0
FIND_TIMEOUT = 10.0
"""Seconds in which daemons find each other by multicast; it takes less than one, where there is any."""


async def eventually(truth: Callable[[], bool]) -> None:
    """Wait until something is so that nobody will announce: another process's log, a count kept elsewhere."""
    while not truth():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


class DaemonProcess:
    """One ``irisd`` process.

    Attributes:
        url: Where apps attach.
        links: Where other daemons link, ``host:port``; known once it is ready.
    """

    def __init__(
        self, folder: Path, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.socket = folder / f"{name}.sock"
        self.url = f"unix://{self.socket}"
        self.log = folder / f"{name}.log"
        self.links = ""
        self._arguments = list(arguments)
        self._environment = dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None

    def seed_with(self, addresses: Sequence[str]) -> None:
        """From its next start on, begin with these nodes too."""
        self._arguments += [word for address in addresses for word in ("--seed", address)]

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: It ended or did not answer in time; the message has its last log lines.
        """
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "irisd",
                "run",
                "--name",
                self.name,
                "--socket",
                str(self.socket),
                "--listen",
                self.links or "127.0.0.1:0",
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
            )
        try:
            status = await self._answer()
        except TimeoutError:
            await self.kill()
            raise RuntimeError(f"irisd {self.name} did not answer in {START_TIMEOUT:.0f} s\n{self.tail()}") from None
        self.links = next(row.address for row in status.listeners if row.purpose == "links").removeprefix("tcp://")

    async def _answer(self) -> pb.Status:
        async with asyncio.timeout(START_TIMEOUT):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    return await self.status()
                if not self.running:
                    raise RuntimeError(f"irisd {self.name} ended at its start\n{self.tail()}")
                await asyncio.sleep(0.05)

    async def status(self) -> pb.Status:
        """What the daemon says of itself."""
        async with grpc.aio.insecure_channel(self.url) as channel:
            stub = control_pb2_grpc.ControlStub(channel)
            status: pb.Status = await stub.GetStatus(pb.GetStatusRequest(), timeout=5.0)
            return status

    async def no_multicast(self) -> str:
        """Why multicast does not work for it; empty: it does."""
        async with grpc.aio.insecure_channel(self.url) as channel:
            stub = control_pb2_grpc.ControlStub(channel)
            found: pb.Discovery = await stub.GetDiscovery(pb.ListRequest(), timeout=5.0)
        return "" if found.multicast.state == "on" else found.multicast.detail or found.multicast.state

    async def linked(self, peers: int) -> None:
        """Wait until it is linked to that many nodes."""
        async with asyncio.timeout(START_TIMEOUT):
            while True:
                status = await self.status()
                if sum(service.peers for service in status.services) >= peers:
                    return
                await asyncio.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    async def stop(self) -> int:
        """SIGTERM; return its exit code."""
        if not self.running:
            return self._process.returncode or 0 if self._process else 0
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """SIGKILL."""
        if self.running:
            self.signal(signal.SIGKILL)
            await self.ended()

    async def ended(self) -> int:
        """Wait for the end of the process; return its exit code."""
        assert self._process is not None, "not started"
        try:
            return await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    def tail(self, lines: int = 12) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


class Mesh:
    """Daemons of one service, each linked to all others; made and removed with the context.

    Args:
        nodes: How many.
        arguments: Of every daemon.
        service: Of the key they share.
        discover: Start them with nothing but the key: they find each other by multicast over the loopback
            interface. Otherwise each is told of those before it, and multicast is off. Where multicast
            proves impossible they are started anew with seeds, and :attr:`fallback` says why.
        environment: Of every daemon, beside this process's.

    Attributes:
        fallback: Why they did not find each other; empty: they did, or were not asked to.
    """

    def __init__(
        self,
        nodes: int,
        *arguments: str,
        service: str = "bench",
        discover: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._nodes = nodes
        self._discover = discover
        self.fallback = ""
        self._arguments = ("--log-level", "warning", *arguments)
        self._service = service
        self._environment = environment
        self._folder = tempfile.TemporaryDirectory(prefix="irisd-")
        self.folder = Path(self._folder.name)
        self.key = self.folder / "service.key"
        self.daemons: list[DaemonProcess] = []

    def __getitem__(self, index: int) -> DaemonProcess:
        return self.daemons[index]

    def make(self, name: str, *arguments: str, seeds: Sequence[str] = ()) -> DaemonProcess:
        """Another daemon of this mesh, not started yet."""
        seeding = [word for seed in seeds for word in ("--seed", seed)]
        if not self._discover:
            seeding += ["--multicast", "off"]
        words = ["--key", str(self.key), *self._arguments, *arguments, *seeding]
        return DaemonProcess(self.folder, name, words, self._environment)

    async def __aenter__(self) -> Mesh:
        text = ServiceKey.generate(self._service, os.urandom(SEED_BYTES)).to_text("made for a measurement")
        write_key_file(self.key, text)
        try:
            if self._discover:
                await self._find_each_other()
            if not self.daemons:
                await self._know_each_other()
        except BaseException:
            await self._stop()
            raise
        return self

    async def _find_each_other(self) -> None:
        """Start all at once; when multicast turns out not to work here, stop them and note why."""
        self.daemons = [self.make(f"node-{number + 1}") for number in range(self._nodes)]
        await asyncio.gather(*(daemon.start() for daemon in self.daemons))
        try:
            async with asyncio.timeout(FIND_TIMEOUT):
                await asyncio.gather(*(daemon.linked(self._nodes - 1) for daemon in self.daemons))
        except TimeoutError:
            why = [reason for daemon in self.daemons if (reason := await daemon.no_multicast())]
            if not why:
                raise
            await asyncio.gather(*(daemon.stop() for daemon in self.daemons))
            self.daemons, self._discover, self.fallback = [], False, why[0]

    async def _know_each_other(self) -> None:
        """Start one after the other, each with the addresses of those before it."""
        for number in range(self._nodes):
            daemon = self.make(f"node-{number + 1}", seeds=[other.links for other in self.daemons])
            self.daemons.append(daemon)
            await daemon.start()
        for daemon in self.daemons:
            await daemon.linked(self._nodes - 1)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await asyncio.gather(*(daemon.stop() for daemon in self.daemons))
        self._folder.cleanup()
