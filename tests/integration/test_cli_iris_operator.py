"""What operators see and do: tables, watching, completion, tokens, draining, daemons that come and go."""

from __future__ import annotations

import json
import os
import signal

import pytest

from .cli_iris_ground import Mesh, environment, until


@pytest.fixture
def mesh(run_dir):
    mesh = Mesh(run_dir)
    yield mesh
    mesh.end()


def test_tables(mesh):
    mesh.daemon("oak")
    mesh.daemon("elm")
    mesh.await_peers(1)
    assert b"nobody serves a name" in mesh.iris("clusters").stdout
    with mesh.serving("shout", "--", "tr", "a-z", "A-Z", on="elm"):
        reader = mesh.background("subscribe", "orders.*", "--group", "billing")
        mesh.await_subscribers("orders.*", 1)
        mesh.iris("request", "shout", "x")

        status = mesh.iris("status").stdout.decode()
        assert status.startswith("oak: irisd ")
        assert f"unix://{mesh.socket('oak')}" in status
        assert "SERVICE  KEY " in status
        told = mesh.json("status")
        [service] = told["services"]
        assert (service["service"], service["peers"], service["clusters"]) == ("shop", 1, 1)
        assert service["counters"]

        nodes = {row["name"]: row for row in mesh.json("nodes")["nodes"]}
        assert {name: row["state"] for name, row in nodes.items()} == {"oak": "self", "elm": "alive"}
        assert nodes["elm"]["address"].rpartition("//")[2].startswith("127.0.0.1:")
        shown = mesh.iris("nodes").stdout.decode().splitlines()
        assert shown[0].split()[:3] == ["NODE", "STATE", "FOR"]
        assert len(shown) == 3

        [cluster] = mesh.json("clusters")["clusters"]
        assert (cluster["cluster"], cluster["members"]) == ("shout", 1)
        assert [part["name"] for part in cluster["nodes"]] == ["elm"]
        assert "request" in cluster["patterns"]
        assert b"elm 1" in mesh.iris("clusters").stdout

        [topic] = mesh.json("topics")["topics"]
        assert (topic["filter"], topic["group"], topic["subscribers"]) == ("orders.*", "billing", 1)
        assert b"\x1b" not in mesh.iris("nodes").stdout + mesh.iris("clusters").stdout
        assert mesh.iris("status", "--counters").stdout.startswith(b"SERVICE  COUNTER")
        reader.told(signal.SIGTERM)


def test_events_tell_who_comes_and_goes(mesh):
    mesh.daemon("oak")
    shown = mesh.background("events")
    told = mesh.background("events", "shout", "--json", "--no-picture")
    until("the picture is shown", lambda: b"node oak self" in shown.out)

    def members() -> list[tuple[str, int]]:
        changes = [json.loads(line) for line in told.out.splitlines()]
        return [(change["name"], change["members"]) for change in changes if change["cluster"]]

    elm = mesh.daemon("elm")
    until("a node has come", lambda: b"node elm alive" in shown.out)
    with mesh.serving("shout", "--", "cat", on="oak"), mesh.serving("shout", "--", "cat", on="elm", members=2):
        until("both have come", lambda: members() == [("oak", 1), ("elm", 1)])
        now = mesh.iris("events", "shout", "--now").stdout.decode().splitlines()
        assert sorted(line.partition(" ")[2] for line in now if "member" in line) == [
            "shout: 1 member at elm",
            "shout: 1 member at oak",
        ]
        elm.process.kill()
        until("its node is gone, and its member", lambda: members()[2:] == [("elm", 0)])
        states = [json.loads(line) for line in told.out.splitlines()]
        assert any(c["name"] == "elm" and c["state"] in ("suspect", "dead") and not c["cluster"] for c in states)
    until("the last is gone", lambda: members()[3:] == [("oak", 0)])
    until("it is shown", lambda: b"shout: no members at oak" in shown.out)
    assert (shown.told(signal.SIGINT), shown.err) == (0, "")
    assert told.told(signal.SIGINT) == 0


def test_doctor_explains_how_peers_are_found(mesh):
    mesh.daemon("oak", "--multicast", "auto")
    mesh.daemon("elm", "--multicast", "off", "--seed", "127.0.0.1:1")
    mesh.await_peers(1)
    oak, elm = mesh.json("nodes")["nodes"]
    if oak["state"] != "self":
        oak, elm = elm, oak

    told = mesh.json("doctor", on="elm")
    assert told["multicast"]["state"] == "off"
    [service] = told["services"]
    assert service["node"] == elm["node"]
    assert service["advertised_because"]
    assert "127.0.0.1:1" in [row["seed"] for row in service["seeds"]]

    def outcomes() -> dict[str, str]:
        [service] = mesh.json("doctor", on="elm")["services"]
        return {row["addresses"][0]: row["outcome"] for row in service["candidates"]}

    until("the dial of nobody has ended", lambda: outcomes().get("127.0.0.1:1") == "unreachable")
    assert sorted(outcomes().values()) == ["linked", "unreachable"]
    shown = mesh.iris("doctor", on="elm").stdout.decode()
    assert "multicast: off" in shown
    assert "127.0.0.1:1 is not reachable" in shown

    until("multicast is up or has failed", lambda: mesh.json("doctor")["multicast"]["state"] in ("on", "unavailable"))
    told = mesh.json("doctor")
    assert told["services"][0]["advertised"] == [mesh.links()[0]]
    assert told["advice"] or told["multicast"]["state"] == "on"


def test_watching_survives_a_daemon_that_restarts(mesh):
    first = mesh.daemon("oak")
    watching = mesh.background("nodes", "--watch", "50ms", "--json", "--timeout", "15s")

    def seen() -> set[str]:
        lines = watching.out.split(b"\n")[:-1]
        return {row["node"] for line in lines for row in json.loads(line)["nodes"]}

    until("it shows the node", lambda: len(seen()) == 1)
    assert first.told(signal.SIGTERM) == 0
    mesh.daemon("oak")
    until("it shows the new one", lambda: len(seen()) == 2)
    assert watching.told(signal.SIGINT) == 130
    assert watching.err == ""


def test_names_are_completed_from_the_daemon(mesh):
    mesh.daemon("oak")

    def complete(*words: str) -> list[str]:
        asked = {
            "_IRIS_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["iris", *words]),
            "COMP_CWORD": str(len(words)),
        }
        lines = mesh.iris(**asked).stdout.decode().splitlines()
        return [line.partition(",")[2] for line in lines if line]

    reader = mesh.background("subscribe", "orders.new")
    with mesh.serving("databases", "--echo"):
        mesh.await_subscribers("orders.new", 1)
        assert complete("request", "data") == ["databases"]
        assert complete("tunnel", "") == ["databases"]
        assert complete("request", "x") == []
        assert complete("publish", "or") == ["orders.new"]
        assert complete("subscribe", "or") == ["orders.new"]
        assert complete("events", "data") == ["databases"]
        asked = ["--url", f"unix://{mesh.socket('oak')}", "request", "data"]
        assert complete(*asked) == ["databases"]
    reader.kill()


def test_a_tcp_listener_wants_its_token(mesh):
    token, wrong = mesh.folder / "token", mesh.folder / "wrong"
    for path, text in ((token, "t" * 40), (wrong, "w" * 40)):
        path.write_text(text)
        path.chmod(0o600)
    mesh.daemon("oak", "--attach-tcp", "127.0.0.1:0", "--token-file", str(token))
    [url] = [
        row["address"]
        for row in mesh.json("status")["listeners"]
        if row["address"].startswith("tcp://") and row["purpose"] == "attach"
    ]
    for command in (("status",), ("request", "nobody", "x")):
        for more in ((), ("--token-file", str(wrong))):
            refused = mesh.iris("--url", url, *command, *more, check=False)
            assert refused.returncode == 4, refused
            assert b"--token-file" in refused.stderr
            assert b"t" * 40 not in refused.stderr
    assert mesh.iris("--url", url, "--token-file", str(token), "status").returncode == 0
    assert mesh.iris("--url", url, "status", IRIS_TOKEN_FILE=str(token)).returncode == 0
    assert mesh.iris("--url", url, "request", "nobody", "x", check=False, IRIS_TOKEN_FILE=str(token)).returncode == 3


def test_the_command_may_start_before_its_daemon(mesh):
    asking = mesh.background("request", "shout", "hello", "--timeout", "15s")
    looking = mesh.background("status", "--timeout", "15s")
    mesh.daemon("oak")
    assert looking.ended() == 0
    assert asking.ended() == 3, asking.err  # it found the daemon; nobody serves the name


def test_serving_outlives_its_daemon(mesh):
    first = mesh.daemon("oak")
    with mesh.serving("shout", "--", "tr", "a-z", "A-Z"):
        first.kill()
        mesh.daemon("oak")
        mesh.await_members("shout", 1)
        assert mesh.iris("request", "shout", "again").stdout == b"AGAIN"


def test_draining_finishes_what_is_under_way_and_a_second_signal_does_not_wait(mesh):
    mesh.daemon("oak")
    begun, pid = mesh.folder / "begun", mesh.folder / "pid"
    server = mesh.background("serve", "slow", "--", "sh", "-c", f"touch {begun}; sleep 0.5; echo done")
    mesh.await_members("slow", 1)
    asking = mesh.background("request", "slow", "x", "--timeout", "15s")
    until("the command runs", begun.exists)
    assert server.told(signal.SIGTERM) == 0
    assert (asking.ended(), asking.out) == (0, b"done\n")
    mesh.await_members("slow", 0)

    script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; trap '' TERM; while true; do sleep 1; done"
    server = mesh.background("serve", "endless", "--", "sh", "-c", script)
    mesh.await_members("endless", 1)
    asking = mesh.background("request", "endless", "x", "--timeout", "15s")
    until("the command runs", pid.exists)
    server.process.send_signal(signal.SIGINT)
    until("it drains", lambda: "once more ends it now" in server.err)
    assert server.told(signal.SIGINT) == 130
    assert asking.ended() == 1

    def gone() -> bool:
        try:
            os.kill(int(pid.read_text()), 0)
        except ProcessLookupError:
            return True
        return False

    until("the command was ended too", gone)


def test_no_secret_in_the_environment_of_a_command(mesh):
    """A command gets what iris was given, and what the message says; a caller cannot set anything else."""
    mesh.daemon("oak")
    with mesh.serving("env", "--", "env"):
        out = mesh.iris("request", "env", "x", "-H", "PATH:/evil", "-H", "ld_preload:x").stdout.decode()
    found = dict(line.partition("=")[::2] for line in out.splitlines())
    assert found["PATH"] == environment()["PATH"]
    assert found["IRIS_HEADER_PATH"] == "/evil"
    assert "LD_PRELOAD" not in found
    assert found["IRIS_CLUSTER"] == "env"
    assert 0 < float(found["IRIS_TIMEOUT"]) <= 5
