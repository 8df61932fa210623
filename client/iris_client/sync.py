"""The same mesh for threads: the names of ``iris_client``, without ``async`` and ``await``.

    from iris_client import sync as iris

    with iris.connect() as mesh:
        print(mesh.request("greeters", b"world").body)

One loop, in a thread of its own, does the work; any number of threads may use one mesh. Handlers are plain functions
and run in threads of their own; calls they make wait no longer than their own caller does.
"""

from iris_client._cluster import Cluster
from iris_client._codecs import BYTES, JSON, Codec
from iris_client._errors import (
    CallCancelled,
    CodecError,
    DaemonUnavailable,
    DeadlineExceeded,
    DeliveryError,
    Denied,
    Detached,
    HandlerFailed,
    InvalidCall,
    InvalidName,
    IrisError,
    MemberLost,
    MeshClosed,
    NoMember,
    NotSupported,
    Overloaded,
    PublishLost,
    Reject,
    Rejected,
    SlowSubscriber,
    TooLarge,
    TunnelBroken,
    WouldBlock,
)
from iris_client._model import Answer, Change, Event, Executed, KiB, MiB, Reply, Request, State, StateChange
from iris_client._run import run
from iris_client._sync_mesh import Mesh, connect
from iris_client._sync_things import Joined, Subscription, Survey, Tunnel, Watch
from iris_client._urls import InvalidUrl

__all__ = [
    "BYTES",
    "JSON",
    "Answer",
    "CallCancelled",
    "Change",
    "Cluster",
    "Codec",
    "CodecError",
    "DaemonUnavailable",
    "DeadlineExceeded",
    "DeliveryError",
    "Denied",
    "Detached",
    "Event",
    "Executed",
    "HandlerFailed",
    "InvalidCall",
    "InvalidName",
    "InvalidUrl",
    "IrisError",
    "Joined",
    "KiB",
    "MemberLost",
    "Mesh",
    "MeshClosed",
    "MiB",
    "NoMember",
    "NotSupported",
    "Overloaded",
    "PublishLost",
    "Reject",
    "Rejected",
    "Reply",
    "Request",
    "SlowSubscriber",
    "State",
    "StateChange",
    "Subscription",
    "Survey",
    "TooLarge",
    "Tunnel",
    "TunnelBroken",
    "Watch",
    "WouldBlock",
    "connect",
    "run",
]
