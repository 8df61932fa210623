"""The hello: eight bytes each way, before any message.

Layout, big-endian::

    offset  size  meaning
    0       3     00 53 50          zero, 'S', 'P'
    3       1     00                version
    4       2     endpoint type     of the sender (see ``endpoint.py``)
    6       2     00 00             reserved

Neither side has to wait for the other. A listener that offers several
protocols on one port may read the peer's hello first and then answer with the
matching endpoint; nanomsg gives it one second for that, nng ten.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from irisd.sp.endpoint import OBSOLETE_ENDPOINTS, EndpointType
from irisd.sp.errors import SpError, SpFault

HELLO_SIZE: Final = 8
_MAGIC: Final = b"\x00SP"
_LAYOUT: Final = struct.Struct(">4sHH")


def encode_hello(endpoint: EndpointType) -> bytes:
    """Return the eight bytes that announce ``endpoint``."""
    return _LAYOUT.pack(_MAGIC + b"\x00", endpoint, 0)


class HelloDecoder:
    """Reads a peer's hello from a byte stream, however it is cut.

    What cannot become an acceptable hello any more is refused at the first byte
    that shows it: a browser on this port is turned away after one byte, not
    after eight that may never come.

    Args:
        accept: The endpoints a peer may announce: the peers of what we offer.
    """

    def __init__(self, accept: Iterable[EndpointType]) -> None:
        self._endpoint_by_hello = {encode_hello(endpoint): endpoint for endpoint in accept}
        if not self._endpoint_by_hello:
            raise ValueError("a hello decoder that accepts nobody")
        self._arrived = b""

    def feed(self, data: bytes) -> tuple[EndpointType, bytes] | None:
        """Take bytes; return the peer's endpoint and what followed its hello.

        Returns:
            ``None`` while the hello is incomplete. Bytes after it (the first
            messages may share its segment) belong to the message decoder.

        Raises:
            SpError: ``NOT_SP``, ``VERSION``, ``RESERVED``, ``OBSOLETE`` or ``WRONG_PEER``.
        """
        missing = HELLO_SIZE - len(self._arrived)
        self._arrived += data[:missing]
        endpoint = self._endpoint_by_hello.get(self._arrived)
        if endpoint is not None:
            return endpoint, data[missing:]
        if not any(hello.startswith(self._arrived) for hello in self._endpoint_by_hello):
            raise self._refusal()
        return None

    def _refusal(self) -> SpError:
        """Name what is wrong with bytes that begin no acceptable hello."""
        arrived = self._arrived
        if not _MAGIC.startswith(arrived[:3]):
            return SpError(SpFault.NOT_SP, "the peer does not speak SP")
        if arrived[3] != 0:
            return SpError(SpFault.VERSION, f"SP version {arrived[3]} is not supported, only 0")
        number = int.from_bytes(arrived[4:6]) if len(arrived) >= 6 else None
        if number in OBSOLETE_ENDPOINTS:
            return SpError(SpFault.OBSOLETE, f"endpoint {number:#x} is obsolete: survey before 1.0", endpoint=number)
        accepted = ", ".join(sorted(endpoint.name for endpoint in self._endpoint_by_hello.values()))
        if number is None:
            return SpError(SpFault.WRONG_PEER, f"the peer is none of {accepted}")
        if number in self._endpoint_by_hello.values():
            return SpError(SpFault.RESERVED, "the reserved bytes of the hello are not zero", endpoint=number)
        return SpError(SpFault.WRONG_PEER, f"the peer is endpoint {number:#x}, none of {accepted}", endpoint=number)
