"""The calls a daemon opens for a member (pure): what came, and the one answer that goes back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from iris_client._frames import Code, Header, Kind, ProtocolError, make
from iris_client._model import NO_HEADERS, Request
from iris_client._tunnelcall import broken, tunnel_frame
from iris_client._tunnelflow import TunnelFlow

PATTERN_NAMES: Final[dict[int, str]] = {
    Kind.REQUEST: "request",
    Kind.PUSH: "push",
    Kind.BROADCAST: "broadcast",
    Kind.SURVEY: "survey",
    Kind.TUNNEL: "tunnel",
}
"""The kinds a daemon opens calls with."""


class Answers(Protocol):
    """What a delivery needs of its session."""

    def answer(self, delivery: Delivery, header: Header, body: bytes) -> None:
        """Queue the frame that ends the delivery."""

    def answer_large(self, delivery: Delivery, header: Header, body: bytes) -> None:
        """Send a reply that is too large for a frame."""


class Delivery:
    """One call for a member. It is answered once; answers after it is over are ignored.

    Attributes:
        kind: REQUEST, PUSH, BROADCAST, SURVEY or TUNNEL.
        id: The daemon's id for it.
        cluster: Whose member it is for.
        deadline: When nobody waits for the answer any more, monotonic seconds; infinite for pushes, broadcasts and
            tunnels, whose timeout was for getting here.
        cancelled: Its caller no longer wants it.
        late: Its deadline passed.
        over: Answered, given up, or its stream is gone.
        on_cancel: Called when the caller no longer wants it, with whether its deadline passed.
        flow: A tunnel's data; for a request, of a body or a reply that is too large for a frame.
        max_reply: Most bytes a reply may have besides ``max_body``; 0 when its caller takes no large one.
    """

    __slots__ = (
        "_header",
        "_session",
        "body",
        "cancelled",
        "cluster",
        "deadline",
        "flow",
        "id",
        "kind",
        "late",
        "on_cancel",
        "over",
    )

    def __init__(self, session: Answers, header: Header, body: bytes, cluster: str, now: float) -> None:
        self._session = session
        self._header = header
        kind: int = header.carries or header.kind
        self.kind = kind
        self.id: int = header.id
        self.cluster = cluster
        self.body = body
        self.deadline = math.inf
        if header.remaining_ms and kind in (Kind.REQUEST, Kind.SURVEY):
            self.deadline = now + header.remaining_ms / 1000
        self.over = False
        self.cancelled = False
        self.late = False
        self.on_cancel: Callable[[bool], None] | None = None
        self.flow: TunnelFlow | None = None

    @property
    def method(self) -> str:
        return self._header.method

    @property
    def max_reply(self) -> int:
        return self._header.max_large if self.kind == Kind.REQUEST else 0

    @property
    def headers(self) -> Mapping[str, str]:
        return dict(self._header.headers) if len(self._header.headers) else NO_HEADERS

    def request(self) -> Request:
        """The raw form for handlers."""
        header = self._header
        return Request(self.body, self.headers, header.method, header.member, header.content_type, self.deadline)

    def reply(self, body: bytes, headers: dict[str, str] | None = None, content_type: str = "") -> None:
        """Answer a request or a survey."""
        if not self.over:
            header = make(kind=Kind.REPLY, id=self.id, headers=headers, content_type=content_type)
            self._session.answer(self, header, body)

    def reply_large(self, body: bytes, headers: dict[str, str] | None = None, content_type: str = "") -> None:
        """Answer a request with at most ``max_reply`` bytes, too many for a frame."""
        if not self.over:
            header = make(kind=Kind.REPLY, id=self.id, total=len(body), headers=headers, content_type=content_type)
            self._session.answer_large(self, header, body)

    def done(self) -> None:
        """A push or a broadcast was handled."""
        if not self.over:
            self._session.answer(self, make(kind=Kind.DONE, id=self.id), b"")

    def fail(self, code: int, executed: int, detail: str = "", *, reason: str = "", body: bytes = b"") -> None:
        """Answer with an error."""
        if not self.over:
            header = make(
                kind=Kind.ERROR,
                id=self.id,
                code=code,
                executed=executed,
                reason=reason,
                detail=detail,
            )
            self._session.answer(self, header, body)

    def on_frame(self, kind: int, header: Header, body: bytes) -> None:
        """Take a frame that its opener sent after the first.

        Raises:
            ProtocolError: It is none that may follow.
        """
        flow = self.flow
        if kind == Kind.CANCEL:
            self.cancel()
            if flow is not None and (self.kind == Kind.TUNNEL or self.over):
                flow.abort("the opener cancelled it", Code.CANCELLED)
        elif flow is None:
            raise ProtocolError(f"unexpected frame kind {kind} for a {PATTERN_NAMES[self.kind]}")
        elif kind == Kind.ERROR:
            if self.kind != Kind.TUNNEL:
                self.cancel()
            flow.fail(broken(f"tunnel of cluster {self.cluster!r}", header.detail or "the opener broke it"))
        else:
            tunnel_frame(flow, kind, header, body)

    def cancel(self, *, late: bool = False) -> None:
        """The caller gave up, or its deadline passed (``late``). The handler is told; its answer is still due."""
        if not self.cancelled and not self.over:
            self.cancelled, self.late = True, late
            if self.on_cancel is not None:
                self.on_cancel(late)

    def expired(self, now: float) -> None:
        self.cancel(late=True)


class Member(Protocol):
    """Where deliveries of one cluster go."""

    def takes(self, delivery: Delivery) -> bool:
        """Whether there is a handler for it; answers it itself if there is none."""

    def arriving(self, delivery: Delivery) -> None:
        """It will be delivered when its body is here."""

    def lost(self, delivery: Delivery) -> None:
        """It will not."""

    def deliver(self, delivery: Delivery) -> None: ...
