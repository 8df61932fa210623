"""Values of declared types from plain JSON values, and back (pure): what ``iris.JSON`` knows beyond ``json``."""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from iris_client._errors import CodecError

_UNIONS: Final = (typing.Union, types.UnionType)
_LISTS: Final = (list, Sequence, set, frozenset)
_DICTS: Final = (dict, Mapping)


def plain(value: Any) -> Any:
    """Return something ``json`` can encode for a value it cannot. The ``default`` of ``json.dumps``.

    Raises:
        TypeError: There is nothing.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return list(value)
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    msgspec = sys.modules.get("msgspec")
    if msgspec is not None and isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def build(value: Any, wanted: Any, where: str) -> Any:
    """Return ``value`` as ``wanted``, an annotation.

    Args:
        value: What ``json`` decoded.
        wanted: A type, or a typing construct of types.
        where: The path to ``value``, for messages; empty at the top.

    Raises:
        CodecError: It does not fit; the message says where.
    """
    if wanted is Any or wanted is object:
        return value
    if wanted is None or wanted is type(None):
        return value if value is None else _misfit(value, "null", where)
    origin = typing.get_origin(wanted)
    if origin is not None:
        return _build_generic(value, wanted, origin, where)
    if isinstance(wanted, typing.TypeVar):
        return value
    if isinstance(wanted, typing.NewType):
        return build(value, wanted.__supertype__, where)
    if not isinstance(wanted, type):
        raise CodecError(f"iris.JSON cannot make {wanted!r}")
    return _build_class(value, wanted, where)


def _build_class(value: Any, wanted: type, where: str) -> Any:
    if wanted is bool or wanted is str or wanted is list or wanted is dict:
        return value if isinstance(value, wanted) else _misfit(value, wanted.__name__, where)
    if wanted is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _misfit(value, "int", where)
    if wanted is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(value) if number else _misfit(value, "float", where)
    if wanted in (tuple, set, frozenset):
        return wanted(value) if isinstance(value, list) else _misfit(value, "list", where)
    if issubclass(wanted, enum.Enum):
        try:
            return wanted(value)
        except ValueError:
            return _misfit(value, wanted.__name__, where)
    if dataclasses.is_dataclass(wanted):
        return _build_dataclass(value, wanted, where)
    if typing.is_typeddict(wanted):
        return _build_typed_dict(value, wanted, where)
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(wanted, pydantic.BaseModel):
        return _foreign(wanted.model_validate, value, where)  # type: ignore[attr-defined]
    msgspec = sys.modules.get("msgspec")
    if msgspec is not None and issubclass(wanted, msgspec.Struct):
        return _foreign(lambda given: msgspec.convert(given, wanted), value, where)
    raise CodecError(f"iris.JSON cannot make {wanted.__qualname__}: use a dataclass, pydantic or msgspec, or dict")


def _build_generic(value: Any, wanted: Any, origin: Any, where: str) -> Any:
    arguments = typing.get_args(wanted)
    if origin is typing.Annotated:
        return build(value, arguments[0], where)
    if origin is typing.Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in arguments)
        return value if fits else _misfit(value, f"one of {list(arguments)}", where)
    if origin in _UNIONS:
        return _build_union(value, arguments, where)
    if origin in _LISTS:
        items = _items(value, where)
        made = [build(item, arguments[0], f"{where}[{at}]") for at, item in enumerate(items)]
        return made if origin in (list, Sequence) else origin(made)
    if origin is tuple:
        items = _items(value, where)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(build(item, arguments[0], f"{where}[{at}]") for at, item in enumerate(items))
        if len(items) != len(arguments):
            return _misfit(value, f"a list of {len(arguments)}", where)
        pairs = enumerate(zip(items, arguments, strict=True))
        return tuple(build(item, argument, f"{where}[{at}]") for at, (item, argument) in pairs)
    if origin in _DICTS:
        if not isinstance(value, dict):
            return _misfit(value, "object", where)
        return {
            _key(key, arguments[0], where): build(item, arguments[1], f"{where}.{key}") for key, item in value.items()
        }
    if isinstance(origin, type):
        return _build_class(value, origin, where)  # a generic dataclass or model: its parameters are not checked
    raise CodecError(f"iris.JSON cannot make {wanted!r}")


def _build_union(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    for choice in choices:  # an exact match first: int | float keeps an int
        if isinstance(choice, type) and type(value) is choice:
            return value
    problems = []
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return build(value, choice, where)
        except CodecError as error:
            problems.append(str(error))
    raise CodecError(
        problems[0] if len(problems) == 1 else f"{_at(where)}none of the alternatives fits: {'; '.join(problems)}"
    )


@lru_cache(maxsize=1024)
def _hints(wanted: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(wanted)
    except NameError as error:
        raise CodecError(f"{wanted.__qualname__}: an annotation names {error.name!r}, which is unknown") from None


def _build_dataclass(value: Any, wanted: Any, where: str) -> Any:
    if not isinstance(value, dict):
        return _misfit(value, f"an object ({wanted.__name__})", where)
    hints = _hints(wanted)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(wanted):
        if not field.init:
            continue
        if field.name in value:
            given[field.name] = build(value[field.name], hints[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise CodecError(f"{_at(where)}{wanted.__name__} needs {field.name!r}")
    return _foreign(lambda fields: wanted(**fields), given, where)


def _build_typed_dict(value: Any, wanted: Any, where: str) -> Any:
    if not isinstance(value, dict):
        return _misfit(value, f"an object ({wanted.__name__})", where)
    hints = _hints(wanted)
    missing = sorted(wanted.__required_keys__ - value.keys())
    if missing:
        raise CodecError(f"{_at(where)}{wanted.__name__} needs {missing[0]!r}")
    return {key: build(value[key], hint, f"{where}.{key}") for key, hint in hints.items() if key in value}


def _foreign(make: Callable[[Any], Any], value: Any, where: str) -> Any:
    """Let someone else's constructor judge; what it says becomes ours."""
    try:
        return make(value)
    except (ValueError, TypeError) as error:
        raise CodecError(f"{_at(where)}{error}") from None


def _items(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        _misfit(value, "list", where)
    items: list[Any] = value
    return items


def _key(key: str, wanted: Any, where: str) -> Any:
    if wanted is int:
        try:
            return int(key)
        except ValueError:
            return _misfit(key, "a whole number as key", where)
    return build(key, wanted, where)


def _misfit(value: Any, expected: str, where: str) -> Any:
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
    raise CodecError(f"{_at(where)}expected {expected}, got {names.get(type(value), type(value).__name__)}")


def _at(where: str) -> str:
    return f"at {where.lstrip('.')}: " if where else ""
