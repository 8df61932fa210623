"""``python -m bench``, run for real: irisd only, and as little as possible."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = "irisd-grpc-1,socket"
LITTLE = ["--quick", "--messages", "1000", "--seconds", "0.2"]

pytestmark = pytest.mark.timeout(110)


def bench(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench", *LITTLE, *arguments]


def test_a_quick_run_has_every_figure(tmp_path):
    only = ["pubsub", "roundtrip", "tunnel", "limit"]
    places = ["--json", str(tmp_path / "run.json"), "--figures", str(tmp_path)]
    done = subprocess.run(
        bench("--only", ",".join(only), "--systems", SYSTEMS, "--baseline", "socket", *places),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "run.json").read_text())

    assert not [row for row in run["rows"] if row["failed"]], run["rows"]
    assert {"python", "cores", "processor", "irisd-grpc-1", "socket", "command"} <= run["machine"].keys()
    measured = {(row["scenario"], row["system"], row["point"]): row["rounds"] for row in run["rows"]}
    systems = ["irisd-grpc-1", "socket"]
    expected = {(name, system, 0) for name in ("pubsub", "roundtrip", "tunnel") for system in systems}
    assert measured.keys() == expected | {("limit", "this machine", 0)}
    for system in systems:
        assert measured["pubsub", system, 0]["lost"] == [0.0]
        assert measured["pubsub", system, 0]["received/s"][0] > 0
        assert measured["roundtrip", system, 0]["p99.9 us"] >= measured["roundtrip", system, 0]["p50 us"]
        assert measured["tunnel", system, 0]["MB/s"][0] > 0
    verdicts = {goal["goal"]: goal["verdict"] for goal in run["goals"]}
    assert verdicts["publish/subscribe: irisd-grpc-1 to nats"] == "not measured"

    assert "irisd, grpc, 1 node" in done.stdout
    for name in only:
        ElementTree.fromstring((tmp_path / f"bench-{name}.svg").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(number, tmp_path):
    running = subprocess.Popen(
        bench("--only", "pubsub", "--systems", SYSTEMS, "--rounds", "1000", "--json", str(tmp_path / "run.json")),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert running.stderr is not None
    with running.stderr:
        for line in running.stderr:
            if "round 2" in line:
                break
        before = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(number)
        assert "interrupted" in running.stderr.read()
    assert running.wait(30) == 130
    assert before
    assert psutil.wait_procs(before, timeout=10)[1] == []
    assert json.loads((tmp_path / "run.json").read_text())["rows"]
