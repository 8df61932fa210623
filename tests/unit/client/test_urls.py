"""Where a daemon is looked for."""

from __future__ import annotations

import pytest

from iris_client import InvalidUrl
from iris_client._urls import Target, candidates, parse_url


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("unix:///run/irisd/irisd.sock", Target("unix", "/run/irisd/irisd.sock")),
        ("unix:///a%20b", Target("unix", "/a b")),
        ("tcp://127.0.0.1:7510", Target("tcp", "127.0.0.1:7510")),
        ("tcp://localhost", Target("tcp", "localhost:7510")),
        ("tcp://[::1]:99", Target("tcp", "[::1]:99")),
        ("tls://daemon.example:7510", Target("tls", "daemon.example:7510")),
        ("tls://daemon.example:7510?ca=/etc/ca.pem", Target("tls", "daemon.example:7510", "/etc/ca.pem")),
        ("inproc://node-1", Target("inproc", "node-1")),
    ],
)
def test_good(url: str, target: Target):
    assert parse_url(url) == target


@pytest.mark.parametrize(
    "url",
    ["", "irisd.sock", "/run/irisd.sock", "unix://relative/path", "unix:///", "http://x", "tcp://", "tcp://x:port",
     "tcp://x:99999", "tcp://x/path", "tcp://x?ca=y", "tls://x?token=y", "tcp://a,b:1", "tcp://x#y"],
)  # fmt: skip
def test_bad(url: str):
    with pytest.raises(InvalidUrl, match="daemon URL"):
        parse_url(url)


def test_a_password_in_a_url_is_refused_and_not_shown():
    with pytest.raises(InvalidUrl) as caught:
        parse_url("tcp://user:secret@127.0.0.1:7510")
    assert "secret" not in str(caught.value)


def test_what_was_asked_for_is_all_that_is_tried():
    environment = {"IRIS_URL": "unix:///b", "XDG_RUNTIME_DIR": "/x"}
    assert candidates("unix:///a", environment, "linux") == [Target("unix", "/a")]
    assert candidates(None, environment, "linux") == [Target("unix", "/b")]


def test_usual_places_in_order():
    assert [str(t) for t in candidates(None, {"XDG_RUNTIME_DIR": "/run/user/7/", "TMPDIR": "/t"}, "linux")] == [
        "unix:///run/user/7/irisd/irisd.sock",
        "unix:///run/irisd/irisd.sock",
        "tcp://127.0.0.1:7510",
    ]
    assert [str(t) for t in candidates(None, {"TMPDIR": "/t/", "IRIS_URL": ""}, "darwin")] == [
        "unix:///run/irisd/irisd.sock",
        "unix:///t/irisd/irisd.sock",
        "tcp://127.0.0.1:7510",
    ]
    assert [str(t) for t in candidates(None, {}, "win32")] == ["tcp://127.0.0.1:7510"]


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("unix:///x", True),
        ("tcp://127.8.9.1:1", True),
        ("tcp://[::1]:1", True),
        ("tcp://localhost:1", True),
        ("tcp://10.0.0.1:1", False),
        ("tcp://daemon:1", False),
    ],
)
def test_loopback(url: str, loopback: bool):
    assert parse_url(url).loopback is loopback
