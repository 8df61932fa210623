"""Real daemons, and the ``iris`` command as a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from iris_proto.v1 import control_pb2, control_pb2_grpc

DEADLINE = 20.0  # seconds for anything that should take milliseconds


def until(what: str, found: Callable[[], object]) -> None:
    """Look again until ``found`` says so."""
    ends = time.monotonic() + DEADLINE
    while not found():
        assert time.monotonic() < ends, f"not so within {DEADLINE:g} s: {what}"
        time.sleep(0.01)  # between two looks at the state that is awaited


def environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "NO_COLOR": "1", "LC_ALL": "C.UTF-8", **more}


class Background:
    """A process that runs beside the test; its output goes to files, so that it never waits for us."""

    def __init__(self, argv: list[str], folder: Path, name: str, stdin: Any = subprocess.DEVNULL, **more: str) -> None:
        self.out_path, self.err_path = folder / f"{name}.out", folder / f"{name}.err"
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            self.process = subprocess.Popen(argv, stdin=stdin, stdout=out, stderr=err, env=environment(**more))

    @property
    def out(self) -> bytes:
        return self.out_path.read_bytes()

    @property
    def err(self) -> str:
        return self.err_path.read_text()

    def told(self, number: int) -> int:
        """Send a signal; return the exit status."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end; return the exit status."""
        return self.process.wait(DEADLINE)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.ended()


@contextmanager
def two_nodes() -> Iterator[Mesh]:
    """Two daemons of one service, ``oak`` and ``elm``, linked."""
    folder = Path(tempfile.mkdtemp(prefix="irisd-", dir="/tmp"))
    mesh = Mesh(folder)
    try:
        mesh.daemon("oak")
        mesh.daemon("elm")
        mesh.await_peers(1)
        mesh.await_peers(1, on="elm")
        yield mesh
    finally:
        mesh.end()
        shutil.rmtree(folder, ignore_errors=True)


class Mesh:
    """Daemons of one service on loopback.

    Attributes:
        folder: Where sockets, logs and outputs are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._begun: list[Background] = []
        self._daemons: dict[str, Background] = {}
        self._count = 0
        self.key = folder / "shop.key"
        subprocess.run(
            [sys.executable, "-m", "irisd", "keys", "new", "shop", "-o", str(self.key)],
            check=True,
            env=environment(),
            timeout=DEADLINE,
        )

    def daemon(self, name: str, *arguments: str) -> Background:
        """Start a daemon, linked to those that run; return once it answers."""
        seeds = [word for address in self.links() for word in ("--seed", address)]
        begun = self._start(
            [
                *(sys.executable, "-m", "irisd", "run", "--preset", "local", "--multicast", "off", "--name", name),
                *("--key", str(self.key), "--listen", "127.0.0.1:0", "--socket", str(self.socket(name))),
                *(*seeds, *arguments),
            ],
            name,
        )
        self._daemons[name] = begun
        until(f"{name} is up", lambda: "daemon.started" in begun.err or begun.process.poll() is not None)
        assert begun.process.poll() is None, begun.err
        return begun

    def links(self) -> list[str]:
        """Where the running daemons take links."""
        return [
            row.address.partition("://")[2]
            for name, begun in self._daemons.items()
            if begun.process.poll() is None
            for row in self.asked("GetStatus", name).listeners
            if row.purpose == "links"
        ]

    def socket(self, name: str) -> Path:
        return self.folder / f"{name}.sock"

    def iris(
        self,
        *argv: str,
        on: str = "oak",
        stdin: bytes | None = None,
        check: bool = True,
        timeout: float = DEADLINE,
        **more: str,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``iris`` to its end."""
        more = {"IRIS_URL": f"unix://{self.socket(on)}", **more}
        result = subprocess.run(
            [sys.executable, "-m", "iris_client.cli", *argv],
            input=stdin if stdin is not None else b"",
            capture_output=True,
            env=environment(**more),
            timeout=timeout,
        )
        if check:
            assert result.returncode == 0, (argv, result)
        return result

    def json(self, *argv: str, on: str = "oak") -> Any:
        return json.loads(self.iris(*argv, "--json", on=on).stdout)

    def background(self, *argv: str, on: str = "oak", stdin: Any = subprocess.DEVNULL, **more: str) -> Background:
        """Start ``iris`` beside the test."""
        self._count += 1
        more = {"IRIS_URL": f"unix://{self.socket(on)}", **more}
        command = [sys.executable, "-m", "iris_client.cli", *argv]
        return self._start(command, f"iris-{self._count}-{argv[0]}", stdin=stdin, **more)

    def asked(self, method: str, on: str = "oak") -> Any:
        """What the daemon says of itself, asked without a process of our own."""
        request = control_pb2.GetStatusRequest() if method == "GetStatus" else control_pb2.ListRequest()
        with grpc.insecure_channel(f"unix://{self.socket(on)}") as channel:
            stub = control_pb2_grpc.ControlStub(channel)
            return getattr(stub, method)(request, timeout=DEADLINE, wait_for_ready=True)

    def await_members(self, cluster: str, wanted: int, on: str = "oak") -> None:
        def found() -> int:
            return sum(row.members for row in self.asked("ListClusters", on).clusters if row.name == cluster)

        until(f"{cluster} has {wanted} members", lambda: found() == wanted)

    def await_subscribers(self, topic: str, wanted: int, on: str = "oak") -> None:
        def found() -> int:
            return sum(row.subscribers for row in self.asked("ListTopics", on).topics if row.filter == topic)

        until(f"{topic} has {wanted} subscribers", lambda: found() == wanted)

    def await_peers(self, wanted: int, on: str = "oak") -> None:
        until(f"{on} has {wanted} peers", lambda: self.asked("GetStatus", on).services[0].peers == wanted)

    def _start(self, argv: list[str], name: str, stdin: Any = subprocess.DEVNULL, **more: str) -> Background:
        begun = Background(argv, self.folder, name, stdin, **more)
        self._begun.append(begun)
        return begun

    def end(self) -> None:
        for begun in reversed(self._begun):
            begun.kill()

    @contextmanager
    def serving(self, name: str, *argv: str, on: str = "oak", members: int = 1) -> Iterator[Background]:
        """Serve ``name`` while the block runs; then SIGTERM, which must end it well."""
        server = self.background("serve", name, *argv, on=on)
        self.await_members(name, members)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                assert server.told(signal.SIGTERM) == 0, server.err
