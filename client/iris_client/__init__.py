"""The Iris SDK: requests, pushes, broadcasts, surveys, events and tunnels, to names instead of addresses.

    import iris_client as iris

    greeters = iris.Cluster("greeters")

    @greeters.on_request
    async def greet(body: bytes) -> bytes:
        return b"hello " + body

    iris.run(greeters)                                     # one program

    async with iris.connect() as mesh:                     # another
        print((await mesh.request("greeters", b"world")).body)

Every call has a timeout, every failure is typed and says whether the handler ran. ``iris_client.sync`` is the same
for threads; ``iris_client.testing`` runs a mesh inside a test.
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
from iris_client._joined import Joined
from iris_client._mesh import Mesh, connect
from iris_client._model import Answer, Change, Event, Executed, KiB, MiB, Reply, Request, State, StateChange
from iris_client._run import run
from iris_client._subscription import Subscription
from iris_client._survey import Survey
from iris_client._tunnel import Tunnel
from iris_client._urls import InvalidUrl
from iris_client._version import VERSION as __version__
from iris_client._watch import Watch

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
    "__version__",
    "connect",
    "run",
]
