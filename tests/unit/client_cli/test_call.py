"""request, push, broadcast, survey: what they send, what they print, how they end."""

from __future__ import annotations

import asyncio
import json

import click
import pytest

import iris_client as iris
from iris_client.cli import call
from iris_client.cli.output import exit_code


class Databases(iris.Cluster):
    """A cluster, and what it was sent."""

    def __init__(self) -> None:
        super().__init__("databases")
        self.seen: list[iris.Request] = []


@pytest.fixture
def databases():
    """Answer in every way a handler can."""
    cluster = Databases()

    @cluster.on_request
    async def answer(request: iris.Request) -> iris.Reply:
        cluster.seen.append(request)
        return iris.Reply(b"got " + request.body, {"rows": "1"})

    @cluster.on_request("fail")
    async def fail(body: bytes) -> bytes:
        raise iris.Reject("no such row", code="missing", body=b"\xff")

    @cluster.on_request("slow")
    async def slow(body: bytes) -> bytes:
        await asyncio.sleep(60)
        return b""

    @cluster.on_push
    @cluster.on_broadcast
    async def take(request: iris.Request) -> None:
        cluster.seen.append(request)

    @cluster.on_survey
    async def survey(body: bytes) -> bytes:
        if body == b"fail":
            raise iris.Reject("not today")
        return b"here\n"

    return cluster


async def test_a_reply_is_printed_byte_for_byte(shell, databases, capfdbinary):
    shell.stdin(b"\xff\x00\n")
    async with shell.local.connect() as mesh, mesh.join(databases):
        await shell(call.request, "databases", "hello", "-H", "trace:7", "-H", "b: x")
        assert capfdbinary.readouterr() == (b"got hello", b"")
        await shell(call.request, "databases")
        assert capfdbinary.readouterr() == (b"got \xff\x00\n", b"")
    assert databases.seen[0].headers == {"trace": "7", "b": "x"}


async def test_a_reply_for_programs(shell, databases, capsys):
    async with shell.local.connect(name="db") as mesh, mesh.join(databases):
        await shell(call.request, "databases", "hello", json=True)
    told = json.loads(capsys.readouterr().out)
    assert told.pop("took") > 0
    assert told.pop("member").startswith("db")
    assert told == {"body": "got hello", "headers": {"rows": "1"}, "content_type": ""}


async def test_errors_keep_their_kind(shell, databases):
    with pytest.raises(iris.NoMember) as caught:
        await shell(call.request, "databases", "x")
    assert exit_code(caught.value) == 3
    async with shell.local.connect() as mesh, mesh.join(databases):
        with pytest.raises(iris.Rejected, match="no such row") as rejected:
            await shell(call.request, "databases", "x", "--method", "fail")
        assert (rejected.value.code, rejected.value.body) == ("missing", b"\xff")
        with pytest.raises(iris.NotSupported):
            await shell(call.request, "databases", "x", "--method", "nope")
        with pytest.raises(iris.DeadlineExceeded) as late:
            await shell(call.request, "databases", "x", "--method", "slow", timeout=0.05)
        assert exit_code(late.value) == 5
        with pytest.raises(iris.InvalidName) as bad:
            await shell(call.request, "no such name", "x")
        assert exit_code(bad.value) == 2


async def test_push_and_broadcast(shell, databases, capsys):
    async with shell.local.connect() as mesh, mesh.join(databases):
        await shell(call.push, "databases", "job")
        assert capsys.readouterr().out == ""
        await shell(call.push, "databases", "job", json=True)
        assert json.loads(capsys.readouterr().out) == {"pushed": True}
        await shell(call.broadcast, "databases", "all")
        assert capsys.readouterr().out == "1\n"
        await shell(call.broadcast, "databases", "all", json=True)
        assert json.loads(capsys.readouterr().out) == {"members": 1}
    assert [request.body for request in databases.seen] == [b"job", b"job", b"all", b"all"]


async def test_a_survey_names_its_answers_and_sums_up(shell, databases, capsys):
    async with shell.local.connect(name="db") as mesh, mesh.join(databases):
        assert await shell(call.survey, "databases", "who") is None
        first, last = capsys.readouterr().out.splitlines()
        assert first.startswith("db") and first.endswith(": here")
        assert last.startswith("1 of 1 answered in ")
        assert await shell(call.survey, "databases", "who", json=True) is None
        answer, summary = map(json.loads, capsys.readouterr().out.splitlines())
        assert answer["body"] == "here\n"
        assert summary["asked"] == summary["answered"] == [answer["member"]]
        assert summary["silent"] == []


async def test_a_survey_that_only_got_errors(shell, databases, capsys):
    async with shell.local.connect(name="db") as mesh, mesh.join(databases):
        assert await shell(call.survey, "databases", "fail") == 1
        assert ": error: " in capsys.readouterr().out
        assert await shell(call.survey, "databases", "fail", json=True) == 1
        answer = json.loads(capsys.readouterr().out.splitlines()[0])
        assert answer["error"]["error"] == "Rejected"


async def test_a_survey_nobody_answered_names_the_silent(shell, capsys):
    mute = iris.Cluster("mute")

    @mute.on_survey
    async def never(body: bytes) -> bytes:
        await asyncio.sleep(60)
        return b""

    async with shell.local.connect(name="db") as mesh, mesh.join(mute):
        assert await shell(call.survey, "mute", "who", timeout=0.1) == 5
    assert "0 of 1 answered" in (out := capsys.readouterr().out)
    assert "; silent: db" in out


async def test_repeating_sums_up(shell, databases, capsys):
    async with shell.local.connect(name="db") as mesh, mesh.join(databases):
        assert await shell(call.request, "databases", "x", "--repeat", "50", "--concurrency", "8") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("50 replies in ")
        assert lines[1].split() == ["MEMBER", "REPLIES", "SHARE"]
        assert lines[2].split()[1:] == ["50", "100.0%"]
        assert await shell(call.request, "databases", "x", "--repeat", "5", json=True) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["replies"], told["errors"], list(told["members"].values())) == (5, {}, [5])
    assert len(databases.seen) == 55


async def test_repeating_counts_errors_by_kind(shell, databases, capsys):
    async with shell.local.connect() as mesh, mesh.join(databases):
        assert await shell(call.request, "databases", "x", "--method", "fail", "--repeat", "3") == 1
        out, err = capsys.readouterr()
        assert out.startswith("0 replies in ")
        assert "3 errors Rejected: " in err
    assert await shell(call.request, "databases", "x", "--repeat", "3") == 3
    with pytest.raises(iris.InvalidName):
        await shell(call.request, "no such name", "x")


async def test_concurrency_alone_makes_no_sense(shell):
    with pytest.raises(click.UsageError, match="belongs to --repeat"):
        await shell(call.request, "databases", "x", "--concurrency", "8")
