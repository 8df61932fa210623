"""Asking a daemon about itself: where it is looked for, and what its refusals become."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

import iris_client as iris
from iris_client.cli.control import Control, ask_once, keep_asking, open_control
from iris_client.cli.options import Settings
from iris_client.cli.output import Failure
from iris_proto.v1 import control_pb2 as pb
from iris_proto.v1 import control_pb2_grpc


class Daemon(control_pb2_grpc.ControlServicer):
    """Answers as a daemon with two services would, or refuses as it is told."""

    def __init__(self) -> None:
        self.refusal: grpc.StatusCode | None = None
        self.hangs = False
        self.asked: list[str] = []

    async def GetStatus(self, request, context):
        if self.refusal is not None:
            await context.abort(self.refusal, "because")
        return pb.Status(version="1", services=[pb.ServiceStatus(service="shop"), pb.ServiceStatus(service="bank")])

    async def ListNodes(self, request, context):
        if self.hangs:
            await asyncio.sleep(60)
        self.asked.append(request.service)
        return pb.NodeList(nodes=[pb.Node(name="oak")])


@asynccontextmanager
async def running(daemon, path: Path):
    server = grpc.aio.server()
    if daemon is not None:
        control_pb2_grpc.add_ControlServicer_to_server(daemon, server)
    assert server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


@pytest.fixture
def daemon():
    return Daemon()


@pytest.fixture
def settings(run_dir):
    return Settings(url=f"unix://{run_dir}/irisd.sock", timeout=2.0)


async def test_it_answers(daemon, settings, run_dir):
    async with running(daemon, run_dir / "irisd.sock"):
        assert [row.name for row in await ask_once(settings, Control.nodes)] == ["oak"]
        assert daemon.asked == [""]


async def test_a_service_can_be_chosen(daemon, run_dir):
    url = f"unix://{run_dir}/irisd.sock"
    async with running(daemon, run_dir / "irisd.sock"):
        status = await ask_once(Settings(url=url, service="bank"), Control.status)
        assert [row.service for row in status.services] == ["bank"]
        await ask_once(Settings(url=url, service="bank"), Control.nodes)
        assert daemon.asked == ["bank"]
        with pytest.raises(iris.Denied, match="no service 'nope' here; there is: shop, bank"):
            await ask_once(Settings(url=url, service="nope"), Control.status)


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, iris.Denied),
        (grpc.StatusCode.PERMISSION_DENIED, iris.Denied),
        (grpc.StatusCode.NOT_FOUND, iris.Denied),
        (grpc.StatusCode.INTERNAL, iris.IrisError),
        (grpc.StatusCode.UNIMPLEMENTED, Failure),
    ],
)
async def test_refusals(daemon, settings, run_dir, refusal, error):
    daemon.refusal = refusal
    async with running(daemon, run_dir / "irisd.sock"):
        with pytest.raises(error):
            await ask_once(settings, Control.nodes)


async def test_something_else_answers_there(settings, run_dir):
    async with running(None, run_dir / "irisd.sock"):
        with pytest.raises(Failure, match="no Iris daemon"):
            await ask_once(settings, Control.nodes)


async def test_an_answer_that_does_not_come(daemon, run_dir):
    daemon.hangs = True
    async with running(daemon, run_dir / "irisd.sock"):
        with pytest.raises(iris.DeadlineExceeded):
            await ask_once(Settings(url=f"unix://{run_dir}/irisd.sock", timeout=0.2), Control.nodes)


async def test_a_daemon_that_is_late_is_waited_for(daemon, settings, run_dir):
    asking = asyncio.create_task(ask_once(settings, Control.nodes))
    await asyncio.sleep(0)
    async with running(daemon, run_dir / "irisd.sock"):
        assert len(await asking) == 1


async def test_the_usual_places_are_tried_in_order(daemon, run_dir, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_dir))
    (run_dir / "irisd").mkdir()
    async with running(daemon, run_dir / "irisd" / "irisd.sock"):
        assert len(await ask_once(Settings(), Control.nodes)) == 1


async def test_nobody_there_names_what_was_tried(settings):
    with pytest.raises(iris.DaemonUnavailable, match=f"(?s)tried:.*{settings.url}.*Start one with: irisd"):
        async with open_control(Settings(url=settings.url, timeout=0.05)):
            pass


async def test_watching_asks_again_and_finds_the_next_daemon(daemon, settings, run_dir):
    answers = keep_asking(settings, Control.nodes, 0.01)
    async with running(daemon, run_dir / "irisd.sock"):
        assert len(await anext(answers)) == 1
        assert len(await anext(answers)) == 1
    async with running(Daemon(), run_dir / "irisd.sock"):
        assert len(await anext(answers)) == 1
    await answers.aclose()


async def test_a_token_is_not_sent_in_clear_to_another_host(tmp_path):
    (tmp_path / "token").write_text("s3cret")
    with pytest.raises(iris.Denied, match="not sent in clear"):
        await ask_once(Settings(url="tcp://192.0.2.1:7510", token_file=tmp_path / "token"), Control.nodes)


@pytest.mark.parametrize("ask", [Control.load, lambda control: control.trace(pb.TraceRequest(cluster="db"))])
async def test_an_older_daemon_cannot_tell(daemon, settings, run_dir, ask):
    async with running(daemon, run_dir / "irisd.sock"):
        with pytest.raises(Failure, match=r"^the daemon is older than 0\.3, the first release that can tell$"):
            await ask_once(settings, ask)
