"""The attach token: a shared secret that opens a TCP listener.

A caller shows it as ``authorization: Bearer <token>``. Everything on a guarded
listener wants it but the health service and reflection, which tell nothing an
outsider could not know. The token is never logged, never compared byte by byte
and never part of an error.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

from irisd.errors import TokenFileError

MIN_TOKEN_BYTES = 16
MAX_TOKEN_BYTES = 1024

OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")


class Token:
    """A secret that can be compared and nothing else."""

    __slots__ = ("_digest",)

    def __init__(self, secret: bytes) -> None:
        self._digest = hashlib.sha256(secret).digest()

    def opens_with(self, shown: bytes) -> bool:
        """Compare in constant time; digests, so that not even the length shows."""
        return hmac.compare_digest(self._digest, hashlib.sha256(shown).digest())

    def __repr__(self) -> str:
        return "Token(...)"


def read_token(path: Path) -> Token:
    """Read a token file: one line, 16 to 1,024 printable bytes, for its owner's eyes only.

    Raises:
        TokenFileError: It cannot be read, others may read it, or what is in it is no token.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_TOKEN_BYTES + 3)
    except OSError as error:
        raise TokenFileError(f"cannot read the token file {path}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise TokenFileError(f"others may read the token file {path}; run: chmod 600 {path}")
    secret = text.strip()
    if len(secret) < MIN_TOKEN_BYTES:
        raise TokenFileError(f"the token in {path} is shorter than {MIN_TOKEN_BYTES} bytes; use a longer random one")
    if len(secret) > MAX_TOKEN_BYTES:
        raise TokenFileError(f"the token in {path} is longer than {MAX_TOKEN_BYTES} bytes")
    if not all(0x21 <= byte <= 0x7E for byte in secret):
        raise TokenFileError(f"the token in {path} must be one line of printable ASCII without spaces")
    return Token(secret)


if TYPE_CHECKING:
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]  # generic in the stubs only
else:
    _Interceptor = grpc.aio.ServerInterceptor


class TokenGate(_Interceptor):
    """Refuses calls that do not show the token, before anything of theirs is read."""

    def __init__(self, token: Token) -> None:
        self.token = token

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Pass the call on, or put a refusal in its place."""
        if handler_call_details.method.startswith(OPEN_SERVICES) or self._shows_token(handler_call_details):
            return await continuation(handler_call_details)
        return _REFUSAL

    def _shows_token(self, details: grpc.HandlerCallDetails) -> bool:
        for key, value in details.invocation_metadata or ():
            if key == "authorization":
                shown = value if isinstance(value, bytes) else value.encode()
                scheme, _, secret = shown.partition(b" ")
                return scheme.lower() == b"bearer" and self.token.opens_with(secret.strip())
        return False


async def _refuse(_request: object, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    await context.abort(
        grpc.StatusCode.UNAUTHENTICATED,
        "this listener wants a token, and got none or a wrong one: send metadata `authorization: Bearer <token>` "
        "(irisd's apps read it from the file named by IRIS_TOKEN_FILE)",
    )


# A stream of bytes both ways stands for any method: the refusal is a status, no message is read or written.
_REFUSAL: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(_refuse)
