"""Clusters: what a handler's declaration and annotations say."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import iris_client as iris
from iris_client._cluster import Cluster, Handler
from iris_client._frames import Kind
from iris_client._model import Pattern

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]


def handler_of(cluster: Cluster, kind: Kind = Kind.REQUEST, method: str = "") -> Handler:
    return cluster.handlers()[kind, method]


def test_both_forms_of_a_decorator_return_the_function():
    cluster = Cluster("c")

    @cluster.on_request
    async def one(body: bytes) -> bytes:
        return body

    @cluster.on_request("put")
    def two(body: bytes) -> bytes:
        return body

    assert one.__name__ == "one"
    assert two(b"x") == b"x"
    assert handler_of(cluster).is_async
    assert not handler_of(cluster, method="put").is_async
    assert handler_of(cluster, method="put").name == "c.two"


def test_patterns():
    cluster = Cluster("c")
    assert cluster.patterns == 0
    cluster.on_request(lambda body: body)
    cluster.on_push("a")(lambda body: None)
    cluster.on_tunnel(lambda tunnel: None)
    assert cluster.patterns == Pattern.REQUEST | Pattern.PUSH | Pattern.TUNNEL
    cluster.on_broadcast(lambda body: None)
    cluster.on_survey(lambda body: body)
    assert cluster.patterns == 31


@dataclass
class Row:
    n: int


def test_annotations_say_what_a_body_becomes():
    cluster = Cluster("c", codec=iris.JSON)

    @cluster.on_request
    async def typed(row: Row) -> Row:
        return row

    @cluster.on_request("raw")
    async def raw(request: iris.Request) -> None: ...

    @cluster.on_request("any")
    async def anything(value):
        return value

    @cluster.on_event("t")
    async def event(event: iris.Event) -> None: ...

    @cluster.on_event("u")
    async def decoded(row: Row) -> None: ...

    assert handler_of(cluster).wanted is Row
    assert not handler_of(cluster).answers_nothing
    assert handler_of(cluster, method="raw").raw
    assert handler_of(cluster, method="raw").answers_nothing
    assert handler_of(cluster, method="any").wanted is Any
    assert cluster.event_handlers()["t"].raw
    assert cluster.event_handlers()["u"].wanted is Row


def test_annotations_may_name_what_is_local_or_comes_later():
    cluster = Cluster("c", codec=iris.JSON)

    @dataclass
    class Local:
        n: int

    @cluster.on_request
    async def local(value: Local) -> Local:
        return value

    @cluster.on_request("later")
    async def later(value: Later) -> Unknown:
        return value

    assert handler_of(cluster).wanted is Local
    assert handler_of(cluster, method="later").wanted is Later


@dataclass
class Later:
    n: int


def test_an_annotation_nobody_knows_is_named():
    cluster = Cluster("c", codec=iris.JSON)

    @cluster.on_request
    async def handler(value: Unknown) -> None: ...

    with pytest.raises(iris.InvalidCall, match=r"c\.handler: its annotation names 'Unknown'"):
        cluster.handlers()


def test_bytes_clusters_take_bytes():
    cluster = Cluster("c")

    @cluster.on_request
    async def handler(row: Row) -> bytes:
        return b""

    with pytest.raises(iris.InvalidCall, match=r"c\.handler wants Row, but its cluster's codec is BYTES"):
        cluster.handlers()


class Called:
    async def __call__(self, body: bytes) -> bytes:
        return body

    def method(self, request: iris.Request) -> bytes:
        return request.body


def test_objects_methods_partials_and_builtins_may_be_handlers():
    cluster = Cluster("c")
    cluster.on_request(Called())
    cluster.on_request("method")(Called().method)
    cluster.on_request("partial")(functools.partial(Called.method, Called()))
    cluster.on_request("builtin")(bytes)
    assert handler_of(cluster).is_async
    assert handler_of(cluster).wanted is bytes
    assert handler_of(cluster, method="method").raw
    assert handler_of(cluster, method="partial").raw
    assert not handler_of(cluster, method="builtin").raw


@pytest.mark.parametrize(
    "function", [lambda: None, lambda a, b: None, lambda *, a: None], ids=["none", "two", "keyword-only"]
)
def test_a_handler_takes_one_argument(function: Any):
    cluster = Cluster("c")
    cluster.on_request(function)
    with pytest.raises(iris.InvalidCall, match="must take one argument"):
        cluster.handlers()


def test_more_arguments_with_defaults_are_fine():
    cluster = Cluster("c")
    cluster.on_request(lambda body, extra=None, *rest, **named: body)
    assert handler_of(cluster).wanted is Any


def test_mistakes_are_refused_when_they_are_made():
    cluster = Cluster("c")
    cluster.on_request(lambda body: body)
    cluster.on_event("t")(lambda event: None)
    with pytest.raises(iris.InvalidCall, match="already has a request handler for no method"):
        cluster.on_request(lambda body: body)
    with pytest.raises(iris.InvalidCall, match="already handles events of 't'"):
        cluster.on_event("t")(lambda event: None)
    with pytest.raises(iris.InvalidName):
        cluster.on_request("bad method")
    with pytest.raises(iris.InvalidName):
        cluster.on_event("bad..filter")
    with pytest.raises(iris.InvalidCall, match="a handler is a function, not int"):
        cluster.on_request(5)  # type: ignore[call-overload]
    with pytest.raises(iris.InvalidName):
        Cluster("a/b")
    with pytest.raises(iris.InvalidCall, match="no handlers"):
        Cluster("empty").handlers()


@pytest.mark.parametrize("concurrency", [0, -1, 65_537, True, 1.5, "8"])
def test_concurrency_is_bounded(concurrency: Any):
    with pytest.raises(iris.InvalidCall, match="concurrency"):
        Cluster("c", concurrency=concurrency)
