"""What a node says of itself by multicast, as the bytes of a DNS TXT record (pure).

A TXT record is a row of strings, each a length byte and at most 255 bytes of
``key=value`` (RFC 6763)::

    v=1                     version of this format and of links
    id=<32 hex digits>      the node's id
    k0=<32 hex digits>      discovery tag of a key of the service, k0 to k7
    a0=192.0.2.7:7511       where to dial, a0 to a15

Everything a candidate needs is in this one record, so nothing has to be asked
for after it is heard. Anybody may send one: it is parsed with bounds and
believed by nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from irisd.config import Address, parse_address

VERSION: Final = 1
NODE_ID_BYTES: Final = 16
TAG_BYTES: Final = 16
MAX_TAGS: Final = 8
MAX_ADDRESSES: Final = 16
MAX_TEXT_BYTES: Final = 1_300
"""Longest record: with the other records of an announcement it still fits one datagram."""
_MAX_STRING: Final = 255


class MalformedAnnouncement(ValueError):
    """These bytes are no announcement. The message says why, without quoting them."""


class OtherVersion(MalformedAnnouncement):
    """An announcement of another version than ours."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """One node of one service.

    Attributes:
        node_id: Its id.
        tags: Discovery tags of all keys of its keyring, the active one's first.
        addresses: Where to dial it, best first.
    """

    node_id: bytes
    tags: tuple[bytes, ...]
    addresses: tuple[Address, ...]

    def encode(self) -> bytes:
        """The TXT record. Addresses that do not fit any more are left out, the best are first."""
        strings = [f"v={VERSION}", f"id={self.node_id.hex()}"]
        strings += [f"k{number}={tag.hex()}" for number, tag in enumerate(self.tags[:MAX_TAGS])]
        data = b"".join(map(_string, strings))
        for number, address in enumerate(self.addresses[:MAX_ADDRESSES]):
            more = f"a{number}={address}"
            if len(more) > _MAX_STRING or len(data) + len(more) >= MAX_TEXT_BYTES:
                break
            data += _string(more)
        return data


def _string(text: str) -> bytes:
    raw = text.encode("ascii")
    return bytes((len(raw),)) + raw


def parse_announcement(data: bytes) -> Announcement:
    """Read a TXT record.

    Unknown keys are passed over, so that a later version may say more; of a key
    given twice the first counts (RFC 6763).

    Raises:
        OtherVersion: It says so itself.
        MalformedAnnouncement: Too long, cut short, or a field is missing or makes no sense.
    """
    fields: dict[bytes, bytes] = {}
    for string in _strings(data):
        key, _, value = string.partition(b"=")
        fields.setdefault(key.lower(), value)
    version = fields.get(b"v", b"")
    if version != b"%d" % VERSION:
        if version.isdigit() and len(version) <= 4:
            raise OtherVersion(f"version {version.decode()}, this one is {VERSION}")
        raise MalformedAnnouncement("no version")
    node_id = _hex(fields.get(b"id", b""), NODE_ID_BYTES, "node id")
    if not any(node_id):
        raise MalformedAnnouncement("the node id is zero")
    tags = tuple(_hex(value, TAG_BYTES, "tag") for value in _numbered(fields, b"k", MAX_TAGS))
    addresses = tuple(dict.fromkeys(_address(value) for value in _numbered(fields, b"a", MAX_ADDRESSES)))
    if not tags:
        raise MalformedAnnouncement("no tag")
    if not addresses:
        raise MalformedAnnouncement("no address")
    return Announcement(node_id, tags, addresses)


def may_match(data: bytes, needles: tuple[bytes, ...]) -> bool:
    """Tell quickly whether a record could be our service's, before it is parsed.

    Args:
        data: The TXT record.
        needles: From :func:`needles_of`.
    """
    return any(needle in data for needle in needles)


def needles_of(tags: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """What :func:`may_match` looks for."""
    return tuple(tag.hex().encode("ascii") for tag in tags)


def _strings(data: bytes) -> Iterator[bytes]:
    if len(data) > MAX_TEXT_BYTES:
        raise MalformedAnnouncement(f"longer than {MAX_TEXT_BYTES} bytes")
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        if end > len(data):
            raise MalformedAnnouncement("cut short")
        yield data[at + 1 : end]
        at = end


def _numbered(fields: dict[bytes, bytes], key: bytes, most: int) -> Iterator[bytes]:
    for number in range(most):
        value = fields.get(key + b"%d" % number)
        if value is None:
            return
        yield value


def _hex(value: bytes, size: int, what: str) -> bytes:
    if len(value) != 2 * size:
        raise MalformedAnnouncement(f"a {what} is {size} bytes")
    try:
        return bytes.fromhex(value.decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        raise MalformedAnnouncement(f"a {what} is hexadecimal") from None


def _address(value: bytes) -> Address:
    try:
        address = parse_address(value.decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        raise MalformedAnnouncement("an address is host:port") from None
    if address.port == 0:
        raise MalformedAnnouncement("port 0 cannot be dialled")
    if is_ip(address.host):
        ip = ip_address(address.host)
        if ip.is_multicast or ip.is_unspecified or str(ip) == "255.255.255.255" or "%" in address.host:
            raise MalformedAnnouncement("not the address of a host")
    return address


def is_ip(host: str) -> bool:
    """Whether this is an IP address, not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
