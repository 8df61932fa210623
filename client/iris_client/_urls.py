"""Where the daemon may be (pure): what an app says, what its environment says, and where daemons usually are."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from iris_client._errors import IrisError

DEFAULT_PORT: Final = 7510


class InvalidUrl(IrisError, ValueError):
    """A daemon's URL is not of the forms ``unix:///path``, ``tcp://host:port`` or ``tls://host:port``."""


@dataclass(frozen=True, slots=True)
class Target:
    """One place to look for a daemon.

    Attributes:
        scheme: ``unix``, ``tcp``, ``tls`` or ``inproc``.
        place: A path, ``host:port``, or the name of a test mesh's node.
        ca_file: For ``tls``: the authorities to trust, a PEM file; empty for the system's.
    """

    scheme: str
    place: str
    ca_file: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}"

    @property
    def loopback(self) -> bool:
        """Whether what is sent there stays on this machine."""
        if self.scheme in ("unix", "inproc"):
            return True
        host = self.place.rpartition(":")[0].strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def parse_url(url: str) -> Target:
    """Take a daemon's URL apart.

    Raises:
        InvalidUrl: It has none of the forms allowed; the message says which those are.
    """
    forms = "expected unix:///path, tcp://host:port or tls://host:port (with ?ca=/path/to/ca.pem if needed)"
    if not isinstance(url, str) or not url:
        raise InvalidUrl(f"daemon URL {url!r}: {forms}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidUrl(f"daemon URL {url!r}: {error}; {forms}") from None
    scheme = parts.scheme
    if scheme == "unix":
        path = unquote(parts.path)
        if parts.netloc or not path.startswith("/") or path == "/":
            raise InvalidUrl(f"daemon URL {url!r}: a socket's path is absolute, as in unix:///run/irisd/irisd.sock")
        return Target("unix", path)
    if scheme == "inproc" and parts.netloc:
        return Target("inproc", parts.netloc)
    if scheme not in ("tcp", "tls"):
        raise InvalidUrl(f"daemon URL {url!r}: {forms}")
    if parts.username is not None or parts.password is not None:
        raise InvalidUrl("a daemon's URL carries no user or password; a token goes into IRIS_TOKEN_FILE or token=")
    if not parts.hostname or parts.path not in ("", "/") or parts.fragment:
        raise InvalidUrl(f"daemon URL {url!r}: {forms}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if re.search(r"[\s,]", host):
        raise InvalidUrl(f"daemon URL {url!r}: {forms}")
    query = parse_qs(parts.query)
    if set(query) - ({"ca"} if scheme == "tls" else set()):
        raise InvalidUrl(f"daemon URL {url!r}: {forms}")
    return Target(scheme, f"{host}:{DEFAULT_PORT if port is None else port}", query.get("ca", [""])[-1])


def candidates(url: str | None, environment: Mapping[str, str], platform: str) -> list[Target]:
    """Return where to look for a daemon, in order.

    A URL that was asked for, in code or by ``IRIS_URL``, is the only one tried: an app that was told where to attach
    must not end up in another mesh because that daemon is late.

    Args:
        url: What the app asked for, or None.
        environment: ``os.environ``.
        platform: ``sys.platform``.

    Raises:
        InvalidUrl: ``url`` or ``IRIS_URL`` is malformed.
    """
    if url is not None:
        return [parse_url(url)]
    if environment.get("IRIS_URL"):
        return [parse_url(environment["IRIS_URL"])]
    found: list[Target] = []
    if platform != "win32":
        if runtime := environment.get("XDG_RUNTIME_DIR"):
            found.append(Target("unix", f"{runtime.rstrip('/')}/irisd/irisd.sock"))
        found.append(Target("unix", "/run/irisd/irisd.sock"))
        if platform == "darwin" and (folder := environment.get("TMPDIR")):
            found.append(Target("unix", f"{folder.rstrip('/')}/irisd/irisd.sock"))
    found.append(Target("tcp", f"127.0.0.1:{DEFAULT_PORT}"))
    return found
