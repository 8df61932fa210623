"""Large bodies that came in parts (pure): put together again, within bounds.

A body above :data:`~irisd.model.PART_BYTES` arrives as its own frame with
``more`` and ``total``, followed by PART frames of the same id; parts of
different ids may interleave.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from irisd.model import Frame, Kind, MiB

MAX_OPEN = 1024
"""Most bodies one connection may have under way at once."""


class PartsError(ValueError):
    """The other side broke a rule of parts; the message names it."""


@dataclass(slots=True)
class _Assembly:
    frame: Frame
    total: int
    body: bytearray = field(default_factory=bytearray)


class Assembler:
    """The bodies under way on one connection.

    Args:
        max_body: Most bytes one body may have.
        max_bytes: Most bytes all unfinished bodies may hold together; what has come is held, never what was announced.
    """

    def __init__(self, *, max_body: int, max_bytes: int = 64 * MiB) -> None:
        self._max_body = max_body
        self._max_bytes = max(max_bytes, max_body)
        self._open: dict[int, _Assembly] = {}
        self._held = 0

    def __len__(self) -> int:
        return len(self._open)

    def feed(self, frame: Frame) -> Frame | None:
        """Take a first part or a PART; return the whole frame once its last part is in.

        Raises:
            PartsError: Too large, too many, or the lengths do not add up.
        """
        if frame.kind != Kind.PART:
            self._begin(frame)
        assembly = self._open.get(frame.id)
        if assembly is None:
            return None  # its call was cancelled meanwhile: ordinary
        body = assembly.body
        self._held += len(frame.body)
        have = len(body) + len(frame.body)
        if self._held > self._max_bytes:
            raise PartsError(f"parts: more than {self._max_bytes} bytes of unfinished bodies")
        if have > assembly.total or frame.more == (have == assembly.total):
            raise PartsError(f"parts: {have} bytes came, {assembly.total} were announced")
        if not frame.body:
            raise PartsError("parts: an empty one")
        body += frame.body
        if frame.more:
            return None
        self.forget(frame.id)
        whole = assembly.frame.copy(body=bytes(body))
        del whole.__dict__["more"], whole.__dict__["total"]
        if frame.seq:
            whole.seq = frame.seq
        return whole

    def forget(self, id: int) -> None:
        """Drop what came of this body; its further parts are ignored."""
        assembly = self._open.pop(id, None)
        if assembly is not None:
            self._held -= len(assembly.body)

    def _begin(self, frame: Frame) -> None:
        if frame.total > self._max_body:
            raise PartsError(f"parts: a body of {frame.total} bytes, the limit is {self._max_body}")
        if frame.id in self._open:
            raise PartsError(f"parts: id {frame.id} is already under way")
        if len(self._open) >= MAX_OPEN:
            raise PartsError(f"parts: more than {MAX_OPEN} bodies under way")
        self._open[frame.id] = _Assembly(frame.copy(body=b""), frame.total)
