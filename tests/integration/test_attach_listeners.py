"""Listeners over real gRPC: the socket's file, ports, tokens and TLS."""

from __future__ import annotations

import re
import socket
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from iris_proto.v1 import control_pb2 as pb
from irisd.attach import AttachServer, TcpPort, UnixSocket
from irisd.errors import AlreadyRunningError, ConfigError, ListenError, RuntimeFolderError, TokenFileError
from tests.integration.attach_glue import (
    BEARER,
    SECRET,
    App,
    Apps,
    Source,
    app_at,
    ask_control,
    channel_to,
    running,
    write_token,
)


@pytest.fixture
def tcp(run_dir: Path) -> TcpPort:
    return TcpPort("127.0.0.1", 0, write_token(run_dir))


@pytest.fixture
def unix(run_dir: Path) -> UnixSocket:
    return UnixSocket(run_dir / "irisd.sock")


def make_certificate(folder: Path, name: str) -> None:
    """Write a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, nobody = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(pem))
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, nobody))
    secret = serialization.BestAvailableEncryption(b"a passphrase")
    (folder / f"{name}-locked.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, secret))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold a certificate for 127.0.0.1, its key, and another pair."""
    folder = tmp_path_factory.mktemp("pki")
    make_certificate(folder, "server")
    make_certificate(folder, "other")
    return folder


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


async def test_all_listeners_or_none(unix, tcp):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = AttachServer(Apps(), Source(), [unix, replace(tcp, port=port)])
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
            await ask_control(channel, "GetStatus", pb.GetStatusRequest(), pb.Status, *metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert apps.calls == []
        answer = await ask_control(channel, "GetStatus", pb.GetStatusRequest(), pb.Status, BEARER)
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
        ("server.crt", "server-locked.key", "do not work: "),  # and nobody is asked for a passphrase
    ],
)
async def test_tls_files_that_do_not_work(tcp, pki, cert, key, sentence):
    spec = replace(tcp, tls_cert=pki / cert if cert else None, tls_key=pki / key if key else None)
    with pytest.raises(ConfigError, match=sentence):
        await AttachServer(Apps(), Source(), [spec]).start()
