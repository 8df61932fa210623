"""EDGE: apps come in. A gRPC server on a Unix socket and, when asked for, on TCP."""

from irisd.attach.admin import AdminServer, AdminSource, DrainInfo
from irisd.attach.attachment import AttachHandler, AttachLimits, Attachment, AttachRefused
from irisd.attach.control import ControlSource
from irisd.attach.listener import ListenerSpec, TcpPort, UnixSocket
from irisd.attach.server import AttachServer

__all__ = [
    "AdminServer",
    "AdminSource",
    "AttachHandler",
    "AttachLimits",
    "AttachRefused",
    "AttachServer",
    "Attachment",
    "ControlSource",
    "DrainInfo",
    "ListenerSpec",
    "TcpPort",
    "UnixSocket",
]
