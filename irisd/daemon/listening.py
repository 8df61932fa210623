"""Where apps may come in, as the settings say (pure)."""

from __future__ import annotations

from pathlib import Path

from irisd.attach import ListenerSpec, TcpPort, UnixSocket
from irisd.config import Config


def listeners_of(config: Config) -> list[ListenerSpec]:
    """The Unix socket, and TCP where it is asked for."""
    listeners: list[ListenerSpec] = [
        UnixSocket(
            Path(config.socket),
            mode=config.socket_mode,
            group=config.socket_group or None,
            services=frozenset(config.socket_services),
            lane=config.local_lane,
        )
    ]
    if config.attach_tcp is not None:
        listeners.append(
            TcpPort(
                config.attach_tcp.host,
                config.attach_tcp.port,
                Path(config.token_file),
                tls_cert=Path(config.tls_cert) if config.tls_cert else None,
                tls_key=Path(config.tls_key) if config.tls_key else None,
                services=frozenset(config.attach_tcp_services),
            )
        )
    return listeners
