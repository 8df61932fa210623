"""Every file of examples/, and the app of the README, run for real: two daemons, members on both, the caller on one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from iris_proto.v1 import control_pb2, control_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DEADLINE = 20.0  # seconds for anything that should take milliseconds

pytestmark = pytest.mark.timeout(60)


def until(what: str, found: Callable[[], object]) -> None:
    """Look again until ``found`` says so."""
    deadline = time.monotonic() + DEADLINE
    while not found():
        assert time.monotonic() < deadline, f"not so within {DEADLINE:g} s: {what}"
        time.sleep(0.01)


class Process:
    """A process whose output goes to a file, so that it never waits for us."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def says(self, text: str) -> None:
        until(f"{self.log.name} says {text!r}", lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output, self.output

    def end(self) -> int:
        """Tell it to stop; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Ground:
    """Two daemons of one service, and what runs beside them. Closed even when it did not come up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[Process] = []
        self.urls = [f"unix://{folder}/{name}.sock" for name in ("north", "south")]
        self.daemons: list[Process] = []

    def start(self) -> None:
        key = self._folder / "shop.key"
        make = [sys.executable, "-m", "irisd", "keys", "new", "shop", "-o", str(key)]
        subprocess.run(make, check=True, env=self._env(), stderr=subprocess.DEVNULL, timeout=DEADLINE)
        settings = ["run", "--key", str(key), "--preset", "local", "--listen", "127.0.0.1:0"]
        settings += ["--multicast", "off", "--log-format", "json"]
        north = self._start(self._daemon(settings, "north"))
        north.says("daemon.started")
        links = next(json.loads(line) for line in north.output.splitlines() if "daemon.started" in line)["links"]
        south = self._start([*self._daemon(settings, "south"), "--seed", links[0]])
        south.says("link.up")
        self.daemons = [north, south]

    def _daemon(self, settings: list[str], name: str) -> list[str]:
        return ["irisd", *settings, "--name", name, "--socket", f"{self._folder}/{name}.sock"]

    def _env(self, at: int = 0) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(self._folder), "IRIS_URL": self.urls[at]}

    def _start(self, module: list[str], at: int = 0) -> Process:
        what = module if module[0].endswith(".py") else ["-m", *module]
        log = self._folder / f"{len(self._processes)}.log"
        process = Process([sys.executable, *what], log, self._env(at))
        self._processes.append(process)
        return process

    def serve(self, example: str | Path, count: int, *arguments: str) -> list[Process]:
        """Start an example's members (or listeners), on both daemons in turn."""
        path = EXAMPLES / example if isinstance(example, str) else example
        return [self._start([str(path), *arguments], at) for at in (0, 1, 0, 1)[:count]]

    def uvicorn(self, app: str) -> Process:
        return self._start(["uvicorn", "--app-dir", str(EXAMPLES), "--host", "127.0.0.1", "--port", "0", app], 1)

    def call(self, example: str | Path, *arguments: str) -> str:
        """Run an example's other half at the second daemon; return what it says."""
        path = EXAMPLES / example if isinstance(example, str) else example
        done = subprocess.run(
            [sys.executable, str(path), *arguments],
            env=self._env(1),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def members(self, cluster: str, count: int) -> None:
        """Wait until the caller's daemon knows so many members."""
        request = control_pb2.ListRequest()
        self._knows(
            f"{count} members of {cluster}",
            lambda control: (
                sum(c.members for c in control.ListClusters(request).clusters if c.name == cluster) == count
            ),
        )

    def subscribers(self, topic_filter: str, count: int, group: str = "") -> None:
        """Wait until the caller's daemon knows so many subscribers."""
        request, wanted = control_pb2.ListRequest(), (topic_filter, group)
        self._knows(
            f"{count} subscribers of {topic_filter}",
            lambda control: (
                sum(t.subscribers for t in control.ListTopics(request).topics if (t.filter, t.group) == wanted) == count
            ),
        )

    def _knows(self, what: str, found: Callable[[control_pb2_grpc.ControlStub], bool]) -> None:
        with grpc.insecure_channel(self.urls[1].replace("unix://", "unix:")) as channel:
            control = control_pb2_grpc.ControlStub(channel)
            until(what, lambda: self._alive() and found(control))

    def _alive(self) -> bool:
        """Nobody waits for what a process that failed was to do."""
        for process in self._processes:
            assert process.process.poll() in (None, 0), process.output
        return True

    def close(self) -> None:
        """End everything, members before daemons."""
        for process in reversed(self._processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.end()


@pytest.fixture
def ground(run_dir: Path) -> Iterator[Ground]:
    made = Ground(run_dir)
    try:
        made.start()
        yield made
    finally:
        made.close()
    assert [daemon.process.returncode for daemon in made.daemons] == [0, 0]


def ended_well(processes: list[Process]) -> list[str]:
    """End members; return what each said."""
    assert [process.end() for process in processes] == [0] * len(processes), [p.output for p in processes]
    return [process.output for process in processes]


def test_request(ground: Ground) -> None:
    members = ground.serve("request.py", 2, "serve")
    ground.members("weather", 2)
    said = ground.call("request.py").splitlines()
    assert said == [
        "Oslo: -3.5 °C",
        "rejected: unknown-city, executed: yes",
        "nobody there, at once, executed: no",
    ]
    assert ended_well(members) == ["", ""]


def test_push(ground: Ground) -> None:
    members = ground.serve("push.py", 2, "serve")
    ground.members("thumbnailers", 2)
    assert ground.call("push.py") == "10 jobs handed out\n"
    until("all jobs done", lambda: sum(member.output.count("done: ") for member in members) == 10)
    jobs = "".join(ended_well(members)).split("\n")
    assert sorted(job for job in jobs if job) == [f"done: picture-{number}.jpg" for number in range(10)]
    assert all("done: " in member.output for member in members)


def test_broadcast(ground: Ground) -> None:
    members = ground.serve("broadcast.py", 3, "serve")
    ground.members("caches", 3)
    assert ground.call("broadcast.py") == "queued to 3 members\n"
    for member in members:
        member.says("forget user-7: done\n")
    ended_well(members)


def test_survey(ground: Ground) -> None:
    members = ground.serve("survey.py", 3, "serve")
    ground.members("printers", 3)
    *answers, summary = ground.call("survey.py").splitlines()
    assert summary == "asked 3, answered 3, silent: ()"
    pids = {json.loads(answer.partition(": ")[2])["pid"] for answer in answers}
    assert pids == {member.process.pid for member in members}
    assert sum("@north/" in answer for answer in answers) == 2 and sum("@south/" in answer for answer in answers) == 1
    ended_well(members)


def test_pubsub(ground: Ground) -> None:
    listeners = ground.serve("pubsub.py", 2, "listen")
    ground.subscribers("readings.*", 2)
    assert ground.call("pubsub.py") == "published\n"
    for listener in listeners:
        assert listener.process.wait(DEADLINE) == 0
        said = listener.output.splitlines()
        kitchen = [line for line in said if line.startswith("readings.kitchen")]
        assert kitchen == [f"readings.kitchen: {20 + number / 10} °C" for number in range(5)]
        assert "lost" not in listener.output


def test_group(ground: Ground) -> None:
    members = ground.serve("group.py", 2, "serve")
    ground.subscribers("orders.*", 2, "billing")
    assert ground.call("group.py") == "20 orders published\n"
    until("all orders billed", lambda: sum(member.output.count("billed") for member in members) == 20)
    billed = [re.findall(r"order (\d+)", said) for said in ended_well(members)]
    assert sorted(map(int, billed[0] + billed[1])) == list(range(20))
    assert all(billed)


def test_watch(ground: Ground) -> None:
    members = ground.serve("watch.py", 2, "serve")
    ground.members("lamps", 2)
    [watcher] = ground.serve("watch.py", 1)
    watcher.says("lamps: 2\n")
    ended_well(members[:1])
    watcher.says("lamps: 1\n")
    ended_well(members[1:])
    assert watcher.process.wait(DEADLINE) == 0
    assert watcher.output.splitlines() == ["lamps: 2", "lamps: 1", "lamps: 0"]


def test_tunnel(ground: Ground, tmp_path: Path) -> None:
    members = ground.serve("tunnel.py", 1, "serve")
    ground.members("storage", 1)
    file = tmp_path / "numbers.bin"
    file.write_bytes(b"".join(hashlib.sha256(bytes([n])).digest() * 32_768 for n in range(5)))
    assert ground.call("tunnel.py", str(file)) == f"numbers.bin: {5 << 20} bytes, the same at both ends\n"
    assert "tunnel.py: " in ground.call("tunnel.py")
    ended_well(members)


def test_sync(ground: Ground) -> None:
    members = ground.serve("sync.py", 2, "serve")
    ground.members("primes", 2)
    assert ground.call("sync.py") == "primes: 2 3 5 7 11 13 17 19 23 29\n"
    ended_well(members)


def test_fastapi(ground: Ground) -> None:
    stations = ground.serve("request.py", 1, "serve")
    web = ground.uvicorn("fastapi_app:app")
    web.says("Uvicorn running on")
    ground.members("weather", 1)
    ground.members("web", 1)
    found = re.search(r"running on (http://127\.0\.0\.1:\d+)", web.output)
    assert found
    with httpx.Client(base_url=found[1], trust_env=False, timeout=DEADLINE) as client:
        assert client.get("/weather/Oslo").json() == {"city": "Oslo", "celsius": -3.5}
        refused = client.get("/weather/Atlantis")
        assert (refused.status_code, refused.json()) == (404, {"detail": "unknown-city"})
        assert client.get("/peers").json() == {"asked": 1, "answered": 1}
        ended_well(stations)
        ground.members("weather", 0)
        assert client.get("/weather/Oslo").status_code == 503
    web.end()
    assert "Application shutdown complete" in web.output and "Traceback" not in web.output


def test_the_app_of_the_readme(ground: Ground, tmp_path: Path) -> None:
    programs = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S))
    assert set(programs) == {"greeter.py", "hello.py"}
    for name, code in programs.items():
        (tmp_path / name).write_text(code)
    members = ground.serve(tmp_path / "greeter.py", 2)
    ground.members("greeters", 2)
    assert ground.call(tmp_path / "hello.py") == "hello world\n"
    ended_well(members)


def test_every_example_is_run() -> None:
    """A new example wants a test here; one inside another framework has a name of its own."""
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    missing = {path.stem.removesuffix("_app") for path in EXAMPLES.glob("*.py")} - tested
    assert not missing, f"examples nobody runs: {sorted(missing)}"
