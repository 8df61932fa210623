"""What a call is, and whom it is for."""

from __future__ import annotations

from irisd.model import LARGE, Code, Frame, Kind, Pattern
from irisd.node.core import Core, ProtocolError
from irisd.node.endpoints import App, Endpoint, UnderWay
from irisd.router import Call
from irisd.router.names import BadName, parse_address

PATTERN: dict[int, int] = {
    Kind.REQUEST: int(Pattern.REQUEST),
    Kind.PUSH: int(Pattern.PUSH),
    Kind.TUNNEL: int(Pattern.TUNNEL),
    Kind.BROADCAST: int(Pattern.BROADCAST),
    Kind.SURVEY: int(Pattern.SURVEY),
}
"""What a member must handle to be given a call."""

NAME: dict[int, str] = {
    Kind.REQUEST: "requests",
    Kind.PUSH: "pushes",
    Kind.TUNNEL: "tunnels",
    Kind.BROADCAST: "broadcasts",
    Kind.SURVEY: "surveys",
}
"""What people call them."""

COUNTER: dict[int, str] = {kind: f"calls.{name}" for kind, name in NAME.items()}
"""Where they are counted."""


def kind_of(frame: Frame) -> int:
    """What a call asks for: a tunnel may carry a request."""
    return frame.carries or frame.kind


def needed(frame: Frame) -> int:
    """The pattern a member must handle to be given a call."""
    return LARGE if frame.carries else PATTERN[frame.kind]


def cluster_named(core: Core, source: Endpoint, frame: Frame) -> str | None:
    """The cluster a call is addressed to; answers the call itself when there is no such place."""
    try:
        service, cluster, cloud = parse_address(frame.address)
    except BadName as error:
        core.fail(source.id, frame.id, Code.INVALID, str(error))
        return None
    identity = core.identity
    if service and service != identity.service:
        core.fail(
            source.id, frame.id, Code.NO_MEMBER, f"service {service!r} is not reachable from {identity.service!r}"
        )
        return None
    if cloud and cloud != identity.cloud:
        core.fail(source.id, frame.id, Code.NO_MEMBER, f"cloud {cloud!r} is not reachable from {identity.cloud!r}")
        return None
    return cluster


def check_id(core: Core, endpoint: Endpoint, frame: Frame) -> None:
    """Whoever opens a call chooses its id: one of its own, and not in use."""
    id = frame.id
    if isinstance(endpoint, App) and endpoint.holds(id):
        raise ProtocolError(f"id {id} is in use")
    if id in endpoint.opened or id <= 0:
        raise ProtocolError(f"id {id} is in use" if id else "a call without an id")
    theirs_are_odd = isinstance(endpoint, App) or endpoint.id < core.identity.node_id  # type: ignore[operator]
    if id % 2 != theirs_are_odd:
        raise ProtocolError(f"id {id}: apps use odd ids" if isinstance(endpoint, App) else f"id {id} is not yours")


def check_accepted(under_way: UnderWay, of_tunnel: bool) -> None:
    """A tunnel's frames follow the CREDIT with which its member accepts it."""
    unopened = isinstance(under_way, Call) and under_way.frame.kind == Kind.TUNNEL and not under_way.cancelled
    if of_tunnel and unopened:
        raise ProtocolError("tunnel: DATA, FINISH or CREDIT before its member has accepted it with a CREDIT")
