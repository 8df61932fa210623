"""``iris bench``: both ends as processes, on one node and on two."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .cli_iris_ground import DEADLINE, Mesh, environment, two_nodes, until


@pytest.fixture(scope="module")
def mesh():
    with two_nodes() as mesh:
        yield mesh


def other_ends(mesh: Mesh, on: str = "oak") -> list[str]:
    """Clusters of processes that were started to be measured to."""
    return [
        row.name for row in mesh.asked("ListClusters", on).clusters if row.name.startswith("bench-") and row.members
    ]


def test_by_itself(mesh):
    told = mesh.json("bench", "--seconds", "200ms", "--in-flight", "8", "--size", "100")
    published, (one, many), tunnel = told["publish"], told["request"], told["tunnel"]
    assert (told["size"], published["lost"]) == (100, 0)
    assert published["messages"] >= 256
    assert published["per_second"] == pytest.approx(published["messages"] / published["seconds"])
    assert [one["in_flight"], many["in_flight"]] == [1, 8]
    for requests in (one, many):
        assert requests["requests"] > 0
        assert 0 < requests["p50"] <= requests["p99"] <= requests["most"]
    assert tunnel["mb_per_second"] == pytest.approx(tunnel["bytes"] / tunnel["seconds"] / 1e6)
    until("the process at the other end is gone", lambda: not other_ends(mesh))


def test_between_nodes_and_for_people(mesh):
    served = mesh.background("bench", "--serve", "yard", on="elm")
    mesh.await_members("yard", 1)
    shown = mesh.iris("bench", "--to", "yard", "--seconds", "100ms").stdout.decode().splitlines()
    assert shown[0].startswith("to 'yard', lane ")
    assert [line.split("  ")[0] for line in shown[1:]] == [
        "WHAT",
        "published messages",
        "requests, 1 at a time",
        "requests, 64 at a time",
        "one tunnel, 64 KiB at a time",
    ]
    assert shown[2].endswith("none lost")
    again = mesh.json("bench", "--to", "yard", "--seconds", "100ms", "--only", "publish", "--size", "0")
    assert set(again) == {"to", "lane", "size", "publish"}
    assert again["publish"]["lost"] == 0
    assert served.told(signal.SIGTERM) == 0
    assert served.err == "iris: the other end of `iris bench --to yard`; ctrl-C ends it\n"
    mesh.await_members("yard", 0)


def test_large_bodies(mesh):
    told = mesh.json("bench", "--seconds", "100ms", "--size", "1048576", "--only", "request")
    assert [each["in_flight"] for each in told["request"]] == [1, 32]


def test_nothing_of_the_folder_it_runs_in_is_imported(mesh, tmp_path):
    (tmp_path / "click.py").write_text("raise SystemExit('the folder was imported')")
    script = Path(sys.executable).parent / "iris"  # a script's folder comes first, not the one it is run in
    url = f"unix://{mesh.socket('oak')}"
    done = subprocess.run(
        [script, "--url", url, "bench", "--seconds", "100ms", "--only", "tunnel"],
        cwd=tmp_path, env=environment(), capture_output=True, timeout=DEADLINE,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("what", ["publish", "request", "tunnel"])
def test_the_daemon_dies(mesh, what):
    ash = mesh.daemon("ash")
    measuring = mesh.background("bench", "--seconds", "60", "--only", what, on="ash")
    until("the other end is there", lambda: other_ends(mesh, "ash"))
    ash.kill()
    assert measuring.ended() == 1
    assert measuring.err.splitlines()[-1].startswith("iris: error: ")
    assert "Traceback" not in measuring.err
    assert "{" not in measuring.err


def test_it_is_interrupted_and_killed(mesh):
    for number, status in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        measuring = mesh.background("bench", "--seconds", "60", "--only", "request")
        until("the other end is there", lambda: other_ends(mesh))
        assert measuring.told(number) == status
        until("the process at the other end is gone", lambda: not other_ends(mesh))


def test_the_other_end_dies(mesh):
    served = mesh.background("bench", "--serve", "yard", on="elm")
    mesh.await_members("yard", 1)
    measuring = mesh.background("bench", "--to", "yard", "--seconds", "60", "--only", "request", "--json")
    until("it is measured", lambda: mesh.asked("GetStatus", "elm").services[0].pending > 0)
    served.kill()
    assert measuring.ended() in (1, 3)
    assert json.loads(measuring.err)["error"] in ("MemberLost", "NoMember")


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (("--to", "a", "--serve", "b"), 2, "this is one end or the other"),
        (("--to", "nobody"), 3, "nobody serves 'nobody'"),
        (("--size", "8388608", "--in-flight", "5"), 2, "with bodies of 8.0 MiB at most 4"),
        (("--serve", "x" * 181), 2, "1 to 180 bytes"),
        (("--to", ""), 2, "1 to 180 bytes"),
        (("--seconds", "1h"), 2, "at most 600 s"),
        (("--only", "survey"), 2, "survey"),
        (("--serve", "no spaces"), 2, "no spaces"),
    ],
)
def test_mistakes(mesh, argv, status, words):
    result = mesh.iris("bench", *argv, check=False)
    assert result.returncode == status
    assert words in result.stderr.decode()
    assert b"Traceback" not in result.stderr
