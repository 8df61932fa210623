"""Large bodies that come in parts (pure): put together again, within bounds."""

from __future__ import annotations

from typing import Final

from iris_client._frames import Header, ProtocolError, Received
from iris_client._model import MiB

MAX_UNFINISHED: Final = 1024
"""Most bodies that may be under way at once."""

MAX_UNFINISHED_BYTES: Final = 256 * MiB
"""Most bytes unfinished bodies may hold together."""


class _Unfinished:
    __slots__ = ("have", "header", "pieces", "total")

    def __init__(self, header: Header, total: int) -> None:
        self.header = header
        self.total = total
        self.have = 0
        self.pieces: list[bytes] = []


class Assembly:
    """The bodies under way on one stream. Allocates what has come, never what was announced."""

    def __init__(self) -> None:
        self._open: dict[int, _Unfinished] = {}
        self._held = 0

    def begin(self, header: Header, body: bytes, max_body: int) -> None:
        """Take a first part.

        Raises:
            ProtocolError: Too large, too many, or its id is already under way.
        """
        total = header.total
        if total > max_body:
            raise ProtocolError(f"parts: a body of {total} bytes was announced, the limit is {max_body}")
        if header.id in self._open:
            raise ProtocolError(f"parts: id {header.id} is already under way")
        if len(self._open) >= MAX_UNFINISHED:
            raise ProtocolError(f"parts: more than {MAX_UNFINISHED} bodies under way")
        unfinished = _Unfinished(header, total)
        self._open[header.id] = unfinished
        self._add(unfinished, body, more=True)

    def part(self, header: Header, body: bytes) -> Received | None:
        """Take a PART; return the first part's header and the whole body once it is complete.

        Raises:
            ProtocolError: The lengths do not add up.
        """
        unfinished = self._open.get(header.id)
        if unfinished is None:
            return None  # its call ended meanwhile: ordinary
        self._add(unfinished, body, more=header.more)
        if header.more:
            return None
        self.forget(header.id)
        return unfinished.header, b"".join(unfinished.pieces)

    def forget(self, id: int) -> None:
        """Drop what came of this body; its further parts are ignored."""
        unfinished = self._open.pop(id, None)
        if unfinished is not None:
            self._held -= unfinished.have

    def _add(self, unfinished: _Unfinished, body: bytes, *, more: bool) -> None:
        unfinished.have += len(body)
        self._held += len(body)
        if self._held > MAX_UNFINISHED_BYTES:
            raise ProtocolError(f"parts: more than {MAX_UNFINISHED_BYTES} bytes of unfinished bodies")
        if unfinished.have > unfinished.total or more == (unfinished.have == unfinished.total):
            raise ProtocolError(f"parts: {unfinished.have} bytes came, {unfinished.total} were announced")
        unfinished.pieces.append(body)
