"""Errors: one root, typed by what they are, and always with whether the handler ran."""

from __future__ import annotations

import pickle

import pytest

import iris_client as iris
from iris_client import Executed
from iris_client._errors import from_frame
from iris_client._frames import Code


def error_classes() -> list[type[BaseException]]:
    return [
        value
        for name in iris.__all__
        if isinstance(value := getattr(iris, name), type)
        and issubclass(value, BaseException)
        and value is not iris.Reject
    ]


def test_one_root():
    assert all(issubclass(each, iris.IrisError) for each in error_classes())


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (iris.DeadlineExceeded, TimeoutError),
        (iris.MemberLost, ConnectionError),
        (iris.Detached, ConnectionError),
        (iris.TunnelBroken, ConnectionError),
        (iris.DaemonUnavailable, ConnectionError),
        (iris.Denied, PermissionError),
        (iris.TooLarge, ValueError),
        (iris.InvalidName, ValueError),
        (iris.InvalidCall, ValueError),
        (iris.InvalidUrl, ValueError),
        (iris.CodecError, ValueError),
        (iris.MeshClosed, RuntimeError),
    ],
)
def test_they_are_what_they_are(error: type, builtin: type):
    assert issubclass(error, builtin)


@pytest.mark.parametrize(
    ("code", "kind", "default"),
    [
        (Code.NO_MEMBER, iris.NoMember, Executed.NO),
        (Code.NOT_SUPPORTED, iris.NotSupported, Executed.NO),
        (Code.DEADLINE_EXCEEDED, iris.DeadlineExceeded, Executed.MAYBE),
        (Code.MEMBER_LOST, iris.MemberLost, Executed.MAYBE),
        (Code.OVERLOADED, iris.Overloaded, Executed.NO),
        (Code.REJECTED, iris.Rejected, Executed.YES),
        (Code.HANDLER_FAILED, iris.HandlerFailed, Executed.YES),
        (Code.TOO_LARGE, iris.TooLarge, Executed.NO),
        (Code.TUNNEL_BROKEN, iris.TunnelBroken, Executed.MAYBE),
        (Code.CANCELLED, iris.CallCancelled, Executed.MAYBE),
        (Code.SLOW_SUBSCRIBER, iris.SlowSubscriber, Executed.MAYBE),
        (99, iris.DeliveryError, Executed.MAYBE),
    ],
)
def test_codes(code: int, kind: type[iris.DeliveryError], default: Executed):
    error = from_frame(code, 0, "", "it says why", b"", "request to 'x'")
    assert type(error) is kind
    assert error.executed is default
    assert str(error) == f"request to 'x': it says why (executed: {default.value})"
    for number, said in ((1, Executed.NO), (2, Executed.MAYBE), (3, Executed.YES)):
        told = from_frame(code, number, "", "", b"", "x")
        assert isinstance(told, iris.DeliveryError)
        assert told.executed is said


def test_codes_that_are_about_the_call_itself():
    assert type(from_frame(Code.DENIED, 0, "", "no", b"", "x")) is iris.Denied
    assert type(from_frame(Code.INVALID, 0, "", "no", b"", "x")) is iris.InvalidCall


def test_every_code_has_an_error():
    for code in Code:
        assert isinstance(from_frame(code, 0, "", "", b"", "x"), iris.IrisError)


def test_rejected_carries_its_code_and_body():
    error = from_frame(Code.REJECTED, 3, "missing", "no such row", b"{}", "request to 'x'")
    assert isinstance(error, iris.Rejected)
    assert (error.code, error.body) == ("missing", b"{}")
    assert "no such row" in str(error)
    assert "missing" in str(error)


@pytest.mark.parametrize("kind", error_classes())
def test_they_survive_pickling(kind: type[iris.IrisError]):
    error = kind("what happened")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    rejected = pickle.loads(pickle.dumps(iris.Rejected("m", code="c", body=b"b", executed=Executed.NO)))
    assert (rejected.code, rejected.body, rejected.executed) == ("c", b"b", Executed.NO)
