"""Listeners: where apps may come in, and the gRPC server behind each.

Every listener has a gRPC server of its own, so that what one offers, asks for
and bounds is said once and cannot be confused with another's. A Unix socket is
guarded by its file's mode; TCP always by a token, and off loopback by TLS as
well.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog

from irisd.attach.attachment import AttachLimits
from irisd.attach.lane import LocalLane, bind, can_tell_users
from irisd.attach.socketfile import SocketFile
from irisd.attach.token import Token, TokenGate, read_token
from irisd.errors import ConfigError, IrisdError, ListenError

_log = structlog.get_logger("irisd.attach")


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A Unix socket. ``services`` empty: all; ``group`` ``None``: the process's own."""

    path: Path
    mode: int = 0o660
    group: str | None = None
    services: frozenset[str] = frozenset()
    lane: bool = True
    """Whether apps may move to a local lane, on a socket beside this one."""

    @property
    def lane_path(self) -> Path:
        """Where that is: ``irisd.lane`` beside ``irisd.sock``."""
        return (
            self.path.with_suffix(".lane")
            if self.path.suffix == ".sock"
            else self.path.with_name(f"{self.path.name}.lane")
        )


@dataclass(frozen=True, slots=True)
class TcpPort:
    """A TCP port, opened by a token. Port 0: choose and tell. TLS is required off loopback."""

    host: str
    port: int
    token_file: Path
    tls_cert: Path | None = None
    tls_key: Path | None = None
    services: frozenset[str] = frozenset()


ListenerSpec = UnixSocket | TcpPort


class Listener:
    """One open listener; made by :func:`open_listener`, which says what may go wrong.

    Attributes:
        url: Where apps reach it: ``unix:///path``, ``tcp://host:port``, ``tls://host:port``.
        server: Its gRPC server, not started.
        services: What it offers; empty for all.
        lane: Where its apps may move to, if they may.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        url: str,
        services: frozenset[str],
        *,
        socket_files: Sequence[SocketFile] = (),
        lane: LocalLane | None = None,
        gate: TokenGate | None = None,
        token_file: Path | None = None,
    ) -> None:
        self.server = server
        self.url = url
        self.services = services
        self.lane = lane
        self._socket_files = socket_files
        self._gate = gate
        self._token_file = token_file

    def read_token(self) -> Token | None:
        """What stands in its token file now; None if it has none.

        Raises:
            TokenFileError: It is not usable any more.
        """
        return None if self._token_file is None else read_token(self._token_file)

    def use_token(self, token: Token | None) -> None:
        """Ask for this token from now on. Streams that are open stay open."""
        if self._gate is not None and token is not None:
            self._gate.token = token

    async def start(self) -> None:
        """Take apps."""
        if self.lane is not None:
            await self.lane.start()
        await self.server.start()

    async def close(self, grace: float) -> None:
        """Stop the server, abort what still runs after ``grace`` seconds, remove the sockets' files."""
        try:
            if self.lane is not None:
                self.lane.close()
            await self.server.stop(grace)
        finally:
            for file in self._socket_files:
                file.release()


def open_listener(spec: ListenerSpec, limits: AttachLimits) -> Listener:
    """Bind a listener. Its server has no handlers yet and is not started.

    Raises:
        ConfigError, RuntimeFolderError, AlreadyRunningError, TokenFileError, ListenError: See
            :class:`SocketFile`, :func:`~irisd.attach.token.read_token` and the messages below.
    """
    return _open_unix(spec, limits) if isinstance(spec, UnixSocket) else _open_tcp(spec, limits)


def _open_unix(spec: UnixSocket, limits: AttachLimits) -> Listener:
    file = SocketFile(spec.path, mode=spec.mode, group=spec.group)
    file.claim()
    try:
        server = _server(limits)
        file.bind(server.add_insecure_port)
        lane, lane_file = _open_lane(spec, limits) if spec.lane and can_tell_users() else (None, None)
    except BaseException:
        file.release()
        raise
    files = (file,) if lane_file is None else (lane_file, file)
    return Listener(server, f"unix://{spec.path}", spec.services, socket_files=files, lane=lane)


def _open_lane(spec: UnixSocket, limits: AttachLimits) -> tuple[LocalLane | None, SocketFile | None]:
    """Bind the lane's socket; where that cannot be, apps stay on gRPC."""
    file = SocketFile(spec.lane_path, mode=spec.mode, group=spec.group)
    bound: list[socket.socket] = []
    try:
        file.claim()
        file.bind(lambda _: bound.append(bind(str(spec.lane_path))))
    except IrisdError as error:
        for sock in bound:
            sock.close()
        file.release()
        _log.warning("attach.no_lane", reason=str(error))
        return None, None
    times = {"timeout": limits.hello_timeout, "linger": limits.linger}
    return LocalLane(str(spec.lane_path), bound[0], unready=limits.unready, **times), file


def _open_tcp(spec: TcpPort, limits: AttachLimits) -> Listener:
    address = _resolve(spec.host, spec.port)
    gate = TokenGate(read_token(spec.token_file))
    credentials = _credentials(spec)
    if credentials is None and not ipaddress.ip_address(address).is_loopback:
        raise ConfigError(
            f"attaching over TCP on {spec.host} leaves this host, where the token would travel in clear: "
            "give a TLS certificate and key, or listen on 127.0.0.1"
        )
    _probe(address, spec.port)
    server = _server(limits, (gate,))
    target = _join(address, spec.port)
    try:
        if credentials is None:
            port = server.add_insecure_port(target)
        else:
            port = server.add_secure_port(target, credentials)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {target}: {str(error).split(';', 1)[0]}") from error
    url = f"{'tcp' if credentials is None else 'tls'}://{_join(address, port)}"
    return Listener(server, url, spec.services, gate=gate, token_file=spec.token_file)


def _server(limits: AttachLimits, interceptors: Sequence[Any] = ()) -> grpc.aio.Server:
    return grpc.aio.server(
        interceptors=interceptors,
        options=[
            ("grpc.so_reuseport", 0),  # else a second daemon on the port would share it, and nobody would notice
            ("grpc.max_receive_message_length", limits.message),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_allowed_incoming_connections", limits.connections),
            ("grpc.server_handshake_timeout_ms", int(limits.hello_timeout * 1000)),
            # A connection is one app as a rule, or one process with some; streams in total are capped below.
            ("grpc.max_concurrent_streams", 1024),
            ("grpc.max_connection_idle_ms", 60_000),
            # An app whose host sleeps or whose cable is cut must not stay a member; a stopped process may come back.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 30_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ],
        maximum_concurrent_rpcs=limits.attachments + limits.unready + 1024,
    )


def _resolve(host: str, port: int) -> str:
    if not 0 <= port <= 65535:
        raise ConfigError(f"{port} is not a TCP port; use 1 to 65535, or 0 to have one chosen")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"cannot listen on {host!r}: {error.strerror}; name an address of this host") from error
    # What is bound is an address, not the name: the two checks above and below are about the same thing.
    addresses = [str(entry[4][0]) for entry in found]
    return next((address for address in addresses if ":" not in address), addresses[0])


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _probe(address: str, port: int) -> None:
    """Bind and let go, because gRPC's own error does not say why."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        raise ListenError(
            f"cannot listen on {_join(address, port)}: {os.strerror(error.errno or 0)}; "
            "free it, or choose another (port 0 has one chosen)"
        ) from error


def _credentials(spec: TcpPort) -> grpc.ServerCredentials | None:
    if spec.tls_cert is None and spec.tls_key is None:
        return None
    if spec.tls_cert is None or spec.tls_key is None:
        raise ConfigError("TLS needs both a certificate and its key; only one of them was given")
    try:
        cert, key = spec.tls_cert.read_bytes(), spec.tls_key.read_bytes()
        # gRPC takes anything here and fails every handshake later; OpenSSL says now whether the two belong together.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(spec.tls_cert, spec.tls_key, password=b"")
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise ConfigError(
            f"the TLS certificate {spec.tls_cert} and key {spec.tls_key} do not work: {reason}"
        ) from error
    except (OSError, ValueError) as error:
        what = getattr(error, "filename", None) or f"{spec.tls_cert} or {spec.tls_key}"
        raise ConfigError(f"cannot read {what}: {getattr(error, 'strerror', None) or error}") from error
    return grpc.ssl_server_credentials([(key, cert)])
