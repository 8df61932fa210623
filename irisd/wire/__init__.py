"""Frames <-> bytes (pure): the protobuf encoding of ``proto/iris/v1/frame.proto``, by hand.

Written by hand because the hot path needs little of protobuf: a frame keeps its
body and its app's headers as they came, so routing a frame never touches them.
Generated stubs stay in ``attach/``; a test proves both encodings equal.
"""

from irisd.wire.frames import (
    decode_batch,
    decode_frame,
    decode_slices,
    encode_batch,
    encode_frame,
    encode_parts,
)
from irisd.wire.protobuf import WireError
from irisd.wire.records import PIECE_BYTES, decode_claims, encode_claims

__all__ = [
    "PIECE_BYTES",
    "WireError",
    "decode_batch",
    "decode_claims",
    "decode_frame",
    "decode_slices",
    "encode_batch",
    "encode_claims",
    "encode_frame",
    "encode_parts",
]
