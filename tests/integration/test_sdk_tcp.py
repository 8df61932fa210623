"""The SDK over TCP: tokens, TLS, and refusals that name the cause without showing the secret."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import iris_client as iris
from tests.integration.sdk_ground import PATIENCE, DaemonProcess

TOKEN = "correct-horse-battery-staple-correct-horse"


@pytest.fixture
def token_file(run_dir: Path) -> Path:
    path = run_dir / "token"
    path.touch(mode=0o600)
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture
def daemon(run_dir: Path, token_file: Path) -> Iterator[DaemonProcess]:
    made = DaemonProcess(run_dir, "one", "--attach-tcp", "127.0.0.1:0", "--token-file", str(token_file)).start()
    yield made
    made.kill()


async def test_a_token_opens_tcp(daemon: DaemonProcess, token_file: Path, monkeypatch: pytest.MonkeyPatch):
    url = await daemon.told(r"(tcp://127\.0\.0\.1:\d+)\"")
    async with iris.connect(url, token=TOKEN, timeout=PATIENCE) as mesh:
        with pytest.raises(iris.NoMember):
            await mesh.request("nobody")
    monkeypatch.setenv("IRIS_TOKEN_FILE", str(token_file))
    async with iris.connect(url, timeout=PATIENCE) as mesh:
        await mesh.flush()


@pytest.mark.parametrize("token", [None, "", "wrong-wrong-wrong-wrong-wrong-wrong"])
async def test_without_the_token_nobody_gets_in(daemon: DaemonProcess, token: str | None):
    url = await daemon.told(r"(tcp://127\.0\.0\.1:\d+)\"")
    with pytest.raises(iris.Denied) as caught:
        await iris.connect(url, token=token, timeout=PATIENCE)
    assert "token" in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert not token or token not in str(caught.value)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "irisd")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "cert.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, private


async def test_tls(run_dir: Path, token_file: Path):
    chain, private = certificate(run_dir)
    daemon = DaemonProcess(
        run_dir, "one", "--attach-tcp", "127.0.0.1:0", "--token-file", str(token_file),
        "--tls-cert", str(chain), "--tls-key", str(private),
    ).start()  # fmt: skip
    try:
        place = await daemon.told(r"tls://(127\.0\.0\.1:\d+)\"")
        async with iris.connect(f"tls://{place}?ca={chain}", token=TOKEN, timeout=PATIENCE) as mesh:
            await mesh.flush()
        with pytest.raises(iris.DaemonUnavailable):  # nobody vouches for it
            await iris.connect(f"tls://{place}", token=TOKEN, timeout=1.0)
        with pytest.raises(iris.DaemonUnavailable, match=r"absent\.pem: No such file"):
            await iris.connect(f"tls://{place}?ca={run_dir}/absent.pem", token=TOKEN, timeout=0.1)
    finally:
        daemon.kill()
