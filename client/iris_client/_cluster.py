"""A cluster's handlers, as an app declares them: one per pattern and method, and one per topic filter."""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar, overload

from iris_client import _balance, _names
from iris_client._codecs import BYTES, Codec
from iris_client._errors import InvalidCall
from iris_client._frames import Kind
from iris_client._model import Event, Pattern, Request

F = TypeVar("F", bound=Callable[..., Any])

_PATTERNS: Final[dict[int, Pattern]] = {
    Kind.REQUEST: Pattern.REQUEST,
    Kind.PUSH: Pattern.PUSH,
    Kind.BROADCAST: Pattern.BROADCAST,
    Kind.SURVEY: Pattern.SURVEY,
    Kind.TUNNEL: Pattern.TUNNEL,
}


class Handler:
    """One function, and what its annotations say about it.

    Attributes:
        function: As the app gave it.
        name: For people: ``databases.get``.
        is_async: It is awaited on the loop; a plain function runs in a thread.
        raw: It takes the raw form (:class:`Request`, :class:`Event`) and not a value.
        wanted: What its body is decoded as.
        answers_nothing: It is declared ``-> None``: nothing it returns is looked at.
    """

    __slots__ = (
        "_known",
        "_resolved",
        "_scope",
        "answers_nothing",
        "function",
        "is_async",
        "kind",
        "name",
        "raw",
        "wanted",
    )

    def __init__(self, function: Callable[..., Any], name: str, kind: int) -> None:
        self.function = function
        self.name = name
        self.kind = kind
        call = getattr(function, "__call__", None)  # noqa: B004 - an object whose call is async is async
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
        self.raw = False
        self.wanted: Any = Any
        self.answers_nothing = False
        self._resolved = False
        self._known: dict[str, Any] = {}
        self._scope: Mapping[str, Any] = {}
        self.learn(_names_of_caller())

    def resolve(self, codec: Codec) -> Handler:
        """Read the annotations. Not done at declaration: they may name what is defined further down.

        Raises:
            InvalidCall: The function does not take one argument, or its annotations name something unknown.
        """
        if self._resolved:
            return self
        try:
            parameters = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):
            parameters = []  # a builtin: it will say itself what it does not take
        else:
            fixed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
            needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
            if len(needed) > 1 or (not fixed and not variadic) or any(p.kind is p.KEYWORD_ONLY for p in needed):
                raise InvalidCall(f"handler {self.name} must take one argument: what was sent to it")
        try:
            annotation = self._hint(parameters[0].name) if parameters else Any
        except NameError as error:
            raise InvalidCall(
                f"handler {self.name}: its annotation names {error.name!r}, which is unknown where it is defined"
            ) from None
        try:
            self.answers_nothing = self._hint("return") is type(None)
        except NameError:
            self.answers_nothing = False  # some type, and not None
        self.raw = annotation is (Event if self.kind == Kind.EVENT else Request)
        if not self.raw and self.kind != Kind.TUNNEL:
            self.wanted = annotation
            if codec is BYTES and annotation not in (Any, bytes, object):
                wanted = getattr(annotation, "__name__", annotation)
                raise InvalidCall(
                    f"handler {self.name} wants {wanted!s}, but its cluster's codec is BYTES: "
                    "give the cluster codec=iris.JSON, or annotate bytes or iris.Request"
                )
        self._resolved = True
        return self

    def _hint(self, name: str) -> Any:
        """The annotation of a parameter, or of ``return``, as a type; ``Any`` where there is none.

        Raises:
            NameError: It names something unknown.
        """
        if name in self._known:
            return self._known[name]
        target: Any = self.function
        while isinstance(target, functools.partial):
            target = target.func
        if not inspect.isroutine(target):
            target = getattr(target, "__call__", None)  # noqa: B004
        target = inspect.unwrap(target)
        annotations = getattr(target, "__annotations__", {})
        if name not in annotations:
            return Any
        only = types.SimpleNamespace(__annotations__={name: annotations[name]})
        hints = typing.get_type_hints(only, globalns=getattr(target, "__globals__", {}), localns=self._scope)
        return hints[name]

    def learn(self, scope: Mapping[str, Any]) -> None:
        """Look at the annotations now, while ``scope``, the names where the handler is declared, is at hand.

        What they name may still be defined further down; then :meth:`resolve` looks again, at the module alone.
        """
        try:
            names = [*list(inspect.signature(self.function).parameters)[:1], "return"]
        except (TypeError, ValueError):
            return
        self._scope = scope
        for name in names:
            with suppress(NameError):
                self._known[name] = self._hint(name)
        self._scope = {}


def _names_of_caller() -> Mapping[str, Any]:
    """The local names where a handler is being declared: types may be defined inside a function."""
    frame = sys._getframe(1)
    while frame.f_globals is globals() and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_locals


class Cluster:
    """A name apps serve together, and how this app serves it.

    Args:
        name: The cluster's name.
        concurrency: How many calls a member takes at once, 1 to 65,536; also the threads plain handlers may use.
        codec: How bodies become what handlers take, and what they return becomes bodies.
        balance: How callers share calls out among the members: ``p2c`` (of two by chance the one with less to do),
            ``round_robin``, ``random``, ``hash`` (by the call's key) or ``local`` (the caller's own node first).
            Members should agree.
        priority: 0 (first) to 255. A level is used only while no member of a better one can take a call.

    Raises:
        InvalidName: The name breaks the rules.
        InvalidCall: ``concurrency``, ``balance`` or ``priority`` is out of range.
    """

    def __init__(
        self, name: str, *, concurrency: int = 64, codec: Codec = BYTES, balance: str = "p2c", priority: int = 0
    ) -> None:
        self.name = _names.cluster(name)
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or not 1 <= concurrency <= 65_536:
            raise InvalidCall(f"concurrency={concurrency!r}: a whole number from 1 to 65,536 is needed")
        self.concurrency = concurrency
        self.balance = _balance.number(balance)
        self.priority = _balance.priority(priority)
        self.codec = codec
        self._handlers: dict[tuple[int, str], Handler] = {}
        self._events: dict[str, Handler] = {}

    def __repr__(self) -> str:
        return f"Cluster({self.name!r})"

    @overload
    def on_request(self, function: F, /) -> F: ...
    @overload
    def on_request(self, method: str = "", /) -> Callable[[F], F]: ...
    def on_request(self, function: Any = "", /) -> Any:
        """Answer requests with what the function returns. ``@on_request`` or ``@on_request("method")``.

        An ``async`` function is cancelled when its caller gives up or its deadline passes; a plain one runs in a
        thread and cannot be stopped, but its answer is then thrown away.
        """
        return self._declare(Kind.REQUEST, function)

    @overload
    def on_push(self, function: F, /) -> F: ...
    @overload
    def on_push(self, method: str = "", /) -> Callable[[F], F]: ...
    def on_push(self, function: Any = "", /) -> Any:
        """Take pushes. Nobody waits for the handler, and no deadline stops it."""
        return self._declare(Kind.PUSH, function)

    @overload
    def on_broadcast(self, function: F, /) -> F: ...
    @overload
    def on_broadcast(self, method: str = "", /) -> Callable[[F], F]: ...
    def on_broadcast(self, function: Any = "", /) -> Any:
        """Take broadcasts. Nobody waits for the handler, and no deadline stops it."""
        return self._declare(Kind.BROADCAST, function)

    @overload
    def on_survey(self, function: F, /) -> F: ...
    @overload
    def on_survey(self, method: str = "", /) -> Callable[[F], F]: ...
    def on_survey(self, function: Any = "", /) -> Any:
        """Answer surveys with what the function returns; as :meth:`on_request` otherwise."""
        return self._declare(Kind.SURVEY, function)

    @overload
    def on_tunnel(self, function: F, /) -> F: ...
    @overload
    def on_tunnel(self, method: str = "", /) -> Callable[[F], F]: ...
    def on_tunnel(self, function: Any = "", /) -> Any:
        """Serve tunnels. The function gets an :class:`iris_client.Tunnel`, a plain one an ``iris_client.sync.Tunnel``.

        Returning finishes the tunnel and discards what was not read; raising breaks it at both ends. ``Reject``
        before the first use of the tunnel refuses it.
        """
        return self._declare(Kind.TUNNEL, function)

    def on_event(self, topic_filter: str, /) -> Callable[[F], F]:
        """Take events as a group: each goes to one member of the cluster.

        Events of one topic are handled one after another, in order; those of different topics at the same time, up
        to ``concurrency``.
        """
        _names.topic_filter(topic_filter)

        def declare(function: F) -> F:
            if topic_filter in self._events:
                raise InvalidCall(f"cluster {self.name!r} already handles events of {topic_filter!r}")
            self._events[topic_filter] = Handler(function, f"{self.name}[{topic_filter}]", Kind.EVENT)
            return function

        return declare

    def _declare(self, kind: Kind, given: Any) -> Any:
        if isinstance(given, str):
            method = _names.method(given)
            return lambda function: self._add(kind, method, function)
        return self._add(kind, "", given)

    def _add(self, kind: Kind, method: str, function: Any) -> Any:
        if not callable(function):
            raise InvalidCall(f"a handler is a function, not {type(function).__name__}")
        if (kind, method) in self._handlers:
            named = f"method {method!r}" if method else "no method"
            raise InvalidCall(f"cluster {self.name!r} already has a {kind.name.lower()} handler for {named}")
        own_name = getattr(function, "__name__", type(function).__name__)
        self._handlers[kind, method] = Handler(function, f"{self.name}.{own_name}", kind)
        return function

    # ------------------------------------------------ for the SDK's own use

    @property
    def patterns(self) -> Pattern:
        """What the declared handlers handle."""
        bits = Pattern(0)
        for kind, _ in self._handlers:
            bits |= _PATTERNS[kind]
        return bits

    def handlers(self) -> dict[tuple[int, str], Handler]:
        """Every handler by kind and method, annotations read.

        Raises:
            InvalidCall: A handler does not take one argument, or has annotations nobody knows; or there is none.
        """
        if not self._handlers and not self._events:
            raise InvalidCall(f"cluster {self.name!r} has no handlers: declare one with @on_request, @on_push, ...")
        return {key: handler.resolve(self.codec) for key, handler in self._handlers.items()}

    def event_handlers(self) -> dict[str, Handler]:
        """Every event handler by topic filter, annotations read."""
        return {topic: handler.resolve(self.codec) for topic, handler in self._events.items()}
