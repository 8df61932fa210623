"""Apps that ignore the SDK: every broken rule ends one stream with a sentence, every bad call is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from iris_proto.v1 import frame_pb2 as pb

from .bad_input_ground import (
    BODY_LIMIT,
    MiB,
    RawApp,
    call,
    daemons,
    eventually,
    frame,
    join,
    neighbour,
    nothing_left,
    raw_app,
    status_of,
    url_of,
)
from .cli_iris_ground import Mesh

R, PUBLISH, SUBSCRIBE, TUNNEL, PART = pb.KIND_REQUEST, pb.KIND_PUBLISH, pb.KIND_SUBSCRIBE, pb.KIND_TUNNEL, pb.KIND_PART
INVALID = "INVALID_ARGUMENT"


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with daemons("oak", "elm") as mesh:
        yield mesh


@pytest_asyncio.fixture
async def url(mesh: Mesh) -> AsyncIterator[str]:
    """The daemon: the same before and after every test, with nothing left in it, and still linked."""
    url = url_of(mesh)
    pid = status_of(url).pid
    yield url
    status = await nothing_left(url)
    assert status.pid == pid
    assert status.services[0].peers == 1


# ------------------------------------------------------------------- rules that end the stream

BREAKS = {
    "an even id": ([call(R, 2, "x")], "id 2: apps use odd ids"),
    "no id": ([call(R, 0, "x")], "a call without an id"),
    "an id that a join has": ([join(1, "a"), call(R, 1, "a")], "id 1 is in use"),
    "a join with an id in use": ([join(1, "a"), join(1, "b")], "id 1 is in use"),
    "a flush with an even id": ([frame(pb.KIND_FLUSH, 2)], "id 2: apps use odd ids"),
    "an unknown kind": ([frame(77, 1)], "kind 77 is not one"),
    "no kind": ([frame(0, 1)], "a frame without a kind"),
    "a kind of daemons": ([frame(64, 1)], "kind 64 is not one"),
    "a second hello": ([frame(pb.KIND_HELLO)], "kind 1 is not one"),
    "an event from an app": ([frame(pb.KIND_EVENT, 1, b"x", address="t")], "kind 17 is not one"),
    "sizes too small": ([frame(PUBLISH, 0, b"abc", address="t", sizes=[1])], "they add up to 1, the body has 3"),
    "sizes too large": ([frame(PUBLISH, 0, b"abc", address="t", sizes=[2, 2])], "they add up to 4, the body has 3"),
    "sizes that wrap": ([frame(PUBLISH, 0, b"abc", address="t", sizes=[2**32 - 1, 4])], "they add up to 4294967299"),
    "sizes of a part": ([call(R, 1, "x", b"abc", sizes=[3], more=True, total=9)], "they add up to 3, the body has 9"),
    "sizes without end": ([frame(PUBLISH, address="t", sizes=[0] * 70_000)], "at most 65536"),
    "a publish to nothing": ([frame(PUBLISH, 0, b"x")], "PUBLISH: topic: the name is empty"),
    "a publish to a filter": ([frame(PUBLISH, 0, b"x", address="a.*")], "PUBLISH: topic 'a.*'"),
    "a publish to a reserved name": ([frame(PUBLISH, 0, b"x", address="_iris.x")], "are reserved"),
    "too many headers": ([call(R, 1, "x", headers={str(at): "" for at in range(65)})], "headers: more than 64 entries"),
    "headers too large": ([call(R, 1, "x", headers={"a": "b" * 9000})], "or 8192 bytes"),
    "a header too large": ([call(R, 1, "x", method="m" * MiB)], "bytes: the limit is 524288"),
    "70,000 frames at once": ([frame(PUBLISH, address="t")] * 70_000, "batch: more than 65536 frames"),
    "a body too large in parts": ([call(R, 1, "x", b"x", more=True, total=BODY_LIMIT + 1)], "the limit is 8388608"),
    "a body of nearly 2**64": ([call(R, 1, "x", b"x", more=True, total=2**64 - 1)], "the limit is 8388608"),
    "more than announced": ([call(R, 1, "x", b"xxx", more=True, total=5), frame(PART, 1, b"xxx")], "6 bytes came, 5"),
    "less than announced": ([call(R, 1, "x", b"xxx", more=True, total=9), frame(PART, 1, b"xxx")], "6 bytes came, 9"),
    "a first part that is all": ([call(R, 1, "x", b"xxx", more=True, total=3)], "3 bytes came, 3 were announced"),
    "a body begun twice": ([call(R, 1, "x", b"x", more=True, total=9)] * 2, "id 1 is already under way"),
    "an empty part": ([call(R, 1, "x", b"x", more=True, total=9), frame(PART, 1, more=True)], "parts: an empty one"),
    "2,000 bodies begun": (
        [call(R, 1 + 2 * at, "x", b"x", more=True, total=9) for at in range(2000)],
        "more than 1024",
    ),
}


@pytest.mark.parametrize("what", BREAKS)
async def test_a_broken_rule_ends_its_stream_with_a_sentence(url: str, what: str) -> None:
    frames, sentence = BREAKS[what]
    async with raw_app(url) as good, raw_app(url) as app:
        await good.hello()
        await app.hello()
        await app.say(*frames)
        status, detail = await app.ended()
        assert status == INVALID
        assert sentence in detail
        await good.well()


async def test_what_came_before_a_broken_rule_was_done(url: str) -> None:
    async with raw_app(url) as good, raw_app(url) as app:
        await good.hello(frame(SUBSCRIBE, 1, address="t"))
        await good.heard(pb.KIND_DONE, 1)
        await app.hello()
        await app.say(*[frame(PUBLISH, 0, b"x", address="t")] * 200, frame(PUBLISH, 0, b"abc", address="t", sizes=[1]))
        assert (await app.ended())[0] == INVALID
        for _ in range(100):  # at least the first slices of the batch
            assert (await good.heard(pb.KIND_EVENT)).body == b"x"


async def test_what_ended_a_stream_is_in_the_log() -> None:
    with daemons("ash") as own:
        async with raw_app(url_of(own, "ash")) as app:
            await app.hello()
            await app.say(frame(PUBLISH, 0, b"abc", address="t", sizes=[1]))
            await app.ended()
        log = own.folder / "ash.err"
        await eventually(lambda: "they add up to 1, the body has 3 bytes" in log.read_text(), "the log names the rule")


@pytest.mark.parametrize("size", [5 * MiB, 9 * MiB])
async def test_a_message_above_what_grpc_takes(url: str, size: int) -> None:
    async with raw_app(url) as good, raw_app(url) as app:
        await good.hello()
        await app.hello()
        await app.say(call(R, 1, "x", bytes(size)))
        status, detail = await app.ended()
        assert status == "RESOURCE_EXHAUSTED"
        assert "4194304" in detail  # the limit is named
        await good.well()


async def test_more_unfinished_bodies_than_a_stream_may_hold(url: str) -> None:
    async with neighbour(url), raw_app(url) as app:
        await app.hello()
        for at in range(65):
            await app.say(call(R, 1 + 2 * at, "x", bytes(MiB), more=True, total=2 * MiB))
        status, detail = await app.ended()
        assert (status, "more than 67108864 bytes of unfinished bodies" in detail) == (INVALID, True)


# ------------------------------------------------------------- calls that make no sense are answered

REFUSED = {
    "no name": (call(R, 1, ""), pb.CODE_INVALID, "the name is empty"),
    "a long name": (call(R, 1, "x" * 201), pb.CODE_INVALID, "200 bytes"),
    "a name with blanks": (call(R, 1, "a b"), pb.CODE_INVALID, "letters, digits, _ and -"),
    "a reserved name": (call(R, 1, "_iris.x"), pb.CODE_INVALID, "reserved"),
    "an unknown cluster": (call(R, 1, "nobody"), pb.CODE_NO_MEMBER, "nobody serves 'nobody'"),
    "an unknown service": (call(R, 1, "bank/x"), pb.CODE_NO_MEMBER, "service 'bank' is not reachable from 'shop'"),
    "an unknown cloud": (call(R, 1, "x@mars"), pb.CODE_NO_MEMBER, "cloud 'mars' is not reachable"),
    "no deadline": (call(R, 1, "x", remaining_ms=0), pb.CODE_INVALID, "remaining_ms is missing"),
    "a push without deadline": (call(pb.KIND_PUSH, 1, "x", remaining_ms=0), pb.CODE_INVALID, "remaining_ms is missing"),
    "a survey of nobody": (call(pb.KIND_SURVEY, 1, "nobody"), pb.CODE_NO_MEMBER, "nobody serves"),
    "a tunnel to nobody": (call(TUNNEL, 1, "nobody"), pb.CODE_NO_MEMBER, "nobody serves"),
    "a broadcast to nobody": (call(pb.KIND_BROADCAST, 1, "nobody"), pb.CODE_NO_MEMBER, "nobody serves"),
    "a join without a name": (join(1, ""), pb.CODE_INVALID, "the name is empty"),
    "a join of a filter": (join(1, "a.*"), pb.CODE_INVALID, "letters, digits, _ and -"),
    "a join without patterns": (join(1, "a", patterns=0), pb.CODE_INVALID, "patterns: state at least one"),
    "a join with all bits": (join(1, "a", patterns=2**32 - 1), pb.CODE_INVALID, "only known ones"),
    "a join with no slots": (join(1, "a", concurrency=0), pb.CODE_INVALID, "concurrency: 1 to 65536, not 0"),
    "a join with too many": (join(1, "a", concurrency=2**32 - 1), pb.CODE_INVALID, "1 to 65536, not 4294967295"),
    "a bad filter": (frame(SUBSCRIBE, 1, address="a.>.b"), pb.CODE_INVALID, "topic filter 'a.>.b'"),
    "a bad group": (frame(SUBSCRIBE, 1, address="a", group="x y"), pb.CODE_INVALID, "cluster 'x y'"),
    "an unknown policy": (frame(SUBSCRIBE, 1, address="a", when_full=9), pb.CODE_INVALID, "when_full: 9 is none"),
    "a long key": (call(R, 1, "x", key="k" * 100_000), pb.CODE_INVALID, "key: at most 1024 bytes"),
    "an unknown balance": (call(R, 1, "x", balance=99), pb.CODE_INVALID, "balance: 99 is unknown"),
    "a join with an unknown balance": (
        frame(pb.KIND_JOIN, 1, address="a", patterns=1, concurrency=1, balance=6),
        pb.CODE_INVALID,
        "balance: 0 to 5",
    ),
    "a join below all levels": (
        frame(pb.KIND_JOIN, 1, address="a", patterns=1, concurrency=1, priority=256),
        pb.CODE_INVALID,
        "priority: 0 to 255",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_call_that_makes_no_sense_is_answered_and_the_stream_goes_on(url: str, what: str) -> None:
    bad, code, sentence = REFUSED[what]
    async with raw_app(url) as app:
        await app.hello()
        await app.say(bad)
        answer = (await app.heard(pb.KIND_ERROR, 1)).header
        assert (answer.code, answer.executed) == (code, pb.EXECUTED_NO)
        assert sentence in answer.detail
        await app.well()


async def test_a_second_join_of_a_cluster_is_answered(url: str) -> None:
    async with raw_app(url) as app:
        await app.hello(join(1, "a"), join(3, "a"))
        answer = (await app.heard(pb.KIND_ERROR, 3)).header
        assert (answer.code, answer.detail) == (pb.CODE_INVALID, "this app serves 'a' already")
        await app.say(call(R, 5, "a"))  # and the first one still serves
        assert (await app.heard(R)).header.address == "a"
        await app.say(frame(pb.KIND_CANCEL, 5))


LATE = [
    frame(pb.KIND_REPLY, 2, b"nobody asked"),
    frame(pb.KIND_ERROR, 4, code=3),
    frame(pb.KIND_DONE, 6),
    frame(pb.KIND_CANCEL, 7),
    frame(pb.KIND_DATA, 9, b"x"),
    frame(pb.KIND_FINISH, 9),
    frame(pb.KIND_CREDIT, 9, count=2**64 - 1),
    frame(PART, 11, b"x"),
    frame(pb.KIND_LEAVE, 13),
    frame(pb.KIND_UNSUBSCRIBE, 15),
]


async def test_frames_for_calls_that_are_over_or_never_were_are_ignored(url: str) -> None:
    async with raw_app(url) as app:
        await app.hello(*LATE)
        await app.well()


async def test_fields_of_the_future_are_skipped(url: str) -> None:
    async with raw_app(url) as app:
        await app.hello()
        odd = call(R, 1, "nobody")
        odd.header.MergeFromString(b"\x9a\x3f\x03abc\xc0\x3e\x07")  # fields 1011 and 1000
        assert len(odd.header.SerializeToString()) > len(call(R, 1, "nobody").header.SerializeToString())
        await app.say(odd)
        assert (await app.heard(pb.KIND_ERROR, 1)).header.code == pb.CODE_NO_MEMBER


# ------------------------------------------------------------------------- members that lie


@pytest_asyncio.fixture
async def member(url: str) -> AsyncIterator[RawApp]:
    async with raw_app(url) as app:
        await app.hello(join(1, "liars"))
        await app.heard(pb.KIND_DONE, 1)
        yield app


@pytest.mark.parametrize("kind", [pb.KIND_DONE, pb.KIND_CREDIT, pb.KIND_DATA])
async def test_a_request_answered_with_what_is_no_answer(url: str, member: RawApp, kind: int) -> None:
    async with raw_app(url) as asking:
        await asking.hello()
        await asking.say(call(R, 1, "liars", remaining_ms=300))
        id = (await member.heard(R)).header.id
        await member.say(frame(kind, id, b"x" if kind == pb.KIND_DATA else b"", count=1))
        error = (await asking.heard(pb.KIND_ERROR, 1)).header
        assert error.code in (pb.CODE_HANDLER_FAILED, pb.CODE_DEADLINE_EXCEEDED)
        assert error.executed == pb.EXECUTED_MAYBE
        await member.well()


async def test_a_reply_given_twice_counts_once(url: str, member: RawApp) -> None:
    async with raw_app(url) as asking:
        await asking.hello()
        await asking.say(call(R, 1, "liars"))
        id = (await member.heard(R)).header.id
        await member.say(*[frame(pb.KIND_REPLY, id, b"once", member="somebody-else")] * 2)
        reply = await asking.heard(pb.KIND_REPLY, 1)
        assert reply.header.member.startswith("raw@oak/")  # nobody answers in another's name
        await asking.well()
        await member.well()


async def test_an_answer_above_the_limit_costs_the_member_and_the_caller_knows(url: str, member: RawApp) -> None:
    async with raw_app(url) as asking:
        await asking.hello()
        await asking.say(call(R, 1, "liars"))
        id = (await member.heard(R)).header.id
        await member.say(frame(pb.KIND_REPLY, id, bytes(MiB), more=True, total=BODY_LIMIT + 1))
        assert (await member.ended())[0] == INVALID
        error = (await asking.heard(pb.KIND_ERROR, 1)).header
        assert (error.code, error.executed) == (pb.CODE_MEMBER_LOST, pb.EXECUTED_MAYBE)


async def test_codes_nobody_knows_reach_the_caller_as_an_error(url: str, member: RawApp) -> None:
    async with raw_app(url) as asking:
        await asking.hello()
        await asking.say(call(R, 1, "liars"))
        id = (await member.heard(R)).header.id
        await member.say(frame(pb.KIND_ERROR, id, code=4711, executed=99, detail="d" * 100_000))
        error = (await asking.heard(pb.KIND_ERROR, 1)).header
        assert (error.code, error.executed) == (4711, pb.EXECUTED_MAYBE)


# ------------------------------------------------------------------------- tunnels that cheat


async def tunnel(url: str, member: RawApp, app: RawApp) -> int:
    """Open one under the opener's id 1; the member has not accepted it yet."""
    await app.hello()
    await app.say(call(TUNNEL, 1, "liars"))
    return (await member.heard(TUNNEL)).header.id


CHEATS = {
    "data before it is accepted": (0, [frame(pb.KIND_DATA, 1, b"x")], "before its member has accepted it"),
    "data beyond the credit": (64, [frame(pb.KIND_DATA, 1, b"x")], "DATA beyond the credit"),
    "a flood beyond the credit": (1000, [frame(pb.KIND_DATA, 1)] * 1000, "DATA beyond the credit"),
    "data of 64 KiB and a byte": (MiB, [frame(pb.KIND_DATA, 1, bytes(65_537))], "the limit is 65536"),
    "data after finish": (100, [frame(pb.KIND_FINISH, 1), frame(pb.KIND_DATA, 1)], "DATA after FINISH"),
    "credit above the window": (100, [frame(pb.KIND_CREDIT, 1, count=MiB + 1)], "CREDIT above the window"),
    "credit that wraps": (100, [frame(pb.KIND_CREDIT, 1, count=2**64 - 1)] * 2, "CREDIT above the window"),
    "credit bit by bit": (100, [frame(pb.KIND_CREDIT, 1, count=MiB // 2)] * 3, "CREDIT above the window"),
}


@pytest.mark.parametrize("what", CHEATS)
async def test_a_tunnel_that_cheats_is_broken_at_both_ends(url: str, member: RawApp, what: str) -> None:
    credit, frames, rule = CHEATS[what]
    async with raw_app(url) as app:
        id = await tunnel(url, member, app)
        if credit:
            await member.say(frame(pb.KIND_CREDIT, id, count=credit))
            await app.heard(pb.KIND_CREDIT, 1)
        await app.say(*frames)
        status, detail = await app.ended()
        assert status == INVALID
        assert rule in detail
        if credit:
            assert (await member.heard(pb.KIND_ERROR, id)).header.code == pb.CODE_TUNNEL_BROKEN
        else:
            await member.heard(pb.KIND_CANCEL, id)
        await member.well()


async def test_a_member_that_grants_too_much_is_the_one_to_go(url: str, member: RawApp) -> None:
    async with raw_app(url) as app:
        id = await tunnel(url, member, app)
        await member.say(frame(pb.KIND_CREDIT, id, count=2**40))
        assert (await member.ended())[0] == INVALID
        assert (await app.heard(pb.KIND_ERROR, 1)).header.code == pb.CODE_TUNNEL_BROKEN
        await app.well()


# ----------------------------------------------------------------------------- between nodes


async def test_no_header_of_an_app_breaks_the_link_it_crosses(mesh: Mesh, url: str) -> None:
    """The largest there may be, with a part of a body: it must fit into one message of the link."""
    async with raw_app(url_of(mesh, "elm")) as member, raw_app(url) as app:
        await member.hello(join(1, "far"))
        assert (await member.heard(pb.KIND_DONE, 1)).header.count == 1
        await app.hello()
        largest = 512 * 1024 - len(call(R, 1, "far", more=True, total=BODY_LIMIT).header.SerializeToString()) - 8
        for at, field in enumerate(("method", "content_type", "detail", "member", "version")):
            body = bytes(256 * 1024)
            ask = call(R, 1 + 2 * at, "far", body, more=True, total=2 * len(body), **{field: "x" * largest})
            await app.say(ask)
            await app.say(frame(PART, 1 + 2 * at, body))
            heard = await member.heard(R)
            await member.say(frame(pb.KIND_REPLY, heard.header.id, b"ok", detail="y" * largest))
            assert (await app.heard(pb.KIND_REPLY, 1 + 2 * at)).body == b"ok"


async def test_many_streams_break_rules_at_once_and_the_neighbours_go_on(url: str) -> None:
    async with neighbour(url) as pair:

        async def one(what: str) -> str:
            async with raw_app(url) as app:
                await app.hello()
                await app.say(*BREAKS[what][0])
                return (await app.ended())[0]

        quick = [what for what in BREAKS if len(BREAKS[what][0]) < 1000]
        statuses = await asyncio.gather(*(one(what) for what in quick * 4))
        assert set(statuses) == {INVALID}
        await pair.more(20)
