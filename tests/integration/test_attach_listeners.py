"""Listeners over real gRPC: tokens, TLS, services, health, reflection, draining, and callers who mean harm."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from iris_proto.v1 import control_pb2 as pb
from irisd.attach import AttachLimits, AttachServer, TcpPort, UnixSocket
from irisd.errors import AlreadyRunningError, ConfigError, ListenError, RuntimeFolderError, TokenFileError
from irisd.model import Frame, Kind
from tests.integration.attach_glue import App, Apps, Source, app_at, channel_to, running

SECRET = "a-token-of-enough-bytes"
BEARER = ("authorization", f"Bearer {SECRET}")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def token_file(run_dir: Path) -> Path:
    path = run_dir / "token"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def tcp(token_file: Path) -> TcpPort:
    return TcpPort("127.0.0.1", 0, token_file)


@pytest.fixture
def unix(run_dir: Path) -> UnixSocket:
    return UnixSocket(run_dir / "irisd.sock")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A certificate for 127.0.0.1, its key, and a key that is not its."""
    folder = tmp_path_factory.mktemp("pki")
    for name in ("server", "other"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2", "-subj", "/CN=localhost"]
            + ["-addext", "subjectAltName=IP:127.0.0.1"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    yield folder


def control(channel: grpc.aio.Channel, method: str, request: Any, answer: Any, *metadata: tuple[str, str]) -> Any:
    call = channel.unary_unary(
        f"/iris.v1.Control/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    return call(request, metadata=metadata, timeout=10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ------------------------------------------------------------------------- Unix sockets


async def test_the_socket_has_its_mode_and_goes_with_the_server(unix):
    async with running(AttachServer(Apps(), Source(), [unix])) as urls:
        assert urls == [f"unix://{unix.path}"]
        found = unix.path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o660
    assert list(unix.path.parent.iterdir()) == []


async def test_two_servers_on_one_socket(unix):
    apps = Apps()
    async with running(AttachServer(apps, Source(), [unix])) as urls, app_at(urls[0]) as app:
        await app.hello()
        second = AttachServer(Apps(), Source(), [unix])
        with pytest.raises(AlreadyRunningError, match="another daemon is listening"):
            await second.start()
        await second.stop(0.1)
        await app.ping()
        async with app_at(urls[0]) as another:
            await another.hello()
    async with running(AttachServer(apps, Source(), [unix])) as urls, app_at(urls[0]) as app:
        await app.hello()


async def test_a_socket_left_by_a_crash(unix):
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dead.bind(str(unix.path))
    dead.close()
    async with running(AttachServer(Apps(), Source(), [unix])) as urls, app_at(urls[0]) as app:
        await app.hello()


async def test_a_missing_runtime_folder(run_dir):
    with pytest.raises(RuntimeFolderError, match="does not exist; create it"):
        await AttachServer(Apps(), Source(), [UnixSocket(run_dir / "a" / "b" / "irisd.sock")]).start()


async def test_all_listeners_or_none(unix, token_file):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = AttachServer(Apps(), Source(), [unix, TcpPort("127.0.0.1", port, token_file)])
        with pytest.raises(ListenError, match=rf"cannot listen on 127.0.0.1:{port}: Address already in use; free it"):
            await server.start()
    assert not unix.path.exists()
    assert server.urls == []
    async with running(AttachServer(Apps(), Source(), [unix])):
        pass


# ------------------------------------------------------------------------ TCP and tokens


async def test_a_port_is_chosen_and_told(tcp):
    async with running(AttachServer(Apps(), Source(), [tcp])) as urls:
        assert re.fullmatch(r"tcp://127\.0\.0\.1:\d{4,5}", urls[0])
        async with app_at(urls[0], BEARER) as app:
            await app.hello()
            await app.ping()


async def test_an_app_over_tcp_has_an_address(tcp):
    apps = Apps()
    async with running(AttachServer(apps, Source(), [tcp])) as urls, app_at(urls[0], BEARER) as app:
        await app.hello()
        [attachment] = apps.attachments.values()
        assert re.fullmatch(r"127\.0\.0\.1:\d+", attachment.peer)
        assert attachment.listener == urls[0]


async def test_two_daemons_on_one_port(tcp):
    async with running(AttachServer(Apps(), Source(), [tcp])) as urls:
        port = int(urls[0].rpartition(":")[2])
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}: Address already in use"):
            await AttachServer(Apps(), Source(), [replace(tcp, port=port)]).start()


@pytest.mark.parametrize("metadata", [[], [("authorization", "Bearer wrong-but-long-enough")], [("token", SECRET)]])
async def test_without_the_token_nothing_is_told(tcp, metadata):
    apps = Apps()
    async with running(AttachServer(apps, Source(), [tcp])) as urls, channel_to(urls[0]) as channel:
        status, detail = await App(channel, metadata).status()
        assert status == "UNAUTHENTICATED"
        assert "authorization: Bearer" in detail
        assert SECRET not in detail
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await control(channel, "GetStatus", pb.GetStatusRequest(), pb.Status, *metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert apps.calls == []
        answer = await control(channel, "GetStatus", pb.GetStatusRequest(), pb.Status, BEARER)
        assert answer.pid == 4711


async def test_a_token_is_wanted_over_tcp_only(unix, tcp):
    async with running(AttachServer(Apps(), Source(), [unix, tcp])) as urls:
        async with app_at(urls[0]) as app:
            await app.hello()
        async with app_at(urls[1]) as app:
            assert (await app.status())[0] == "UNAUTHENTICATED"


async def test_a_new_token_counts_from_its_reload(tcp):
    server = AttachServer(Apps(), Source(), [tcp])
    async with running(server) as urls, app_at(urls[0], BEARER) as app:
        await app.hello()
        tcp.token_file.write_text("another-token-of-enough-bytes")
        server.reload_tokens()
        await app.ping()  # who is in stays in
        async with app_at(urls[0], BEARER) as late:
            assert (await late.status())[0] == "UNAUTHENTICATED"
        tcp.token_file.chmod(0o644)
        with pytest.raises(TokenFileError):
            server.reload_tokens()
        async with app_at(urls[0], ("authorization", "Bearer another-token-of-enough-bytes")) as late:
            await late.hello()


async def test_a_token_file_others_may_read(tcp):
    tcp.token_file.chmod(0o644)
    with pytest.raises(TokenFileError, match="chmod 600"):
        await AttachServer(Apps(), Source(), [tcp]).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
async def test_off_loopback_only_with_tls(tcp, host):
    with pytest.raises(ConfigError, match="the token would travel in clear: give a TLS certificate"):
        await AttachServer(Apps(), Source(), [replace(tcp, host=host)]).start()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "300.1.1.1"])
async def test_an_address_that_is_none(tcp, host):
    with pytest.raises(ListenError, match="cannot listen on"):
        await AttachServer(Apps(), Source(), [replace(tcp, host=host)]).start()


@pytest.mark.parametrize("port", [-1, 65536])
async def test_a_port_that_is_none(tcp, port):
    with pytest.raises(ConfigError, match="is not a TCP port"):
        await AttachServer(Apps(), Source(), [replace(tcp, port=port)]).start()


async def test_localhost_is_loopback(tcp):
    async with running(AttachServer(Apps(), Source(), [replace(tcp, host="localhost")])) as urls:
        assert urls[0].startswith("tcp://127.0.0.1:")


# ----------------------------------------------------------------------------------- TLS


async def test_tls_and_token_together(tcp, pki):
    spec = replace(tcp, tls_cert=pki / "server.crt", tls_key=pki / "server.key")
    trusted = grpc.ssl_channel_credentials((pki / "server.crt").read_bytes())
    stranger = grpc.ssl_channel_credentials((pki / "other.crt").read_bytes())
    async with running(AttachServer(Apps(), Source(), [spec])) as urls:
        assert urls[0].startswith("tls://127.0.0.1:")
        async with channel_to(urls[0], trusted) as channel:
            app = App(channel, [BEARER])
            await app.hello()
            await app.ping()
            assert (await App(channel).status())[0] == "UNAUTHENTICATED"
        async with channel_to(urls[0], stranger) as channel:
            assert (await App(channel, [BEARER]).status())[0] == "UNAVAILABLE"
        async with channel_to(urls[0]) as channel:  # in clear
            assert (await App(channel, [BEARER]).status())[0] == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("cert", "key", "sentence"),
    [
        ("server.crt", None, "needs both a certificate and its key"),
        (None, "server.key", "needs both a certificate and its key"),
        ("server.crt", "other.key", "do not work: key values mismatch"),
        ("none.crt", "server.key", "cannot read .*none.crt: No such file"),
        ("server.key", "server.crt", "do not work: "),
    ],
)
async def test_tls_files_that_do_not_work(tcp, pki, cert, key, sentence):
    spec = replace(tcp, tls_cert=pki / cert if cert else None, tls_key=pki / key if key else None)
    with pytest.raises(ConfigError, match=sentence):
        await AttachServer(Apps(), Source(), [spec]).start()


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
        answer = await control(channel, "GetStatus", pb.GetStatusRequest(), pb.Status)
        assert [row.service for row in answer.services] == ["bank"]
        assert list((await control(channel, "ListClusters", pb.ListRequest(), pb.ClusterList)).clusters) == []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await control(channel, "ListNodes", pb.ListRequest(service="shop"), pb.NodeList)
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
        assert (await control(channel, "GetStatus", pb.GetStatusRequest(), pb.Status)).host == "here"
        [node] = (await control(channel, "ListNodes", pb.ListRequest(service="shop"), pb.NodeList)).nodes
        assert node.state == "self"
        [cluster] = (await control(channel, "ListClusters", pb.ListRequest(), pb.ClusterList)).clusters
        assert (cluster.name, cluster.members) == ("databases", 2)
        [topic] = (await control(channel, "ListTopics", pb.ListRequest(), pb.TopicList)).topics
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


# ----------------------------------------------------------------- callers who mean harm


def connect(url: str) -> socket.socket:
    scheme, _, address = url.partition("://")
    if scheme == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(address)
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))


async def harmed(url: str, data: bytes) -> None:
    """Send bytes and read until the daemon hangs up, off the event loop."""

    def talk() -> None:
        with connect(url) as sock:
            sock.settimeout(10)
            try:
                sock.sendall(data)
                while sock.recv(65536):
                    pass
            except ConnectionError:
                pass  # hung up on with our bytes unread: as good

    await asyncio.to_thread(talk)


HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(65536),
        b"\x00" * 65536,
        HTTP2 + os.urandom(4096),
        HTTP2 + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(512),
    ],
    ids=["http1", "random", "zeros", "http2-random", "http2-huge-frame", "tls"],
)
async def test_garbage_on_every_port(unix, tcp, garbage):
    apps = Apps()
    async with running(AttachServer(apps, Source(), [unix, tcp])) as urls, app_at(urls[0]) as app:
        await app.hello()
        for url in urls:
            await harmed(url, garbage)
            await app.ping()
        async with app_at(urls[1], BEARER) as late:
            await late.hello()
    assert len(apps.said("attached")) == 2


async def test_a_flood_of_connections_is_bounded_and_the_apps_go_on(unix):
    apps = Apps()
    limits = AttachLimits(connections=64, hello_timeout=1.0)
    async with running(AttachServer(apps, Source(), [unix], limits)) as urls, app_at(urls[0]) as app:
        await app.hello()
        with ExitStack() as held:
            flood = [held.enter_context(connect(urls[0])) for _ in range(500)]
            await app.ping()

            def hung_up() -> int:
                count = 0
                for sock in flood:
                    sock.settimeout(5)
                    try:
                        first = sock.recv(4096)
                        while first and sock.recv(4096):  # its settings, and then: it hangs up on the silent
                            pass
                    except ConnectionError:
                        pass
                    count += 1
                return count

            assert await asyncio.to_thread(hung_up) == 500
            await app.ping()
        async with app_at(urls[0]) as late:  # and there is room again
            await late.hello()


async def test_a_flood_of_streams_is_bounded_and_the_apps_go_on(unix):
    apps = Apps()
    limits = AttachLimits(unready=32, hello_timeout=0.5)
    async with running(AttachServer(apps, Source(), [unix], limits)) as urls, app_at(urls[0]) as app:
        await app.hello()
        for _ in range(4):
            async with channel_to(urls[0]) as channel:
                streams = [App(channel) for _ in range(100)]
                await app.ping()
                statuses = [status for status, _ in await asyncio.gather(*(stream.status() for stream in streams))]
                assert set(statuses) == {"RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"}
                assert statuses.count("INVALID_ARGUMENT") <= 32 + 32  # waited for, at most twice the cap in this time
                await app.ping()
    assert len(apps.said("attached")) == 1
