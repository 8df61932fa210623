"""What the client's pure tests stand on: a session with a scripted daemon at the other end, as frames."""

from __future__ import annotations

from typing import Any

from iris_client._frames import Kind, decode_batch
from iris_client._large import Reserve
from iris_client._session import Session
from iris_proto.v1 import frame_pb2 as pb

MiB = 1024 * 1024


class Promise:
    """What a future is to the session."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = False

    def done(self) -> bool:
        return self.ended

    def set_result(self, result: Any) -> None:
        assert not self.ended
        self.ended, self.result = True, result

    def set_exception(self, error: BaseException) -> None:
        assert not self.ended
        self.ended, self.error = True, error


def batch(*frames: tuple[dict[str, Any], bytes]) -> bytes:
    """Encode frames as a daemon would, by protobuf alone."""
    return pb.Batch(
        frames=[pb.Frame(header=pb.Header(**header), body=body) for header, body in frames]
    ).SerializeToString()


class Daemon:
    """A session, and the other end of its stream."""

    def __init__(
        self, *, attached: bool = True, max_body: int = 8 * MiB, max_large: int = 0, assembly: int = 64 * MiB
    ) -> None:
        self.now = 100.0
        self.woken = 0
        self.timers: list[float] = []
        self.session = Session(service="shop", name="app", version="0.0", wake=self._wake, reserve=Reserve(assembly))
        self.session.on_timer(self.timers.append)
        self.max_body = max_body
        self.max_large = max_large
        if attached:
            self.attach()

    def _wake(self) -> None:
        self.woken += 1

    def attach(self) -> None:
        self.session.lane_up()
        hello = self.take()
        assert [int(header.kind) for header, _ in hello] == [Kind.HELLO]
        self.say(kind=Kind.WELCOME, max_bytes=self.max_body, max_large=self.max_large, node="abcd", version="9")

    def say(self, body: bytes = b"", **header: Any) -> None:
        """Send one frame to the app."""
        self.session.received(batch((header, body)), self.now)

    def take(self, limit: int = MiB) -> list[tuple[Any, bytes]]:
        """Everything the app has to say now."""
        frames: list[tuple[Any, bytes]] = []
        while (data := self.session.take(limit, self.now)) is not None:
            frames += decode_batch(b"".join(data))
        return frames

    def take_one(self) -> tuple[Any, bytes]:
        frames = self.take()
        assert len(frames) == 1, [header for header, _ in frames]
        return frames[0]

    def take_batch(self, limit: int = MiB) -> list[tuple[Any, bytes]]:
        data = self.session.take(limit, self.now)
        return [] if data is None else decode_batch(b"".join(data))
