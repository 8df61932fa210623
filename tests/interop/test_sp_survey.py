"""SURVEYOR and RESPONDENT, both roles, both mappings, either side listening, against nng, nanomsg and pynng."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from irisd.sp import (
    AnswerVerdict,
    EndpointType,
    Framing,
    QuestionVerdict,
    Respondent,
    SurveyEnd,
    SurveyEnded,
    Surveyor,
    encode_survey_id,
)
from tests.interop.sp_glue import PATIENCE, Pipe, SpSocket, StartTool, free_url
from tests.vectors.sp.golden import golden

pytestmark = pytest.mark.interop

GOLDEN = golden()
TOOLS = ["nngcat", "nanocat"]
ALL = [*TOOLS, "pynng"]


@asynccontextmanager
async def foreign_respondent(name: str, url: str, answer: str, start_tool: StartTool, verb: str) -> AsyncIterator[None]:
    """Someone else's RESPONDENT that answers each question with ``answer``; ``verb`` is dial or listen."""
    if name != "pynng":
        await start_tool(name, "--respondent", {"dial": "--connect", "listen": "--bind"}[verb], url, "-D", answer)
        yield
        return
    pynng = pytest.importorskip("pynng")
    with pynng.Respondent0() as theirs:
        if verb == "dial":
            theirs.dial(url, block=False)
        else:
            theirs.listen(url)

        async def respond() -> None:
            while True:
                await theirs.arecv()
                await theirs.asend(answer.encode())

        task = asyncio.create_task(respond())
        try:
            yield
        finally:
            # A message that completes during cancel() swallows it in pynng: close, do not cancel.
            theirs.close()
            with pytest.raises(pynng.Closed):
                await task


@asynccontextmanager
async def connected(
    ours: SpSocket, url: str, peer: Callable[[str], AbstractAsyncContextManager[None]], foreign_verb: str
) -> AsyncIterator[Pipe]:
    """Bring us and a foreign peer together, whoever listens."""
    if foreign_verb == "dial":
        await ours.listen(url)
        async with peer("dial"):
            yield await ours.wait_up()
    else:
        async with peer("listen"):
            await ours.dial(url)
            yield await ours.wait_up()


async def run_survey(
    surveyor: Surveyor[Pipe], ours: SpSocket, pipes: list[Pipe], question: bytes, timeout: float = PATIENCE
) -> tuple[SurveyEnded[Pipe], list[bytes]]:
    """Ask, collect, and return how it ended."""
    loop = asyncio.get_running_loop()
    survey_id, ended = surveyor.begin(pipes, timeout, loop.time())
    for pipe in pipes:
        pipe.send(encode_survey_id(survey_id), question)
    answers: list[bytes] = []
    while not ended:
        deadline = surveyor.next_deadline()
        assert deadline is not None
        try:
            async with asyncio.timeout_at(deadline):
                pipe, message = await ours.inbox.get()
        except TimeoutError:
            ended = surveyor.on_deadline(loop.time())
            continue
        judged = surveyor.answer_received(pipe, message, loop.time())
        if judged.verdict is AnswerVerdict.COUNTED:
            answers.append(judged.body)
        ended = judged.ended
    return ended[0], answers


@pytest.mark.parametrize("verb", ["dial", "listen"])
@pytest.mark.parametrize("name", ALL)
async def test_they_answer_our_survey(name: str, verb: str, framing: Framing, url: str, start_tool: StartTool) -> None:
    """Three rounds, each ended by the answer and not by the clock."""
    surveyor: Surveyor[Pipe] = Surveyor(first_id=0x7FFF_FFFE)  # ids wrap on the way

    def peer(verb: str) -> AbstractAsyncContextManager[None]:
        return foreign_respondent(name, url, f"I am {name}", start_tool, verb)

    async with SpSocket(EndpointType.SURVEYOR, framing) as ours, connected(ours, url, peer, verb) as pipe:
        for _ in range(3):
            ended, answers = await run_survey(surveyor, ours, [pipe], b"who?")
            assert ended.end is SurveyEnd.COMPLETE
            assert (ended.answered, ended.silent) == (frozenset([pipe]), frozenset())
            assert answers == [f"I am {name}".encode()]
    assert surveyor.counts == {AnswerVerdict.COUNTED: 3}


async def test_all_implementations_answer_one_survey(framing: Framing, url: str, start_tool: StartTool) -> None:
    surveyor: Surveyor[Pipe] = Surveyor(first_id=1)
    async with SpSocket(EndpointType.SURVEYOR, framing) as ours, AsyncExitStack() as peers:
        await ours.listen(url)
        for name in ALL:
            await peers.enter_async_context(foreign_respondent(name, url, name, start_tool, "dial"))
        pipes = [await ours.wait_up() for _ in ALL]
        ended, answers = await run_survey(surveyor, ours, pipes, b"who?")
        assert ended.end is SurveyEnd.COMPLETE
        assert ended.answered == set(pipes)
        assert sorted(answers) == [b"nanocat", b"nngcat", b"pynng"]


async def test_one_that_dies_is_lost_and_one_that_never_answers_is_silent(
    framing: Framing, url: str, start_tool: StartTool
) -> None:
    surveyor: Surveyor[Pipe] = Surveyor(first_id=1)
    async with SpSocket(EndpointType.SURVEYOR, framing) as ours:
        await ours.listen(url)
        mute = await start_tool("nngcat", "--respondent", "--dial", url)  # without -D it only listens
        silent = await ours.wait_up()
        dying = await start_tool("nngcat", "--respondent", "--dial", url)
        lost = await ours.wait_up()

        loop = asyncio.get_running_loop()
        survey_id, _ = surveyor.begin([silent, lost], 0.5, loop.time())
        dying.process.kill()
        assert await ours.wait_down() is lost
        assert surveyor.pipe_lost(lost) == []
        deadline = surveyor.next_deadline()
        assert deadline is not None
        [ended] = surveyor.on_deadline(deadline)
        assert (ended.survey_id, ended.end) == (survey_id, SurveyEnd.DEADLINE)
        assert (ended.answered, ended.lost, ended.silent) == (frozenset(), frozenset([lost]), frozenset([silent]))
        assert mute.process.returncode is None


@pytest.mark.parametrize("verb", ["dial", "listen"])
@pytest.mark.parametrize("name", TOOLS)
async def test_we_answer_their_survey(name: str, verb: str, framing: Framing, url: str, start_tool: StartTool) -> None:
    respondent: Respondent[Pipe] = Respondent()
    async with SpSocket(EndpointType.RESPONDENT, framing) as ours:
        if verb == "dial":
            await ours.listen(url)
        # The delay: a survey sent before the connection is up is lost, silently and by design.
        tool = await start_tool(
            name, "--surveyor", {"dial": "--connect", "listen": "--bind"}[verb], url, "-d", "1", "-D", "who?", "-Q"
        )
        if verb == "listen":
            await ours.dial(url)
        pipe, message = await ours.receive()
        verdict, question = respondent.question_received(pipe, message)
        assert verdict is QuestionVerdict.ASKED
        assert question is not None
        assert question.body == b"who?"
        assert len(question.backtrace) == 4
        parts = respondent.answer(question, b"irisd here")
        assert parts is not None
        pipe.send(*parts)
        assert await tool.line() == '"irisd here"'


@pytest.mark.parametrize("verb", ["dial", "listen"])
async def test_we_answer_parallel_surveys_of_pynng(verb: str, framing: Framing, url: str) -> None:
    """Two contexts ask at once; each gets its own answer although ours come in reverse order."""
    pynng = pytest.importorskip("pynng")
    respondent: Respondent[Pipe] = Respondent()
    loop, is_up = asyncio.get_running_loop(), asyncio.Event()
    async with SpSocket(EndpointType.RESPONDENT, framing) as ours:
        with pynng.Surveyor0(survey_time=int(PATIENCE * 1000)) as theirs:
            # nng has a pipe a moment after its hello; a survey before that would be lost.
            theirs.add_post_pipe_connect_cb(lambda _: loop.call_soon_threadsafe(is_up.set))
            if verb == "dial":
                await ours.listen(url)
                theirs.dial(url, block=False)
            else:
                theirs.listen(url)
                await ours.dial(url)
            pipe = await ours.wait_up()
            await asyncio.wait_for(is_up.wait(), PATIENCE)
            with theirs.new_context() as one, theirs.new_context() as two:
                await one.asend(b"one")
                await two.asend(b"two")
                questions = []
                for _ in range(2):
                    _, question = respondent.question_received(*(await ours.receive()))
                    assert question is not None
                    questions.append(question)
                for question in reversed(questions):
                    parts = respondent.answer(question, b"answer to " + question.body)
                    assert parts is not None
                    pipe.send(*parts)
                assert await one.arecv() == b"answer to one"
                assert await two.arecv() == b"answer to two"


@pytest.mark.parametrize("name", ALL)
async def test_respondents_agree_on_long_and_broken_backtraces(
    name: str, framing: Framing, url: str, start_tool: StartTool
) -> None:
    """Eight tags are answered with the whole stack, nine are dropped without a word; then ours does the same."""
    respondent: Respondent[str] = Respondent()

    def peer(verb: str) -> AbstractAsyncContextManager[None]:
        return foreign_respondent(name, url, "me", start_tool, verb)

    async with SpSocket(EndpointType.SURVEYOR, framing) as ours, connected(ours, url, peer, "dial") as pipe:
        for vector in ("tags9", "tags8", "forwarded", "question"):
            pipe.send(GOLDEN[f"survey.{vector}"])
            _, question = respondent.question_received("p", GOLDEN[f"survey.{vector}"])
            if question is None:
                assert vector == "tags9"
                continue  # theirs is dropped too: the next answer is the next question's
            parts = respondent.answer(question, b"me")
            assert parts is not None
            assert await ours.receive() == (pipe, b"".join(parts))
        pipe.send(GOLDEN["survey.endless"])
        assert respondent.question_received("p", GOLDEN["survey.endless"])[0] is QuestionVerdict.MALFORMED
        if name == "nanocat":  # nanomsg lets it pass; nng closes, and so do we
            pipe.send(GOLDEN["survey.question"])
            assert await ours.receive() == (pipe, GOLDEN["survey.answer"])
        else:
            assert await ours.wait_down() is pipe


async def test_one_port_serves_several_protocols(framing: Framing, url: str, start_tool: StartTool) -> None:
    """The peer's hello decides what we are, and all of them are content to hear ours second."""
    offer = [EndpointType.SURVEYOR, EndpointType.RESPONDENT, EndpointType.PAIR1]
    async with SpSocket(offer, framing) as ours:
        await ours.listen(url)
        await start_tool("nngcat", "--pair1", "--dial", url, "-D", "pair")
        pipe, message = await ours.receive()
        assert (pipe.local, message) == (EndpointType.PAIR1, b"pair")
        await start_tool("nanocat", "--surveyor", "--connect", url, "-d", "0.3", "-D", "who?")
        pipe, message = await ours.receive()
        assert (pipe.local, message[4:]) == (EndpointType.RESPONDENT, b"who?")
        await start_tool("nngcat", "--respondent", "--dial", url, "-D", "me")
        while pipe.local is not EndpointType.SURVEYOR:
            pipe = await ours.wait_up()
        pipe.send(GOLDEN["survey.question"])
        assert await ours.receive() == (pipe, GOLDEN["survey.answer"])


async def test_heartbeats_go_on_over_a_reconnect(run_dir: Path, start_tool: StartTool) -> None:
    """A new connection is a new pipe; the old one's survey ends as lost, the next is answered."""
    url = free_url(Framing.IPC, run_dir)
    surveyor: Surveyor[Pipe] = Surveyor(first_id=1)

    def peer(verb: str) -> AbstractAsyncContextManager[None]:
        return foreign_respondent("nanocat", url, "me", start_tool, verb)

    async with SpSocket(EndpointType.SURVEYOR, Framing.IPC) as ours, connected(ours, url, peer, "dial") as first:
        assert (await run_survey(surveyor, ours, [first], b"?"))[1] == [b"me"]
        surveyor.begin([first], PATIENCE, asyncio.get_running_loop().time())
        first.abort()
        assert await ours.wait_down() is first
        [ended] = surveyor.pipe_lost(first)
        assert ended.lost == {first}
        second = await ours.wait_up()
        assert second is not first
        assert (await run_survey(surveyor, ours, [second], b"?"))[1] == [b"me"]
