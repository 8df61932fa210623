"""Codecs: values to bodies, and bodies to values that are what they claim to be."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, Literal, NewType, TypedDict

import pydantic
import pytest

from iris_client import BYTES, JSON, Codec, CodecError
from iris_client._codecs import decode, encode, encode_body


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: float = 0.5


@dataclass
class Shape:
    name: str
    points: list[Point]
    colour: Colour | None = None
    tags: dict[str, int] = field(default_factory=dict)
    pair: tuple[int, str] = (0, "")
    kind: Literal["open", "closed"] = "open"
    also: Point | None = None


class Row(TypedDict, total=False):
    key: int


Key = NewType("Key", int)


def test_both_are_codecs():
    assert isinstance(BYTES, Codec)
    assert isinstance(JSON, Codec)
    assert (repr(BYTES), repr(JSON)) == ("iris.BYTES", "iris.JSON")


def test_bytes():
    assert BYTES.encode(b"x") == b"x"
    assert BYTES.encode(bytearray(b"x")) == b"x"
    assert BYTES.decode(b"x", bytes) == b"x"
    assert BYTES.decode(b"x", Any) == b"x"
    with pytest.raises(CodecError, match="expected bytes, got str"):
        BYTES.encode("x")
    with pytest.raises(CodecError, match="cannot make"):
        BYTES.decode(b"x", Point)


def test_json_round_trip():
    shape = Shape("s", [Point(1, 2.0), Point(3)], Colour.BLUE, {"a": 1}, (4, "b"), "closed", Point(5))
    assert JSON.decode(JSON.encode(shape), Shape) == shape
    assert JSON.encode({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'.encode()
    assert JSON.decode(b'{"a":[1,null]}', Any) == {"a": [1, None]}
    assert JSON.encode({1}) == b"[1]"


@pytest.mark.parametrize(
    ("body", "wanted", "value"),
    [
        (b"3", int, 3),
        (b"3", float, 3.0),
        (b"true", bool, True),
        (b'"x"', str, "x"),
        (b"null", None, None),
        (b"null", int | None, None),
        (b"3", int | str, 3),
        (b'"3"', int | str, "3"),
        (b"[1,2]", list[int], [1, 2]),
        (b"[1,2]", tuple[int, ...], (1, 2)),
        (b"[1,2]", set[int], {1, 2}),
        (b"[1,2]", list, [1, 2]),
        (b"[1,2]", tuple, (1, 2)),
        (b'{"1":2}', dict[int, int], {1: 2}),
        (b'{"a":{"x":1}}', dict[str, Point], {"a": Point(1)}),
        (b'{"key":1,"more":2}', Row, {"key": 1}),
        (b"{}", Row, {}),
        (b"7", Key, 7),
        (b"7", Annotated[int, "seven"], 7),
        (b'{"x":1,"unknown":2}', Point, Point(1)),
    ],
)
def test_json_makes_what_is_wanted(body: bytes, wanted: Any, value: Any):
    made = JSON.decode(body, wanted)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("body", "wanted", "why"),
    [
        (b"", Any, "not the JSON expected"),
        (b"{", Any, "not the JSON expected"),
        (b"\xff", Any, "not the JSON expected"),
        (b"[" * 100_000, Any, "not the JSON expected"),
        (b"1" * 5000, Any, "not the JSON expected"),
        (b"3.5", int, "expected int, got float"),
        (b"true", int, "expected int, got bool"),
        (b"true", float, "expected float, got bool"),
        (b'"x"', int, "expected int, got a string"),
        (b"{}", Point, "needs 'x'"),
        (b"[]", Point, "expected an object"),
        (b'{"name":"n","points":[{"x":1},{"x":"1"}]}', Shape, r"at points\[1\].x: expected int, got a string"),
        (b'{"name":"n","points":[],"colour":"pink"}', Shape, "at colour: expected Colour"),
        (b'{"name":"n","points":[],"kind":"half"}', Shape, "at kind: expected one of"),
        (b'{"name":"n","points":[],"pair":[1]}', Shape, "at pair: expected a list of 2"),
        (b'{"a":1}', dict[int, int], "whole number as key"),
        (b"3", list[int], "expected list"),
        (b"3", dict[str, int], "expected object"),
        (b'"x"', int | float, "none of the alternatives fits"),
        (b"1", None, "expected null"),
        (b"1", complex, "cannot make complex"),
        (b"1", "Point", "cannot make 'Point'"),
    ],
)
def test_json_says_what_is_wrong_and_where(body: bytes, wanted: Any, why: str):
    with pytest.raises(CodecError, match=why):
        JSON.decode(body, wanted)


@pytest.mark.parametrize("value", [b"bytes", object(), math.nan, {1: b""}, {(1, 2): 3}])
def test_json_refuses_what_it_has_no_word_for(value: Any):
    with pytest.raises(CodecError, match="JSON cannot encode this"):
        JSON.encode(value)


def test_json_of_what_holds_itself():
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(CodecError):
        JSON.encode(circle)


def test_a_dataclass_may_refuse():
    @dataclass
    class Positive:
        n: int

        def __post_init__(self) -> None:
            if self.n < 0:
                raise ValueError("n is below zero")

    with pytest.raises(CodecError, match="n is below zero"):
        JSON.decode(b'{"n":-1}', Positive)


def test_pydantic_is_used_where_the_type_is_its():
    class Model(pydantic.BaseModel):
        n: int
        when: str = "now"

    Outer = make_dataclass("Outer", [("model", Model)])

    assert JSON.decode(JSON.encode(Model(n=1)), Model) == Model(n=1)
    assert JSON.decode(JSON.encode(Outer(Model(n=1))), Outer) == Outer(Model(n=1))
    assert JSON.decode(JSON.encode([Model(n=1)]), list[Model]) == [Model(n=1)]
    with pytest.raises(CodecError):
        JSON.decode(b'{"n":"x"}', Model)
    with pytest.raises(CodecError, match="at model"):
        JSON.decode(b'{"model":{"n":"x"}}', Outer)


def test_an_annotation_nobody_knows():
    @dataclass
    class Odd:
        n: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(CodecError, match="'Nowhere', which is unknown"):
        JSON.decode(b'{"n":1}', Odd)


class Upper:
    """An app's own codec."""

    content_type = "text/upper"

    def encode(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise TypeError("strings only")
        return value.upper().encode() if value else value

    def decode(self, body: bytes, type: Any) -> Any:
        return body.decode("ascii")


def test_a_codec_of_the_apps_own():
    assert encode("x", Upper()) == b"X"
    assert decode(b"x", str, Upper()) == "x"
    with pytest.raises(CodecError, match="strings only"):
        encode(5, Upper())
    with pytest.raises(CodecError, match="made str of a value"):
        encode("", Upper())
    with pytest.raises(CodecError, match="cannot decode"):
        decode(b"\xff", str, Upper())


def test_bytes_are_a_body_already():
    assert encode_body(b"x", JSON) == (b"x", "")
    assert encode_body(memoryview(b"x"), None) == (b"x", "")
    assert encode_body({"a": 1}, JSON) == (b'{"a":1}', "application/json")
    with pytest.raises(CodecError, match="a body is bytes, not dict"):
        encode_body({"a": 1}, None)
