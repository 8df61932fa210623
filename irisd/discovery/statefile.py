"""Addresses that worked before, kept over a restart (edge).

A small JSON file, written whole and swapped in. It saves a mesh whose seeds are
gone, and holds nothing secret: names of services and addresses. It is a hint
like every other source; unreadable, it is told once and started afresh.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from irisd.config import Address, parse_address

FILE_NAME: Final = "peers.json"
FORMAT: Final = 1
MAX_ADDRESSES: Final = 256
"""Per service."""
MAX_SERVICES: Final = 64
MAX_BYTES: Final = 2 * 1024 * 1024

Addresses = dict[str, tuple[Address, ...]]


class BadStateFile(Exception):
    """The state file cannot be used. The message says why."""


def read_state(folder: Path) -> Addresses:
    """Read the addresses of each service, those that worked last first; none without a file.

    Raises:
        BadStateFile: It is there and cannot be read or understood.
    """
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadStateFile(f"{path} cannot be read: {error.strerror}") from None
    try:
        return decode_state(data)
    except BadStateFile as error:
        raise BadStateFile(f"{path}: {error}; it will be written anew") from None


def write_state(folder: Path, addresses: Mapping[str, Sequence[Address]]) -> None:
    """Replace the file, whole or not at all; it belongs to this user only.

    Raises:
        BadStateFile: It cannot be written.
    """
    path = folder / FILE_NAME
    draft = path.with_name(f".{FILE_NAME}.{os.getpid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode_state(addresses))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise BadStateFile(f"{path} cannot be written: {error.strerror}") from None


def encode_state(addresses: Mapping[str, Sequence[Address]]) -> bytes:
    """The file's bytes."""
    services = {
        service: [str(address) for address in known[:MAX_ADDRESSES]]
        for service, known in list(addresses.items())[:MAX_SERVICES]
    }
    return json.dumps({"format": FORMAT, "services": services}, indent=1).encode() + b"\n"


def decode_state(data: bytes) -> Addresses:
    """Read the file's bytes. Addresses that make no sense are passed over.

    Raises:
        BadStateFile: It is no state file.
    """
    if len(data) > MAX_BYTES:
        raise BadStateFile(f"larger than {MAX_BYTES} bytes")
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        raise BadStateFile("not JSON") from None
    if not isinstance(table, dict) or table.get("format") != FORMAT or not isinstance(table.get("services"), dict):
        raise BadStateFile("not a state file of this version")
    return {
        service: tuple(_addresses(written))
        for service, written in list(table["services"].items())[:MAX_SERVICES]
        if isinstance(written, list)
    }


def _addresses(written: list[object]) -> list[Address]:
    found: dict[Address, None] = {}
    for text in written[:MAX_ADDRESSES]:
        try:
            address = parse_address(text)
        except ValueError:
            continue
        if address.port:
            found[address] = None
    return list(found)
