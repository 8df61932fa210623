"""Surveys, as apps hold them."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from iris_client._calls import SurveyCall
from iris_client._model import Answer

if TYPE_CHECKING:
    from iris_client._mesh import Mesh


class Survey:
    """One survey; made by :meth:`Mesh.survey`. Iterate over the answers; it ends early when all have answered.

    Attributes:
        asked: Everyone who was asked. Complete once the iteration has ended.
        answered: Who answered, with an error or without.
        silent: Who was asked and did not answer.
    """

    def __init__(self, mesh: Mesh, call: SurveyCall) -> None:
        self._mesh = mesh
        self._call = call
        self._changed = asyncio.Event()
        self._entered = False
        call.changed = self._changed.set

    @property
    def asked(self) -> tuple[str, ...]:
        return self._call.asked

    @property
    def answered(self) -> tuple[str, ...]:
        return tuple(self._call.answered)

    @property
    def silent(self) -> tuple[str, ...]:
        answered = self._call.answered
        return tuple(member for member in self._call.asked if member not in answered)

    async def __aenter__(self) -> Survey:
        """Ask.

        Raises:
            Overloaded: Too much already waits in this process.
        """
        if self._entered:
            raise RuntimeError("a survey is entered once; make another with mesh.survey(...)")
        self._entered = True
        self._mesh._open(self._call)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mesh._cancel(self._call)

    def __aiter__(self) -> Survey:
        return self

    async def __anext__(self) -> Answer:
        """Return the next answer. Cancelling loses nothing.

        Raises:
            DeliveryError: The survey itself failed: nobody serves the name, or the daemon was lost.
        """
        if not self._entered:
            raise RuntimeError("not asked yet: use `async with mesh.survey(...) as survey`")
        call = self._call
        while not call.answers:
            if call.failed is not None:
                raise call.failed
            if call.over:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return call.take()
