"""Codecs: how values become bodies and back. The core is bytes; this is sugar.

A codec is anything with ``content_type``, ``encode(value)`` and ``decode(body, type)``; see :class:`Codec`.
"""

from __future__ import annotations

import json
import sys
from inspect import Parameter
from typing import Any, Protocol, runtime_checkable

from iris_client._errors import CodecError
from iris_client._shapes import build, plain

_ANYTHING = (Any, object, Parameter.empty)


@runtime_checkable
class Codec(Protocol):
    """How values become bodies and back. Both methods raise ``ValueError`` or ``TypeError`` for what they cannot do.

    Attributes:
        content_type: Travels with every body the codec made.
    """

    content_type: str

    def encode(self, value: Any) -> bytes:
        """Return the body for ``value``."""

    def decode(self, body: bytes, type: Any) -> Any:
        """Return the value in ``body``, which should be of ``type`` (an annotation; ``Any`` when there is none)."""


class BytesCodec:
    """Bodies as they are: ``bytes`` in, ``bytes`` out."""

    content_type = ""

    def encode(self, value: Any) -> bytes:
        """Return ``value``, which must be bytes-like.

        Raises:
            CodecError: It is not.
        """
        if isinstance(value, bytes):
            return value
        if isinstance(value, (bytearray, memoryview)):
            return bytes(value)
        raise CodecError(f"expected bytes, got {type(value).__name__}; a codec such as iris.JSON takes other types")

    def decode(self, body: bytes, type: Any) -> bytes:
        """Return ``body``.

        Raises:
            CodecError: Something other than bytes is wanted.
        """
        if type is bytes or type in _ANYTHING:
            return body
        raise CodecError(f"the bytes codec cannot make {type!r} of a body; a codec such as iris.JSON can")

    def __repr__(self) -> str:
        return "iris.BYTES"


class JsonCodec:
    """JSON by the standard library; knows dataclasses and enums, uses pydantic and msgspec where the type is theirs.

    Decoding checks: a body that is not of the wanted shape is refused with a message that says where. Fields a
    dataclass does not know are ignored, so that senders may be newer than receivers.
    """

    content_type = "application/json"

    def encode(self, value: Any) -> bytes:
        """Return ``value`` as JSON.

        Raises:
            CodecError: It holds something JSON has no word for (``bytes`` or NaN, for example).
        """
        try:
            if not isinstance(value, (dict, list, str, int, float, type(None))):
                pydantic = sys.modules.get("pydantic")
                if pydantic is not None and isinstance(value, pydantic.BaseModel):
                    encoded: bytes = value.model_dump_json().encode()
                    return encoded
                msgspec = sys.modules.get("msgspec")
                if msgspec is not None and isinstance(value, msgspec.Struct):
                    encoded = msgspec.json.encode(value)
                    return encoded
            return json.dumps(value, default=plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
        except CodecError:
            raise
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(f"JSON cannot encode this {type(value).__name__}: {error}") from None

    def decode(self, body: bytes, type: Any) -> Any:
        """Return the value in ``body``, checked against ``type``.

        Raises:
            CodecError: It is not JSON, or not of that shape.
        """
        try:
            if isinstance(type, _Type):
                pydantic = sys.modules.get("pydantic")
                if pydantic is not None and issubclass(type, pydantic.BaseModel):
                    return type.model_validate_json(body)  # type: ignore[attr-defined]
                msgspec = sys.modules.get("msgspec")
                if msgspec is not None and issubclass(type, msgspec.Struct):
                    return msgspec.json.decode(body, type=type)
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise CodecError(f"the body is not the JSON expected: {_short(error)}") from None
        return value if type in _ANYTHING else build(value, type, "")

    def __repr__(self) -> str:
        return "iris.JSON"


_Type = type


def _short(error: BaseException) -> str:
    text = str(error)
    return text if len(text) <= 300 else text[:299] + "…"


BYTES = BytesCodec()
JSON = JsonCodec()


def encode_body(value: Any, codec: Codec | None) -> tuple[bytes, str]:
    """Return the body and content type for a value an app wants to send. Bytes are a body already, whatever the codec.

    Raises:
        CodecError: It is not bytes and there is no codec, or the codec cannot encode it.
    """
    if isinstance(value, bytes):
        return value, ""
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value), ""
    if codec is None:
        raise CodecError(f"a body is bytes, not {type(value).__name__}; codec=iris.JSON takes other types")
    return encode(value, codec), codec.content_type


def encode(value: Any, codec: Codec) -> bytes:
    """Run ``codec.encode``; whatever it raises for a bad value becomes :class:`CodecError`.

    Raises:
        CodecError: The value cannot be encoded, or the codec did not make bytes of it.
    """
    try:
        body = codec.encode(value)
    except CodecError:
        raise
    except (ValueError, TypeError) as error:
        raise CodecError(f"{codec!r} cannot encode this {type(value).__name__}: {_short(error)}") from error
    if not isinstance(body, bytes):
        raise CodecError(f"{codec!r} made {type(body).__name__} of a value, not bytes")
    return body


def decode(body: bytes, type: Any, codec: Codec) -> Any:
    """Run ``codec.decode``; whatever it raises for a bad body becomes :class:`CodecError`.

    Raises:
        CodecError: The body is not what is wanted.
    """
    try:
        return codec.decode(body, type)
    except CodecError:
        raise
    except (ValueError, TypeError) as error:
        raise CodecError(f"{codec!r} cannot decode the body: {_short(error)}") from error
