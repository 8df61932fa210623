"""Every pattern from the shell: ``iris`` processes at two daemons, and what crosses between them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess

import pytest

from .cli_iris_ground import two_nodes, until


@pytest.fixture(scope="module")
def mesh():
    with two_nodes() as mesh:
        yield mesh


def test_a_request_is_answered_at_the_other_node(mesh):
    with mesh.serving("shout", "--", "tr", "a-z", "A-Z", on="elm"):
        assert mesh.iris("request", "shout", "hello").stdout == b"HELLO"
        assert mesh.iris("request", "shout", stdin=b"piped\n").stdout == b"PIPED\n"
        told = mesh.json("request", "shout", "hello")
        assert told["body"] == "HELLO"
        assert "elm" in told["member"]
        large = os.urandom(3_000_000).replace(b"\n", b"")
        assert mesh.iris("request", "shout", stdin=large).stdout == large.upper()
    mesh.await_members("shout", 0)


def test_requests_are_shared_among_members_of_both_nodes(mesh):
    with (
        mesh.serving("echo", "--echo", on="oak"),
        mesh.serving("echo", "--echo", on="elm", members=2),
    ):
        told = mesh.json("request", "echo", "x", "--repeat", "200", "--concurrency", "8")
        assert (told["replies"], told["errors"]) == (200, {})
        assert len(told["members"]) == 2
        assert sum(told["members"].values()) == 200
        shown = mesh.iris("request", "echo", "x", "--repeat", "10").stdout.decode()
        assert shown.startswith("10 replies in ")


def test_headers_method_and_failure_cross(mesh):
    script = 'test "$IRIS_HEADER_TRACE" = 7 || { echo "no trace, $IRIS_METHOD" >&2; exit 3; }; printf ok'
    with mesh.serving("strict", "--method", "get", "--", "sh", "-c", script, on="elm"):
        assert mesh.iris("request", "strict", "x", "--method", "get", "-H", "trace:7").stdout == b"ok"
        failed = mesh.iris("request", "strict", "x", "--method", "get", "--json", check=False)
        told = json.loads(failed.stderr)
        assert (failed.returncode, told["error"], told["code"], told["executed"]) == (1, "Rejected", "exit-3", "yes")
        assert "no trace, get" in told["message"]
        assert mesh.iris("request", "strict", "x", check=False).returncode == 3  # no handler for no method


def test_exit_codes(mesh):
    nobody = mesh.iris("request", "nobody", "x", check=False)
    assert (nobody.returncode, nobody.stdout) == (3, b"")
    assert b"nobody serves 'nobody'" in nobody.stderr
    for command in ("push", "broadcast", "survey"):
        assert mesh.iris(command, "nobody", "x", check=False).returncode == 3
    assert mesh.iris("tunnel", "nobody", check=False).returncode == 3
    with mesh.serving("slow", "--", "sleep", "60", on="elm"):
        assert mesh.iris("request", "slow", "x", "--timeout", "300ms", check=False).returncode == 5
        assert mesh.iris("survey", "slow", "x", "--timeout", "300ms", check=False).returncode == 5
    assert mesh.iris("request", "bad name", "x", check=False).returncode == 2
    denied = mesh.iris("--service", "bank", "request", "x", "y", check=False)
    assert denied.returncode == 4
    assert b"shop" in denied.stderr  # it says which services there are
    assert mesh.iris("--service", "bank", "nodes", check=False).returncode == 4
    assert mesh.iris("--service", "bank", "status", check=False).returncode == 4
    assert mesh.iris("--service", "shop", "status").returncode == 0


def test_push_broadcast_and_survey_reach_members_of_both_nodes(mesh):
    script = 'echo "$IRIS_PATTERN $(cat)"'
    with (
        mesh.serving("jobs", "--", "sh", "-c", script, on="oak") as here,
        mesh.serving("jobs", "--", "sh", "-c", script, on="elm", members=2) as there,
    ):
        mesh.iris("push", "jobs", "one")
        until("somebody took the push", lambda: b"push one\n" in (here.out, there.out))
        assert mesh.iris("broadcast", "jobs", "all").stdout == b"2\n"
        until("everybody got it", lambda: all(b"broadcast all\n" in each.out for each in (here, there)))
        lines = mesh.iris("survey", "jobs", "who").stdout.decode().splitlines()
        assert sorted(line.partition(": ")[2] for line in lines[:2]) == ["survey who", "survey who"]
        assert len({line.partition(": ")[0] for line in lines[:2]}) == 2
        assert lines[2].startswith("2 of 2 answered in ")


def test_what_is_published_reaches_subscribers_of_both_nodes(mesh):
    here = mesh.background("subscribe", "orders.*", "--count", "3")
    there = mesh.background("subscribe", "orders.>", "--count", "3", "--json", on="elm")
    mesh.await_subscribers("orders.*", 1)
    mesh.await_subscribers("orders.>", 1)
    mesh.iris("publish", "orders.new", "one")
    mesh.iris("publish", "orders.new", "--lines", stdin=b"two\nthree\n")
    assert (here.ended(), there.ended()) == (0, 0)
    assert here.out == b"orders.new one\norders.new two\norders.new three\n"
    told = [json.loads(line) for line in there.out.splitlines()]
    assert [row["body"] for row in told] == ["one", "two", "three"]
    assert here.err == there.err == ""


def test_many_lines_arrive_in_order(mesh):
    count = 50_000
    reader = mesh.background("subscribe", "numbers", "--raw", "--count", str(count), on="elm")
    mesh.await_subscribers("numbers", 1)
    body = b"".join(b"%d\n" % number for number in range(count))
    assert mesh.json("publish", "numbers", "--file", "/dev/null") == {"published": 1}  # an empty message is a message
    mesh.iris("publish", "numbers", "--lines", stdin=body)
    assert reader.ended() == 0, reader.err
    assert reader.out == b"\n" + body.removesuffix(b"%d\n" % (count - 1))


def test_a_group_shares_what_is_published(mesh):
    both = [mesh.background("subscribe", "jobs.new", "--group", "workers", "--raw", on=on) for on in ("oak", "elm")]
    mesh.await_subscribers("jobs.new", 2)
    mesh.iris("publish", "jobs.new", "--lines", stdin=b"".join(b"%d\n" % number for number in range(1000)))
    until("all have come", lambda: sum(each.out.count(b"\n") for each in both) == 1000)
    assert sorted(int(line) for each in both for line in each.out.split()) == list(range(1000))
    assert all(each.out for each in both)
    assert [each.told(signal.SIGINT) for each in both] == [130, 130]
    assert "Traceback" not in both[0].err


def test_a_file_through_a_tunnel(mesh, tmp_path):
    source, target = tmp_path / "source", mesh.folder / "target"
    source.write_bytes(os.urandom(20_000_000))
    with mesh.serving("storage", "--tunnel", "--", "sh", "-c", f"cat > {target}; sha256sum < {target}", on="elm"):
        moved = mesh.iris("tunnel", "storage", stdin=source.read_bytes())
    assert moved.stdout.split()[0].decode() == hashlib.sha256(source.read_bytes()).hexdigest()
    assert moved.stderr.startswith(b"iris: sent 19.1 MiB, received ")
    assert target.read_bytes() == source.read_bytes()


def test_much_both_ways_through_a_tunnel(mesh):
    body = os.urandom(5_000_000)
    with mesh.serving("echo", "--echo", on="elm"):
        moved = mesh.iris("tunnel", "echo", "-q", stdin=body)
    assert (moved.stdout == body, moved.stderr) == (True, b"")


def test_a_tunnel_whose_member_dies_is_broken_and_says_how_far_it_came(mesh):
    read, write = os.pipe()
    os.write(write, b"x" * 1000)
    server = mesh.background("serve", "mortal", "--echo", on="elm")
    mesh.await_members("mortal", 1)
    moving = mesh.background("tunnel", "mortal", stdin=read)
    until("something came back", lambda: len(moving.out) == 1000)
    server.process.kill()
    assert moving.ended() == 1
    assert "it broke after 1000 bytes were sent and 1000 received" in moving.err
    assert "Traceback" not in moving.err
    os.close(read)
    os.close(write)


def test_a_tunnels_command_that_fails_breaks_it(mesh):
    with mesh.serving(
        "full", "--tunnel", "--", "sh", "-c", "head -c 10 >/dev/null; echo disk full >&2; exit 1", on="elm"
    ):
        moved = mesh.iris("tunnel", "full", stdin=b"x" * 1_000_000, check=False)
    assert moved.returncode == 1
    assert b"exit-1: disk full" in moved.stderr


def test_a_reader_that_has_seen_enough(mesh):
    """`iris subscribe | head -1` ends quietly at the next event."""
    reader = subprocess.Popen(["head", "-n", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdin is not None and reader.stdout is not None
    begun = mesh.background("subscribe", "ticks")
    begun.kill()
    process = subprocess.Popen(
        begun.process.args,
        stdout=reader.stdin,
        stderr=subprocess.PIPE,
        env=os.environ | {"IRIS_URL": f"unix://{mesh.socket('oak')}"},
    )
    reader.stdin.close()
    mesh.await_subscribers("ticks", 1)

    def ended() -> bool:
        mesh.iris("publish", "ticks", "now")
        return process.poll() is not None

    until("it has noticed", ended)
    assert process.stderr is not None
    assert (process.wait(), process.stderr.read()) == (141, b"")
    assert (reader.wait(), reader.stdout.read()) == (0, b"ticks now\n")
    reader.stdout.close()
    process.stderr.close()
