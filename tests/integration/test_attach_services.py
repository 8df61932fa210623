"""What a listener answers besides Attach, for which services, and how it drains and stops."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from iris_proto.v1 import control_pb2 as pb
from irisd.attach import AttachServer, TcpPort, UnixSocket
from irisd.model import Frame, Kind
from tests.integration.attach_glue import (
    BEARER,
    App,
    Apps,
    Source,
    app_at,
    ask_control,
    channel_to,
    running,
    write_token,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def tcp(run_dir: Path) -> TcpPort:
    return TcpPort("127.0.0.1", 0, write_token(run_dir))


@pytest.fixture
def unix(run_dir: Path) -> UnixSocket:
    return UnixSocket(run_dir / "irisd.sock")


# ------------------------------------------------------------------------------- services


async def test_a_listener_offers_only_its_services(unix):
    spec = replace(unix, services=frozenset({"bank"}))
    apps = Apps()
    async with running(AttachServer(apps, Source(), [spec])) as urls, channel_to(urls[0]) as channel:
        app = App(channel)
        await app.say(Frame(Kind.HELLO, address="shop"))
        status, detail = await app.status()
        assert status == "PERMISSION_DENIED"
        assert detail.endswith("does not offer service 'shop'; attach through another listener")
        assert apps.calls == []
        await App(channel).hello("bank")
        await App(channel).hello("")  # the only one it offers
        assert apps.said("attached") == ["bank", "bank"]
        answer = await ask_control(channel, "GetStatus", pb.GetStatusRequest(), pb.Status)
        assert [row.service for row in answer.services] == ["bank"]
        assert list((await ask_control(channel, "ListClusters", pb.ListRequest(), pb.ClusterList)).clusters) == []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask_control(channel, "ListNodes", pb.ListRequest(service="shop"), pb.NodeList)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_service_with_a_name_nobody_would_give(unix):
    spec = replace(unix, services=frozenset({"bank"}))
    async with running(AttachServer(Apps(), Source(), [spec])) as urls, app_at(urls[0]) as app:
        await app.say(Frame(Kind.HELLO, address="\u202e\n" * 500))
        status, detail = await app.status()
        assert status == "PERMISSION_DENIED"
        assert len(detail) < 2000
        assert "\n" not in detail


async def test_the_control_service_answers(unix):
    async with running(AttachServer(Apps(), Source(), [unix])) as urls, channel_to(urls[0]) as channel:
        assert (await ask_control(channel, "GetStatus", pb.GetStatusRequest(), pb.Status)).host == "here"
        [node] = (await ask_control(channel, "ListNodes", pb.ListRequest(service="shop"), pb.NodeList)).nodes
        assert node.state == "self"
        [cluster] = (await ask_control(channel, "ListClusters", pb.ListRequest(), pb.ClusterList)).clusters
        assert (cluster.name, cluster.members) == ("databases", 2)
        [topic] = (await ask_control(channel, "ListTopics", pb.ListRequest(), pb.TopicList)).topics
        assert topic.filter == "orders.*"


# ------------------------------------------------------------------- health and reflection


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)).status)


async def test_health_is_open_and_tells_of_draining(unix, tcp):
    server = AttachServer(Apps(), Source(), [unix, tcp])
    async with running(server) as urls:
        for url in urls:
            async with channel_to(url) as channel:
                for service in ("", "iris.v1.Relay", "iris.v1.Control"):
                    assert await health(channel, service) == SERVING
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await health(channel, "no.such.Service")
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        async with app_at(urls[0]) as app, channel_to(urls[1]) as channel:
            await app.hello()
            await server.drain()
            await server.drain()
            assert await health(channel) == NOT_SERVING
            await app.ping()  # who is in may finish
            async with app_at(urls[0]) as late:
                status, detail = await late.status()
                assert status == "UNAVAILABLE"
                assert "shutting down" in detail


async def test_reflection_describes_the_services(unix):
    async with running(AttachServer(Apps(), Source(), [unix])) as urls, channel_to(urls[0]) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
        names = {service.name for service in answer.list_services_response.service}
        assert {"iris.v1.Relay", "iris.v1.Control", "grpc.health.v1.Health"} <= names
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="iris.v1.Relay"))
        answer = await call.read()
        assert any(b"Attach" in file for file in answer.file_descriptor_response.file_descriptor_proto)
        await call.done_writing()


# ---------------------------------------------------------------------------------- stop


async def test_stop_tells_every_app_and_is_quick(unix, tcp):
    apps = Apps()
    server = AttachServer(apps, Source(), [unix, tcp])
    urls = await server.start()
    async with app_at(urls[0]) as one, app_at(urls[1], BEARER) as two, channel_to(urls[0]) as channel:
        await one.hello()
        await two.hello()
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        apps.send(1, Frame(Kind.GOODBYE, reason="shutdown"))
        async with asyncio.timeout(4):  # a watcher of health does not hold it up
            await server.stop(grace=30)
        assert (await one.hear()).kind == Kind.GOODBYE
        for app in (one, two):
            assert await app.status() == (
                "UNAVAILABLE",
                "the daemon is shutting down; attach again elsewhere or later",
            )
        assert sorted(apps.said("detached")) == ["shutdown", "shutdown"]
    await server.stop(1)  # again: nothing left to do


async def test_stop_does_not_wait_for_apps_that_do_not_read(unix):
    apps = Apps()
    server = AttachServer(apps, Source(), [unix])
    urls = await server.start()
    async with app_at(urls[0]) as slow:
        await slow.hello()
        apps.send(1, *(Frame(Kind.EVENT, id=1, body=bytes(65536)) for _ in range(1024)))
        async with asyncio.timeout(5):
            await server.stop(grace=0.3)
        assert len(apps.said("detached")) == 1
        assert not unix.path.exists()


async def test_stop_before_start(unix):
    await AttachServer(Apps(), Source(), [unix]).stop(0.1)
