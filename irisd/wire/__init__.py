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
    encode_batch_parts,
    encode_frame,
    encode_parts,
)
from irisd.wire.hops import MAX_CANDIDATES, decode_hop, encode_hop
from irisd.wire.protobuf import WireError
from irisd.wire.records import PIECE_BYTES, RecordPiece, decode_record, encode_claims, encode_record, record_pieces
from irisd.wire.views import (
    Belief,
    Held,
    Saying,
    decode_beliefs,
    decode_view,
    decode_want,
    encode_beliefs,
    encode_view,
    encode_want,
)

__all__ = [
    "MAX_CANDIDATES",
    "PIECE_BYTES",
    "Belief",
    "Held",
    "RecordPiece",
    "Saying",
    "WireError",
    "decode_batch",
    "decode_beliefs",
    "decode_frame",
    "decode_hop",
    "decode_record",
    "decode_slices",
    "decode_view",
    "decode_want",
    "encode_batch",
    "encode_batch_parts",
    "encode_beliefs",
    "encode_claims",
    "encode_frame",
    "encode_hop",
    "encode_parts",
    "encode_record",
    "encode_view",
    "encode_want",
    "record_pieces",
]
